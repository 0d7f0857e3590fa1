"""Operators' commands on a log in PostgreSQL, beside a server and without one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.postgres import PostgresServer
from tests.rpc_clients import ServerProcess, experiment, until
from tests.test_serve_postgres import SECRET, secret


def decider(*arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command; nobody is shown the password."""
    done = subprocess.run(
        [sys.executable, "-m", "decider.cli", *arguments], capture_output=True, text=True, check=False
    )
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def shop(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a log with a server, and a decision in it that was learned."""
    url = secret(postgres.new_schema())
    server = ServerProcess(tmp_path_factory.mktemp("shop") / "log", "--learn-interval", "0.05", url=url)
    with closing(server.client()) as client:
        client.apply(experiment("shop", window=0.05))
        until(lambda: client.get("shop").version == 1, what="it is there")
        made = [client.decide("shop", f"unit-{number}").decision_id for number in range(30)]
        client.reward(made[0], value=1.0)
        until(lambda: client.decide("shop").model > 0, what="it has learned")
        yield url, made[0]
    server.terminate()


def test_what_reads_a_log_reads_it_in_postgres(shop: tuple[str, str]) -> None:
    """Beside its server, and with the same words as from a file."""
    url, made = shop
    assert "shop" in decider("list", "--db", url)[1]
    assert 'id = "shop"' in decider("get", "shop", "--db", url)[1]
    code, text, _ = decider("explain", made, "--db", url)
    assert (code, made in text) == (0, True)
    code, text, _ = decider("check", "--db", url, "--json")
    found = json.loads(text)
    assert (code, found["damage"], found["equal"], found["log"].startswith("postgresql://postgres@")) == (
        0, [], found["decisions"], True,
    )  # fmt: skip
    assert decider("doctor", "--db", url)[0] in (0, 1)


def test_what_changes_a_log_changes_it_in_postgres(shop: tuple[str, str]) -> None:
    """The server, in another process, follows the entries."""
    url, _ = shop
    code, text, errors = decider(
        "leave-out", "shop", "--db", url, "--from", "1h", "--until", "30m", "--note", "pixel", "--wait"
    )
    assert (code, "follows it and is published" in text) == (0, True), errors
    assert "pixel" in decider("leave-out", "shop", "--db", url, "--list")[1]
    assert decider("rollback", "shop", "--db", url, "--list")[0] == 0
    code, text, errors = decider("relearn", "shop", "--db", url, "--dry-run")
    assert (code, errors) == (0, ""), text
    code, text, errors = decider("relearn", "shop", "--db", url, "--wait")
    assert code == 0, errors


@pytest.mark.parametrize(
    "command", [("relearn", "shop"), ("leave-out", "shop", "--from", "1h"), ("check",), ("doctor",)]
)
def test_a_log_that_is_not_there_is_not_made(postgres: PostgresServer, command: tuple[str, ...]) -> None:
    """A slip in the address must not make a second, empty log."""
    code, text, errors = decider(*command, "--db", secret(postgres.new_schema()))
    assert (code > 0, text) == (True, "")
    assert "there is no" in errors


def test_whoever_waits_for_a_leader_needs_one(postgres: PostgresServer, tmp_path: Path) -> None:
    """Else it would wait for ever."""
    url = secret(postgres.new_schema())
    server = ServerProcess(tmp_path / "log", url=url)
    server.terminate()
    code, _, errors = decider("leave-out", "shop", "--db", url, "--from", "1h", "--wait")
    assert (code, "no server runs on this log" in errors) == (1, True)


def test_an_archive_beside_postgres_is_refused(shop: tuple[str, str], tmp_path: Path) -> None:
    """There is none, so whoever names one means another log."""
    for command in (("explain", "x"), ("relearn", "shop"), ("leave-out", "shop", "--list"), ("doctor",)):
        code, _, errors = decider(*command, "--db", shop[0], "--archive", str(tmp_path))
        assert (code > 0, "nothing is archived out of PostgreSQL" in errors) == (True, True)
