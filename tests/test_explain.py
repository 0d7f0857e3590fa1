"""One decision explained: the words for every rule, the gap's parts, and the proof by making it again; in a terminal
and over HTTP."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner, Result

from decider.decide.slots import SLOTS
from decider.errors import NotFound
from decider.experiment.definition import Action, Learning, RewardDefinition
from decider.experiment.guardrails import Guardrail
from decider.experiment.origin import UNKNOWN
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader
from decider.log.protocol import LogReader
from decider.policy.algorithms import ALGORITHMS
from decider.replay.explain import ASKED, Check, Explanation, Patience, explain
from decider.replay.words import LOG_ONLY, REASONS, to_json
from decider.server.command import main
from decider.types import ActionId, Context, DecisionId, DecisionRequest, Reason
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.browser import OVERFLOWING, Browser
from tests.conftest import Clock, sample_experiment, spec
from tests.rpc_clients import InProcessClient, SubprocessClient, experiment, rows
from tests.test_forget import forget
from tests.test_http import ask
from tests.test_old_logs import DATA
from tests.test_old_logs import DECISIONS as OLD_LOGS
from tests.test_trim import cut
from tests.test_verify import HOME, Drive, eventful

STATIC = [name for name, one in ALGORITHMS.items() if not one.learns]

HOSTILE = '"><script>alert(1)</script>\x1b[2J\u202e'


@pytest.fixture
def log(clock: Clock) -> MemoryLog:
    """An empty log."""
    return MemoryLog(clock=clock)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessClient]:
    """A whole server."""
    opened = InProcessClient(tmp_path_factory.mktemp("explain") / "log.db")
    yield opened
    opened.close()


def ids(log: LogReader) -> list[DecisionId]:
    """Of every decision."""
    return [one.decision.decision_id for version in log.versions() for one in log.decisions(version.position)]


def all_of(log: LogReader) -> list[Explanation]:
    """Every decision explained."""
    return [explain(log, id_) for id_ in ids(log)]


def run(db: Path, decision_id: str, *options: str) -> Result:
    """The command."""
    return CliRunner().invoke(main, ["explain", decision_id, "--db", str(db), *options])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_decision_of_every_policy_is_made_again(name: str, log: MemoryLog, clock: Clock) -> None:
    """And where the policy had the word there are parts that sum to its gap; where it has no model it is said so."""
    drive = Drive(log, clock)
    drive.apply(sample_experiment(policy=spec(name), holdout=0.1))
    drive.visits(45)
    found = all_of(log)
    assert {one.check for one in found} == {Check.EQUAL}
    for one in found:
        asked = one.logged.decision.reason in ASKED
        assert (one.compared is not None) == (asked and name not in STATIC)
        assert one.compared is not None or one.no_gap
        if one.compared is not None:
            gap = one.compared.gap
            assert gap.constant + sum([part.reward for part in gap.contributions]) + gap.together == pytest.approx(
                gap.total, abs=1e-9
            )
    assert verify(log).first is None


def test_the_first_two_are_the_most_probable_ones(log: MemoryLog, clock: Clock) -> None:
    """Of what came out, floors and shares included: these are the figures that a reader sees."""
    drive = Drive(log, clock)
    actions = (
        Action(ActionId("sale"), min_share=0.4),
        Action(ActionId("outfit"), max_share=0.3),
        Action(ActionId("none")),
    )
    drive.apply(sample_experiment(actions=actions))
    drive.visits(60)
    seen = 0
    for one in all_of(log):
        if one.compared is not None and one.logged.decision.reason in (Reason.EXPLOIT, Reason.EXPLORE):
            pmf = dict(zip(one.logged.decision.eligible, one.logged.decision.pmf, strict=True))
            ordered = sorted(pmf.values(), reverse=True)
            assert [pmf[one.compared.first], pmf[one.compared.second]] == ordered[:2]
            assert one.compared.probabilities == (ordered[0] / SLOTS, ordered[1] / SLOTS)
            seen += 1
    assert seen > 20
    notes = [note for one in all_of(log) for note in to_json(one)["notes"]]
    assert "The experiment gives sale a probability between 0.4 and 1." in notes


def test_a_log_in_which_much_has_happened_is_explained(log: MemoryLog, clock: Clock) -> None:
    """Pauses, new policies, a restart, frozen learning, calls with features of their own."""
    eventful(Drive(log, clock))
    found = all_of(log)
    assert {one.check for one in found} == {Check.EQUAL}
    assert {one.logged.decision.reason for one in found} >= {Reason.EXPLOIT, Reason.HOLDOUT, Reason.ONLY_ELIGIBLE}


@pytest.mark.parametrize(("learning", "reason"), [("apprentice", Reason.APPRENTICE), ("log_only", Reason.BASELINE)])
def test_who_decided_in_place_of_the_policy_is_said(
    log: MemoryLog, clock: Clock, learning: str, reason: Reason
) -> None:
    """Nobody should look for fields that moved a policy which was not asked."""
    drive = Drive(log, clock)
    drive.apply(sample_experiment(learning=Learning(learning)))
    _, made = drive.decide(DecisionRequest(DecisionId("d"), "u", Context(segment="vip")), HOME)
    account = to_json(explain(log, made.decision_id))
    assert (made.reason, account["reason"]) == (reason, reason)
    assert account["why"] == (REASONS[Reason.APPRENTICE] if reason is Reason.APPRENTICE else LOG_ONLY)
    assert (account["check"]["result"], account["comparison"]) == ("equal", None)


def test_a_crossed_guardrail_is_named_as_the_reason(log: MemoryLog, clock: Clock) -> None:
    """The policy is not fixed, and somebody should look at what the guardrail guards."""
    drive = Drive(log, clock)
    guardrail = Guardrail("unsubscribe", at_most=0.002, falls_back=True)
    weights = RewardDefinition(10_000_000, weights={"click": 1.0, "unsubscribe": 0.0})
    drive.apply(sample_experiment(holdout=0.1, reward=weights, guardrails=(guardrail,)))
    drive.versions.fall_back(HOME, guardrail, at=clock(), origin=UNKNOWN)
    drive.step()
    _, made = drive.decide(DecisionRequest(DecisionId("d"), "u", Context(segment="vip")), HOME)
    account = to_json(explain(log, made.decision_id))
    assert account["reason"] == Reason.BASELINE
    assert account["why"].startswith("The guardrail unsubscribe was crossed, so everybody gets the baseline action")


def test_every_reason_has_its_words() -> None:
    """A new one would end in an error on the page."""
    assert REASONS.keys() == set(Reason)


def test_a_policy_that_failed_is_named(client: InProcessClient) -> None:
    """The baseline action that nobody understands: the decision would have taken too long."""
    client.apply(experiment("dear", "a", "b", baseline_action="b", policy=experiment_pb2.Policy(
        squarecb=experiment_pb2.SquareCb(), interactions=["CCCC"])))  # fmt: skip
    context = pb.Context()
    context.features.update({f"f{number}": float(number) for number in range(100)})
    made = client.decide("dear", decision_id="dear-1", context=context)
    assert made.reason == pb.REASON_FALLBACK
    account = fetched(client, "dear-1")
    assert (account["why"], account["check"]["result"]) == (REASONS[Reason.FALLBACK], "equal")
    assert account["comparison"] is None


def fetched(client: InProcessClient | SubprocessClient, id_: str) -> dict[str, Any]:
    """The JSON of a decision, over HTTP."""
    status, headers, body = ask(client.http, f"/decisions/{quote(id_)}", Accept="application/json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    account: dict[str, Any] = json.loads(body)
    return account


def page_of(client: InProcessClient, id_: str) -> str:
    """The page of a decision."""
    status, headers, body = ask(client.http, f"/decisions/{quote(id_)}", Accept="text/html,*/*;q=0.8")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    return body.decode()


def test_what_caps_and_rules_withheld_is_said_with_the_rule(client: InProcessClient) -> None:
    """The question of a campaign manager: why did this customer not get the sale?"""
    message = experiment("capped", "none", "sale", "gift", baseline_action="none")
    message.actions[2].eligible_if = "segment == 'vip'"
    cap = message.caps.add(action="sale", most=1)
    cap.per.FromSeconds(3600)
    client.apply(message)
    for number in range(50):
        made = client.decide("capped", "visitor", decision_id=f"capped-{number}", eligible_actions=["sale", "gift"])
        if made.reason == pb.REASON_WITHHELD:
            break
    account = fetched(client, made.decision_id)
    assert (account["action"], account["check"]["result"]) == ("none", "equal")
    texts = {one["action"]: one["text"] for one in account["actions"]}
    assert texts["gift"] == "eligible_if: segment == 'vip' is not so for this context"
    assert texts["sale"] == "caps[0]: the unit had it 1 times in 1h, the most for action sale"
    assert "caps[0]" in page_of(client, made.decision_id)


def test_a_unit_of_the_control_group_is_told_so(client: InProcessClient) -> None:
    """No policy was asked, and no field made a difference."""
    client.apply(experiment("control", "a", "b", baseline_action="b", holdout=0.99))
    made = [client.decide("control", f"u{number}", decision_id=f"control-{number}") for number in range(20)]
    held = next(one for one in made if one.reason == pb.REASON_HOLDOUT)
    account = fetched(client, held.decision_id)
    assert (account["why"], account["comparison"]) == (REASONS[Reason.HOLDOUT], None)
    assert account["no_comparison"] in page_of(client, held.decision_id)


def test_a_decision_that_a_unit_keeps_says_until_when(client: InProcessClient) -> None:
    """Later calls have no decision of their own in the log: this one is their explanation."""
    message = experiment("kept", "a", "b")
    message.sticky.FromSeconds(3600)
    client.apply(message)
    client.decide("kept", "visitor", decision_id="kept-1")
    assert client.decide("kept", "visitor").reason == pb.REASON_STICKY
    assert any(note.startswith("The unit keeps it until ") for note in fetched(client, "kept-1")["notes"])


def test_a_slot_names_what_the_slots_before_it_took(client: InProcessClient) -> None:
    """Its probabilities are among what was left."""
    client.apply(experiment("page", "a", "b", "c"))
    request = pb.DecideSlateRequest(experiment="page", unit_id="u", slate_id="home/1", slots=[pb.Slot(), pb.Slot()])
    slate = client.call("DeciderService", "DecideSlate", request)
    first, second = slate.decisions
    account = fetched(client, second.decision_id)
    assert account["notes"][0] == (
        f"It is slot 1 of a slate, decided after the slots before it, which took {first.action.id}."
    )
    texts = {one["action"]: one["text"] for one in account["actions"]}
    assert texts[first.action.id] == "taken by a slot before"
    assert account["check"]["result"] == "equal"


def test_a_model_that_serves_needs_no_learning(client: InProcessClient) -> None:
    """Yesterday's model may have to be learned again; the one in memory answers at once."""
    client.apply(experiment("learning", "a", "b", window=0.05))
    made = client.decide("learning")
    for number in range(30):
        made = client.decide("learning", f"u{number}", context=pb.Context(segment="vip"))
        client.reward(made.decision_id, name="click")
    client.until(lambda: client.decide("learning").model > 0, what="a model serves")
    made = client.decide("learning", "late", context=pb.Context(segment="vip"))
    account = fetched(client, made.decision_id)
    assert account["model"]["text"].startswith(f"learned up to position {made.model} of the log, ")
    assert [one["field"] for one in account["comparison"]["contributions"]] == ["segment"]


