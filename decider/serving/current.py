"""What serves now: for each experiment its running version and its model, replaced as one.

Written by the learner alone; read by every handler without a lock (replacing a dict's value is atomic).
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


class Current:
    """The running experiments."""

    def __init__(self) -> None:
        self._serving: dict[ExperimentId, Serving] = {}

    def __getitem__(self, id_: ExperimentId) -> Serving:
        """Raises NotFound (EXPERIMENT_NOT_FOUND)."""
        serving = self._serving.get(id_)
        if serving is None:
            known = ", ".join(sorted(self._serving)[:10]) or "none yet"
            raise NotFound(f"there is no experiment {id_!r}; there are: {known}", reason="EXPERIMENT_NOT_FOUND")
        return serving

    def __contains__(self, id_: ExperimentId) -> bool:
        return id_ in self._serving

    def put(self, serving: Serving) -> None:
        """Serve this version with this model from now on."""
        self._serving[serving.version.experiment.id] = serving

    def all(self) -> Sequence[Serving]:
        """Every experiment, by id."""
        return [self._serving[id_] for id_ in sorted(self._serving)]
