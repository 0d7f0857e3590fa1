"""How much is under way is part of a model: a function of the log up to its position, however it was learned."""

from __future__ import annotations

import io
import shutil
from contextlib import closing
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import pytest

from decider.experiment.definition import Experiment, Learning, RewardDefinition
from decider.learn.trainer import Trainer
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader
from decider.log.protocol import EventLog, LogReader, Mark, ModelName, NewActivation, NewLeaveOut
from decider.policy.make import make_policy
from decider.policy.protocol import Policy
from decider.policy.thompson.pmf import UNDER_WAY
from decider.types import START, Context, Position, Time
from tests.conftest import SECOND, Clock, plain_choices, sample_experiment, spec
from tests.test_trim import archived_rows, assert_whole, cut
from tests.test_verify import HOME, Drive

POLICY = sample_experiment().policy
ACTIONS = plain_choices(3)


def mark_of(log: LogReader, position: Position) -> Mark:
    """Of a position."""
    return Mark(position, log.time_at(position))


def counts_in(saved: bytes) -> tuple[int, int]:
    """Decided, sealed."""
    with np.load(io.BytesIO(saved)) as arrays:
        decided, sealed = arrays[UNDER_WAY].tolist()
    return decided, sealed


def saved_at(log: LogReader, position: Position) -> bytes:
    """A model, learned by a trainer of its own."""
    trainer = Trainer(log, HOME, POLICY)
    trainer.replay_up_to(mark_of(log, position))
    return trainer.save().data


def counted_at(log: LogReader, position: Position) -> tuple[int, int]:
    """Decided, sealed: read from the log."""
    mine = [version for version in log.versions() if version.experiment.id == HOME]
    learning = {version.position for version in mine if version.experiment.learns}
    decided = sum(one.position <= position for version in learning for one in log.decisions(version))
    sealed = log.sealed_decisions(HOME, after=Time(0), until=log.time_at(position))
    return decided, sum(one.decision.version in learning for one in sealed)


def happen(drive: Drive, random: Random, rounds: int) -> None:
    """Visits, and whatever makes a learner begin again, go back, or go on with another version."""
    log = drive.log
    for number in range(rounds):
        drive.visits(10)
        match random.randrange(7):
            case 0:
                drive.restart()
            case 1:
                log.append([_leave_out(log.head().time, random)])
            case 2:
                drive.apply(sample_experiment(holdout=0.3, reward=RewardDefinition(window=(2 + number) * SECOND)))
            case 3:
                drive.clock.advance(15)
                drive.step()
            case 4:
                drive.apply(sample_experiment(holdout=0.3, learning=Learning.LOG_ONLY))
            case 5:
                drive.apply(sample_experiment(holdout=0.3, learning=Learning.FROZEN))
            case _:
                drive.apply(sample_experiment(holdout=0.3, needs_activation=True))


def _leave_out(now: Time, random: Random) -> NewLeaveOut:
    until = Time(now - random.randrange(30) * SECOND)
    return NewLeaveOut(HOME, Time(until - 5 * SECOND), until)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_model_is_a_function_of_the_log_up_to_its_position(clock: Clock, seed: int) -> None:
    """However many steps, restarts, stretches that are left out and versions there were, and whoever learned it."""
    drive, random = Drive(MemoryLog(clock=clock), clock, seed=seed), Random(seed)
    log = drive.log
    drive.apply(sample_experiment(holdout=0.3))
    happen(drive, random, 8)
    published = log.models.published_positions(HOME, POLICY.signature)
    expected = {position: saved_at(log, position) for position in published}
    for position in published:
        stored = log.models.load(ModelName(HOME, position, POLICY.signature))
        assert stored is None or stored.data == expected[position]
        assert counts_in(expected[position]) == counted_at(log, position)
    assert any(0 < sealed < decided for decided, sealed in map(counts_in, expected.values()))
    walking = Trainer(log, HOME, POLICY)
    for position in published:
        for between in sorted(random.sample(range(walking.position, position), 2) if walking.position else []):
            walking.advance(mark_of(log, Position(between)), seconds=60)
        walking.replay_up_to(mark_of(log, position))
        assert walking.save().data == expected[position]


