"""The end of a server, a second server on one log, and experiment files that change while it runs."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from tests.rpc_clients import (
    PATIENCE,
    GrpcClient,
    InProcessClient,
    ServerProcess,
    code_of,
    experiment,
    refused,
    status_of,
    until,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

FILE = """
id = "from-file"
minimum_propensity = 0.01
[[actions]]
id = "a"
[[actions]]
id = "b"
"""


@contextmanager
def running(db: Path, *options: str) -> Iterator[tuple[ServerProcess, GrpcClient]]:
    """A server process with a client; killed at the end if it still lives."""
    server = ServerProcess(db, *options)
    client = server.client()
    try:
        yield server, client
    finally:
        client.close()
        if server.process.poll() is None:
            server.kill()


def test_calls_in_flight_finish_and_the_process_ends_with_0(tmp_path: Path) -> None:
    """A deployment must not cost a single visitor: health says no first, then what has begun is finished."""
    with running(tmp_path / "log.db", "--grace", "5") as (server, client):
        client.apply(experiment("e"))
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watch).status == SERVING
        with closing(sqlite3.connect(server.db, isolation_level=None)) as other:
            other.execute("begin immediate")
            requests = [pb.DecideRequest(experiment="e", unit_id="unit", decision_id=f"d-{i}") for i in range(6)]
            calls = [client.future("Decide", request) for request in requests]
            time.sleep(0.5)
            assert not any(call.done() for call in calls)
            server.process.send_signal(signal.SIGTERM)
            assert next(watch).status == NOT_SERVING
            other.execute("rollback")
        assert [call.result().decision_id for call in calls] == [request.decision_id for request in requests]
        watch.cancel()
        assert server.terminate() == 0, server.output
        assert "Traceback" not in server.output
        assert client.rows("select count(*) from decisions") == [(6,)]


def test_new_calls_are_refused_while_it_drains(tmp_path: Path) -> None:
    """A client must be told at once to go elsewhere, not be kept waiting for a server that is leaving."""
    with running(tmp_path / "log.db", "--grace", "5") as (server, client):
        client.apply(experiment("e"))
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watch).status == SERVING
        with closing(sqlite3.connect(server.db, isolation_level=None)) as other:
            other.execute("begin immediate")
            call = client.future("Decide", pb.DecideRequest(experiment="e", unit_id="unit"))
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            assert next(watch).status == NOT_SERVING
            assert until(lambda: client.fetch("/readyz"), what="readyz answers")[0] == 503
            assert until(lambda: code_of(status_of(lambda: client.get("e"))) == "UNAVAILABLE", what="calls are refused")
            other.execute("rollback")
        assert call.result().action.id
        watch.cancel()
        assert server.terminate() == 0


def test_watched_server_ends_before_its_grace_is_over(tmp_path: Path) -> None:
    """Clients with health checking watch for as long as they live: a watch is no call that is worth waiting for."""
    with running(tmp_path / "log.db", "--grace", "1000") as (server, client):
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watch).status == SERVING
        server.process.send_signal(signal.SIGTERM)
        try:
            until(lambda: server.process.poll() is not None, what="the server ends")
        finally:
            watch.cancel()


def test_a_foreign_lock_keeps_neither_probes_nor_the_end(tmp_path: Path) -> None:
    """A forgotten transaction of somebody's shell makes calls wait. Probes that wait too have the server restarted, and
    a stop that waits for one write after the other is killed. Who only asks for an experiment waits for nobody."""
    with running(tmp_path / "log.db", "--grace", "3") as (server, client), ThreadPoolExecutor(8) as pool:
        client.apply(experiment("e"))
        answered = client.decide("e")
        with closing(sqlite3.connect(server.db, isolation_level=None)) as other:
            other.execute("begin exclusive")
            for number in range(100):
                client.future("Decide", pb.DecideRequest(experiment="e", unit_id=f"unit-{number}"))
            pauses = [pool.submit(lambda: status_of(lambda: client.pause("e"))) for _ in range(8)]
            time.sleep(0.2)
            assert client.get("e").version == 1
            check = health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
            assert check.status == SERVING
            assert not any(pause.done() for pause in pauses)
            assert client.fetch("/healthz") == (200, "ok\n")
            assert client.fetch("/readyz")[0] in (200, 503)  # the first calls still wait, or have failed
            assert client.fetch("/metrics")[0] == 200
            server.process.send_signal(signal.SIGTERM)
            until(lambda: server.process.poll() is not None, what="the server ends", patience=8)
        assert server.process.returncode == 0
        assert "Traceback" not in server.output
        assert client.rows("select decision_id from decisions") == [(answered.decision_id,)]


def test_last_model_is_published_and_the_log_is_one_file(tmp_path: Path) -> None:
    """What was sealed up to the end is learned and stored, so that the next start serves it at once; and a copy of
    the one file is the whole log."""
    with running(tmp_path / "log.db", "--learn-interval", "3600") as (server, client):
        client.apply(experiment("e", window=0.2))
        ids = [client.decide("e", f"unit-{i}").decision_id for i in range(20)]
        for id_ in ids:
            client.reward(id_, value=0.5)
        time.sleep(0.2)
        assert server.terminate() == 0
        wal = Path(f"{server.db}-wal")
        assert not wal.exists() or wal.stat().st_size == 0
        ((learned, model),) = client.rows("select learned, model from published order by model desc limit 1")
        assert learned == 20
    with running(tmp_path / "log.db", "--learn-interval", "3600") as (server, client):
        assert client.get("e").model == model


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_server_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    """Service managers send the one, people the other."""
    with running(tmp_path / "log.db") as (server, _):
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert server.output.endswith("draining\nstopped\n")


def test_second_server_on_a_log_is_refused(tmp_path: Path) -> None:
    """Two writers would give two orders; the text must say whose fault it is and what to do."""
    with running(tmp_path / "log.db") as (server, client):
        code, output = refused(server.db)
        assert code == 1
        assert f"Error: {server.db}: another server writes this log; end it or name another file\n" == output
        client.apply(experiment("e"))
        assert client.decide("e").action.id


def test_taken_port_is_refused_by_name(tmp_path: Path) -> None:
    """The address is what a person has to change."""
    with running(tmp_path / "log.db") as (server, _):
        for option, address in (("--listen", server.target), ("--http", server.http)):
            code, output = refused(tmp_path / "other.db", option, address)
            assert code == 1
            assert "Traceback" not in output
            assert address in output


def test_log_in_no_folder_is_refused(tmp_path: Path) -> None:
    """A typo in a path must say so, not make a new empty log somewhere."""
    (tmp_path / "log.db").touch()
    code, output = refused(tmp_path / "log.db", "--db", str(tmp_path / "nowhere" / "log.db"))
    assert code == 1
    assert "nowhere/log.db: cannot be written there" in output
    assert "Traceback" not in output


def test_changed_file_is_picked_up_without_a_restart(tmp_path: Path) -> None:
    """Whoever edits an experiment sees it run within seconds; a new file in the folder counts as well."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "one.toml").write_text(FILE)
    with running(tmp_path / "log.db", "--experiments", str(folder), "--learn-interval", "0.1") as (_, client):
        assert client.get("from-file").version == 1
        (folder / "one.toml").write_text(FILE + '[[actions]]\nid = "c"\n')
        until(lambda: client.get("from-file").version == 2, what="the changed file runs")
        assert [action.id for action in client.get("from-file").experiment.actions] == ["a", "b", "c"]
        (folder / "two.toml").write_text(FILE.replace("from-file", "second"))
        until(lambda: len(client.page().experiments) == 2, what="the new file runs")


