"""Visitors of the demo who come back: to a page that stays as it was, and to an offer that is made once a week.

Called by `simulator drive`'s demo. What is counted is what the visitors saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decider.client import Client
from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from decider.v1 import decider_service_pb2 as pb
from simulator.drive.target import TIMEOUT

FILES = tuple(Path(__file__).parents[1] / name for name in ("checkout.toml", "exit-offer.toml"))
VISITS = 3
"""Of each visitor, to each place."""


@dataclass(frozen=True, slots=True)
class Place:
    """What visitors saw of an experiment. seen: by visitor, in order. drawn: new decisions; the other answers repeat
    one."""

    experiment: str
    seen: Sequence[Sequence[str]]
    drawn: int
    kinds: dict[str, str]

    @property
    def calls(self) -> int:
        """Calls of Decide."""
        return sum(map(len, self.seen))

    @property
    def changed(self) -> int:
        """Visitors who did not always see the same."""
        return sum(len(set(one)) > 1 for one in self.seen)

    @property
    def none(self) -> int:
        """Answers that showed nothing."""
        return sum(self.kinds[action] == "none" for one in self.seen for action in one)

    @property
    def most_offers(self) -> int:
        """That one visitor got."""
        return max(sum(self.kinds[action] == "offer" for action in one) for one in self.seen)


def play(target: str, visitors: int, *, run: str) -> list[Place]:
    """Every visitor comes to both places so often. run: makes their ids new. Raises grpc.RpcError."""
    with Client(target, timeout=TIMEOUT) as client:
        return [_play(client, path, [f"{run}-returning-{number}" for number in range(visitors)]) for path in FILES]


def _play(client: Client, path: Path, visitors: Sequence[str]) -> Place:
    experiment = from_message(read_toml(path))
    seen: dict[str, list[str]] = {visitor: [] for visitor in visitors}
    reasons = Counter[int]()
    for _ in range(VISITS):
        for visitor in visitors:
            answer = client.decide(experiment.id, visitor)
            seen[visitor].append(answer.action.id)
            reasons[answer.reason] += 1
    drawn = reasons.total() - reasons[pb.REASON_STICKY]
    return Place(experiment.id, list(seen.values()), drawn, {one.id: one.kind for one in experiment.actions})
