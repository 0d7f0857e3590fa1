"""The second part of `make workers`: how soon does every worker serve what was applied or published, under load?

Pauses and resumptions are sent by a client of its own while all connections are busy; a call that is sent after the
reply and still answered as before has met a worker that did not know. When models begin to serve is read from the log,
which says of each decision which process made it by which model.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import grpc

from decider.channel import Credentials, open_channel
from decider.v1.experiment_service_pb2 import PauseExperimentRequest, ResumeExperimentRequest
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub
from simulator.studies.load import Frames, Load, quantile
from simulator.studies.prepared import ID

DECIDED, REFUSED = 0, 9
"""Statuses of calls: OK, and FAILED_PRECONDITION for a paused experiment."""

PAUSED_FOR, RESUMED_FOR = 0.12, 0.18
"""Seconds."""

_PUBLISHED = "select time, model from published where experiment = ? and time > ? order by position"
_DECISIONS = "select build, time, model from decisions where version in ({}) and time > ? order by build, position"


class Answered(NamedTuple):
    """A call: when it was sent and answered, by the monotonic clock in seconds."""

    sent: float
    answered: float
    status: int


class Change(NamedTuple):
    """A pause or a resumption: when it was asked for and replied to. old: the status of calls that do not know it."""

    asked: float
    replied: float
    old: int


class Delays(NamedTuple):
    """Milliseconds: of how many, the median, the one that 95 % do not exceed, the longest."""

    times: int
    median: float
    high: float
    worst: float


def delays(seconds: Iterable[float]) -> Delays:
    """Of these.

    >>> delays([0.001, 0.002, 0.004])
    Delays(times=3, median=2.0, high=4.0, worst=4.0)
    """
    rising = sorted([1000 * one for one in seconds])
    return Delays(len(rising), quantile(rising, 0.5), quantile(rising, 0.95), quantile(rising, 1.0))


class News(NamedTuple):
    """replies: how long pauses and resumptions took. pauses, resumptions: from the reply to the last answer by a worker
    that did not know. models: from the publishing to the last decision of a worker by an older one."""

    replies: Delays
    pauses: Delays
    resumptions: Delays
    models: Delays


def measure_news(
    port: int, db: Path, calls: Sequence[Frames], *, connections: int, changes: int, seconds: float
) -> News:
    """Under that many calls in flight: first models for so many seconds, then as many pauses as resumptions. Raises
    ConnectionError and grpc.RpcError."""
    since = time.time()
    with Load(port, connections=connections) as load:
        for _ in _answers(load, calls, connections, threading.Event(), seconds):
            pass
        until = time.time()
        made: list[Change] = []
        with _changing(port, changes, made) as ended:
            answered = list(_answers(load, calls, connections, ended, 1e9))
    return News(
        delays([one.replied - one.asked for one in made]),
        delays(_late(made, answered, DECIDED)),
        delays(_late(made, answered, REFUSED)),
        delays(_late_models(db, since, until)),
    )


def _answers(
    load: Load, calls: Sequence[Frames], in_flight: int, ended: threading.Event, seconds: float
) -> Iterator[Answered]:
    """Of calls one after the other, until the event or for so long; then of the last ones."""
    clock, sent = time.monotonic, 0
    end = clock() + seconds
    waiting = in_flight
    for _ in range(in_flight):
        load.call(calls[sent % len(calls)], clock())
        sent += 1
    while waiting:
        answers = load.answers(0.1)
        now = clock()
        over = ended.is_set() or now >= end
        for tag, status in answers:
            yield Answered(tag, now, status)
            waiting -= over
            if not over:
                load.call(calls[sent % len(calls)], now)
                sent += 1


@contextmanager
def _changing(port: int, count: int, made: list[Change]) -> Iterator[threading.Event]:
    """A thread that pauses and resumes so many times; the event says that it has ended."""
    ended, failures = threading.Event(), list[grpc.RpcError]()

    def change() -> None:
        try:
            with open_channel(f"127.0.0.1:{port}", Credentials()) as channel:
                stub = ExperimentServiceStub(channel)  # type: ignore[no-untyped-call]
                pause, resume = PauseExperimentRequest(id=ID), ResumeExperimentRequest(id=ID)
                for _ in range(count):
                    made.append(_timed(lambda: stub.PauseExperiment(pause, timeout=10), DECIDED))
                    time.sleep(PAUSED_FOR)
                    made.append(_timed(lambda: stub.ResumeExperiment(resume, timeout=10), REFUSED))
                    time.sleep(RESUMED_FOR)
        except grpc.RpcError as error:
            failures.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield ended
    finally:
        thread.join()
    if failures:
        raise failures[0]


def _timed(change: Callable[[], object], old: int) -> Change:
    asked = time.monotonic()
    change()
    return Change(asked, time.monotonic(), old)


def _late(made: Sequence[Change], answered: Sequence[Answered], old: int) -> Iterator[float]:
    """For each change of that kind, how long after its reply somebody who had called after it was answered as before; 0
    where nobody was. answered: in the order of their answers."""
    ends = [*[change.asked for change in made[1:]], float("inf")]
    at = 0
    for change, end in zip(made, ends, strict=True):
        latest = change.replied
        while at < len(answered) and answered[at].answered < end:
            one = answered[at]
            if one.sent > change.replied and one.status == change.old:
                latest = one.answered
            at += 1
        if change.old == old:
            yield latest - change.replied


def _late_models(db: Path, since: float, until: float) -> list[float]:
    """For each model and process, how long after its publishing it was decided by an older one."""
    span = [round(1_000_000 * one) for one in (since, until)]
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as log:
        published = [one for one in log.execute(_PUBLISHED, (ID, span[0])) if one[0] < span[1] - 500_000]
        versions = [str(row[0]) for row in log.execute("select position from experiments where experiment = ?", (ID,))]
        decided = log.execute(_DECISIONS.format(", ".join(versions)), (span[0],)).fetchall()
    found: list[float] = []
    for _, of_one in groupby(decided, itemgetter(0)):
        found += _late_of_one([(at, model) for _, at, model in of_one], published)
    return found


def _late_of_one(decided: Sequence[tuple[int, int]], published: Sequence[tuple[int, int]]) -> Iterator[float]:
    """decided, published: (microsecond, model), as time went on."""
    at, last = 0, 0
    for time_of, model in published:
        while at < len(decided) and decided[at][1] < model:
            last = decided[at][0]
            at += 1
        yield max(0, last - time_of) / 1_000_000
