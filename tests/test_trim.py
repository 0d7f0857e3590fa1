"""Cutting a live log: what is archived is there once, what stays is recomputed, and learning goes on.

The part's own files: `test_archive.py`.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from decider.errors import ArchiveDamaged, ArchiveMissing, FailedPrecondition, LogFull, LogLocked
from decider.experiment.definition import RewardDefinition
from decider.experiment.origin import Origin
from decider.experiment.unit_history import Seen
from decider.learn.archive import ArchivedPart, _write, archive, make_plan
from decider.learn.trainer import Trainer, check_learnable
from decider.learn.versions import Versions
from decider.log.archive.part import Part, read_part
from decider.log.archive.write import alone_in, part_name, write_part
from decider.log.log_totals import LogTotals
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import (
    EarlyActivation,
    LogReader,
    NewActivation,
    NewReward,
    NewRewardChange,
    Orphan,
    SealedDecision,
    Tick,
    UnitDecision,
)
from decider.server.archive_command import archive_command
from decider.server.command import main as decider
from decider.server.files import ExperimentFiles
from decider.types import ActionId, Context, DecisionId, ExperimentId, Position, Time
from simulator.verify import verify
from tests.conftest import SECOND, Clock, sample_experiment, spec
from tests.processes import PACE
from tests.rpc_clients import rows
from tests.test_log_damage import (
    ARCHIVE_TABLES,
    HARMLESS,
    change,
    columns,
    count_actions,
    damage,
    fill_limited,
    fill_persons,
)
from tests.test_verify import HOME, OTHER, Drive, eventful
from tests.two_writers import decision


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the log will be."""
    return tmp_path / "log.db"


@pytest.fixture
def drive(file: Path, clock: Clock) -> Iterator[Drive]:
    """Visitors of a log."""
    with closing(open_log(file, clock=clock)) as log:
        yield Drive(log, clock)


def cut(file: Path, folder: Path, *, age: float, remember: float = 0) -> ArchivedPart | None:
    """Archive what is older, in seconds of log time."""
    with closing(open_to_cut(file)) as log:
        before = Time(log.head().time - round(age * SECOND))
        return archive(log, folder, before=before, remember=round(remember * SECOND), say=lambda _: None)


def copied(file: Path, folder: Path) -> Path:
    """A copy of a log, to compare with later."""
    copy = folder / "copy.db"
    shutil.copy(file, copy)
    shutil.copy(f"{file}-wal", f"{copy}-wal")
    return copy


def assert_whole(log: LogReader, decisions: int) -> None:
    """No damage, and so many decisions, each recomputed as it was logged."""
    assert log.check(lambda _: None) == []
    result = verify(log)
    assert result.first is None, f"{result.first.what} {result.first.logged}"
    assert result.equal == result.decisions == decisions


def pmfs(log: LogReader, experiment: ExperimentId) -> list[tuple[float, ...]]:
    """What the newest version's policy says once it has learned the whole log."""
    version = [version for version in log.versions() if version.experiment.id == experiment][-1]
    trainer = Trainer(log, experiment, version.experiment.policy)
    trainer.learn_up_to(log.head().mark)
    policy = trainer.model().policy
    choices = version.choices_of(version.all_active, {})
    return [
        tuple(policy.pmf(Context(segment=segment, device=device), choices))
        for segment in ("new", "vip", "bargain", "other")
        for device in ("mobile", "")
    ]


def test_what_stays_and_the_whole_are_recomputed(drive: Drive, file: Path, tmp_path: Path) -> None:
    """The promise of the project holds for the log alone, and for log and archive together."""
    eventful(drive)
    drive.apply(sample_experiment(policy=spec("squarecb")))
    drive.visits(40)
    drive.visits(20, OTHER)
    everything = drive.log.count_decisions()
    part = cut(file, tmp_path / "archive", age=40)
    assert part is not None
    assert part.plan.decisions > 50
    assert_whole(drive.log, everything - part.plan.decisions)
    drive.visits(20)
    everything = part.plan.decisions + drive.log.count_decisions()  # calls for which nothing is eligible are none
    second = cut(file, tmp_path / "archive", age=15)
    assert second is not None
    assert_whole(drive.log, everything - part.plan.decisions - second.plan.decisions)
    with closing(open_reader(file, archive=[tmp_path / "archive"])) as whole:
        assert_whole(whole, everything)


