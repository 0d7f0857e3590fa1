"""What a frontend may name or bring in a call of Decide: it is deployed later than the experiment."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from decider.decide.decide import eligible_actions
from decider.decide.named_actions import fit_actions, inactive_actions
from decider.errors import FailedPrecondition
from decider.log.archive.find import parts_in
from decider.log.archive.restore import restore
from decider.log.open import open_log, open_reader
from decider.types import ActionId, CalledAction, DecisionId, DecisionRequest
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.evaluate.candidates import FixedAction
from simulator.evaluate.run import evaluate
from simulator.logs.decider_log import load
from simulator.verify import verify
from tests.archives import split
from tests.conftest import sample_version, spec
from tests.rpc_clients import (
    InProcessClient,
    ServerProcess,
    code_of,
    experiment,
    fields_of,
    reason_of,
    status_of,
    until,
)

RETIRED = experiment_pb2.ACTION_STATE_RETIRED


def struct(**values: Any) -> Struct:
    """A map as a message."""
    made = Struct()
    made.update(values)
    return made


def metric(client: InProcessClient, name: str, **labels: str) -> float:
    """A sample of /metrics; 0 where there is none."""
    _, text = client.fetch("/metrics")
    wanted = "".join(rf'(?=[^}}]*{key}="{re.escape(value)}")' for key, value in labels.items())
    found = re.search(rf"^{name}{{{wanted}[^}}]*}} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def verified(db: Path) -> int:
    """Decisions that were recomputed; all of them equal."""
    with closing(open_reader(db)) as log:
        result = verify(log)
    assert result.first is None, result.first and result.first.what
    assert result.equal == result.decisions
    return result.decisions


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessClient]:
    """A real server with an experiment `e`: a, b, c, and `old`, which is retired; at the end its log is verified."""
    opened = InProcessClient(tmp_path_factory.mktemp("named") / "log.db")
    message = experiment("e", "a", "b", "c", "old")
    message.actions[3].state = RETIRED
    opened.apply(message)
    opened.apply(called_experiment())
    yield opened
    opened.close()
    verified(opened.db)


def called_experiment(most: int = 6, **fields: Any) -> experiment_pb2.Experiment:
    """An experiment `news` with `none` and `sale` of its own, and others from the calls."""
    message = experiment("news", "none", "sale", baseline_action="none", **fields)
    message.actions[0].kind = "none"
    message.policy.squarecb.SetInParent()
    message.actions_in_calls.most = most
    return message


# Names that are not active.


def test_a_retired_action_needs_no_deploy_of_the_frontend(client: InProcessClient) -> None:
    """The frontend names what it was built with; it was answered INVALID_ARGUMENT from the minute of the retirement."""
    reply = client.decide("e", eligible_actions=["old", "a", "gone"], excluded_actions=["gone", "nowhere"])
    assert reply.action.id == "a"
    assert list(reply.ignored_actions) == ["old", "gone", "nowhere"]
    assert not client.decide("e", eligible_actions=["a", "b"]).ignored_actions


def test_features_of_inactive_actions_are_left_out(client: InProcessClient) -> None:
    """Price and stock are sent for everything that the shop has; only what can be chosen is scored and logged."""
    given = {"a": struct(price=3.5), "old": struct(price=1.0), "gone": struct(price=2.0)}
    reply = client.decide("e", decision_id="priced", action_features=given)
    assert list(reply.ignored_actions) == ["gone", "old"]
    assert client.rows("select action_features from decisions where decision_id = 'priced'") == [
        ('{"a":{"price":3.5}}',)
    ]


def test_where_nothing_active_is_named_nothing_is_chosen(client: InProcessClient) -> None:
    """An empty list means all actions: what was left of a list must never become that. It is counted all the same."""
    before = metric(client, "decider_ignored_actions_total", experiment="e")
    status = status_of(lambda: client.decide("e", eligible_actions=["old", "gone"]))
    assert (code_of(status), reason_of(status)) == ("FAILED_PRECONDITION", "NO_ELIGIBLE_ACTION")
    assert "old, gone" in status.message
    assert metric(client, "decider_ignored_actions_total", experiment="e") == before + 2


def test_a_retry_is_answered_as_the_first_call(client: InProcessClient) -> None:
    """Equal to the bit, also in what was ignored; and what is stored is not excluded by a list of the same names."""
    first = client.decide("e", decision_id="again", eligible_actions=["a", "old"], excluded_actions=["gone"])
    assert client.decide("e", decision_id="again", eligible_actions=["a", "old"], excluded_actions=["gone"]) == first
    status = status_of(lambda: client.decide("e", decision_id="again", eligible_actions=["b", "old"]))
    assert reason_of(status) == "DECISION_ID_REUSED"


def test_in_a_batch_each_result_says_what_it_ignored(client: InProcessClient) -> None:
    """One stale slot of a page must not cost the others."""
    requests = [
        pb.DecideRequest(experiment="e", unit_id="u", eligible_actions=names)
        for names in (["a", "old"], ["old"], ["b"])
    ]
    first, second, third = client.decide_batch(requests)
    assert list(first.response.ignored_actions) == ["old"]
    assert second.error.code
    assert (third.response.action.id, [*third.response.ignored_actions]) == ("b", [])


@pytest.mark.parametrize(
    ("slots", "wrong", "count"), [([["old"], ["gone", "nowhere"]], 0, 3), ([["a", "old"], ["gone"]], 1, 2)]
)
def test_a_page_counts_what_all_of_its_slots_ignore(
    client: InProcessClient, slots: list[list[str]], wrong: int, count: int
) -> None:
    """A page is refused as a whole, at its first slot: the others are as old, and the error says which slot it was."""
    before = metric(client, "decider_ignored_actions_total", experiment="e")
    asked = pb.DecideSlateRequest(experiment="e", unit_id="u", slots=[pb.Slot(eligible_actions=one) for one in slots])
    status = status_of(lambda: client.call("DeciderService", "DecideSlate", asked))
    assert reason_of(status) == "NO_ELIGIBLE_ACTION"
    assert status.message.startswith(f"slots[{wrong}]: ")
    assert metric(client, "decider_ignored_actions_total", experiment="e") == before + count


def test_ignored_actions_are_bounded_and_counted(client: InProcessClient) -> None:
    """A caller may send anything, and the answer must stay small; metrics show that frontends are old."""
    before = metric(client, "decider_ignored_actions_total", experiment="e")
    reply = client.decide("e", excluded_actions=["x" * 5_000, *[f"gone-{i}" for i in range(100)]])
    assert len(reply.ignored_actions) == 20
    assert reply.ignored_actions[0] == "x" * 64
    assert metric(client, "decider_ignored_actions_total", experiment="e") == before + 101


def test_a_server_says_once_what_it_ignores(tmp_path: Path) -> None:
    """A line for each call would fill the disk; none at all, and nobody would ever clean up the frontend."""
    server = ServerProcess(tmp_path / "log.db")
    try:
        with closing(server.client()) as client:
            message = experiment("e", "a", "old")
            message.actions[1].state = RETIRED
            client.apply(message)
            for unit in range(30):
                client.decide("e", f"u{unit}", eligible_actions=["a", "old", "gone"])
        lines = until(lambda: [one for one in server.output.splitlines() if "left out" in one], what="it is said")
        assert len(lines) == 2
        assert "calls name retired actions, which are left out: old" in lines[0]
        assert "calls name unknown actions, which are left out: gone" in lines[1]
    finally:
        server.terminate()
    assert verified(tmp_path / "log.db") == 30


NAMES = st.sampled_from(["sale", "outfit", "none", "old", "gone", "x y"]).map(ActionId)


@given(eligible=st.lists(NAMES), excluded=st.lists(NAMES), features=st.dictionaries(NAMES, st.just({"f": 1.0})))
def test_what_is_left_of_a_request_is_what_its_active_names_say(
    eligible: list[ActionId], excluded: list[ActionId], features: dict[ActionId, Any]
) -> None:
    """The law behind it: leaving a name out is the same as never having sent it."""
    version = sample_version()
    active = {*version.active}
    asked = DecisionRequest(
        DecisionId("d"), "u", eligible=(*eligible,), excluded=(*excluded,), action_features=features
    )
    wanted = [id_ for id_ in version.all_active if (not eligible or id_ in eligible) and id_ not in excluded]
    try:
        ignored = inactive_actions(version, (*eligible, *excluded, *features))
        fitted = fit_actions(version, asked, ignored)
        assert [*eligible_actions(version, fitted).actions] == wanted
    except FailedPrecondition:
        assert not wanted
        return
    assert {*ignored} == {*eligible, *excluded, *features} - active
    assert fitted.action_features.keys() == features.keys() & active


# Actions that a call brings.


def article(id_: str, kind: str = "article", **features: Any) -> pb.CalledAction:
    """An action of a call."""
    return pb.CalledAction(id=id_, kind=kind, features=struct(**features), payload=struct(url=f"/{id_}"))


def test_an_action_of_the_call_is_chosen_with_kind_and_payload(client: InProcessClient) -> None:
    """As in Personalizer's Rank: today's articles are not in any file."""
    brought = [article("z-late", topic="sport"), article("early", topic="politics", words=800)]
    seen: Counter[str] = Counter()
    for unit in range(60):
        reply = client.decide("news", f"u{unit}", actions=brought, with_ranking=True)
        assert {one.action for one in reply.ranking} == {"none", "sale", "early", "z-late"}
        seen[reply.action.id] += 1
        if reply.action.id in ("early", "z-late"):
            assert reply.action.kind == "article"
            assert reply.action.payload["url"] == f"/{reply.action.id}"
    assert set(seen) == {"none", "sale", "early", "z-late"}


def test_the_log_says_what_actions_there_were(client: InProcessClient) -> None:
    """A replay and every estimate need each action with all that was scored, the kind as well."""
    client.decide("news", decision_id="whole", actions=[article("b-2", words=9), article("a-1", kind="")])
    found = client.rows("select eligible, action_features from decisions where decision_id = 'whole'")
    assert found == [('["none","sale","a-1","b-2"]', '{"a-1":{"kind":"content"},"b-2":{"kind":"article","words":9.0}}')]


def test_the_order_of_a_calls_actions_makes_no_difference(client: InProcessClient) -> None:
    """Two frontends with the same articles must serve the same unit alike."""
    two = [article("one", words=1), article("two", words=2)]
    for brought in (two, two[::-1]):
        client.decide("news", decision_id=f"order-{brought[0].id}", actions=brought, explore=False)
    said = client.rows("select eligible, pmf, action_features from decisions where decision_id like 'order-%'")
    assert said[0] == said[1]


def test_eligible_and_excluded_names_hold_for_actions_of_the_call(client: InProcessClient) -> None:
    """One list of names for both kinds; what cannot be chosen leaves nothing in the log."""
    reply = client.decide(
        "news", decision_id="only", actions=[article("x"), article("y")], eligible_actions=["x", "y", "gone"],
        excluded_actions=["y"],
    )  # fmt: skip
    assert (reply.action.id, reply.propensity, [*reply.ignored_actions]) == ("x", 1.0, ["gone"])
    found = client.rows("select eligible, action_features from decisions where decision_id = 'only'")
    assert found == [('["x"]', '{"x":{"kind":"article"}}')]


def test_an_action_of_the_call_with_a_declared_id_adds_features_and_payload(client: InProcessClient) -> None:
    """A caller need not know which actions are declared; a kind that differs would make two things of one id."""
    reply = client.decide(
        "news", decision_id="both", eligible_actions=["sale"], actions=[article("sale", kind="", price=3)],
        action_features={"sale": struct(price=2)},
    )  # fmt: skip
    assert (reply.action.kind, reply.action.payload["url"]) == ("content", "/sale")
    found = client.rows("select action_features from decisions where decision_id = 'both'")
    assert found == [('{"sale":{"price":2.0}}',)]
    status = status_of(lambda: client.decide("news", actions=[article("sale", kind="offer")]))
    assert fields_of(status) == ["actions[0].kind"]


def test_a_retry_of_an_action_of_the_call_is_answered(client: InProcessClient) -> None:
    """The kind comes from the log. The payload is the caller's: with its actions in the call the answer is the same."""
    names: dict[str, Any] = {
        "actions": [article("only-here", words=3), article("not-this")],
        "eligible_actions": ["only-here", "not-this", "gone"],
        "excluded_actions": ["not-this"],
    }
    first = client.decide("news", decision_id="retry", **names)
    assert [*first.ignored_actions] == ["gone"]
    assert client.decide("news", decision_id="retry", **names) == first
    bare = client.decide("news", decision_id="retry")
    assert (bare.action.id, bare.action.kind, len(bare.action.payload)) == ("only-here", "article", 0)


