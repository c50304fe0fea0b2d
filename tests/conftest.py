from pathlib import Path

import pytest
import yaml

import hiwl  # noqa: F401  (before torchvision, timm)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def committed() -> dict[str, object]:
    """The parameters as committed."""
    content: dict[str, object] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return content
