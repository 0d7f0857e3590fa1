"""`decider copy`: a log in another database is the same log, or there is none."""

from __future__ import annotations

import json
import math
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings

from decider.errors import LogCorrupt, LogError, LogLocked
from decider.log.open import LogUrl, copy_log, log_place, open_log, open_reader
from decider.log.place import name_of
from decider.log.protocol import EventLog, LogReader, Mark, NewReward, Tick
from decider.server.command import main
from decider.types import START, ExperimentId, Position, Time
from simulator.verify import verify
from tests.archives import split, trim, write_odd_log
from tests.conftest import Clock
from tests.copied_logs import content, quiet, write_odd_rows
from tests.lift_logs import visits_db
from tests.postgres import PostgresServer, damages
from tests.test_log_readers import Step, Writer, steps, write

DATA = Path(__file__).parent / "data"

HOME = ExperimentId("home")


@pytest.fixture
def full(full_log: Path) -> Path:
    """A log with everything that a copy has to keep."""
    return full_log


@pytest.fixture
def url(postgres_url: str) -> LogUrl:
    """Of a log that is not there yet."""
    return LogUrl(postgres_url)


def decider(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, [arg if isinstance(arg, LogUrl) else str(arg) for arg in arguments])


def assert_whole(log: LogReader) -> None:
    """Nothing is damaged, and every decision is made again as it was."""
    assert log.check(lambda _: None) == []
    result = verify(log)
    assert result.first is None, result.first
    assert result.decisions == result.equal > 80


@pytest.mark.parametrize("places", ["sqlite", "postgres", "sqlite postgres", "postgres postgres", "postgres sqlite"])
def test_a_copy_is_the_same_log(full: Path, places: str, postgres: PostgresServer, tmp_path: Path) -> None:
    """By whichever way it went: rows, commits, checksum, models, totals; and each decision can be made again."""
    place: Path | LogUrl = full
    for number, kind in enumerate(places.split()):
        source = place
        place = LogUrl(postgres.new_schema()) if kind == "postgres" else tmp_path / f"{number}.db"
        copied = copy_log(source, place, say=quiet)
        assert copied.models == len(content(full)["models"]) > 0  # type: ignore[arg-type]
    assert content(place) == content(full)
    with closing(open_reader(place)) as log, closing(open_reader(full)) as original:
        assert log.head() == original.head()
        assert log.removals() == original.removals() != []
        assert log.models.signatures(HOME) == original.models.signatures(HOME)
        assert_whole(log)


@pytest.mark.parametrize("make", [write_odd_rows, lambda path: write_odd_log(path, Clock())], ids=["rows", "texts"])
def test_odd_rows_come_back_as_they_were(make: object, url: LogUrl, tmp_path: Path) -> None:
    """Hostile texts, numbers at the ends of their ranges, every table that is no entry."""
    make(tmp_path / "odd.db")  # type: ignore[operator]
    copy_log(tmp_path / "odd.db", url, say=quiet)
    copy_log(url, tmp_path / "back.db", say=quiet)
    assert content(url) == content(tmp_path / "odd.db") == content(tmp_path / "back.db")


@settings(max_examples=8)
@given(script=steps)
def test_any_log_goes_there_and_back(script: Sequence[Step], postgres: PostgresServer) -> None:
    """Whatever happened in it."""
    with TemporaryDirectory() as folder:
        here, back = Path(folder, "log.db"), Path(folder, "back.db")
        with closing(open_log(here, clock=(clock := Clock()))) as log:
            write(Writer(log, clock), script)
        there = LogUrl(postgres.new_schema())
        copy_log(here, there, say=quiet)
        copy_log(there, back, say=quiet)
        assert content(here) == content(there) == content(back)


@pytest.mark.parametrize("name", ["log-0.1.0-wide.db", "log-0.1.0-chained.db"])
def test_logs_of_older_releases_are_copied(name: str, url: LogUrl) -> None:
    """With the entries of which the checksum was computed at an upgrade, which the copy says as well."""
    copied, at_no_time = copy_log(DATA / name, url, say=quiet), Mark(START, Time(0))
    with closing(open_reader(DATA / name)) as old, closing(open_reader(url)) as new:
        assert damages_of(new) == []
        assert (new.chain_start() or at_no_time).position == (old.chain_start() or at_no_time).position
        assert verify(new) == verify(old)
    assert copied.head.position > 100