def test_learning_goes_on_as_in_a_log_that_was_never_cut(drive: Drive, file: Path, tmp_path: Path) -> None:
    """Nobody who is decided for may notice that a log was trimmed."""
    drive.apply(sample_experiment())
    drive.apply(sample_experiment(id=OTHER, policy=spec("softmax")))
    drive.visits(60)
    drive.visits(40, OTHER)
    copy = copied(file, tmp_path)
    assert cut(file, tmp_path / "archive", age=20) is not None
    with closing(open_reader(copy)) as untouched:
        for experiment in (HOME, OTHER):
            assert pmfs(drive.log, experiment) == pmfs(untouched, experiment)
    assert len(set(pmfs(drive.log, HOME))) > 1


@pytest.mark.parametrize("taken", [1, 5, 12])
def test_a_stream_of_sealed_decisions_goes_on_while_they_are_archived(
    drive: Drive, file: Path, tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer reads in pages: what is archived between two of them must come once, from wherever it lies by then.
    What nobody learns from need not be kept."""
    monkeypatch.setattr("decider.log.sqlite.sealed.PAGE", 2)
    for _ in range(3):
        eventful(drive, visits=12)
    log, until = drive.log, drive.log.head().time
    late = log.time_at(Position(log.head().position // 2))

    def learned(decisions: Iterable[SealedDecision]) -> list[SealedDecision]:
        versions = {version.position: version for version in log.versions()}
        return [
            one
            for one in decisions
            if versions[one.decision.version].learns_from(one.decision.reason, overridden=one.overridden)
        ]

    for after in (Time(0), late):
        expected = learned(log.sealed_decisions(HOME, after=after, until=until))
        stream = log.sealed_decisions(HOME, after=after, until=until)
        seen = [next(stream) for _ in range(taken)]
        assert cut(file, tmp_path / "archive", age=20 if after else 40) is not None
        assert learned([*seen, *stream]) == expected


def archived_rows(file: Path) -> int:
    """Decisions that the log still keeps of those that are archived."""
    ((count,),) = rows(file, "select count(*) from archived_decisions")
    return int(count)


def test_what_is_kept_is_bounded(drive: Drive, file: Path, tmp_path: Path) -> None:
    """Without bases behind the first model every archived decision would have to stay for ever."""
    drive.apply(sample_experiment())
    drive.visits(120)
    part = cut(file, tmp_path / "archive", age=40)
    assert part is not None
    assert rows(file, "select position > 0, length(checksum) from bases") == [(1, 64)]
    assert 0 < archived_rows(file) < part.plan.decisions / 2
    assert rows(file, "select count(*) from decisions where position <= (select position from cut)") == [(0,)]
    ((kept, named),) = rows(file, "select (select count(*) from published), (select count(*) from archived_times)")
    assert kept < 60
    assert named < 10


def test_totals_do_not_change(drive: Drive, file: Path, tmp_path: Path) -> None:
    """Dashboards count from the beginning of the log, whatever is left of it."""
    eventful(drive)
    before = LogTotals(drive.log)
    before.catch_up()
    assert cut(file, tmp_path / "archive", age=20) is not None
    with closing(open_reader(file)) as log:
        after = LogTotals(log)
        after.catch_up()
        assert after.totals == before.totals
        assert after.refused == before.refused
    drive.visits(10)
    before.catch_up()
    after = LogTotals(drive.log)
    after.catch_up()
    assert after.totals == before.totals


def test_a_retry_of_an_archived_decision(drive: Drive, file: Path, tmp_path: Path, clock: Clock) -> None:
    """For a stated time it gets what was decided; rewards come too late. Afterwards the id is unknown."""
    drive.apply(sample_experiment())
    drive.visits(30)
    clock.advance(20)
    drive.step()
    first = next(drive.log.decisions(drive.log.versions()[0].position))
    id_ = first.decision.decision_id
    assert cut(file, tmp_path / "archive", age=15, remember=3600) is not None
    assert rows(file, "select count(*) from decisions where decision_id = ?", id_) == [(0,)]
    assert drive.log.find(id_) == first
    located = drive.log.locate(id_)
    assert located is not None
    assert located.position == first.position <= drive.log.cut().position
    marks = drive.log.append([NewReward(first.position, "click", 1.0), NewActivation(first.position), Tick()])
    assert marks[:2] == [None, None]
    assert drive.log.refused_rewards() == {("click", "late"): 1}
    clock.advance(7200)
    drive.visits(30)
    clock.advance(20)
    drive.step()
    assert cut(file, tmp_path / "archive", age=15, remember=3600) is not None
    assert drive.log.find(id_) is None
    assert drive.log.check(lambda _: None) == []


def test_a_changed_policy_learns_from_the_archive(drive: Drive, file: Path, tmp_path: Path) -> None:
    """A new policy must know what the old one has seen, wherever that lies now."""
    drive.apply(sample_experiment())
    drive.visits(60)
    copy = copied(file, tmp_path)
    assert cut(file, tmp_path / "archive", age=20) is not None
    changed = sample_experiment(policy=spec("softmax"))
    applied = drive.apply(changed)
    assert applied.waits
    drive.step()
    with closing(open_reader(copy)) as untouched:
        trainers = [Trainer(log, HOME, changed.policy) for log in (drive.log, untouched)]
        mark = untouched.head().mark
        assert [trainer.learn_up_to(mark) for trainer in trainers] == [trainers[0].learned] * 2
        assert trainers[0].save() == trainers[1].save()
        assert trainers[0].learned > 20
    drive.visits(20)
    assert cut(file, tmp_path / "archive", age=5) is not None
    assert_whole(drive.log, drive.log.count_decisions())


@pytest.mark.parametrize("start", [True, False])
def test_a_file_that_needs_a_missing_part_is_told_once_and_the_others_go_on(
    drive: Drive, file: Path, tmp_path: Path, start: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It ended the server at a start; later it wrote a line every second, and no file behind it was read."""
    drive.apply(sample_experiment())
    drive.visits(40)
    part = cut(file, tmp_path / "archive", age=20)
    assert part is not None
    away = part.folder.rename(tmp_path / "elsewhere")
    folder = tmp_path / "files"
    folder.mkdir()
    for name, id_ in (("a", HOME), ("b", "other")):
        (folder / f"{name}.toml").write_text(f'id = "{id_}"\nactions = [{{ id = "x" }}]\npolicy.softmax = {{}}\n')
    files = ExperimentFiles([folder], Versions(drive.log))
    if start:
        files.apply_all()
    for _ in range(3):
        files.apply_changes()
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert str(folder / "a.toml") in said
    assert part.folder.name in said
    assert [one.experiment.id for one in drive.log.versions()] == [HOME, "other"]
    away.rename(part.folder)
    files.apply_changes()
    assert [one.experiment.id for one in drive.log.versions()] == [HOME, "other", HOME]


def test_a_policy_that_needs_a_missing_part_is_refused_before_it_begins(
    drive: Drive, file: Path, tmp_path: Path
) -> None:
    """A version that waits for ever, or that learns half of what was seen, would be found out much later."""
    drive.apply(sample_experiment())
    drive.visits(40)
    part = cut(file, tmp_path / "archive", age=20)
    assert part is not None
    part.folder.rename(tmp_path / "elsewhere")
    with pytest.raises(FailedPrecondition, match=part.folder.name) as refused:
        drive.apply(sample_experiment(policy=spec("softmax")))
    assert refused.value.reason == "ARCHIVE_MISSING"
    assert str(tmp_path / "archive") in str(refused.value)
    assert len(drive.log.versions()) == 1
    assert drive.set_paused(HOME, paused=True).changed  # a pause needs no part
    with closing(open_log(file, clock=drive.clock, archives=[tmp_path])) as log:
        check_learnable(log, HOME, spec("softmax"))  # found by its digest


@pytest.mark.parametrize("algorithm", ["bag", "rnd"])
def test_a_policy_that_cannot_go_on_from_a_model_is_refused(
    drive: Drive, file: Path, tmp_path: Path, algorithm: str
) -> None:
    """It learns the whole log at every start, so nothing of that may be taken away."""
    drive.apply(sample_experiment(policy=spec(algorithm)))
    drive.visits(30)
    drive.clock.advance(20)
    drive.step()
    with pytest.raises(FailedPrecondition, match=r"nothing was archived.*'home'.*another policy.*log of its own"):
        cut(file, tmp_path / "archive", age=15)
    assert rows(file, "select count(*) from archives") == [(0,)]
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize(("algorithm", "warned"), [("bag", True), ("rnd", True), ("thompson", False), ("fixed", False)])
def test_a_policy_that_stops_the_archive_is_warned_of(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture, algorithm: str, *, warned: bool
) -> None:
    """Else a person learns weeks later, from a full disk, that nothing was archived since."""
    with closing(open_log(file, clock=clock)) as log:
        for versions in (Versions(log), Versions(log, archived=True)):
            assert "whole log" not in caplog.text
            versions.apply(sample_experiment(id=f"e{len(log.versions())}", policy=spec(algorithm)))
    assert ("needs the whole log" in caplog.text) == warned


def test_nothing_to_archive_changes_nothing(drive: Drive, file: Path, tmp_path: Path) -> None:
    """A daily run on a quiet log."""
    drive.apply(sample_experiment())
    assert cut(file, tmp_path / "archive", age=0) is None
    drive.visits(5)
    assert cut(file, tmp_path / "archive", age=1e6) is None
    assert not (tmp_path / "archive").exists()


def test_deleting_is_told_while_something_is_left(drive: Drive, file: Path, tmp_path: Path) -> None:
    """A line about work that nobody does would worry whoever reads it."""
    drive.apply(sample_experiment())
    drive.visits(40)
    heard: list[str] = []
    before = Time(drive.log.head().time - 20 * SECOND)
    for _ in range(2):
        with closing(open_to_cut(file)) as log:
            archive(log, tmp_path / "archive", before=before, remember=0, say=heard.append)
        assert len([text for text in heard if text.startswith("deleting")]) == 1


def test_a_folder_that_cannot_be_written_is_told_also_where_nothing_is_to_archive(
    drive: Drive, file: Path, tmp_path: Path
) -> None:
    """The daily run would find it out after a month."""
    drive.apply(sample_experiment())
    (tmp_path / "a-file").write_text("")
    for dest in ("/proc/none", str(tmp_path / "a-file" / "folder")):
        result = CliRunner().invoke(decider, ["archive", "--db", str(file), "--before", "1d", dest])
        assert result.exit_code == 1
        assert f"{dest}: the archive cannot be written there" in result.output
    result = CliRunner().invoke(decider, ["archive", "--db", str(file), "--before", "1d", str(tmp_path / "good")])
    assert (result.exit_code, result.output) == (0, "nothing to archive\n")


@pytest.mark.parametrize("cut_off", [True, False])
def test_counters_that_miss_what_is_archived_are_told(
    drive: Drive, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, cut_off: bool
) -> None:
    """They are too small, and look like any other counters."""
    drive.apply(sample_experiment())
    drive.visits(40)
    counted = LogTotals(drive.log)
    counted.catch_up()
    drive.log.store_totals(counted.checkpoint())
    if cut_off:
        assert cut(file, tmp_path / "archive", age=20) is not None
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("update totals_checkpoints set content = '{}'")
    LogTotals(drive.log)
    assert "counting from an earlier place" in caplog.text
    assert ("are missing from the counters" in caplog.text) == cut_off


def test_a_longer_window_holds_the_cut_back(drive: Drive, file: Path, tmp_path: Path) -> None:
    """Every version has its own window; one that is open may still get rewards."""
    drive.apply(sample_experiment())
    drive.visits(20)
    drive.apply(sample_experiment(id=OTHER, reward=RewardDefinition(window=1000 * SECOND)))
    drive.visits(1, OTHER)
    drive.visits(20)
    drive.clock.advance(100)
    drive.step()
    part = cut(file, tmp_path / "archive", age=0)
    assert part is not None
    ((open_,),) = rows(file, "select min(d.position) from decisions d join experiments e on e.position = d.version "
                             "where e.experiment = 'other'")  # fmt: skip
    assert part.plan.until.position < open_
    drive.clock.advance(1000)
    drive.step()
    assert cut(file, tmp_path / "archive", age=0) is not None
    assert drive.log.count_decisions() == 0
    drive.visits(20)
    assert_whole(drive.log, 20)


def test_the_leader_finishes_what_a_killed_run_has_left(drive: Drive, file: Path, tmp_path: Path) -> None:
    """Between the transaction and the last piece the log is whole at every moment, and nobody has to run it again."""
    drive.apply(sample_experiment())
    drive.visits(400)
    everything = drive.log.count_decisions()
    with closing(open_to_cut(file)) as log, log.archiving():
        plan = make_plan(log, Time(log.head().time - 20 * SECOND))
        assert plan is not None
        _write(log, tmp_path / "archive", plan, 0, lambda _: None)
    name = part_name(file, after=plan.after, until=plan.until)
    assert [one.name for one in (tmp_path / "archive").iterdir()] == [f".unfinished-{name}"]
    assert_whole(drive.log, everything - plan.decisions)
    totals = LogTotals(drive.log)
    totals.catch_up()
    drive.log.store_totals(totals.checkpoint())
    for _ in range(100):
        drive.log.maintain()
        assert drive.log.check(lambda _: None) == []
    assert rows(file, "select count(*) from decisions where position <= (select position from cut)") == [(0,)]
    assert [one.name for one in (tmp_path / "archive").iterdir()] == [name]
    assert_whole(drive.log, everything - plan.decisions)
    with closing(open_reader(file, archive=[tmp_path / "archive"])) as whole:
        assert_whole(whole, everything)


def test_only_one_run_at_a_time(drive: Drive, file: Path) -> None:
    """Two would write the same part."""
    drive.apply(sample_experiment())
    with (
        closing(open_to_cut(file)) as log,
        log.archiving(),
        closing(open_to_cut(file)) as other,
        pytest.raises(LogLocked, match="another process archives this log"),
        other.archiving(),
    ):
        pass


def test_the_file_stops_growing(drive: Drive, file: Path, tmp_path: Path) -> None:
    """SQLite uses the pages of what was deleted again."""
    drive.apply(sample_experiment())
    drive.restart(replace(PACE, keep_bytes=100_000))
    sizes = []
    for _ in range(6):
        drive.visits(400)
        assert cut(file, tmp_path / "archive", age=10) is not None
        drive.log.maintain()
        ((pages,),) = rows(file, "pragma page_count")
        sizes.append(pages)
    assert sizes[-1] <= 1.15 * sizes[1], sizes


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed log that was cut twice, with a bit of everything on both sides."""
    folder = tmp_path_factory.mktemp("trimmed")
    file, clock = folder / "log.db", Clock()
    with closing(open_log(file, clock=clock)) as log:
        drive = Drive(log, clock)
        for seconds in (20, 30):
            eventful(drive, visits=8)
            drive.apply(sample_experiment(policy=spec("squarecb")))
            drive.visits(20)
            origin = Origin("ann", "api", f"after {seconds} s")
            Versions(log).apply(sample_experiment(policy=spec("squarecb"), salt=str(seconds)), origin=origin)
            log.append([Orphan("click"), EarlyActivation(DecisionId(f"early-{seconds}"), ActionId("sale")), Tick()])
            assert cut(file, folder / "archive", age=seconds, remember=1e6) is not None
        eventful(drive, visits=8)
        clock.advance(4 * 86_400)  # what counted for limits before the cut counts no more, and is dropped
        log.append([Tick()])
        log.maintain()
        fill_limited(log, clock)
        log.append([EarlyActivation(DecisionId("early"), ActionId("sale"))])
        drive.apply(sample_experiment(policy=spec("squarecb"), sticky=600 * SECOND))
        kept = decision(log.versions()[-1], "kept", "visitor")
        seen = Seen(log.cut().position, log.head().position, clock())
        (mark,) = log.append([UnitDecision(kept, keep=600 * SECOND, seen=seen)])
        assert mark is not None
        log.append([NewReward(mark.position, "click", 1.0, 1.0, "r")])
        log.append([NewRewardChange(mark.position, "r", 0.25, "click", 1.0, Time(1))])
        fill_persons(log, clock)
        counted = LogTotals(log)
        counted.catch_up()
        log.store_totals(counted.checkpoint())
        count_actions(log)
        assert log.check(lambda _: None) == []
    return file


ONE_PIECE = {
    ("models", "parts"): "a model of one piece of several counts as unfinished, and is learned again",
    ("base_pieces", "part"): "the number of the only piece; its content is the same",
}


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(("table", "column"), [one for one in columns() if one[0] != "chain_start"])
def test_a_changed_value_of_a_cut_log_is_found(
    trimmed: Path, tmp_path: Path, table: str, column: str, *, last: bool
) -> None:
    """What a cut has left behind decides what is learned and answered: none of it may be changed unseen."""
    file = Path(shutil.copy(trimmed, tmp_path / "log.db"))
    change(file, table, column, last=last)
    assert (damage(file) == []) == ((table, column) in {*HARMLESS, *ONE_PIECE})


@pytest.mark.parametrize("table", sorted(ARCHIVE_TABLES))
@pytest.mark.parametrize("which", ["min", "max"])
def test_a_row_that_was_taken_away_from_a_cut_log_is_found(
    trimmed: Path, tmp_path: Path, table: str, which: str
) -> None:
    """A decision that is not there is not learned from."""
    file = Path(shutil.copy(trimmed, tmp_path / "log.db"))
    with closing(sqlite3.connect(file)) as db:
        db.execute(f"delete from {table} where rowid = (select {which}(rowid) from {table})")  # noqa: S608 - above
        db.commit()
    assert damage(file) != []


@pytest.mark.parametrize("table", ["assignments", "persons", "totals_checkpoints"])
def test_rows_that_no_entry_explains_are_missed_all_the_same(trimmed: Path, tmp_path: Path, table: str) -> None:
    """Their entries may lie in the archive: all of them gone at once must not look like a log that never had any."""
    file = Path(shutil.copy(trimmed, tmp_path / "log.db"))
    with closing(sqlite3.connect(file)) as db:
        db.execute("delete from links")
        before = {str(one) for one in damage(file)}
        db.execute(f"delete from {table}")  # noqa: S608 - above
        db.commit()
    assert len({str(one) for one in damage(file)} - before) > 0


@pytest.mark.parametrize("at", [1, 20])
def test_a_row_that_was_added_before_the_cut_is_found(trimmed: Path, tmp_path: Path, at: int) -> None:
    """Views and reports would read it."""
    file = Path(shutil.copy(trimmed, tmp_path / "log.db"))
    with closing(sqlite3.connect(file)) as db:
        db.execute("insert into ticks (position, time) values (?, 1)", (at,))
        db.commit()
    assert damage(file) != []


def counted(file: Path, folder: Path, *, age: float = 20) -> Path:
    """A run that was killed as soon as its part counted; the part's folder, with its unfinished name."""
    with closing(open_to_cut(file)) as log, log.archiving():
        plan = make_plan(log, Time(log.head().time - round(age * SECOND)))
        assert plan is not None
        _write(log, folder, plan, 0, lambda _: None)
    (part,) = folder.glob(".unfinished-*")
    return part


def store_totals(drive: Drive) -> None:
    """Without them nothing may be deleted."""
    totals = LogTotals(drive.log)
    totals.catch_up()
    drive.log.store_totals(totals.checkpoint())


def cut_off_one(path: Path) -> None:
    """A file of a part is shorter than it was written."""
    file = path / "rewards.parquet"
    file.write_bytes(file.read_bytes()[:-1])


def take_away(path: Path) -> None:
    """The part is nowhere."""
    shutil.rmtree(path)


def empty(path: Path) -> None:
    """As where a disk is not mounted."""
    take_away(path)
    path.mkdir()


@pytest.mark.parametrize("spoil", [cut_off_one, take_away, empty])
@pytest.mark.parametrize("finished", [False, True])
def test_nothing_is_deleted_while_the_part_is_not_there(
    drive: Drive, file: Path, tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, *, finished: bool,
) -> None:  # fmt: skip
    """The entries may be nowhere else. It is told, nothing else stops, and it goes on once the part is back."""
    monkeypatch.setattr("decider.log.archive.last_part.LOOK_INTERVAL", 0.0)
    drive.apply(sample_experiment())
    drive.visits(60)
    part = counted(file, tmp_path / "archive")
    if finished:
        part = part.rename(part.with_name(part.name.removeprefix(".unfinished-")))
    shutil.copytree(part, tmp_path / "copy")
    spoil(part)
    store_totals(drive)
    before = rows(file, "select count(*) from decisions")
    for _ in range(3):
        drive.log.maintain()
    with pytest.raises((ArchiveMissing, ArchiveDamaged), match=part.name.removeprefix(".unfinished-")):
        cut(file, tmp_path / "archive", age=10)
    assert rows(file, "select count(*) from decisions") == before
    (warning,) = drive.log.warnings
    assert "archived entries are not deleted yet" in warning
    assert caplog.text.count(warning) == 1
    shutil.rmtree(tmp_path / "archive")
    shutil.copytree(tmp_path / "copy", part)
    for _ in range(10):
        drive.log.maintain()
    assert drive.log.warnings == []
    assert rows(file, "select count(*) from decisions where position <= (select position from cut)") == [(0,)]
    folders = [one.name for one in (tmp_path / "archive").iterdir() if one.is_dir()]
    assert folders == [part.name.removeprefix(".unfinished-")]


def test_a_part_that_was_moved_is_found_before_it_is_trimmed(drive: Drive, file: Path, tmp_path: Path) -> None:
    """Where it lies is said with `--archive`; a damaged part of something else beside it is not in the way."""
    drive.apply(sample_experiment())
    drive.visits(60)
    counted(file, tmp_path / "archive").rename(tmp_path / "moved")
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "part.json").write_text("nonsense")
    with closing(open_to_cut(file, archives=[tmp_path])) as log:
        log.finish_cut(lambda _: None)
    assert rows(file, "select count(*) from decisions where position <= (select position from cut)") == [(0,)]


