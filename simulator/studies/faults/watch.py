"""Who leads, and when a model was published last: asked of PostgreSQL some twenty times a second. And what clients were
answered, read from their ledger while they write it. Called by `stage.py`."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psycopg

from simulator.studies.faults.databases import DATABASE, Connection, Database, Sight, look
from simulator.studies.faults.ledger import Decided, Failed, Line, Rewarded, from_text

EVERY = 0.05


class Watch:
    """A thread. writer: the database to ask."""

    def __init__(self, writer: Callable[[], Database]) -> None:
        self.sights: list[Sight] = []
        self._writer = writer
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    @property
    def last(self) -> Sight:
        """Before the first one: nobody leads."""
        return self.sights[-1] if self.sights else Sight(0.0, 0, "", 0.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with suppress(psycopg.Error):
                database = self._writer()
                with database.connect(DATABASE) as connection:
                    self._look_at(connection, database)
            self._stopping.wait(EVERY)

    def _look_at(self, connection: Connection, database: Database) -> None:
        """As long as it is the one that is written."""
        connection.execute("set statement_timeout = 2000")
        while not self._stopping.wait(EVERY) and self._writer() is database:
            self.sights.append(look(connection))

    def stop(self) -> None:
        """No more looks."""
        self._stopping.set()
        self._thread.join()


class Takeover(NamedTuple):
    """Seconds. led: until another leader had the lease. published: from the last publication by the old one to the
    first by the new one; None: neither was seen."""

    led: float | None
    published: float | None


def takeover(sights: Sequence[Sight], at: float) -> Takeover:
    """Of the first new leader after a moment.

    >>> old, new = Sight(1.0, 7, "a", 0.9), Sight(3.0, 8, "b", 0.9)
    >>> takeover([old, new, Sight(4.0, 8, "b", 3.6)], 2.0)
    Takeover(led=1.0, published=2.7)
    """
    before = max((one.epoch for one in sights if one.at < at), default=0)
    after = [one for one in sights if one.at >= at and one.epoch > before]
    if not after:
        return Takeover(None, None)
    last = max((one.published for one in sights if one.epoch <= before), default=0.0)
    first = next((one.published for one in after if one.published > last), None)
    return Takeover(round(after[0].at - at, 3), None if first is None else round(first - last, 3))


class Answers:
    """The clients' ledger as far as it is written. times: of the answers of each host, rising. failed: calls without an
    answer, by code."""

    def __init__(self, path: Path, hosts: Sequence[str]) -> None:
        self._file = path.open(encoding="utf-8")
        self._rest = ""
        self.times: dict[str, list[float]] = {host: [] for host in hosts}
        self.failed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def read(self, expected: Callable[[str], bool]) -> None:
        """What is new. expected: whether clients ask again after that code."""
        *whole, self._rest = (self._rest + self._file.read()).split("\n")
        for line in map(from_text, whole):
            self._note(line, expected)
        for times in self.times.values():
            times.sort()  # two threads may have written in another order than they were answered

    def _note(self, line: Line, expected: Callable[[str], bool]) -> None:
        if isinstance(line, Decided | Rewarded):
            self.times[line.host].append(line.at)
        elif isinstance(line, Failed):
            self.failed[line.code] += 1
            if not expected(line.code):
                self.refused[f"{line.code}: {line.details}"] += 1

    def count(self, host: str, since: float) -> int:
        """Answers since a moment."""
        times = self.times[host]
        return len(times) - bisect_left(times, since)

    def gap(self, host: str, since: float, until: float) -> float:
        """The longest time without an answer of that host that touches the interval; seconds."""
        return longest_gap(self.times[host], since, until)

    def close(self) -> None:
        """Read no more."""
        self._file.close()


def longest_gap(times: Sequence[float], since: float, until: float) -> float:
    """Between two neighbours of rising times, of which one lies between or both around.

    >>> longest_gap([1.0, 2.0, 5.0, 5.5], 2.5, 4.0)
    3.0
    """
    first, last = max(0, bisect_right(times, since) - 1), bisect_left(times, until)
    part = [*times[first : last + 1]]
    if not part:
        return until - since
    if last >= len(times):
        part.append(until)
    return round(max((after - before for before, after in itertools.pairwise(part)), default=0.0), 3)
