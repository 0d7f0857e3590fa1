"""Hosts, processes and lines that fail: fifteen faults lose and double nothing, and each law can be broken."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from decider.experiment.schema import from_message
from decider.learn.versions import Versions
from decider.log.open import open_in_memory
from decider.log.protocol import EventLog, NewReward
from decider.types import DecisionId
from simulator.studies.faults.__main__ import MARKERS, Plan, run
from simulator.studies.faults.check import Counts, count
from simulator.studies.faults.databases import Sight
from simulator.studies.faults.hosts import PREFIX, NoHosts, hosts
from simulator.studies.faults.kinds import KINDS, draw
from simulator.studies.faults.ledger import Decided, Failed, Line, Rewarded, Sent, to_text
from simulator.studies.faults.proxy import CUT, DELAY, FLOW, FORGET, STALL, Link
from simulator.studies.faults.report import Happened, Outcome, laws, page, table
from simulator.studies.faults.watch import Answers, Takeover, longest_gap, takeover
from simulator.studies.prepared import decisions, experiment, storefront_visitor
from simulator.studies.results import PAGE
from simulator.studies.soak.check import Replay

# --- the whole


@pytest.mark.usefixtures("postgres")  # skipped where there is none
def test_fifteen_faults_lose_and_double_nothing(tmp_path: Path) -> None:
    """Each kind once: servers on two hosts, PostgreSQL and its standby on two more, clients on a fifth."""
    said: list[str] = []
    try:
        outcome = run(tmp_path, Plan(faults=len(KINDS), seed=1, longest=2.0), said.append)
    except NoHosts as error:
        if said[-1:] == ["servers"]:
            raise
        pytest.skip(str(error))
    assert [*laws(outcome, timed=False)] == [], "\n".join(said)
    assert {one.kind for one in outcome.happened} == {kind.name for kind in KINDS}
    written = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert [one["did"] for one in written] == [one.did for one in outcome.happened]
    assert left_of(os.getpid()) == []


def left_of(pid: int) -> list[str]:
    """Namespaces, mounts and folders of a run."""
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.splitlines()
    mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    folders = [*map(str, Path(tempfile.gettempdir()).iterdir())]
    return [line for line in (*spaces, *mounts, *folders) if f"{PREFIX}-{pid}-" in line]


KILLED = """
import os, signal
from simulator.studies.faults.databases import disk
from simulator.studies.faults.hosts import hosts, private_folder
with private_folder() as folder, hosts("one") as (host,), disk(folder / "disk"):
    host.start(["sleep", "600"], folder / "output")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="network namespaces and mounts need root")
def test_what_a_killed_run_has_left_is_removed_by_the_next() -> None:
    """Nobody else could: its names say whose it was."""
    with subprocess.Popen([sys.executable, "-c", KILLED], stderr=subprocess.PIPE, text=True) as killed:
        _, said = killed.communicate()
    if killed.returncode != -signal.SIGKILL:
        pytest.skip(said.splitlines()[-1].partition(": ")[2])
    assert len(left_of(killed.pid)) == 6  # two namespaces, each with a mount; a disk, a folder
    with hosts("two"):
        assert left_of(killed.pid) == []


# --- what is counted


def ledger(log: EventLog) -> list[Line]:
    """Of three decisions, two with a reward, all of which the log has."""
    version = Versions(log).apply(from_message(experiment(actions=3, window=5))).version
    made = [
        one._replace(decision_id=DecisionId(f"d{number}"))
        for number, one in enumerate(islice(decisions(version, storefront_visitor, prefix=""), 3))
    ]
    marks = [mark for mark in log.append(made) if mark]
    log.append([NewReward(marks[0].position, "click", 0.25, reward_id="once")])
    log.append([NewReward(marks[1].position, "click", 0.5)])
    lines: list[Line] = [Sent(1.0, "one", one.decision_id) for one in made]
    lines += [Decided(2.0, "one", one.decision_id, one.action, one.propensity, again=False) for one in made]
    return [*lines, Rewarded(3.0, "one", "d0", 0.25, with_id=True), Rewarded(3.0, "one", "d1", 0.5, with_id=False)]


@pytest.fixture
def log() -> Iterator[EventLog]:
    """Empty."""
    with closing(open_in_memory()) as made:
        yield made


def test_what_is_in_the_log_is_neither_lost_nor_doubled(log: EventLog) -> None:
    """The ledger's decisions and rewards are those of the log."""
    assert count(log, ledger(log)) == Counts(decisions=3, rewards=2, in_log=3)


def test_what_was_acknowledged_and_is_not_there_is_lost(log: EventLog) -> None:
    """A decision, and a reward: each with the time of its answer."""
    lines = ledger(log)
    lines += [Sent(4.0, "one", "d9"), Decided(5.0, "one", "d9", "action-1", 0.5, again=False)]
    lines += [Rewarded(6.0, "two", "d2", 0.75, with_id=True)]
    assert count(log, lines).lost == [5.0, 6.0]


