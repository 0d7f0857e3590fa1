"""What a log has kept of its archived entries is proved with the archive: `simulator verify LOG --archive DIR`."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from decider.learn.trainer import Trainer
from decider.log.log_totals import LogTotals
from decider.log.open import open_log, open_reader
from decider.log.sqlite.archived import KEPT, digest_of_cut, digest_of_entries, digest_of_models
from decider.log.sqlite.checkpoints import _checksum
from decider.log.totals import CONTENT_FORMAT as FORMAT
from decider.types import ExperimentId, Position
from simulator.commands.group import main
from tests.conftest import Clock, sample_experiment, spec
from tests.rpc_clients import rows
from tests.test_log_damage import damage
from tests.test_trim import cut
from tests.test_verify import HOME, OTHER, Drive


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed log that was cut twice, with a model of each form at the cut, and stored totals on both sides."""
    folder = tmp_path_factory.mktemp("shop")
    file, clock = folder / "log.db", Clock()
    with closing(open_log(file, clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment())
        drive.apply(sample_experiment(id=OTHER, policy=spec("softmax")))
        for _ in range(2):
            for _ in range(3):
                drive.visits(15)
                drive.visits(15, OTHER)
            store_totals(drive)
            assert cut(file, folder / "archive", age=40, remember=1e6) is not None
        drive.visits(15)
        drive.visits(15, OTHER)
        store_totals(drive)
    assert len(rows(file, "select 1 from bases where position > 0")) == 2
    return file


def store_totals(drive: Drive) -> None:
    """As a server does now and then."""
    counted = LogTotals(drive.log)
    counted.catch_up()
    drive.log.store_totals(counted.checkpoint())


@pytest.fixture
def file(shop: Path, tmp_path: Path) -> Path:
    """A copy of the log, to be damaged."""
    return Path(shutil.copy(shop, tmp_path / "log.db"))


def proved(shop: Path, log: Path) -> Result:
    """The command with the archive."""
    return CliRunner().invoke(main, ["verify", str(log), "--archive", str(shop.parent / "archive")])


def test_what_is_right_is_proved(shop: Path) -> None:
    """The models at the cut are learned again, and each is named."""
    result = proved(shop, shop)
    assert result.exit_code == 0, result.output
    bases = rows(shop, "select experiment, position from bases where position > 0 order by experiment")
    for experiment, position in bases:
        assert f"base of {experiment} at position {position}: proved\n" in result.output


FIRST = "where position = (select min(position) from archived_decisions)"
DAMAGES = {
    "base's checksum": "update bases set checksum = '00' where position > 0",
    "base": "update base_pieces set data = cast(data || x'41' as blob)",
    "archived reward": f"update archived_decisions set rewards = '[5]' {FIRST}",  # noqa: S608 - above
    "archived decision": f"delete from archived_decisions {FIRST}",  # noqa: S608 - above
    "count": "update archived_experiments set decisions = decisions + 1",
    "definition": "update experiments set definition = replace(definition, 'sale', 'sole')",
    "kept model": "delete from kept_models where position = (select max(position) from kept_models)",
    "totals": "update totals_checkpoints set content = replace(content, '1', '2')",
    "time": "update archived_times set time = time + 1",
}


@pytest.mark.parametrize("sql", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_of_what_is_kept_is_found_beside_the_archive(shop: Path, file: Path, sql: str) -> None:
    """The archive has another copy of much of it: that must not hide what the live log serves and learns from."""
    change(file, sql)
    assert CliRunner().invoke(main, ["verify", str(file)]).exit_code != 0
    result = proved(shop, file)
    assert "damaged: " in result.output
    assert result.exit_code == 2


def change(file: Path, sql: str, *values: object) -> None:
    """Change a log behind its back."""
    with closing(sqlite3.connect(file)) as db, db:
        assert db.execute(sql, values).rowcount > 0


def seal(file: Path) -> None:
    """The digest of what is kept, computed anew: so the log alone cannot say that it was changed."""
    with closing(sqlite3.connect(file)) as db, db:
        (last,) = db.execute("select position from cut").fetchone()
        entries, models = digest_of_entries(db, KEPT, last), digest_of_models(db, last)
        db.execute("update cut set digest = ?", (digest_of_cut(db, entries=entries, models=models),))
    assert damage(file) == []


@pytest.mark.parametrize(("experiment", "algorithm"), [(HOME, "thompson"), (OTHER, "softmax")])
def test_a_model_that_the_archive_does_not_give_is_found(
    shop: Path, file: Path, experiment: ExperimentId, algorithm: str
) -> None:
    """A base with a good checksum can be wrong, and everything behind the cut is learned from it."""
    with closing(open_reader(file)) as log:
        trainer = Trainer(log, experiment, spec(algorithm))
        trainer.learn_up_to(log.head().mark)
        other = trainer.save().data
    change(file, "update bases set checksum = ? where experiment = ?", sha256(other).hexdigest(), experiment)
    change(file, "update base_pieces set data = ? where experiment = ?", other, experiment)
    seal(file)
    result = proved(shop, file)
    assert f"base of {experiment} at position" in result.output
    assert "is not the model that is learned from the archive" in result.output
    assert result.exit_code == 2


def test_totals_that_the_archive_does_not_give_are_found(shop: Path, file: Path) -> None:
    """Where entries are gone, nothing in the log says what the totals of them were."""
    for position, time, chain, kept, content in rows(
        file, "select position, time, chain, kept, content from totals_checkpoints"
    ):
        totals = json.loads(content)
        totals["decisions"][0][1] += 1
        wrong = json.dumps(totals)
        values = wrong, _checksum(position, time, chain, FORMAT, kept, wrong), position
        change(file, "update totals_checkpoints set content = ?, checksum = ? where position = ?", *values)
    assert damage(file) == []
    result = proved(shop, file)
    assert "the totals stored there are not those of the log and its archive" in result.output
    assert result.exit_code == 2


# --- a log alone


def learned_again(file: Path) -> Path:
    """The log, after a change of policy that learned from the archive."""
    clock = Clock()
    with closing(open_reader(file)) as log:
        clock.now = log.head().time
    with closing(open_log(file, clock=clock)) as log:
        drive = Drive(log, clock, seed=2)
        drive.restart()
        drive.count = 10_000
        drive.apply(sample_experiment(policy=spec("squarecb")))
        drive.step()
        drive.visits(20)
    return file


def hide_part(file: Path, folder: Path) -> str:
    """Move the first part away; its name."""
    ((path,),) = rows(file, "select path from archives order by first limit 1")
    shutil.move(path, folder / Path(path).name)
    return Path(path).name


@pytest.fixture
def own(shop: Path, tmp_path: Path) -> Path:
    """A log with an archive of its own."""
    archive, file = tmp_path / "own", tmp_path / "own.db"
    shutil.copytree(shop.parent / "archive", archive)
    shutil.copy(shop, file)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("update archives set path = replace(path, ?, ?)", (str(shop.parent / "archive"), str(archive)))
    seal(file)
    return file


def test_a_part_that_is_needed_and_missing_is_named_before_anything_begins(own: Path, tmp_path: Path) -> None:
    """Decisions that cannot be recomputed are not decisions that differ."""
    learned_again(own)
    assert CliRunner().invoke(main, ["verify", str(own)]).exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    name = hide_part(own, tmp_path / "elsewhere")
    result = CliRunner().invoke(main, ["verify", str(own)])
    assert result.exit_code == 2
    assert name in result.output
    assert "--archive DIR" in result.output
    assert "decisions equal" not in result.output
    assert "recomputed" not in result.output


@pytest.mark.parametrize(
    "sql", ["update base_pieces set data = cast(data || x'41' as blob)", "delete from base_pieces"]
)
def test_a_damaged_model_at_the_cut_is_told_before_anything_begins(file: Path, sql: str) -> None:
    """One sentence, instead of a difference for each decision behind it."""
    change(file, sql)
    result = CliRunner().invoke(main, ["verify", str(file)])
    assert result.exit_code == 2
    assert "from which learning goes on" in result.output
    assert "decisions equal" not in result.output


def test_the_smallest_model_of_each_build_is_named(shop: Path) -> None:
    """It says where learning has to begin."""
    with closing(open_reader(shop)) as log:
        named = {(one.version, one.build): one.model for one in log.named_models(Position(0))}
        for version in log.versions():
            models = [one.decision.model for one in log.decisions(version.position)]
            assert min(models) == min(model for (position, _), model in named.items() if position == version.position)
