"""Judges the guardrails of all experiments every few seconds, and falls back to the baseline where one is crossed.

Called by the leader's thread: one process of a log judges it. What it decides are versions in the log (`versions.py`)
with the evidence as their note, so a restart, a replay and every other process know it from there. It never flaps: a
fallback ends by a person or by the guardrail's `again_after`, and then what came before counts no more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from decider.durations import duration_text
from decider.estimate.guardrail import Evidence, alpha_of, guardrail_evidence
from decider.estimate.lift import GroupSums
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.experiment.guardrails import Guardrail
from decider.experiment.origin import FROM_SERVER, Origin
from decider.experiment.strata import JudgedSince
from decider.learn.group_sums import group_sums
from decider.learn.versions import Versions
from decider.log.lift_totals import StrataTotals
from decider.log.log_totals import LogTotals
from decider.log.protocol import LogReader
from decider.types import START, ExperimentId, Position, Time

logger = logging.getLogger(__name__)

LOOK_EVERY = 2.0
"""Seconds."""

AUTHOR, SOURCE = "guardrail", FROM_SERVER
"""Of the versions that it makes."""


class Judged(NamedTuple):
    """A guardrail and what speaks against it."""

    guardrail: Guardrail
    evidence: Evidence

    @property
    def crossed(self) -> bool:
        """Whether it is crossed now, or has brought everybody to the baseline."""
        return self.evidence.crossed or self.guardrail.crossed_at is not None


@dataclass(slots=True)
class _Watch:
    """One experiment with guardrails. version: the newest one. judged: as of the last look; of: what that was found
    from, so that it is only computed where something is new."""

    version: ExperimentVersion
    judged: tuple[Judged, ...] = ()
    of: object = None
    since: JudgedSince = field(default_factory=JudgedSince)

    def add(self, version: ExperimentVersion) -> None:
        self.version = version
        self.since.add(version)

    @property
    def experiment(self) -> Experiment:
        return self.version.experiment

    def judge(self, strata: StrataTotals) -> tuple[Judged, ...]:
        # Sums of rewards change with the decisions that they belong to, and never without.
        counted = {stratum: (sum(one.decisions), sum(one.left_out)) for stratum, one in strata.items()}
        of = (self.version.position, self.since.position, counted)
        if of != self.of:
            self.judged, self.of = judge(self.experiment, strata, since=self.since.position), of
        return self.judged


class Guardrails:
    """See above. From one thread; `judged` from any. totals: of the log, counted up to its end."""

    def __init__(
        self,
        log: LogReader,
        versions: Versions,
        totals: Callable[[], AbstractContextManager[LogTotals]],
        *,
        clock: Callable[[], Time],
        look_every: float = LOOK_EVERY,
    ) -> None:
        self._log = log
        self._versions = versions
        self._totals = totals
        self._clock = clock
        self._look_every = look_every
        self._next_look = 0.0
        self._followed = START
        self._watches: dict[ExperimentId, _Watch] = {}
        self.judged: dict[ExperimentId, tuple[Judged, ...]] = {}
        """By experiment, as of the last look."""

    def look(self) -> None:
        """Judge, where the last look is long enough ago. Raises LogError; the next call tries again."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + self._look_every
        self._follow()
        watches = self._judged_now()
        if not watches:
            self.judged = {}
            return
        with self._totals() as counted:
            found = {one.experiment.id: one.judge(counted.totals.lift.get(one.experiment.id, {})) for one in watches}
        before, self.judged = self.judged, found
        for id_, judged in found.items():
            self._tell(id_, judged, before.get(id_, ()))
            self._act(self._watches[id_], judged)

    def _follow(self) -> None:
        """Know the newest versions, of experiments that have or had guardrails."""
        news = self._log.follow(self._followed)
        applied: dict[ExperimentId, list[Position]] = {}
        for name, _ in news.versions:
            applied.setdefault(name.experiment, []).append(name.position)
        for id_, positions in applied.items():
            newest = self._log.version_at(positions[-1])
            if id_ not in self._watches:
                if not newest.experiment.guardrails:
                    continue
                self._watches[id_] = _Watch(newest)
                positions = self._all_positions(id_)  # guardrails may have been there before
            for position in positions:
                self._watches[id_].add(self._log.version_at(position))
        self._followed = news.head

    def _all_positions(self, id_: ExperimentId) -> list[Position]:
        return [name.position for name, _ in self._log.follow(START).versions if name.experiment == id_]

    def _judged_now(self) -> list[_Watch]:
        return [one for one in self._watches.values() if one.experiment.guardrails and not one.experiment.ended]

    def _act(self, watch: _Watch, judged: tuple[Judged, ...]) -> None:
        experiment, now = watch.experiment, self._clock()
        fallback = experiment.fallback
        if fallback is not None:
            if fallback.again_after and fallback.crossed_at and now >= fallback.crossed_at + fallback.again_after:
                why = f"again_after = {duration_text(fallback.again_after)} is over; judged by what comes from now on"
                origin = Origin(AUTHOR, SOURCE, f"guardrail {fallback.reward}: {why}")
                self._versions.end_fallback(experiment.id, fallback, origin=origin)
            return
        for one in judged:
            if one.evidence.crossed and one.guardrail.falls_back:
                note = f"guardrail {one.guardrail.reward}: {in_words(one, alpha_of(len(judged)))}"
                origin = Origin(AUTHOR, SOURCE, note)
                self._versions.fall_back(experiment.id, one.guardrail, at=now, origin=origin)
                return

    def _tell(self, id_: ExperimentId, judged: tuple[Judged, ...], before: tuple[Judged, ...]) -> None:
        """One line in the output where one is crossed, or not any more, or cannot be judged any more."""
        known = {one.guardrail.reward: one.crossed for one in before}
        outweighed = {one.guardrail.reward for one in before if one.evidence.outweighed}
        for one in judged:
            reward = one.guardrail.reward
            if one.evidence.outweighed and reward not in outweighed:
                logger.warning("experiment %s: guardrail %s: %s", id_, reward, in_words(one, alpha_of(len(judged))))
            if one.crossed and not known.get(reward, False):
                logger.warning(
                    "experiment %s: guardrail %s is crossed: %s", id_, reward, in_words(one, alpha_of(len(judged)))
                )
            elif known.get(reward, False) and not one.crossed:
                logger.warning("experiment %s: guardrail %s is not crossed any more", id_, reward)

    def warnings(self) -> list[str]:
        """For people, one line for each that is crossed or cannot be judged."""
        return [
            _warning(id_, one, len(judged))
            for id_, judged in [*self.judged.items()]
            for one in judged
            if one.crossed or one.evidence.outweighed
        ]


