"""Leaving out: stretches of sealed decisions from which nobody learns, and models that go back to before them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.errors import ArchiveMissing, FailedPrecondition, LogCorrupt
from decider.experiment.definition import Learning, RewardDefinition
from decider.experiment.origin import UNKNOWN, Origin
from decider.learn.archive import archive
from decider.learn.bad_data import close, in_force, leave_out, roll_back, take_back, wait_until_followed
from decider.learn.leave_out import Stretch, first_change, stretches
from decider.learn.trainer import Trainer, resume_trainer
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import EventLog, LeaveOut, LogReader, Mark, ModelName, NewLeaveOut, NewReward, Tick
from decider.policy.make import make_policy
from decider.policy.spec import PolicySpec
from decider.server.command import main as decider
from decider.types import START, Position, Time
from simulator.commands.group import main as simulator
from simulator.verify import verify
from tests.conftest import SECOND, Clock, sample_experiment, spec
from tests.long_logs import shop, write_past
from tests.rpc_clients import ServerProcess, experiment
from tests.test_learning import HOME, Story, operations, pmfs, told
from tests.test_relearn import simulator_verify
from tests.test_verify import Drive

places = st.sampled_from([*range(8), 12, 20, 40])
"""Half seconds from the story's beginning; few, so that many begin or end together."""

ends = st.none() | st.tuples(places, st.booleans())
"""Of what is left out: a place, and whether it is of when decisions were made; None: it is not over."""

leave_outs = st.lists(st.tuples(places, ends, st.booleans(), st.integers(0, 60)), max_size=4)
"""(after, end, whether it takes back the newest, after how many steps it is said)."""


