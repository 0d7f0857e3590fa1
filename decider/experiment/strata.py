"""How units and versions are grouped to compare the policy with the holdout: buckets, groups and strata. Pure.

Called by the totals of every log, and by the simulator's reader: live metrics and `simulator lift` count the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from decider.experiment.definition import Experiment, ExperimentVersion, RewardDefinition
from decider.types import START, ExperimentId, Position, Reason

BUCKETS = 512

REMEMBERED = 32_768
"""Units whose buckets are: a slice of a log asks for each several times."""

HOLDOUT_REASONS = (Reason.HOLDOUT, Reason.HOLDOUT_UNAVAILABLE)
"""Of decisions of the holdout's units, whatever they got. All other units are the policy's group."""


@lru_cache(REMEMBERED)
def bucket_of(unit_id: str) -> int:
    """Where a unit's decisions and rewards are added up, always: in every experiment, version and group.

    Its hash knows nothing of the one that draws the holdout: within a bucket, units fall into the groups as everywhere.

    >>> bucket_of("ann"), bucket_of("bob")
    (431, 157)
    """
    text = unit_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8, person=b"lift").digest()) % BUCKETS


class Stratum(NamedTuple):
    """A time in which the same share of units was drawn into the holdout by the same salt, and rewards meant the same.

    measure: the first version since which a reward, and what counts as a decision, is what it is: strata with the same
    one can be combined. first: the first version of the stratum itself. Larger ones are newer.
    """

    measure: Position
    first: Position


def next_stratum(
    before: Stratum | None, last: ExperimentVersion | None, version: ExperimentVersion, *, anew: bool = False
) -> Stratum | None:
    """Of a version; None where nobody or everybody is in the holdout. last: the newest version before it that has a
    stratum, which is `before`: it goes on if nothing that matters has changed, also behind versions without one. anew:
    another one begins in any case."""
    new = version.experiment
    if not 0 < new.control_share < 1:
        return None
    if before is None or last is None or _measure(last.experiment) != _measure(new):
        return Stratum(version.position, version.position)
    old = last.experiment
    if anew or (old.control_share, old.salt) != (new.control_share, new.salt):
        return Stratum(before.measure, version.position)
    return before


def _measure(experiment: Experiment) -> tuple[RewardDefinition, bool]:
    return experiment.reward, experiment.needs_activation


def means_the_same(one: ExperimentVersion, other: ExperimentVersion) -> bool:
    """Whether rewards, and what counts as a decision, are the same in two versions."""
    return _measure(one.experiment) == _measure(other.experiment)


class Strata:
    """Of one experiment's versions, which come in their order."""

    def __init__(self) -> None:
        self.found: dict[Position, Stratum] = {}
        self.until = START
        self._last: ExperimentVersion | None = None
        self._stratum: Stratum | None = None
        self._fell_back = False

    def add(self, version: ExperimentVersion) -> None:
        """The next version."""
        self.until = version.position
        self._fell_back |= version.experiment.fallback is not None
        # Behind a fallback guardrails are judged by what comes from then on, so its sums have to be found.
        stratum = next_stratum(self._stratum, self._last, version, anew=self._fell_back)
        if stratum is not None:
            self.found[version.position] = self._stratum = stratum
            self._last = version
            self._fell_back = False


class JudgedSince:
    """From which version on guardrails are judged, of one experiment's versions, which come in their order: the newest
    one that ended a fallback."""

    def __init__(self) -> None:
        self.position = START
        self._falls_back = False

    def add(self, version: ExperimentVersion) -> None:
        """The next version."""
        if self._falls_back and version.experiment.fallback is None:
            self.position = version.position
        self._falls_back = version.experiment.fallback is not None


def strata_of(versions: Iterable[ExperimentVersion]) -> dict[Position, Stratum]:
    """By version, of one experiment's versions in their order; those with a stratum."""
    strata = Strata()
    for version in versions:
        strata.add(version)
    return strata.found


def strata_of_all(versions: Iterable[ExperimentVersion]) -> dict[Position, Stratum]:
    """The same of the versions of any experiments."""
    by_experiment: dict[ExperimentId, Strata] = {}
    for version in versions:
        by_experiment.setdefault(version.experiment.id, Strata()).add(version)
    return {position: stratum for strata in by_experiment.values() for position, stratum in strata.found.items()}


def whole(measure: Position) -> Stratum:
    """All versions of a measure as one stratum: for figures in which the holdout plays no part."""
    return Stratum(measure, measure)


def measures_of_all(versions: Iterable[ExperimentVersion]) -> dict[Position, Stratum]:
    """By version, of any experiments' versions in their order: `whole` of the first one since which a reward means the
    same without a break. With or without a holdout."""
    last: dict[ExperimentId, ExperimentVersion] = {}
    found: dict[Position, Stratum] = {}
    for version in versions:
        before = last.get(version.experiment.id)
        same = before is not None and means_the_same(before, version)
        found[version.position] = found[before.position] if before and same else whole(version.position)
        last[version.experiment.id] = version
    return found