def test_what_a_call_sent_is_text_on_the_page(client: InProcessClient) -> None:
    """Names and values come from anybody's browser."""
    client.apply(experiment("hostile", "a", "b"))
    context = pb.Context(segment=HOSTILE)
    context.features.update({"<b>": HOSTILE, "</style>": 1.0})
    client.decide("hostile", "<i>unit</i>", decision_id="<u>?#%2f", context=context)
    page = page_of(client, "<u>?#%2f")
    assert "<script" not in page
    assert page.count("</style>") == 1
    for tag in ("<b>", "<i>", "<u>"):
        assert tag not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    status, headers, _ = ask(client.http, f"/decisions/{quote('<u>?#%2f')}")
    assert (status, headers["Cache-Control"], headers["X-Content-Type-Options"]) == (200, "no-store", "nosniff")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    told = run(client.db, "<u>?#%2f")
    assert told.exit_code == 0, told.output
    assert "\x1b" not in told.output


@pytest.mark.parametrize("id_", ["nobody", "nobody.json", "../../etc/passwd", "%00", "x" * 5000, "/", ""])
def test_an_unknown_decision_is_not_found(client: InProcessClient, id_: str) -> None:
    """With the id, so that a slip is seen."""
    status, headers, body = ask(client.http, f"/decisions/{quote(id_)}", Accept="text/html")
    assert status == 404
    assert b"the log has no decision" in body  # not where it is
    assert b"log.db" not in body
    assert headers["Content-Type"] == ("application/json" if id_.endswith(".json") else "text/html; charset=utf-8")