@pytest.mark.parametrize(
    ("brought", "field", "text"),
    [
        ([article(f"x{i}") for i in range(5)], "actions", "would make 7 with the 2 active ones"),
        ([article("two words")], "actions[0].id", "is not 1 to 64 letters"),
        ([article("x", kind="?")], "actions[0].kind", "is not 1 to 64 letters"),
        ([article("x"), article("x")], "actions[1].id", "is there twice"),
        ([article("x", kind="", id=3)], "actions[0].features[id]", "is reserved"),
        ([article("x", words=float("nan"))], "actions[0].features[words]", "is not a finite number"),
        ([pb.CalledAction(id=f"x{i}") for i in range(1001)], "actions", "at most 1000 are possible"),
    ],
)
def test_what_a_call_may_not_bring_is_refused(
    client: InProcessClient, brought: list[pb.CalledAction], field: str, text: str
) -> None:
    """Whatever reaches Vowpal Wabbit and the log has been checked and is bounded."""
    status = status_of(lambda: client.decide("news", actions=brought))
    assert (code_of(status), fields_of(status)[:1]) == ("INVALID_ARGUMENT", [field])
    assert text in status.message


def test_another_action_of_the_call_can_be_shown_instead(client: InProcessClient) -> None:
    """The page may have had to take the other article; what is no id of anything stays an error."""
    reply = client.decide("news", actions=[article("x"), article("y")], eligible_actions=["x", "y"])
    other = {"x": "y", "y": "x"}[reply.action.id]
    assert code_of(status_of(lambda: client.activate(reply.decision_id, "no such id"))) == "NOT_FOUND"
    assert client.activate(reply.decision_id, other)


