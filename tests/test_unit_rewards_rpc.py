"""Rewards by unit, links and final rewards through the API, three ways in; with killed servers; and forgotten."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from decider.decide.decide import decide
from decider.errors import LogFull
from decider.experiment.definition import Attribution, RewardDefinition
from decider.learn.archive import archive as archive_old
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import (
    MOST_ROWS,
    MOST_UNITS,
    Entry,
    Mark,
    NewLink,
    NewReward,
    NewUnitReward,
    NewVersion,
    Tick,
)
from decider.policy.protocol import Model
from decider.policy.static import Uniform
from decider.server.command import main
from decider.server.service import DeciderService
from decider.serving.current import Current
from decider.types import DecisionId, DecisionRequest, Position, Time
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.drive import stores
from simulator.drive.shops import play
from simulator.verify import verify
from tests.conftest import Clock, sample_experiment
from tests.rpc_clients import (
    RpcClient,
    ServerProcess,
    code_of,
    experiment,
    fields_of,
    outcome_name,
    reason_of,
    rows,
    status_of,
)
from tests.test_unit_rewards import HOME, earned
from tests.test_verify import Drive
from tests.two_writers import decision

LAST, ALL = experiment_pb2.ATTRIBUTION_LAST, experiment_pb2.ATTRIBUTION_ALL


def apply(client: RpcClient, id_: str, attribution: Any = LAST, names: Sequence[str] = (), **fields: Any) -> None:
    """An experiment that credits rewards by unit like this."""
    message = experiment(id_, window=60, **fields)
    message.reward.range.maximum = 100
    message.reward.attribution = attribution
    for name in names:
        message.reward.weights[name] = 1.0
    client.apply(message)


def reward(client: RpcClient, unit: str, **fields: Any) -> tuple[str, list[str]]:
    """The outcome and the credited decisions of a reward by unit."""
    reply = client.call("DeciderService", "Reward", pb.RewardRequest(unit_id=unit, **fields))
    return outcome_name(reply.outcome), list(reply.decision_ids)


def link(client: RpcClient, unit: str, same_as: str) -> str:
    """The outcome of a link."""
    reply = client.call("DeciderService", "LinkUnits", pb.LinkUnitsRequest(unit_id=unit, same_as=same_as))
    return str(pb.LinkOutcome.Name(reply.outcome)).removeprefix("LINK_OUTCOME_").lower()


def test_a_reward_by_unit_says_what_it_was_credited_to(client: RpcClient, mine: str) -> None:
    """A till has no decision id; it hears what became of its purchase, also when it asks again."""
    apply(client, mine)
    unit, other = uuid.uuid4().hex, uuid.uuid4().hex
    assert reward(client, unit, reward_id="1", value=9, experiment=mine) == ("no_decision", [])
    first, last = [client.decide(mine, unit).decision_id for _ in range(2)]
    assert reward(client, unit, reward_id="1", experiment=mine) == ("duplicate", [])
    assert reward(client, unit, reward_id="2", value=9, experiment=mine) == ("joined", [last])
    assert reward(client, unit, reward_id="3", value=900, experiment=mine) == ("clipped", [last])
    newest = client.decide(mine, unit).decision_id
    assert reward(client, unit, reward_id="2", value=9) == ("duplicate", [last])
    assert link(client, unit, other) == "linked"
    assert reward(client, other, reward_id="2", value=5, correct=True) == ("corrected", [last])
    assert reward(client, other, reward_id="2", retract=True) == ("retracted", [last])
    assert reward(client, other, reward_id="2", retract=True) == ("duplicate", [last])
    assert reward(client, other, reward_id="4") == ("joined", [newest])
    assert link(client, other, unit) == "duplicate"
    assert first not in {last, newest}


def test_a_final_reward_makes_what_comes_later_late(client: RpcClient, mine: str) -> None:
    """And it is learned within moments, not after the window."""
    apply(client, mine, policy=experiment_pb2.Policy(squarecb={}))
    made = client.decide(mine)
    id_ = made.decision_id
    requests = [pb.RewardRequest(decision_id=id_, name=name, final=name == "buy") for name in ("see", "buy", "return")]
    outcomes = [outcome_name(one.response.outcome) for one in client.reward_batch(requests)]
    assert outcomes == ["joined", "joined", "late"]
    assert client.reward(id_, name="click") == "late"
    assert client.activation(id_) == "late"
    assert reward(client, "unit", experiment=mine) == ("no_decision", [])
    client.until(lambda: client.decide(mine).model > made.model, what="it is learned")
    again = client.decide(mine).decision_id
    assert client.reward(again, reward_id="1", value=5) == "joined"
    assert client.reward(again, reward_id="1", correct=True, value=2, final=True) == "corrected"
    assert client.reward(again, reward_id="1", retract=True) == "late"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "decision_id"),
        ({"decision_id": "a", "unit_id": "b"}, "unit_id"),
        ({"decision_id": "a", "experiment": "cart"}, "experiment"),
        ({"unit_id": "a" * 257}, "unit_id"),
        ({"unit_id": "a\nb"}, "unit_id"),
        ({"unit_id": "a", "name": "no such name"}, "name"),
    ],
)
def test_a_wrong_reward_names_its_field(client: RpcClient, fields: dict[str, Any], wrong: str) -> None:
    """Whoever writes the till's software sees what to change."""
    status = status_of(lambda: client.call("DeciderService", "Reward", pb.RewardRequest(**fields)))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", [wrong])


