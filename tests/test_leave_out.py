"""Leaving out: stretches of sealed decisions from which nobody learns, and models that go back to before them."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from decider.learn.leave_out import NEVER, Stretch, first_change, stretches
from decider.learn.trainer import Trainer, resume_trainer
from decider.log.protocol import LeaveOut, Mark, ModelName, NewLeaveOut
from decider.policy.make import make_policy
from decider.types import START, Position, Time
from tests.conftest import SECOND, spec
from tests.test_learning import HOME, Story, operations, pmfs, told

places = st.sampled_from([*range(8), 12, 20, 40])
"""Half seconds from the story's beginning; few, so that many begin or end together."""

leave_outs = st.lists(st.tuples(places, st.none() | places, st.booleans(), st.integers(0, 60)), max_size=4)
"""(after, until, whether it takes back the newest, after how many steps it is said)."""


def told_with(steps: Sequence[tuple[str, int, float]], left_out: Sequence[tuple[int, int | None, bool, int]]) -> Story:
    """The story, with what is left out said in its middle."""
    story = told([])
    begin = story.clock()
    at = sorted(left_out, key=lambda one: one[3])
    for index in range(len(steps) + 1):
        for after, until, replace, _ in [one for one in at if min(one[3], len(steps)) == index]:
            say(
                story,
                Time(begin + after * SECOND // 2),
                None if until is None else Time(begin + until * SECOND // 2),
                replace,
            )
        if index < len(steps):
            told([steps[index]], story)
    return story


def say(story: Story, after: Time, until: Time | None, replace: bool) -> Position:
    """Leave something out; replace: and take back what was left out last."""
    known = story.log.leave_outs(HOME)
    replaces = known[-1].position if replace and known else None
    (mark,) = story.log.append([NewLeaveOut(HOME, after, until, replaces)])
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
            o.entry.after < sealed.deadline <= (o.entry.until if o.entry.until is not None else NEVER) for o in in_force
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
    steps: list[tuple[str, int, float]], left_out: list[tuple[int, int | None, bool, int]], cuts: list[float]
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
        in_pieces.learn_up_to(mark)
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
        before = made[-1] if made and draw(st.booleans()) else None
        same = before is not None and draw(st.booleans())
        after = before.entry.after if before and same else Time(draw(places))
        until = draw(st.none() | places.map(Time))
        made.append(
            LeaveOut(Position(number + 1), Time(0), NewLeaveOut(HOME, after, until, before and before.position))
        )
    return made


@settings(max_examples=300)
@given(entries(), st.integers(0, 7), st.integers(0, 7), st.integers(0, 45))
def test_before_the_first_change_nothing_differs(made: list[LeaveOut], one: int, other: int, deadline: int) -> None:
    """Whoever has learned up to there need not go back; and there is a difference just behind, or the bound is idle."""
    after, until = Position(min(one, other)), Position(max(one, other))
    first = first_change(made, after=after, until=until)

    def is_left_out(known: Sequence[Stretch]) -> bool:
        return any(stretch.holds(Time(deadline)) for stretch in known)

    if deadline <= first:
        assert is_left_out(stretches(made, after)) == is_left_out(stretches(made, until))


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
