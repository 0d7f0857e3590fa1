"""An archive holds what the log held: written, proved, found, put together and streamed; or refused in plain words."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.errors import ArchiveDamaged, ArchiveMissing, LogCorrupt, LogError
from decider.learn.archive import archive as archive_run
from decider.log.archive import columns
from decider.log.archive import write as writing
from decider.log.archive.files import file_sha256
from decider.log.archive.find import check_joined, found_parts, parts_in, parts_of
from decider.log.archive.part import FILES, PART_JSON, UNFINISHED, Part, finish_part, read_part
from decider.log.archive.restore import restore
from decider.log.archive.sealed import sealed_in_parts
from decider.log.archive.write import start_of, write_part
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import EventLog, LogReader, NewReward, SealedDecision, Tick
from decider.log.tables import ENTRY_TABLES
from decider.types import DecisionId, Position, Time
from simulator.commands.group import main
from simulator.verify import verify
from tests.archives import HOME, archive, ends, everything, raw_rows, split, trim, write_odd_log
from tests.conftest import Clock, sample_experiment
from tests.rpc_clients import rows
from tests.test_log_readers import Step, Writer, steps, told, write
from tests.test_verify import OTHER, Drive, eventful
from tests.two_writers import decision

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of every kind of entry, with odd values."""
    path = tmp_path_factory.mktemp("odd") / "odd.db"
    write_odd_log(path, Clock())
    return path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of a real learner: versions with two windows, experiments, restarts, models."""
    path, clock = tmp_path_factory.mktemp("shop") / "shop.db", Clock()
    with closing(open_log(path, clock=clock)) as log:
        eventful(Drive(log, clock))
        clock.advance(60)
        log.append([Tick()])
    return path


@pytest.fixture
def live(odd: Path, tmp_path: Path) -> Path:
    """A copy of the odd log, to be trimmed."""
    return Path(shutil.copy(odd, tmp_path / "odd.db"))


# --- round trip


@pytest.mark.parametrize("count", [1, 4])
def test_an_archive_restores_every_entry_as_it_was(odd: Path, tmp_path: Path, count: int) -> None:
    """Whatever a log holds, hostile texts and numbers included: else `verify` of the archive proves nothing."""
    split(odd, tmp_path / "archive", count)
    restore(parts_in(tmp_path / "archive"), None, tmp_path / "copy.db")
    assert dict(raw_rows(tmp_path / "copy.db")) == dict(raw_rows(odd))
    assert everything(tmp_path / "copy.db")[:3] == everything(odd)[:3]


@pytest.mark.parametrize("name", ["odd", "shop"])
def test_a_trimmed_log_and_its_archive_are_the_whole_log(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """Everything that reads a log must be told the same, and its chain be proved from the first entry."""
    whole: Path = request.getfixturevalue(name)
    log = Path(shutil.copy(whole, tmp_path / "log.db"))
    parts = split(log, tmp_path / "archive", 5)[:3]
    trim(log, parts)
    assert everything(log, archive=[tmp_path / "archive"]) == everything(whole)


def test_a_part_that_ended_where_the_log_ended_is_joined(live: Path, tmp_path: Path, clock: Clock) -> None:
    """The log gets its mark there only with the next entry, after the part was written."""
    end = ends(live)[-1]
    parts = archive(live, tmp_path / "archive", [ends(live)[30], end])
    clock.now = end.time
    with closing(open_log(live, clock=clock)) as log:
        log.append([Tick()])
        log.append([Tick()])
    trim(live, parts)
    with closing(open_reader(live, archive=[tmp_path / "archive"])) as whole:
        assert whole.check(lambda _: None) == []
        assert whole.head().position == end.position + 2


@pytest.mark.parametrize("name", ["log-0.1.0.db", "log-0.1.0-chained.db"])
def test_an_old_log_that_was_upgraded_is_archived(tmp_path: Path, name: str) -> None:
    """Its chain begins with the time of the upgrade, which the archive has to keep."""
    log = Path(shutil.copy(DATA / name, tmp_path / "log.db"))
    open_log(log).close()
    split(log, tmp_path / "archive", 3)
    with closing(open_reader(tmp_path / "archive")) as restored, closing(open_reader(log)) as upgraded:
        assert restored.check(lambda _: None) == []
        assert restored.head() == upgraded.head()
        assert restored.chain_start() == upgraded.chain_start()
        assert restored.count_decisions() == upgraded.count_decisions()


def test_the_archive_s_types_are_those_of_the_tables(odd: Path) -> None:
    """A number that was stored as a text would come back as one, and change the chain."""
    kinds = {"integer": "int64", "real": "double", "text": "string"}
    for table in ENTRY_TABLES:
        for name, kind in rows(odd, f"select name, type from pragma_table_info('{table.name}')"):  # noqa: S608 - our names
            if name != "signature":  # stored as a number, archived as the text
                assert str(columns.type_of(table, name)) == kinds[kind.lower()], name


def test_decisions_carry_what_people_ask_for(shop: Path, tmp_path: Path) -> None:
    """Whoever opens the file elsewhere needs no join: final rewards as the view says, and what could be drawn."""
    (part,) = split(shop, tmp_path, 1)
    found = pq.read_table(part.folder / "decisions.parquet").to_pylist()
    wanted = rows(shop, "select position, experiment, experiment_version, rewards, reward, deadline, overridden "
                        "from sealed_decisions order by position")  # fmt: skip
    names = ("position", "experiment", "experiment_version", "rewards", "reward", "deadline", "overridden")
    assert [tuple(row[name] for name in names) for row in found] == [tuple(row) for row in wanted]
    with closing(open_reader(shop)) as log:
        logged = {one.position: one.decision for v in log.versions() for one in log.decisions(v.position)}
    assert all(tuple(row["eligible_actions"]) == logged[row["position"]].eligible for row in found)
    assert all(row["decided_at"].timestamp() == pytest.approx(row["time"] / 1e6) for row in found)
    assert any(row["rewards_in_time"] for row in found)


def test_a_reward_behind_the_cut_counts_in_the_part(tmp_path: Path, clock: Clock) -> None:
    """The window may end behind the cut: the final reward is that of the log, not that of the part."""
    path = tmp_path / "log.db"
    write_odd_log(path, clock, rounds=1)
    with closing(open_log(path, clock=clock)) as log:
        (mark,) = log.append([decision(log.versions()[0], "last")])
        assert mark is not None
        cut = log.head()
        clock.advance(1)
        log.append([NewReward(mark.position, "click", 0.75)])
        clock.advance(60)
        log.append([Tick()])
    (part,) = archive(path, tmp_path / "archive", [cut])
    last = pq.read_table(part.folder / "decisions.parquet").to_pylist()[-1]
    assert (last["position"], last["rewards_in_time"], last["reward"]) == (mark.position, [0.75], 0.75)
    assert pq.read_table(part.folder / "rewards.parquet").column("position").to_pylist()[-1] < mark.position


def test_row_groups_and_pieces_may_end_anywhere(odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long log is read and written in pieces; no entry may be lost between two."""
    monkeypatch.setattr(writing, "PIECE", 7)
    monkeypatch.setattr(writing, "GROUP_ROWS", 4)
    split(odd, tmp_path, 2)
    assert pq.ParquetFile(tmp_path / parts_in(tmp_path)[0].name / "decisions.parquet").num_row_groups > 3
    restore(parts_in(tmp_path), None, tmp_path / "copy.db")
    assert dict(raw_rows(tmp_path / "copy.db")) == dict(raw_rows(odd))


