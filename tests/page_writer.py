"""A worker without ports, whose threads decide for the same few units by calls of every kind, some of them sent again.

Run by `test_limits_served.py`: `python -m tests.page_writer PATH NAME COUNT`. It prints what it was answered, one line
for each decision: its id and action.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from decider.decide.decide import RULES
from decider.log.open import open_log
from decider.policy.algorithms import code_versions
from decider.server.service import DeciderService
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.v1 import decider_service_pb2 as pb

EXPERIMENT, UNITS, THREADS = "home", 4, 6


def answers(service: DeciderService, name: str, number: int) -> Sequence[pb.DecideResponse]:
    """A call of each kind in turn: a decision, a batch in which a unit comes twice, a page."""
    unit, id_ = f"u{number % UNITS}", f"{name}-{number}"
    match number // UNITS % 3:
        case 0:
            return [service.Decide(pb.DecideRequest(experiment=EXPERIMENT, unit_id=unit, decision_id=id_))]
        case 1:
            asked = [
                pb.DecideRequest(experiment=EXPERIMENT, unit_id=one, decision_id=f"{id_}-{place}")
                for place, one in enumerate((unit, "u0", unit))
            ]
            batch = pb.DecideBatchRequest(requests=asked)
            return [one.response for one in service.DecideBatch(batch).results]
        case _:
            page = pb.DecideSlateRequest(experiment=EXPERIMENT, unit_id=unit, slate_id=id_, slots=[pb.Slot()] * 2)
            return list(service.DecideSlate(page).decisions)


def main(path: Path, name: str, count: int) -> None:
    """So many calls, in threads; then each third one once more."""
    with closing(open_log(path)) as log, ThreadPoolExecutor(THREADS) as pool:
        log.name_build({"codes": code_versions(), "rules": RULES})
        current = Current()
        Follower(log, current, Copies()).follow()
        service = DeciderService(current, log, append=log.append)
        numbers = [*range(count), *range(0, count, 3)]
        for replies in pool.map(lambda number: answers(service, name, number), numbers):
            for one in replies:
                print(one.decision_id, one.action.id, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