def test_experiments_say_whether_they_take_rewards_by_unit(client: RpcClient, mine: str) -> None:
    """Nobody should believe that a purchase counts where nothing says how."""
    plain = experiment(mine[:50] + "-none")
    client.apply(plain)
    apply(client, mine)
    message = experiment(mine[:50] + "-names")
    message.reward.weights["click"] = 1.0
    message.reward.out_of_range, message.reward.attribution = experiment_pb2.OUT_OF_RANGE_REFUSE, ALL
    client.apply(message)
    asked: dict[str, tuple[dict[str, Any], tuple[str, str, list[str]]]] = {
        plain.id: ({}, ("FAILED_PRECONDITION", "NO_ATTRIBUTION", [])),
        "nobody": ({}, ("NOT_FOUND", "EXPERIMENT_NOT_FOUND", [])),
        message.id: ({"name": "buy"}, ("INVALID_ARGUMENT", "INVALID_ARGUMENT", ["name"])),
    }
    for id_, (fields, expected) in asked.items():
        request = pb.RewardRequest(unit_id="u", experiment=id_, **fields)
        status = status_of(lambda request=request: client.call("DeciderService", "Reward", request))  # type: ignore[misc]
        assert (code_of(status), reason_of(status), fields_of(status)) == expected
    before = dict(client.rows("select outcome, sum(count) from refused_rewards group by outcome"))
    request = pb.RewardRequest(unit_id="u", experiment=message.id, name="click", value=7)
    status = status_of(lambda: client.call("DeciderService", "Reward", request))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", ["value"])
    after = dict(client.rows("select outcome, sum(count) from refused_rewards group by outcome"))
    assert after["out_of_range"] == before.get("out_of_range", 0) + 1


