"""The tour of what a decision can mean: everything comes out as the texts say, and the log replays."""

from __future__ import annotations

from pathlib import Path

from simulator.studies.tour.__main__ import SCENES, play


def test_every_point_comes_out_as_said(tmp_path: Path) -> None:
    """`play` raises where something does not."""
    found = play(tmp_path / "tour.db", SCENES)
    assert found.decisions > 30
    assert found.equal == found.decisions
