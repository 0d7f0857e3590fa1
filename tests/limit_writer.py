"""A worker without ports, that decides for a few units in many threads as fast as it can, until it is killed.

Run by `test_limits.py`: `python -m tests.limit_writer PATH NAME THREADS COUNT`. It says what it has answered, one line
for each decision: its id, unit, action and reason.
"""

from __future__ import annotations

import sys
import threading
from contextlib import closing
from pathlib import Path
from random import Random

from decider.decide.decide import RULES
from decider.log.open import open_log
from decider.policy.algorithms import code_versions
from decider.server.service import DeciderService
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.v1 import decider_service_pb2 as pb

UNITS = 5


def main(path: Path, name: str, threads: int, count: int) -> None:
    """Decide `count` times in each thread; some calls are sent again with their id."""
    with closing(open_log(path)) as log:
        log.name_build({"codes": code_versions(), "rules": RULES})
        current = Current()
        Follower(log, current, Copies()).follow()
        service = DeciderService(current, log, append=log.append)
        saying = threading.Lock()

        def decide(thread: int) -> None:
            random = Random(f"{name} {thread}")
            for number in range(count):
                id_ = f"{name}-{thread}-{number - (random.random() < 0.1 and number > 0)}"
                unit = f"unit-{(number + thread) % UNITS}"
                request = pb.DecideRequest(experiment="home", unit_id=unit, decision_id=id_)
                if id_ != f"{name}-{thread}-{number}":
                    request.unit_id = f"unit-{(number - 1 + thread) % UNITS}"
                made = service.Decide(request)
                with saying:
                    print(made.decision_id, request.unit_id, made.action.id, made.reason, flush=True)

        workers = [threading.Thread(target=decide, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
