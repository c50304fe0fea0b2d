"""Pages, from templates that stand beside the code that fills them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def page(template: Path, values: Mapping[str, Any], **helpers: Any) -> str:
    """The Jinja `template` filled with `values`, all of which it has to be given; in HTML they are escaped.

    It may use `helpers` as functions and as filters.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=".html" in template.name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= helpers
    environment.filters |= helpers
    return environment.from_string(template.read_text()).render(values)
