"""How units and versions are grouped to compare the policy with the holdout: buckets, groups and strata. Pure.

Called by the totals of every log, and by the simulator's reader: live metrics and `simulator lift` count the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from decider.experiment.definition import ExperimentVersion
from decider.types import Position, Reason

BUCKETS = 512

HOLDOUT_REASONS = (Reason.HOLDOUT, Reason.HOLDOUT_UNAVAILABLE)
"""Of decisions of the holdout's units, whatever they got. All other units are the policy's group."""


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


def strata_of(versions: Iterable[ExperimentVersion]) -> dict[Position, Stratum]:
    """By version, of one experiment's versions in their order. Versions in which nobody or everybody is in the holdout
    belong to none; the stratum goes on behind them if nothing else has changed."""
    found: dict[Position, Stratum] = {}
    before = None
    stratum = Stratum(Position(0), Position(0))
    for version in versions:
        one = version.experiment
        if not 0 < one.control_share < 1:
            continue
        measure = (one.reward, one.needs_activation)
        group = (one.control_share, one.salt)
        if before is None or before[0] != measure:
            stratum = Stratum(version.position, version.position)
        elif before[1] != group:
            stratum = Stratum(stratum.measure, version.position)
        found[version.position] = stratum
        before = (measure, group)
    return found
