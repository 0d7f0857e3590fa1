"""A sweep: every task once, in order, on several processes; killed at any moment, it goes on where it was."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.run.engine import SweepFailed, WorkerDied
from simulator.run.result_store import ResultFile
from simulator.run.sweep import sweep
from simulator.run.task import Run, Task, run
from simulator.run.versions import sources, version_of
from tests.sweep_process import Job, Square, jobs, noted, square, square_or_die, square_or_raise

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0
"""Seconds, for a busy machine."""


@contextmanager
def started(
    keep: Path, notes: Path, count: int, seconds: float, on: str = "processes"
) -> Iterator[subprocess.Popen[str]]:
    """A process that sweeps, with two workers, in a group of its own as in a terminal; killed if the test fails."""
    command = [sys.executable, "-m", "tests.sweep_process", f"{keep}", f"{notes}", f"{count}", f"{seconds}", on]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(happened: Callable[[], bool]) -> None:
    """Or fail."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def alive(process: int) -> bool:
    """Whether it runs; one that ended and that nobody waits for does not."""
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


# Every task once, in order


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks_and_equal_tasks_run_once(tmp_path: Path, workers: int) -> None:
    """Whoever pairs results with tasks by place must be right, however many processes there were."""
    tasks = [replace(job, seconds=0.1 * (job.number == 0)) for job in jobs(tmp_path / "notes", 5)]
    told: list[int] = []
    results = sweep(
        [*tasks, tasks[2]], square, result=Square, workers=workers, on_done=lambda job, _: told.append(job.number)
    )
    assert results == [Square(task, task.number**2 / 3) for task in [*tasks, tasks[2]]]
    assert Counter(number for _, number in noted(tmp_path / "notes")) == Counter(range(5))
    assert sorted(told) == list(range(5))


def test_figures_do_not_depend_on_processes(tmp_path: Path) -> None:
    """A sweep on a laptop and on a large machine find the same, to the last bit; also when read from the folder."""
    tasks = [Task("storefront", policy, seed, 300) for seed in (1, 2) for policy in ("default", "bag", "best")]
    alone = sweep(tasks, run, result=Run, workers=1)
    assert sweep(tasks, run, result=Run, workers=2, folder=tmp_path) == alone
    assert sweep(tasks, run, result=Run, folder=tmp_path) == alone


def test_no_tasks_have_no_results() -> None:
    """A grid may be empty."""
    assert sweep([], square, result=Square) == []


