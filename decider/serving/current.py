"""What serves now: each experiment's version and model, replaced together.

Written by the follower alone; read by every handler without a lock (replacing a value of a dict is atomic).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from decider.decide.decide import SlotsCache
from decider.errors import NotFound
from decider.experiment.definition import ExperimentVersion
from decider.policy.protocol import Model
from decider.types import ExperimentId


class Serving(NamedTuple):
    """A version, its model, and the cache of their slots: the arguments of `decide` after the request."""

    version: ExperimentVersion
    model: Model
    slots: SlotsCache


class Current(dict[ExperimentId, Serving]):
    """The experiments that serve, by id."""

    def __missing__(self, id_: ExperimentId) -> Serving:
        """Raises NotFound (EXPERIMENT_NOT_FOUND)."""
        known = ", ".join(sorted(self)[:10]) or "none yet"
        raise NotFound(f"there is no experiment {id_!r}; there are: {known}", reason="EXPERIMENT_NOT_FOUND")

    def put(self, version: ExperimentVersion, model: Model) -> None:
        """Serve this version with this model from now on."""
        self[version.experiment.id] = Serving(version, model, SlotsCache())

    def all(self) -> Sequence[Serving]:
        """Every experiment, by id."""
        return [serving for _, serving in sorted(self.items())]
