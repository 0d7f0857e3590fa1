"""`decider relearn`: what came after the windows is learned, and by another definition, as a version like any other.

On every log, out of the archive, and with a real server that is killed while it learns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.decide.decide import slots_of
from decider.errors import ArchiveMissing, FailedPrecondition, InvalidExperiment, NotFound
from decider.experiment.aggregate import NamedReward, final_reward, rewards_under
from decider.experiment.definition import Learning, RewardDefinition
from decider.experiment.schema import definition_text, from_message, parse_toml, read_json, reward_text
from decider.learn.archive import archive as archive_old
from decider.learn.relearn import survey
from decider.learn.trainer import Trainer
from decider.learn.versions import Versions
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import EventLog, LogReader, Mark, NewReward, NewRewardChange, NewVersion, Tick
from decider.policy.spec import PolicySpec, Relearned
from decider.server.command import main as decider
from decider.types import Context, DecisionId, ExperimentId, Position, Time
from simulator.kept import compare_bases
from simulator.verify import verify
from tests.conftest import LEARNING, SECOND, Clock, sample_experiment, spec
from tests.long_logs import shop, write_past
from tests.rpc_clients import PATIENCE, ServerProcess, SubprocessClient, experiment, until
from tests.test_verify import HOME, Drive
from tests.two_writers import decision

WINDOW = 10 * SECOND
EVER = Time(2**60)
PLAIN = RewardDefinition(window=WINDOW)


def relearned(log: LogReader, definition: RewardDefinition = PLAIN) -> Relearned:
    """What `decider relearn` would write now."""
    head = log.head()
    return Relearned(head.position, head.time, reward_text(definition))


def learn(log: LogReader, policy: PolicySpec, id_: ExperimentId = HOME) -> list[tuple[float, ...]]:
    """The pmfs of a policy that has learned the whole log, for some contexts."""
    version = [one for one in log.versions() if one.experiment.id == id_][-1]
    trainer = Trainer(log, id_, policy)
    trainer.learn_up_to(log.head().mark)
    model = trainer.model().policy
    contexts = [Context(segment=s, device=d) for s in ("new", "vip", "bargain", "") for d in ("mobile", "")]
    return [tuple(model.pmf(context, version.all_choices)) for context in contexts]


def assert_whole(log: LogReader) -> None:
    """No damage, and every decision is recomputed as it was logged."""
    assert log.check(lambda _: None) == []
    result = verify(log)
    assert result.first is None, f"{result.first.what} {result.first.logged}"
    assert result.equal == result.decisions == log.count_decisions() > 0


def late_clicks(drive: Drive, share: float, seed: int = 5) -> int:
    """A click for some of the decisions whose window is over; returns for how many."""
    source, log = Random(seed), drive.log
    (version, *_) = [one for one in log.versions() if one.experiment.id == HOME]
    sealed = list(log.sealed_decisions(HOME, after=Time(0), until=log.head().time))
    chosen = [one for one in sealed if source.random() < share]
    for one in chosen:
        log.append([NewReward(one.position, "click", 1.0, version.experiment.reward.weights.get("click", 1.0), "late")])
    return len(chosen)


@pytest.mark.parametrize("algorithm", LEARNING)
def test_with_nothing_late_it_is_the_same_model(algorithm: str) -> None:
    """To the last bit, for every policy: learning anew is the same learning, with more in it."""
    drive = Drive(MemoryLog(clock=(clock := Clock())), clock)
    weighted = RewardDefinition(window=WINDOW, weights={"buy": 0.5, "click": 1.0}, default=0.125)
    drive.apply(sample_experiment(policy=spec(algorithm), reward=weighted))
    for _ in range(30):
        drive.visits(1)
        place = drive.log.locate(DecisionId(f"d-{drive.count}"))
        if place is not None:
            drive.log.append([NewReward(place.position, "buy", 1.0, 0.5, "in time")])
            changed = drive.random.choice([None, 0.5])
            drive.log.append([NewRewardChange(place.position, "in time", changed, "buy", 0.5)])
    clock.advance(60)
    drive.step()
    plain = replace(spec(algorithm), relearned=None)
    anew = replace(plain, relearned=relearned(drive.log, weighted))
    assert learn(drive.log, anew) == learn(drive.log, plain)
    assert anew.signature != plain.signature, "it is another model all the same"


# --- what counts: on every log


class Story:
    """Some decisions with rewards and changes at any time, on a log; and what they are worth, by a plain account.

    sent: (decision, id, name, value, position, time); changed: (index in sent, value, position, time).
    """

    def __init__(self, log: EventLog, clock: Clock) -> None:
        self.log, self.clock = log, clock
        log.append([NewVersion(sample_experiment(reward=PLAIN), 1)])
        (self.version,) = log.versions()
        self.decisions: list[Mark] = []
        self.sent: list[tuple[int, str, float, Mark]] = []
        self.changed: list[tuple[int, float | None, Mark]] = []
        self.ends = [log.head().mark]

    def play(self, script: Sequence[tuple[Any, ...]]) -> None:
        """One step after the other, each in a commit of its own."""
        for seconds, kind, which, name, value in script:
            self.clock.advance(seconds)
            self._step(kind, which, name, value)
            self.ends.append(self.log.head().mark)
        self.clock.advance(100)
        self.log.append([Tick()])

    def _step(self, kind: str, which: int, name: str, value: float) -> None:
        if kind == "decide" or not self.decisions:
            (mark,) = self.log.append([decision(self.version, f"d{len(self.decisions)}")])
            assert mark is not None
            self.decisions.append(mark)
        elif kind == "reward" or not self.sent:
            at = which % len(self.decisions)
            reward = NewReward(self.decisions[at].position, name, value, 1.0, f"r{len(self.sent)}")
            (mark,) = self.log.append([reward])
            assert mark is not None
            self.sent.append((at, name, value, mark))
        else:
            index = which % len(self.sent)
            at, name = self.sent[index][:2]
            new = value if kind == "correct" else None
            change = NewRewardChange(self.decisions[at].position, f"r{index}", new, name, 1.0, Time(len(self.ends)))
            (mark,) = self.log.append([change])
            assert mark is not None
            self.changed.append((index, new, mark))

    def named(self, at: int, late: Mark) -> list[NamedReward]:
        """The rewards of a decision that count, with everything late up to a mark."""
        deadline = self.decisions[at].time + WINDOW

        def counts(mark: Mark) -> bool:
            return mark.position <= late.position if deadline <= late.time else mark.time < deadline

        found = []
        for index, (of, name, value, mark) in enumerate(self.sent):
            if of == at and counts(mark):
                changes = [new for which, new, when in self.changed if which == index and counts(when)]
                in_force = changes[-1] if changes else value
                found += [] if in_force is None else [NamedReward(name, in_force)]
        return found


steps = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 4, 11]),
        st.sampled_from(["decide", "reward", "reward", "correct", "retract"]),
        st.integers(0, 7),
        st.sampled_from(["click", "purchase"]),
        st.sampled_from([0.0, 0.25, -0.5, 1.0]),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=60)
@given(script=steps, end=st.integers(0, 14))
def test_what_counts_is_the_same_on_every_log(
    script: list[tuple[Any, ...]], end: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The log in memory, SQL, and a plain account: everything up to the mark, where the window was over there."""
    folder, clocks = tmp_path_factory.mktemp("story"), (Clock(), Clock())
    memory = Story(MemoryLog(clock=clocks[0]), clocks[0])
    with closing(open_log(folder / "log.db", clock=clocks[1])) as log:
        file = Story(log, clocks[1])
        for story in (memory, file):
            story.play(script)
        assert memory.ends == file.ends
        late = file.ends[min(end, len(file.ends) - 1)]
        for story in (memory, file):
            found = list(story.log.sealed_with_late(HOME, after=Time(0), until=EVER, late=late))
            in_time = list(story.log.sealed_decisions(HOME, after=Time(0), until=EVER))
            assert [list(one.named) for one in found] == [story.named(at, late) for at in range(len(found))]
            assert [one.rewards for one in found] == [tuple(value for _, value in one.named) for one in found]
            assert [replace(one, rewards=(), named=()) for one in found] == [replace(o, rewards=()) for o in in_time]


