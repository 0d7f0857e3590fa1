"""A server on a log that is archived: what callers are answered, what a start says, and the daily run."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from decider.learn.archive import _write, make_plan
from decider.log.open import open_to_cut
from decider.server.daily_archive import DailyArchive
from decider.server.serve import Server
from decider.server.settings import Settings
from decider.v1 import decider_service_pb2 as pb
from tests.rpc_clients import (
    ServerProcess,
    SubprocessClient,
    code_of,
    experiment,
    fetch,
    reason_of,
    rows,
    status_of,
    until,
)
from tests.test_trim_crash import finished, run

DATA = Path(__file__).parent / "data"

ID = "shop"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[SubprocessClient]:
    """A server with an experiment and some decisions whose windows are over."""
    with closing(SubprocessClient(tmp_path / "log.db", "--learn-interval", "0.05")) as made:
        made.apply(experiment(ID, "a", "b", window=0.3))
        for number in range(20):
            made.decide(ID, f"unit-{number}", decision_id=f"d-{number}")
            made.reward(f"d-{number}", name="click")
        made.until(lambda: made.rows("select count(*) from sealed_decisions") == [(20,)] or None, what="all is sealed")
        yield made


def archived(client: SubprocessClient, *options: str) -> Path:
    """Everything is archived; the folder."""
    folder = client.db.with_name("archive")
    assert "archived 20 decisions" in finished(run(client.db, folder, "--before", "0.1s", *options))
    return folder


def test_a_retry_is_answered_as_stated(client: SubprocessClient) -> None:
    """A caller who never got an answer sends again, and must not be counted twice."""
    stored = client.decide(ID, "unit-3", decision_id="d-3")
    archived(client, "--remember", "1h")
    assert rows(client.db, "select count(*) from decisions") == [(0,)]
    assert client.decide(ID, "unit-3", decision_id="d-3") == stored
    assert reason_of(status_of(lambda: client.decide(ID, "another", decision_id="d-3"))) == "DECISION_ID_REUSED"
    assert client.reward("d-3", name="click") == "late"
    batch = client.reward_batch(
        [pb.RewardRequest(decision_id="d-4", name="click"), pb.RewardRequest(decision_id="new")]
    )
    assert batch[0].response.outcome == pb.REWARD_OUTCOME_LATE
    assert batch[1].HasField("error")
    assert client.activate("d-3") is False
    assert client.activation("d-3") == "late"
    assert rows(client.db, "select count(*) from rewards") == [(0,)]
    metrics = client.fetch("/metrics")[1]
    assert 'decider_rewards_total{experiment="",name="click",outcome="late"} 2.0' in metrics
    assert 'decider_sealed_total{experiment="shop",group="policy"} 20.0' in metrics


def test_an_id_that_is_no_longer_remembered_is_unknown(client: SubprocessClient) -> None:
    """As any other id that is not in the log."""
    archived(client, "--remember", "0s")

    def one_that_is_gone() -> str | None:
        client.decide(ID, "unit")
        finished(run(client.db, client.db.with_name("archive"), "--before", "0.1s", "--remember", "0s"))
        kept = {id_ for (id_,) in rows(client.db, "select decision_id from archived_decisions")}
        return next((id_ for id_ in (f"d-{number}" for number in range(20)) if id_ not in kept), None)

    # Until a model has served for 10 s, learning would go on from an older one: what it needs is kept.
    gone = client.until(one_that_is_gone, what="an id is no longer needed", patience=90)
    assert reason_of(status_of(lambda: client.reward(gone, name="click"))) == "DECISION_NOT_FOUND"
    assert client.activation(gone) == "remembered", "for a new decision with that id"


def learn_again(db: Path) -> None:
    """As after a release with other learning code, and after days: no model is left that learning could go on from."""
    with closing(sqlite3.connect(db)) as connection:
        for table in ("archived_decisions", "bases", "base_pieces", "models"):
            connection.execute(f"delete from {table}")  # noqa: S608 - our names
        connection.execute("update archived_experiments set complete_after = (select time from head)")
        connection.commit()


def test_a_policy_is_refused_while_a_part_is_missing(client: SubprocessClient) -> None:
    """Before anything begins, with the part's name and the place where it was looked for."""
    folder = archived(client)
    (part,) = [one for one in folder.iterdir() if one.is_dir()]
    learn_again(client.db)
    part.rename(folder.with_name("away"))
    status = status_of(lambda: client.apply(experiment(ID, "a", "b", window=0.3, policy={"softmax": {}})))
    assert (code_of(status), reason_of(status)) == ("FAILED_PRECONDITION", "ARCHIVE_MISSING")
    assert part.name in status.message
    assert str(folder) in status.message
    client.pause(ID)
    assert client.resume(ID).experiment.id == ID


def test_a_start_that_needs_a_missing_part_says_so_until_it_is_there(client: SubprocessClient) -> None:
    """It must not learn half of what was seen, and a person has to know what to put where."""
    folder = archived(client)
    (part,) = [one for one in folder.iterdir() if one.is_dir()]
    client.process.terminate()
    learn_again(client.db)
    part.rename(folder.with_name("away"))
    server = Server(Settings(db=client.db, listen="127.0.0.1:0", http="127.0.0.1:0"))
    starting = threading.Thread(target=server.start, daemon=True)
    starting.start()
    try:
        url = until(
            lambda: hasattr(server, "http_port") and f"http://127.0.0.1:{server.http_port}", what="HTTP answers"
        )
        until(lambda: part.name in fetch(f"{url}/readyz")[1], what="it is told")
        status, text = fetch(f"{url}/readyz")
        assert status == 503
        assert str(folder) in text
        folder.with_name("away").rename(part)
        until(lambda: fetch(f"{url}/readyz")[0] == 200, what="the server is ready")
    finally:
        server.request_stop()
        starting.join(20)
        server.stop()