def judge(experiment: Experiment, strata: StrataTotals, *, since: Position) -> tuple[Judged, ...]:
    """Each guardrail of an experiment. strata: of its lift; those from the version `since` on count."""
    counted = {stratum: totals for stratum, totals in strata.items() if stratum.first >= since}
    alpha = alpha_of(len(experiment.guardrails))
    return tuple(
        [Judged(one, evidence_of(one, group_sums(counted, one.reward), alpha)) for one in experiment.guardrails]
    )


def evidence_of(guardrail: Guardrail, strata: Mapping[Hashable, GroupSums], alpha: float) -> Evidence:
    """Against one guardrail."""
    is_upper = guardrail.at_most is not None
    return guardrail_evidence(strata, margin=guardrail.margin, is_upper=is_upper, alpha=alpha)


def in_words(judged: Judged, alpha: float) -> str:
    """The evidence, for a note and a line of output."""
    guardrail, found = judged
    if found.outweighed:
        return (
            f"{guardrail.bound} is declared, and cannot be judged: a few units have nearly all of this reward, so that "
            "all others say nothing beside them. Look for a value that was sent by mistake; a version with another "
            "[reward] is judged by what comes from then on"
        )
    if not found.is_known:
        return f"{guardrail.bound} is declared; too little is known now"
    side = "above" if guardrail.at_most is not None else "below"
    return (
        f"lift {found.lift:+.4g} a decision, {side} {found.bound:.4g} for sure (at every look, alpha {alpha:g}); "
        f"{guardrail.bound} is declared. Policy {found.policy:.4g} in {found.decisions[0]} decisions, holdout "
        f"{found.holdout:.4g} in {found.decisions[1]}"
    )


def _warning(id_: ExperimentId, judged: Judged, guardrails: int) -> str:
    name = f"experiment {id_}: guardrail {judged.guardrail.reward}"
    if not judged.crossed:
        return f"{name}: {in_words(judged, alpha_of(guardrails))}"
    what = f"{name} is crossed"
    if judged.guardrail.crossed_at is not None:
        return f"{what}, so everybody gets the baseline action: `decider resume {id_}` ends that"
    return f"{what}: {in_words(judged, alpha_of(guardrails))}"
