"""Sections of ``params.yaml``: typed, frozen, strict. ``hiwl.params`` has the file as a whole."""

import json
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from hiwl.core.errors import HiwlError

PARAMS = Path("params.yaml")


class Section(BaseModel):
    """Base of every parameter class: unknown keys, wrong types and later changes are refused.

    A field that is added later has a neutral default: one with which results are what they were without it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def parse(cls, values: Any, where: str = "", file: Path = PARAMS) -> Self:
        """Check `values` of the section `where` of params.yaml, or of another `file`.

        Raises:
            HiwlError: naming every wrong key, its value and what was expected.
        """
        try:
            # Through JSON, where strict mode takes a list for a tuple.
            return cls.model_validate_json(json.dumps(values))
        except ValidationError as error:
            raise HiwlError("\n".join(_explain(problem, where, file) for problem in error.errors())) from None


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """The parameters file by section, unchecked.

    Raises:
        HiwlError: the file is missing, or is not YAML with sections.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise HiwlError(f"{path.absolute()}: not found. Run hiwl in the project's root folder.") from None
    except yaml.YAMLError as error:
        raise HiwlError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise HiwlError(f"{path}: expected sections such as `train`, found {type(content).__name__}")
    return content


_read: dict[str, Any] = {}
"""What this command has read of params.yaml so far."""


def read_section(name: str) -> Any:
    """One section of params.yaml, or one value (`raw.survey`), unchecked; remembered for :func:`check_unchanged`.

    Raises:
        HiwlError: as :func:`read_params`, or it is missing.
    """
    _read[name] = _value(name)
    return _read[name]


def check_unchanged() -> None:
    """See to it that params.yaml still says what this command has read: DVC writes down what stands there at the end.

    Raises:
        HiwlError: naming what was edited meanwhile.
    """
    if changed := [name for name, value in _read.items() if _value(name) != value]:
        raise HiwlError(
            f"{PARAMS} was edited while this stage ran: {', '.join(changed)}. What it made is of the old values, so "
            "it does not count as done; run it again"
        )


def forget_read() -> None:
    """A command begins."""
    _read.clear()


def _value(name: str) -> Any:
    value: Any = read_params()
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise HiwlError(f"{PARAMS}: {name} is missing")
        value = value[part]
    return value


def _explain(problem: Any, where: str, file: Path) -> str:
    key = ".".join(str(part) for part in (where, *problem["loc"]) if part != "")
    if problem["type"] == "extra_forbidden":
        return f"{file}: {key}: no such parameter (value {problem['input']!r})"
    if problem["type"] == "missing":
        return f"{file}: {key}: is missing"
    return f"{file}: {key}: {problem['msg']} (value {problem['input']!r})"
