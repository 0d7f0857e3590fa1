"""The demo of a cluster: PostgreSQL, two groups of workers on one log as on two machines, and one group that dies.

Called by `simulator demo-cluster` (`make demo-cluster`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from decider.log.open import LogUrl, open_reader
from simulator.drive.demo import EXPERIMENT_FILE
from simulator.drive.own_postgres import own_postgres
from simulator.drive.reconcile import Reconciliation, reconcile
from simulator.drive.send import Drive
from simulator.drive.server import ANY_PORT, OwnServer, terminable

GROUPS = 2
"""As many machines would be there."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Two groups of workers on one log; the first one began, so it leads."""

    log: LogUrl
    groups: Sequence[OwnServer]

    @property
    def target(self) -> str:
        """Both groups as one target, as gRPC takes it: clients call them in turn, and the living one where one is
        dead."""
        return "ipv4:" + ",".join(group.target for group in self.groups)


@contextmanager
def cluster(*, workers: int) -> Iterator[Cluster]:
    """So many workers in each group. Everything ends with it, and its log goes. Raises NoPostgres and ServerFailed."""
    with terminable(), own_postgres(settings=()) as postgres, ExitStack() as started:
        log, groups = LogUrl(postgres.url()), list[OwnServer]()
        for number in range(GROUPS):
            group = OwnServer(
                log,
                listen=ANY_PORT,
                http=ANY_PORT,
                output=postgres.folder / f"group-{number + 1}",
                experiments=[EXPERIMENT_FILE],
                options=["--workers", str(workers)],
            )
            started.callback(group.stop)
            groups.append(group)
        yield Cluster(log, groups)


class Death:
    """The first group, killed in the midst of a drive. after: acknowledged decisions by then. seconds: from the kill to
    the first model that another leader has published; None until then."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.after = 0
        self.seconds: float | None = None

    def __call__(self, drive: Drive) -> None:
        """Alongside the drive."""
        half = len(drive.plan.visits) // 2
        drive.wait_until(lambda: drive.ledger.acknowledged >= half)
        if drive.stopped:
            return
        self._cluster.groups[0].kill()
        killed, self.after = time.monotonic(), drive.ledger.acknowledged
        with closing(open_reader(self._cluster.log)) as log:
            signature = drive.plan.experiment.policy.signature

            def newest() -> int:
                return max(log.models.published_positions(drive.plan.experiment.id, signature), default=0)

            before = newest()
            drive.wait_until(lambda: newest() > before)
            if newest() > before:
                self.seconds = time.monotonic() - killed


def compare(cluster: Cluster, driven: Drive) -> Reconciliation:
    """What was acknowledged with what is in the log. Raises LogError."""
    with closing(open_reader(cluster.log)) as log:
        return reconcile(driven.plan, driven.ledger, log)
