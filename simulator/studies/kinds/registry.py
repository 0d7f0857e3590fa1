"""All kinds, the wrong ones first. Used by the command and by tests."""

from __future__ import annotations

from simulator.studies.kinds.files import FILES
from simulator.studies.kinds.known import Kind
from simulator.studies.kinds.leaks import LEAKS
from simulator.studies.kinds.propensities import PROPENSITIES
from simulator.studies.kinds.rewards import REWARDS
from simulator.studies.kinds.right import NEARLY_TOLD, RIGHT

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*LEAKS, *PROPENSITIES, *FILES, *REWARDS, NEARLY_TOLD, *RIGHT)}
