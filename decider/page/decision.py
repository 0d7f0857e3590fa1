"""The page of one decision: HTML without a script, readable at 400 px. Every text in it came with a call or a log, and
is written as text. Called by `server/http/decisions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from decider.replay.words import figure, percent, printable, value_text

TONES = {"equal": "fine", "different": "do-not-use", "unchecked": "caution"}
"""How the result of making a decision again looks."""


def decision_page(account: Mapping[str, Any], *, command: str) -> str:
    """account: `words.to_json` of an explanation. command: that says the same in a terminal."""
    return _template("decision").render(account=account, tone=TONES[account["check"]["result"]], command=command)


def missing_page(text: str) -> str:
    """Where there is nothing to explain, and why."""
    return _template("no_decision").render(text=text)


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "percent": percent, "value": value_text}
    return environment.get_template(f"{name}.html.j2")