def test_a_part_that_cannot_be_renamed_stops_nothing(drive: Drive, file: Path, tmp_path: Path) -> None:
    """A server may not be allowed to write to the archive: it serves, and deletes nothing."""
    drive.apply(sample_experiment())
    drive.visits(60)
    part = counted(file, tmp_path / "archive")
    in_the_way = part.with_name(part.name.removeprefix(".unfinished-"))
    in_the_way.mkdir()
    (in_the_way / "something").touch()
    store_totals(drive)
    before = rows(file, "select count(*) from decisions")
    drive.restart()
    drive.visits(1)
    assert rows(file, "select count(*) - 1 from decisions") == before
    (warning,) = drive.log.warnings
    assert f"cannot get its name {in_the_way.name}" in warning
    shutil.rmtree(in_the_way)
    assert cut(file, tmp_path / "archive", age=10) is not None


def written(file: Path, folder: Path, *, age: float = 20) -> Part:
    """A run that was killed before its part counted."""
    with closing(open_to_cut(file)) as log:
        plan = make_plan(log, Time(log.head().time - round(age * SECOND)))
        assert plan is not None
        name = part_name(file, after=plan.after, until=plan.until)
        return write_part(file, after=plan.after, until=plan.until, folder=folder, name=name)


def test_logs_with_the_same_file_name_share_a_folder(tmp_path: Path, clock: Clock) -> None:
    """Every server's log may be called the same: one's part that counts is nothing that the other may remove."""
    files = [tmp_path / name / "log.db" for name in "ab"]
    for file in files:
        file.parent.mkdir()
        clock.advance(1)
        with closing(open_log(file, clock=clock)) as log:
            drive = Drive(log, clock)
            drive.apply(sample_experiment())
            drive.visits(60)
    parts = [counted(files[0], tmp_path / "archive")]
    for age in (30, 20):
        assert cut(files[1], tmp_path / "archive", age=age) is not None
        assert read_part(parts[0]).digest == rows(files[0], "select digest from archives")[0][0]
    assert cut(files[0], tmp_path / "archive", age=10) is not None
    for file in files:
        with closing(open_reader(file, archive=[tmp_path / "archive"])) as whole:
            assert_whole(whole, whole.count_decisions())


