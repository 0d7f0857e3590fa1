"""Writes a study's tables between its markers in RESULTS.md. Called by the studies' `--publish`."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent / "RESULTS.md"

Markers = tuple[str, str]
"""The lines before and behind a study's tables."""


def write_results(text: str, markers: Markers, page: Path = PAGE) -> None:
    """Put the text where the study's tables stand. Raises ValueError where the page has no such markers."""
    page.write_text(placed(page.read_text(encoding="utf-8"), text, markers), encoding="utf-8")


def placed(page: str, text: str, markers: Markers) -> str:
    """The page with the text between the markers. Raises ValueError where it has none.

    >>> placed("a <!-- x -->old<!-- /x --> b", "new", ("<!-- x -->", "<!-- /x -->"))
    'a <!-- x -->new<!-- /x --> b'
    """
    begin, end = markers
    if begin not in page or end not in page:
        raise ValueError(f"the page lacks {begin.strip()}")
    return re.sub(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", lambda _: text, page, flags=re.DOTALL)
