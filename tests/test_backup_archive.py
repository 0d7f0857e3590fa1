"""`decider backup` of a log whose old decisions lie in an archive, while a server writes it: backup and folder together
are the whole log again."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from click.testing import CliRunner

from decider.log.open import open_reader
from decider.server.command import main
from decider.v1 import decider_service_pb2 as pb
from simulator.studies.ledger import ID
from simulator.verify import verify
from tests.rpc_clients import GrpcClient, ServerProcess, experiment, until
from tests.test_trim_crash import OPTIONS, Crowd, finished, run

BEFORE = ("--before", "0.5s", "--remember", "1s")


def made_again(log: Path, *archive: Path) -> tuple[int, int]:
    """N of N, of the log with its archive: how many decisions are equal, and how many there are."""
    with closing(open_reader(log, archive=archive)) as opened:
        assert opened.check(lambda _: None) == []
        found = verify(opened)
        assert found.first is None
        return found.equal, opened.count_decisions()


@contextmanager
def archiving(db: Path, folder: Path) -> Iterator[list[str]]:
    """Archive runs one after the other, until the end of the block; what they say."""
    over = threading.Event()
    said: list[str] = []

    def go() -> None:
        while not over.is_set():
            said.append(finished(run(db, folder, *BEFORE)))

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield said
    finally:
        over.set()
        thread.join()


def test_a_backup_and_a_later_copy_of_the_folder_are_the_whole_log(tmp_path: Path) -> None:
    """While visitors decide and archive runs move what is old: whatever had been acknowledged is in one of both, once;
    parts that came after the backup do no harm."""
    db, folder, crowd = tmp_path / "log.db", tmp_path / "archive", Crowd(7)
    server = ServerProcess(db, *OPTIONS)
    try:
        with closing(server.client()) as client:
            client.apply(experiment(ID, "a", "b", "c", "d", window=0.3))
            with crowd.visiting(), archiving(db, folder) as said:
                crowd.go_to(server)
                ids = _decide(client, "early")
                until(lambda: sum("archived" in one for one in said) >= 1, what="there is a part")
                copies = [_backup(db, tmp_path / f"copy-{number}.db") for number in range(2)]
                ids += _decide(client, "late")
                copies.append(_backup(db, tmp_path / "copy-2.db"))
                until(lambda: sum("archived" in one for one in said) >= 2, what="there is one that no backup knows")
        ids += [id_ for visitor in crowd.visitors for id_ in visitor.decided]
    finally:
        assert server.terminate() == 0
    moved = Path(shutil.copytree(folder, tmp_path / "copied"))
    for copy, archived in copies:
        assert archived == [str(folder)]
        equal, there = made_again(copy, moved)
        assert equal == there > EACH
    _restore_elsewhere(copies[-1][0], tmp_path / "elsewhere", moved, folder)
    assert made_again(db, moved) == (len(ids), len(ids))


EACH = 600
"""Decisions at once; a part ends where the log has a mark, about every 1,024 entries."""


def _decide(client: GrpcClient, name: str) -> list[str]:
    """Decisions and their rewards."""
    asked = [pb.DecideRequest(experiment=ID, unit_id=f"u{n}", decision_id=f"{name}-{n}") for n in range(EACH)]
    ids = [one.response.decision_id for one in client.decide_batch(asked)]
    client.reward_batch([pb.RewardRequest(decision_id=id_, name="click") for id_ in ids])
    return ids


def _backup(db: Path, copy: Path) -> tuple[Path, list[str]]:
    done = CliRunner().invoke(main, ["backup", str(copy), "--db", str(db), "--json"])
    assert done.exit_code == 0, done.output
    return copy, json.loads(done.stdout)["archive"]


def _restore_elsewhere(copy: Path, place: Path, moved: Path, folder: Path) -> None:
    """On a machine where the folder lies somewhere else: what is missing is said, and naming it is enough."""
    place.mkdir()
    folder.rename(place / "gone")
    done = CliRunner().invoke(main, ["restore", str(copy), "--db", str(place / "log.db")])
    assert done.exit_code == 0, done.output
    assert f"it needs the archive in {folder}" in done.stdout
    assert "not all of its parts are there" in done.stdout
    assert "--archive DIR" in done.stdout
    again = ServerProcess(place / "log.db", *OPTIONS, "--archive", str(moved))
    with closing(again.client()) as client:
        assert client.decide(ID, "somebody").action.id
    assert again.terminate() == 0
    equal, there = made_again(place / "log.db", moved)
    assert equal == there
