"""Learning modes: who decides, and whether the policy learns. A switch is a new version, and every log replays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from decider.decide.agreement import agreement_of
from decider.decide.decide import SlotsCache, decide
from decider.decide.slots import SLOTS
from decider.errors import InvalidExperiment
from decider.experiment.definition import Action, Learning
from decider.experiment.schema import definition_text, from_message, parse_toml
from decider.learn.trainer import Trainer
from decider.learn.versions import Versions
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader
from decider.log.protocol import EventLog, LogReader, Mark, NewActivation, NewReward
from decider.policy.algorithms import ALGORITHMS
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.types import ActionId, Context, DecisionId, DecisionRequest, ExperimentId, Position, Reason
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.agreement import NoApprentice, compare
from simulator.commands.group import main
from simulator.verify import verify
from tests.conftest import LEARNING, Clock, sample_experiment, sample_version, spec
from tests.processes import Process
from tests.rpc_clients import (
    InProcessClient,
    RpcClient,
    SubprocessClient,
    code_of,
    experiment,
    fields_of,
    refused,
    status_of,
)

HOME = ExperimentId("home")
SALE, OUTFIT, NONE = map(ActionId, ("sale", "outfit", "none"))
APPRENTICE, LOG_ONLY = experiment_pb2.LEARNING_APPRENTICE, experiment_pb2.LEARNING_LOG_ONLY


def served(reply: pb.DecideResponse) -> tuple[str, str, float]:
    """What a caller sees of an answer."""
    return reply.action.id, pb.Reason.Name(reply.reason).removeprefix("REASON_"), reply.propensity


def apprentice(id_: str, **fields: Any) -> experiment_pb2.Experiment:
    """An apprentice with the baseline a."""
    return experiment(id_, **{"learning": APPRENTICE, "baseline_action": "a", **fields})


@pytest.fixture(scope="module")
def replayed(client: RpcClient) -> Iterator[RpcClient]:
    """Whatever the tests below do, the log replays."""
    yield client
    with closing(open_reader(client.db)) as log:
        found = verify(log)
    assert found.equal == found.decisions > 0, found.first


@pytest.fixture
def mine(mine: str, replayed: RpcClient) -> str:  # noqa: ARG001 - at its end the log replays
    """The id of the test's own experiment."""
    return mine


# What is served.


@pytest.mark.parametrize(("learning", "reason"), [(APPRENTICE, "APPRENTICE"), (LOG_ONLY, "BASELINE")])
def test_the_caller_s_default_action_is_served(client: RpcClient, mine: str, learning: Any, reason: str) -> None:
    """Nothing changes for visitors. What came out is in the log: this action, for certain."""
    client.apply(apprentice(mine + reason, learning=learning))
    for action in ("b", "c", "a"):
        reply = client.decide(mine + reason, default_action=action, with_ranking=True)
        assert served(reply) == (action, reason, 1.0)
        assert [one.propensity for one in reply.ranking] == [1.0, 0.0, 0.0]
    assert served(client.decide(mine + reason)) == ("a", reason, 1.0), "without one, the baseline action"


@pytest.mark.parametrize("learning", [experiment_pb2.LEARNING_ONLINE, experiment_pb2.LEARNING_UNSPECIFIED])
def test_where_the_policy_decides_a_default_action_has_no_effect(client: RpcClient, mine: str, learning: Any) -> None:
    """Callers send it always: a switch needs no new frontend. An unknown one is no error then either."""
    client.apply(experiment(mine, learning=learning))
    for number in range(10):
        reply = client.decide(mine, decision_id=f"{mine}-{learning}-{number}", default_action="b")
        without = client.decide(mine, decision_id=f"{mine}-{learning}-{number}")
        assert reply == without
        assert reply.propensity < 1
    assert not client.decide(mine, default_action="gone", excluded_actions=["gone"]).ignored_actions[1:]


def test_a_default_action_that_was_retired_is_left_out_and_told(client: RpcClient, mine: str) -> None:
    """A frontend is deployed later than an experiment: the baseline action is served, and no call fails."""
    message = apprentice(mine)
    message.actions[2].state = experiment_pb2.ACTION_STATE_RETIRED
    client.apply(message)
    for name in ("c", "never-there"):
        reply = client.decide(mine, default_action=name, decision_id=f"{mine}-{name}")
        assert served(reply) == ("a", "APPRENTICE", 1.0)
        assert list(reply.ignored_actions) == [name]
        assert client.decide(mine, default_action=name, decision_id=f"{mine}-{name}") == reply


