"""`decider doctor`: each cause is found in a log that has it alone, and a healthy log gives no finding."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from decider.decide.decide import decide, in_holdout
from decider.experiment.definition import Action, Experiment, Learning, RewardDefinition
from decider.experiment.guardrails import Guardrail
from decider.experiment.origin import Origin
from decider.learn.bad_data import leave_out
from decider.learn.diagnosis import ENOUGH, diagnose
from decider.learn.finding import Finding
from decider.learn.guardrails import Guardrails
from decider.learn.versions import Versions
from decider.log.memory import MemoryLog
from decider.log.open import open_reader
from decider.log.protocol import EventLog, NewActivation, NewReward, Orphan, RefusedReward, Tick, UnitDecision
from decider.metrics.shared_totals import SharedTotals
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.server.command import main
from decider.types import ActionId, Context, DecisionId, DecisionRequest, ExperimentId, RewardOutcome, Time, now
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.conftest import SECOND, Clock, spec
from tests.long_logs import shop, write_past
from tests.processes import Process
from tests.rpc_clients import InProcessClient, SubprocessClient, experiment
from tests.test_trim_server import learn_again

A, B = Action(ActionId("a")), Action(ActionId("b"))
DAY = 86_400 * SECOND
NAMED = {"purchase": 1.0, "visit": 0.1}


def made(**changes: Any) -> Experiment:
    """Two actions and a window of ten seconds."""
    fields: dict[str, Any] = {"id": ExperimentId("shop"), "actions": (A, B), "baseline": ActionId("b")}
    fields["reward"] = RewardDefinition(window=10 * SECOND)
    return Experiment(**{**fields, **changes})


class World:
    """A log that a process leads, and callers that do as they are told. rewards: (name, value) of the n-th decision."""

    def __init__(self, experiment: Experiment) -> None:
        self.clock = Clock()
        self.log: EventLog = MemoryLog(clock=self.clock)
        self.process = Process(self.log, self.clock)
        self.process.apply(experiment)
        self._count = 0

    def act(
        self,
        decisions: int = 300,
        *,
        reward: Callable[[int], tuple[str, float] | None] = lambda n: ("click", 1.0) if n % 3 == 0 else None,
        late: bool = False,
        activate: bool = False,
        unit: str = "u{}",
        withheld: Mapping[ActionId, str] | None = None,
        learn: bool = True,
        **request: Any,
    ) -> World:
        """More decisions, with their rewards; then their windows are over and learned."""
        version = self.process.current[ExperimentId("shop")].version
        model = Model(make_policy(version.experiment.policy))
        for n in range(self._count, self._count + decisions):
            asked = DecisionRequest(DecisionId(f"d{n}"), unit.format(n), Context(segment=f"s{n % 3}"), **request)
            (mark,) = self.log.append([UnitDecision(decide(asked, version, model), withheld=withheld or {})])
            assert mark is not None
            if activate:
                self.log.append([NewActivation(mark.position)])
            self.clock.advance(11.0 if late else 0.001)
            sent = reward(n)
            if sent is not None:
                self.log.append([NewReward(mark.position, *sent, version.experiment.reward.weights.get(sent[0], 1.0))])
        self._count += decisions
        self.clock.advance(11.0)
        self.log.append([Tick()])
        if learn:
            self.process.step()
        self.clock.advance(120.0)
        self.log.append([Tick()])
        return self

    def found(self) -> list[Finding]:
        """By the doctor; the log can be recomputed."""
        assert verify(self.log).first is None
        return diagnose(self.log, now=self.clock())

    def checks(self) -> list[str]:
        """The names of what is found."""
        return [one.check for one in self.found()]


def test_a_healthy_log_gives_no_finding() -> None:
    """Whoever cries wolf is not asked again. Few decisions are no fault either, nor is a rare reward."""
    world = World(made())
    assert [(one.check, one.is_note) for one in world.found()] == [("no_decisions", True)]
    assert world.act(30, reward=lambda _: None).checks() == []
    assert world.act(600).checks() == []
    assert World(made(reward=RewardDefinition(window=10 * SECOND, weights=NAMED))).act(
        600, reward=lambda n: ("visit", 1.0) if n % 3 == 0 else None
    ).checks() == []  # fmt: skip
    assert World(made(needs_activation=True, holdout=0.1)).act(activate=True).checks() == []


def test_no_rewards() -> None:
    """Never any, and none of late where there were many; rewards of half a percent may be missing in a day."""
    assert World(made()).act(reward=lambda _: None).checks() == ["no_rewards"]
    world = World(made()).act()
    world.clock.advance(DAY / SECOND)
    (only,) = world.act(reward=lambda _: None).found()
    assert (only.check, only.is_note) == ("no_rewards", False)
    assert "before 33.3 % had" in only.text
    rare = World(made()).act(1000, reward=lambda n: ("click", 1.0) if n % 200 == 0 else None)
    rare.clock.advance(DAY / SECOND)
    assert rare.act(reward=lambda _: None).checks() == []


def test_no_rewards_names_the_names_that_count() -> None:
    """A reward with another name is refused, and nothing of it is in the log."""
    (only,) = World(made(reward=RewardDefinition(window=10 * SECOND, weights=NAMED))).act(
        reward=lambda _: None
    ).found()  # fmt: skip
    assert "with another name than purchase, visit they are refused" in only.way_out


def test_a_name_that_nobody_sends() -> None:
    """The purchase is what counts, and only visits come."""
    experiment = made(reward=RewardDefinition(window=10 * SECOND, weights={"order": 1.0, "visit": 0.1}))
    world = World(experiment).act(1000, reward=lambda n: ("visit", float(n % 2)))
    (only,) = world.found()
    assert (only.check, "none has a reward named order" in only.text) == ("names", True)


def test_late_rewards() -> None:
    """The window is too short: all get the default, though rewards come."""
    (only,) = World(made()).act(late=True).found()
    assert (only.check, "100 of 100 rewards came after the window of 10 s" in only.text) == ("late", True)


def test_never_activated() -> None:
    """Nothing counts, so nothing is learned."""
    experiment = made(needs_activation=True)
    assert World(experiment).act().checks() == ["never_activated"]


def test_ids_that_match_nothing() -> None:
    """They are counted and lost; one in ten thousand is a test of somebody's."""
    world = World(made()).act()
    world.log.append([Orphan("click")] * 20)
    assert world.checks() == []
    world.log.append([Orphan("click")] * 80)
    (only,) = world.found()
    assert (only.check, only.experiment) == ("unknown_ids", "")
    assert "100 of 200 rewards name a decision that the log does not have; their names: click" in only.text