@pytest.mark.parametrize("names", [[], ["purchase"], ["purchase", "click"]])
def test_a_retraction_without_a_name_may_overtake_its_reward(client: RpcClient, mine: str, names: list[str]) -> None:
    """Queues reorder: a return that was refused would leave the purchase standing."""
    apply(client, mine, names=names)
    unit = uuid.uuid4().hex
    at = client.decide(mine, unit).decision_id
    assert reward(client, unit, reward_id="1", retract=True, experiment=mine) == ("retracted", [at])
    name = names[0] if names else ""
    assert reward(client, unit, reward_id="1", value=9, name=name)[0] == "duplicate"
    if len(names) > 1:
        request = pb.RewardRequest(unit_id=unit, reward_id="2", correct=True, value=7, experiment=mine)
        status = status_of(lambda: client.call("DeciderService", "Reward", request))
        assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", ["name"]), (
            "it counts, so its name is needed"
        )
    else:
        assert reward(client, unit, reward_id="2", correct=True, value=7, experiment=mine) == ("corrected", [at])
        assert reward(client, unit, reward_id="2", value=9, name=name) == ("duplicate", [at])
    old = client.decide(mine, unit).decision_id
    assert reward(client, unit, reward_id="4", retract=True)[0] == "retracted"
    assert client.reward(at, reward_id="4", value=9, name=name) == "duplicate"
    assert client.reward(old, reward_id="5", retract=True) == "retracted"
    assert reward(client, unit, reward_id="5", value=9, name=name) == ("duplicate", [old])
    if len(names) > 1:
        for ask, field in (
            (lambda: reward(client, unit, reward_id="4", correct=True, value=7), "reward_id"),
            (lambda: client.reward(old, reward_id="5", correct=True, value=7), "reward_id"),
            (lambda: client.reward(old, reward_id="6", correct=True, value=7), "name"),
        ):
            assert (code_of(status_of(ask)), fields_of(status_of(ask))) == ("INVALID_ARGUMENT", [field])
    assert reward(client, unit, reward_id="3", value=9, name=name, experiment=mine) == ("joined", [old])
    values = client.rows(
        "select in_force from joined_rewards where decision_id in (?, ?) and in_force is not null order by 1", at, old
    )
    assert values == ([(9.0,)] if len(names) > 1 else [(7.0,), (9.0,)])


def test_a_change_that_names_another_experiment_is_refused(client: RpcClient, mine: str) -> None:
    """It would change what it does not name, or seem to have changed what it names."""
    page, mail = mine[:50] + "-page", mine[:50] + "-mail"
    apply(client, page)
    apply(client, mail)
    unit = uuid.uuid4().hex
    pages, letter = client.decide(page, unit).decision_id, client.decide(mail, unit).decision_id
    assert reward(client, unit, reward_id="1", experiment=page) == ("joined", [pages])
    assert reward(client, unit, reward_id="2") == ("joined", [pages, letter])
    for id_, experiment_ in (("1", mail), ("1", "nobody"), ("2", page), ("2", mail)):
        for what in ({"retract": True}, {"correct": True, "value": 3}):
            request = pb.RewardRequest(unit_id=unit, reward_id=id_, experiment=experiment_, **what)
            status = status_of(lambda request=request: client.call("DeciderService", "Reward", request))  # type: ignore[misc]
            assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", ["experiment"])
    assert reward(client, unit, reward_id="1", retract=True, experiment=page) == ("retracted", [pages])
    assert reward(client, unit, reward_id="2", retract=True) == ("retracted", [pages, letter])
    lone = uuid.uuid4().hex
    at = client.decide(mail, lone).decision_id
    assert reward(client, lone, reward_id="1") == ("joined", [at])
    assert reward(client, lone, reward_id="1", retract=True, experiment=mail) == ("retracted", [at]), (
        "it means all of it"
    )


def test_a_rule_that_is_taken_away_holds_for_what_was_decided_under_it(client: RpcClient, mine: str) -> None:
    """A release of the experiment file must not make a purchase that was counted impossible to take back."""
    apply(client, mine, names=["purchase"])
    unit = uuid.uuid4().hex
    at = client.decide(mine, unit).decision_id
    assert reward(client, unit, reward_id="1", value=9, name="purchase", experiment=mine) == ("joined", [at])
    apply(client, mine, experiment_pb2.ATTRIBUTION_UNSPECIFIED, names=["order"])
    client.decide(mine, unit)
    assert reward(client, unit, reward_id="1", correct=True, value=5) == ("corrected", [at])
    assert reward(client, unit, reward_id="1", retract=True, experiment=mine) == ("retracted", [at])
    assert reward(client, unit, reward_id="2", value=9, name="purchase", experiment=mine) == ("joined", [at])
    assert reward(client, unit, reward_id="3", retract=True, experiment=mine) == ("retracted", [at])
    for id_, name in ((unit, "order"), (uuid.uuid4().hex, "purchase")):
        request = pb.RewardRequest(unit_id=id_, name=name, experiment=mine)
        status = status_of(lambda request=request: client.call("DeciderService", "Reward", request))  # type: ignore[misc]
        assert (code_of(status), reason_of(status)) == ("FAILED_PRECONDITION", "NO_ATTRIBUTION")


