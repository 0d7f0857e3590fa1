"""Kill the server in the midst of a drive and start it again, some times at random moments. Called by `live.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

from simulator.drive.ledger import Kill
from simulator.drive.send import Drive
from simulator.drive.server import OwnServer


def moments(visitors: int, times: int, *, seed: int) -> list[int]:
    """After how many acknowledged decisions; rising, none in the first or last twentieth.

    >>> moments(1000, 3, seed=1)
    [187, 632, 917]
    """
    random = Random(seed)
    return sorted(random.randint(visitors // 20, visitors - visitors // 20) for _ in range(times))


def killer(server: OwnServer, times: int, *, seed: int) -> Callable[[Drive], None]:
    """What runs alongside a drive and kills the server that often, by SIGKILL. Raises ServerFailed."""

    def run(drive: Drive) -> None:
        ledger = drive.ledger
        for moment in moments(len(drive.plan.visits), times, seed=seed):
            drive.wait_until(lambda moment=moment: ledger.acknowledged >= moment)  # type: ignore[misc]
            if drive.stopped:
                return
            ledger.kills.append(_kill(server, drive))

    return run


def _kill(server: OwnServer, drive: Drive) -> Kill:
    after, killed = drive.ledger.acknowledged, time.monotonic()
    server.kill()
    server.start()
    answered = drive.ledger.acknowledged
    drive.wait_until(lambda: drive.ledger.acknowledged > answered)
    return Kill(after, time.monotonic() - killed)