def test_unchanged_file_makes_no_version_at_the_next_start(tmp_path: Path) -> None:
    """Every restart reads every file; versions count changes."""
    file = tmp_path / "one.toml"
    file.write_text(FILE)
    for _ in range(2):
        with running(tmp_path / "log.db", "--experiments", str(file)) as (server, client):
            assert client.get("from-file").version == 1
            assert server.terminate() == 0


BAD = {
    "bad value": (FILE.replace("0.01", "0.9"), "minimum_propensity: 0.9 is not in [0, 0.5]"),
    "unknown key": (FILE.replace("minimum_propensity", "minimum_propencity"), "minimum_propencity"),
    "no TOML": ("id = \n", "(at line 1, column 6)"),
    "wrong type": (FILE.replace("0.01", '"much"'), "minimum_propensity"),
    "gone": (None, "No such file"),
}


def test_bad_change_of_a_file_is_refused_and_the_running_version_stays(tmp_path: Path) -> None:
    """A typo on a Friday must not end an experiment; stderr names file and field, once, and a mended file runs."""
    files = {tmp_path / f"{id_}.toml": id_ for id_ in (name.replace(" ", "-") for name in BAD)}
    for file, id_ in files.items():
        file.write_text(FILE.replace("from-file", id_))
    options = [option for file in files for option in ("--experiments", str(file))]
    with running(tmp_path / "log.db", *options, "--learn-interval", "0.1") as (server, client):
        for (file, id_), (content, _) in zip(files.items(), BAD.values(), strict=True):
            if content is None:
                file.unlink()
            else:
                file.write_text(content.replace("from-file", id_))
        until(lambda: server.output.count("refused, the running version stays") == len(BAD), what="all are refused")
        for (file, id_), (_, named) in zip(files.items(), BAD.values(), strict=True):
            (line,) = [line for line in server.output.splitlines() if "refused" in line and str(file) in line]
            assert named in line
            assert (client.get(id_).version, code_of(status_of(lambda id_=id_: client.decide(id_)))) == (1, "OK")  # type: ignore[misc]
            file.write_text(FILE.replace("0.01", "0.02").replace("from-file", id_))
        until(lambda: all(client.get(id_).version == 2 for id_ in files.values()), what="the mended files run")
        assert server.output.count("refused") == len(BAD)


