"""When a process that says nothing is taken to hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from decider.server import signs
from decider.server.signs import Silence, thread_states
from tests.rpc_clients import until

SLEEPS = "import time; time.sleep(600)"
CALCULATES = "while True: pass"


@contextmanager
def process(code: str) -> Iterator[int]:
    """One that runs this."""
    with subprocess.Popen([sys.executable, "-c", code]) as running:
        try:
            yield running.pid
        finally:
            running.kill()


def looks(silence: Silence, count: int, bound: float) -> list[bool]:
    """What so many looks say, a second apart by their own count."""
    return [silence.is_hung(1.0, bound) for _ in range(count)]


def test_one_that_was_stopped_hangs_once_the_time_is_over() -> None:
    """So does one whose threads wait for each other; a sign of life begins the time anew."""
    with process(SLEEPS) as pid:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: thread_states(pid) == {"T"}, what="it stands")
        silence = Silence(pid)
        assert looks(silence, 5, bound=4) == [False] * 4 + [True]
        silence.end()
        assert looks(silence, 4, bound=4) == [False] * 4


def test_one_that_calculates_gets_more_time() -> None:
    """A long call of Vowpal Wabbit lets no thread say that it lives; a loop without end must end, too."""
    with process(CALCULATES) as pid:
        until(lambda: thread_states(pid) == {"R"}, what="it runs")
        assert looks(Silence(pid), 40, bound=4) == [False] * 39 + [True]


def test_one_that_waits_for_a_disk_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No signal would end it, and the next one would wait as well."""
    monkeypatch.setattr(signs, "thread_states", lambda _: {"S", "D"})
    assert looks(Silence(1), 100, bound=4) == [False] * 100


def test_a_process_that_is_gone_has_no_states() -> None:
    """It ends between two looks."""
    with process("pass") as pid:
        pass
    assert thread_states(pid) == set()
