"""The twelve questions, one function for each: how it is answered, how long that takes, the figure, and the truth.

Called by `__main__.py`, in the order of `QUESTIONS`: what changes the log comes last.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from decider.experiment.guardrails import Guardrail
from decider.text import rough
from decider.types import ActionId, ExperimentId
from simulator.studies.questions.stage import Stage, run
from simulator.studies.questions.truth import Truth
from simulator.worlds.registry import find
from simulator.worlds.scenes import email
from simulator.worlds.world import Floats, World

SHOP, MONEY, MAIL = find("storefront"), find("purchases"), find("email")
SHOP_ID = SHOP.experiment.id
OF_SHOP = f"experiment = '{SHOP_ID}'"
RISKY = replace(
    MAIL,
    experiment=replace(
        MAIL.experiment,
        id=ExperimentId("mail-or-none"),
        holdout=0.3,
        baseline=ActionId("none"),
        guardrails=(Guardrail("unsubscribe", at_most=0.002, falls_back=True),),
    ),
)
"""Mail only where it pays: the holdout gets none, so every unsubscribe is the policy's."""

OUTAGE = 2_000
"""Visits without rewards, and behind them."""

FEW = 300
"""Visits in which a model is seen, and that take less than a window: it learns nothing from them meanwhile."""

RATE = 200.0

MAILS = 500.0
"""A second: one batch in each, so that the policy learns from one to the next."""


class Row(NamedTuple):
    """Of the table. seconds: from the question to the figure."""

    question: str
    how: str
    seconds: float
    figure: str
    truth: str


Rows = Iterator[Row]


def pays(stage: Stage) -> Rows:
    """a, b: does it pay, and for whom."""
    truth = _shop(stage)
    fields = ("--by", "segment", "--by", "device", "--by", "channel")
    seconds, found = stage.simulator("lift", str(stage.db), "--experiment", SHOP_ID, *fields)
    yield Row("a pays", "simulator lift", seconds, _band(found["rows"][0]["lift"]), _number(truth.lift()))
    took, value = stage.metric("decider_lift", experiment=SHOP_ID, name="(learned)")
    yield Row("a", "decider_lift", took, _number(value), _number(truth.lift()))
    yield from _by_value(truth, seconds, found["by"])


def _by_value(truth: Truth, seconds: float, rows: list[dict[str, Any]]) -> Rows:
    right = 0
    for row in rows:
        value = "" if row["value"] == "(not given)" else row["value"]
        true = truth.lift(truth.where(row["field"], value))
        right += row["lift"]["low"] <= true <= row["lift"]["high"]
        if row["field"] == "segment":
            figure = f"{row['answer']}, {_band(row['lift'])}"
            yield Row(f"b {row['value']}", "simulator lift --by segment", seconds, figure, _number(true))
    yield Row("b all values", "--by segment, device, channel", seconds, f"{right} of {len(rows)} hold the truth", "all")


def winners(stage: Stage) -> Rows:
    """c: which action wins for whom."""
    truth = _shop(stage)
    seconds, rows = stage.view("action_summary", where=OF_SHOP)
    means = dict(zip(truth.actions, truth.means[~truth.holdout].mean(axis=0).tolist(), strict=True))
    known = [row for row in rows if row["low_95_any_time"] is not None]
    right = sum([row["low_95_any_time"] <= means[row["action"]] <= row["high_95_any_time"] for row in known])
    yield Row("c actions", "view action_summary", seconds, f"{right} of {len(known)} intervals hold the truth", "all")
    policies = [part for action in truth.actions for part in ("--policy", f"fixed:{action}")]
    report = ("--report", str(stage.db.with_suffix("")))
    seconds, found = stage.simulator("evaluate", str(stage.db), "--experiment", SHOP_ID, *policies, *report)
    by_value: dict[str, list[tuple[float, str]]] = {}
    for policy in found["policies"][1:]:
        for segment in policy["segments"]:
            if segment["field"] == "segment" and segment["estimate"]:
                by_value.setdefault(segment["value"], []).append(
                    (segment["estimate"]["value"], policy["name"].partition(":")[2])
                )
    for value, estimates in by_value.items():
        best = truth.best(truth.where("segment", value))
        others = f"{max(estimates)[1]} {_number(max(estimates)[0])}, of {len(estimates)} with an estimate"
        yield Row(f"c {value}", "simulator evaluate --report", seconds, others, best)


def revenue(stage: Stage) -> Rows:
    """d: in money."""
    truth = stage.truth(MONEY, stage.visitors)
    seconds, found = stage.simulator("lift", str(stage.db), "--experiment", MONEY.experiment.id)
    yield Row("d revenue", "simulator lift", seconds, _band(found["rows"][0]["lift"]), _number(truth.lift()))


