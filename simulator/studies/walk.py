"""The way of one Decide through the files: which it enters, in which order, and how often it comes back to a room.

`make walk` prints it. A file is entered when one of its functions is called; a stay is a run of calls within one room;
a return is a stay in a room that the call has left before. Fewer are easier to read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NamedTuple

from decider.types import now

ROOT = Path(__file__).parents[2] / "decider"
MOST_FILES, MOST_RETURNS = 10, 2


class Walk(NamedTuple):
    """files: in the order in which they were first entered; stays: the rooms in order."""

    files: tuple[str, ...]
    stays: tuple[str, ...]

    @property
    def returns(self) -> int:
        """Stays in a room that was left before."""
        return len(self.stays) - len(set(self.stays))


def walk_of(call: Callable[[], object]) -> Walk:
    """The files of `decider/` that a call enters, generated ones left out.

    >>> from decider.decide.slots import one_slot
    >>> walk_of(lambda: one_slot(0, 1))
    Walk(files=('decide/slots.py',), stays=('decide',))
    """
    entered: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT):
            entered.append(path.relative_to(ROOT).as_posix())

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    ours = [file for file in entered if not file.startswith("v1/") and file not in ("types.py", "errors.py")]
    stays = tuple([room for room, _ in groupby(ours, key=_room)])
    return Walk(tuple(dict.fromkeys(ours)), stays)


def _room(file: str) -> str:
    return file.partition("/")[0]


class _Caller:
    """What gRPC hands to a handler, as far as ours look at it."""

    def time_remaining(self) -> None:
        """No deadline."""

    def is_active(self) -> bool:
        """It waits."""
        return True


def decide_walk(db: Path) -> Walk:
    """Of a Decide that asks the default policy: ten actions, five fields of context, everything else warm."""
    from prometheus_client import CollectorRegistry

    from decider.experiment.schema import from_message
    from decider.learn.leader import Leader, Pace
    from decider.learn.versions import Versions
    from decider.log.group_commit import CommitExecutor
    from decider.log.open import open_log
    from decider.metrics.rpc import RpcMetrics
    from decider.server.rpc import answer_of, behaviour_of
    from decider.server.service import DeciderService
    from decider.serving.current import Current
    from decider.serving.follower import Copies, Follower
    from decider.v1 import decider_service_pb2 as pb
    from decider.v1 import experiment_pb2

    with closing(open_log(db)) as log:
        current, copies = Current(), Copies()
        actions = [experiment_pb2.Action(id=f"a{number}") for number in range(10)]
        Versions(log).apply(from_message(experiment_pb2.Experiment(id="home", actions=actions)))
        Leader(log, log.lease(), copies, clock=now, pace=Pace()).catch_up()
        Follower(log, current, copies).follow()
        calls = CommitExecutor(log.append, threads=1)
        service = DeciderService(current, log, append=calls.append)
        metrics = RpcMetrics(CollectorRegistry())
        answer = answer_of(service.Decide, service="decider.v1.DeciderService", method="Decide", metrics=metrics)
        behaviour = behaviour_of(answer, pb.DecideRequest.FromString)
        context = pb.Context(segment="vip", device="app", channel="web", location="here", intent_stage="cart")
        request = pb.DecideRequest(experiment="home", unit_id="u", context=context).SerializeToString()
        for _ in range(2):  # what comes a second time is kept
            behaviour(request, _Caller())
            for serving in current.all():
                current.put(serving.version, serving.model)  # as a new model does: the policy is asked once more
        try:
            return walk_of(lambda: behaviour(request, _Caller()))
        finally:
            calls.shutdown()


def main() -> None:
    """Print it."""
    with TemporaryDirectory() as folder:
        walk = decide_walk(Path(folder, "walk.db"))
    print(f"{len(walk.files)} files (aim {MOST_FILES}), {walk.returns} returns to a room (aim {MOST_RETURNS})")
    print("\n".join(walk.files))
    print(" > ".join(walk.stays))


if __name__ == "__main__":
    main()