def test_metrics_have_one_label_for_all_actions_of_calls(client: InProcessClient) -> None:
    """Their ids are without end; a label each would take the memory of whoever scrapes."""
    for number in range(20):
        client.decide("news", f"u{number}", actions=[article(f"daily-{number}")], eligible_actions=[f"daily-{number}"])
        client.decide("news", f"v{number}", actions=[article(f"other-{number}")])
    _, text = client.fetch("/metrics")
    assert "daily-" not in text
    labels = set(
        re.findall(r'^decider_(?:decisions_total|possible_total)\{action="([^"]+)",experiment="news"', text, re.M)
    )
    assert labels == {"none", "sale", "(called)"}
    assert metric(client, "decider_weight_mean", experiment="news", action="(called)") > 0


def test_actions_of_calls_are_learned_about_by_their_features(tmp_path: Path) -> None:
    """An article of tomorrow is liked for what it is: with ids alone nothing could be known about it."""
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        client.apply(called_experiment(window=0.2))
        for number in range(400):
            brought = [article(f"game-{number}", topic="sport"), article(f"poll-{number}", topic="politics")]
            reply = client.decide("news", f"u{number}", actions=brought)
            if reply.action.id.startswith("game"):
                client.reward(reply.decision_id)
        client.until(lambda: client.decide("news", "u", actions=[]).model > 400, what="all of it is learned")
        new = [article("next-game", topic="sport"), article("next-poll", topic="politics")]
        ranking = client.decide("news", "new", actions=new, with_ranking=True).ranking
        assert ranking[0].action == "next-game"
        assert ranking[0].propensity > 0.5
    assert verified(tmp_path / "log.db") > 400
    columns = load(tmp_path / "log.db")
    assert {"none", "sale", "game-0", "poll-399"} <= {*columns.actions}
    assert columns.traits["kind"][columns.actions.index("poll-399")] == "article"
    found = evaluate(columns, [FixedAction("sale", columns.actions.index("sale"))], breakdown=False)
    assert found.log.decisions == len(columns)


