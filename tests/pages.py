"""Programs of pages that a test runs as processes of their own: one forks its workers, one ends without a close.

Called by `test_client.py`: python -m tests.pages NAME TARGET ARGUMENTS.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from decider.client import QUEUED, AsyncClient, Client
from decider.v1 import decider_service_pb2 as pb
from tests.rpc_clients import PATIENCE, until

SHOP = "shop"
TIMEOUT = 0.5
"""Seconds: a stopped server is soon given up."""


def stop(pid: int) -> None:
    """SIGSTOP, and wait until each thread stands still: one that still runs may answer."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: all(_state(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir()), what="the process stops")


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def decide(client: Client, unit: str) -> str:
    """The id of a decision of the server's, however long that takes."""
    reply = until(lambda: _decided(client, unit), what="the server answers")
    return reply.decision_id


def _decided(client: Client, unit: str) -> pb.DecideResponse | None:
    reply = client.decide(SHOP, unit, fallback="none")
    return reply if reply.decision_id else None


def _filled(client: Client, unit: str) -> str:
    return client.decide_slate(SHOP, unit, [{}, {}], fallback=["none", "sale"]).slate_id


async def _answered(twin: AsyncClient, unit: str) -> bool:
    return (await twin.decide(SHOP, unit, fallback="none")).decision_id != ""


def fork(target: str, server: str) -> None:
    """Three children of a parent whose client was used, and whose asyncio client was not: gRPC's asyncio cannot fork.

    server: its process, which is stopped first; "" leaves it alone.
    Prints the parent's decision, which gets one reward, and those of the children, one each.
    """
    client, twin = Client(target, timeout=TIMEOUT), AsyncClient(target, timeout=TIMEOUT)
    parent = decide(client, "parent")
    if server:
        stop(int(server))
        assert client.reward(parent, "click") == QUEUED
        assert client.waiting
        time.sleep(0.3)  # the client's own thread is in a call when the process forks
    else:
        client.reward(parent, "click")
    print(parent, flush=True)
    children = [_child(client, twin, number) for number in range(3)]
    if server:
        os.kill(int(server), signal.SIGCONT)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    assert client.flush(PATIENCE)
    assert decide(client, "parent")
    until(lambda: asyncio.run(_answered(twin, "parent")), what="the twin is answered")
    client.close()


def _child(client: Client, twin: AsyncClient, number: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    assert (client.waiting, client.fallbacks.total()) == (0, 0)
    mine = decide(client, f"child-{number}")
    until(lambda: asyncio.run(_answered(twin, f"child-{number}")), what="the twin is answered")
    until(lambda: _filled(client, f"child-{number}"), what="a page is filled")
    client.reward(mine, "click")
    assert client.flush(PATIENCE)
    os.write(1, f"{mine}\n".encode())  # whole, beside the other children
    sys.exit(0)


def end(target: str, server: str, decision_id: str) -> None:
    """Rewards while the server is stopped, lets it go on and ends without a close."""
    client = Client(target, timeout=TIMEOUT)
    stop(int(server))
    assert client.reward(decision_id, "click") == QUEUED
    os.kill(int(server), signal.SIGCONT)


PROGRAMS: dict[str, Callable[..., None]] = {"fork": fork, "end": end}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
