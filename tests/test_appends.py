"""The study of several writers, small: both databases can be measured. No test asserts a time."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from decider.log.open import open_reader
from decider.log.postgres.connection import connect
from simulator.studies.appends import HEADINGS, KINDS, NO_DISK, TUNED, Kind, Load, measure, rows
from simulator.studies.appends import postgres as server_with
from tests.postgres import PostgresServer


def test_what_writers_append_is_in_the_log(tmp_path: Path) -> None:
    """A rate of commits that were refused would be a fine one."""
    found = measure(tmp_path / "log.db", Load(writers=2, group=8), 0.3)
    with closing(open_reader(tmp_path / "log.db")) as log:
        assert log.count_decisions() == pytest.approx(found.rate * 0.3)
    assert found.rate == pytest.approx(8 * found.commits)
    assert 0 < found.p50 <= found.p99


@pytest.mark.usefixtures("postgres")  # skipped where there is none
def test_postgres_is_measured_with_a_standby() -> None:
    """A line of the table."""
    (line,) = rows([Kind("PostgreSQL", NO_DISK, has_standby=True)], [Load(1, 8)], 0.3)
    assert line.count("|") == len(HEADINGS) + 1
    assert line.startswith("| PostgreSQL | 1 | 8 | ")


@pytest.mark.usefixtures("postgres")
def test_each_commit_waits_for_the_standby() -> None:
    """Or its rows are those of a server without one."""
    with server_with(NO_DISK, has_standby=True) as server, psycopg.connect(server.url(), autocommit=True) as primary:
        primary.execute("create table something (number int)")  # which has been answered
        followed = primary.execute("select application_name, sync_state from pg_stat_replication").fetchall()
    assert followed == [("standby", "sync")]


def test_no_kind_changes_what_the_logs_connections_set(postgres: PostgresServer) -> None:
    """It would be measured as it comes, under another name."""
    with closing(connect(postgres.url())) as connection:
        found = connection.execute("select name from pg_settings where source = 'session'").fetchall()
    own = {name for (name,) in found}
    assert "synchronous_commit" in own
    changed = {setting.partition("=")[0] for kind in {*KINDS, *TUNED} for setting in kind.settings or ()}
    assert changed & own == set()


def test_each_kind_has_a_name_of_its_own() -> None:
    """Two rows alike say nothing."""
    names = [kind.name for kind in {*KINDS, *TUNED}]
    assert len(names) == len(set(names))
