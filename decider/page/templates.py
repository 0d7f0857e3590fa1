"""Makes HTML of templates; every name in it came with a log or a command line, and is written as text.

Called by the page beside this file and by the simulator's reports: they share the base, its macros and its style.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from decider import text

SHARED = Path(__file__).parent
"""The templates that every page is made with."""


Filters = Mapping[str, Callable[..., Any]]


def environment(*folders: Path, filters: Filters = MappingProxyType({})) -> Environment:
    """The templates of some folders and the shared ones, and how their figures are written; filters: more of those."""
    made = Environment(
        loader=FileSystemLoader([*folders, SHARED]),
        autoescape=True,
        finalize=_clean,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # the code stays as it is, too
    )
    shared: Filters = {
        "figure": text.figure,
        "count": text.count,
        "words": lambda name: name.replace("_", " "),
    }
    made.filters |= {**shared, **filters}
    return made


def _clean(value: Any) -> Any:
    """Plain texts pass through here on their way into the page; `Markup` is the template's own."""
    return text.printable(value) if type(value) is str else value