def test_refused_and_clipped_values() -> None:
    """A price in cents where the range is 0 to 1: every purchase is worth the same, or nothing."""
    world = World(made()).act()
    world.log.append([RefusedReward("price", RewardOutcome.OUT_OF_RANGE)] * 60)
    assert world.checks() == ["out_of_range"]
    world = World(made()).act(900, reward=lambda n: ("price", 5.0 + n) if n % 3 == 0 else None)
    assert world.checks() == ["clipped"]


def test_names_that_nobody_declares() -> None:
    """A purchase that is misspelled is refused, and lost; there are few beside the visits. Once it is sent right, the
    old number is no longer told."""
    world = World(made(reward=RewardDefinition(window=10 * SECOND, weights=NAMED)))
    world.act(900, reward=lambda n: ("visit", 1.0) if n % 2 else None)
    refused = RefusedReward("purchse", RewardOutcome.UNDECLARED)
    world.log.append([refused] * 20)
    assert world.checks() == []
    world.log.append([refused, RefusedReward("page_view", RewardOutcome.UNDECLARED)])
    (only,) = world.found()
    assert (only.check, only.experiment, only.is_note) == ("undeclared", "", False)
    assert only.text.endswith("does not declare their names: purchse (21; did you mean purchase?)")
    assert "22 rewards were refused" in only.text
    assert "declares (purchase, visit), or declare the one that is sent" in only.way_out
    world.act(600, reward=lambda n: ("purchase", 1.0) if n % 3 == 0 else None)
    assert world.checks() == []


def test_a_reward_that_says_nothing() -> None:
    """Sent with every page view: each decision earns one."""
    assert World(made()).act(reward=lambda _: ("view", 1.0)).checks() == ["constant"]


def test_a_window_that_is_long() -> None:
    """Nothing is learned before it ends; and where rewards come at once it is longer than need be, which may be
    meant."""
    world = World(made(reward=RewardDefinition(window=30 * DAY))).act(10)
    (only,) = world.found()
    assert (only.check, only.is_note) == ("window", False)
    assert "the window of none of its 10 decisions is over yet, it takes 30 days" in only.text
    world.act(600)
    world.clock.advance(31 * DAY / SECOND)
    world.log.append([Tick()])
    world.process.step()
    assert [(one.check, one.is_note) for one in world.found()] == [("window", True)]


