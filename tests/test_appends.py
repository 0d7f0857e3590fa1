"""The study of several writers, small: both databases can be measured. No test asserts a time."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from decider.log.open import open_reader
from simulator.studies.appends import HEADINGS, KINDS, NO_DISK, TUNED, Kind, Load, measure, rows
from tests.postgres import skip_without_postgres


def test_what_writers_append_is_in_the_log(tmp_path: Path) -> None:
    """A rate of commits that were refused would be a fine one."""
    found = measure(tmp_path / "log.db", Load(writers=2, group=8), 0.3)
    with closing(open_reader(tmp_path / "log.db")) as log:
        assert log.count_decisions() == pytest.approx(found.rate * 0.3)
    assert found.rate == pytest.approx(8 * found.commits)
    assert 0 < found.p50 <= found.p99


def test_postgres_is_measured_with_a_standby() -> None:
    """Each commit waits for it, or there is no answer."""
    skip_without_postgres()
    (line,) = rows([Kind("PostgreSQL", NO_DISK, has_standby=True)], [Load(1, 8)], 0.3)
    assert line.count("|") == len(HEADINGS) + 1
    assert line.startswith("| PostgreSQL | 1 | 8 | ")


def test_each_kind_has_a_name_of_its_own() -> None:
    """Two rows alike say nothing."""
    names = [kind.name for kind in {*KINDS, *TUNED}]
    assert len(names) == len(set(names))
