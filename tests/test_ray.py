"""Sweeps on Ray: the same tasks and figures as on processes, whatever happens to a worker. One Ray for this file."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from simulator.commands.group import main
from simulator.compare.on_log import LogResult, LogTask, Reading, try_evaluate
from simulator.run import ray_tasks
from simulator.run.engine import EngineUnavailable, SweepFailed, WorkerDied
from simulator.run.sweep import sweep
from simulator.run.task import HORIZONS, Run, Task, run
from simulator.run.versions import version_of
from simulator.studies import coverage
from simulator.studies.bakeoff.results import HorizonShares, depends_on, play_task
from tests.large_logs import write_large
from tests.sweep_process import (
    Job,
    Square,
    jobs,
    noted,
    process_of,
    square,
    square_or_die,
    square_or_raise,
)
from tests.test_sweep import ROOT, alive, started, wait_until

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: make ray")


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    """One Ray with two workers: a start takes four seconds."""
    with ray_tasks.started(ray_tasks.imported(), 2):
        yield


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server for clients of that Ray, as `ray start --head` has one."""
    import ray

    with socket.socket() as free:
        free.bind((ray_tasks.LOOPBACK, 0))
        port = free.getsockname()[1]
    where = ["--host", ray_tasks.LOOPBACK, "--port", f"{port}", "--address", ray.get_runtime_context().gcs_address]
    command = [sys.executable, "-m", "ray.util.client.server", "--mode", "proxy", *where]
    env = os.environ | {"GRPC_ENABLE_FORK_SUPPORT": "0"}  # else gRPC's fork handlers kill a process now and then
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: answers(port))
            yield f"ray://{ray_tasks.LOOPBACK}:{port}"
        finally:
            process.terminate()


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as client:
        return client.connect_ex((ray_tasks.LOOPBACK, port)) == 0


# The same as on processes


def test_results_come_in_the_order_of_the_tasks_and_equal_tasks_run_once(tmp_path: Path) -> None:
    """As with processes: see test_sweep.py."""
    tasks = jobs(tmp_path / "notes", 5, 0.0)
    told: list[int] = []
    results = sweep([*tasks, tasks[2]], square, result=Square, on="ray", on_done=lambda job, _: told.append(job.number))
    assert results == [Square(task, task.number**2 / 3) for task in [*tasks, tasks[2]]]
    assert Counter(number for _, number in noted(tmp_path / "notes")) == Counter(range(5))
    assert sorted(told) == list(range(5))


def test_figures_are_those_of_processes_to_the_last_bit() -> None:
    """Whoever moves a sweep to a cluster must not get another winner."""
    tasks = [Task("storefront", policy, seed, 300) for seed in (1, 2) for policy in ("default", "bag", "best")]
    alone = sweep(tasks, run, result=Run, workers=1)
    assert sweep(tasks, run, result=Run, on="ray", version=version_of) == alone


def test_figures_of_a_log_are_those_of_processes_to_the_last_bit(tmp_path: Path) -> None:
    """Libraries add up long columns in another order with another number of threads; Ray gives its workers one."""
    log = tmp_path / "log.csv"
    chance = Random(1)
    rows = [
        f"{chance.choice('ab')},{chance.choice((0, 0, 1))},0.5,{chance.choice('xyz')},{chance.random()}\n"
        for _ in range(20_000)
    ]
    log.write_text("action,reward,propensity,segment,age\n" + "".join(rows), encoding="utf-8")
    tasks = [LogTask(Reading(str(log)), policy) for policy in ("uniform", "fixed:a", "squarecb")]
    alone = sweep(tasks, try_evaluate, result=LogResult, workers=1)
    assert all(one.sums for one in alone), [one.failed for one in alone]
    assert repr(sweep(tasks, try_evaluate, result=LogResult, on="ray")) == repr(alone), "by repr: nan is not nan"