@pytest.mark.parametrize("fields", [{"excluded_actions": ["b"]}, {"eligible_actions": ["a", "c"]}])
def test_a_call_that_leaves_its_own_default_action_out_is_refused(
    client: RpcClient, mine: str, fields: dict[str, Any]
) -> None:
    """What it wants is not known: the error names the field."""
    client.apply(apprentice(mine))
    status = status_of(partial(client.decide, mine, default_action="b", **fields))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", ["default_action"])
    assert "of the same call" in status.message


@pytest.mark.parametrize("name", ["", "never-there"])
def test_without_a_baseline_a_call_has_to_name_its_default_action(client: RpcClient, mine: str, name: str) -> None:
    """An action by lot would be an experiment with visitors, which is what an apprentice is not."""
    client.apply(apprentice(mine, baseline_action=""))
    assert client.decide(mine, default_action="b").action.id == "b"
    status = status_of(partial(client.decide, mine, default_action=name))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", ["default_action"])
    assert "baseline_action" in status.message


def test_a_rule_that_leaves_the_default_action_out_wins(client: RpcClient, mine: str) -> None:
    """What must not be shown to this visitor is not shown: the baseline action is, without an error."""
    message = apprentice(mine)
    message.actions[1].eligible_if = "segment == 'vip'"
    client.apply(message)
    assert client.decide(mine, default_action="b", context=pb.Context(segment="vip")).action.id == "b"
    assert served(client.decide(mine, default_action="b")) == ("a", "APPRENTICE", 1.0)


def test_a_cap_holds_for_default_actions_too(client: RpcClient, mine: str) -> None:
    """At most twice a week is said of visitors, not of policies. Then the baseline action is served; in a control group
    that does not act as well."""
    message = apprentice(mine, holdout=0.99)
    message.caps.add(action="b", most=2).per.FromSeconds(3600)
    client.apply(message)
    replies = [served(client.decide(mine, "visitor", default_action="b")) for _ in range(4)]
    assert replies == [("b", "APPRENTICE", 1.0)] * 2 + [("a", "APPRENTICE", 1.0)] * 2
    only = client.decide(mine, "visitor", default_action="b", eligible_actions=["b"])
    assert served(only) == ("a", "WITHHELD", 1.0)


def test_without_an_eligible_default_every_action_is_served_alike(client: RpcClient, mine: str) -> None:
    """As wherever the baseline action is not eligible. The propensities are those of the lot."""
    client.apply(apprentice(mine))
    replies = [client.decide(mine, f"u{number}", excluded_actions=["a"]) for number in range(20)]
    assert {reply.action.id for reply in replies} == {"b", "c"}
    assert {served(reply)[1:] for reply in replies} == {("APPRENTICE", 0.5)}


def test_a_single_eligible_action_is_no_agreement(client: RpcClient, mine: str) -> None:
    """There was nothing to choose, so nobody agreed."""
    client.apply(apprentice(mine))
    assert served(client.decide(mine, eligible_actions=["b"])) == ("b", "ONLY_ELIGIBLE", 1.0)


def test_an_apprentice_has_no_control_group(client: RpcClient, mine: str) -> None:
    """Everybody gets the default action: calling some of it control would compare a thing with itself."""
    client.apply(apprentice(mine, holdout=0.5))
    replies = [client.decide(mine, f"u{number}", default_action="b") for number in range(20)]
    assert {served(reply) for reply in replies} == {("b", "APPRENTICE", 1.0)}


def test_without_exploration_the_default_action_is_served_too(client: RpcClient, mine: str) -> None:
    """`explore` asks the policy for less, and here it is not the policy that serves."""
    client.apply(apprentice(mine))
    assert served(client.decide(mine, default_action="c", explore=False)) == ("c", "APPRENTICE", 1.0)