def guardrail(stage: Stage) -> Rows:
    """d': unsubscribes."""
    for world in (MAIL, RISKY):
        truth = stage.truth(world, stage.visitors // 2, rate=MAILS)
        id_ = world.experiment.id
        seconds, found = stage.simulator("lift", str(stage.db), "--experiment", id_, "--reward", "unsubscribe")
        true = _number(truth.lift(means=_unsubscribes(world, truth)))
        yield Row(f"d' {id_}", "simulator lift --reward", seconds, _band(found["rows"][1]["lift"]), true)
        for one in found["guardrails"]:
            figure = f"{one['answer']}, surely above {_number(one['bound'])}"
            yield Row(f"d' {id_}", "guardrail of at most 0.002", seconds, figure, true)
    seconds, text = stage.get("/readyz")
    said = next((line for line in text.splitlines() if "mail-or-none" in line), "nothing")
    yield Row("d'", "/readyz", seconds, said, "crossed")


def _unsubscribes(world: World, truth: Truth) -> Floats:
    rates = [
        [
            sum([one.probability for one in email.outcomes(context, ActionId(action), 0) if one.name == "unsubscribe"])
            for action in world.actions
        ]
        for context in truth.contexts
    ]
    return np.array(rates)


def exploration(stage: Stage) -> Rows:
    """f: what exploration and the holdout cost."""
    truth = _shop(stage)
    name = "decider_exploration_cost"
    seconds, value = stage.metric(name, experiment=SHOP_ID)
    low, high = (stage.metric(f"{name}_{end}", experiment=SHOP_ID).found for end in ("low", "high"))
    found = _band({"value": value, "low": low, "high": high})
    yield Row("f exploration", name, seconds, found, _number(truth.exploration()))
    seconds, value = stage.metric("decider_holdout_cost", experiment=SHOP_ID)
    yield Row(
        "f holdout", "decider_holdout_cost", seconds, _number(value), _number(truth.lift() * truth.holdout.mean())
    )


def plan(stage: Stage) -> Rows:
    """g: how long until we know. Known by hand: a test with one look, by hand: 141,000 and 74,000 decisions."""
    asked = ("--rate", "10.5%", "--lift", "10%", "--traffic", "20000/day", "--holdout", "5%", "--holdout", "10%")
    seconds, found = stage.simulator("plan", *asked)
    for row, by_hand in zip(found["rows"], ("7.05", "3.7"), strict=True):
        figure = f"{_number(row['days'])} days, with one look {_number(row['fixed_days'])}"
        yield Row(f"g {row['share']:.0%}", "simulator plan", seconds, figure, f"one look {by_hand}")


def candidate(stage: Stage) -> Rows:
    """i: what another policy would have earned. The truth of one that learns is what it earns in the world."""
    truth, file = _shop(stage), stage.db.with_suffix(".candidate.toml")
    file.write_text(re.sub(r"thompson = .*", "squarecb = {}", _definition(stage)), encoding="utf-8")
    policies = ("--policy", str(file), "--policy", "uniform", "--policy", "baseline")
    seconds, found = stage.simulator("evaluate", str(stage.db), "--experiment", SHOP_ID, *policies)
    seen = ~truth.holdout
    rounds = ("--rounds", str(seen.sum()), "--seeds", "2")
    _, played = stage.simulator("run", "storefront", "--policy", "squarecb", *rounds)
    (learned,) = [one for one in played["policies"] if not one["reference"]]
    true = {
        str(file): learned["whole"]["reward"]["mean"],
        "uniform": float(truth.means[seen].mean()),
        "baseline": float(truth.means[seen, truth.baseline].mean()),
    }
    for policy in found["policies"][1:]:
        estimate = policy["estimates"][policy["headline"]]
        name = policy["name"] if policy["name"] in ("uniform", "baseline") else "FILE.toml (squarecb)"
        yield Row(f"i {name}", "simulator evaluate", seconds, _band(estimate), _number(true[policy["name"]]))


def explained(stage: Stage) -> Rows:
    """j: why this choice, and which fields matter. By leaving them out of the world: segment and intent stage do."""
    _shop(stage)
    id_ = stage.view("sealed_decisions", where=f"{OF_SHOP} and reason = 'EXPLOIT'", newest=1).found[0]["decision_id"]
    seconds, text = run("decider.cli", "explain", id_, "--db", str(stage.db), "--json")
    account = json.loads(text)
    two = account["comparison"]
    parts = sum([one["reward"] for one in two["contributions"]]) + two["constant"] + two["together"]
    yield Row(
        "j one decision", "decider explain", seconds, f"gap {_number(two['gap'])}, parts {_number(parts)}", "equal"
    )
    took, _ = stage.get(f"/decisions/{id_}.json")
    yield Row("j", "page /decisions/ID", took, account["check"]["result"], "equal")
    file, asked = stage.db.with_suffix(".running.toml"), ("--importance", "--importance-seconds", "30")
    file.write_text(_definition(stage), encoding="utf-8")
    seconds, found = stage.simulator("evaluate", str(stage.db), "--experiment", SHOP_ID, "--policy", str(file), *asked)
    first = sorted(found["importance"], key=lambda one: -one["loss"]["value"])[:2]
    figure = ", ".join([f"{one['field']} {_number(one['loss']['value'])} ({one['answer']})" for one in first])
    yield Row("j fields", "evaluate --importance", seconds, figure, "segment, intent_stage")


def page(stage: Stage) -> Rows:
    """k: a web page."""
    truth = _shop(stage)
    for path in ("/", f"/experiments/{SHOP_ID}"):
        seconds, text = stage.get(path)
        words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))
        answer = re.search(r"(yes|no|not yet)\b.*?%", words, re.IGNORECASE)
        yield Row("k page", path, seconds, answer[0][:60] if answer else "no answer", f"lift {_number(truth.lift())}")