@settings(max_examples=25)
@given(script=steps, end=st.integers(0, 14), share=st.sampled_from([1, 2, 3]))
def test_archived_rewards_count_wherever_they_lie(
    script: list[tuple[Any, ...]], end: int, share: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A decision in one part, its reward in the next, and the return of what was bought still in the log."""
    folder, clock = tmp_path_factory.mktemp("parts"), Clock()
    with closing(open_log(folder / "log.db", clock=clock)) as log:
        story = Story(log, clock)
        story.play(script)
        late = story.ends[min(end, len(story.ends) - 1)]
        before = list(log.sealed_with_late(HOME, after=Time(0), until=EVER, late=late))
        times = [mark.time for mark in story.decisions]
        for time in (times[len(times) // share - 1] + 1, EVER):
            with closing(open_to_cut(folder / "log.db")) as cut:
                archive_old(cut, folder / "archive", before=Time(time), remember=SECOND, say=lambda _: None)
            assert list(log.sealed_with_late(HOME, after=Time(0), until=EVER, late=late)) == before
            for middle in times:
                pieces = [(Time(0), Time(middle)), (Time(middle), EVER)]
                read = [log.sealed_with_late(HOME, after=a, until=b, late=late) for a, b in pieces]
                assert [one for piece in read for one in piece] == before
        with closing(open_reader(folder / "log.db", archive=[folder / "archive"])) as whole:
            assert list(whole.sealed_with_late(HOME, after=Time(0), until=EVER, late=late)) == before


def test_a_name_that_the_new_definition_does_not_know_counts_nothing() -> None:
    """As if it had never come: the default is taken."""
    definition = RewardDefinition(weights={"purchase": 1.0}, default=0.25)
    assert rewards_under(definition, [NamedReward("click", 1.0)]) == []
    assert final_reward(definition, rewards_under(definition, [NamedReward("click", 1.0)])) == 0.25


# --- as a version


@pytest.fixture
def drive(log: EventLog, clock: Clock) -> Drive:
    """Visitors of the sample experiment, all sealed, on every log."""
    made = Drive(log, clock)
    made.apply(sample_experiment())
    made.visits(40)
    clock.advance(20)
    made.step()
    return made


def test_a_late_reward_is_learned_and_the_log_replays(drive: Drive) -> None:
    """The version waits for its model, then serves; what it decides is recomputed, from what was late, too."""
    count = late_clicks(drive, 0.5)
    found = survey(drive.log, HOME)
    assert 0 < found.late <= count
    assert (found.redefined, found.waiting, found.before < found.after) == (0, False, True)
    before = drive.current[HOME].model.policy
    applied = drive.versions.relearn(HOME)
    assert (applied.changed, applied.waits) == (True, True)
    drive.follower.follow()
    assert drive.current[HOME].version.number == 1, "the version before serves until the model is there"
    drive.step()
    assert drive.current[HOME].version.number == 2
    assert drive.current[HOME].model.policy != before
    drive.visits(20)
    drive.restart()
    drive.visits(20)
    assert_whole(drive.log)
    again = survey(drive.log, HOME)
    assert (again.late, again.redefined, again.changes) == (0, 0, False)
    assert again.before == again.after


def test_a_retraction_after_the_window_is_undone(log: EventLog, clock: Clock) -> None:
    """A purchase that is returned after a month was learned; learned anew it is, to the last bit, as if never sold."""
    clean = MemoryLog(clock=clock)
    for one in (log, clean):
        one.append([NewVersion(sample_experiment(), 1)])
        (version,) = one.versions()
        for number in range(30):
            (mark,) = one.append([decision(version, f"d-{number}", action=version.all_active[number % 3])])
            assert mark is not None
            if one is log or number % 2:
                one.append([NewReward(mark.position, "click", 1.0, 1.0, "order")])
    clock.advance(60)
    for one in (log, clean):
        one.append([Tick()])
    plain = sample_experiment().policy
    learned, never_sold = learn(log, plain), learn(clean, plain)
    places = [log.locate(DecisionId(f"d-{number}")) for number in range(0, 30, 2)]
    log.append([NewRewardChange(place.position, "order", None, "click") for place in places if place])
    assert learn(log, plain) == learned != never_sold
    anew = Versions(log).relearn(HOME).version.experiment.policy
    assert learn(log, anew) == never_sold


def test_late_corrections_are_learned_and_the_log_replays(drive: Drive) -> None:
    """The order came in time, the return late, and then it was only a part that came back."""
    drive.visits(30)
    for number in range(41, 71):
        place = drive.log.locate(DecisionId(f"d-{number}"))
        if place is not None:
            drive.log.append([NewReward(place.position, "buy", 1.0, 1.0, "order")])
            drive.clock.advance(12)
            drive.log.append([NewRewardChange(place.position, "order", None, "buy")])
            drive.log.append([NewRewardChange(place.position, "order", 0.25, "buy")])
    drive.step()
    found = survey(drive.log, HOME)
    assert (found.late > 0, found.redefined) == (True, 0)
    drive.versions.relearn(HOME)
    drive.step()
    drive.visits(20)
    assert_whole(drive.log)


def test_changed_weights_count_for_what_was_decided_before(drive: Drive) -> None:
    """Rewards are data: clicks were learned, and only purchases should have been."""
    log = drive.log
    changed = sample_experiment(reward=RewardDefinition(window=WINDOW, weights={"click": 0.0, "purchase": 1.0}))
    drive.apply(changed)
    drive.visits(10)
    before = learn(log, changed.policy)
    found = survey(log, HOME)
    assert found.redefined > 10
    assert found.after < found.before
    drive.versions.relearn(HOME)
    drive.step()
    newest = log.versions()[-1].experiment
    assert learn(log, newest.policy) != before
    trainer = Trainer(log, HOME, newest.policy)
    earned = [
        trainer._rewards.of(one, log.version_at(one.decision.version))
        for one in trainer._rewards.read(log, HOME, after=Time(0), until=log.head().time)
    ]
    assert set(earned) == {0.0}, "nobody has bought anything"
    drive.visits(20)
    assert_whole(log)


def test_what_the_version_before_decides_meanwhile_is_learned_by_the_new_definition(drive: Drive) -> None:
    """It serves while the model learns, and its windows end later: half the traffic of a day would be learned wrong."""
    drive.apply(sample_experiment(reward=RewardDefinition(window=WINDOW, weights={"click": -1.0}, minimum=-1.0)))
    drive.step()
    version = drive.current[HOME].version
    relearn = drive.versions.relearn(HOME).version
    (mark,) = drive.log.append([decision(version, "meanwhile")])
    assert mark is not None
    drive.log.append([NewReward(mark.position, "click", 1.0, 1.0)])
    drive.clock.advance(60)
    drive.log.append([Tick()])
    trainer = Trainer(drive.log, HOME, relearn.experiment.policy)
    *_, last = trainer._rewards.read(drive.log, HOME, after=Time(0), until=drive.log.head().time)
    assert last.decision.decision_id == "meanwhile"
    assert trainer._rewards.of(last, version) == -1.0


def test_later_versions_keep_what_was_learned_anew(drive: Drive) -> None:
    """A file that is edited afterwards knows nothing of it; it must not bring back what was corrected."""
    late_clicks(drive, 0.5)
    drive.versions.relearn(HOME)
    drive.step()
    mark = drive.log.versions()[-1].experiment.policy.relearned
    assert mark is not None
    edited = drive.apply(sample_experiment(description="a new text"))
    assert (edited.changed, edited.waits) == (True, False), "the same model goes on"
    assert edited.version.experiment.policy.relearned == mark
    assert not drive.apply(sample_experiment(description="a new text")).changed
    assert drive.set_paused(HOME, paused=True).version.experiment.policy.relearned == mark
    drive.set_paused(HOME, paused=False)
    other = drive.apply(sample_experiment(policy=spec("softmax")))
    assert (other.waits, other.version.experiment.policy.relearned) == (True, mark)
    drive.step()
    drive.visits(10)
    assert_whole(drive.log)


def test_it_can_be_undone(drive: Drive) -> None:
    """The model of before comes back, to the last bit, with what was decided since; and again the other one."""
    late_clicks(drive, 0.9)
    drive.versions.relearn(HOME)
    drive.step()
    drive.visits(10)
    back = drive.versions.undo_relearning(HOME)
    drive.step()
    assert (back.version.number, back.waits) == (3, True)
    assert drive.current[HOME].version.experiment.policy == sample_experiment().policy
    drive.visits(10)
    assert not drive.versions.undo_relearning(HOME).changed
    assert_whole(drive.log)


def test_a_pause_and_an_end_hold(drive: Drive) -> None:
    """A paused experiment learns anew and stays paused; one that has ended, or learns nothing, says what to do."""
    drive.set_paused(HOME, paused=True)
    late_clicks(drive, 0.5)
    assert not drive.versions.relearn(HOME).waits
    drive.step()
    assert drive.current[HOME].version.experiment.paused
    drive.set_paused(HOME, paused=False)
    drive.step()
    drive.visits(10)
    assert_whole(drive.log)
    drive.apply(sample_experiment(policy=spec("uniform")))
    with pytest.raises(FailedPrecondition, match="uniform learns nothing"):
        drive.versions.relearn(HOME)
    drive.apply(sample_experiment(ended=True))
    with pytest.raises(FailedPrecondition, match="has ended") as refused:
        drive.versions.relearn(HOME)
    assert refused.value.reason == "EXPERIMENT_ENDED"
    with pytest.raises(NotFound, match="no experiment 'nobody'"):
        drive.versions.relearn(ExperimentId("nobody"))


def test_nobody_writes_the_mark_by_hand(drive: Drive) -> None:
    """A wrong position would teach a model what no log has; what GetExperiment gave may be sent back."""
    with pytest.raises(InvalidExperiment, match="relearned: is set by `decider relearn` alone; leave it out"):
        parse_toml('id = "home"\nrelearned = { until = 7 }\nactions = [{ id = "a" }]\n', "home.toml")
    late_clicks(drive, 0.5)
    newest = drive.versions.relearn(HOME).version.experiment
    assert not drive.apply(newest).changed
    mark = newest.policy.relearned
    assert mark is not None
    for other in (replace(mark, until=Position(1)), replace(mark, reward=reward_text(RewardDefinition(default=0.5)))):
        with pytest.raises(InvalidExperiment, match="relearned: is set by `decider relearn` alone"):
            drive.apply(replace(newest, policy=replace(newest.policy, relearned=other)))


def test_the_definition_in_the_log_is_read_as_it_was_written(drive: Drive) -> None:
    """The log's text is what a replay learns by; and one without a mark has the text of before."""
    assert "relearned" not in definition_text(drive.log.versions()[0].experiment)
    late_clicks(drive, 0.5)
    experiment_ = drive.versions.relearn(HOME).version.experiment
    text = definition_text(experiment_)
    assert from_message(read_json(text)) == experiment_
    assert definition_text(from_message(read_json(text))) == text
    assert json.loads(text)["relearned"]["until"] == str(experiment_.policy.relearned.until)  # type: ignore[union-attr]


def test_a_changed_definition_says_what_stays_learned(drive: Drive, caplog: pytest.LogCaptureFixture) -> None:
    """Who changes a weight expects that it counts; the model keeps what it has learned, and that is said once."""
    changed = sample_experiment(reward=RewardDefinition(window=WINDOW, weights={"click": 2.0}))
    drive.apply(sample_experiment(reward=RewardDefinition(window=2 * WINDOW)))
    assert "reward definition" not in caplog.text, "windows end as they did"
    drive.apply(changed)
    drive.apply(changed)
    (said,) = [one.getMessage() for one in caplog.records if "reward definition" in one.getMessage()]
    assert f" {drive.log.count_learned(HOME)} decisions" in said
    assert f"`decider relearn home --db {drive.log.name}`" in said


def test_the_count_of_a_changed_definition_is_of_what_was_learned(
    drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    """Who reads it decides whether learning anew is worth it. Frozen versions, the control group and windows that are
    open have taught nothing; the dry run of the command says the same number."""
    drive.apply(sample_experiment(learning=Learning.FROZEN))
    drive.visits(15)
    drive.apply(sample_experiment(holdout=0.5))
    drive.visits(15)
    drive.clock.advance(20)
    drive.step()
    changed = RewardDefinition(window=WINDOW, weights={"click": 2.0})
    drive.apply(sample_experiment(holdout=0.5, reward=changed))
    learned = survey(drive.log, HOME).decisions
    assert 0 < learned < drive.log.count_decisions(HOME) - 15
    assert drive.log.count_learned(HOME) == learned
    (said,) = [one.getMessage() for one in caplog.records if "reward definition" in one.getMessage()]
    assert f" {learned} decisions in the log" in said


# --- and the archive


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the log will be."""
    return tmp_path / "log.db"


@pytest.fixture
def filed(file: Path, clock: Clock) -> Iterator[Drive]:
    """The same visitors on a file, with late clicks."""
    with closing(open_log(file, clock=clock)) as log:
        made = Drive(log, clock)
        made.apply(sample_experiment())
        made.visits(60)
        clock.advance(20)
        made.step()
        late_clicks(made, 0.4)
        yield made


def cut(file: Path, *, age: float) -> Path:
    """Archive what is older, in seconds of log time; the part's folder."""
    with closing(open_to_cut(file)) as log:
        before = Time(log.head().time - round(age * SECOND))
        part = archive_old(log, file.with_name("archive"), before=before, remember=SECOND, say=lambda _: None)
    assert part is not None
    return part.folder


def test_archived_decisions_are_learned_anew(filed: Drive, file: Path) -> None:
    """Their late rewards lie in the parts. Log and archive are recomputed together and apart, before and after."""
    mark = relearned(filed.log)
    anew = replace(sample_experiment().policy, relearned=mark)
    before = learn(filed.log, anew)
    cut(file, age=30)
    assert learn(filed.log, anew) == before
    filed.versions.relearn(HOME)
    filed.step()
    filed.visits(30)
    cut(file, age=15)
    filed.visits(10)
    filed.restart()
    filed.visits(10)
    assert_whole(filed.log)
    with closing(open_reader(file, archive=[file.with_name("archive")])) as whole:
        assert_whole(whole)
        assert [one.equal for one in compare_bases(filed.log, whole)] == [True] * len(
            list(compare_bases(filed.log, whole))
        )


def test_an_archive_run_while_a_version_waits(filed: Drive, file: Path) -> None:
    """Its model has learned nothing yet, or half: it goes on with the rewards that were late, out of the part."""
    anew = filed.versions.relearn(HOME).version.experiment.policy
    before = learn(filed.log, anew)
    trainer = Trainer(filed.log, HOME, anew)
    middle = list(filed.log.sealed_decisions(HOME, after=Time(0), until=EVER))[20].deadline
    half = next(p for p in count(1) if filed.log.time_at(Position(p)) >= middle)
    assert trainer.learn_up_to(Mark(Position(half), filed.log.time_at(Position(half)))) > 10
    cut(file, age=30)
    assert half < filed.log.cut().position
    trainer.learn_up_to(filed.log.head().mark)
    assert learn(filed.log, anew) == before
    contexts = [Context(segment=s, device=d) for s in ("new", "vip", "bargain", "") for d in ("mobile", "")]
    choices = filed.log.versions()[-1].all_choices
    assert [tuple(trainer.model().policy.pmf(context, choices)) for context in contexts] == before
    filed.step()
    filed.visits(10)
    assert_whole(filed.log)


def test_learning_goes_on_behind_a_cut_by_the_same_definition(file: Path, clock: Clock) -> None:
    """Decisions of the version before that were open when it began are archived, and the log has kept them to learn."""
    with closing(open_log(file, clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment(reward=RewardDefinition(window=30 * SECOND)))
        drive.visits(20)
        clock.advance(60)
        drive.step()
        first = log.versions()[0]
        changed = RewardDefinition(window=30 * SECOND, weights={"click": -1.0}, minimum=-1.0, maximum=1.0)
        drive.apply(sample_experiment(reward=changed))
        drive.step()
        anew = drive.versions.relearn(HOME).version.experiment.policy
        made = log.append([decision(first, f"open-{n}", action=first.all_active[n % 3]) for n in range(30)])
        log.append([NewReward(mark.position, "click", 1.0) for mark in made[::3] if mark])
        drive.step()
        assert drive.current[HOME].version.number == 3
        clock.advance(35)
        log.append([Tick()])
        before = learn(log, anew)
        cut(file, age=1)
        base = log.models.base(HOME, anew.signature)
        assert base is not None
        assert 0 < base.time < made[0].time + 30 * SECOND if made[0] else False, "what was open is learned behind it"
        assert (log.count_decisions(), learn(log, anew)) == (0, before)


def test_a_missing_part_is_named_before_anything_begins(filed: Drive, file: Path) -> None:
    """A version that waits for ever would be found out much later."""
    folder = cut(file, age=30)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(ArchiveMissing, match=folder.name):
        survey(filed.log, HOME)
    with pytest.raises(FailedPrecondition, match=folder.name) as refused:
        filed.versions.relearn(HOME)
    assert refused.value.reason == "ARCHIVE_MISSING"
    assert len(filed.log.versions()) == 1


# --- the command


def run(*arguments: str | Path) -> Result:
    """`decider relearn` in this process."""
    return CliRunner().invoke(decider, ["relearn", *map(str, arguments)])


def test_the_command_says_what_would_change_and_changes_it(filed: Drive, file: Path) -> None:
    """An analyst wants to know what it is worth first; the second run finds nothing to do."""
    head = filed.log.head()
    dry = run("home", "--db", file, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert dry.stdout.startswith("would learn anew ")
    assert "by what came late, 0 by the definition), mean reward 0." in dry.output
    assert filed.log.head() == head
    real = run("home", "--db", file)
    assert real.exit_code == 0, real.output
    assert real.stdout.replace("learning anew", "would learn anew").startswith(dry.stdout)
    assert real.stdout.endswith("version 2 serves once its model has learned the log\n")
    filed.step()
    assert filed.current[HOME].version.number == 2
    head = filed.log.head()
    again = run("home", "--db", file)
    assert (again.exit_code, filed.log.head()) == (0, head)
    assert again.stdout.startswith("nothing to learn anew: ")
    assert run("home", "--db", file, "--undo").stdout == "version 3 serves once its model has learned the log\n"
    assert run("home", "--db", file, "--undo").stdout == "nothing to undo: its model has not learned anew\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nobody",), "there is no experiment 'nobody'"),
        (("home", "--dry-run", "--undo"), "--dry-run changes nothing"),
        (("home", "--archive", "empty", "--dry-run"), ""),
    ],
)
def test_the_command_says_what_is_wrong(filed: Drive, file: Path, arguments: tuple[str, ...], said: str) -> None:
    """With the way out."""
    ran = run(*arguments, "--db", file)
    assert said in ran.output
    assert (ran.exit_code == 0) == (not said)
    assert len(filed.log.versions()) == 1