def test_totals_of_a_log_with_actions_of_calls_are_counted_alike(tmp_path: Path) -> None:
    """`simulator verify` counts them anew: two ways of naming would be called damage."""
    with closing(InProcessClient(tmp_path / "log.db")) as own:
        own.apply(called_experiment())
        for number in range(30):
            own.decide("news", f"u{number}", actions=[article(f"daily-{number}")])
    with closing(open_log(tmp_path / "log.db")) as log:
        assert log.totals_checkpoint() is not None
        assert not log.check(lambda _: None)


def test_thompson_is_not_for_actions_of_calls(client: InProcessClient) -> None:
    """It would keep regressions for every article that there ever was, and know nothing about a new one."""
    message = called_experiment()
    message.id = "with-thompson"
    message.policy.ClearField("squarecb")
    status = status_of(lambda: client.apply(message))
    assert fields_of(status) == ["actions_in_calls"]
    assert "Take squarecb" in status.message
    before = called_experiment()
    before.ClearField("actions_in_calls")
    before.policy.thompson.SetInParent()
    status = status_of(lambda: client.apply(before))
    assert fields_of(status) == ["actions_in_calls"]


def test_more_actions_of_calls_than_an_experiment_takes_are_refused(client: InProcessClient) -> None:
    """The bound is in the definition; the default floor leaves room for all of them."""
    for message in map(called_experiment, (2, 1001)):
        status = status_of(partial(client.apply, message))
        assert fields_of(status) == ["actions_in_calls.most"]
        assert f"{message.actions_in_calls.most} is not in [3, 1000]" in status.message
    wide = called_experiment(1000)
    wide.id = "wide"
    client.apply(wide)
    assert client.get("wide").experiment.minimum_propensity == 0.0001
    wide.minimum_propensity = 0.01
    assert fields_of(status_of(lambda: client.apply(wide))) == ["minimum_propensity"]