def test_a_batch_has_a_default_action_each(client: RpcClient, mine: str) -> None:
    """Nothing of the calls is mixed up; one that is wrong does not fail the others."""
    client.apply(apprentice(mine))
    wanted = [("b", ()), ("b", ("b",)), ("c", ())]
    requests = [
        pb.DecideRequest(experiment=mine, unit_id="u", default_action=default, excluded_actions=excluded)
        for default, excluded in wanted
    ]
    first, second, third = client.decide_batch(requests)
    assert (first.response.action.id, third.response.action.id) == ("b", "c")
    assert second.error.code


def test_a_retry_gets_the_stored_decision(client: RpcClient, mine: str) -> None:
    """The id says which call it is, whatever the page would show now."""
    client.apply(apprentice(mine))
    first = client.decide(mine, decision_id=f"{mine}-1", default_action="b")
    assert client.decide(mine, decision_id=f"{mine}-1", default_action="c") == first


def test_a_slot_has_a_default_action_of_its_own(client: RpcClient, mine: str) -> None:
    """As Personalizer's multi-slot call has. What a slot before has taken is not eligible any more."""
    client.apply(apprentice(mine))
    slots = [pb.Slot(default_action="c"), pb.Slot(default_action="c"), pb.Slot(default_action="b")]
    request = pb.DecideSlateRequest(experiment=mine, unit_id="u", slots=slots)
    reply = client.call("DeciderService", "DecideSlate", request)
    assert [served(one) for one in reply.decisions] == [
        ("c", "APPRENTICE", 1.0),
        ("a", "APPRENTICE", 1.0),
        ("b", "ONLY_ELIGIBLE", 1.0),
    ]


def test_a_call_s_own_action_can_be_its_default(client: RpcClient, mine: str) -> None:
    """Personalizer's default is the first action of the call, which no file declares."""
    message = apprentice(mine)
    message.policy.squarecb.SetInParent()
    message.actions_in_calls.most = 10
    client.apply(message)
    brought = [pb.CalledAction(id="article-7"), pb.CalledAction(id="article-8")]
    assert served(client.decide(mine, actions=brought, default_action="article-8"))[:2] == ("article-8", "APPRENTICE")
    status = status_of(
        partial(client.decide, mine, actions=brought, default_action="article-8", excluded_actions=["article-8"])
    )
    assert fields_of(status) == ["default_action"]


def test_a_unit_that_keeps_its_decision_gets_what_its_caller_shows(client: RpcClient, mine: str) -> None:
    """Sticky holds as long as the caller's choice does: an apprentice overrides nobody."""
    message = apprentice(mine)
    message.sticky.FromSeconds(600)
    client.apply(message)
    first = client.decide(mine, "visitor", default_action="b")
    again = client.decide(mine, "visitor", default_action="b")
    assert (again.decision_id, again.reason) == (first.decision_id, pb.REASON_STICKY)
    other = client.decide(mine, "visitor", default_action="c")
    assert served(other) == ("c", "APPRENTICE", 1.0)
    assert client.decide(mine, "visitor", default_action="c").decision_id == other.decision_id


def test_what_callers_chose_is_not_kept_once_the_policy_chooses(client: RpcClient, mine: str) -> None:
    """Else the first weeks online would show what the apprentice's callers did, to the control group, too."""
    message = apprentice(mine, holdout=0.5)
    message.sticky.FromSeconds(600)
    units = [f"visitor-{number}" for number in range(20)]
    seen = []
    for learning in (APPRENTICE, LOG_ONLY, experiment_pb2.LEARNING_ONLINE, experiment_pb2.LEARNING_FROZEN, APPRENTICE):
        message.learning = learning
        client.apply(message)
        seen.append([client.decide(mine, unit, default_action="c") for unit in units])
    first, same, online, frozen, again = seen
    assert [one.decision_id for one in same] == [one.decision_id for one in first]
    assert [one.decision_id for one in frozen] == [one.decision_id for one in online]
    assert {one.reason for one in frozen} == {pb.REASON_STICKY}
    assert {one.action.id for one in online if one.reason == pb.REASON_HOLDOUT} == {"a"}
    assert pb.REASON_STICKY not in {one.reason for one in [*online, *again]}
    assert [served(one) for one in again] == [("c", "APPRENTICE", 1.0)] * 20


# What is learned.