def test_the_path_can_ask_for_json_and_head_is_answered(client: InProcessClient) -> None:
    """A link in a chat has no Accept header; an id may itself end in .json."""
    client.apply(experiment("forms", "a", "b"))
    client.decide("forms", decision_id="form.json")
    for path in ("/decisions/form.json", "/decisions/form.json.json"):
        status, headers, body = ask(client.http, path)
        assert (status, headers["Content-Type"], json.loads(body)["decision_id"]) == (
            200,
            "application/json",
            "form.json",
        )
    assert ask(client.http, "/decisions/form.json", "HEAD")[2] == b""
    assert ask(client.http, "/decisions/form.json", "POST")[0] == 405


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_reader(
    chromium: Browser, client: InProcessClient, tmp_path: Path, width: int, scheme: str
) -> None:
    """On a phone, with names as long as they may be."""
    client.apply(experiment("wide", "a" * 64, "b" * 64))
    context = pb.Context(segment="s" * 64)
    context.features.update({"f" * 64: "v" * 200, "number": 123456.789})
    client.decide("wide", "u" * 200, decision_id="d" * 100, context=context)
    file = tmp_path / "page.html"
    file.write_text(page_of(client, "d" * 100))
    page = chromium.page(file, width=width)
    page.prefer(scheme=scheme)
    assert page.run(OVERFLOWING) == []
    assert page.run("document.documentElement.scrollWidth") <= width