def test_waiting_needs_a_server(tmp_path: Path) -> None:
    """Nobody would learn, and the command would wait for ever."""
    assert "there is no such log" in run("shop", "--db", tmp_path / "none.db").output
    write_past(tmp_path / "log.db", 5, shop())
    ran = run("shop", "--db", tmp_path / "log.db", "--wait")
    assert (ran.exit_code, "no server runs on this log" in ran.output) == (1, True)


def test_an_archive_that_only_the_command_knows_is_told_once_and_can_be_undone(
    filed: Drive, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server was not told where the parts lie now. It said so twice a second, and the version waited for ever."""
    folder = cut(file, age=1).parent
    moved = folder.rename(tmp_path / "moved")
    ran = run("home", "--db", file, "--archive", moved)
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.endswith("start it with --archive DIR, too; or put the parts back\n")
    for _ in range(3):
        assert filed.leader.step(), "it tries again"
    (said,) = [one.getMessage() for one in caplog.records if "could not learn" in one.getMessage()]
    assert said.endswith(f"--archive DIR (of this server); or go back: decider relearn home --db {file} --undo")
    assert filed.current[HOME].version.number == 1
    assert run("home", "--db", file, "--undo").stdout == "version 3 is there\n"
    filed.step()
    assert filed.current[HOME].version.number == 3
    filed.visits(3)
    assert verify(filed.log).first is None


# --- a real server


def simulator_verify(db: Path) -> str:
    """What the command says of a log."""
    command = [sys.executable, "-m", "simulator.cli", "verify", str(db)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_a_server_serves_what_was_learned_anew(tmp_path: Path) -> None:
    """Purchases in a store come a day late: without them b was the better action, with them it is a."""
    db = tmp_path / "log.db"
    with closing(SubprocessClient(db)) as client:
        client.apply(experiment("shop", "a", "b", window=2.0))
        taken: list[str] = []
        for number in range(80):
            made = client.decide("shop", f"unit-{number}", decision_id=f"d-{number}")
            if made.action.id == "b":
                client.reward(f"d-{number}", name="click", value=0.25)
            else:
                taken.append(f"d-{number}")
        client.until(lambda: client.rows("select count(*) from sealed_decisions") == [(80,)] or None, what="all sealed")
        assert {client.reward(id_, name="click", reward_id="store") for id_ in taken} == {"late"}
        metrics = client.fetch("/metrics")[1]
        assert f'decider_rewards_total{{experiment="shop",name="click",outcome="late"}} {len(taken)}.0' in metrics

        def share_of_a() -> float:
            ranked = client.decide("shop", "somebody", with_ranking=True).ranking
            return float(next(one.propensity for one in ranked if one.action == "a"))

        before = share_of_a()
        ran = run("shop", "--db", db, "--wait")
        assert (ran.exit_code, ran.stdout.splitlines()[-1]) == (0, "version 2 serves"), ran.output
        client.until(lambda: client.get("shop").version == 2 or None, what="the server follows")
        assert share_of_a() > before
        assert client.get("shop").experiment.HasField("relearned")
        for number in range(40):
            client.decide("shop", f"later-{number}")
        undone = run("shop", "--db", db, "--undo", "--wait")
        assert undone.exit_code == 0, undone.output
        client.until(lambda: client.get("shop").version == 3 or None, what="the server follows")
        assert not client.get("shop").experiment.HasField("relearned")
        client.decide("shop", "last")
    assert "123 of 123" in simulator_verify(db)


DECISIONS = 20_000
"""Some seconds of learning."""


def test_a_server_that_is_killed_while_it_learns_anew_goes_on(tmp_path: Path) -> None:
    """SIGKILL in the middle: the next start learns the same model to the last bit, and the log replays."""
    db = tmp_path / "log.db"
    write_past(db, DECISIONS, shop(policy={"squarecb": {}}))
    with closing(open_log(db)) as log:
        places = [log.locate(DecisionId(f"d{number}")) for number in range(1, DECISIONS, 3)]
        late = [NewReward(place.position, "click", 1.0) for place in places if place and place.action == "a"]
        log.append(late)
    server = ServerProcess(db)
    client = server.client()
    for number in range(20):
        client.decide("shop", f"early-{number}")
    assert run("shop", "--db", db).exit_code == 0

    def learned() -> int | None:
        waiting = client.get("shop").waiting
        return waiting.learned_position if waiting.version == 2 and waiting.learned_position > 0 else None

    until(learned, what="it is learning anew", between=lambda: None)
    server.kill()
    client.close()
    with closing(open_reader(db)) as killed:
        assert not killed.follow(Position(0)).serves, "the version still waits"
    server = ServerProcess(db)
    try:
        with closing(server.client()) as client:
            until(lambda: client.get("shop").version == 2 or None, what="it serves", patience=4 * PATIENCE)
            served = [client.decide("shop", f"u{n}", context={"segment": f"s{n}"}) for n in range(20)]
        assert server.terminate() == 0
    finally:
        with suppress(ProcessLookupError):
            server.kill()
    with closing(open_reader(db)) as reader:
        newest = reader.versions()[-1]
        trainer = Trainer(reader, newest.experiment.id, newest.experiment.policy)
        for one in filter(None, [reader.find(DecisionId(made.decision_id)) for made in served]):
            trainer.learn_up_to(Mark(one.decision.model, reader.time_at(one.decision.model)))
            assert trainer.learned >= DECISIONS
            policy = trainer.model().policy
            assert slots_of(newest, policy, one.decision.context, newest.all_choices) == (one.decision.pmf, None)
    assert f"{DECISIONS + 40} of {DECISIONS + 40}" in simulator_verify(db).replace(",", "")
