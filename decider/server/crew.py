"""How a leader sees its workers: whether they serve, and what they have counted. Called by `leading.py`."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from decider.learn.leader import Progress
from decider.metrics.merged import Metric, Several, Source, families, merge
from decider.metrics.workers import WorkerFamilies, WorkerState
from decider.server.board import LEADER, Board, LeaderState, Report, Reporter, lives, worker_name
from decider.server.http.probes import Readiness
from decider.serving.follower import Owner
from decider.types import ExperimentId

SILENT = 3.0
"""Seconds after which a worker that says nothing is taken to be down."""


class Crew(Protocol):
    """Who serves what a leader leads."""

    def judge(self, leader: Readiness) -> Readiness:
        """Whether calls are taken, where that is what the leader says of itself."""
        ...

    def gather(self, own: Source) -> Source:
        """The metrics of all processes, with the leader's own."""
        ...

    def tell(self, progress: Sequence[Progress], held: Mapping[Owner, str], serving: Collection[ExperimentId]) -> None:
        """What the leader knows that is not in the log, and what serves."""

    def forget(self, experiment: ExperimentId) -> None:
        """Metrics name it no longer."""

    def hear(self, state: LeaderState) -> None:
        """What a leader elsewhere has said."""

    @property
    def forgotten(self) -> Sequence[ExperimentId]:
        """Whom metrics name no longer."""
        ...


class NoCrew:
    """The leader's own process serves."""

    def judge(self, leader: Readiness) -> Readiness:
        """See Crew."""
        return leader

    def gather(self, own: Source) -> Source:
        """See Crew."""
        return Several(own, WorkerFamilies(lambda: []))

    def tell(self, progress: Sequence[Progress], held: Mapping[Owner, str], serving: Collection[ExperimentId]) -> None:
        """See Crew."""

    def forget(self, experiment: ExperimentId) -> None:
        """See Crew."""

    def hear(self, state: LeaderState) -> None:
        """See Crew."""

    @property
    def forgotten(self) -> Sequence[ExperimentId]:
        """See Crew."""
        return ()


class Workers:
    """So many workers, each a process of its own that reports on the board."""

    def __init__(self, board: Board, count: int) -> None:
        self._board = board
        self._names = [worker_name(number) for number in range(1, count + 1)]
        self._forgotten: dict[ExperimentId, None] = {}
        self._reporter: Reporter | None = None

    def judge(self, leader: Readiness) -> Readiness:
        """See Crew. They go on where the leader is at a start of its own, or cannot read the log for a moment."""
        problems = self._problems()
        serve = len(problems) < len(self._names)
        if not serve and leader.ready:
            return Readiness(False, "\n".join(["no worker serves", *problems]))
        if serve and not leader.ready:
            return Readiness(True, "\n".join(["ok", f"the leader does not lead yet: {leader.text}", *problems]))
        return Readiness(leader.ready, "\n".join([leader.text, *problems]))

    def _problems(self) -> list[str]:
        """Of those that should get no calls."""
        found = {name: _problem(self._board.read(name)) for name in self._names}
        return [f"{name} {problem}" for name, problem in found.items() if problem]

    def gather(self, own: Source) -> Source:
        """See Crew."""
        self._reporter = Reporter(self._board, LEADER, own)
        return Several(_Counts(self._board, self._names, self._reporter), WorkerFamilies(self._states))

    def _states(self) -> list[WorkerState]:
        reports = [self._board.read(name) for name in self._names]
        return [WorkerState(not _problem(report), report.starts if report else 0) for report in reports]

    def tell(self, progress: Sequence[Progress], held: Mapping[Owner, str], serving: Collection[ExperimentId]) -> None:
        """See Crew."""
        for id_ in self._forgotten.keys() & serving:  # it has begun again
            del self._forgotten[id_]
        self.hear(LeaderState(progress, held, self.forgotten))

    def hear(self, state: LeaderState) -> None:
        """See Crew."""
        self._board.lead(state)
        if self._reporter is not None:
            self._reporter.report("")

    @property
    def forgotten(self) -> Sequence[ExperimentId]:
        """See Crew."""
        return [*self._forgotten]

    def forget(self, experiment: ExperimentId) -> None:
        """See Crew."""
        self._forgotten[experiment] = None
        if self._reporter is not None:
            self._reporter.forget([experiment])


def _problem(report: Report | None) -> str:
    if report is None:
        return "has not started yet"
    if time.monotonic() - report.at > SILENT or not lives(report.pid):
        return f"is down since {time.monotonic() - report.at:.0f} s; it is started again, and the others serve"
    return report.problem


class _Counts:
    """See Source: what all processes have counted."""

    def __init__(self, board: Board, names: Sequence[str], reporter: Reporter) -> None:
        self._board = board
        self._names = names
        self._reporter = reporter

    def collect(self) -> Iterator[Metric]:
        """All families."""
        reports = [report for name in self._names if (report := self._board.read(name)) is not None]
        yield from families(merge([self._reporter.counts(), *[report.metrics for report in reports]]))
