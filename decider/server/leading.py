"""The part of a process that leads: files, learning, publishing, the page, metrics of the log, and the HTTP port.
Called by `serve.py`.

It hands models over through the log alone, as to workers in other processes: see `serving/follower.py`.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from decider.errors import DeciderError
from decider.learn.guard import Guard, describe
from decider.learn.guardrails import Guardrails
from decider.learn.leader import Leader, Progress
from decider.learn.left_out import LeaveOuts, open_in_words
from decider.log.disk import DiskWatch
from decider.log.protocol import Lease
from decider.metrics.access import AccessCollector
from decider.metrics.archive import ArchiveCollector
from decider.metrics.collector import LogCollector
from decider.metrics.guardrails import GuardrailCollector
from decider.metrics.leading import LeadsCollector
from decider.metrics.learner import LearnsCollector
from decider.metrics.merged import Several
from decider.metrics.shared_totals import SharedTotals
from decider.metrics.state import StateCollector
from decider.page.page import Page
from decider.policy.protocol import Model
from decider.replay.explain import Explanation, Patience, explain, not_found
from decider.replay.models import Owner as ModelOwner
from decider.server.board import LeaderState
from decider.server.crew import Crew
from decider.server.daily_archive import DailyArchive
from decider.server.files import ExperimentFiles
from decider.server.http.changes import Changes, changes
from decider.server.http.decisions import decisions
from decider.server.http.exposition import exposition
from decider.server.http.guard import guarded
from decider.server.http.pages import pages
from decider.server.http.port import HttpPort
from decider.server.http.probes import Readiness, probes
from decider.server.process import Process
from decider.server.roles import Rights
from decider.server.settings import split_address
from decider.server.standby_learner import StandbyLearner, options_of
from decider.serving.change_lines import ChangeLines
from decider.serving.follower import Copies, Owner
from decider.serving.shared_copies import SharedCopies
from decider.types import DecisionId, ExperimentId, Position

logger = logging.getLogger(__name__)

FILES_INTERVAL = 1.0
"""Seconds between two checks of the experiment files and of the disk."""

SETTLE = 2.75
"""Of the interval of the looks at experiment files: for so long a changed file has to stay as it is, since a copy over
a slow line is written in pieces."""

NO_EXPERIMENT = (
    "there is no experiment, so no call can be decided: start with `--experiments FILE`, or `decider apply FILE` while "
    "the server runs"
)

REPLACED = "another process leads the log since this one has lost its connection; it serves on, and learns nothing"

ARCHIVE_INTERVAL = 2.0
"""Seconds between two looks for a missing part of the archive at a start."""

LAST_ANSWERS = 0.5
"""Seconds for answers over HTTP that are still under way when the time to drain is over."""

PATIENCE = Patience(learning=2.0, asking=1.0)
"""What the explanation of a decision over HTTP may cost."""


class LeaderPart:
    """`listen`, `open`, `catch_up`, `begin`, then `phase` is set to "" once calls are taken; at the end the others.
    phase: what a start is at. `http_port` is the real one.

    listening: the socket of the HTTP port, where it is open already. files_interval: see FILES_INTERVAL. crew: who
    serves.
    """

    http_port: int

    def __init__(self, process: Process, *, listening: socket.socket | None, files_interval: float, crew: Crew) -> None:
        self._process = process
        self._crew = crew
        self._settings = process.settings
        self._clock = process.clock
        self._current = process.current
        self._stopping = process.stopping
        self._listening = listening
        self._files_interval = files_interval
        self._look_asked = threading.Event()
        self.phase = "opening the log"
        self._leader: Leader | None = None
        self._beside: StandbyLearner | None = None
        self._leads = False
        self._http: HttpPort | None = None
        self._missing: dict[Owner, str] = {}
        self._page: Page | None = None
        self._changes: Changes | None = None
        self._went_on = True

    def say_phase(self, phase: str) -> None:
        """What a start is at, for /readyz."""
        self.phase = phase

    def listen(self) -> None:
        """Answer over HTTP from now on. Raises AddressInUse."""
        settings, access = self._settings, self._process.access
        self._process.of_log.register(LearnsCollector(self._learned))
        metrics = Several(self._crew.gather(self._process.registry), self._process.of_log)
        routes = [exposition(metrics), *probes(self.readiness)]
        routes += [*pages(lambda: self._page, self.readiness), *decisions(self._explain, settings.db)]
        if settings.page_writes:
            routes += changes(lambda: self._changes, settings.page_writes)
        self._http = http = HttpPort(
            *split_address(settings.http),
            routes=guarded(routes, access),
            listening=self._listening,
            certificates=access.certificates,
        )
        self.http_port = http.port
        self._process.opened.callback(http.stop)
        http.start()
        self._process.of_log.register(LeadsCollector(lambda: self._leads))
        self._archiver = DailyArchive(settings)
        self._process.opened.callback(self._archiver.stop)

    def open(self, lease: Lease) -> None:
        """Lead by a lease, and apply the experiment files. Raises DeciderError."""
        process, settings, self._lease = self._process, self._settings, lease
        assert self._http is not None
        # Closed in reverse order: the HTTP port (a second time does nothing) before the log, which probes and scrapes
        # read.
        process.opened.callback(self._http.stop)
        self._log = log = process.log
        self._disk = DiskWatch(log, reserve=settings.disk_reserve)
        self._guard = Guard(log)
        self._leader = Leader(
            log,
            lease,
            self._copies(),
            clock=self._clock,
            **options_of(process, self._guard, stopping=self._stopping.is_set),
        )
        process.warnings.append(lambda: [REPLACED] if lease.replaced else [])
        process.warnings.append(lambda: process.access.missing(process.current.known))
        process.name_build()
        lines, self._leave_outs = ChangeLines(log), LeaveOuts(log)
        process.tell += (lines.tell, self._leave_outs.tell)
        self._files = ExperimentFiles(
            settings.experiments, process.versions, settle=SETTLE * self._files_interval, strict=settings.strict
        )
        self._files.apply_all()
        lines.look()  # the follower reads them only once all policies have learned

    def _copies(self) -> Copies:
        hosts, own = self._process.log.hosts, self._process.copies
        return own if hosts is None else SharedCopies(own, hosts)

    def learn_beside(self) -> None:
        """Learn a share of the experiments, where another process leads and has learned what serves."""
        self._beside = self._beside or StandbyLearner(self._process, self._copies())

    def goes_on_beside(self) -> bool:
        """Whether that goes on: who hangs keeps its share from all others."""
        return self._beside is None or self._beside.has_gone_on()

    def end_beside(self) -> None:
        """Leave it to others."""
        if self._beside is not None:
            self._beside.stop()
            self._beside = None

    def _learned(self) -> Collection[ExperimentId]:
        learner = self._leader or (self._beside and self._beside.learner)
        return learner.experiments if learner else ()

    def begin(self) -> None:
        """Register the metrics, make the page, and learn from now on."""
        process, leader = self._process, self._running_leader
        self._totals = totals = SharedTotals(self._log, stopping=self._stopping.is_set)
        self._log_metrics = LogCollector(
            self._log,
            totals,
            self._current,
            clock=self._clock,
            lag=leader.lag,
            forget=self._forget,
            leave_outs=self._leave_outs,
        )
        self._guardrails = Guardrails(self._log, process.versions, totals.read, clock=self._clock)
        for collector in (
            self._log_metrics,
            StateCollector(
                self._current,
                offset=lambda: self._clock.offset,
                progress=self.progress,
                held=self._guard.held,
                refused_files=lambda: self._files.refused,
                leave_outs=self._leave_outs,
            ),
            ArchiveCollector(self._archiver),
            AccessCollector(process.access.problems),
            GuardrailCollector(self._guardrails),
        ):
            process.of_log.register(collector)
        self._page = Page(
            self._log,
            totals,
            self._current,
            clock=self._clock,
            readiness=lambda: self.readiness().text,
            held=self._guard.held,
            leave_outs=self._leave_outs,
            judged=lambda: self._guardrails.judged,
            missing_rewards=lambda: self._log_metrics.missing_rewards,
            takes_changes=bool(self._settings.page_writes),
        )
        self._changes = Changes(
            self._log, process.versions, last_change=self._page.last_change, follow=process.follower.follow
        )
        self._leads = True
        process.run(self._lead, "leader")

    def _forget(self, experiment: ExperimentId) -> None:
        self._process.forget(experiment)
        self._crew.forget(experiment)

    def tell_crew(self) -> None:
        """What is not in the log. Called often."""
        self._crew.tell(self.progress(), self._missing, [*self._current])

    def state(self) -> LeaderState:
        """The same, for other hosts."""
        return LeaderState(self.progress(), self._missing, self._crew.forgotten)

    def stand_by(self, state: LeaderState) -> None:
        """Another host's leader has said this."""
        for id_ in state.forgotten:
            self._process.forget(id_)
        self._crew.hear(state)

    def catch_up(self) -> bool:
        """As the leader's. Where a part of the archive is missing that an experiment has to learn, the others serve;
        where there is no other, /readyz says which part until it is there."""
        leader = self._running_leader
        while leader.catch_up():
            self._say_unlearned(leader.unlearned)
            if not leader.unlearned or leader.serves_without(leader.unlearned):
                for owner, problem in leader.unlearned.items():
                    self._process.follower.hold(owner, problem)
                return True
            if self._stopping.wait(ARCHIVE_INTERVAL):
                return False
        return False

    def _say_unlearned(self, unlearned: Mapping[Owner, str]) -> None:
        missing = {
            owner: f"experiment {owner[0]!r} cannot serve before this is learned: {problem}"
            for owner, problem in unlearned.items()
        }
        for owner in [owner for owner, text in missing.items() if self._missing.get(owner) != text]:
            logger.error("%s", missing[owner])
        self._missing = missing

    def _release_learned(self) -> None:
        """Experiments whose part of the archive came back serve from now on."""
        for owner in [owner for owner in self._missing if self._running_leader.has_learned(owner)]:
            self._process.follower.release(owner)
            self._process.follower.follow()
            logger.info("experiment %s serves: its policy has learned what was missing", owner[0])
            self._missing = {other: text for other, text in self._missing.items() if other != owner}

    @property
    def _running_leader(self) -> Leader:
        assert self._leader is not None
        return self._leader

    def progress(self) -> Sequence[Progress]:
        """Versions that learn before they serve: all at a start, later those that wait."""
        if self._leader is None:
            return ()
        return self._leader.progress() if self.phase else self._leader.progress(self._process.follower.lineup)

    def request_look(self) -> None:
        """Ask for a look at the experiment files at once, as they are; a signal handler may call it."""
        self._look_asked.set()

    def readiness(self) -> Readiness:
        """The answer of /readyz."""
        return self._crew.judge(self._own_readiness())

    def _own_readiness(self) -> Readiness:
        if self._stopping.is_set():
            return Readiness(False, "stopping")
        if not self.phase and self._log.trouble is not None:
            return Readiness(False, str(self._log.trouble))
        try:
            learning = [f"learning {progress}" for progress in self.progress()]
            left_out = [] if self.phase else [*self._leave_outs.open()]
        except DeciderError as error:
            return Readiness(False, str(error))
        if self.phase:
            return Readiness(False, "\n".join([*self._missing.values()] or learning) or self.phase)
        if self._process.behind:
            return Readiness(False, f"what serves does not follow the log: {self._process.behind}")
        problems = [self._clock.problem] if self._clock.problem else []
        if not self._current.all():
            problems.append(NO_EXPERIMENT)
        held = [*self._guard.held.values()]
        warnings = [
            *self._process.access.warnings,
            *[text for warnings in self._process.warnings for text in warnings()],
            *problems,
            *self._files.warnings,
            *map(describe, held),
            *[open_in_words(one, self._log.name) for one in left_out if one not in held],
            *self._guardrails.warnings(),
            *self._missing.values(),
            *self._log.warnings,
            *self._disk.warnings,
            *filter(None, [self._archiver.problem]),
        ]
        return Readiness(True, "\n".join(["ok", *warnings, *learning]))

    def _explain(self, decision_id: DecisionId, rights: Rights) -> Explanation | None:
        """The answer of /decisions/ID. To a caller for some experiments only, decisions of others do not exist."""
        if self.phase or self._stopping.is_set():
            return None
        if rights.experiments is not None:
            found = self._log.find(decision_id)
            if found is not None and not rights.sees(self._log.version_at(found.decision.version).experiment.id):
                raise not_found(self._log, decision_id)
        return explain(self._log, decision_id, patience=PATIENCE, in_memory=self._model_in_memory)

    def _model_in_memory(self, owner: ModelOwner, position: Position) -> Model | None:
        serving = self._current.get(owner.experiment)
        if serving is None or serving.model.position != position:
            return None
        return serving.model if serving.version.experiment.policy.signature == owner.key[1] else None

    def _lead(self) -> None:
        """The leader's thread: seal and learn every interval, at once while a trainer or the totals are behind."""
        next_look = time.monotonic() + self._files_interval
        pause = min(self._settings.learn_interval, self._files_interval)
        while not self._stopping.wait(pause):
            self._do(self._process.look_after_log)
            behind = self._do(self._step)
            self._do(self._release_learned)
            uncounted = self._do(self._totals.store_if_due)
            if not uncounted:  # to count much more would hold up learning
                self._do(self._guardrails.look)
                self._do(self._log_metrics.look_at_rewards)
            pause = 0.0 if behind or uncounted else min(self._settings.learn_interval, self._files_interval)
            asked = self._look_asked.is_set()
            if asked or time.monotonic() >= next_look:
                self._look_asked.clear()
                self._do(self._disk.look)
                self._do(partial(self._files.apply_changes, at_once=asked))
                self._do(self._archiver.look)
                next_look = time.monotonic() + self._files_interval

    def _do(self, work: Callable[[], object]) -> object:
        """A part of a round, see Process.try_to; a leader that ends one has gone on."""
        done = self._process.try_to(work)
        self._went_on = True
        return done

    def has_gone_on(self) -> bool:
        """Whether a part of a round has ended since this was asked last; rounds come a second apart at most."""
        gone_on, self._went_on = self._went_on, False
        return gone_on

    def _step(self) -> bool:
        self._leads = self._lease.held
        return self._running_leader.step()

    def finish_learning(self, deadline: float) -> None:
        """Seal, learn and publish what is due, until the monotonic clock reads `deadline`; no thread leads any more."""
        self._process.try_to(lambda: self._running_leader.finish_learning(deadline))

    def finish(self, deadline: float) -> None:
        """Store totals and models, and release the lease."""
        if self._leader is not None:
            if not self.phase:
                self._process.try_to(lambda: self._totals.finish(deadline))
            self._process.try_to(self._leader.finish)

    def stop_listening(self, deadline: float) -> bool:
        """Returns whether no request over HTTP is at work any more."""
        return self._http is None or self._http.stop(max(LAST_ANSWERS, deadline - time.monotonic()))
