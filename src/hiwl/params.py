"""Sections of ``params.yaml``: typed, frozen, strict.

Every stage states its own section as a subclass of :class:`Section` in its own module, so that a change to one
stage's parameters is no change to another stage's code. This module only reads and explains.
"""

import json
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from hiwl.errors import HiwlError

PARAMS = Path("params.yaml")
SECTIONS = ("raw", "select", "split", "pack", "hierarchy", "train", "choose", "register")


class Section(BaseModel):
    """Base of every parameter class: unknown keys, wrong types and later changes are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def parse(cls, values: Any, where: str = "", file: Path = PARAMS) -> Self:
        """Check `values` of the section `where` of params.yaml, or of another file where `file` names it.

        Raises:
            HiwlError: naming every wrong key, its value and what was expected.
        """
        try:
            # Through JSON, where strict mode takes a list for a tuple.
            return cls.model_validate_json(json.dumps(values))
        except ValidationError as error:
            raise HiwlError("\n".join(_explain(problem, where, file) for problem in error.errors())) from None


def read_section(name: str, path: Path = PARAMS) -> Any:
    """One section of the parameters file, unchecked.

    Raises:
        HiwlError: where the file is missing or no YAML, holds an unknown section, or lacks this one.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise HiwlError(f"{path.absolute()}: not there. Run hiwl in the project's root.") from None
    except yaml.YAMLError as error:
        raise HiwlError(f"{path}: no YAML: {error}") from None
    if not isinstance(content, dict):
        raise HiwlError(f"{path}: expected the sections {', '.join(SECTIONS)}, found {type(content).__name__}")
    if unknown := set(content) - set(SECTIONS):
        raise HiwlError(f"{path}: unknown section {', '.join(sorted(unknown))}; expected {', '.join(SECTIONS)}")
    if name not in content:
        raise HiwlError(f"{path}: section {name} is missing")
    return content[name]


def _explain(problem: Any, where: str, file: Path) -> str:
    key = ".".join(str(part) for part in (where, *problem["loc"]) if part != "")
    if problem["type"] == "extra_forbidden":
        return f"{file}: {key}: no such parameter (value {problem['input']!r})"
    if problem["type"] == "missing":
        return f"{file}: {key}: is missing"
    return f"{file}: {key}: {problem['msg']} (value {problem['input']!r})"