@pytest.mark.parametrize(("content", "named"), [BAD[name] for name in ("bad value", "unknown key")])
def test_bad_file_at_the_start_is_refused(tmp_path: Path, content: str, named: str) -> None:
    """Nothing runs yet that could stay, so the start fails, with the same words and no traceback."""
    file = tmp_path / "one.toml"
    file.write_text(content)
    code, output = refused(tmp_path / "log.db", "--experiments", str(file))
    assert code == 1
    assert output.startswith(f"Error: {file}: ")
    assert named in output
    assert "Traceback" not in output


def test_file_that_changed_while_the_log_was_locked_is_picked_up_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is right; that the log could not be written for a moment must not make the change be forgotten."""
    file = tmp_path / "one.toml"
    file.write_text(FILE)
    client = InProcessClient(tmp_path / "log.db", files_interval=0.05, experiments=(file,))
    try:
        client.writer.execute("pragma busy_timeout = 50")
        with closing(sqlite3.connect(client.db, isolation_level=None)) as other:
            other.execute("begin immediate")
            file.write_text(FILE.replace("0.01", "0.02"))
            until(lambda: "keeps the log locked" in caplog.text, what="the file was refused: nothing else is written")
            other.execute("rollback")
        until(lambda: client.get("from-file").version == 2, what="the changed file runs")
    finally:
        client.close()


def test_pause_and_apply_at_the_same_moment_both_hold(tmp_path: Path) -> None:
    """A pause that overlaps with a deployment must neither be lost nor bring the old definition back."""
    client = InProcessClient(tmp_path / "log.db", learn_interval=3600.0, threads=4)
    try:
        client.apply(experiment("e", "a", "b"))
        with ThreadPoolExecutor(2) as pool:
            applying = pool.submit(client.apply, experiment("e", "a", "b", "c"))
            pausing = pool.submit(client.pause, "e")
            applying.result(30)
            pausing.result(30)
        now = client.get("e").experiment
        assert [action.id for action in now.actions] == ["a", "b", "c"]
        assert code_of(status_of(lambda: client.decide("e"))) == grpc.StatusCode.FAILED_PRECONDITION.name
    finally:
        client.close()


SHUTDOWN = """
import threading
from decider.log.group_commit import Call, CommitExecutor

