"""The study of kills, in short: each process of several workers dies under load, where a seed says, and nothing is
lost; and what the study counts as wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

from simulator.studies.kills.__main__ import Killed, Reloaded, Result, draw_kinds, rows, study, summary
from simulator.studies.kills.crew import KINDS
from simulator.studies.ledger import Counts
from simulator.studies.same_models import Compared
from simulator.studies.soak.check import Replay

SEED = 20_261_129
SOUND = Result(
    kills=[Killed("the leader", 1, hit=True, back=0.3, gap=0.1, learned=0.5)],
    reloads=[Reloaded(calls=9, refused=0, seconds=2.0)],
    decisions=Counts(acknowledged=9, in_log=9, lost=0, doubled=0, other=0),
    rewards=Counts(acknowledged=2, in_log=2, lost=0, doubled=0, other=0),
    replays=[Replay("the log", 0, 9, 9, "")],
    models=Compared(stored=3, equal=3, learned=9, different=5),
    damages=[],
    refused="",
    starts=0,
    tracebacks=0,
    exit_code=0,
)


def test_fifteen_kills_lose_nothing_and_models_are_those_of_one_that_never_stopped(tmp_path: Path) -> None:
    """Workers, the leader and the parent, each at a moment of its own and in the middle of a commit, a publication or
    a file: what was acknowledged is in the log once, it replays, and its models are what the log says."""
    result = study(tmp_path, kills=15, reloads=0, seed=SEED)
    print("\n".join([*rows(result.kills), *summary(result)]))
    assert not result.wrong
    assert len(result.kills) == 15
    assert sum(one.hit for one in result.kills) >= 13, "points that nobody comes to test nothing"
    assert result.decisions.acknowledged > 1000


def test_kinds_come_as_often_as_each_other() -> None:
    """With a seed, in the same order."""
    drawn = draw_kinds(3 * len(KINDS) + 1, Random(1))
    assert {kind.name for kind in drawn} == {kind.name for kind in KINDS}
    assert sorted(drawn.count(kind) for kind in KINDS) == [3] * (len(KINDS) - 1) + [4]
    assert drawn == draw_kinds(3 * len(KINDS) + 1, Random(1))


def test_whatever_is_wrong_is_said() -> None:
    """A study that ends well although something was lost is worse than none."""
    assert not SOUND.wrong
    lost = replace(SOUND.decisions, lost=1)
    for wrong in (
        replace(SOUND, decisions=lost),
        replace(SOUND, rewards=replace(SOUND.rewards, doubled=1)),
        replace(SOUND, replays=[Replay("the log", 1, 8, 9, "one differs")]),
        replace(SOUND, models=Compared(stored=3, equal=2, learned=9, different=5)),
        replace(SOUND, models=Compared(stored=0, equal=0, learned=0, different=0)),
        replace(SOUND, damages=["a chain is broken"]),
        replace(SOUND, reloads=[Reloaded(calls=9, refused=1, seconds=2.0)]),
        replace(SOUND, tracebacks=1),
        replace(SOUND, exit_code=1),
    ):
        assert len(wrong.wrong) == 1