def test_a_purchase_of_the_page_is_a_duplicate_for_the_till_and_the_other_way_round(
    client: RpcClient, mine: str
) -> None:
    """Whichever is first: counted once, and both hear so."""
    apply(client, mine)
    unit = uuid.uuid4().hex
    old, new = [client.decide(mine, unit).decision_id for _ in range(2)]
    assert client.reward(old, reward_id="1") == "joined"
    assert reward(client, unit, reward_id="1") == ("duplicate", [old])
    assert reward(client, unit, reward_id="1", correct=True, value=7) == ("corrected", [old])
    assert reward(client, unit, reward_id="1", retract=True) == ("retracted", [old])
    assert reward(client, unit, reward_id="1", retract=True) == ("duplicate", [old])
    assert reward(client, unit, reward_id="2") == ("joined", [new])
    assert client.reward(old, reward_id="2") == "duplicate"
    assert client.reward(old, reward_id="2", correct=True, value=3) == "corrected"
    values = client.rows("select decision_id, in_force from joined_rewards where decision_id in (?, ?)", old, new)
    assert sorted(values) == sorted([(old, None), (new, 3.0)])
    assert client.rows("select count(*) from joined_rewards where decision_id in (?, ?)", old, new) == [(2,)]


def test_links_of_a_unit_with_itself_and_of_too_many_are_refused(client: RpcClient) -> None:
    """A till that sends one shared id for everybody would make all customers one."""
    status = status_of(lambda: link(client, "a", "a"))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", ["same_as"])
    person = uuid.uuid4().hex
    assert {link(client, person, f"{person}-{number}") for number in range(1, MOST_UNITS)} == {"linked"}
    status = status_of(lambda: link(client, f"{person}-1", "one too many"))
    assert (code_of(status), reason_of(status)) == ("FAILED_PRECONDITION", "TOO_MANY_UNITS")


# --- a batch that writes much


def purchases(unit: str, count: int) -> pb.RewardBatchRequest:
    """So many purchases of a person."""
    return pb.RewardBatchRequest(requests=[pb.RewardRequest(unit_id=unit, reward_id=str(n)) for n in range(count)])


def test_a_batch_that_credits_much_is_written_in_pieces(client: RpcClient, mine: str) -> None:
    """1,000 rewards, credited to 50 decisions each, would keep every other caller waiting for seconds."""
    apply(client, mine, ALL)
    unit = uuid.uuid4().hex
    made = [client.decide(mine, unit).decision_id for _ in range(55)]
    results = client.reward_batch(purchases(unit, 60).requests)
    told = [(outcome_name(one.response.outcome), list(one.response.decision_ids)) for one in results]
    assert told == [("joined", made[-10:])] * 60, "the reply has a bounded size, too"
    assert client.rows("select count(*) from credited_rewards where unit_id = ?", unit) == [(60 * 50,)]
    commits = client.rows("select count(*) from credited_rewards where unit_id = ? group by time", unit)
    assert max(commits)[0] <= MOST_ROWS
    again = client.reward_batch(purchases(unit, 60).requests)
    assert {outcome_name(one.response.outcome) for one in again} == {"duplicate"}


def test_of_a_batch_each_reward_is_written_or_has_an_error(clock: Clock) -> None:
    """The disk may fill between two pieces: what was written is acknowledged, and only the others are sent again."""
    log = MemoryLog(clock=clock)
    log.append([NewVersion(sample_experiment(reward=RewardDefinition(attribution=Attribution.ALL)), 1)])
    version, current, left = log.versions()[-1], Current(), iter([True, False])
    current.put(version, Model(Uniform()))
    log.append([decision(version, f"d-{number}", "anna") for number in range(50)])

    def append(entries: Sequence[Entry]) -> list[Mark | None]:
        if not next(left, True):
            raise LogFull("the disk is full")
        return log.append(entries)

    service = DeciderService(current, log, append=append)
    request = purchases("anna", 60)
    results = service.RewardBatch(request).results
    written = [one for one in results if one.HasField("response")]
    assert 0 < len(written) < 60
    assert [one.HasField("response") for one in results] == [True] * len(written) + [False] * (60 - len(written))
    assert len(log.refused_rewards()) == 0
    outcomes = [outcome_name(one.response.outcome) for one in service.RewardBatch(request).results]
    assert outcomes == ["duplicate"] * len(written) + ["joined"] * (60 - len(written))