begun, finish = threading.Event(), threading.Event()
together = CommitExecutor(lambda entries: [None for _ in entries], threads=1)
together.run(Call(lambda: (begun.set(), finish.wait()), ()))
begun.wait()
stopping = threading.Thread(target=together.shutdown)
stopping.start()
threading.Timer(0.5, finish.set).start()
stopping.join()
print("ended")
"""


def test_executor_ends_when_its_last_call_ends_after_shutdown_began() -> None:
    """A call that ends while the server drains must not keep its thread, and with it the process, for ever."""
    ended = subprocess.run(  # in a process of its own, so that a thread that never ends does not stay
        ["timeout", "10", sys.executable, "-c", SHUTDOWN], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "ended\n")


def test_frozen_experiment_keeps_its_model_over_a_restart(tmp_path: Path) -> None:
    """FROZEN: the model no longer changes, also where nothing had been learned when it was frozen."""
    client = InProcessClient(tmp_path / "log.db", learn_interval=3600.0)
    client.apply(experiment("e", window=0.2))
    for unit in range(5):
        client.reward(client.decide("e", f"unit-{unit}").decision_id)
    frozen = experiment("e", window=0.2, learning=experiment_pb2.LEARNING_FROZEN)
    model = client.apply(frozen).applied.model
    time.sleep(0.2)
    client.close()
    again = InProcessClient(tmp_path / "log.db")
    try:
        assert again.get("e").model == model
    finally:
        again.close()


def test_server_that_is_asked_about_experiments_all_the_time_ends(tmp_path: Path) -> None:
    """Calls that come in the moment of the end must find no pool that takes nothing any more: gRPC's thread dies of
    that, and the server never ends."""
    with running(tmp_path / "log.db", "--grace", "5") as (server, client):
        client.apply(experiment("e"))
        ended = threading.Event()

        def ask() -> None:
            while not ended.is_set():
                with suppress(grpc.RpcError):
                    client.get("e")

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        assert server.terminate() == 0
        ended.set()
        for thread in threads:
            thread.join()
        assert "Traceback" not in server.output


NEVER_DONE = """
import atexit, threading, time
from decider.cli import main

threading.Thread(target=time.sleep, args=(1_000,)).start()
atexit.register(time.sleep, 1_000)
main()
"""


def test_a_server_that_has_stopped_is_gone(tmp_path: Path) -> None:
    """Whoever restarts it waits for the end of the process. All is closed then: neither threads of libraries nor what
    the interpreter tidies up, which takes long where clients keep its core busy, may hold it up."""
    server = ServerProcess(tmp_path / "log.db", program=("-c", NEVER_DONE))
    try:
        assert server.terminate() == 0
        assert server.output.endswith("draining\nstopped\n")
    finally:
        server.kill()


def test_a_log_names_every_build_that_wrote_it(tmp_path: Path) -> None:
    """Bit-exact replay is checked for some builds only; whoever audits must know which one wrote."""
    for _ in range(2):
        server = ServerProcess(tmp_path / "log.db")
        assert server.terminate() == 0
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        builds = [json.loads(row[0]) for row in db.execute("select build from builds order by position")]
    assert len(builds) == 2
    versions = {"decider", "vowpal_wabbit_next", "python", "sqlite", "machine"}
    assert set(builds[0]) == {*versions, "codes", "rules", "budget"}
