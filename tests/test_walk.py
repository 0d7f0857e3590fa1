"""The way of one Decide through the files stays as short as it is: a newcomer has to read along it."""

from __future__ import annotations

from pathlib import Path

from simulator.studies.walk import decide_walk


def test_one_decide_enters_few_files_and_comes_back_seldom(tmp_path: Path) -> None:
    """Sixteen files and six returns, before the log dealt the order and policies took typed choices."""
    walk = decide_walk(tmp_path / "walk.db")
    assert len(walk.files) <= 14, walk.files
    assert walk.returns <= 2, walk.stays
