"""What serves now: for each experiment its running version and its model, replaced as one.

Written by the follower alone; read by every handler without a lock (replacing a dict's value is atomic).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from decider.errors import NotFound
from decider.experiment.definition import ExperimentVersion
from decider.policy.protocol import Model
from decider.types import ExperimentId


class Serving(NamedTuple):
    """A version and the model that serves it."""

    version: ExperimentVersion
    model: Model


class Current(dict[ExperimentId, Serving]):
    """The experiments that serve, by id."""

    def __missing__(self, id_: ExperimentId) -> Serving:
        """Raises NotFound (EXPERIMENT_NOT_FOUND)."""
        known = ", ".join(sorted(self)[:10]) or "none yet"
        raise NotFound(f"there is no experiment {id_!r}; there are: {known}", reason="EXPERIMENT_NOT_FOUND")

    def put(self, serving: Serving) -> None:
        """Serve this version with this model from now on."""
        self[serving.version.experiment.id] = serving

    def all(self) -> Sequence[Serving]:
        """Every experiment, by id."""
        return [serving for _, serving in sorted(self.items())]