# The model, and what cannot be made again.


def write(path: Path, clock: Clock, *, visits: int = 60) -> list[DecisionId]:
    """A log of one policy that learns; the ids of its decisions."""
    with closing(open_log(path, clock=clock)) as opened:
        drive = Drive(opened, clock)
        drive.apply(sample_experiment(holdout=0.1))
        drive.visits(visits)
        return ids(opened)


def test_an_old_model_is_learned_again_while_the_command_says_so(tmp_path: Path, clock: Clock) -> None:
    """A command may take long, a page may not: it answers without the contributions, and says why."""
    db = tmp_path / "log.db"
    made = write(db, clock)
    with closing(open_reader(db)) as opened:
        found = {id_: opened.find(id_) for id_ in made}
        late = [id_ for id_, one in found.items() if one and one.decision.model and one.decision.reason in ASKED][-1]
        hasty = explain(opened, late, patience=Patience(learning=0.0))
        assert (hasty.check, hasty.compared) == (Check.UNCHECKED, None)
        assert "learning it again takes more than 0 s" in hasty.what
        patient = explain(opened, late)
        assert (patient.check, patient.what) == (Check.EQUAL, "")
        assert patient.compared is not None
        unasked = explain(opened, late, patience=Patience(asking=0.0))
        assert (unasked.check, unasked.no_gap) == (
            Check.EQUAL,
            "asking the model about every field takes more than 0 s",
        )


