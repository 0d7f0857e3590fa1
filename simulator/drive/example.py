"""A small worked drive: read by doctests and tests."""

from __future__ import annotations

from array import array

from simulator.drive.earnings import Earnings
from simulator.drive.latency import percentiles
from simulator.drive.ledger import Kill
from simulator.drive.plan import Shares
from simulator.drive.reconcile import Reconciliation, SentCounts
from simulator.drive.result import DriveResult, Fate


def example_result() -> DriveResult:
    """A drive of 1,000 visits with one kill, as it could have been.

    >>> example_result().reconciliation.clean
    True
    """
    return DriveResult(
        world="storefront",
        experiment="storefront",
        version=1,
        policy="default",
        target="127.0.0.1:50051",
        run="19a0-0001",
        seed=1,
        visitors=1_000,
        clients=4,
        batch=1,
        rate=200.0,
        achieved=199.5,
        window=1.0,
        scale=0.01,
        shares=Shares(),
        rewards=Fate(happened=130, lost=3, late=4, duplicate=6, reordered=7),
        reconciliation=Reconciliation(
            log="drive.db",
            decisions=SentCounts(1_000, 1_000, 1_000),
            rewards=SentCounts(127, 127, 127),
            outcomes={"joined": 123, "late": 4, "duplicate": 6},
            lost=0,
            doubled=0,
            different=0,
            examples=(),
        ),
        decide=percentiles(array("d", [0.001 + 1e-6 * number + (number > 990) for number in range(1_000)])),
        reward=percentiles(array("d", [0.002 + 1e-5 * number for number in range(133)])),
        errors={"UNAVAILABLE": 12},
        kills=(Kill(after=600, back=1.2),),
        earned=Earnings(
            visits=1_000,
            earned=0.15,
            best=0.27,
            uniform=0.11,
            fixed=0.17,
            fixed_action="sale",
            right=0.4,
            regret=0.12,
            share=0.25,
        ),
        ended="",
    )
