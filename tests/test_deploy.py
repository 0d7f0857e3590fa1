"""The HTTP port at a deploy: who asks between the end of one process and the first answers of the next."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from decider.errors import AddressInUse
from decider.server.http import listen as module
from decider.server.http.listen import listen
from tests.rpc_clients import PATIENCE, ServerProcess, fetch

HEAVY = {"numpy", "scipy", "grpc", "pyarrow", "vowpal_wabbit_next", "jinja2", "prometheus_client"}


def test_a_start_listens_before_it_imports_what_takes_long() -> None:
    """Imports are most of a start: whoever asks meanwhile must wait for the answer, and not be refused."""
    code = "import sys; from decider.server.command import listen; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & {*done.stdout.split()} == set()


@contextmanager
def asked_all_the_time(address: str) -> Iterator[list[object]]:
    """What callers get who ask one after the other, each on a connection of its own: statuses, or errors."""
    found: list[object] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                found.append(fetch(f"http://{address}/metrics")[0])
            except OSError as error:
                found.append(error)
            time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join(PATIENCE)


def test_a_socket_that_is_given_refuses_nobody_at_a_restart(tmp_path: Path) -> None:
    """A monitor that pages for `up == 0` must not page for a deploy: the service manager holds the socket, and callers
    wait in it."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        address = f"127.0.0.1:{given.getsockname()[1]}"
        server = ServerProcess(tmp_path / "log.db", listening=given)
        with asked_all_the_time(address) as found:
            for _ in range(2):
                assert server.http == address
                asked = len(found)
                assert server.terminate() == 0, server.output
                server = ServerProcess(tmp_path / "log.db", listening=given)
                assert len(found) > asked
        assert {*found} == {200}
        assert server.terminate() == 0
        assert "Traceback" not in server.output


def test_a_given_socket_that_others_reach_is_warned_of(tmp_path: Path) -> None:
    """Where it listens the socket says, and `--http` does not."""
    with socket.create_server(("0.0.0.0", 0)) as given:
        server = ServerProcess(tmp_path / "log.db", listening=given)
        address = f"0.0.0.0:{given.getsockname()[1]}"
        assert f"anybody who reaches {address} (--http) may read every decision" in server.output
        assert f"  --http {address}\n" in server.output
        assert "anybody who reaches" in fetch(f"http://127.0.0.1:{given.getsockname()[1]}/readyz")[1]
        assert server.terminate() == 0


@pytest.fixture
def environment() -> dict[str, str]:
    """As a service manager sets it for one socket."""
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "decider.socket", "OTHER": "x"}


def give(monkeypatch: pytest.MonkeyPatch, sock: socket.socket) -> None:
    """As the first descriptor that a service manager gives."""
    monkeypatch.setattr(module, "FIRST_GIVEN", os.dup(sock.fileno()))


def test_what_was_given_is_not_given_on(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that the server starts must not take the socket for its own."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        give(monkeypatch, given)
        found, address = listen("127.0.0.1:9", environment)
        with found:
            assert address == f"127.0.0.1:{given.getsockname()[1]}"
            assert not found.get_inheritable()
    assert environment == {"OTHER": "x"}


@pytest.mark.parametrize("change", [{"LISTEN_PID": "1"}, {"LISTEN_PID": ""}, {"LISTEN_FDS": "0"}, {"LISTEN_FDS": "x"}])
def test_what_was_given_to_another_process_is_left_alone(environment: dict[str, str], change: dict[str, str]) -> None:
    """A shell that a service manager started hands its environment on, and the descriptor may be anything."""
    found, address = listen("127.0.0.1:0", environment | change)
    with found:
        assert address == f"127.0.0.1:{found.getsockname()[1]}"


def test_sockets_that_cannot_be_the_port_are_refused(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With what to declare instead."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        give(monkeypatch, given)
        with pytest.raises(AddressInUse, match="declare a single ListenStream=HOST:PORT"):
            listen("127.0.0.1:0", environment | {"LISTEN_FDS": "2"})
    with socket.socket() as silent:
        give(monkeypatch, silent)
        with pytest.raises(AddressInUse, match="declare a single ListenStream=HOST:PORT"):
            listen("127.0.0.1:0", {**environment})
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        give(monkeypatch, local)
        with pytest.raises(AddressInUse, match="declare a single ListenStream=HOST:PORT"):
            listen("127.0.0.1:0", {**environment})
    with (tmp_path / "file").open("w") as file:
        monkeypatch.setattr(module, "FIRST_GIVEN", os.dup(file.fileno()))
        with pytest.raises(AddressInUse, match="the socket that the service manager gives cannot be used"):
            listen("127.0.0.1:0", {**environment})
