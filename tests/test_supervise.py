"""What a parent of several processes does where one of them does not start, or does no work any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.studies.served import children
from tests.rpc_clients import PATIENCE, until


class Parent:
    """See `supervised.py`. folder: for the files that say what a worker is like."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._output = folder / "output"
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.supervised", str(folder)], stdout=file, stderr=file
            )
        self.hears("serving")

    @property
    def output(self) -> str:
        """All that it has said."""
        return self._output.read_text()

    def hears(self, text: str) -> None:
        """Wait until it says that."""
        until(lambda: text in self.output, what=f"the parent says {text!r}")

    def renew(self) -> None:
        """As `decider reload`."""
        self.process.send_signal(signal.SIGUSR2)

    @property
    def children(self) -> list[int]:
        """The leader's process and the worker's, the oldest first."""
        return children(self.process.pid)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    """With a leader and a worker; ends when it is told to."""
    made = Parent(tmp_path)
    try:
        yield made
        made.process.terminate()
        assert made.process.wait(PATIENCE) == 0
        assert "Traceback" not in made.output
    finally:
        made.process.kill()
        made.process.wait()


def test_a_successor_that_does_not_start_changes_nothing(parent: Parent) -> None:
    """Whoever asked hears why; all serve on, and another renewal is possible."""
    before = parent.children
    (parent.folder / "fails").touch()
    parent.renew()
    parent.hears("renewal a new worker 1 ended (exit code 1); the one before serves on")
    assert parent.children == before
    (parent.folder / "fails").unlink()
    parent.renew()
    until(lambda: not {*before} & {*parent.children} and len(parent.children) == 2, what="all are new")


def test_a_slow_start_is_waited_for(parent: Parent) -> None:
    """A large log takes its time; nobody is ended for that, however long it takes."""
    before = parent.children
    (parent.folder / "slow").touch()
    parent.renew()
    until(lambda: len(parent.children) == 3, what="a successor is on the way")
    with pytest.raises(subprocess.TimeoutExpired):
        parent.process.wait(3.0)  # longer than the bound for one that serves
    assert "hangs" not in parent.output
    assert {*before} < {*parent.children}
    (parent.folder / "slow").unlink()
    until(lambda: not {*before} & {*parent.children} and len(parent.children) == 2, what="all are new")


def test_one_whose_threads_have_stopped_is_ended_and_says_where(parent: Parent) -> None:
    """A lock that nobody gives back: the process is there, and does nothing."""
    (parent.folder / "sick").touch()
    parent.renew()
    parent.hears("worker 1 hangs since")
    (parent.folder / "sick").unlink()
    parent.hears("worker 1 ended (SIGABRT); it is started again at once")
    assert "supervised.py" in parent.output[parent.output.index("Fatal Python error: Aborted") :]


def test_one_that_waits_for_its_database_is_left_alone(parent: Parent) -> None:
    """As long as it does."""
    (parent.folder / "sick").touch()
    (parent.folder / "waits").touch()
    before = parent.children
    parent.renew()
    until(lambda: not {*before} & {*parent.children} and len(parent.children) == 2, what="all are new")
    with pytest.raises(subprocess.TimeoutExpired):
        parent.process.wait(5.0)  # longer than the bound
    assert "hangs" not in parent.output
    (parent.folder / "waits").unlink()
    parent.hears("worker 1 hangs since")
    (parent.folder / "sick").unlink()


def test_one_that_leads_at_once_counts_as_leading(tmp_path: Path) -> None:
    """Its parent, which was held up, hears of its start and its end together: from then on it may hang again."""
    (tmp_path / "takes over").touch()
    parent = Parent(tmp_path)
    try:
        (leader, _) = parent.children
        parent.process.send_signal(signal.SIGSTOP)
        (tmp_path / "takes over").unlink()
        until(lambda: (tmp_path / "leads").exists(), what="it leads")
        parent.process.send_signal(signal.SIGCONT)
        os.kill(leader, signal.SIGSTOP)
        parent.hears("leader hangs since")
        parent.hears("leader ended (SIG")  # so nothing is left of it
    finally:
        parent.process.kill()
        parent.process.wait()


def test_a_signal_for_the_parent_that_all_get_ends_nobody(parent: Parent) -> None:
    """As `systemctl kill --signal=USR2` sends it."""
    before = parent.children
    for pid in before:
        os.kill(pid, signal.SIGUSR2)
    parent.renew()
    until(lambda: not {*before} & {*parent.children} and len(parent.children) == 2, what="all are new")
    assert "SIGUSR2" not in parent.output


def test_a_storm_of_renewals_is_one(parent: Parent) -> None:
    """However often it was asked for while one was on the way."""
    (parent.folder / "slow").touch()
    parent.renew()
    until(lambda: len(parent.children) == 3, what="a successor is on the way")
    for _ in range(50):
        parent.renew()
        time.sleep(0.01)
    (parent.folder / "slow").unlink()
    before = parent.children
    until(lambda: not {*before} & {*parent.children} and len(parent.children) == 2, what="all are new")
    assert max(line.count("leader") for line in parent.output.splitlines() if line.startswith("renewal")) == 1


def test_who_does_not_listen_holds_up_nobody(parent: Parent) -> None:
    """A leader that stands still, while its parent is asked again and again to look at files."""
    (leader, _) = parent.children
    os.kill(leader, signal.SIGSTOP)
    for _ in range(20_000):
        parent.process.send_signal(signal.SIGHUP)
        time.sleep(0)
    parent.hears("leader hangs since")
