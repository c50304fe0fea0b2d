from pathlib import Path

import hypothesis
import pytest
import yaml

import hiwl  # noqa: F401  (before torchvision, timm)

ROOT = Path(__file__).parents[1]

hypothesis.settings.register_profile("untimed", deadline=None)  # tests state behaviour, on however busy a machine
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def committed() -> dict[str, object]:
    """The parameters as committed."""
    content: dict[str, object] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return content
