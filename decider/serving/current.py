"""What serves now: each experiment's version and model, replaced together.

Written by the follower alone; read by every handler without a lock (replacing a value of a dict is atomic).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from decider.decide.decide import SlotsCache
from decider.errors import FailedPrecondition, NotFound
from decider.experiment.definition import ExperimentVersion
from decider.policy.protocol import Model
from decider.types import ExperimentId, Time


class Serving(NamedTuple):
    """A version, its model, and the cache of their slots: the arguments of `decide` after the request."""

    version: ExperimentVersion
    model: Model
    slots: SlotsCache


def _look_nowhere() -> None:
    pass


class Current(dict[ExperimentId, Serving]):
    """The experiments that serve, by id. ended: those that did, with the end of their last window. held: those that
    cannot serve yet, and why. tells_names: an error may name the others; not where tokens say who may read which. look:
    is called before an experiment is said not to serve; it may make it serve."""

    def __init__(self, *, tells_names: bool = True) -> None:
        super().__init__()
        self.tells_names = tells_names
        self.ended: dict[ExperimentId, Time] = {}
        self.held: dict[ExperimentId, str] = {}
        self.look: Callable[[], None] = _look_nowhere

    def __missing__(self, id_: ExperimentId) -> Serving:
        """Raises NotFound (EXPERIMENT_NOT_FOUND), or FailedPrecondition (EXPERIMENT_ENDED, ARCHIVE_MISSING)."""
        self.look()
        if (serving := self.get(id_)) is not None:
            return serving
        if id_ in self.held:
            raise FailedPrecondition(
                f"experiment {id_!r} cannot serve before its policy has learned: {self.held[id_]}",
                reason="ARCHIVE_MISSING",
            )
        if id_ in self.ended:
            raise FailedPrecondition(
                f"experiment {id_!r} has ended; apply it with the state ACTIVE to begin it again",
                reason="EXPERIMENT_ENDED",
            )
        known = f"there are: {', '.join(sorted(self)[:10]) or 'none yet'}"
        way_out = known if self.tells_names else "ListExperiments names those that the caller may read"
        raise NotFound(f"there is no experiment {id_!r}; {way_out}", reason="EXPERIMENT_NOT_FOUND")

    @property
    def known(self) -> frozenset[ExperimentId]:
        """Those that there are, whether they serve or not."""
        return frozenset([*self, *self.ended, *self.held])

    def put(self, version: ExperimentVersion, model: Model) -> None:
        """Serve this version with this model from now on."""
        self[version.experiment.id] = Serving(version, model, SlotsCache())
        self.ended.pop(version.experiment.id, None)
        self.held.pop(version.experiment.id, None)

    def end(self, version: ExperimentVersion) -> None:
        """Serve it no longer, and keep its id and the end of its last window alone."""
        id_ = version.experiment.id
        self.ended[id_] = Time(version.time + version.experiment.reward.window)  # before: no call may find it unknown
        self.pop(id_, None)
        self.held.pop(id_, None)

    def trim_slots(self, most_bytes: int) -> None:
        """Empty the caches that take more than their share, where all together take more than so many bytes."""
        serving = self.all()
        if sum([one.slots.bytes for one in serving]) > most_bytes:
            for one in serving:
                if one.slots.bytes * len(serving) > most_bytes:
                    one.slots.clear()

    def all(self) -> Sequence[Serving]:
        """Every experiment, by id."""
        return [serving for _, serving in sorted(self.items())]