@pytest.mark.parametrize("age", [10, 20])
def test_a_copy_of_a_log_leaves_the_part_of_the_log_alone(drive: Drive, file: Path, tmp_path: Path, age: float) -> None:
    """Somebody tries a backup: its run knows nothing of the part that counts, and must not take it for a leftover."""
    drive.apply(sample_experiment())
    drive.visits(60)
    (tmp_path / "backup").mkdir()
    copy = copied(file, tmp_path / "backup").rename(tmp_path / "backup" / file.name)
    part = counted(file, tmp_path / "archive")
    digest = read_part(part).digest
    assert cut(copy, tmp_path / "archive", age=age) is not None
    assert digest in [read_part(one).digest for one in (tmp_path / "archive").iterdir() if one.is_dir()]
    drive.visits(1)
    assert cut(file, tmp_path / "archive", age=5) is not None
    for one in (file, copy):
        with closing(open_reader(one, archive=[tmp_path / "archive"])) as whole:
            assert whole.check(lambda _: None) == []


def test_what_a_killed_run_has_left_is_removed(drive: Drive, file: Path, tmp_path: Path) -> None:
    """Else the disk fills with parts that no log names."""
    drive.apply(sample_experiment())
    drive.visits(60)
    folder = tmp_path / "archive"
    left = written(file, folder)
    half = left.folder.with_name(f"{left.folder.name}0")
    half.mkdir()
    part = cut(file, folder, age=10)
    assert part is not None
    assert part.folder.name != left.name
    assert [one.name for one in folder.iterdir() if one.is_dir()] == [part.folder.name]


