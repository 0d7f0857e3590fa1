"""What a drive found, as plain values: made by `live.py`, shown by `report/`, written as JSON by the command."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.drive.earnings import Earnings
from simulator.drive.latency import Percentiles
from simulator.drive.ledger import Kill
from simulator.drive.plan import Shares
from simulator.drive.reconcile import Reconciliation


@dataclass(frozen=True, slots=True)
class Fate:
    """Rewards of this drive: that happened, were never sent, sent late, sent twice, held back till others overtook."""

    happened: int
    lost: int
    late: int
    duplicate: int
    reordered: int


@dataclass(frozen=True, slots=True)
class DriveResult:
    """target: HOST:PORT. batch: decisions of one call. rate: wanted, visits per second; None: as fast as answers came.
    achieved: acknowledged decisions per second. window: seconds; scale: seconds here for one of the world. run: what
    the ids begin with. errors: failed attempts by status; each was sent again. ended: why it ended early, if it did.
    """

    world: str
    experiment: str
    version: int
    policy: str
    target: str
    run: str
    seed: int
    visitors: int
    clients: int
    batch: int
    rate: float | None
    achieved: float
    window: float
    scale: float
    shares: Shares
    rewards: Fate
    reconciliation: Reconciliation
    decide: Percentiles | None
    reward: Percentiles | None
    errors: dict[str, int]
    kills: tuple[Kill, ...]
    earned: Earnings | None
    ended: str