def test_a_reward_that_was_counted_twice_is_doubled(log: EventLog) -> None:
    """Also one without an id: no other has its value."""
    lines = ledger(log)
    found = log.find(DecisionId("d1"))
    assert found is not None
    (mark,) = log.append([NewReward(found.position, "click", 0.5)])
    assert mark is not None
    assert count(log, lines).doubled == [mark.time / 1e6]


def test_another_answer_to_the_same_id_differs(log: EventLog) -> None:
    """Whoever asks again must be shown what was shown."""
    lines = ledger(log)
    again = next(line for line in lines if isinstance(line, Decided))._replace(again=True, at=9.0)
    assert count(log, [*lines, again]).differing == []
    assert count(log, [*lines, again._replace(propensity=0.01)]).differing == [9.0]


def test_a_decision_that_nobody_asked_for_is_strange(log: EventLog) -> None:
    """Whoever made it."""
    assert count(log, ledger(log)[1:]).strange == ["d0"]


# --- what is watched

FIRST = Sight(at=10.0, epoch=3, holder="10.77.0.1", published=9.9)


def test_a_takeover_is_the_time_until_another_epoch_and_between_publications() -> None:
    """The old one may have published after the fault, and the new one before it was seen first."""
    sights = [FIRST, FIRST._replace(at=11.0, published=10.4), Sight(12.0, 4, "10.77.0.2", 10.4)]
    assert takeover([*sights, Sight(12.5, 4, "10.77.0.2", 12.4)], 10.5) == Takeover(1.5, 2.0)
    assert takeover([FIRST, Sight(12.0, 4, "10.77.0.2", 11.9)], 10.5) == Takeover(1.5, 2.0)
    assert takeover(sights, 10.5) == Takeover(1.5, None)
    assert takeover([FIRST, FIRST._replace(at=20.0)], 10.5) == Takeover(None, None)


def test_a_gap_reaches_beyond_the_fault_and_counts_silence_until_now() -> None:
    """Whoever was not answered after the fault either has waited until now."""
    assert longest_gap([1.0, 2.0], 3.0, 8.0) == 6.0
    assert longest_gap([1.0, 2.0, 4.0, 4.5, 9.0], 3.0, 4.2) == 2.0
    assert longest_gap([], 3.0, 8.0) == 5.0


def test_answers_are_read_while_they_are_written(tmp_path: Path) -> None:
    """Also half a line."""
    path = tmp_path / "answers"
    text = to_text(Decided(2.0, "one", "d0", "a", 0.5, again=False))
    path.write_text(text[:20])
    with closing(Answers(path, ["one"])) as answers:
        answers.read(lambda code: code == "UNAVAILABLE")
        with path.open("a") as file:
            file.write(f"{text[20:]}\n{to_text(Failed(3.0, 'one', 'UNAVAILABLE', ''))}\n")
            file.write(f"{to_text(Failed(3.0, 'one', 'NOT_FOUND', 'no decision'))}\n")
        answers.read(lambda code: code == "UNAVAILABLE")
        assert answers.times == {"one": [2.0]}
        assert (answers.count("one", 1.0), answers.count("one", 2.5)) == (1, 0)
        assert answers.failed == {"UNAVAILABLE": 1, "NOT_FOUND": 1}
        assert answers.refused == {"NOT_FOUND: no decision": 1}


def test_each_kind_comes_once_before_any_comes_again() -> None:
    """So that few faults are of many kinds; and the seed alone says which."""
    drawn = draw(2 * len(KINDS), Random(1))
    assert drawn == draw(2 * len(KINDS), Random(1)) != draw(2 * len(KINDS), Random(2))
    assert {kind.name for kind in drawn[: len(KINDS)]} == {kind.name for kind in KINDS}


# --- the laws

HAPPENED = Happened(
    number=1,
    kind="the leader killed",
    did="leader on one",
    at=10.0,
    ended=11.0,
    recovered=12.0,
    gaps={"one": 0.5, "two": 0.1},
    failed={"UNAVAILABLE": 3},
    takeover=Takeover(0.4, 1.2),
    takes_leader=True,
    restarts=0,
)
SOUND = Outcome(
    seed=1,
    happened=[HAPPENED],
    counts=Counts(decisions=9, rewards=3, in_log=9),
    replays=[Replay("the log", 0, 9, 9, "")],
    exit_codes={"one": 0},
)