# --- two processes, killed


def send(client: RpcClient, calls: Sequence[tuple[str, Any]], replies: list[Any]) -> None:
    """One after the other, until the server is gone."""
    with suppress(grpc.RpcError):
        for method, request in calls:
            replies.append((request, client.call("DeciderService", method, request)))


def test_two_processes_and_sigkill_lose_and_double_nothing(tmp_path: Path) -> None:
    """Tills send again to whoever answers: each order counts once, for the decision that was the last one then."""
    db = tmp_path / "log.db"
    with closing(open_log(db)) as log:
        units = [f"unit-{number % 7}" for number in range(70)]
        server = ServerProcess(db, "--learn-interval", "0.05")
        with closing(server.client()) as client:
            apply(client, "shop", policy=experiment_pb2.Policy(squarecb={}))
            version = log.versions()[-1]
            calls: list[tuple[str, Any]] = []
            for number, unit in enumerate(units):
                calls.append(("Decide", pb.DecideRequest(experiment="shop", unit_id=unit, decision_id=f"d-{number}")))
                calls.append(("Reward", pb.RewardRequest(unit_id=unit, reward_id=f"o-{number}", final=number % 3 == 0)))
            replies: list[Any] = []
            thread = threading.Thread(target=send, args=(client, calls, replies))
            thread.start()
            marks = []
            while len(replies) < 60:
                number = len(replies) // 2
                marks += log.append([NewUnitReward(units[number], "reward", 1.0, f"o-{number}")])
                marks += log.append([NewUnitReward(units[number], "reward", 1.0, f"mine-{len(marks)}")])
            server.kill()
            thread.join()
        again_server = ServerProcess(db, "--learn-interval", "0.05")
        with closing(again_server.client()) as client:
            again: list[Any] = []
            send(client, calls, again)
        assert again_server.terminate() == 0
        assert len(again) == len(calls)
        rewarded = [(one, reply) for one, reply in replies if isinstance(one, pb.RewardRequest)]
        outcomes = {one.reward_id: outcome_name(reply.outcome) for one, reply in rewarded}
        for request, reply in again:
            if isinstance(request, pb.RewardRequest) and outcomes.get(request.reward_id) == "joined":
                assert (outcome_name(reply.outcome), len(reply.decision_ids)) == ("duplicate", 1)
        assert version.experiment.reward.attribution == "last"
    once = rows(db, "select reward_id, count(*) from unit_rewards group by reward_id")
    assert {f"o-{number}" for number in range(70)} <= {id_ for id_, _ in once}
    assert {count for _, count in once} == {1}
    wrong = """select 1 from credited_rewards c join decisions d on d.position = c.decision where exists (
      select 1 from decisions l left join seals s on s.decision = l.position where l.unit_id = d.unit_id
        and l.position > d.position and l.position < c.unit_reward
        and (s.position is null or s.position > c.unit_reward))"""
    assert rows(db, wrong) == []
    with closing(open_reader(db)) as reader:
        assert reader.check(lambda _: None) == []
        done = verify(reader)
        assert (done.first, done.equal) == (None, 70)


def test_purchases_in_stores_reach_the_pages_that_led_to_them(tmp_path: Path) -> None:
    """The truth is what people buy anywhere. By the page alone, the message that sells in stores is the worse."""
    db = tmp_path / "stores.db"
    played = play(stores.SHOP, db, persons=700, seed=3)
    for told, actions in played.items():
        for one in actions:
            assert abs(one.mean - (one.truth if told else one.apparent)) < 5 * one.error, one
    deliver, collect = played[True]
    assert collect.mean > deliver.mean
    deliver, collect = played[False]
    assert collect.mean < deliver.mean
    with closing(open_reader(db)) as log:
        done = verify(log)
        assert (done.first, done.equal, done.decisions) == (None, 2800, 2800)
        assert log.check(lambda _: None) == []


