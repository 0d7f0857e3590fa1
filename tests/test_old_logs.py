"""Identity over releases: a small log of every released version stays in tests/data and still replays."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from decider.log.sqlite.log import SqliteReader

from simulator.verify import verify

LOGS = sorted((Path(__file__).parent / "data").glob("*.db"))


def test_there_is_a_log_of_this_release() -> None:
    """Made when a version is released, by `simulator demo --exit --visitors 150 --db tests/data/log-VERSION.db` three
    times, so that the later runs are served by what the earlier ones taught."""
    assert "log-0.1.0.db" in [path.name for path in LOGS]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_log_of_an_earlier_release_still_replays(path: Path, tmp_path: Path) -> None:
    """Whoever upgrades keeps the right to audit."""
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    with closing(SqliteReader(copy)) as log:
        result = verify(log)
        models = {logged.decision.model for v in log.versions() for logged in log.decisions(v.position)}
    assert result.first is None, result.first and result.first.what
    assert result.equal == result.decisions == 450
    assert len(models) >= 3
