"""Leaving out: stretches of sealed decisions from which nobody learns, and models that go back to before them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.learn.archive import archive
from decider.learn.bad_data import Note, leave_out, roll_back, take_back
from decider.learn.leave_out import NEVER, Stretch, first_change, stretches
from decider.learn.trainer import Trainer, resume_trainer
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import LeaveOut, Mark, ModelName, NewLeaveOut
from decider.policy.make import make_policy
from decider.server.command import main as decider
from decider.types import START, Position, Time
from simulator.verify import verify
from tests.conftest import SECOND, Clock, sample_experiment, spec
from tests.long_logs import shop, write_past
from tests.rpc_clients import ServerProcess, experiment
from tests.test_learning import HOME, Story, operations, pmfs, told
from tests.test_relearn import simulator_verify
from tests.test_verify import Drive

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
        left_out = NewLeaveOut(HOME, after, draw(st.none() | places.map(Time)), replaces)
        made.append(LeaveOut(Position(number + 1), Time(0), left_out))
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
        made = leave_out(log, HOME, begin=begun, end=log.head().time, note=Note("Ada", "the pixel was down"))
        drive.visits(20)
        rolled = roll_back(log, HOME, made.position, note=Note())
        drive.visits(20)
        take_back(log, HOME, made.position, note=Note())
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
    with closing(open_reader(file, archive=[tmp_path / "archive"])) as whole:
        result = verify(whole)
        assert result.equal == result.decisions > everything


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
        (["leave-out", "shop", "--from", "1m", "--reason", "x" * 501], "reason: has 501 characters"),
        (["leave-out", "house", "--from", "1m"], "there is no experiment 'house'"),
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


def head_of(file: Path) -> Position:
    """The last position of a log."""
    with closing(open_reader(file)) as log:
        return log.head().position


def test_a_stretch_is_opened_closed_listed_and_taken_back(shop_log: Path) -> None:
    """As the person does who hears of an outage while it lasts."""
    assert run("leave-out", "shop", "--db", shop_log, "--list").output == "nothing is left out\n"
    opened = run("leave-out", "shop", "--db", shop_log, "--from", "1m", "--author", "Ada", "--reason", "pixel down")
    assert "and it is not over" in opened.output
    listed = run("leave-out", "shop", "--db", shop_log, "--list").output
    assert "it is not over: by Ada pixel down" in listed
    closed = run("leave-out", "shop", "--db", shop_log, "--until", "0s")
    assert ", up to " in closed.output
    position = run("leave-out", "shop", "--db", shop_log, "--list").output.split(":")[0]
    assert "is learned again" in run("leave-out", "shop", "--db", shop_log, "--take-back", position).output
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


SEALED = "select count(*) from sealed_decisions"
STORED = "select distinct position from models where experiment = 'shop' order by position"