def broken(stage: Stage) -> Rows:
    """e: does it tell that rewards have stopped, and what does that cost."""
    _shop(stage)
    before = stage.drive(SHOP, OUTAGE, seed=2, rate=RATE).earned
    with _watched(lambda: bool(stage.metric("decider_learning_held", experiment=SHOP_ID).found)) as held:
        stage.drive(SHOP, OUTAGE, seed=3, rate=RATE, lost=1.0)
    figure = f"held after {held[0] * RATE:,.0f} decisions" if held else "not noticed"
    yield Row("e rewards stop", "decider_learning_held", held[0] if held else 0.0, figure, "stopped")
    for group in ("policy", "holdout"):
        name = "decider_rewards_missing_log_evalue"
        seconds, value = stage.metric(name, experiment=SHOP_ID, name="click", group=group)
        yield Row(f"e {group}", name, seconds, f"{_number(value)} (alarm at 6.9)", "both stopped: tracking")
    after = stage.drive(SHOP, OUTAGE, seed=4, rate=RATE).earned
    shares = [f"{100 * one.share:.0f} %" for one in (before, after) if one]
    figure = f"{shares[0]} before, {shares[1]} behind it"
    yield Row("e behind it", "share of the attainable lift", 0.0, figure, "no loss")


@contextmanager
def _watched(seen: Callable[[], bool]) -> Iterator[list[float]]:
    """Gets the seconds until it was seen, which is asked twice a second."""
    found, done, started = [], threading.Event(), time.monotonic()

    def watch() -> None:
        while not done.wait(0.5):
            if seen():
                found.append(time.monotonic() - started)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def rolled_back(stage: Stage) -> Rows:
    """i: back to an older model. The truth is what that model was worth when it served."""
    truth, log = _shop(stage), ("--db", str(stage.db))
    models = run("decider.cli", "rollback", SHOP_ID, *log, "--list").found.split()
    stored = [int(one.rstrip(":")) for one in models if one.endswith(":")]
    position = next(one for one in stored if (truth.model == one).sum() >= FEW)
    before = stage.truth_of(SHOP, stage.drive(SHOP, FEW, seed=5, rate=RATE))
    to = ("--to", str(position), "--reason", "the model from before the sale", "--author", "ann", "--wait")
    seconds, _ = run("decider.cli", "rollback", SHOP_ID, *log, *to)
    after = stage.truth_of(SHOP, stage.drive(SHOP, FEW, seed=5, rate=RATE))
    figure = f"lift {_number(after.lift())}, before it {_number(before.lift())}"
    yield Row("i roll back", "decider rollback", seconds, figure, _number(truth.lift(truth.model == position)))


def changes(stage: Stage) -> Rows:
    """h, l: what changed when, and who did it."""
    said = ("--target", stage.target, "--author", "ann", "--note")
    made = [("pause", "the pixel is broken"), ("resume", "the pixel is mended")]
    for command, note in made:
        run("decider.cli", command, SHOP_ID, *said, note)
    seconds, (after, before) = stage.view("changes", where=OF_SHOP, newest=2)
    right = [(one["author"], one["note"]) for one in (before, after)] == [("ann", note) for _, note in made]
    figure = f"{before['state']}, {after['state']}; by {after['author']}, {after['source']}"
    yield Row("h, l", "view changes", seconds, figure, "as made" if right else "NOT as made")
    seconds, text = stage.get(f"/experiments/{SHOP_ID}")
    shown = sum([note in text and "ann" in text for _, note in made])
    yield Row("h, l", "page, what changed", seconds, f"{shown} of 2 changes with note and author", "2")


QUESTIONS: tuple[Callable[[Stage], Rows], ...] = (
    pays, winners, revenue, guardrail, exploration, plan, candidate, explained, page, broken, rolled_back, changes,
)  # fmt: skip


def _definition(stage: Stage) -> str:
    """Of the shop's experiment, as a file."""
    return str(run("decider.cli", "get", SHOP_ID, "--target", stage.target).found)


def _shop(stage: Stage) -> Truth:
    return stage.truth(SHOP, stage.visitors)


def _number(x: float | None) -> str:
    return "-" if x is None else rough(x, digits=3)


def _band(interval: dict[str, Any] | None) -> str:
    if interval is None or interval["value"] is None:
        return "not known yet"
    return f"{_number(interval['value'])} [{_number(interval['low'])}, {_number(interval['high'])}]"