class Story(Process):
    """Visitors whose page shows the sale to vips and outfits to all others; the sale is what vips want."""

    def __init__(self, log: EventLog, clock: Clock, seed: int = 1) -> None:
        super().__init__(log, clock)
        self.random = Random(seed)
        self.count = 0

    def switch(self, learning: Learning, **changes: Any) -> None:
        """Apply the sample experiment in this mode."""
        self.apply(sample_experiment(learning=learning, **changes))
        self.step()

    def visit(self, count: int, **fields: Any) -> None:
        """Decisions with rewards; then all windows end, and what they teach is learned."""
        for _ in range(count):
            self.count += 1
            segment = self.random.choice(["vip", "new"])
            context = Context(segment=segment)
            default = SALE if segment == "vip" else OUTFIT
            request = DecisionRequest(DecisionId(f"d-{self.count}"), f"u-{self.count % 50}", context, default=default)
            made = decide(request._replace(**fields), *self.current[HOME])
            (mark,) = self.log.append([made])
            assert mark is not None
            if self.random.random() < CHANCES[segment][made.action]:
                self.log.append([NewReward(mark.position, "click", 1.0)])
            self.clock.advance(0.1)
        self.clock.advance(11)
        self.step()

    @property
    def learned(self) -> int:
        """Decisions learned since this process began."""
        return sum(count for _, count in self.heard)


CHANCES = {"vip": {SALE: 0.8, OUTFIT: 0.1, NONE: 0.2}, "new": {SALE: 0.1, OUTFIT: 0.5, NONE: 0.3}}


def replay(log: LogReader) -> None:
    """N of N."""
    found = verify(log)
    assert found.equal == found.decisions > 0, found.first


def test_each_mode_learns_what_it_says(log: EventLog, clock: Clock) -> None:
    """online and apprentice learn, log_only and frozen do not, and the model goes on over every switch."""
    story = Story(log, clock)
    expected = 0
    for learning in ("online", "apprentice", "log_only", "apprentice", "frozen", "online", "log_only", "online"):
        story.switch(Learning(learning))
        before = story.current[HOME].model.position
        story.visit(30)
        expected += 30 if learning in ("online", "apprentice") else 0
        assert story.learned == expected, learning
        assert (story.current[HOME].model.position > before) == (learning in ("online", "apprentice"))
    reasons = {made.decision.reason for version in log.versions() for made in log.decisions(version.position)}
    assert {Reason.APPRENTICE, Reason.BASELINE, Reason.EXPLOIT} <= reasons
    story.restart()
    story.visit(10)
    replay(log)


def test_what_was_only_logged_is_not_learned_later(log: EventLog, clock: Clock) -> None:
    """log_only says so of its decisions for ever; a log that is to be learned is imported."""
    story = Story(log, clock)
    story.switch(Learning.LOG_ONLY)
    story.visit(20)
    story.switch(Learning.ONLINE)
    assert story.current[HOME].model.position == 0
    story.visit(5)
    assert story.learned == 5
    replay(log)


def test_what_came_before_the_switch_is_learned_after_it(log: EventLog, clock: Clock) -> None:
    """A purchase in a window that is open at the switch counts: its decision says how, not the newest version."""
    story = Story(log, clock)
    story.switch(Learning.ONLINE)
    made = decide(DecisionRequest(DecisionId("last"), "u"), *story.current[HOME])
    log.append([made])
    story.switch(Learning.APPRENTICE)
    clock.advance(11)
    story.step()
    assert story.learned == 1


def test_only_activated_decisions_teach_an_apprentice_that_requires_it(log: EventLog, clock: Clock) -> None:
    """A page that was never rendered is no proof that the default action fails."""
    story = Story(log, clock)
    story.switch(Learning.APPRENTICE, needs_activation=True)
    for number in range(4):
        request = DecisionRequest(DecisionId(f"a-{number}"), "u", default=SALE)
        (mark,) = log.append([decide(request, *story.current[HOME])])
        assert mark is not None
        if number < 2:
            log.append([NewActivation(mark.position, NONE if number else None)])
    clock.advance(11)
    story.step()
    assert story.learned == 1, "shown as served; the other one was overridden"
    found = compare(log, HOME)
    assert (found.shares().decisions, found.unrewarded) == (4, {"not activated": 2, "overridden": 1})


NARROW = {"thompson": {"width": 0.01}}
"""Thompson sampling shows most what it knows least, here the sale for others: so narrow, its pmf follows the mean."""