def test_an_experiment_that_needs_a_missing_part_does_not_hold_up_the_others(client: SubprocessClient) -> None:
    """One lost file must not take the whole shop down; and a model that has learned nothing must not serve."""
    client.apply(experiment("other", "a", "b", window=0.3, policy={"uniform": {}}))
    folder = archived(client)
    (part,) = [one for one in folder.iterdir() if one.is_dir()]
    client.process.terminate()
    learn_again(client.db)
    part.rename(folder.with_name("away"))
    with closing(SubprocessClient(client.db, "--learn-interval", "0.05")) as again:
        status, text = again.fetch("/readyz")
        assert status == 200
        assert f"experiment '{ID}' cannot serve before this is learned" in text
        assert part.name in text
        assert again.decide("other", "u").action.id in ("a", "b")
        refused = status_of(lambda: again.decide(ID, "u"))
        assert (code_of(refused), reason_of(refused)) == ("FAILED_PRECONDITION", "ARCHIVE_MISSING")
        assert part.name in refused.message
        folder.with_name("away").rename(part)
        until(lambda: again.fetch("/readyz")[1].strip() == "ok", what="it has learned")
        assert again.decide(ID, "v").model > 0


def daily(client: SubprocessClient) -> DailyArchive:
    """Runs on the log that are due at once."""
    settings = Settings(db=client.db, archive=client.db.with_name("daily"), archive_after="0.1s")
    return DailyArchive(settings, start_after=0.0)


def wait_for_run(runs: DailyArchive) -> None:
    """Start one, and look until it has ended."""
    runs.look()
    assert runs.running

    def has_ended() -> bool:
        runs.look()
        return not runs.running

    until(has_ended, what="the run has ended")


def test_the_daily_run_archives_once_a_day(client: SubprocessClient) -> None:
    """Also where the server is started again and again."""
    runs = daily(client)
    assert runs.last_success == 0
    wait_for_run(runs)
    assert (runs.failures, time.time() - runs.last_success < 60) == (0, True)
    assert rows(client.db, "select count(*) from decisions") == [(0,)]
    for again in (runs, daily(client)):
        again.look()
        assert not again.running


def test_a_daily_run_that_fails_is_told_and_tried_again(
    client: SubprocessClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that cannot be written to must not stay unseen until the disk is full."""
    folder = client.db.with_name("daily")
    folder.write_text("a file where the folder should be")
    runs = daily(client)
    wait_for_run(runs)
    assert runs.failures == 1
    assert runs.problem.startswith("archive: the last run failed, and old decisions stay in the log: ")
    assert "tried again in 10 minutes" in caplog.text
    assert str(folder) in caplog.text
    assert rows(client.db, "select count(*) from decisions") == [(20,)]


@pytest.mark.skipif(not os.access("/proc/sys", os.R_OK), reason="needs a folder that root may not write, either")
def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    """The first run is minutes away, and the unit of systemd makes everything read-only that is not named in it."""
    unwritable = Path("/proc/sys/archive")  # for root, too
    assert DailyArchive(Settings(archive=unwritable)).problem.startswith("archive: /proc/sys cannot be written")
    server = ServerProcess(tmp_path / "log.db", "--archive", str(unwritable))
    try:
        status, text = fetch(f"http://{server.http}/readyz")
        assert (status, "archive: /proc/sys cannot be written" in text) == (200, True)
    finally:
        server.terminate()
    assert DailyArchive(Settings(archive=tmp_path / "a" / "b")).problem == ""


def test_a_daily_run_of_another_log_of_that_name_is_not_taken_for_ones_own(
    client: SubprocessClient, tmp_path: Path
) -> None:
    """Else the second log would never be archived, and its metric would say that it was."""
    wait_for_run(daily(client))
    other = tmp_path / "other" / client.db.name
    other.parent.mkdir()
    with closing(SubprocessClient(other)) as made:
        made.apply(experiment(ID, "a", "b", window=0.3))
        runs = DailyArchive(Settings(db=other, archive=client.db.with_name("daily")), start_after=0.0)
        assert runs.last_success == 0
        wait_for_run(runs)
        assert runs.failures == 0
        assert runs.last_success > 0


def test_a_server_serves_where_the_counted_part_is_gone(client: SubprocessClient) -> None:
    """Housekeeping keeps nobody from being decided for: it is told, and the entries stay."""
    folder = client.db.with_name("archive")
    client.process.terminate()
    with closing(open_to_cut(client.db)) as log, log.archiving():
        plan = make_plan(log, log.head().time)
        assert plan is not None
        _write(log, folder, plan, 0, lambda _: None)
    folder.rename(folder.with_name("away"))
    with closing(SubprocessClient(client.db, "--learn-interval", "0.05", "--archive", str(folder))) as again:
        again.decide(ID, "new", decision_id="new")
        again.until(lambda: "not deleted yet" in again.fetch("/readyz")[1], what="it is told")
        assert again.fetch("/readyz")[0] == 200
        assert rows(client.db, "select count(*) from decisions") == [(21,)]
        assert again.process.output.count("archived entries are not deleted yet") == 1


def test_a_dry_run_does_not_upgrade_an_old_log(tmp_path: Path) -> None:
    """It changes nothing: an older server may still need the log."""
    db = Path(shutil.copy(DATA / "log-0.1.0.db", tmp_path / "log.db"))
    before = db.read_bytes()
    output = finished(run(db, tmp_path / "archive", "--before", "0s", "--dry-run"))
    assert "archive" in output
    assert db.read_bytes() == before
    assert not (tmp_path / "archive").exists()