def test_an_experiment_may_declare_no_action_at_all(tmp_path: Path) -> None:
    """Rank calls of Personalizer bring all of theirs; a made-up action beside them would be shown to people."""
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        message = called_experiment()
        del message.actions[:]
        message.baseline_action = ""
        client.apply(message)
        seen = {client.decide("news", f"u{i}", actions=[article("x"), article("y")]).action.id for i in range(30)}
        assert seen == {"x", "y"}
        assert reason_of(status_of(lambda: client.decide("news"))) == "NO_ELIGIBLE_ACTION"
        status = status_of(lambda: client.decide("news", eligible_actions=["gone"]))
        assert "active are none" in status.message
        assert metric(client, "decider_decisions_total", experiment="news", action="(called)") > 0
    assert verified(tmp_path / "log.db") == 30


def test_archived_actions_of_calls_replay(tmp_path: Path) -> None:
    """What a part holds must be all that was scored."""
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        client.apply(called_experiment(window=0.2))
        for number in range(40):
            client.decide("news", f"u{number}", actions=[article(f"x{number}", words=number)])
        client.until(lambda: metric(client, "decider_open_decisions", experiment="news") == 0, what="all are sealed")
    split(tmp_path / "log.db", tmp_path / "parts")
    restore(parts_in(tmp_path / "parts"), None, tmp_path / "copy.db")
    assert verified(tmp_path / "copy.db") == 40


def test_the_order_of_called_actions_is_by_id() -> None:
    """The pmf and the draw depend on the order; a replay knows only the log's."""
    version = sample_version(policy=spec("squarecb"), most_actions=10)
    called = tuple(CalledAction(ActionId(id_)) for id_ in ("b", "a", "old"))
    ignored = inactive_actions(version, (), [one.id for one in called])
    fitted = fit_actions(version, DecisionRequest(DecisionId("d"), "u", called=called), ignored)
    assert eligible_actions(version, fitted).actions == ("sale", "outfit", "none", "a", "b")
    assert ignored == ("old",)


# The control group.


def test_a_control_group_without_its_baseline_is_kept_apart(tmp_path: Path) -> None:
    """Fourteen of 200 visitors got random offers and counted as the control group that lift is measured against."""
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        message = experiment("e", "none", "b", "c", holdout=0.3, baseline_action="none", window=0.2)
        message.policy.uniform.SetInParent()
        client.apply(message)
        replies = {}
        for unit in range(300):
            excluded = ["none"] if unit % 3 == 0 else []
            replies[unit] = client.decide("e", f"u{unit}", excluded_actions=excluded)
        group = {unit for unit, reply in replies.items() if reply.reason in (pb.REASON_HOLDOUT, 8)}
        assert all((replies[unit].reason == pb.REASON_HOLDOUT_UNAVAILABLE) == (unit % 3 == 0) for unit in group)
        apart = [replies[unit] for unit in group if unit % 3 == 0]
        assert {reply.action.id for reply in apart} == {"b", "c"}
        assert {reply.propensity for reply in apart} == {0.5}
        assert metric(client, "decider_decisions_total", experiment="e", reason="HOLDOUT_UNAVAILABLE", action="b") > 0
        client.until(lambda: metric(client, "decider_open_decisions", experiment="e") == 0, what="all are sealed")
        client.decide("e", "later")
    columns = load(tmp_path / "log.db")
    assert columns.holdout is not None
    assert len(columns.holdout) == len(group) - len(apart)
    assert {columns.actions[code] for code in columns.holdout.action} == {"none"}
    assert columns.left_out["holdout without the baseline action"] == len(apart)
    assert columns.split is not None
    assert columns.split.in_both == 0
    assert verified(tmp_path / "log.db") == 301