def test_a_sound_run_breaks_no_law() -> None:
    """Its table has a row for the fault."""
    assert [*laws(SOUND)] == []
    assert table(SOUND).row_count == 1
    assert "| the leader killed | 1 | 0 | 0 | 0.5, 0.5 | 1.0, 1.0 | 0.4, 0.4 | 1.2, 1.2 |" in page(SOUND, [])


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"counts": Counts(decisions=9, rewards=3, lost=[10.5])}, "1 lost during: the leader killed"),
        ({"counts": Counts(decisions=9, rewards=3, doubled=[5.0])}, "1 doubled during: before all faults"),
        ({"counts": Counts(decisions=9, rewards=3, differing=[11.0])}, "1 answered in two ways during"),
        ({"counts": Counts(decisions=9, rewards=3, strange=["x"])}, "1 decisions in the log that nobody asked for"),
        ({"counts": Counts()}, "nothing was measured"),
        ({"refused": {"NOT_FOUND: no": 2}}, "2 calls of clients were refused: NOT_FOUND"),
        ({"happened": [replace(HAPPENED, takeover=Takeover(0.4, 5.5))]}, "takeover (0.4, 5.5), 5 s are allowed"),
        ({"happened": [replace(HAPPENED, takeover=Takeover(None, None))]}, "takeover (None, None)"),
        ({"happened": [replace(HAPPENED, restarts=1)]}, "a whole server ended by itself"),
        ({"replays": [Replay("the log", 1, 8, 9, "differs")]}, "verify of the log: 8 of 9: differs"),
        ({"exit_codes": {"one": 1}}, "one ended with exit code 1"),
        ({"broken": "nobody leads"}, "nobody leads"),
    ],
)
def test_each_law_can_be_broken(changed: dict[str, object], text: str) -> None:
    """A law that cannot is none."""
    (found,) = laws(replace(SOUND, **changed))  # type: ignore[arg-type]
    assert text in found


def test_without_a_clock_a_takeover_may_be_slow_and_must_be() -> None:
    """In tests the machine has other work."""
    slow, none = (replace(HAPPENED, takeover=one) for one in (Takeover(0.4, 5.5), Takeover(0.4, None)))
    assert [*laws(replace(SOUND, happened=[slow]), timed=False)] == []
    assert len([*laws(replace(SOUND, happened=[none]), timed=False)]) == 1


def test_the_page_has_a_place_for_the_table() -> None:
    """`--publish` writes there."""
    assert all(marker in PAGE.read_text(encoding="utf-8") for marker in MARKERS)


# --- the proxy


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Link, int]]:
    """A link to an echo, and its port."""

    async def echo(reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    behind = await asyncio.start_server(echo, "127.0.0.1", 0)
    link = Link(behind.sockets[0].getsockname()[:2], Random(1))
    link.flows.set()
    before = await asyncio.start_server(link.accept, "127.0.0.1", 0)
    try:
        yield link, before.sockets[0].getsockname()[1]
    finally:
        before.close()
        behind.close()
        for one in [*link.connections]:
            one.reset()
        await asyncio.sleep(0.05)  # until all of them have noticed


async def ask(reader: StreamReader, writer: StreamWriter, text: bytes) -> bytes:
    """What comes back within half a second; nothing, where nothing does. Raises ConnectionError."""
    writer.write(text)
    try:
        async with asyncio.timeout(0.5):
            return await reader.read(100)
    except TimeoutError:
        return b""


async def held(what: str, then: Sequence[str]) -> list[bytes]:
    """Answers of a connection that was open before, once for each thing that is done to its line."""
    async with proxied() as (link, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = [await ask(reader, writer, b"before")]
        for one in (what, *then):
            link.do(one, 0.05)
            found.append(await ask(reader, writer, b"hold"))
        writer.close()
        return found


def test_a_line_that_stalls_carries_everything_later() -> None:
    """Nothing is lost, and nobody is told."""
    assert asyncio.run(held(STALL, [FLOW])) == [b"before", b"", b"holdhold"]


def test_a_line_with_a_delay_carries_everything() -> None:
    """Later."""
    assert asyncio.run(held(DELAY, [FLOW])) == [b"before", b"hold", b"hold"]


def test_a_forgotten_connection_carries_nothing_any_more() -> None:
    """Until it is reset; new ones are as ever."""
    with pytest.raises(ConnectionError):
        asyncio.run(held(FORGET, [FLOW]))

    async def new_one() -> bytes:
        async with proxied() as (link, port):
            _, first = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.05)
            link.do(FORGET, 0.0)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            answer = await ask(reader, writer, b"new")
            first.close()
            writer.close()
            return answer

    assert asyncio.run(new_one()) == b"new"


def test_a_cut_comes_within_a_message() -> None:
    """Half of it arrives, then a reset."""

    async def cut() -> list[int]:
        sizes = []
        async with proxied() as (link, port):
            link.do(CUT, 0.0)
            for _ in range(100):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    sizes.append(len(await ask(reader, writer, b"ten bytes.")))
                except ConnectionError:
                    sizes.append(-1)
                writer.close()
        return sizes

    sizes = asyncio.run(cut())
    assert sizes.count(10) > 50
    assert any(0 < size < 10 for size in sizes)


def test_what_does_not_listen_resets() -> None:
    """As the host of a server that has ended does."""

    async def refused() -> bytes:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            link = Link(closed.getsockname(), Random(1))
            before = await asyncio.start_server(link.accept, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*before.sockets[0].getsockname())
            try:
                return await ask(reader, writer, b"?")
            finally:
                before.close()

    with pytest.raises(ConnectionError):
        asyncio.run(refused())