def damages_of(log: LogReader) -> list[str]:
    """Of the whole log."""
    return [str(one) for one in log.check(lambda _: None)]


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_a_copy_is_written_on(full: Path, kind: str, url: LogUrl, tmp_path: Path) -> None:
    """It is a log, not a picture of one: keys refuse what is there, units keep what they keep, order goes on."""
    place = url if kind == "postgres" else tmp_path / "copy.db"
    copy_log(full, place, say=quiet)
    clock = Clock()
    clock.advance(3_600)
    with closing(open_log(place, clock=clock)) as log:
        end = log.head()
        again = next(iter(log.decisions(log.versions_with_decisions()[0]))).decision
        (refused, tick) = log.append([again, Tick()])
        assert refused is None
        assert tick is not None
        assert tick.position == end.position + 1
        log.append([NewReward(Position(first_decision(log)), "click", 1.0, reward_id="late")])
        log.maintain()
        assert damages(log) == []


def first_decision(log: EventLog) -> int:
    """Its position."""
    return min(one.position for one in log.decisions(log.versions_with_decisions()[0]))


# --- what is refused


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_a_log_with_entries_is_not_written_over(full: Path, kind: str, url: LogUrl, tmp_path: Path) -> None:
    """A slip in TO must cost nothing. An empty log is nothing."""
    place = url if kind == "postgres" else tmp_path / "log.db"
    open_log(place).close()
    with closing(open_log(place)) as log:
        log.append([Tick()])
    ran = decider("copy", full, place)
    assert ran.exit_code == 1
    assert "is a log with 1 entries already, and nothing is written over; name an empty place" in ran.output
    with closing(open_reader(place)) as log:
        assert log.head().position == 1


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_an_empty_log_is_filled(full: Path, kind: str, url: LogUrl, tmp_path: Path) -> None:
    """`decider serve --db TO`, started to try it out, has made one."""
    place = url if kind == "postgres" else tmp_path / "log.db"
    open_log(place).close()
    copy_log(full, place, say=quiet)
    assert content(place) == content(full)


def test_a_log_is_not_copied_over_itself(full: Path) -> None:
    """Nor made anew."""
    before = full.read_bytes()
    with pytest.raises(LogError, match="nothing is written over"):
        copy_log(full, full, say=quiet)
    assert full.read_bytes() == before


def test_a_log_that_is_written_is_not_replaced(full: Path, tmp_path: Path) -> None:
    """Its server would write on in a file without a name."""
    with closing(open_log(tmp_path / "log.db")), pytest.raises(LogLocked, match="another server writes this log"):
        copy_log(full, tmp_path / "log.db", say=quiet)


def test_a_log_with_an_archive_is_refused(url: LogUrl, tmp_path: Path) -> None:
    """It is not whole: PostgreSQL would have a log that begins in the middle."""
    path = tmp_path / "log.db"
    write_odd_log(path, Clock())
    trim(path, split(path, tmp_path / "parts")[:1])
    ran = decider("copy", path, url)
    assert ran.exit_code == 1
    assert "lie in an archive, and only whole logs are copied; keep this log" in ran.output


