"""Experiment files as people, editors and deployments change them: what is whole is applied, whatever stands beside it,
and what somebody changed over the API is not undone by an old file.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from decider.errors import InvalidExperiment
from decider.experiment.definition import Experiment
from decider.experiment.origin import FROM_API, Origin
from decider.experiment.schema import from_message, parse_toml
from decider.experiment_files import read_toml
from decider.learn.versions import Versions
from decider.log.open import open_log
from decider.log.protocol import EventLog
from decider.server.command import main as decider
from decider.server.files import ExperimentFiles
from decider.types import ExperimentId
from simulator.verify import verify
from tests.rpc_clients import ServerProcess, keep_changing, refused, until

NESTED = 'id = "deep"\nactions = ' + "[" * 5_000 + "]" * 5_000 + "\n"
OLD = 100.0
"""Seconds since a file that nobody writes any more was written."""


def definition(id_: str = "shop", *, holdout: float = 0.1, more: str = "", actions: str = "abcdef") -> str:
    """Of an experiment, as people write it."""
    listed = "".join(f'[[actions]]\nid = "{action}"\n' for action in actions)
    return f'id = "{id_}"\nholdout = {holdout}\nbaseline_action = "a"\n{more}{listed}'


class Place:
    """A folder of files, a log, and what a server does with both; `start` is a new process."""

    def __init__(self, folder: Path, log: EventLog) -> None:
        self.folder, self.log = folder, log
        self.start_with()

    def start_with(self, *, settle: float = 0.0, strict: bool = False) -> None:
        """A new process; nothing is read yet."""
        self.versions = Versions(self.log)
        self.files = ExperimentFiles([self.folder], self.versions, settle=settle, strict=strict)

    def write(self, name: str, text: str, *, age: float = OLD) -> Path:
        """A file that was written so many seconds ago."""
        path = self.folder / name
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)
        return path

    def restart(self) -> None:
        """A new process that has read the files."""
        self.start_with()
        self.files.apply_all()

    def change(self, id_: str = "shop", **fields: object) -> None:
        """Of the newest version, over the API."""
        newest = self.newest(id_)
        self.versions.apply(replace(newest, **fields), origin=Origin("ann", FROM_API, "why"))  # type: ignore[arg-type]

    def newest(self, id_: str = "shop") -> Experiment:
        """The definition that was applied last."""
        return self.log.version_at(self.versions.newest()[ExperimentId(id_)]).experiment

    def numbers(self) -> dict[str, int]:
        """The newest version's number, by experiment."""
        return {version.experiment.id: version.number for version in self.log.versions()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Nothing is in it yet. At the end its log replays."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    with closing(open_log(tmp_path / "log.db")) as log:
        yield Place(folder, log)
        assert verify(log).first is None


# --- files that come and go


def test_a_file_that_is_renamed_and_edited_in_one_go_is_applied(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """As `git pull` does it: the old name must not hold the experiment for ever."""
    old = place.write("old.toml", definition())
    place.restart()
    old.unlink()
    place.write("new.toml", definition(holdout=0.2))
    place.files.apply_changes()
    assert place.newest().holdout == 0.2
    assert place.files.warnings == []
    assert "is gone" not in caplog.text


def test_two_files_may_exchange_their_experiments(place: Place) -> None:
    """A renaming of both in one go is no conflict either."""
    place.write("a.toml", definition("one"))
    place.write("b.toml", definition("two"))
    place.restart()
    place.write("a.toml", definition("two", holdout=0.2))
    place.write("b.toml", definition("one", holdout=0.3))
    place.files.apply_changes()
    assert (place.newest("two").holdout, place.newest("one").holdout) == (0.2, 0.3)
    assert place.files.refused == 0


def test_a_second_file_of_an_experiment_is_tried_again_when_the_first_is_gone(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever copies first and deletes later has done nothing wrong; until then one line says so."""
    first = place.write("a.toml", definition())
    place.restart()
    place.write("b.toml", definition(holdout=0.2))
    for _ in range(3):
        place.files.apply_changes()
    assert caplog.text.count("is defined by") == 1
    assert (place.newest().holdout, place.files.refused) == (0.1, 1)
    first.unlink()
    place.files.apply_changes()
    assert (place.newest().holdout, place.files.refused) == (0.2, 0)


def test_a_file_that_is_gone_is_told_once_and_its_experiment_goes_on(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Frontends depend on an experiment, not on a file."""
    path = place.write("a.toml", definition())
    place.restart()
    path.unlink()
    for _ in range(2):
        place.files.apply_changes()
    assert caplog.text.count("experiment shop goes on as it was: pause or end it to stop it") == 1


@pytest.mark.parametrize(
    "name", [".shop.toml", ".#shop.toml", "shop.toml~", "4913", "shop.toml.swp", ".shop.toml.Xa3k"]
)
def test_what_editors_and_copies_leave_behind_is_no_experiment(place: Place, name: str) -> None:
    """Half an edit beside a file must not be served as if it were one."""
    place.write("shop.toml", definition())
    place.restart()
    if name.startswith(".#"):
        (place.folder / name).symlink_to("ann@host.1234")  # as Emacs does it
    else:
        place.write(name, definition("other"))
    place.files.apply_changes()
    assert place.numbers() == {"shop": 1}
    assert place.files.warnings == []


def test_the_folders_of_a_config_map_are_exchanged(place: Place) -> None:
    """Kubernetes exchanges one link; that is how every change of a ConfigMap comes."""
    for name, holdout in (("one", 0.1), ("two", 0.2)):
        (place.folder / f"..{name}").mkdir()
        place.write(f"..{name}/shop.toml", definition(holdout=holdout))
    (place.folder / "..data").symlink_to("..one")
    (place.folder / "shop.toml").symlink_to("..data/shop.toml")
    place.restart()
    (place.folder / "..data_tmp").symlink_to("..two")
    (place.folder / "..data_tmp").rename(place.folder / "..data")
    place.files.apply_changes()
    assert place.newest().holdout == 0.2


# --- files that are still written


def test_a_file_is_applied_once_it_stays_as_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there after the first half of a copy may be valid, with half of the actions."""
    place.write("shop.toml", definition())
    place.start_with(settle=3.0)
    place.files.apply_all()
    whole = definition(holdout=0.2)
    clock = time.time(), time.monotonic()
    for seconds, text in enumerate([whole[:90], whole[:90], whole[:90], whole, whole, whole]):
        monkeypatch.setattr("time.time", lambda seconds=seconds: clock[0] + seconds)
        monkeypatch.setattr("time.monotonic", lambda seconds=seconds: clock[1] + seconds)
        if (place.folder / "shop.toml").read_text() != text:
            place.write("shop.toml", text, age=0)
        place.files.apply_changes()
        assert place.numbers() == {"shop": 1}
    monkeypatch.setattr("time.monotonic", lambda: clock[1] + 6)
    place.files.apply_changes()
    assert [version.experiment.holdout for version in place.log.versions()] == [0.1, 0.2]
    assert len(place.newest().actions) == 6


def test_at_a_start_a_half_written_file_does_not_replace_what_the_log_knows(place: Place) -> None:
    """A server that crashes while its files are copied must not make half a file a version."""
    place.write("shop.toml", definition())
    place.restart()
    place.write("shop.toml", definition(actions="abc"), age=0)
    place.start_with(settle=60.0)
    place.files.apply_all()
    place.files.apply_changes()
    assert place.numbers() == {"shop": 1}
    place.write("shop.toml", definition(holdout=0.2))  # seconds later, and old enough at the second look
    place.files.apply_changes()
    place.files.apply_changes()
    assert (place.newest().holdout, len(place.newest().actions)) == (0.2, 6)


def test_somebody_can_say_that_the_files_are_whole(place: Place) -> None:
    """SIGHUP: whoever sends it does not want to wait."""
    place.write("shop.toml", definition())
    place.start_with(settle=60.0)
    place.files.apply_all()
    place.write("shop.toml", definition(holdout=0.2), age=0)
    place.files.apply_changes()
    assert place.newest().holdout == 0.1
    place.files.apply_changes(at_once=True)
    assert place.newest().holdout == 0.2


# --- files that are wrong


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3_000_000_000)


WRONG: dict[str, Callable[[Path], object]] = {
    "nested": lambda path: path.write_text(NESTED),
    "nested tables": lambda path: path.write_text(f'id = "deep"\n[{".".join("a" * 20_000)}]\n'),
    "no TOML": lambda path: path.write_text("id = \n"),
    "no UTF-8": lambda path: path.write_bytes(b'id = "\xff"\n'),
    "empty": lambda path: path.write_text(""),
    "a folder": lambda path: path.mkdir(),
    "a pipe": _pipe,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path),
    "huge": _huge,
    "nothing in it": lambda path: path.write_text('id = "deep"\nholdout = 0.1\nbaseline_action = "a"\n'),
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_one_file_stops_neither_a_start_nor_the_others(
    place: Place, make: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever stands in the folder: what is sorted behind it is applied, and it is told once and in one line."""
    make(place.folder / "a.toml")
    place.write("b.toml", definition())
    place.restart()
    place.write("b.toml", definition(holdout=0.2))
    place.files.apply_changes()
    assert place.newest().holdout == 0.2
    assert place.files.refused == 1
    (warning,) = place.files.warnings
    assert warning.startswith(f"degraded: {place.folder / 'a.toml'}")
    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert told.exc_info is None
    assert "\n" not in told.getMessage()
    place.start_with(strict=True)
    with pytest.raises(InvalidExperiment, match=re.escape("a.toml")):
        place.files.apply_all()


def test_a_wrong_file_whose_name_is_no_utf_8_can_be_told(place: Place) -> None:
    """/readyz answered 500, so an orchestrator took the server out of service."""
    place.write(os.fsdecode(b"a\xff.toml"), "id = \n")
    place.write("b.toml", definition())
    place.restart()
    (warning,) = place.files.warnings
    assert b"a\\udcff.toml" in warning.encode()


def test_a_storm_of_signals_ends_no_server(tmp_path: Path) -> None:
    """Each interrupted the handler of the one before, until there was no stack left: the server ended, undrained."""
    server = ServerProcess(tmp_path / "log.db")
    for _ in range(1_000_000):
        os.kill(server.process.pid, signal.SIGHUP)
    assert server.terminate() == 0
    assert "Traceback" not in server.output


def test_an_exception_nobody_thought_of_is_one_file_s_problem(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next of its kind."""

    def fails(text: str, name: str) -> object:
        if name.endswith("a.toml"):
            raise SystemError("of a library")
        return parse_toml(text, name)

    monkeypatch.setattr("decider.server.files.parse_toml", fails)
    place.write("a.toml", definition("one"))
    place.write("b.toml", definition("two"))
    place.restart()
    place.files.apply_changes()
    assert place.numbers() == {"two": 1}
    assert place.files.refused == 1


def test_wrong_files_alone_end_a_start_with_every_problem(place: Place) -> None:
    """Nothing could serve: whoever starts a first server sees at once what is wrong, in all of the files."""
    for name in "ab":
        place.write(f"{name}.toml", definition(name, holdout=7))
    with pytest.raises(InvalidExperiment) as caught:
        place.files.apply_all()
    assert [violation.field for violation in caught.value.violations] == [
        f"{place.folder / name}.toml: holdout" for name in "ab"
    ]


# --- who owns an experiment


def test_an_old_file_does_not_undo_what_came_over_the_api(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody turned the holdout up at night; a restart in the morning must not turn it down again, silently."""
    path = place.write("shop.toml", definition())
    place.restart()
    place.change(holdout=0.4)
    for _ in range(2):
        caplog.clear()
        place.restart()
        place.files.apply_changes()
        assert (place.newest().holdout, place.numbers()) == (0.4, {"shop": 2})
        (said,) = place.files.warnings
        assert said.startswith(f"{path}: experiment shop stays as version 2 made it (by ann, api: why)")
        assert f"`decider apply {path}`" in said
        assert caplog.text.count(said) == 1
    path.unlink()
    place.write("renamed.toml", definition())  # nor under another name
    place.restart()
    assert place.newest().holdout == 0.4


def test_it_is_said_while_the_server_runs_and_no_longer_when_it_is_over(place: Place) -> None:
    """Whoever changes an experiment over the API learns at once that a file says otherwise, not at the next start."""
    path = place.write("shop.toml", definition())
    place.restart()
    place.change(holdout=0.4)
    place.files.apply_changes()
    assert "stays as version 2" in place.files.warnings[0]
    place.versions.apply(from_message(read_toml(path)), keep_state=True, origin=Origin("ann", FROM_API))
    place.files.apply_changes()
    assert place.files.warnings == []
    place.change(holdout=0.4)
    place.write("shop.toml", definition(holdout=0.4))  # as `decider get shop` would write it
    place.files.apply_changes()
    assert (place.files.warnings, place.numbers()) == ([], {"shop": 4})


@pytest.mark.parametrize("running", [True, False])
def test_a_file_that_says_something_new_is_applied(place: Place, *, running: bool) -> None:
    """Edited while the server ran or while it was down: the newest word counts, whoever said it."""
    place.write("shop.toml", definition())
    place.restart()
    place.change(holdout=0.4)
    place.write("shop.toml", definition(holdout=0.3))
    if running:
        place.files.apply_changes()
    else:
        place.restart()
    assert (place.newest().holdout, place.files.warnings) == (0.3, [])
    place.write("shop.toml", definition())  # back to the beginning; the newest version is a file's
    place.restart()
    assert place.newest().holdout == 0.1


def test_a_comment_in_a_file_says_nothing_new(place: Place) -> None:
    """What a file defines counts, not its bytes: a new licence line must not undo a colleague's change."""
    place.write("shop.toml", definition())
    place.restart()
    place.change(holdout=0.4)
    place.write("shop.toml", f"# owned by checkout\n{definition()}")
    place.files.apply_changes()
    assert place.newest().holdout == 0.4
    place.restart()
    assert place.newest().holdout == 0.4


@pytest.mark.parametrize("more", ["", 'state = "active"\n'])
def test_a_pause_over_the_api_outlives_a_restart(place: Place, more: str) -> None:
    """The emergency brake: also where the file says that the experiment is active, since it said so before."""
    place.write("shop.toml", definition(more=more))
    place.restart()
    place.versions.set_paused(ExperimentId("shop"), paused=True, origin=Origin("ann", FROM_API))
    place.restart()
    assert place.newest().paused
    assert len(place.files.warnings) == (1 if more else 0)
    place.write("shop.toml", definition(more='state = "active"\n', holdout=0.2))
    place.files.apply_changes()
    assert not place.newest().paused


def test_a_file_takes_over_an_experiment_that_the_api_made(place: Place) -> None:
    """Whoever adds a file for it says something new; an older state of it is none."""
    place.write("shop.toml", definition())
    made = from_message(read_toml(place.folder / "shop.toml"))
    for holdout in (0.1, 0.2):
        place.versions.apply(replace(made, holdout=holdout), origin=Origin("ann", FROM_API))
    place.restart()
    assert place.newest().holdout == 0.2, "the first version is older"
    place.write("shop.toml", definition(holdout=0.3))
    place.restart()
    assert place.newest().holdout == 0.3


def test_versions_of_releases_that_kept_no_origin_may_be_a_file_s(place: Place) -> None:
    """After an upgrade an edited file is applied as before, and a change over the API is kept from then on."""
    path = place.write("shop.toml", definition(holdout=0.2))
    made = from_message(read_toml(path))
    for holdout in (0.2, 0.1):
        place.versions.apply(replace(made, holdout=holdout))
    place.restart()
    assert place.newest().holdout == 0.2
    place.versions.apply(replace(made, holdout=0.3))
    place.change(holdout=0.4)
    place.write("shop.toml", definition(holdout=0.3))
    place.restart()
    assert place.newest().holdout == 0.4


# --- a server


def test_a_server_says_what_is_wrong_with_its_files(tmp_path: Path) -> None:
    """At a start, while it runs, on /readyz and in a metric; --strict is for those who want it to end."""
    folder, db = tmp_path / "experiments", tmp_path / "log.db"
    folder.mkdir()
    (folder / "shop.toml").write_text(definition())
    options = ("--experiments", str(folder))
    code, output = refused(db, "--strict", *options, "--experiments", str(_bad(tmp_path)))
    assert (code, output.startswith(f"Error: {tmp_path / 'bad.toml'}: ")) == (1, True)
    server = ServerProcess(db, *options, "--experiments", str(tmp_path / "bad.toml"))
    try:
        with closing(server.client()) as client:
            assert client.decide("shop").action.id
            status, text = client.fetch("/readyz")
            assert (status, text.splitlines()[0]) == (200, "ok")
            assert f"degraded: {tmp_path / 'bad.toml'}: " in text
            assert "decider_experiment_files_refused 1.0" in client.fetch("/metrics")[1]
            _bad(tmp_path, mended=True)
            (folder / "shop.toml").write_text(definition(holdout=0.2))
            os.kill(server.process.pid, signal.SIGHUP)
            files = folder / "shop.toml", tmp_path / "bad.toml"
            until(
                lambda: client.fetch("/readyz")[1] == "ok\n",
                what="both are applied",
                between=partial(keep_changing, *files),
            )
            until(lambda: client.get("shop").experiment.holdout == 0.2, what="it serves")
            assert "decider_experiment_files_refused 0.0" in client.fetch("/metrics")[1]
        assert server.terminate() == 0
        assert "Traceback" not in server.output
    finally:
        server.kill()


def _bad(folder: Path, *, mended: bool = False) -> Path:
    path = folder / "bad.toml"
    path.write_text(definition("bad", holdout=0.1 if mended else 7))
    return path


def test_a_server_without_an_experiment_says_how_to_get_one(tmp_path: Path) -> None:
    """Every call gets EXPERIMENT_NOT_FOUND: that must not look like health."""
    server, path = ServerProcess(tmp_path / "log.db"), tmp_path / "shop.toml"
    path.write_text(definition())
    try:
        with closing(server.client()) as client:
            assert "there is no experiment" in server.output
            assert "`decider apply FILE`" in client.fetch("/readyz")[1]
            assert client.fetch("/readyz")[0] == 200
            done = CliRunner().invoke(decider, ["apply", str(path), "--target", server.target])
            assert done.exit_code == 0, done.output
            assert client.fetch("/readyz")[1] == "ok\n"
    finally:
        server.kill()


def test_a_named_file_that_is_gone_does_not_stop_a_start_of_what_the_log_knows(tmp_path: Path) -> None:
    """Somebody renamed it in the night of a restart. A slip in a first start still ends it."""
    file, missing, db = tmp_path / "a.toml", tmp_path / "gone.toml", tmp_path / "log.db"
    assert refused(db, "--experiments", str(missing))[0] == 1
    file.write_text('id = "a"\nactions = [{ id = "x" }, { id = "y" }]\n')
    server = ServerProcess(db, "--experiments", str(file))
    assert server.terminate() == 0
    file.unlink()
    code, output = refused(db, "--strict", "--experiments", str(file))
    assert code == 1
    assert "No such file" in output
    server = ServerProcess(db, "--experiments", str(file))
    client = server.client()
    try:
        assert client.get("a").version == 1
        status, text = client.fetch("/readyz")
        assert (status, f"degraded: {file}: " in text) == (200, True)
        assert "decider_experiment_files_refused 1.0" in client.fetch("/metrics")[1]
    finally:
        client.close()
        assert server.terminate() == 0