def test_one_run_at_a_time_writes_to_a_folder(drive: Drive, file: Path, tmp_path: Path) -> None:
    """Whatever log it is of."""
    drive.apply(sample_experiment())
    drive.visits(60)
    with alone_in(tmp_path / "archive"), pytest.raises(LogLocked, match=r"archive: another archive run writes there"):
        cut(file, tmp_path / "archive", age=10)
    assert cut(file, tmp_path / "archive", age=10) is not None


def test_a_full_disk_keeps_no_half_part(
    drive: Drive, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left on it is needed by others."""
    drive.apply(sample_experiment())
    drive.visits(60)

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("decider.log.archive.write.sync", full)
    with pytest.raises(LogFull, match="free space"):
        cut(file, tmp_path / "archive", age=10)
    assert [one for one in (tmp_path / "archive").iterdir() if one.is_dir()] == []


def test_a_log_is_whole_at_every_moment_of_a_later_cut(drive: Drive, file: Path, tmp_path: Path) -> None:
    """Models that had stayed at the first cut need not stay at the second: they go first, and leave gaps."""
    drive.apply(sample_experiment())
    drive.visits(300)
    assert cut(file, tmp_path / "archive", age=20) is not None
    drive.visits(300)
    counted(file, tmp_path / "archive", age=20)
    store_totals(drive)
    ((first, before),) = rows(
        file,
        "select min(p.position), min(a.last) from archives a, published p where p.position not in kept_models",
    )
    assert first <= before
    assert drive.log.check(lambda _: None) == []
    for _ in range(8):
        drive.log.maintain()
        assert drive.log.check(lambda _: None) == []
    assert rows(file, "select count(*) from decisions where position <= (select position from cut)") == [(0,)]


def test_an_entry_added_up_to_the_cut_before_is_found_while_a_later_one_is_trimmed(
    drive: Drive, file: Path, tmp_path: Path
) -> None:
    """Gaps between models are no place to hide something."""
    drive.apply(sample_experiment())
    drive.visits(60)
    assert cut(file, tmp_path / "archive", age=20) is not None
    drive.visits(60)
    counted(file, tmp_path / "archive", age=20)
    assert drive.log.check(lambda _: None) == []
    with closing(sqlite3.connect(file)) as db:
        db.execute("insert into ticks (position, time) values (3, 1)")
        db.commit()
    assert drive.log.check(lambda _: None) != []


def test_a_log_that_remembers_for_ever_goes_on(drive: Drive, file: Path, tmp_path: Path) -> None:
    """A number that no column can hold would break it at every later start."""
    drive.apply(sample_experiment())
    drive.visits(60)
    part = cut(file, tmp_path / "archive", age=20, remember=106_740_000 * 86_400)
    assert part is not None
    assert archived_rows(file) == part.plan.decisions
    assert drive.log.check(lambda _: None) == []


@pytest.mark.parametrize(
    "options",
    [("--before", "1d", "--remember", "36501d"), ("--before", "36501d"), ("--before", f"{'9' * 400}s")],
)
def test_an_age_that_no_time_can_hold_is_refused(
    drive: Drive, file: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Before anything begins."""
    drive.apply(sample_experiment())
    result = CliRunner().invoke(archive_command, ["--db", str(file), *options, str(tmp_path / "archive")])
    assert result.exit_code == 2
    assert "at most 36500d" in result.output


@pytest.mark.parametrize("algorithm", ["bag", "rnd"])
def test_an_ended_experiment_that_cannot_go_on_from_a_model_is_archived(
    drive: Drive, file: Path, tmp_path: Path, algorithm: str
) -> None:
    """Nobody learns from it any more; one that ended must not keep the whole log from being archived."""
    drive.apply(sample_experiment(policy=spec(algorithm)))
    drive.apply(sample_experiment(id=OTHER))
    drive.visits(30)
    drive.visits(30, OTHER)
    with pytest.raises(FailedPrecondition, match=r"'home'.*another policy"):
        cut(file, tmp_path / "archive", age=1)
    drive.apply(sample_experiment(policy=spec(algorithm), ended=True))
    drive.clock.advance(20)
    drive.visits(5, OTHER)
    drive.clock.advance(20)
    drive.step()
    everything = drive.log.count_decisions()
    part = cut(file, tmp_path / "archive", age=1)
    assert part is not None
    assert_whole(drive.log, everything - part.plan.decisions)
    with closing(open_reader(file, archive=[tmp_path / "archive"])) as whole:
        assert_whole(whole, everything)
