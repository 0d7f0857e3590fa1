"""The process of all clients, on a host of its own: it calls every server, and writes down what was acknowledged.

A call without an answer is sent again with the same id, first there, then at the other host, until it is answered: as
applications do that must not lose anything. Rewards without an id are sent once. Started by `stage.py`; `end` on stdin
ends it.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import grpc

from decider.channel import Credentials, open_channel
from decider.client.connection import CHILD, RECONNECT
from decider.v1 import decider_service_pb2 as pb
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub
from simulator.studies.faults.ledger import HOME, ONCE, REWARD, Decided, Failed, Line, Rewarded, Sent, to_text

THREADS = 6
"""At each host, each with a connection of its own to each host."""

TIMEOUT = 2.0
PAUSE = 0.05
"""Seconds between a call without an answer and the next one."""

AGAIN_SHARE, REWARD_SHARE, WITHOUT_ID_SHARE = 0.1, 0.5, 0.4
LAST_CALLS = 60.0
"""Seconds in which calls that are under way must be answered at the end."""

ASK_AGAIN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)

SEGMENTS = ("new", "regular", "loyal")


class Ledger:
    """A line at a time, from any thread; each is in the file before the next call."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def write(self, line: Line) -> None:
        """Add it."""
        with self._lock:
            self._file.write(to_text(line) + "\n")


@dataclass(slots=True)
class Client:
    """One thread. stubs: by host, its own first. period: seconds of a decision and what follows."""

    name: str
    stubs: Sequence[tuple[str, Any]]
    ledger: Ledger
    random: Random
    period: float
    stopping: threading.Event

    def run(self) -> None:
        """Until it is to stop and all of its calls are answered."""
        for number in itertools.count():
            begun = time.monotonic()
            if self.stopping.is_set():
                return
            with suppress(Refused):  # the next visit has another id
                self._visit(f"{self.name}-{number:06d}")
            self.stopping.wait(max(0.0, begun + self.period * 2 * self.random.random() - time.monotonic()))

    def _visit(self, id_: str) -> None:
        request = pb.DecideRequest(
            experiment=HOME,
            unit_id=f"unit-{id_}",
            decision_id=id_,
            context=pb.Context(segment=self.random.choice(SEGMENTS)),
        )
        self.ledger.write(Sent(time.time(), self.stubs[0][0], id_))
        reply, host = self._until_answered("Decide", request, self.stubs)
        if reply is None:
            return
        self.ledger.write(Decided(time.time(), host, id_, reply.action.id, reply.propensity, again=False))
        if self.random.random() < AGAIN_SHARE:
            reply, host = self._until_answered("Decide", request, self.stubs[::-1])
            if reply is not None:
                self.ledger.write(Decided(time.time(), host, id_, reply.action.id, reply.propensity, again=True))
        if self.random.random() < REWARD_SHARE:
            self._reward(id_)

    def _reward(self, id_: str) -> None:
        value = self.random.randrange(1, 10**9) / 10**9
        request = pb.RewardRequest(decision_id=id_, name=REWARD, value=value)
        with_id = self.random.random() >= WITHOUT_ID_SHARE
        if with_id:
            request.reward_id = ONCE
            reply, host = self._until_answered("Reward", request, self.stubs)
        else:
            host, stub = self.stubs[0]
            reply = self._call(host, stub.Reward, request)
        if reply is not None:
            self.ledger.write(Rewarded(time.time(), host, id_, value, with_id))

    def _until_answered(self, method: str, request: Any, stubs: Sequence[tuple[str, Any]]) -> tuple[Any, str]:
        """The answer, and of whom. None where it was refused, or where the time is over."""
        give_up: float | None = None
        for host, stub in itertools.cycle(stubs):
            reply = self._call(host, getattr(stub, method), request)
            if reply is not None:
                return reply, host
            if self.stopping.is_set():
                give_up = give_up or time.monotonic() + LAST_CALLS
                if time.monotonic() > give_up:
                    break
            time.sleep(PAUSE)
        return None, ""

    def _call(self, host: str, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            self.ledger.write(Failed(time.time(), host, error.code().name, f"{error.details()}"[:200]))
            if error.code() not in ASK_AGAIN:
                raise Refused from error
            return None


class Refused(Exception):
    """An answer that no client of these expects; it is in the ledger."""


def run(targets: dict[str, str], ledger: Ledger, *, rate: float, seed: int, until: Callable[[], object]) -> None:
    """targets: address of each host. rate: decisions a second, in all. until: returns once it is to end."""
    stopping = threading.Event()
    names = [(host, number) for host in targets for number in range(THREADS)]
    threads = []
    for host, number in names:
        order = [host, *(other for other in targets if other != host)]
        stubs = [(one, _stub(targets[one])) for one in order]
        client = Client(
            f"{host}-{number}", stubs, ledger, Random(f"{seed} {host} {number}"), len(names) / rate, stopping
        )
        threads.append(threading.Thread(target=client.run))
    for thread in threads:
        thread.start()
    until()
    stopping.set()
    for thread in threads:
        thread.join()


def _stub(target: str) -> Any:
    return DeciderServiceStub(open_channel(target, Credentials(), [*RECONNECT, *CHILD]))  # type: ignore[no-untyped-call]


def main() -> None:
    """As JSON: the targets; then rate, seed, and the ledger's path."""
    targets, rate, seed, path = sys.argv[1:]
    print("ready", flush=True)
    run(json.loads(targets), Ledger(Path(path)), rate=float(rate), seed=int(seed), until=sys.stdin.readline)


if __name__ == "__main__":
    main()
