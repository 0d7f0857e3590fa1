"""A start on a long log, and an apply on one beside traffic: probes are answered, signals heard, work is kept."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from decider.log.open import open_reader
from decider.v1 import experiment_pb2
from tests import rpc_clients
from tests.long_logs import shop, write_past
from tests.rpc_clients import PATIENCE, InProcessClient, experiment, fetch, until
from tests.test_readme import free_port

DECISIONS = 60_000
"""Four seconds of learning or more."""

OFTEN = (
    "-c",
    "from decider.cli import main; from decider.learn import learner; learner.PIECE = 0.3; main()",
)
"""A server that stores its work in smaller pieces, so that there is one long before the end, however fast it learns."""


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that a server has to learn before it serves."""
    db = tmp_path_factory.mktemp("past") / "log.db"
    write_past(db, DECISIONS, shop())
    return db


@pytest.fixture
def db(past: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    with closing(sqlite3.connect(past)) as source, closing(sqlite3.connect(tmp_path / "log.db")) as copy:
        source.backup(copy)
    return tmp_path / "log.db"


class Starting:
    """`decider serve` that may still be learning; its HTTP port is known from the first moment on."""

    def __init__(self, db: Path, *options: str, program: Sequence[str] = rpc_clients.COMMAND) -> None:
        self.http = f"127.0.0.1:{free_port()}"
        self._output = db.with_name(f"starting-{self.http.rpartition(':')[2]}.txt")
        self.process = rpc_clients.start(db, self._output, "--http", self.http, *options, program=program)

    @property
    def output(self) -> str:
        """What it has said."""
        return self._output.read_text()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; (0, "") while nothing listens."""
        with suppress(urllib.error.URLError):
            return fetch(f"http://{self.http}{path}")
        return 0, ""

    def until_learning(self) -> str:
        """What /readyz says once it learns."""

        def look() -> str | None:
            assert self.process.poll() is None, self.output
            status, text = self.get("/readyz")
            return text if status == 503 and "position" in text and "position 0 of" not in text else None

        return until(look, what="the server learns")

    def end(self, number: signal.Signals) -> int:
        """Its exit code after that signal."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        return self.process.wait(PATIENCE)


@pytest.fixture
def starting(db: Path) -> Iterator[Starting]:
    """A server that starts on the long log."""
    made = Starting(db)
    yield made
    if made.process.poll() is None:
        made.end(signal.SIGKILL)


def test_probes_are_answered_and_sigterm_is_heard_while_a_start_learns(starting: Starting) -> None:
    """A liveness probe that fails while the log is learned makes a crash loop of it."""
    text = starting.until_learning()
    assert starting.get("/healthz") == (200, "ok\n")
    assert "experiment shop, version 1: position" in text
    assert starting.end(signal.SIGTERM) == 0
    assert "gRPC on" not in starting.output


def test_a_start_that_is_killed_keeps_its_work_in_pieces(db: Path) -> None:
    """Otherwise a start that is killed by its probe begins anew for ever."""
    starting = Starting(db, program=OFTEN)

    def stored() -> list[int]:
        with closing(open_reader(db)) as log:
            return list(log.models.stored_positions(shop().id, shop().policy.signature))

    try:
        pieces = until(stored, what="a piece is stored")
    finally:
        starting.end(signal.SIGKILL)
    again = Starting(db)
    try:
        until(lambda: "gRPC on" in again.output, what="the server serves", patience=120)
        assert again.get("/readyz") == (200, "ok\n")
        assert again.end(signal.SIGTERM) == 0
    finally:
        again.process.kill()
        again.process.wait(PATIENCE)
    assert stored()[-1] > pieces[-1]
    verified = subprocess.run(
        [sys.executable, "-m", "simulator.cli", "verify", str(db)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.stdout.splitlines()[-1] == f"{DECISIONS} of {DECISIONS} decisions equal", verified


def test_apply_on_a_long_log_answers_at_once_and_a_pause_of_another_experiment_too(tmp_path: Path) -> None:
    """An emergency brake that waits for somebody else's learning is none."""
    db = tmp_path / "log.db"
    write_past(db, 20_000, shop(), shop("other"))
    client = InProcessClient(db)
    try:
        changed = experiment("shop", "a", "b", window=1.0, policy=experiment_pb2.Policy(cover={}))
        applied = client.apply(changed)
        assert (applied.waits, applied.applied.version) == (True, 2)
        running = client.get("shop")
        assert (running.version, running.waiting.version) == (1, 2)
        assert "learning experiment shop, version 2: position" in client.fetch("/readyz")[1]
        assert client.pause("other").experiment.state == experiment_pb2.EXPERIMENT_STATE_PAUSED
        assert client.get("shop").version == 1, "the pause has waited until the other experiment had learned"
        assert rpc_clients.reason_of(rpc_clients.status_of(lambda: client.decide("other"))) == "EXPERIMENT_PAUSED"
        before = client.decide("shop")
        assert before.experiment_version == 1
        client.until(lambda: client.get("shop").version == 2, what="the new policy serves", patience=120)
        assert client.decide("shop").model > before.model
        assert client.fetch("/readyz") == (200, "ok\n")
    finally:
        client.close()


HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("begin immediate")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_start_waits_for_who_keeps_the_log_locked(tmp_path: Path) -> None:
    """It ended with exit code 1 after some seconds, and nobody knew who it was. Probes are answered, SIGTERM is heard,
    and once the log is free the server serves."""
    db = tmp_path / "log.db"
    write_past(db, 20, shop())
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    who = f"process {holder.pid} ("
    ended, serves = Starting(db), Starting(db)
    try:
        for one in (ended, serves):
            until(lambda: who in one.get("/readyz")[1], what="/readyz names who it is")  # noqa: B023 - called at once
            assert one.get("/healthz") == (200, "ok\n")
            assert one.get("/readyz")[0] == 503
        assert ended.end(signal.SIGTERM) == 0
        assert ended.output.count("the server starts once the log is free") == 1
        holder.communicate()
        until(lambda: serves.get("/readyz")[0] == 200, what="it serves")
        assert serves.end(signal.SIGTERM) == 0
    finally:
        for process in (holder, ended.process, serves.process):
            process.kill()
            process.wait(PATIENCE)


def test_a_second_server_does_not_wait(tmp_path: Path) -> None:
    """It would wait for ever, and look as if it were about to serve."""
    db = tmp_path / "log.db"
    with closing(InProcessClient(db)):
        code, output = rpc_clients.refused(db)
    assert code == 1
    assert "another server writes this log; end it or name another file" in output
