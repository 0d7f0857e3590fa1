"""Logs with a bit of everything, and what is in them row by row, whichever database they are in: for tests of copies.

Run as a program: FROM, TO and a number; it copies, and kills itself when progress was told so many times.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

from decider.log import transfer
from decider.log.open import LogUrl, copy_log, log_place, open_log, open_to_forget
from decider.log.postgres.transfer import postgres_source
from decider.log.protocol import NewLink, NewUnitReward
from decider.log.sqlite.transfer import sqlite_source
from decider.log.sqlite.writer import SqliteLog
from decider.log.tables import ENTRY_TABLES
from tests.conftest import Clock
from tests.test_log_damage import fill, fill_limited, fill_persons
from tests.test_verify import Drive, eventful

Place = Path | LogUrl


def write_full_log(path: Path) -> None:
    """Every kind of entry and of row beside them; decisions that can be made again, models, totals, forgotten units."""
    clock = Clock()
    with closing(open_log(path, clock=clock)) as log:
        eventful(Drive(log, clock), visits=12)
        log.append([NewLink("unit-1", "unit-2"), NewLink("unit-7", "unit-9"), NewUnitReward("unit-2", "click", 1.0)])
    with closing(open_to_forget(path)) as forgetting:
        forgetting.forget("unit-7", pseudonym=False, context=False, rebuild=False)
        forgetting.forget("unit-8", pseudonym=True, context=False, rebuild=False)


def write_odd_rows(path: Path) -> None:
    """What no decider would decide, but what a log can hold: all kinds of rows, in commits of one and of many."""
    clock = Clock()
    with closing(SqliteLog(path, clock=clock)) as log:
        fill(log, clock)
        fill_limited(log, clock)
        fill_persons(log, clock)


def content(place: Place) -> dict[str, object]:
    """Everything that a copy has to keep."""
    with ExitStack() as opened:
        source: transfer.LogSource
        if isinstance(place, LogUrl):
            source = opened.enter_context(postgres_source(place))
        else:
            source = opened.enter_context(sqlite_source(place, place.name))
        return {
            "head": source.head,
            "start": source.chain_start(),
            "marks": [tuple(row) for row in source.marks()],
            "signatures": list(source.signatures()),
            "models": list(source.models()),
            "checkpoints": list(source.checkpoints()),
            **{table.name: [tuple(map(repr, row)) for row in source.entries(table)] for table in ENTRY_TABLES},
            **{one.name: sorted(map(repr, map(tuple, source.side_rows(one)))) for one in transfer.SIDE_TABLES},
        }


def quiet(_: str) -> None:
    """Of progress."""


def copy_and_die(source: Place, place: Place, step: int) -> None:
    """SIGKILL to this process in the midst of a copy."""
    told = count(1)

    def say(_: str) -> None:
        if next(told) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    transfer.TELL_EVERY = 20
    copy_log(source, place, say=say)


if __name__ == "__main__":
    copy_and_die(log_place(sys.argv[1]), log_place(sys.argv[2]), int(sys.argv[3]))
