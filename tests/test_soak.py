"""The soak: what it counts as lost or twice, and that a short one finds a sound server sound."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
from click.testing import CliRunner

from decider.experiment.schema import from_message
from decider.learn.versions import Versions
from decider.log.open import open_log
from decider.log.protocol import Mark, NewReward
from decider.types import Decision, DecisionId
from simulator.studies.prepared import decisions, experiment, storefront_visitor
from simulator.studies.soak.__main__ import main
from simulator.studies.soak.check import Counts, count_decisions, count_rewards
from simulator.studies.soak.events import Event
from simulator.studies.soak.plot import drawing
from simulator.studies.soak.samples import Sample
from simulator.studies.soak.traffic import DECIDED, REWARDED, name_of

BOTH = DECIDED | REWARDED


def write_log(db: Path, numbers: Sequence[int]) -> list[Mark]:
    """A log with these decisions, each with a reward."""
    with closing(open_log(db)) as log:
        version = Versions(log).apply(from_message(experiment(actions=3, window=5))).version
        made = decisions(version, storefront_visitor, prefix="")
        named: list[Decision] = [next(made)._replace(decision_id=DecisionId(name_of(number))) for number in numbers]
        marks = [mark for mark in log.append(named) if mark]
        log.append([NewReward(mark.position, "click", 1.0) for mark in marks])
    return marks


def write_archive(folder: Path, placed: Sequence[tuple[int, int]], last: int) -> None:
    """As much of a part as is counted: up to the position `last`, with these (position, number)."""
    part = folder / f"soak-1-{last}"
    part.mkdir(parents=True)
    positions = [position for position, _ in placed]
    names = [name_of(number) for _, number in placed]
    parquet.write_table(pa.table({"position": positions, "decision_id": names}), part / "decisions.parquet")


def test_what_is_in_the_log_is_not_lost(tmp_path: Path) -> None:
    """The ledger's numbers are the ids in the log."""
    write_log(tmp_path / "soak.db", range(5))
    whole = Counts(acknowledged=5, in_log=5, in_archive=0, lost=0, twice=0)
    for count in (count_decisions, count_rewards):
        assert count(tmp_path / "soak.db", tmp_path / "archive", bytes([BOTH] * 5)) == whole


def test_what_is_nowhere_is_lost(tmp_path: Path) -> None:
    """The one figure for which the soak is made."""
    write_log(tmp_path / "soak.db", (0, 1, 3))
    ledger = bytes([BOTH, BOTH, BOTH, DECIDED, 0])
    decided = count_decisions(tmp_path / "soak.db", tmp_path / "archive", ledger)
    rewarded = count_rewards(tmp_path / "soak.db", tmp_path / "archive", ledger)
    assert (decided.acknowledged, decided.lost) == (4, 1)
    assert (rewarded.acknowledged, rewarded.lost) == (3, 1)


def test_the_archive_counts_and_what_the_log_remembers_of_it_does_not(tmp_path: Path) -> None:
    """Below the archive's last position the log keeps decisions for retries only."""
    marks = write_log(tmp_path / "soak.db", range(4))
    write_archive(tmp_path / "archive", [(marks[0].position, 0), (marks[1].position, 1)], last=marks[1].position)
    decided = count_decisions(tmp_path / "soak.db", tmp_path / "archive", bytes([BOTH] * 4))
    assert decided == Counts(acknowledged=4, in_log=2, in_archive=2, lost=0, twice=0)


def test_what_is_in_log_and_archive_is_there_twice(tmp_path: Path) -> None:
    """An archive run that wrote rows and did not cut them off."""
    marks = write_log(tmp_path / "soak.db", range(3))
    write_archive(tmp_path / "archive", [(1, 0), (2, 2)], last=marks[0].position)
    decided = count_decisions(tmp_path / "soak.db", tmp_path / "archive", bytes([BOTH] * 3))
    assert (decided.lost, decided.twice) == (0, 1)


def test_a_part_that_is_not_finished_does_not_count(tmp_path: Path) -> None:
    """It is overwritten by the next run."""
    marks = write_log(tmp_path / "soak.db", (1,))
    write_archive(tmp_path / "archive", [(marks[0].position, 0)], last=marks[0].position)
    (tmp_path / "archive" / f"soak-1-{marks[0].position}").rename(tmp_path / "archive" / ".unfinished-soak-1")
    decided = count_decisions(tmp_path / "soak.db", tmp_path / "archive", bytes([DECIDED, DECIDED]))
    assert (decided.in_archive, decided.lost) == (0, 1)


def test_a_picture_is_drawn_of_gaps_and_of_events_that_never_began() -> None:
    """After an hour it must not be the plot that fails."""
    figures = dict.fromkeys(("at", "rate", "p50", "p99", "longest", "cpu"), 0.0) | dict.fromkeys(
        ("rss", "descriptors", "threads", "log", "wal"), 0
    )
    nothing = dict.fromkeys(("scrape", "model_age", "seal_lag", "learning"))
    samples = [Sample(**figures, **nothing)] * 3  # type: ignore[arg-type]
    assert drawing(samples, [Event("copy", 1.0), Event("pause", 0.0, begun=0.0)], "none").startswith(b"<?xml")


def test_a_short_soak_finds_a_sound_server_sound(tmp_path: Path) -> None:
    """Server, load, events, counting and replay: the way of the long one."""
    result = CliRunner().invoke(main, ["--minutes", "0.1", "--share", "0.2", "--folder", str(tmp_path)])
    assert result.exit_code == 0, result.output
    checks = json.loads((tmp_path / "checks.json").read_text(encoding="utf-8"))
    decided = checks["counts"][0]
    assert decided["acknowledged"] > 0
    assert (decided["lost"], decided["twice"]) == (0, 0)
    assert {replay["what"] for replay in checks["replays"]} >= {"the log", "the copy"}
    assert len(json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))["samples"]) > 10