@pytest.mark.parametrize(
    "algorithm", [name for name in LEARNING if name != "rnd" and not ALGORITHMS[name].no_apprentice]
)  # rnd likes what is new to it
def test_an_apprentice_comes_to_know_what_the_default_earns(log: EventLog, clock: Clock, algorithm: str) -> None:
    """It is a regression of the rewards of what was shown: after it, the policy likes the sale for vips better than
    for others, without ever having drawn it."""
    story = Story(log, clock)
    story.switch(Learning.APPRENTICE, policy=spec(algorithm, **NARROW.get(algorithm, {})))
    story.visit(200)
    version, model, _ = story.current[HOME]
    choices = version.choices_of(version.all_active, {})
    contexts = [Context(segment=one) for one in ("vip", "new")]
    sale, outfit = ([choice.id for choice in choices].index(one) for one in (SALE, OUTFIT))
    vip, new = (model.policy.pmf(context, choices) for context in contexts)
    scores = model.policy.scores(contexts, choices)
    assert scores is not None
    assert model.position > 0
    assert vip[sale] >= new[sale]
    assert scores[0].expected[sale] > scores[1].expected[sale]
    assert scores[0].expected[sale] > scores[0].expected[outfit]
    replay(log)


# What is refused when it is applied, and what is said.


@pytest.mark.parametrize("algorithm", ["uniform", "fixed", "cover", "first"])
def test_a_policy_that_cannot_be_an_apprentice_is_refused(clock: Clock, algorithm: str) -> None:
    """The reason is in the error, and the way out; only logging is possible with each."""
    with closing(MemoryLog(clock=clock)) as log, pytest.raises(InvalidExperiment) as told:
        Versions(log).apply(sample_experiment(learning=Learning.APPRENTICE, policy=spec(algorithm)))
    assert [violation.field for violation in told.value.violations] == ["learning"]
    assert "LOG_ONLY" in str(told.value)
    with closing(MemoryLog(clock=clock)) as log:
        assert Versions(log).apply(sample_experiment(learning=Learning.LOG_ONLY, policy=spec(algorithm))).changed