def test_a_sweep_of_processes_goes_on_on_ray(tmp_path: Path) -> None:
    """What is kept is nobody's: a laptop's half is not run again by the cluster, nor the other way round."""
    keep, notes = tmp_path / "keep", tmp_path / "notes"
    tasks = jobs(notes, 6, 0.0)
    sweep(tasks[:3], square, result=Square, folder=keep, workers=1)
    assert sweep(tasks, square, result=Square, folder=keep, on="ray")[5].value == 25 / 3
    sweep(tasks, square, result=Square, folder=keep, workers=1)
    assert Counter(number for _, number in noted(notes)) == Counter(range(6))


def test_the_commands_say_the_same_on_a_cluster(tmp_path: Path, address: str) -> None:
    """`--on ray://HOST:PORT`, from a terminal that is no part of the cluster."""
    options = ["storefront", "--policies", "default", "fixed:sale", "--rounds", "200", "--seeds", "2"]
    here, there = tmp_path / "here", tmp_path / "there"
    command = [sys.executable, "-m", "simulator.cli", "compare", *options, "--out", str(there), "--on", address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert CliRunner().invoke(main, ["compare", *options, "--out", str(here), "--workers", "1"]).exit_code == 0
    kept = {file.name: file.read_bytes() for file in (here / "kept").iterdir()}
    assert len(kept) == 4
    assert {file.name: file.read_bytes() for file in (there / "kept").iterdir()} == kept


def test_coverage_is_the_same_on_ray(tmp_path: Path) -> None:
    """The studies take the same option."""
    options = ["--repetitions", "2", "--settings", "I", "--keep", str(tmp_path)]
    on_ray = CliRunner().invoke(coverage.main, [*options, "--on", "ray"])
    assert on_ray.exit_code == 0, on_ray.output
    assert len(list(tmp_path.iterdir())) == len(coverage.SIZES)
    assert CliRunner().invoke(coverage.main, [*options[:-2], "--workers", "1"]).stdout == on_ray.stdout


def test_the_bake_off_is_the_same_on_ray() -> None:
    """Its tasks are in a room that no wheel has: workers find them in the checkout."""
    tasks = [Task("storefront", policy, 1, HORIZONS[0]) for policy in ("fixed:sale", "epsilon_greedy")]
    alone = [replace(one, seconds=0.0) for one in sweep(tasks, play_task, result=HorizonShares, workers=1)]
    on_ray = sweep(tasks, play_task, result=HorizonShares, on="ray", version=depends_on)
    assert [replace(one, seconds=0.0) for one in on_ray] == alone
    assert [len(one.shares) for one in alone] == [1, 1]


def test_a_log_in_parts_has_the_same_figures_on_ray(tmp_path: Path) -> None:
    """To the last bit: parts are put together in their order, whoever was ready first."""
    write_large(tmp_path / "log.parquet", rows=20_000, units=10_000)
    large = ["evaluate-large", str(tmp_path / "log.parquet"), "--reward-range", "0", "1", "--policy", "uniform"]
    found = []
    for place, how in (("here", ["--workers", "1"]), ("there", ["--on", "ray"])):
        options = ["--parts", "4", "--folder", str(tmp_path / place), "--json", str(tmp_path / f"{place}.json"), *how]
        assert CliRunner().invoke(main, [*large, *options]).exit_code == 0
        found.append(json.loads((tmp_path / f"{place}.json").read_text(encoding="utf-8")) | {"seconds": 0})
    assert found[0]["decisions"] == 20_000
    assert found[0] == found[1]


# What happens to workers


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    """kill -9 of a worker in the middle of its task: Ray starts another one, the task runs again."""
    notes, keep = tmp_path / "notes", tmp_path / "keep"
    tasks = jobs(notes, 8, 0.5)
    killed: list[int] = []

    def kill_one() -> None:
        wait_until(lambda: len(noted(notes)) >= 3)
        killed.append(noted(notes)[-1][0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    results = sweep(tasks, square, result=Square, folder=keep, on="ray")
    killer.join()
    assert results == [Square(task, task.number**2 / 3) for task in tasks]
    assert not alive(killed[0])
    starts = Counter(number for _, number in noted(notes))
    assert sorted(starts) == list(range(8))
    assert sum(starts.values()) == 9, "only the task of the killed worker ran again"
    assert len(list(keep.iterdir())) == 8


def test_a_task_that_kills_every_worker_is_named(tmp_path: Path) -> None:
    """One that is too large for the memory must not be tried for ever; what is done stays."""
    with pytest.raises(WorkerDied, match=r"ended from outside 4 times .*not done: Job\(number=3,"):
        sweep([Job(number) for number in range(4)], square_or_die, result=Square, folder=tmp_path, on="ray")
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_a_task_that_raises_is_named(tmp_path: Path) -> None:
    """With what it raised, and without Ray's traceback of its own."""
    with pytest.raises(SweepFailed) as failed:
        sweep([Job(3)], square_or_raise, result=Square, folder=tmp_path, on="ray")
    assert str(failed.value) == f"{Job(3)} failed: ZeroDivisionError: three is no number for me"


def test_a_machine_with_other_code_computes_nothing(tmp_path: Path) -> None:
    """Its results would be kept as if they were ours."""
    notes = tmp_path / "notes"
    with pytest.raises(SweepFailed, match=r"was not run: .*has other code, packages or files \(process \d+\) than"):
        sweep(jobs(notes, 1, 0.0), square, result=Square, on="ray", version=process_of)
    assert not noted(notes)


def test_a_killed_command_leaves_no_worker_behind_and_goes_on(tmp_path: Path) -> None:
    """kill -9 of whoever asked: what is kept is kept, and Ray ends with it."""
    keep, notes = tmp_path / "keep", tmp_path / "notes"
    with started(keep, notes, 12, 0.1, on="ray"):
        wait_until(lambda: len(list(keep.glob("*.json"))) >= 4)
    wait_until(lambda: not any(alive(worker) for worker, _ in noted(notes)))
    kept = len(list(keep.glob("*.json")))
    before = len(noted(notes))
    results = sweep(jobs(notes, 12), square, result=Square, folder=keep, on="ray")
    assert results == [Square(job, job.number**2 / 3) for job in jobs(notes, 12)]
    assert len(noted(notes)) - before == 12 - kept


# What cannot be is said


def test_a_cluster_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    """With the address, and what to look for; Ray itself would try for half a minute."""
    with socket.socket() as closed:
        closed.bind((ray_tasks.LOOPBACK, 0))
        port = closed.getsockname()[1]
        with pytest.raises(EngineUnavailable, match=f"ray://127.0.0.1:{port}: no Ray cluster answers there"):
            sweep(jobs(tmp_path / "notes", 1), square, result=Square, on=f"ray://127.0.0.1:{port}")
    assert not noted(tmp_path / "notes")


def test_ray_that_is_not_installed_is_said_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most people have no cluster, so most have no Ray."""
    monkeypatch.setitem(sys.modules, "ray", None)
    options = ["run", "storefront", "--policy", "best", "--rounds", "10", "--on", "ray", "--keep", str(tmp_path)]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2
    assert "Error: Ray is not installed here: in its source folder, pip install '.[ray]'" in result.output


@pytest.mark.parametrize("name", ["spark", "ray:10001", "ray://", "ray://a b:1", "ray://a:0", "ray://a:65536"])
def test_what_is_no_engine_is_refused_before_the_work(name: str) -> None:
    """With what there is."""
    result = CliRunner().invoke(main, ["run", "storefront", "--policy", "best", "--on", name])
    assert result.exit_code == 2
    assert f"{name}: is nothing to run on; there are processes|ray|ray://HOST:PORT" in " ".join(result.output.split())