def test_one_action_is_never_eligible() -> None:
    """Whether a rule says so or the callers; the rule is named."""
    never = replace(A, eligible_if='segment == "nobody"')
    world = World(made(actions=(never, B, Action(ActionId("c")))))
    (only,) = world.act(withheld={A.id: "eligible_if"}).found()
    assert (only.check, "a; taken out by eligible_if" in only.text) == ("never_eligible", True)
    world = World(made(actions=(A, B, Action(ActionId("c"))))).act(eligible=("a", "b"))
    (only,) = world.found()
    assert (only.check, "could be chosen: c; no call has allowed it" in only.text) == ("never_eligible", True)


def test_decisions_without_a_choice() -> None:
    """One eligible action; one unit for all, which is in the holdout; and callers that never explore."""
    assert World(made()).act(eligible=("a",)).checks() == ["one_eligible"]
    assert World(made()).act(explore=False).checks() == ["no_exploration"]
    found = [World(made(holdout=0.5)).act(ENOUGH, unit=f"one-{n}").checks() for n in range(6)]
    assert ["holdout"] in found
    assert [] in found


def test_what_is_left_out_and_not_over() -> None:
    """Somebody has forgotten to end it."""
    world = World(made()).act()
    leave_out(world.log, ExperimentId("shop"), begin=world.clock(), end=None, origin=Origin("ann", "test", "a bot"))
    (only,) = world.found()
    assert only.check == "left_out"
    assert "ann left it out, and it is not over: a bot" in only.text


def test_what_is_meant_is_a_note() -> None:
    """It answers the question, and is no fault; nothing else is said about such an experiment."""
    for changes, check in (
        ({"paused": True}, "paused"),
        ({"learning": Learning.FROZEN}, "learning"),
        ({"policy": replace(made().policy, algorithm="uniform", parameters={})}, "policy"),
    ):
        world = World(made())
        world.act(reward=lambda _: None)
        world.process.apply(made(**changes))
        assert [(one.check, one.is_note) for one in world.found()] == [(check, True)]
    world = World(made())
    world.process.apply(made(ended=True))
    assert world.found() == []


def test_a_version_that_waits() -> None:
    """The new policy does not decide yet, which looks as if the change had no effect; once it has learned, it does."""
    world = World(made()).act(600)
    world.process.apply(made(policy=spec("squarecb")))
    (only,) = world.found()
    assert (only.check, only.is_note) == ("waits", True)
    assert "version 2 waits until its policy has learned the log" in only.text
    assert "/readyz says how far it is" in only.way_out
    world.process.step()
    assert world.checks() == []


def test_a_guardrail_that_was_crossed() -> None:
    """Everybody gets the baseline, so there is nothing to learn; before, and with little harm, nothing is said."""
    guarded = made(
        actions=(A, B, Action(ActionId("c"))), holdout=0.2,
        guardrails=(Guardrail("unsubscribe", 0.01, falls_back=True),),
        reward=RewardDefinition(window=10 * SECOND, weights={"click": 1.0, "unsubscribe": 0.0}),
    )  # fmt: skip
    world = World(guarded)

    def harm(n: int) -> tuple[str, float] | None:
        """To everybody but the holdout; a click now and then."""
        held_out = in_holdout(world.process.current[ExperimentId("shop")].version, f"u{n}")
        return ("click", 1.0) if n % 5 == 0 else ("unsubscribe", 1.0) if n % 2 and not held_out else None

    assert world.act(900, reward=harm).checks() == []
    totals = SharedTotals(world.log)
    Guardrails(world.log, world.process.versions, totals.read, clock=world.clock).look()
    (only,) = world.found()
    assert (only.check, only.is_note) == ("guardrail", True)
    assert "everybody gets the baseline, since the guardrail unsubscribe was crossed" in only.text
    assert only.way_out.endswith("decider resume shop")
    world.process.set_paused(ExperimentId("shop"), paused=False)
    assert world.checks() == []


def test_a_policy_that_is_never_asked(tmp_path: Path) -> None:
    """A decision too dear for the budget, and a cap that one id for all has used up: with a server, which decides by
    its own clock and budget. What goes well beside them is not named."""
    dear = experiment("dear", "a", "b", baseline_action="b", policy=experiment_pb2.Policy(
        squarecb=experiment_pb2.SquareCb(), interactions=["CCCC"]))  # fmt: skip
    capped = experiment("capped", "none", "sale", baseline_action="none")
    capped.caps.add(action="sale", most=1).per.FromSeconds(3600)
    many = pb.Context()
    many.features.update({f"f{number}": float(number) for number in range(100)})
    with closing(InProcessClient(tmp_path / "shop.db")) as served:
        for message in (dear, capped, experiment("well")):
            served.apply(message)
        for request in (
            pb.DecideRequest(experiment="dear", unit_id="u", context=many),
            pb.DecideRequest(experiment="capped", unit_id="visitor", eligible_actions=["sale"]),
            pb.DecideRequest(experiment="well", unit_id="u"),
        ):
            assert not any(one.HasField("error") for one in served.decide_batch([request] * (ENOUGH + 10)))
        with closing(open_reader(served.db)) as log:
            found = {one.experiment: one for one in diagnose(log, now=now())}
    assert {id_: one.check for id_, one in found.items()} == {"dear": "fallback", "capped": "withheld"}
    assert "200 of the newest 200 decisions fell back to the baseline" in found["dear"].text
    assert "send fewer features, or raise --decide-budget" in found["dear"].way_out
    assert "caps and budgets left nothing" in found["capped"].text
    assert "send the real unit_id" in found["capped"].way_out