# Killed and resumed


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 costs at most what was running; nothing that is kept runs again, and no worker is left behind."""
    keep, notes = tmp_path / "keep", tmp_path / "notes"
    with started(keep, notes, 12, 0.1):
        wait_until(lambda: len(list(keep.glob("*.json"))) >= 4)
    wait_until(lambda: not any(alive(worker) for worker, _ in noted(notes)))
    kept = {file.name: file.stat().st_mtime_ns for file in keep.glob("*.json")}
    assert 4 <= len(kept) < 12
    before = len(noted(notes))

    results = sweep(jobs(notes, 12), square, result=Square, folder=keep, workers=2)

    assert results == [Square(job, job.number**2 / 3) for job in jobs(notes, 12)]
    assert len(noted(notes)) - before == 12 - len(kept), "only what was missing has run"
    assert {file.name: file.stat().st_mtime_ns for file in keep.glob("*.json") if file.name in kept} == kept


def test_ctrl_c_ends_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    """The terminal sends the signal to every process of the command: one line comes of it, and nothing is left."""
    keep, notes = tmp_path / "keep", tmp_path / "notes"
    with started(keep, notes, 8, 300.0) as process:
        wait_until(lambda: len(noted(notes)) >= 2)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors == f"Interrupted: 0 of 8 tasks are done, kept in {keep}; the same again runs only what is missing\n"
    wait_until(lambda: not any(alive(worker) for worker, _ in noted(notes)))


@pytest.mark.parametrize("damage", [b"", b'{"function": "x"', b"\xff\xfe", b"[]", b"{}", b"null"])
def test_a_damaged_file_is_run_again(tmp_path: Path, damage: bytes) -> None:
    """A full disk or a torn file must not become a figure."""
    tasks = jobs(tmp_path / "notes", 3, 0)
    first = sweep(tasks, square, result=Square, folder=tmp_path / "keep", workers=1)
    sorted((tmp_path / "keep").glob("*.json"))[0].write_bytes(damage)
    assert sweep(tasks, square, result=Square, folder=tmp_path / "keep", workers=1) == first
    assert len(noted(tmp_path / "notes")) == 4


def test_a_result_of_another_task_or_of_other_code_is_not_taken(tmp_path: Path) -> None:
    """A file that was copied over another one, and one that older code made, are not what was asked for."""
    tasks = jobs(tmp_path / "notes", 2, 0)

    def swept(version: str) -> list[Square]:
        keep = tmp_path / "keep"
        return sweep(tasks, square, result=Square, folder=keep, workers=1, version=lambda _: version)

    first = swept("1")
    one, other = sorted((tmp_path / "keep").glob("*.json"))
    one.write_bytes(other.read_bytes())
    assert swept("1") == first
    assert len(noted(tmp_path / "notes")) == 3
    assert swept("2") == first
    assert len(noted(tmp_path / "notes")) == 5


def test_a_run_is_not_reused_once_its_policy_file_has_changed(tmp_path: Path) -> None:
    """The name of a file says nothing of what is in it."""
    file = tmp_path / "mine.toml"
    task = Task("storefront", f"{file}", seed=1, rounds=10)
    versions = []
    for text in ("[policy]\nsquarecb = {}\n", "[policy]\nsoftmax = {}\n", "[policy]\nsquarecb = {}\n"):
        file.write_text(text, encoding="utf-8")
        versions.append(version_of(task))
    assert versions[0] == versions[2] != versions[1]
    assert version_of(replace(task, policy="default")) == version_of(replace(task, policy="bag", seed=2))


def test_a_run_is_not_reused_once_the_log_of_its_world_has_grown(tmp_path: Path) -> None:
    """The newest entries of a log of ours are in a file beside it, and a log may be a folder."""
    log, folder = tmp_path / "shop.db", tmp_path / "logs"
    folder.mkdir()
    for name in (log, folder / "a.csv"):
        name.write_text("one", encoding="utf-8")
    tasks = [Task(f"fitted:{name}", "default", seed=1, rounds=10) for name in (f"{log}#home", folder)]
    before = [version_of(task) for task in tasks]
    assert [version_of(task) for task in tasks] == before
    Path(f"{log}-wal").write_text("two", encoding="utf-8")
    (folder / "b.csv").write_text("two", encoding="utf-8")
    assert all(version_of(task) != version for task, version in zip(tasks, before, strict=True))


def test_all_code_that_a_result_can_depend_on_counts() -> None:
    """A module that was renamed, or a room that is new, must not leave results of older code in use."""
    script = "import sys, simulator.compare.on_log, simulator.compare.on_world, simulator.run.task; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    ours = [name for name in loaded if name.partition(".")[0] in ("decider", "simulator")]
    files = {file.relative_to(ROOT).with_suffix("") for file in sources()}
    assert len(ours) > 50
    assert [name for name in ours if not {Path(*name.split(".")), Path(*name.split("."), "__init__")} & files] == []


# What goes wrong is said


def test_a_full_disk_is_told_with_its_folder_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torn file would take up the last room at every try."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SweepFailed, match=f"No space left on device: '{tmp_path}"):
        sweep([Job(1)], square, result=Square, folder=tmp_path / "keep", workers=1)
    assert not list((tmp_path / "keep").iterdir())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_raises_is_named(tmp_path: Path, workers: int) -> None:
    """Of a thousand tasks one must not fail as 'division by zero'; what was done before is kept."""
    tasks = [Job(number) for number in range(6)]
    with pytest.raises(SweepFailed, match=r"Job\(number=3, .*\) failed: ZeroDivisionError: three is no number"):
        sweep(tasks, square_or_raise, result=Square, folder=tmp_path, workers=workers)
    assert len(list(tmp_path.glob("*.json"))) >= 3 - (workers - 1)


def test_a_worker_that_dies_is_noticed_and_what_is_not_done_is_named(tmp_path: Path) -> None:
    """A process that the system kills for its memory must not leave a sweep that waits for ever."""
    tasks = [Job(number) for number in range(9)]
    with pytest.raises(WorkerDied, match=r"not done: .*Job\(number=3,") as died:
        sweep(tasks, square_or_die, result=Square, folder=tmp_path, workers=2)
    assert "out of memory" in str(died.value)
    kept = len(list(tmp_path.glob("*.json")))
    assert sweep(tasks[:3], square_or_die, result=Square, folder=tmp_path, workers=1)[2].value == 4 / 3
    assert kept <= 8


def test_a_folder_that_cannot_be_is_refused_before_the_work(tmp_path: Path) -> None:
    """Not after an hour."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        sweep(jobs(tmp_path / "notes", 1), square, result=Square, folder=tmp_path / "file" / "keep")
    assert not noted(tmp_path / "notes")