@pytest.mark.parametrize("sql", [
    "update decisions set unit_id = 'x' where position = (select max(position) from decisions)", "delete from ticks",
    "update models set data = zeroblob(length(data))",
])  # fmt: skip
def test_a_damaged_log_is_not_copied(full: Path, sql: str, url: LogUrl, tmp_path: Path) -> None:
    """With new checksums nobody would see it any more."""
    path = Path(shutil.copy(full, tmp_path / "log.db"))
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(sql).rowcount
    for place in (url, tmp_path / "copy.db"):
        with pytest.raises(LogCorrupt, match="says more"):
            copy_log(path, place, say=quiet)
    assert not (tmp_path / "copy.db").exists()
    with psycopg.connect(url) as there:
        assert there.execute("select position from head").fetchone() == (0,)


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_a_killed_copy_leaves_no_log_and_is_begun_again(full: Path, kind: str, url: LogUrl, tmp_path: Path) -> None:
    """At any step: half a log that looks whole would be served."""
    place = url if kind == "postgres" else tmp_path / "log.db"
    address = place if isinstance(place, LogUrl) else str(place)
    for step in (1, 6, 11):
        command = [sys.executable, "-m", "tests.copied_logs", str(full), address, str(step)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        if isinstance(place, Path):
            assert not place.exists()
        else:
            with closing(open_reader(place)) as log:
                assert log.head().position == 0
                assert log.versions() == []
    copy_log(full, place, say=quiet)
    assert content(place) == content(full)
    assert [one.name for one in tmp_path.iterdir()] == (["log.db"] if kind == "sqlite" else [])


# --- the command


def test_the_command_says_what_there_is(full: Path, url: LogUrl, tmp_path: Path) -> None:
    """In words, and for scripts."""
    ran = decider("copy", full, url)
    assert ran.exit_code == 0, ran.output
    with closing(open_reader(full)) as log:
        end = log.head().position
    assert f"copied up to position {end}, " in ran.output
    assert "stored models; checked, nothing is damaged" in ran.output
    assert f"{name_of(url)}: copied" in ran.output
    told = json.loads(decider("copy", url, tmp_path / "back.db", "--json").output)
    assert (told["position"], told["behind"], told["to"]) == (end, 0, str(tmp_path / "back.db"))


def test_entries_that_come_meanwhile_are_told(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of FROM was not ended: what it writes is in FROM alone."""
    path = Path(shutil.copy(full, tmp_path / "log.db"))

    def copy_and_write(source: Path, place: Path, **how: object) -> object:
        copied = copy_log(source, place, **how)  # type: ignore[arg-type]
        with closing(open_log(path)) as log:
            log.append([Tick(), Tick()])
        return copied

    monkeypatch.setattr("decider.server.copy_command.copy_log", copy_and_write)
    ran = decider("copy", path, tmp_path / "copy.db")
    assert f"{path} has got 2 entries meanwhile, which are not in the copy: end its servers" in ran.output


def test_a_place_that_cannot_be_is_refused(full: Path, tmp_path: Path) -> None:
    """Before anything is copied."""
    for place, text in ((tmp_path / "no" / "log.db", "there is no such folder"), (tmp_path / "a-wal", "take another")):
        ran = decider("copy", full, place)
        assert (ran.exit_code, text in ran.output) == (1, True), ran.output
    assert "there is no such log" in decider("copy", tmp_path / "missing.db", tmp_path / "a.db").output
    assert log_place("a.db") == Path("a.db")


# --- what people read


SUMMARIES = {
    "rewarded_decisions": ("position",),
    "action_sums": ("version", "action"),
    "action_summary": ("experiment", "action"),
    "holdout_summary": ("experiment", "experiment_version", "group"),
    "sealed_decisions": ("position",),
}
"""With the columns that tell rows apart."""


@pytest.mark.parametrize("make", [write_odd_rows, visits_db, None], ids=["rows", "holdout", "full"])
def test_views_of_a_copied_log_are_equal(make: Any, full: Path, url: LogUrl, tmp_path: Path) -> None:
    """A query for one database is a query for the other: same rows, same columns, numbers up to the order of adding."""
    path = tmp_path / "log.db"
    if make is None:
        copy_log(full, path, say=quiet)
    else:
        make(path)
    copy_log(path, url, say=quiet)
    with psycopg.connect(url) as there, closing(sqlite3.connect(path)) as here:
        for view in SUMMARIES:
            keys, rows = summary(here, view)
            other_keys, others = summary(there, view)
            assert (view, keys) == (view, other_keys)
            assert len(rows) == len(others), view
            when = keys.index("decided_at") if "decided_at" in keys else -1
            for row, other in zip(rows, others, strict=True):
                row[when] = other[when] if when >= 0 else row[when]  # half a millisecond is rounded up or down
                assert all(map(are_alike, row, other)), (view, row, other)
            assert rows or view == "holdout_summary"


def summary(connection: Any, view: str) -> tuple[list[str], list[list[Any]]]:
    """Columns by name, and rows in one order. `action_sums` is read in sums by its key: its rows are pieces of them."""
    what = f"select * from {view}"  # noqa: S608 - our names
    if view == "action_sums":
        sums = ("decisions", "drawn", "propensity", "inverse", "squared", "rewarded", "reward", "weighted")
        columns = ", ".join(f"sum({name}) as {name}" for name in (*sums, "weighted_squared"))
        what = f"select version, action, {columns} from action_sums group by version, action having sum(decisions) > 0"  # noqa: S608
    cursor = connection.execute(what)
    names = [one[0] for one in cursor.description]
    places = sorted(range(len(names)), key=names.__getitem__)
    rows = [[_plain(row[place]) for place in places] for row in cursor.fetchall()]
    key = [sorted(names).index(name) for name in SUMMARIES[view]]
    return sorted(names), sorted(rows, key=lambda row: [row[place] for place in key])


def are_alike(one: object, other: object) -> bool:
    """Numbers up to the order of adding."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return one == other


def _plain(value: Any) -> Any:
    """Numbers of every kind as those of SQLite."""
    return float(value) if isinstance(value, Decimal) else value