def test_a_replay_names_a_model_by_any_place(clock: Clock) -> None:
    """Also where nothing was sealed since the place before: there more is under way, whoever asked for what before. A
    learner keeps the name, and what it had counted."""
    drive = Drive(MemoryLog(clock=clock), clock)
    drive.apply(sample_experiment())
    drive.visits(20)
    clock.advance(20)
    drive.step()
    log, before = drive.log, drive.log.head().mark
    walking, learner = (Trainer(log, HOME, POLICY) for _ in range(2))
    for trainer in (walking, learner):
        trainer.replay_up_to(before)
    for _ in range(5):
        drive.decide(drive.request()._replace(eligible=(), excluded=()), HOME)
    end = log.head().mark
    walking.replay_up_to(end)
    learner.learn_up_to(end)
    assert walking.save().data == saved_at(log, end.position) != saved_at(log, before.position)
    assert learner.save().data == saved_at(log, before.position)
    assert (walking.model().position, learner.model().position) == (end.position, before.position)


LEARNS, LOGS, FREEZES = (
    sample_experiment(holdout=0.3, learning=Learning(one)) for one in ("online", "log_only", "frozen")
)


@pytest.mark.parametrize(
    "versions",
    [[LEARNS], [sample_experiment(holdout=0.3, needs_activation=True)], [LOGS, LEARNS, FREEZES, LOGS, LEARNS]],
    ids=["learns", "needs activation", "learns at times"],
)
def test_what_is_archived_counts_as_before(tmp_path: Path, clock: Clock, versions: list[Experiment]) -> None:
    """Of decisions that were taken out nothing is left but what is needed: of versions that learn also those that
    nobody learns from, since they were under way. The same log, cut and not, gives the same models."""
    file, copy = tmp_path / "log.db", tmp_path / "copy.db"
    with closing(open_log(file, clock=clock)) as log:
        drive = Drive(log, clock)
        for version in versions:
            drive.apply(version)
            drive.visits(120 // len(versions))
        for name in ("", "-wal"):
            shutil.copy(f"{file}{name}", f"{copy}{name}")
        assert cut(file, tmp_path / "archive", age=20) is not None
        with closing(open_reader(copy)) as untouched:
            assert_same_models(log, untouched)
        drive.visits(60)
        assert cut(file, tmp_path / "archive", age=20) is not None
        drive.visits(20)
        for _ in range(5):
            mark, _ = drive.decide(drive.request()._replace(eligible=(), excluded=()), HOME)
            log.append([NewActivation(mark.position)])
        clock.advance(20)
        drive.step()
        assert_whole(log, log.count_decisions())
        with closing(open_reader(file, archive=[tmp_path / "archive"])) as whole:
            assert_same_models(log, whole)
            assert_whole(whole, whole.count_decisions())


def assert_same_models(log: EventLog, whole: LogReader) -> None:
    """From the base on; and from nothing, behind the cut. Counts before the cut, across it and behind are the same."""
    base = log.models.base(HOME, POLICY.signature)
    assert base is not None
    published = log.models.published_positions(HOME, POLICY.signature)
    positions = [position for position in published if position > base.name.position]
    assert START < base.name.position < log.cut().position < positions[-1]
    places = [Mark(START, Time(0)), mark_of(log, base.name.position), log.cut(), mark_of(log, positions[-1])]
    for after, until in combinations(places, 2):
        counted = log.count_decided(HOME, after=after, until=until)
        assert counted == whole.count_decided(HOME, after=after, until=until)
        assert counted > 0 or START < after.position < log.cut().position
    on = Trainer(log, HOME, POLICY)
    for position in positions:
        on.replay_up_to(mark_of(log, position))
        assert on.save().data == saved_at(whole, position)
        assert counts_in(on.save().data) == counted_at(whole, position)
    on.begin_with_nothing()
    on.replay_up_to(log.head().mark)
    assert on.save().data == saved_at(whole, log.head().position)


@pytest.mark.parametrize("versions", [[LOGS], [LEARNS, FREEZES, LOGS]], ids=["never learned", "learned before"])
def test_nothing_is_kept_of_versions_that_do_not_learn(
    tmp_path: Path, clock: Clock, versions: list[Experiment]
) -> None:
    """An archive run makes a log smaller, also where the model does not move any more, and so no base passes by. If the
    experiment learns again, it counts as in the whole log, before the next run and after it."""
    file = tmp_path / "log.db"
    with closing(open_log(file, clock=clock)) as log:
        drive = Drive(log, clock)
        for version in versions:
            drive.apply(version)
            drive.visits(40)
            clock.advance(20)
            drive.step()
        assert cut(file, tmp_path / "archive", age=0) is not None
        assert (archived_rows(file), log.count_decisions()) == (0, 0)
        for age in (0, 10):
            drive.apply(LEARNS)
            drive.visits(40)
            with closing(open_reader(file, archive=[tmp_path / "archive"])) as whole:
                positions = log.models.published_positions(HOME, POLICY.signature)
                assert saved_at(log, positions[-1]) == saved_at(whole, positions[-1])
                assert counts_in(saved_at(log, positions[-1])) == counted_at(whole, positions[-1])
            drive.apply(versions[-1])
            drive.visits(10)
            assert cut(file, tmp_path / "archive", age=age) is not None


def test_an_archive_is_counted_from_any_place(tmp_path: Path, clock: Clock) -> None:
    """With another policy the base goes. Who comes back goes on from a stored model, and reads the archive from there:
    what was decided, too."""
    file = tmp_path / "log.db"
    with closing(open_log(file, clock=clock)) as log:
        drive = Drive(log, clock)
        for version in (LEARNS, LOGS, sample_experiment(policy=spec("uniform"))):
            drive.apply(version)
            drive.visits(20)
        clock.advance(20)
        drive.step()
        assert cut(file, tmp_path / "archive", age=5) is not None
        assert log.models.base(HOME, POLICY.signature) is None
        drive.apply(LEARNS)
        drive.visits(20)
        with closing(open_reader(file, archive=[tmp_path / "archive"])) as whole:
            places = [mark_of(whole, Position(place)) for place in range(0, log.head().position, 11)]
            for after, until in combinations(places, 2):
                counted = log.count_decided(HOME, after=after, until=until)
                assert counted == whole.count_decided(HOME, after=after, until=until)


def taught(code: int) -> Policy:
    """It has learned that the first action is the better one, but is not sure of it."""
    policy = make_policy(POLICY, code=code)
    for number in range(30):
        drawn = number % 3
        reward = 0.5 - 0.02 * drawn + (0.3 if number // 3 % 2 else -0.3)
        policy.learn(Context(), ACTIONS, drawn=drawn, propensity=1 / 3, reward=reward)
    return policy


def best(policy: Policy) -> float:
    """The largest share."""
    return max(policy.pmf(Context(), ACTIONS))


def test_draws_are_narrower_while_much_is_under_way() -> None:
    """Nobody need explore again what earlier decisions will tell."""
    policy = taught(3)
    plain = list(policy.pmf(Context(), ACTIONS))
    policy.count_under_way(decided=60, sealed=60)
    assert policy.pmf(Context(), ACTIONS) == plain, "nothing is under way"
    shares = []
    for _ in range(3):
        policy.count_under_way(decided=100, sealed=0)
        shares.append(best(policy))
    assert max(plain) < shares[0] < shares[1] < shares[2]
    policy.count_under_way(decided=0, sealed=300)
    assert policy.pmf(Context(), ACTIONS) == plain


def test_before_the_first_reward_is_final_draws_are_as_wide_as_ever() -> None:
    """Nothing is known then: without width the first actions would be taken over and over."""
    policy = make_policy(POLICY)
    plain = policy.pmf(Context(), ACTIONS)
    policy.count_under_way(decided=50, sealed=0)
    assert policy.pmf(Context(), ACTIONS) == plain


def test_what_is_under_way_is_saved_and_copied() -> None:
    """A model that is loaded, or served, answers as the one that learned; a snapshot does not change."""
    policy = taught(3)
    policy.count_under_way(decided=100, sealed=60)
    snapshot, loaded = policy.snapshot(), make_policy(POLICY, policy.save())
    answer = policy.pmf(Context(), ACTIONS)
    assert snapshot.pmf(Context(), ACTIONS) == loaded.pmf(Context(), ACTIONS) == answer
    for one in (policy, loaded):
        one.count_under_way(decided=500, sealed=0)
    assert snapshot.pmf(Context(), ACTIONS) == answer != policy.pmf(Context(), ACTIONS)
    assert loaded.pmf(Context(), ACTIONS) == policy.pmf(Context(), ACTIONS)
    with pytest.raises(TypeError):
        snapshot.count_under_way(decided=1, sealed=0)


@pytest.mark.parametrize("code", [1, 2])
def test_earlier_learning_code_does_not_know_it(code: int) -> None:
    """Old logs replay bit for bit."""
    policy = taught(code)
    before = policy.save(), policy.pmf(Context(), ACTIONS)
    policy.count_under_way(decided=1_000, sealed=60)
    assert (policy.save(), policy.pmf(Context(), ACTIONS)) == before


@pytest.mark.parametrize("algorithm", ["squarecb", "uniform"])
def test_to_other_algorithms_it_makes_no_difference(algorithm: str) -> None:
    """Every policy is told."""
    policy = make_policy(spec(algorithm))
    before = policy.pmf(Context(), ACTIONS)
    policy.count_under_way(decided=1_000, sealed=60)
    assert policy.pmf(Context(), ACTIONS) == before