@settings(max_examples=15)
@given(steps, st.lists(st.integers(0, 99), min_size=1, max_size=3))
def test_whatever_happened_the_archive_and_the_rest_are_the_log(script: Sequence[Step], cuts: list[int]) -> None:
    """Any history, cut anywhere: readers are told the same, and learners get the same decisions in the same order."""
    with TemporaryDirectory() as name:
        folder, clock = Path(name), Clock()
        with closing(open_log(folder / "log.db", clock=clock)) as log:
            write(Writer(log, clock), script)
            clock.advance(60)
            log.append([Tick()])
            wanted = told(log)
            found = ends(folder / "log.db")
            chosen = sorted({len(found) * cut // 100 for cut in cuts})
            parts = archive(folder / "log.db", folder / "archive", [found[cut] for cut in chosen])
            versions = {version.position: version for version in log.versions()}
            times = sorted({head.time for head in found} | {one.deadline for one in sealed_up_to(log, parts[-1].last)})
            for after, until in pairwise([Time(0), *times[::2], times[-1]]):
                stream = sealed_in_parts(parts, HOME, after=after, until=until, versions=versions)
                every = log.sealed_decisions(HOME, after=after, until=until)
                assert list(stream) == [one for one in every if one.position <= parts[-1].last]
        trim(folder / "log.db", parts)
        with closing(open_reader(folder / "log.db", archive=[folder / "archive"])) as whole:
            assert told(cast(EventLog, whole)) == wanted
            assert whole.check(lambda _: None) == []


def sealed_up_to(log: LogReader, last: Position) -> list[SealedDecision]:
    """The sealed decisions of the first experiment, up to a position."""
    every = log.sealed_decisions(HOME, after=Time(0), until=log.head().time)
    return [one for one in every if one.position <= last]


# --- writing


def test_a_part_does_not_count_before_it_is_finished(odd: Path, tmp_path: Path) -> None:
    """A killed run leaves a part that no log names; nobody may take it for one."""
    part = write_part(odd, after=start_of(odd), until=ends(odd)[5], folder=tmp_path, name="p")
    assert part.folder.name == f"{UNFINISHED}p"
    with pytest.raises(ArchiveMissing, match=f"has no part of an archive but {UNFINISHED}p, which gets its own name"):
        parts_in(tmp_path)
    assert finish_part(part).folder == tmp_path / "p"
    assert [one.name for one in parts_in(tmp_path)] == ["p"]


def test_writing_and_finishing_again_changes_nothing(odd: Path, tmp_path: Path) -> None:
    """Whoever goes on after a kill does not know how far the other one came."""
    (part,) = archive(odd, tmp_path, [ends(odd)[5]])
    before = {file.name: file.stat().st_mtime_ns for file in part.folder.iterdir()}
    again = write_part(odd, after=start_of(odd), until=ends(odd)[5], folder=tmp_path, name=part.name)
    assert finish_part(finish_part(again)) == part
    assert {file.name: file.stat().st_mtime_ns for file in part.folder.iterdir()} == before


def test_a_half_written_part_is_written_anew(odd: Path, tmp_path: Path) -> None:
    """What a killed run left must not be taken for whole, nor be in the way."""
    place = tmp_path / f"{UNFINISHED}p"
    place.mkdir()
    (place / "decisions.parquet").write_bytes(b"half")
    (place / "left.over").write_bytes(b"")
    part = finish_part(write_part(odd, after=start_of(odd), until=ends(odd)[5], folder=tmp_path, name="p"))
    assert sorted(one.name for one in part.folder.iterdir()) == sorted([PART_JSON, *part.files])
    assert read_part(part.folder) == part


def test_the_same_entries_give_the_same_part(odd: Path, tmp_path: Path) -> None:
    """A log put back from a copy is archived again: the digest that a log names must still be found."""
    one, two = (archive(odd, tmp_path / name, [ends(odd)[9]])[0] for name in ("one", "two"))
    assert one.digest == two.digest


def test_another_part_of_that_name_is_not_overwritten(odd: Path, tmp_path: Path) -> None:
    """It may be the only copy of another log's entries."""
    archive(odd, tmp_path, [ends(odd)[5]])
    name = parts_in(tmp_path)[0].name
    with pytest.raises(LogError, match="is there already, with other entries; move it away or choose another folder"):
        write_part(odd, after=start_of(odd), until=ends(odd)[6], folder=tmp_path, name=name)


def test_a_damaged_log_is_not_archived(live: Path, tmp_path: Path) -> None:
    """Afterwards the rows are deleted: what is written must be what was acknowledged."""
    with closing(sqlite3.connect(live)) as connection, connection:
        connection.execute("update decisions set unit_id = 'x' where position = (select max(position) from decisions)")
    with pytest.raises(LogCorrupt, match="are not what was acknowledged, so they are not archived"):
        write_part(
            live, after=start_of(live), until=ends(live)[-1]._replace(chain=head(live)), folder=tmp_path, name="p"
        )
    with pytest.raises(ArchiveMissing):
        parts_in(tmp_path)


def head(log: Path) -> bytes:
    """The chain at the end."""
    with closing(open_reader(log)) as reader:
        return reader.head().chain


def test_open_windows_are_not_archived(tmp_path: Path, clock: Clock) -> None:
    """Its final reward is not known yet."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        write_odd_log(tmp_path / "other.db", Clock(), rounds=1)
    write_odd_log(tmp_path / "open.db", clock, rounds=1)
    with closing(open_log(tmp_path / "open.db", clock=clock)) as log:
        (mark,) = log.append([decision(log.versions()[0], "open")])
        end = log.head()
    assert mark is not None
    with pytest.raises(LogError, match=f"position {mark.position} cannot be archived: its window is still open"):
        write_part(tmp_path / "open.db", after=start_of(tmp_path / "open.db"), until=end, folder=tmp_path, name="p")


def test_a_place_that_cannot_be_written_is_named(odd: Path, tmp_path: Path) -> None:
    """With the way out, instead of a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match=r"file: the archive cannot be written there .*; free space or choose another"):
        write_part(odd, after=start_of(odd), until=ends(odd)[5], folder=tmp_path / "file", name="p")


# --- damage


@pytest.fixture
def parts(odd: Path, tmp_path: Path) -> list[Part]:
    """The odd log in three."""
    return split(odd, tmp_path / "archive", 3)


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found(parts: list[Part], name: str) -> None:
    """Disks and copies go wrong; the file and the way out are named."""
    flip(parts[1].folder / name)
    with pytest.raises(ArchiveDamaged, match=rf"{parts[1].name}/{name}: was changed .*; put a copy of it in its place"):
        restore(parts, None, parts[0].folder.parent / "copy.db")
    assert not (parts[0].folder.parent / "copy.db").exists(), "said before anything begins"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_short_file_is_found(parts: list[Part], name: str) -> None:
    """An interrupted copy leaves both."""
    file = parts[1].folder / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArchiveDamaged, match=f"{name}: has [0-9]+ bytes and not"):
        read_part(parts[1].folder)
    file.unlink()
    with pytest.raises(ArchiveMissing, match=f"{name}: is missing; put a copy of it there"):
        read_part(parts[1].folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "part.json: is damaged .*; put a copy of it in its place"),
        (lambda _: "[]", "part.json: is damaged"),
        (lambda text: text.replace('"position": 0', '"position": null'), "part.json: is damaged .position is None"),
        (lambda text: text.replace('"position": 0', '"position": "0"'), "part.json: is damaged .position is '0'"),
        (lambda text: text.replace('"position": 0', '"position": -1'), "part.json: is damaged .position is -1"),
        (lambda text: text.replace('"rows": ', '"rows": 0.'), "part.json: is damaged .rows is 0"),
        (
            lambda text: text.replace('"format": 1', '"format": 99'),
            "has format 99, this release reads format 1; upgrade",
        ),
        (lambda text: text.replace('"ticks.parquet"', '"tocks.parquet"'), "does not name ticks.parquet"),
    ],
)
def test_a_damaged_description_is_named(parts: list[Part], change: Callable[[str], str], message: str) -> None:
    """Also one of a later release, which is not damaged."""
    file = parts[0].folder / PART_JSON
    file.write_text(change(file.read_text()))
    with pytest.raises(ArchiveDamaged, match=message):
        read_part(parts[0].folder)