def test_the_example_in_the_text_does_what_it_says(tmp_path: Path) -> None:
    """A reader copies file and calls together."""
    text = (Path(__file__).parents[1] / "decider" / "README.md").read_text(encoding="utf-8")
    section = text[text.index("### Rewards by unit") : text.index("### The last word")]
    (file,), (example,) = [re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("toml", "py")]
    (tmp_path / "pick-up.toml").write_text(file, encoding="utf-8")
    server = ServerProcess(tmp_path / "log.db", "--experiments", str(tmp_path / "pick-up.toml"))
    patient = example.replace('Client("127.0.0.1:50051"', f'Client("{server.target}", timeout=60.0')
    ran = subprocess.run([sys.executable, "-c", patient], check=True, capture_output=True, text=True)
    assert server.terminate() == 0
    assert ran.stdout.split() == re.findall(r"# (\w+)$", example, re.MULTILINE) == ["joined", "retracted"]


# --- forgetting


def forget(db: Path, unit: str, *more: str) -> str:
    """Run the command."""
    ran = CliRunner().invoke(main, ["forget", unit, "--db", str(db), "--rebuild", *more])
    assert ran.exit_code == 0, ran.output
    return ran.output


def visit(drive: Drive, unit: str) -> Position:
    """A decision as the server makes it."""
    made = decide(DecisionRequest(DecisionId(f"of-{unit}"), unit), *drive.current[HOME])
    (mark,) = drive.log.append([made])
    assert mark is not None
    return mark.position


@pytest.mark.parametrize("archived", [False, True])
def test_a_forgotten_unit_is_linked_with_nobody_and_named_nowhere(tmp_path: Path, clock: Clock, archived: bool) -> None:
    """Its own rows lose its id and its orders' ids, in the log and in the archive; the others of the person stay."""
    db, folder = tmp_path / "log.db", tmp_path / "archive"
    with closing(open_log(db, clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment(reward=RewardDefinition(maximum=9, attribution=Attribution.LAST)))
        version = log.versions()[-1]
        at = [visit(drive, unit) for unit in ("anna-web", "anna-app", "anna-store")]
        log.append([NewLink("anna-web", "anna-app"), NewLink("anna-app", "anna-store")])
        log.append([NewUnitReward("anna-app", "buy", 3.0, "secret-order")])
        log.append(
            [NewUnitReward("anna-app", "buy", 4.0, "secret-too", final=True), NewUnitReward("anna-app", "see", 1)]
        )
        before = earned(log)
        assert before == {at[2]: (3.0, 4.0), at[1]: (1.0,)}
        clock.advance(1000)
        log.append([Tick()])
    if archived:
        with closing(open_to_cut(db)) as log:
            assert archive_old(log, folder, before=Time(clock.now), remember=1, say=lambda _: None)
    text = forget(db, "anna-app")
    assert "anna-store, anna-web" in text, "whoever runs it sees which other ids the person has"
    with closing(open_reader(db, archive=[folder] if archived else [])) as log:
        assert log.check(lambda _: None) == []
        assert earned(log) == before  # type: ignore[arg-type]
        assert (log.units_of("anna-app"), log.units_of("anna-web")) == (["anna-app"], ["anna-store", "anna-web"])
        done = verify(log)
        assert (done.first, done.equal) == (None, 2), "the ids that were drawn with are gone for one"
    left = [*tmp_path.rglob("*.parquet"), *tmp_path.glob("log.db*")]
    assert not [path for path in left if b"anna-app" in path.read_bytes()]
    if not archived:
        ids = [id_ for (id_,) in rows(db, "select reward_id from unit_rewards order by position")]
        assert all(id_ is None or id_.startswith("forgotten-") for id_ in ids)
        assert [id_ for (id_,) in rows(db, "select reward_id from rewards where decision = ?", at[2])] == [
            *("secret-order", "secret-too")
        ], "these are rewards of another unit's decision"
    with closing(open_log(db, clock=clock)) as log:
        log.append([decision(version, "new", "anna-app")])
        (mark,) = log.append([NewUnitReward("anna-store", "buy", 5.0, "new")])
        assert mark is not None
        assert log.credits(mark.position) == []
        log.append([NewReward(at[0], "buy", 1.0)])