def told_with(
    steps: Sequence[tuple[str, int, float]], left_out: Sequence[tuple[int, tuple[int, bool] | None, bool, int]]
) -> Story:
    """The story, with what is left out said in its middle."""
    story = told([])
    begin = story.clock()
    at = sorted(left_out, key=lambda one: one[3])
    for index in range(len(steps) + 1):
        for after, end, replace, _ in [one for one in at if min(one[3], len(steps)) == index]:
            until, made = (None, None) if end is None else ends_at(Time(begin + end[0] * SECOND // 2), of_made=end[1])
            say(story, Time(begin + after * SECOND // 2), until, replace, made_until=made)
        if index < len(steps):
            told([steps[index]], story)
    return story


def ends_at(end: Time, *, of_made: bool) -> tuple[Time | None, Time | None]:
    """until and made_until of an entry."""
    return (None, end) if of_made else (end, None)


def say(story: Story, after: Time, until: Time | None, replace: bool, *, made_until: Time | None = None) -> Position:
    """Leave something out; replace: and take back what was left out last."""
    known = story.log.leave_outs(HOME)
    replaces = known[-1].position if replace and known else None
    (mark,) = story.log.append([NewLeaveOut(HOME, after, until, replaces, made_until=made_until)])
    assert mark is not None
    return mark.position


def learned_by_hand(story: Story) -> list[list[float]]:
    """A policy that learns everything but what is left out, decision by decision, without a trainer."""
    log, of = story.log, spec("squarecb")
    in_force = [
        one for one in log.leave_outs(HOME) if one.position not in {o.entry.replaces for o in log.leave_outs(HOME)}
    ]
    policy = make_policy(of)
    for sealed in log.sealed_decisions(HOME, after=Time(0), until=log.head().time):
        version = log.version_at(sealed.decision.version)
        if any(
            o.entry.after < sealed.deadline
            and (o.entry.until is None or sealed.deadline <= o.entry.until)
            and (o.entry.made_until is None or sealed.time <= o.entry.made_until)
            for o in in_force
        ):
            continue
        if version.learns_from(sealed.decision.reason, activated=sealed.activated, overridden=sealed.overridden):
            rewards = sum(sealed.rewards)
            policy.learn(
                sealed.decision.context,
                version.choices_of(sealed.decision.eligible, {}),
                drawn=sealed.decision.eligible.index(sealed.decision.action),
                propensity=sealed.decision.propensity,
                reward=min(max(rewards, 0.0), 1.0),
            )
    return pmfs(policy, story.version)


@settings(max_examples=40)
@given(steps=operations, left_out=leave_outs, cuts=st.lists(st.floats(0, 1), max_size=6))
def test_a_model_is_the_same_however_it_came_there(
    steps: list[tuple[str, int, float]],
    left_out: list[tuple[int, tuple[int, bool] | None, bool, int]],
    cuts: list[float],
) -> None:
    """The server learns a bad stretch, is told to leave it out and goes back; `verify` learns in one go."""
    plain = [(kind, number, value) for kind, number, value in steps if kind not in ("version", "override")]
    story = told_with(plain, left_out)
    story.seal()
    log, of, end = story.log, spec("squarecb"), story.log.head().mark
    at_once, in_pieces, resumed = (Trainer(log, HOME, of) for _ in range(3))
    at_once.learn_up_to(end)
    for cut in [*sorted(round(share * end.position) for share in cuts), end.position]:
        mark = Mark(Position(cut), log.time_at(Position(cut)))
        while not in_pieces.advance(mark, seconds=0):  # one decision at a time
            pass
        before = resumed.steps
        resumed.learn_up_to(mark)
        if resumed.steps != before:
            log.models.store(ModelName(HOME, resumed.position, of.signature), resumed.save(), keep_bytes=10**9)
        resumed, mismatch = resume_trainer(log, HOME, of)
        assert mismatch is None
    expected = pmfs(at_once.model().policy, story.version)
    assert pmfs(in_pieces.model().policy, story.version) == expected
    resumed.learn_up_to(end)
    assert pmfs(resumed.model().policy, story.version) == expected
    assert learned_by_hand(story) == expected


@st.composite
def entries(draw: st.DrawFn) -> list[LeaveOut]:
    """Up to six; each may take back the one before, with another beginning or only another end."""
    made: list[LeaveOut] = []
    for number in range(draw(st.integers(1, 6))):
        before = draw(st.sampled_from([None, *made[-1:]]))
        after = before.entry.after if before and draw(st.booleans()) else Time(draw(places))
        replaces = before.position if before else None
        end = draw(ends)
        until, made_until = (None, None) if end is None else ends_at(Time(end[0]), of_made=end[1])
        left_out = NewLeaveOut(HOME, after, until, replaces, made_until=made_until)
        made.append(LeaveOut(Position(number + 1), Time(0), left_out))
    return made


@settings(max_examples=300)
@given(entries(), st.integers(0, 7), st.integers(0, 7), st.integers(0, 45), st.integers(0, 45))
def test_before_the_first_change_nothing_differs(
    made: list[LeaveOut], one: int, other: int, deadline: int, lasted: int
) -> None:
    """Whoever has learned up to there need not go back; and there is a difference just behind, or the bound is idle."""
    after, until = Position(min(one, other)), Position(max(one, other))
    first = first_change(made, after=after, until=until)

    def is_left_out(known: Sequence[Stretch]) -> bool:
        return any(stretch.holds(made=Time(deadline - lasted), deadline=Time(deadline)) for stretch in known)

    if deadline <= first:
        assert is_left_out(stretches(made, after)) == is_left_out(stretches(made, until))


@pytest.mark.parametrize("case", ["a last word", "a shorter window"])
def test_only_decisions_whose_window_touches_the_stretch_are_left_out(log: EventLog, clock: Clock, case: str) -> None:
    """A window of a day, in an earlier version or ended by last words, does not leave out what came afterwards. Among
    the decisions of that day those with a last word would be the rewarded ones: a bias."""
    drive, day = Drive(log, clock), RewardDefinition(window=86_400 * SECOND)
    drive.apply(sample_experiment(policy=spec("squarecb"), reward=day))
    if case == "a shorter window":
        drive.apply(sample_experiment(policy=spec("squarecb"), reward=RewardDefinition(window=10 * SECOND)))

    def learned_of(count: int) -> int:
        before = drive.log.count_learned(HOME)
        for _ in range(count):
            mark, _ = drive.decide(drive.request()._replace(eligible=(), excluded=()), HOME)
            if case == "a last word":
                log.append([NewReward(mark.position, "click", 1.0, final=True)])
            clock.advance(1)
        clock.advance(20)
        log.append([Tick()])
        trainer = Trainer(log, HOME, spec("squarecb"))
        trainer.learn_up_to(log.head().mark)
        assert log.count_learned(HOME) - before == count
        return trainer.learned

    begin = log.head().time
    assert learned_of(5) == 5
    clock.advance(40)
    log.append([Tick()])
    leave_out(log, HOME, begin=begin, end=log.head().time, origin=UNKNOWN)
    assert learned_of(0) == 0
    clock.advance(600)
    assert learned_of(10) == 10
    assert verify(log).first is None


def follow(drive: Drive, made: LeaveOut) -> Position:
    """As `--wait` does it, while the leader works; it must need a few of its rounds."""
    rounds = iter(range(5))

    def is_led() -> bool:
        drive.step()
        return next(rounds, None) is not None

    return wait_until_followed(drive.log, made, is_led=is_led, say=lambda _: None)


def test_whoever_waits_is_told_also_where_nothing_changes(drive: Drive) -> None:
    """From now on, with nothing sealed meanwhile; and a stretch in which there was nothing."""
    drive.visits(10)
    served(drive)
    now = drive.log.head().time
    opened = leave_out(drive.log, HOME, begin=now, end=None, origin=UNKNOWN)
    assert follow(drive, opened) >= opened.position
    taken_back = take_back(drive.log, HOME, opened.position, origin=UNKNOWN)
    assert follow(drive, taken_back) >= taken_back.position
    empty = leave_out(drive.log, HOME, begin=Time(1), end=Time(2), origin=UNKNOWN)
    assert follow(drive, empty) >= empty.position
    drive.visits(10)
    assert_replays(drive.log)


def test_nobody_waits_for_an_experiment_that_does_not_learn(drive: Drive) -> None:
    """Frozen, it follows when it learns again, perhaps never."""
    drive.visits(10)
    drive.apply(sample_experiment(policy=spec("squarecb"), learning=Learning.FROZEN))
    made = leave_out(drive.log, HOME, begin=drive.log.head().time, end=None, origin=UNKNOWN)
    with pytest.raises(FailedPrecondition, match="does not learn now"):
        follow(drive, made)


def test_a_stretch_that_ends_leaves_out_what_was_made_before_its_end(drive: Drive) -> None:
    """Also what is sealed hours later; what is made behind the end is learned, as the help says."""
    opened = leave_out(drive.log, HOME, begin=drive.log.head().time, end=None, origin=UNKNOWN)
    drive.visits(5)
    end = drive.log.head().time
    close(drive.log, HOME, end=end, origin=UNKNOWN)
    drive.clock.advance(1)
    drive.visits(5)
    drive.clock.advance(60)
    drive.step()
    (ended,) = in_force(drive.log, HOME)
    assert (ended.entry.until, ended.entry.made_until, ended.entry.replaces) == (None, end, opened.position)
    (stretch,) = stretches(drive.log.leave_outs(HOME), drive.log.head().position)
    sealed = list(drive.log.sealed_decisions(HOME, after=Time(0), until=drive.log.head().time))
    held = [stretch.holds(made=one.time, deadline=one.deadline) for one in sealed]
    assert held == [one.time <= end for one in sealed]
    assert 0 < sum(held) < len(held)
    assert_replays(drive.log)


def test_the_end_of_an_open_stretch_changes_what_is_made_behind_it() -> None:
    """Whoever has skipped decisions behind that end has to go back there; whoever has not read so far need not."""
    opened = LeaveOut(Position(1), Time(0), NewLeaveOut(HOME, Time(4), None))
    ended = NewLeaveOut(HOME, Time(4), None, opened.position, made_until=Time(10))
    entries = [opened, LeaveOut(Position(2), Time(0), ended)]
    assert first_change(entries, after=Position(1), until=Position(2)) == 10
    before, after = (stretches(entries, Position(until)) for until in (1, 2))
    behind = {"made": Time(11), "deadline": Time(20)}
    assert [one.holds(**behind) for one in (*before, *after)] == [True, False]


def test_a_trainer_goes_back_to_the_newest_stored_model_before_the_stretch() -> None:
    """Not to the first decision: an hour of traffic would be learned again for every minute that is left out."""
    story = Story()
    log, of = story.log, spec("squarecb")
    resumed, _ = resume_trainer(log, HOME, of)
    for _ in range(6):
        for index in range(3):
            story.reward(story.decide(index=index), float(index == 2))
        story.seal()
        resumed.learn_up_to(log.head().mark)
        log.models.store(ModelName(HOME, resumed.position, of.signature), resumed.save(), keep_bytes=10**9)
    stored = log.models.stored_positions(HOME, of.signature)
    say(story, log.time_at(stored[3]), log.head().time, replace=False)
    before = resumed.learned
    resumed.learn_up_to(log.head().mark)
    assert (resumed.learned - before, resumed.went_back) == (0, 1), "it was at hand, and the rest is left out"
    fresh = Trainer(log, HOME, of)
    fresh.learn_up_to(Mark(stored[3], log.time_at(stored[3])))
    assert pmfs(resumed.model().policy, story.version) == pmfs(fresh.model().policy, story.version)
    assert resumed.position == log.head().position > stored[-1] > START


# --- a log on disk


@pytest.mark.parametrize("policy", ["squarecb", "thompson"])
def test_a_log_with_what_is_left_out_replays(policy: str, tmp_path: Path) -> None:
    """Decisions before, while the leader goes back, and afterwards; after an archive too, with and without it."""
    file, clock = tmp_path / "log.db", Clock()
    with closing(open_log(file, clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment(policy=spec(policy)))
        drive.visits(30)
        begun = log.head().time
        drive.visits(30)
        made = leave_out(log, HOME, begin=begun, end=log.head().time, origin=Origin("Ada", "api", "the pixel was down"))
        drive.visits(20)
        rolled = roll_back(log, HOME, made.position, origin=UNKNOWN)
        drive.visits(20)
        take_back(log, HOME, made.position, origin=UNKNOWN)
        drive.visits(20)
        assert [one.position for one in log.leave_outs(HOME)][:2] == [made.position, rolled.position]
        everything = log.count_decisions()
        assert everything > 100
        assert verify(log).equal == everything
        assert log.check(lambda _: None) == []
        drive.step()
        with closing(open_to_cut(file)) as cutter:
            before = Time(log.head().time - 15 * SECOND)
            assert archive(cutter, tmp_path / "archive", before=before, remember=0, say=lambda _: None) is not None
        drive.visits(10)
        assert verify(log).equal == verify(log).decisions < everything
        assert log.check(lambda _: None) == []
        for change, damage in ((1, "was changed"), (-1, "[]")):
            with closing(sqlite3.connect(file)) as other, other:
                sql = "update leave_outs set sealed_after = sealed_after + ? where position = ?"
                other.execute(sql, (change, made.position))
            assert damage in str(log.check(lambda _: None)), "it is behind the cut, and still says what was learned"
    with closing(open_reader(file, archive=[tmp_path / "archive"])) as whole:
        result = verify(whole)
        assert result.equal == result.decisions > everything


# --- beside relearning, pauses and other policies


@pytest.fixture
def drive(log: EventLog, clock: Clock) -> Drive:
    """A shop that learns, on each log."""
    drive = Drive(log, clock)
    drive.apply(sample_experiment(policy=spec("squarecb")))
    return drive


def assert_replays(log: LogReader) -> None:
    """Every decision is recomputed as it was logged."""
    result = verify(log)
    assert result.first is None, result.first and result.first.what
    assert result.equal == result.decisions == log.count_decisions()


def late_click(drive: Drive) -> None:
    """A click for every third decision whose window is over, so that there is something to learn anew."""
    sealed = list(drive.log.sealed_decisions(HOME, after=Time(0), until=drive.log.head().time))
    for one in sealed[::3]:
        drive.log.append([NewReward(one.position, "click", 1.0, reward_id="late")])


def served(drive: Drive) -> list[list[float]]:
    """What the serving model gives now, once it has learned everything."""
    drive.clock.advance(60)
    for _ in range(3):
        drive.step()
    version, model, _ = drive.current[HOME]
    return pmfs(model.policy, version)


def learned_up_to(drive: Drive, position: Position, *, policy: PolicySpec | None = None) -> list[list[float]]:
    """What a model gives that has learned up to a position, and nothing behind it. policy: of the newest version."""
    version = [one for one in drive.log.versions() if one.experiment.id == HOME][-1]
    trainer = Trainer(drive.log, HOME, policy or version.experiment.policy)
    trainer.learn_up_to(Mark(position, drive.log.time_at(position)))
    return pmfs(trainer.model().policy, version)


@pytest.mark.parametrize("first", ["leave out", "relearn"])
def test_relearning_and_leaving_out_meet_in_any_order(first: str, tmp_path: Path) -> None:
    """What came late counts, what was wrong does not; each is undone by itself, also in a process that starts between;
    and all of it replays."""
    clock = Clock()
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment(policy=spec("squarecb")))
        drive.visits(30)
        begun = log.head().time
        drive.visits(20)
        ended = log.head().time
        late_click(drive)
        plain = log.versions()[-1].experiment.policy
        steps: list[Callable[[], object]] = [
            lambda: leave_out(log, HOME, begin=begun, end=ended, origin=UNKNOWN),
            lambda: drive.versions.relearn(HOME),
        ]
        for step in steps if first == "leave out" else steps[::-1]:
            step()
            drive.step()
            drive.restart()
            drive.visits(10)
        anew = log.versions()[-1].experiment.policy
        assert anew.relearned is not None
        (one,) = log.leave_outs(HOME)
        both = served(drive)
        assert both == learned_up_to(drive, log.head().position)
        take_back(log, HOME, one.position, origin=UNKNOWN)
        drive.restart()
        only_anew = served(drive)
        assert only_anew == learned_up_to(drive, log.head().position) != both
        drive.versions.undo_relearning(HOME)
        drive.visits(10)
        drive.restart()
        assert served(drive) == learned_up_to(drive, log.head().position, policy=plain) != only_anew
        result = verify(log)
        assert result.first is None
        assert result.equal == result.decisions == log.count_decisions()
        assert log.check(lambda _: None) == []


def test_a_rollback_after_relearning_is_the_model_with_what_came_late(drive: Drive) -> None:
    """Relearning is kept: only what was sealed since is left out."""
    drive.visits(30)
    drive.clock.advance(60)
    drive.step()
    to = drive.log.head().position
    drive.visits(20)
    late_click(drive)
    drive.versions.relearn(HOME)
    drive.visits(10)
    expected = learned_up_to(drive, to)
    served(drive)
    roll_back(drive.log, HOME, to, origin=UNKNOWN)
    assert served(drive) == expected
    drive.visits(10)
    assert_replays(drive.log)


@pytest.mark.parametrize("paused_first", [True, False])
def test_a_rollback_reaches_a_paused_experiment(drive: Drive, paused_first: bool) -> None:
    """Pause, roll back, resume is what a person does who sees nonsense on the page."""
    drive.visits(30)
    drive.clock.advance(60)
    drive.step()
    to = drive.log.head().position
    expected = learned_up_to(drive, to)
    drive.visits(20)
    served(drive)  # what is still open would be learned later on
    for pauses in (paused_first, not paused_first):
        drive.set_paused(HOME, paused=True) if pauses else roll_back(drive.log, HOME, to, origin=UNKNOWN)
    served(drive)
    drive.set_paused(HOME, paused=False)
    assert served(drive) == expected
    drive.visits(10)
    assert_replays(drive.log)


def test_a_rollback_over_a_change_of_the_policy_is_refused(drive: Drive) -> None:
    """That model was another policy's: the text says which version had it, and how to leave the same data out."""
    drive.visits(10)
    before = drive.log.head().position
    drive.apply(sample_experiment(policy=spec("softmax")))
    drive.visits(10)
    drive.set_paused(HOME, paused=True)
    drive.set_paused(HOME, paused=False)
    head = drive.log.head()
    with pytest.raises(FailedPrecondition, match=r"version 1 .*squarecb.*version 4 .*softmax.*leave-out") as refused:
        roll_back(drive.log, HOME, before, origin=UNKNOWN)
    assert refused.value.reason == "ANOTHER_POLICY"
    assert drive.log.head() == head
    roll_back(drive.log, HOME, Position(head.position - 1), origin=UNKNOWN)
    drive.apply(sample_experiment(policy=spec("squarecb")))
    drive.visits(5)
    roll_back(drive.log, HOME, before, origin=UNKNOWN)
    drive.visits(5)
    assert_replays(drive.log)


def test_a_rollback_to_nothing_begins_anew_whatever_the_policy_was(drive: Drive) -> None:
    """Nothing is what every policy begins with."""
    drive.visits(10)
    drive.apply(sample_experiment(policy=spec("softmax")))
    drive.visits(10)
    served(drive)
    roll_back(drive.log, HOME, START, origin=UNKNOWN)
    version = drive.log.versions()[-1]
    assert served(drive) == pmfs(make_policy(spec("softmax")), version)
    assert_replays(drive.log)


def test_what_comes_behind_an_end_must_be_there_to_be_learned(tmp_path: Path) -> None:
    """It was left out while nobody knew the end."""
    clock = Clock()
    file, folder = tmp_path / "log.db", tmp_path / "archive"
    with closing(open_log(file, clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment(policy=spec("squarecb")))
        drive.visits(10)
        begin = log.head().time
        leave_out(log, HOME, begin=begin, end=None, origin=UNKNOWN)
        drive.visits(20)
        served(drive)
        with closing(open_to_cut(file)) as cutter:
            archive(cutter, folder, before=log.head().time, remember=0, say=lambda _: None)
        drive.visits(5)
        folder.rename(tmp_path / "elsewhere")
        head = log.head().position
        with pytest.raises(ArchiveMissing):
            close(log, HOME, end=Time(begin + 5 * SECOND), origin=UNKNOWN)
        assert log.head().position == head


def test_what_is_taken_back_must_be_there_to_be_learned(tmp_path: Path) -> None:
    """As for a relearning: a missing part of the archive is named before anything is written."""
    clock = Clock()
    file, folder = tmp_path / "log.db", tmp_path / "archive"
    with closing(open_log(file, clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment(policy=spec("squarecb")))
        drive.visits(30)
        made = leave_out(log, HOME, begin=Time(log.head().time - 30 * SECOND), end=None, origin=UNKNOWN)
        drive.visits(30)
        close(log, HOME, end=Time(log.head().time - 1), origin=UNKNOWN)
        drive.visits(10)
        served(drive)
        with closing(open_to_cut(file)) as cutter:
            archive(cutter, folder, before=log.head().time, remember=0, say=lambda _: None)
        drive.visits(5)
        folder.rename(tmp_path / "elsewhere")
        (left,) = [one for one in log.leave_outs(HOME) if one.position != made.position]
        head = log.head().position
        with pytest.raises(ArchiveMissing):
            take_back(log, HOME, left.position, origin=UNKNOWN)
        assert log.head().position == head
        (tmp_path / "elsewhere").rename(folder)
        take_back(log, HOME, left.position, origin=UNKNOWN)
        drive.visits(5)
        assert_replays(log)


# --- the commands


def run(*arguments: object) -> Result:
    """`decider` with these arguments."""
    return CliRunner().invoke(decider, [str(one) for one in arguments])


@pytest.fixture
def shop_log(tmp_path: Path) -> Path:
    """A log of some minutes."""
    write_past(tmp_path / "log.db", 60, shop(policy={"squarecb": {}}))
    return tmp_path / "log.db"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["leave-out", "shop"], "give --from"),
        (["leave-out", "shop", "--from", "1h", "--list"], "give --from"),
        (["leave-out", "shop", "--from", "soon"], "'soon' is neither a time like"),
        (["leave-out", "shop", "--from", "1m", "--until", "2m"], "until: is not later than the beginning"),
        (["leave-out", "shop", "--until", "0s"], "leaves out nothing that is not over"),
        (["leave-out", "shop", "--take-back", "7"], "no entry at 7 leaves something out of 'shop'; there are: none"),
        (["leave-out", "shop", "--from", "1m", "--note", "x" * 501], "note: has 501 characters"),
        (["leave-out", "shop", "--from", "1m", "--author", "x" * 101], "author: has 101 characters"),
        (["rollback", "shop", "--to", "1", "--note", "a\x07b"], "note: has a control character"),
        (["leave-out", "house", "--from", "1m"], "there is no experiment 'house'"),
        (["leave-out", "house", "--list"], "there is no experiment 'house'"),
        (["leave-out", "shop", "--from", "0001-01-01", "--until", "0001-01-02"], "from: lies before 1970"),
        (["leave-out", "shop", "--from", "36500d"], "from: lies before 1970"),
        (["leave-out", "shop", "--from", "1m", "--until", "9999-12-31T23:59:59.9"], "until: lies before 1970 or after"),
        (["leave-out", "shop", "--until", "9999-12-31"], "until: lies before 1970 or after"),
        (["leave-out", "shop", "--from", "1m", "--author", "\u202egard"], "author: has a control character"),
        (["rollback", "shop"], "give either --to or --list"),
        (["rollback", "shop", "--to", "99999"], "to: is not in the log, which has positions up to"),
        (["rollback", "house", "--to", "1"], "there is no experiment 'house'"),
        (["rollback", "shop", "--to", "1", "--wait"], "no server runs on this log"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], said: str, shop_log: Path) -> None:
    """With the field and the way out; and nothing is written."""
    before = head_of(shop_log)
    ran = run(*arguments, "--db", shop_log)
    assert said in ran.output, ran.output
    assert ran.exit_code != 0
    assert head_of(shop_log) == before


def rows(file: Path, sql: str) -> list[tuple[object, ...]]:
    """As Datasette reads them."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(sql).fetchall()


def test_whatever_stands_in_a_log_can_be_listed(shop_log: Path) -> None:
    """Times that no calendar has, and texts that would turn the terminal: from a release that did not look."""
    with closing(open_log(shop_log)) as log:
        id_ = log.versions()[0].experiment.id
        log.append([NewLeaveOut(id_, Time(-62_135_596_800_000_000), Time(253_402_300_800_000_000))])
        log.append([NewLeaveOut(id_, Time(0), None, origin=Origin("\x1b[2J\u202e", "api", "a\x9bb"))])
    ran = run("leave-out", "shop", "--db", shop_log, "--list")
    assert ran.exit_code == 0, ran.output
    first, second = ran.output.splitlines()
    assert "after 0001-01-01T00:00:00Z, up to 253402300800 s after 1970" in first
    assert not set("\x1b\u202e\x9b") & set(second)


def test_a_damaged_entry_is_told_with_its_place(tmp_path: Path) -> None:
    """Not a crash; and nobody learns past it."""
    file, clock = tmp_path / "log.db", Clock()
    with closing(open_log(file, clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment(policy=spec("squarecb")))
        drive.visits(30)
        made = leave_out(log, HOME, begin=Time(log.head().time - SECOND), end=None, origin=UNKNOWN)
        drive.visits(10)
    with closing(sqlite3.connect(file)) as db:
        db.execute("update leave_outs set sealed_after = 'x'")
        db.commit()
    ran = CliRunner().invoke(simulator, ["verify", str(file)])
    assert ran.exit_code == 2, ran.output
    assert f"what the entry at position {made.position} leaves out is damaged: 'x'" in ran.output
    with closing(open_log(file, clock=clock)) as log, pytest.raises(LogCorrupt, match="is damaged"):
        Trainer(log, HOME, spec("squarecb")).learn_up_to(log.head().mark)


def head_of(file: Path) -> Position:
    """The last position of a log."""
    with closing(open_reader(file)) as log:
        return log.head().position


def test_a_stretch_is_opened_closed_listed_and_taken_back(shop_log: Path) -> None:
    """As the person does who hears of an outage while it lasts."""
    assert run("leave-out", "shop", "--db", shop_log, "--list").output == "nothing is left out\n"
    opened = run("leave-out", "shop", "--db", shop_log, "--from", "1m", "--author", "Ada", "--note", "pixel down")
    assert "and it is not over" in opened.output
    listed = run("leave-out", "shop", "--db", shop_log, "--list").output
    assert "and it is not over; by Ada, command leave-out: pixel down" in listed
    (row,) = rows(shop_log, "select author, source, note, number, sealed_until from changes where sealed_after > 0")
    assert row == ("Ada", "command leave-out", "pixel down", None, None)
    closed = run("leave-out", "shop", "--db", shop_log, "--until", "0s")
    assert ", made up to " in closed.output
    found = rows(shop_log, "select sealed_until, abs(made_until - time) < 6e7 from changes where replaces > 0")
    assert found == [(None, 1)]
    position = run("leave-out", "shop", "--db", shop_log, "--list").output.split(":")[0]
    assert "learns again" in run("leave-out", "shop", "--db", shop_log, "--take-back", position).output
    assert run("leave-out", "shop", "--db", shop_log, "--list").output == "nothing is left out\n"
    assert run("leave-out", "shop", "--db", shop_log, "--take-back", position).exit_code == 1


def test_a_server_goes_back_within_its_round_and_after_a_kill(tmp_path: Path) -> None:
    """While a pixel was down nothing earned: the model from before serves again, also after SIGKILL and a start."""
    db = tmp_path / "log.db"
    server = ServerProcess(db, "--store-interval", "0.1", "--learn-interval", "0.05")
    with closing(server.client()) as client:
        client.apply(experiment("shop", "a", "b", window=0.2))

        def visit(count: int, good: str, name: str) -> None:
            for number in range(count):
                made = client.decide("shop", f"{name}-{number}")
                if made.action.id == good:
                    client.reward(made.decision_id, name="click")
            client.until(
                lambda: client.rows("select count(*) from decisions") == client.rows(SEALED) or None, what="sealed"
            )

        def share_of_a() -> float:
            ranked = client.decide("shop", "somebody", with_ranking=True).ranking
            return float(next(one.propensity for one in ranked if one.action == "a"))

        visit(30, "a", "good")
        client.until(lambda: client.rows(STORED) or None, what="a model is stored")
        (to,) = client.rows(STORED)[-1]
        before = share_of_a()
        visit(300, "nothing", "bad")
        assert share_of_a() < before
        ran = run("rollback", "shop", "--db", db, "--to", to, "--wait")
        assert ran.exit_code == 0, ran.output
        client.until(lambda: share_of_a() > before - 0.1 or None, what="the older model serves")
        server.kill()
    server = ServerProcess(db)
    try:
        with closing(server.client()) as client:
            made = [client.decide("shop", f"after-{number}") for number in range(20)]
        assert server.terminate() == 0
    finally:
        with suppress(ProcessLookupError):
            server.kill()
    assert len(made) == 20
    assert " of " in (said := simulator_verify(db))
    assert said.split(" of ")[0].split()[-1] == said.split(" of ")[1].split()[0], said


def test_a_server_says_who_left_what_out(tmp_path: Path) -> None:
    """In its output, as for a version; SIGKILL between a relearning and what is left out, and N of N."""
    db = tmp_path / "log.db"
    server = ServerProcess(db, "--learn-interval", "0.05")
    try:
        with closing(server.client()) as client:
            client.apply(experiment("shop", "a", "b", window=0.2))
            made = [client.decide("shop", f"u{number}") for number in range(60)]
            client.until(lambda: client.rows(SEALED) == [(60,)] or None, what="sealed")
            for one in made[::2]:
                client.reward(one.decision_id, name="click")
            assert run("relearn", "shop", "--db", db, "--wait").exit_code == 0
            who = ("--author", "Ada", "--note", "no")
            ran = run("leave-out", "shop", "--db", db, "--from", "1h", "--until", "0s", *who)
            assert ran.exit_code == 0, ran.output
            client.until(lambda: "; by Ada, command leave-out: no" in server.output or None, what="it is told")
        server.kill()
        server = ServerProcess(db, "--learn-interval", "0.05")
        with closing(server.client()) as client:
            (position,) = client.rows("select position from leave_outs")[0]
            ran = run("leave-out", "shop", "--db", db, "--take-back", position, "--wait")
            assert ran.exit_code == 0, ran.output
            for span in (("--from", "0s"), ("--until", "0s")):  # nothing is sealed meanwhile
                ran = run("leave-out", "shop", "--db", db, *span, "--wait")
                assert ran.exit_code == 0, ran.output
            assert run("relearn", "shop", "--db", db, "--undo", "--wait").exit_code == 0
            for number in range(20):
                client.decide("shop", f"after-{number}")
        server.kill()
    finally:
        with suppress(ProcessLookupError):
            server.kill()
    assert "80 of 80" in simulator_verify(db)


SEALED = "select count(*) from sealed_decisions"
STORED = "select distinct position from models where experiment = 'shop' order by position"
