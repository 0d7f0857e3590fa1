"""Logs cut into parts of an archive, for tests. `trim` is what is left of a log, without what an archive run keeps."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from decider.log.archive.part import Part, finish_part
from decider.log.archive.write import start_of, write_part
from decider.log.commits import head_after
from decider.log.open import open_log, open_reader
from decider.log.protocol import (
    Head,
    ModelName,
    NewActivation,
    NewModel,
    NewReward,
    NewRewardChange,
    NewVersion,
    Orphan,
    Serves,
    Tick,
)
from decider.log.sqlite.archived import KEPT, digest_of_cut, digest_of_entries, digest_of_models
from decider.log.sqlite.commits import commits, originals
from decider.log.sqlite.trim import DELETED
from decider.log.tables import ENTRY_TABLES
from decider.types import ActionId, Context, ExperimentId, Position, Time
from tests.conftest import Clock, sample_experiment
from tests.two_writers import decision

HOME = ExperimentId("home")

HOSTILE = ("", "|", "a\x00b", "\u2028", "größe 😀", "'; drop table decisions; --", "x" * 3000, "null", "[1, 2]", "\x7f")


def write_odd_log(path: Path, clock: Clock, rounds: int = 20) -> None:
    """Every kind of entry with hostile texts, numbers at the ends of their ranges, nulls, late and refused rewards."""
    with closing(open_log(path, clock=clock)) as log:
        log.append([NewVersion(sample_experiment(), 1, waits=True)])
        version = log.versions()[-1]
        log.name_build({"decider": "größe 😀"})
        log.append([Serves(version.position)])
        for number in range(rounds):
            text = HOSTILE[number % len(HOSTILE)]
            context = Context(text, "", text, "", "cart", {text or "none": text, "big": 1e300, "zero": -0.0})
            made = [decision(version, f"{number}-{i}-{text}", text or "unit", context=context) for i in range(3)]
            made[1] = made[1]._replace(eligible=version.all_active[:2], pmf=(500_000, 500_000), propensity=0.5)
            made[2] = made[2]._replace(action_features={ActionId("sale"): {"price": 0.1}}, context=Context())
            first, second, third = [mark.position for mark in log.append(made) if mark]
            log.append(
                [NewReward(first, text or "click", -0.0, 0.0, text or None, Time(2**62)), NewReward(first, "b", 0.1)]
            )
            log.append([NewReward(first, text or "click", 1.0, 1.0, "twice"), NewReward(first, "x", 1.0, 1.0, "twice")])
            log.append([NewActivation(second, ActionId("none")), NewActivation(third), Orphan(text or "click"), Tick()])
            log.append(
                [NewRewardChange(first, "twice", 0.25, "x"), NewRewardChange(third, text or "id", None, "click")]
            )
            log.append([NewModel(ModelName(HOME, first, f"signature {text}"), learned=number)])
            clock.advance(number % 3 * 4)
            log.append([NewReward(first, "late", 0.3), NewReward(second, "perhaps late", 0.7, final=number % 2 > 0)])
        clock.advance(60)
        log.append([Tick()])


def ends(log: Path) -> list[Head]:
    """The ends of all commits, in order."""
    with closing(sqlite3.connect(log)) as connection:
        (last,) = connection.execute("select position from head").fetchone()
        head, found = start_of(log), []
        before = originals(connection)
        for commit in commits(connection, ENTRY_TABLES, until=Position(last)):
            head = head_after(head, commit, before)
            found.append(head)
    return found


def archive(log: Path, folder: Path, cuts: Sequence[Head]) -> list[Part]:
    """The parts up to each of the cuts, finished."""
    parts = []
    after = start_of(log)
    for until in cuts:
        name = f"{log.stem}-{after.position + 1}-{until.position}"
        parts.append(finish_part(write_part(log, after=after, until=until, folder=folder, name=name)))
        after = until
    return parts


def split(log: Path, folder: Path, count: int = 3) -> list[Part]:
    """The whole log in about equal parts."""
    found = ends(log)
    return archive(log, folder, [found[len(found) * number // count - 1] for number in range(1, count + 1)])


_KEEP_STORED = """
insert into kept_models select distinct p.position from models m join signatures s on s.signature = m.signature
join published p on p.experiment = m.experiment and p.signature = s.id and p.model = m.position where p.position <= ?
"""
_DELETE_MODELS = """
delete from published where position <= ? and position not in (select k.position from kept_models k)
"""


def trim(log: Path, parts: Sequence[Part]) -> None:
    """Take the entries of parts out of a log."""
    last = parts[-1].until
    with closing(sqlite3.connect(log)) as connection, connection:
        for part in parts:
            row = {"first": part.first, "last": part.last, "time": part.until.time, "path": str(part.folder)}
            insert(connection, "archives", row | {"digest": part.digest})
        zeros = dict.fromkeys(("counted", "sealed", "remember", "archived"), 0)
        insert(
            connection,
            "cut",
            {"position": last.position, "time": last.time, "chain": last.chain, "digest": "", **zeros},
        )
        connection.execute(_KEEP_STORED, (last.position,))
        for table in DELETED:
            connection.execute(f"delete from {table} where position <= ?", (last.position,))  # noqa: S608
        connection.execute("delete from marks where position < ?", (last.position,))
        connection.execute(_DELETE_MODELS, (last.position,))
        entries, models = (
            digest_of_entries(connection, KEPT, last.position),
            digest_of_models(connection, last.position),
        )
        connection.execute("update cut set digest = ?", (digest_of_cut(connection, entries=entries, models=models),))


def insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    """A row, by the names of its columns."""
    names, places = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"insert into {table} ({names}) values ({places})", tuple(row.values()))  # noqa: S608


def raw_rows(log: Path) -> Iterator[tuple[str, list[Any]]]:
    """Every row of every entry table, as the chain covers it, with its types."""
    with closing(sqlite3.connect(log)) as connection:
        for table in ENTRY_TABLES:
            yield table.name, [tuple(map(repr, row)) for row in connection.execute(table.select, (0, 2**62))]


def everything(path: Path, **how: Any) -> list[object]:
    """What readers are told of a log."""
    with closing(open_reader(path, **how)) as log:
        versions = [(one.position, one.number, one.time, one.experiment) for one in log.versions()]
        found: list[object] = [log.head(), versions, log.builds(), log.refused_rewards(), log.chain_start()]
        for version in log.versions():
            found.append(list(log.decisions(version.position)))
            found.append(list(log.rewards_between("", "\U0010ffff")))
            found.append(log.models.signatures(version.experiment.id))
            found.append(list(log.sealed_decisions(version.experiment.id, after=Time(0), until=log.head().time)))
            found += [
                batch.to_pylist() for batches in log.arrow(version.experiment.id, log.head()) for batch in batches
            ]
        assert log.check(lambda _: None) == []
        return found