def test_a_stored_model_is_used(tmp_path: Path, clock: Clock) -> None:
    """Learning goes on from the newest stored model that is not too new; a damaged one is learned again."""
    db = tmp_path / "log.db"
    with closing(open_log(db, clock=clock)) as opened:
        drive = Drive(opened, clock)
        drive.apply(sample_experiment())
        drive.visits(40)
        drive.leader.finish()
        drive.restart()
        drive.visits(20)
        assert rows(db, "select count(*) from models")[0][0] > 0
        assert {one.check for one in all_of(opened)} == {Check.EQUAL}
    with sqlite3.connect(db) as connection:
        connection.execute("update models set checksum = 'damaged'")
    with closing(open_reader(db)) as opened:
        assert {one.check for one in all_of(opened)} == {Check.EQUAL}


def test_a_changed_log_is_said_loudly(tmp_path: Path, clock: Clock) -> None:
    """An explanation of something that did not happen would be worse than none."""
    db = tmp_path / "log.db"
    made = write(db, clock)
    with sqlite3.connect(db) as connection:
        connection.execute("update decisions set segment = 'changed' where reason = 'EXPLOIT'")
    with closing(open_reader(db)) as opened:
        changed = [one for one in all_of(opened) if one.check is Check.DIFFERENT]
    assert changed
    assert all(one.compared is None for one in changed)
    told = run(db, changed[-1].logged.decision.decision_id)
    assert told.exit_code == 1
    assert "NOT WHAT THE LOG SAYS" in told.output
    assert len(made) > len(changed)


def test_a_forgotten_unit_is_not_explained(tmp_path: Path, clock: Clock) -> None:
    """Its old id is gone; under the made-up one it is said why nothing can be computed."""
    db = tmp_path / "log.db"
    write(db, clock)
    ((old,),) = rows(db, "select decision_id from decisions where unit_id = 'unit-7' order by position desc limit 1")
    ((position,),) = rows(db, "select position from decisions where decision_id = ?", old)
    assert forget(db).exit_code == 0
    with closing(open_reader(db)) as opened:
        with pytest.raises(NotFound, match="has no decision"):
            explain(opened, DecisionId(old))
        ((new,),) = rows(db, "select decision_id from decisions where position = ?", position)
        found = explain(opened, DecisionId(new))
        assert found.check is Check.UNCHECKED
        assert found.what.startswith("its unit was forgotten")


def test_an_archived_decision_is_explained_with_the_archive(tmp_path: Path, clock: Clock) -> None:
    """The log alone says where to look; log and archive together explain it as before."""
    db, folder = tmp_path / "log.db", tmp_path / "archive"
    made = write(db, clock, visits=120)
    assert cut(db, folder, age=30) is not None
    alone = run(db, made[0])
    assert alone.exit_code == 1
    assert "it may lie in the log's archive" in alone.output
    told = run(db, made[0], "--archive", str(folder))
    assert told.exit_code == 0, told.output
    assert "equal to the log" in told.output
    behind = run(db, made[-1])
    assert behind.exit_code == 0, behind.output
    assert "equal to the log" in behind.output


def test_a_log_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A typo must not leave an empty file."""
    told = run(tmp_path / "none.db", "d-1")
    assert (told.exit_code, (tmp_path / "none.db").exists()) == (1, False)
    assert "there is no such log" in told.output


def test_the_command_and_its_json_say_the_same_beside_a_server(tmp_path: Path) -> None:
    """A process of its own that writes, and a command that reads."""
    opened = SubprocessClient(tmp_path / "log.db")
    try:
        opened.apply(experiment("e", "a", "b"))
        opened.decide("e", decision_id="d-1", context=pb.Context(segment="vip"))
        told = json.loads(run(opened.db, "d-1", "--json").output)
        assert told == fetched(opened, "d-1")
        lines = run(opened.db, "d-1").output
        assert lines.startswith(f"d-1: {told['action']}, with probability 50 %")
        assert "segment = vip" in lines
    finally:
        opened.close()


@pytest.mark.parametrize("name", OLD_LOGS)
def test_decisions_of_earlier_releases_are_explained(name: str) -> None:
    """A complaint may come months after the release that decided: every thirtieth decision of the logs that we keep."""
    with closing(open_reader(DATA / f"{name}.db")) as opened:
        found = [explain(opened, id_) for id_ in ids(opened)[::30]]
    assert {one.check for one in found} == {Check.EQUAL}
    assert any(one.compared for one in found)