def test_a_log_without_any_experiment() -> None:
    """Every call gets NOT_FOUND, and nobody has said why."""
    log = MemoryLog(clock=Clock())
    (only,) = diagnose(log, now=Clock()())
    assert (only.experiment, only.check) == ("", "no_experiment")
    assert "decider apply FILE" in only.way_out
    Versions(log).apply(made())
    assert [one.check for one in diagnose(log, now=Clock()())] == ["no_decisions"]


def test_a_part_of_the_archive_that_is_away(tmp_path: Path) -> None:
    """What has to be learned lies in it. Where the folder was only moved, naming it is the way out."""
    db, folder = tmp_path / "shop.db", tmp_path / "archive"
    write_past(db, 600, shop(), pause=30.0)
    assert CliRunner().invoke(main, ["archive", "--db", str(db), "--before", "1s", str(folder)]).exit_code == 0
    learn_again(db)

    def only(*more: str) -> dict[str, str]:
        """The one finding of the command."""
        done = CliRunner().invoke(main, ["doctor", "--db", str(db), "--json", *more])
        (found,) = json.loads(done.stdout)["findings"]
        return dict(found)

    assert only()["check"] == "not_learned", "nobody serves this log"
    folder.rename(tmp_path / "moved")
    missing = only()
    assert missing["check"] == "archive"
    assert str(folder) in missing["text"]
    assert "decider serve --archive DIR" in missing["way_out"]
    assert only("--archive", str(tmp_path / "moved"))["check"] == "not_learned"


def test_nobody_learns() -> None:
    """The server was never started on this log, or its rounds fail."""
    (only,) = World(made()).act(600, learn=False).found()
    assert (only.check, "no model was ever published" in only.text) == ("not_learned", True)


def test_a_clock_that_was_ahead() -> None:
    """Log time does not go back, so windows end by elapsed time until the clock has caught up."""
    world = World(made()).act()
    (only,) = diagnose(world.log, now=Time(world.clock() - 3_600 * SECOND))
    assert (only.check, "1 h ahead" in only.text or "60 min ahead" in only.text) == ("clock", True)


# --- the command


def test_the_command_says_what_is_wrong_and_the_way_out(tmp_path: Path) -> None:
    """For people and for scripts, with an exit code; a log that cannot be read is something else."""
    write_past(tmp_path / "shop.db", 600, shop(), pause=30.0)
    done = CliRunner().invoke(main, ["doctor", "--db", str(tmp_path / "shop.db")])
    assert done.exit_code == 1
    assert "experiment shop: no model was ever published" in done.stdout
    assert "  way out: look whether a server runs on this log" in done.stdout
    done = CliRunner().invoke(main, ["doctor", "--db", str(tmp_path / "shop.db"), "--json"])
    content = json.loads(done.stdout)
    assert (content["healthy"], [one["check"] for one in content["findings"]]) == (False, ["not_learned"])
    done = CliRunner().invoke(main, ["doctor", "--db", str(tmp_path / "none.db"), "--json"])
    assert (done.exit_code, done.stdout) == (2, "")


def test_a_running_server_is_asked(tmp_path: Path) -> None:
    """What it says on /readyz comes first; a healthy one adds nothing, one that is not there does."""
    write_past(tmp_path / "shop.db", 600, shop())
    served = SubprocessClient(tmp_path / "shop.db")
    args = ["doctor", "--db", str(tmp_path / "shop.db"), "--http"]
    try:
        done = CliRunner().invoke(main, [*args, served.http])
        assert (done.exit_code, done.stdout) == (
            0, "nothing stands in the way of learning, as far as the log shows\n",
        )  # fmt: skip
    finally:
        served.close()
    done = CliRunner().invoke(main, [*args, served.http])
    assert (done.exit_code, "does not answer" in done.stdout) == (1, True)