def test_rows_that_were_changed_with_their_checksums_break_the_chain(parts: list[Part], tmp_path: Path) -> None:
    """Somebody rewrote a part and its part.json: the chain of the log still tells."""
    folder = parts[1].folder
    table = pq.read_table(folder / "rewards.parquet")
    values = table.column("value").to_pylist()
    values[3] += 1.0
    place = table.schema.get_field_index("value")
    pq.write_table(table.set_column(place, "value", [values]), folder / "rewards.parquet")
    content = json.loads((folder / PART_JSON).read_text())
    file = folder / "rewards.parquet"
    content["files"]["rewards.parquet"] |= {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    (folder / PART_JSON).write_text(json.dumps(content))
    with closing(open_reader(tmp_path / "archive")) as log:
        (damage, *_) = log.check(lambda _: None)
    assert damage.text == "an entry was changed, added or taken away"
    assert damage.first <= parts[1].last
    assert damage.last >= parts[1].first


def test_a_gap_is_refused(parts: list[Part], tmp_path: Path) -> None:
    """Which part is missing is told by its neighbours."""
    shutil.rmtree(parts[1].folder)
    with pytest.raises(ArchiveMissing, match=rf"begins at position {parts[2].first}, and {parts[0].name} ends at "):
        open_reader(tmp_path / "archive")


def test_later_parts_alone_are_a_log_that_was_cut(parts: list[Part], odd: Path, tmp_path: Path) -> None:
    """Old parts may lie elsewhere: decisions, rewards and chain behind them can be read all the same."""
    shutil.rmtree(parts[0].folder)
    last = parts[0].last
    with closing(open_reader(tmp_path / "archive")) as log, closing(open_reader(odd)) as whole:
        assert log.check(lambda _: None) == []
        assert log.cut().position == last
        (version,) = log.versions()
        found = list(log.decisions(version.position))
        assert found == [one for one in whole.decisions(version.position) if one.position > last]
        rewards = [one for one in whole.rewards_between("", "\U0010ffff") if one.position > last]
        behind = {one.decision.decision_id for one in found}
        assert list(log.rewards_between("", "\U0010ffff")) == [one for one in rewards if one.decision_id in behind]
        with pytest.raises(ArchiveMissing, match=rf"parts before {parts[1].name} \(positions 1 to {last}\)"):
            list(log.sealed_decisions(HOME, after=Time(0), until=log.head().time))


def test_a_wrong_order_is_refused(parts: list[Part], tmp_path: Path) -> None:
    """Positions would not rise."""
    with pytest.raises(ArchiveDamaged, match="hold the same positions, or they are in the wrong order"):
        restore([parts[1], parts[0], parts[2]], None, tmp_path / "copy.db")


@pytest.mark.usefixtures("parts")
def test_a_part_of_another_log_is_refused(shop: Path, tmp_path: Path) -> None:
    """Two logs archived into one folder are told apart."""
    split(shop, tmp_path / "archive", 2)
    with pytest.raises(ArchiveDamaged, match=r"is of another log than .*; give each log's archive its own folder"):
        open_reader(tmp_path / "archive")


def test_a_part_of_another_copy_of_the_log_is_refused(live: Path, tmp_path: Path, clock: Clock) -> None:
    """A log that was put back from a copy went another way since: same positions, other entries."""
    found = ends(live)
    other = Path(shutil.copy(live, tmp_path / "other.db"))
    for path, moment in ((live, 0), (other, 1)):
        clock.now = found[-1].time + moment
        with closing(open_log(path, clock=clock)) as log:
            log.append([Tick()])
            log.append([Tick()])
    (first,) = archive(live, tmp_path / "one", ends(live)[-2:-1])
    second = archive(other, tmp_path / "two", ends(other)[-2:])[1]
    with pytest.raises(ArchiveDamaged, match=f"{second.name}: does not continue {first.name}: the checksum before it"):
        check_joined([first, second])


# --- finding


def test_a_log_finds_its_parts_where_they_were_written_or_where_they_are_said_to_be(live: Path, tmp_path: Path) -> None:
    """Archives are moved to other disks; a part is known by its digest."""
    parts = split(live, tmp_path / "archive", 4)[:3]
    trim(live, parts)
    assert [one.part for one in parts_of(live)] == parts
    (tmp_path / "archive").rename(tmp_path / "moved")
    assert [one.part for one in parts_of(live)] == [None] * 3
    with pytest.raises(ArchiveMissing, match=rf"{parts[0].name} \(positions 1 to .*looked for in .*--archive DIR"):
        found_parts(parts_of(live))
    moved = tmp_path / "moved"
    assert [one.name for one in found_parts(parts_of(live, [moved]), [moved])] == [part.name for part in parts]
    (moved / parts[1].name).rename(moved / f"{UNFINISHED}{parts[1].name}")
    (moved / parts[2].name).rename(moved / "renamed by hand")
    assert len(found_parts(parts_of(live, [moved]))) == 3


def test_the_whole_log_needs_every_part(live: Path, shop: Path, tmp_path: Path) -> None:
    """Else a reader would take a part for the whole."""
    parts = split(live, tmp_path / "archive", 4)[:3]
    trim(live, parts)
    shutil.rmtree(parts[1].folder)
    with pytest.raises(ArchiveMissing, match=rf"missing parts of the archive: {parts[1].name} \(positions"):
        open_reader(live, archive=[tmp_path / "archive"])
    split(shop, tmp_path / "other", 1)
    with pytest.raises(
        ArchiveMissing, match=r"other: has no part of the archive of .*odd.db, but those of another log"
    ):
        open_reader(live, archive=[tmp_path / "other"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiveMissing, match=r"empty: has no part of the archive of .*, but none of any log"):
        open_reader(live, archive=[tmp_path / "empty"])


# --- the stream that is learned


@pytest.mark.parametrize("count", [1, 2, 7])
def test_archived_decisions_come_as_the_log_gave_them(shop: Path, tmp_path: Path, count: int) -> None:
    """Learning from the archive must make the same models: same decisions, same rewards, same order."""
    found = ends(shop)
    parts = archive(shop, tmp_path, [found[len(found) * n // count - 1] for n in range(1, count + 1)])
    with closing(open_reader(shop)) as log:
        versions = {version.position: version for version in log.versions()}
        deadlines = [0, *sorted({s.deadline for s in log.sealed_decisions(HOME, after=Time(0), until=log.head().time)})]
        assert len({version.experiment.reward.window for version in versions.values()}) > 1
        for experiment in (HOME, OTHER):
            for after, until in ((0, -1), (5, -5), (len(deadlines) // 2, len(deadlines) // 2 + 3), (-1, -1)):
                span = {"after": Time(deadlines[after]), "until": Time(deadlines[until])}
                wanted = list(log.sealed_decisions(experiment, **span))
                assert list(sealed_in_parts(parts, experiment, versions=versions, **span)) == wanted
    assert deadlines[-1] > 0


def stream_of(log: Path) -> Callable[[list[Part]], Iterator[SealedDecision]]:
    """All archived decisions of the first experiment, from parts."""
    with closing(open_reader(log)) as reader:
        versions = {version.position: version for version in reader.versions()}
        end = reader.head().time
    return lambda parts: sealed_in_parts(parts, HOME, after=Time(0), until=end, versions=versions)


def test_what_is_missing_is_told_before_the_first_decision_comes(shop: Path, tmp_path: Path) -> None:
    """A learner that has begun cannot go back."""
    parts, stream = split(shop, tmp_path, 3), stream_of(shop)
    with pytest.raises(ArchiveMissing, match="put the part between them"):
        stream([parts[0], parts[2]])
    file = parts[2].folder / "decisions.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArchiveDamaged, match=r"decisions\.parquet: has"):
        stream(parts)
    shutil.rmtree(parts[2].folder)
    with pytest.raises(ArchiveMissing, match=r"parquet: is missing"):
        stream(parts)


def test_no_decision_comes_out_of_a_changed_file(shop: Path, tmp_path: Path) -> None:
    """Nothing may be learned that was not served."""
    parts, stream = split(shop, tmp_path, 3), stream_of(shop)
    flip(parts[1].folder / "decisions.parquet")
    found: list[Position] = []
    with pytest.raises(ArchiveDamaged, match=r"decisions\.parquet: was changed since it was written"):
        found.extend(sealed.position for sealed in stream(parts))
    assert 0 < max(found) <= parts[0].last


# --- the simulator


def run(*args: str | Path) -> Result:
    """A command of the simulator."""
    return CliRunner().invoke(main, [*map(str, args)])


def evaluated(folder: Path, *log: str | Path) -> dict[str, Any]:
    """What `evaluate` says of a log, without what names it."""
    result = run(
        "evaluate", *log, "--experiment", "home", "--policy", "uniform", "--force", "--json", folder / "r.json"
    )
    assert result.exit_code in (0, 1), result.output
    found: dict[str, Any] = json.loads((folder / "r.json").read_text())
    return {name: value for name, value in found.items() if name not in ("log", "seconds")}


@pytest.fixture
def trimmed(shop: Path, tmp_path: Path) -> tuple[Path, list[Part]]:
    """The shop's log, of which only the last fourth is left, and its archive."""
    log = Path(shutil.copy(shop, tmp_path / "shop.db"))
    parts = split(log, tmp_path / "archive", 4)[:3]
    trim(log, parts)
    return log, parts


def test_verify_recomputes_the_log_and_its_archive_from_the_first_decision(
    shop: Path, trimmed: tuple[Path, list[Part]], tmp_path: Path
) -> None:
    """The promise of the project holds over what was archived: N of N, and every entry as it was acknowledged."""
    whole = run("verify", shop)
    assert whole.exit_code == 0, whole.output
    both = run("verify", trimmed[0], "--archive", tmp_path / "archive")
    assert (both.exit_code, both.output) == (0, whole.output)


def test_verify_of_an_archive_alone(shop: Path, tmp_path: Path) -> None:
    """It is the log as it was at its last entry."""
    split(shop, tmp_path / "archive", 3)
    alone = run("verify", tmp_path / "archive")
    assert (alone.exit_code, alone.output) == (0, run("verify", shop).output)


def test_evaluate_says_the_same_of_the_log_of_both_and_of_the_archive(
    shop: Path, trimmed: tuple[Path, list[Part]], tmp_path: Path
) -> None:
    """Retention must not change what researchers find."""
    whole = evaluated(tmp_path, shop)
    assert evaluated(tmp_path, trimmed[0], "--archive", tmp_path / "archive") == whole
    split(shop, tmp_path / "all", 3)
    assert evaluated(tmp_path, tmp_path / "all") == whole
    split(shop, tmp_path / "one", 1)
    (part,) = parts_in(tmp_path / "one")
    assert evaluated(tmp_path, part.folder) == whole
    assert evaluated(tmp_path, part.folder / "decisions.parquet") == whole


AGAIN = DecisionId("d-7")


@pytest.fixture
def repeated(tmp_path: Path, clock: Clock) -> Path:
    """A log with decisions whose ids are those of others in its archive, too."""
    path = tmp_path / "shop.db"
    with closing(open_log(path, clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment())
        for number in range(1, 4):
            visit(drive, first=0)
            while log.find(AGAIN):  # what is archived stays in the log while it is learned from
                visit(drive, first=drive.count + 1000 * number)
                move_away(path, tmp_path / "archive")
        visit(drive, first=0)
    return path


def visit(drive: Drive, *, first: int) -> None:
    """Some decisions with ids from a number on, whose windows are over."""
    drive.count = first
    drive.visits(20)
    drive.clock.advance(60)
    drive.step()


def move_away(path: Path, folder: Path) -> None:
    """Archive everything."""
    with closing(open_to_cut(path)) as log:
        before = Time(log.head().time - 1)
        assert archive_run(log, folder, before=before, remember=0, say=lambda _: None) is not None


def test_an_id_that_was_used_again_is_read_with_the_archive(repeated: Path, tmp_path: Path) -> None:
    """A late retry, or a call after `decider forget`, is a new decision: the archive still has the old one."""
    folder = tmp_path / "archive"
    for path, archives, times in ((repeated, [folder], 4), (folder, [], 3)):
        with closing(open_reader(path, archive=archives)) as log:
            assert log.check(lambda _: None) == []
            (version,) = log.versions()
            of_id = [one for one in log.decisions(version.position) if one.decision.decision_id == AGAIN]
            newest = max(of_id, key=lambda one: one.position)
            located = log.locate(AGAIN)
            assert (len(of_id), log.find(AGAIN)) == (times, newest)
            assert located is not None
            assert located.position == newest.position
            made, sealed = log.count_decisions(), sealed_up_to(log, Position(2**62))
            assert made == len(sealed)
            shown = [one for one in sealed if not one.overridden]
            result = verify(log)
            assert result.equal == result.decisions == made - result.forgotten > 0
        names = [path, *[option for one in archives for option in ("--archive", one)]]
        verified = run("verify", *names)
        assert verified.exit_code == 0, verified.output
        assert run("inspect", *names, "--experiment", "home").exit_code in (0, 1)
        assert evaluated(tmp_path, *names)["policies"][0]["decisions"] == len(shown)


def test_every_command_that_reads_logs_reads_archives(
    trimmed: tuple[Path, list[Part]], shop: Path, tmp_path: Path
) -> None:
    """One way to name a log, and it works everywhere."""
    folder = tmp_path / "archive"
    logs: list[list[str | Path]] = [[shop], [trimmed[0], "--archive", folder]]
    for number, log in enumerate(logs):
        assert run("inspect", *log, "--experiment", "home").exit_code in (0, 1)
        copy = tmp_path / f"copy-{number}.parquet"
        assert run("export", *log, copy, "--experiment", "home").exit_code == 0
        out = tmp_path / f"out-{number}"
        compared = run(
            "compare",
            *log,
            "--experiment",
            "home",
            "--policies",
            "uniform",
            "fixed:sale",
            "--workers",
            "1",
            "--out",
            out,
        )
        assert compared.exit_code in (0, 1), compared.output
    assert pq.read_table(tmp_path / "copy-0.parquet") == pq.read_table(tmp_path / "copy-1.parquet")


def test_a_trimmed_log_says_where_the_rest_is(trimmed: tuple[Path, list[Part]], tmp_path: Path) -> None:
    """Else its figures would be taken for those of all decisions."""
    log, parts = trimmed
    text = f"positions 1 to {parts[-1].last} are in the archive; to include them: --archive {tmp_path / 'archive'}"
    commands: list[list[str | Path]] = [["verify", log], ["inspect", log, "--experiment", "home"]]
    for command in commands:
        assert text in run(*command).output
        assert text not in run(*command, "--archive", tmp_path / "archive").output


def test_verify_of_later_parts_alone_says_what_is_missing(trimmed: tuple[Path, list[Part]], tmp_path: Path) -> None:
    """Without the first decisions nothing can be learned again; said before anything is recomputed."""
    shutil.rmtree(trimmed[1][0].folder)
    result = run("verify", tmp_path / "archive")
    assert result.exit_code == 2
    assert f"positions 1 to {trimmed[1][0].last} are in parts that are not there" in result.output
    assert "without the first decisions nothing can be recomputed" in result.output
    assert "decisions equal" not in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("verify", "{empty}"), "empty: has no part of an archive; name the folder that `decider archive` wrote to"),
        (
            ("evaluate", "{csv}", "--policy", "uniform", "--archive", "{empty}"),
            "has no archive, only a log of ours has",
        ),
        (("verify", "{shop}", "--archive", "{empty}"), "empty: has no part of the archive of"),
        (("inspect", "{shop}", "--experiment", "home", "--archive", "{empty}"), "empty: has no part of the archive of"),
        (
            ("compare", "storefront", "--policies", "default", "--archive", "{empty}"),
            "--archive: says how to read a log",
        ),
    ],
)
def test_what_is_no_archive_is_refused(shop: Path, tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    """A wrong folder is said to be one, not read as nothing."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "log.csv").write_text("action,reward,propensity\na,1,0.5\nb,0,0.5\n")
    names = {"empty": tmp_path / "empty", "csv": tmp_path / "log.csv", "shop": shop}
    result = run(*[arg.format(**names) for arg in args])
    assert result.exit_code == 2
    assert message in result.output


def test_decisions_away_from_their_part_are_read_as_a_table_that_is_described(shop: Path, tmp_path: Path) -> None:
    """Alone nothing says what was defined; read as any table, control traffic would count as the policy's."""
    (part,) = split(shop, tmp_path / "archive", 1)
    alone = Path(shutil.copy(part.folder / "decisions.parquet", tmp_path / "alone.parquet"))
    result = run("inspect", alone)
    assert result.exit_code == 2
    assert "alone.parquet: is from an archive of a log of ours, which is read by its folder" in result.output
    columns = ("eligible=eligible_actions", "time=decided_at", "fields=segment,device")
    described = run("inspect", alone, *[word for one in columns for word in ("--column", one)])
    assert described.exit_code in (0, 1), described.output