def test_what_surprises_is_said_when_it_is_applied(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Who reads the server's output learns it before the first call does."""
    with closing(MemoryLog(clock=clock)) as log:
        Versions(log).apply(sample_experiment(learning=Learning.APPRENTICE, holdout=0.1))
        Versions(log).apply(sample_experiment(learning=Learning.LOG_ONLY, baseline=None))
        shared = Action(SALE, "offer", {"discount": 0.2, "colour": "red"}, max_share=0.5)
        actions = (shared, Action(OUTFIT), Action(ActionId("old"), retired=True), Action(NONE, "none"))
        Versions(log).apply(sample_experiment(learning=Learning.APPRENTICE, actions=actions))
        Versions(log).apply(sample_experiment(holdout=0.1))
    first, second, third = [record.getMessage() for record in caplog.records]
    assert "no control group" in first
    assert "calls without a default_action are refused" in second
    assert "min_share and max_share do not hold" in third


def test_what_a_new_action_may_take_is_said_where_nothing_bounds_it(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody wants to learn from the dashboard that most visitors see what nobody has tried. A first version has no
    traffic yet, a bound is meant, and what comes back has been tried."""
    sale, outfit = Action(SALE, "offer"), Action(OUTFIT)
    retired, shoe = Action(OUTFIT, retired=True), Action(ActionId("shoe"))
    with closing(MemoryLog(clock=clock)) as log:
        Versions(log).apply(sample_experiment(actions=(sale, outfit)))
        Versions(log).apply(sample_experiment(actions=(sale, retired, Action(ActionId("hat"), max_share=0.2))))
        Versions(log).apply(sample_experiment(actions=(sale, outfit), policy=spec("squarecb")))
        Versions(log).apply(sample_experiment(actions=(sale, outfit, shoe), policy=spec("squarecb")))
        assert not caplog.records
        Versions(log).apply(sample_experiment(actions=(sale, outfit, Action(ActionId("sock")))))
    (said,) = [record.getMessage() for record in caplog.records]
    assert "'sock'" in said
    assert "max_share" in said


FILE = """
id = "e"
baseline_action = "a"
{learning}
[[actions]]
id = "a"
[[actions]]
id = "b"
"""


@pytest.mark.parametrize(
    ("text", "learning"),
    [
        ("", Learning.ONLINE),
        ('learning = "online"', Learning.ONLINE),
        ('learning = "apprentice"', Learning.APPRENTICE),
        ('learning = "log-only"', Learning.LOG_ONLY),
        ('learning = "log_only"', Learning.LOG_ONLY),
        ('learning = "LEARNING_LOG_ONLY"', Learning.LOG_ONLY),
        ('learning = "frozen"', Learning.FROZEN),
    ],
)
def test_a_file_says_the_mode_in_one_word(text: str, learning: Learning) -> None:
    """As people write it; what is stored is the same."""
    assert from_message(parse_toml(FILE.format(learning=text), "e.toml")).learning is learning


def test_a_wrong_mode_names_the_right_ones(tmp_path: Path) -> None:
    """Before anything starts."""
    (tmp_path / "e.toml").write_text(FILE.format(learning='learning = "loging"'))
    code, output = refused(tmp_path / "log.db", "--experiments", str(tmp_path / "e.toml"))
    assert code == 1
    assert "'loging' is none of online, frozen, apprentice, log_only" in output


@pytest.mark.parametrize(("learning", "name"), [(Learning.ONLINE, "ONLINE"), (Learning.FROZEN, "FROZEN")])
def test_the_text_of_older_modes_is_as_it_was(learning: Learning, name: str) -> None:
    """Else every experiment of every log would get a new version at the next start."""
    assert f'"learning":"LEARNING_{name}"' in definition_text(sample_experiment(learning=learning))


# How far the policy agrees.


def test_agreement_is_what_the_policy_would_have_drawn(clock: Clock) -> None:
    """By the code that serves: the same call, online, has this pmf."""
    with closing(MemoryLog(clock=clock)) as log:
        story = Story(log, clock)
        story.switch(Learning.APPRENTICE)
        story.visit(60)
        version, model, cache = story.current[HOME]
        online = sample_version()
        for segment in ("vip", "new", "other"):
            for default in (SALE, OUTFIT, NONE):
                request = DecisionRequest(DecisionId("d"), "u", Context(segment=segment), default=default)
                made = decide(request, version, model)
                drawn = decide(request, online, model)
                found = agreement_of(request, made, version, model, cache)
                assert found is not None
                assert found.probability == drawn.pmf[drawn.eligible.index(default)] / SLOTS
                assert found.best == (max(drawn.pmf) == drawn.pmf[drawn.eligible.index(default)])


@given(st.permutations([SALE, OUTFIT, NONE]), st.sets(st.sampled_from([SALE, OUTFIT, NONE]), max_size=2))
def test_a_default_decision_is_whole_and_replays(order: list[ActionId], excluded: set[ActionId]) -> None:
    """Whatever is left out: one whole pmf, an eligible action, and the same again from what the log keeps of it."""
    version = sample_version(learning=Learning.APPRENTICE)
    model = Model(make_policy(version.experiment.policy))
    request = DecisionRequest(DecisionId("d"), "u", excluded=tuple(excluded), default=order[0])
    made = decide(request, version, model)
    assert sum(made.pmf) == SLOTS
    assert made.action in made.eligible
    assert made.action == order[0] or order[0] in excluded
    again = request._replace(excluded=(), eligible=made.eligible, default=made.action if made.propensity == 1 else None)
    assert decide(again, version, model) == made


def test_a_flat_pmf_has_no_best_action() -> None:
    """A fresh model prefers nothing: its first action in the list is no agreement."""
    version = sample_version(learning=Learning.APPRENTICE, policy=spec("uniform"))
    model = Model(make_policy(version.experiment.policy))
    request = DecisionRequest(DecisionId("d"), "u", default=SALE)
    found = agreement_of(request, decide(request, version, model), version, model, SlotsCache())
    assert found is not None
    assert not found.best
    assert found.probability == pytest.approx(1 / 3, abs=1e-6)


def wait_for_newer_model(client: RpcClient) -> None:
    """Until what came so far is learned."""
    before = client.get("shop").model
    client.until(lambda: client.get("shop").model > before, what="a newer model")


def counter(client: InProcessClient, name: str) -> float:
    """A counter of the experiment `shop`."""
    found = re.search(rf'^{name}{{experiment="shop"}} (\S+)$', client.fetch("/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_the_metric_and_the_log_say_the_same(tmp_path: Path) -> None:
    """The counters of the process that served, and what the simulator computes again from the log."""
    random = Random(1)
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        client.apply(apprentice("shop", window=0.2))
        for number in range(150):
            segment = random.choice(["vip", "new"])
            default = "b" if segment == "vip" else "c"
            reply = client.decide(
                "shop", f"u{number % 30}", default_action=default, context=pb.Context(segment=segment)
            )
            client.decide("shop", f"u{number % 30}", decision_id=reply.decision_id)  # a retry is no second decision
            if random.random() < 0.5:
                client.reward(reply.decision_id)
            if number % 30 == 0:
                wait_for_newer_model(client)
        slots = [pb.Slot(default_action="b"), pb.Slot(default_action="c")]
        client.call("DeciderService", "DecideSlate", pb.DecideSlateRequest(experiment="shop", unit_id="u", slots=slots))
        client.decide("shop", eligible_actions=["a"])
        names = ("decisions", "agreement", "best")
        counted = [counter(client, f"decider_apprentice_{name}_total") for name in names]
    with closing(open_reader(tmp_path / "log.db")) as log:
        found = compare(log, ExperimentId("shop")).shares()
        replay(log)
    assert counted[0] == found.decisions == 152
    assert counted[1] / counted[0] == pytest.approx(found.expected)
    assert counted[2] / counted[0] == pytest.approx(found.best)
    assert 0 < found.best < 1


def test_bounds_hold_the_truth(clock: Clock) -> None:
    """The value of the policy is somewhere between them, whatever the actions earn that nobody has seen."""
    with closing(MemoryLog(clock=clock)) as log:
        story = Story(log, clock)
        story.switch(Learning.APPRENTICE)
        for _ in range(8):
            story.visit(100)
        found = compare(log, HOME)
        earned = found.earned()
        models: dict[tuple[Position, str], float] = {}
        truth = 0.0
        for version in log.versions():
            for logged in log.decisions(version.position):
                made = logged.decision
                key = (made.model, made.context.segment)
                if key not in models:
                    models[key] = true_value(log, made.model, made.context)
                truth += models[key]
        truth /= found.shares().decisions
    assert earned is not None
    assert earned.least.low <= truth <= earned.most.high
    assert earned.least.value < earned.served.value < earned.most.value
    assert earned.served.low <= 0.65 <= earned.served.high, "0.8 and 0.5, half of the visitors each"
    assert earned.kept == pytest.approx(earned.least.value / earned.served.value)


def true_value(log: EventLog, position: Position, context: Context) -> float:
    """What the policy's pmf earns on average, by the chances of the visitors."""
    trainer = Trainer(log, HOME, sample_experiment().policy)
    if position:
        trainer.learn_up_to(Mark(position, log.time_at(position)))
    version = sample_version()
    made = decide(DecisionRequest(DecisionId("d"), "u", context), version, trainer.model())
    return (
        sum(slots * CHANCES[context.segment][action] for slots, action in zip(made.pmf, made.eligible, strict=True))
        / SLOTS
    )


def test_a_log_without_an_apprentice_says_so(clock: Clock) -> None:
    """With the line that makes one."""
    with closing(MemoryLog(clock=clock)) as log:
        Story(log, clock).switch(Learning.ONLINE)
        with pytest.raises(NoApprentice, match='learning = "apprentice"'):
            compare(log, HOME)


def story_file(tmp_path: Path, clock: Clock, *modes: Learning, visits: int = 60, **changes: Any) -> Path:
    """A log of visits in these modes, one after the other."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        story = Story(log, clock)
        for mode in modes:
            story.switch(mode, **changes)
            story.visit(visits)
        story.leader.finish()
    return path


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and output of the command."""
    result = CliRunner().invoke(main, [str(one) for one in arguments], env={"COLUMNS": "160"})
    return result.exit_code, result.output


def test_the_command_says_how_often_and_how_much(tmp_path: Path, clock: Clock) -> None:
    """Shares by action, bounds of the reward, and that the log cannot say more."""
    code, output = run("agreement", story_file(tmp_path, clock, Learning.APPRENTICE))
    assert code == 0, output
    assert re.search(r"all +60 +\S+ % +\S+ %", output)
    assert "served: sale" in output
    assert "the policy, at least" in output
    assert "nobody has seen" in output
    code, output = run("agreement", tmp_path / "log.db", "--experiment", "other")
    assert (code, "has no experiment 'other'" in output) == (2, True)


def test_an_evaluation_of_such_a_log_cannot_tell(tmp_path: Path, clock: Clock) -> None:
    """One action for each context, for certain: no estimate of another policy is invented."""
    path = story_file(tmp_path, clock, Learning.APPRENTICE, visits=300)
    code, output = run("evaluate", path, "--policy", "uniform")
    assert code == 1, output
    assert "This log cannot tell what it would have earned" in output
    assert "simulator agreement" in output


def test_an_apprentice_s_decisions_are_not_pooled_with_the_policy_s(tmp_path: Path, clock: Clock) -> None:
    """Weights of a mixture of both would not have the mean 1: each is evaluated by itself."""
    path = story_file(tmp_path, clock, Learning.APPRENTICE, Learning.ONLINE, visits=100, holdout=0.2)
    code, output = run("inspect", path)
    assert code == 0, output
    assert "default actions served, then the policy's draws" in output


SHOP = """
id = "home"
baseline_action = "outfit"
actions = [{ id = "sale", kind = "offer" }, { id = "outfit" }, { id = "old", state = "retired" },
  { id = "none", kind = "none" }]
reward = { window = "10s" }
"""


def test_what_was_only_logged_can_be_learned_as_a_new_log(tmp_path: Path, clock: Clock) -> None:
    """That is what it was logged for: imported, it is the beginning of a model."""
    path = story_file(tmp_path, clock, Learning.LOG_ONLY, visits=300)
    (tmp_path / "home.toml").write_text(SHOP)
    code, output = run("import", path, tmp_path / "warm.db", "--experiment", tmp_path / "home.toml")
    assert code == 0, output
    with closing(open_reader(tmp_path / "warm.db")) as log:
        trainer = Trainer(log, HOME, log.versions()[-1].experiment.policy)
        assert trainer.learn_up_to(log.head().mark) > 100


# A real server, killed.


def test_a_switch_survives_sigkill(tmp_path: Path) -> None:
    """online, apprentice, online; killed in each. What was acknowledged is there, the mode is that of the log, the
    model goes on, and all of it replays."""
    path = tmp_path / "log.db"
    sent: dict[str, str] = {}
    models = []
    modes = (experiment_pb2.LEARNING_ONLINE, APPRENTICE, experiment_pb2.LEARNING_ONLINE)
    for round_, learning in enumerate(modes):
        client = SubprocessClient(path)
        with closing(client):
            client.apply(experiment("shop", window=0.2, learning=learning, baseline_action="a"))
            sent |= visits(client, f"{round_}")
            wait_for_newer_model(client)
            client.process.kill()
        again = SubprocessClient(path)
        with closing(again):
            assert again.get("shop").experiment.learning == learning
            more = visits(again, f"{round_}-after")
            if learning == APPRENTICE:
                assert set(more.values()) == {"b", "c"}, "the callers' own"
            sent |= more
            models.append(again.get("shop").model)
            again.process.kill()
    assert models == sorted(models)
    with closing(SubprocessClient(path)) as last:
        assert {id_: last.decide("shop", id_, decision_id=id_).action.id for id_ in sent} == sent
    with closing(open_reader(path)) as log:
        found = verify(log)
        assert found.equal == found.decisions == len(sent), found.first
        assert compare(log, ExperimentId("shop")).shares().decisions == len(sent) // 3


def visits(client: RpcClient, prefix: str, count: int = 40) -> dict[str, str]:
    """Actions by decision id; every second one is rewarded. The page shows b to vips and c to others."""
    actions = {}
    for number in range(count):
        id_ = f"{prefix}-{number}"
        segment, default = ("vip", "b") if number % 2 else ("new", "c")
        reply = client.decide("shop", id_, decision_id=id_, default_action=default, context=pb.Context(segment=segment))
        actions[id_] = reply.action.id
        if number % 4 < 2:
            client.reward(id_)
    return actions
