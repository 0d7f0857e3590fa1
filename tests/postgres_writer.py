"""What a process does that writes a log in PostgreSQL beside others. Called by `test_log_postgres.py`."""

from __future__ import annotations

from contextlib import closing

from decider.log.open import LogUrl, open_log
from decider.log.postgres.writer import COPY_FROM
from tests.two_writers import decision

GROUPS = 25


def append_groups(url: str, name: int) -> int:
    """Append decisions in groups of several sizes; how many got a position."""
    with closing(open_log(LogUrl(url))) as log:
        (version,) = log.versions()
        groups = [
            [f"{name}-{group}-{number}" for number in range(1 + group % 3 * (COPY_FROM // 2))]
            for group in range(GROUPS)
        ]
        marks = [mark for ids in groups for mark in log.append([decision(version, id_) for id_ in ids])]
    return sum(mark is not None for mark in marks)