# What is kept comes back as it was


@dataclass(frozen=True, slots=True)
class Inner:
    """A part."""

    figures: tuple[float, ...]
    pair: tuple[int, str]


@dataclass(frozen=True, slots=True)
class Whole:
    """Every kind of plain value that a result may have."""

    inner: Inner
    parts: list[Inner]
    of: dict[str, float | None]
    word: Literal["a", "b"]
    flag: bool
    text: str | None


floats = st.floats(allow_nan=False)
inners = st.builds(Inner, st.lists(floats).map(tuple), st.tuples(st.integers(), st.text()))
wholes = st.builds(
    Whole,
    inners,
    st.lists(inners, max_size=3),
    st.dictionaries(st.text(), st.none() | floats),
    st.sampled_from(["a", "b"]),
    st.booleans(),
    st.none() | st.text(),
)


def stored(kind: type[object], result: object) -> object:
    """Written to a file and read from it."""
    with TemporaryDirectory() as folder:
        file = ResultFile(Path(folder, "result.json"), {"task": 1})
        file.write(result)
        return file.read(kind)


@given(wholes)
def test_what_is_read_is_what_was_written(whole: Whole) -> None:
    """To the last bit, with the same types: a resumed sweep must not differ from one in a single go."""
    assert repr(stored(Whole, whole)) == repr(whole)


def test_nan_survives_and_a_whole_number_stays_one() -> None:
    """A share where there is no lift is nan; a sum of counts in a field of floats is an int."""
    assert repr(stored(Inner, Inner((math.nan, 1, math.inf), (1, "")))) == repr(Inner((math.nan, 1, math.inf), (1, "")))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"figures": [1.0], "pair": [1]},
        {"figures": [1.0], "pair": ["1", "x"]},
        {"figures": ["1.0"], "pair": [1, "x"]},
        {"figures": [True], "pair": [1, "x"]},
        {"figures": "", "pair": [1, "x"]},
        {"figures": [1.0], "pair": [1, "x"], "more": 1},
        [],
        None,
    ],
)
def test_what_is_of_another_shape_is_run_again(tmp_path: Path, value: object) -> None:
    """Fields that were added or have another type since: a figure of another meaning must not be taken."""
    file = ResultFile(tmp_path / "result.json", {})
    file.file.write_text(json.dumps({"result": {"figures": [1.0], "pair": [1, "x"]}}))
    assert file.read(Inner) == Inner((1.0,), (1, "x"))
    file.file.write_text(json.dumps({"result": value}))
    assert file.read(Inner) is None
