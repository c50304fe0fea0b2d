"""Pages and sentences, from Jinja templates."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

Helpers = Mapping[str, Callable[..., Any]]
NONE: Helpers = MappingProxyType({})


def page(template: Path, values: Mapping[str, Any], helpers: Helpers = NONE) -> str:
    """A template that stands beside the code that fills it, filled; what goes into HTML is escaped."""
    return fill(template.read_text(), values, helpers, is_html=".html" in template.name)


def fill(text: str, values: Mapping[str, Any], helpers: Helpers = NONE, is_html: bool = False) -> str:
    """The template `text` filled with `values`, all of which it has to be given.

    It may use `helpers` as functions and as filters.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=is_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(helpers)
    environment.filters.update(helpers)
    return environment.from_string(text).render(values)
