"""What the page says in words: answers, figures with their bands, ages and times. Called by `page.py` and templates."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import NamedTuple

from decider.estimate.lift import HOLDOUT, POLICY, START, Lift
from decider.estimate.mean import Interval
from decider.experiment.definition import Experiment, Learning
from decider.page.figures import Brief, NamedLift, Week
from decider.text import NOTHING, between, count, figure, percent, rough, signed, signed_percent
from decider.types import Time

MICROSECONDS = 1e6


class Verdict(NamedTuple):
    """word: of a pill; tone: its look (`fine`, `do not use` or `neutral`); sentence: the same for people."""

    word: str
    tone: str
    sentence: str


class Fact(NamedTuple):
    """A figure, its band and a note."""

    text: str
    interval: str = ""
    note: str = ""


NO_HOLDOUT = Verdict(
    "no holdout",
    "neutral",
    "Nobody can say: no unit is in the holdout, so there is nothing to compare with. Set holdout = 0.1 in the "
    "experiment: a tenth of the units then always gets the baseline action.",
)
TOO_LITTLE = Verdict("not yet", "neutral", "Not yet: there are too few rewards to say anything.")
NOT_YET = Verdict("not yet", "neutral", "Not yet: by now the policy may earn more than the holdout, or less.")


def verdict(found: Lift | None, experiment: Experiment | None) -> Verdict:
    """Does it pay? experiment: None where it has ended."""
    if found is None:
        return TOO_LITTLE if experiment is not None and 0 < experiment.control_share < 1 else NO_HOLDOUT
    match found.answer:
        case "yes":
            return Verdict("yes", "fine", f"Yes: the policy earns {_how_much(found)} more than the holdout.")
        case "no":
            return Verdict("no", "do not use", f"No: the policy earns {_how_much(found)} less than the holdout.")
        case "not yet":
            return NOT_YET
        case _:
            return TOO_LITTLE


def _how_much(found: Lift) -> str:
    if _is_relative(found):
        return percent(abs(found.relative.value))
    return f"{figure(abs(found.interval.value))} a decision"


def _is_relative(found: Lift) -> bool:
    return math.isfinite(found.relative.low)


def in_per_cent(found: Lift | None) -> Fact:
    """Of the holdout's mean."""
    if found is None or not found.is_known:
        return Fact(NOTHING)
    if not _is_relative(found):
        return Fact(NOTHING, note="the holdout's mean could be 0")
    return Fact(signed_percent(found.relative.value), _band(found.relative, signed_percent))


def per_decision(found: Lift | None) -> Fact:
    """In units of the reward."""
    if found is None or not found.is_known:
        return Fact(NOTHING)
    return Fact(signed(found.interval.value), _band(found.interval, signed))


def per_week(week: Week | None, reward: str) -> Fact:
    """At the traffic of the last whole days. reward: its name, where only one counts."""
    if week is None:
        return Fact(NOTHING, note="known after the first whole day")
    traffic = "at last week's traffic" if week.days > 1 else "at the traffic of the last day"
    return Fact(_about(week.more.value), _band(week.more, _about), f"more {reward or 'reward'}, {traffic}")


def _about(x: float) -> str:
    return rough(x, digits=3, written=signed)


def _band(interval: Interval, written: object) -> str:
    assert callable(written)
    return between(interval.low, interval.high, written=written)


def facts(found: Brief, experiment: Experiment) -> dict[str, Fact]:
    """The answer in figures."""
    lift = found.lift
    if lift is None:
        return {}
    groups = {"Policy": _mean(lift, POLICY), "Holdout": _mean(lift, HOLDOUT)}
    if not lift.is_known:
        return groups
    return {
        "In per cent": in_per_cent(lift),
        "Per week": per_week(found.week, only_reward(experiment)),
        "Per decision": per_decision(lift),
        **groups,
        "Cost of the holdout": Fact(rough(lift.cost, digits=3), note="a decision: what its units do not earn"),
    }


def _mean(found: Lift, group: int) -> Fact:
    mean = (found.policy, found.holdout)[group]
    return Fact(figure(mean), note=f"a decision, of {count(found.decisions[group])} decisions")


def only_reward(experiment: Experiment) -> str:
    """The name of the reward, where only one counts, as it is.

    >>> only_reward(Experiment(id="home", actions=()))
    ''
    """
    weights = [name for name, weight in experiment.reward.weights.items() if weight]
    return weights[0] if len(weights) == 1 and experiment.reward.weights[weights[0]] == 1 else ""


def needed(found: Lift | None) -> str:
    """What an answer still needs; nothing where there is one."""
    if found is None or found.is_known:
        return ""
    if found.outweighed:
        return (
            "A few units have nearly all of the reward, so that all others say nothing beside them. Look for a value "
            "that was sent by mistake: with another [reward] the comparison begins anew."
        )
    return (
        f"An answer needs the rewards of about {figure(START)} units in each group, and of more where a few amounts "
        f"are large. The poorer group has {rough(found.clusters)} so far. Wait, or make the holdout larger."
    )


class Other(NamedTuple):
    """A row of the other rewards."""

    name: str
    word: str
    relative: Fact
    decision: Fact
    weight: str


def other(found: NamedLift, experiment: Experiment) -> Other:
    """More of it may be good or bad: so it is `more` or `less`, never `yes`."""
    word = {"yes": "more", "no": "less"}.get(found.lift.answer, "not yet")
    weights = experiment.reward.weights
    weight = weights.get(found.name, 0.0) if weights else 1.0
    learned = f"with weight {figure(weight)}" if weight else "no, it is only watched"
    return Other(found.name, word, in_per_cent(found.lift), per_decision(found.lift), learned)


def state(experiment: Experiment, *, held: bool = False) -> str:
    """What it does now, in one or two words."""
    if experiment.ended:
        return "ended"
    if experiment.paused:
        return "paused"
    if experiment.fallback is not None:
        return "baseline only, a guardrail was crossed"
    if held:
        return "learning held"
    words = {Learning.FROZEN: "learning frozen", Learning.APPRENTICE: "apprentice", Learning.LOG_ONLY: "only logs"}
    return words.get(experiment.learning, "running")


def moment(time: Time) -> str:
    """To the second.

    >>> moment(Time(1_764_417_600_000_000))
    '2025-11-29 12:00:00 UTC'
    """
    return f"{datetime.fromtimestamp(time // 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def date(day: int) -> str:
    """Of a day since 1970.

    >>> date(20_421)
    '2025-11-29'
    """
    return f"{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m-%d}"


def in_bytes(size: int) -> str:
    """With three digits.

    >>> in_bytes(999), in_bytes(292_892_672), in_bytes(7_500_000_000)
    ('999 bytes', '293 MB', '7.5 GB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{rough(size / scale, digits=3)} {unit}"
    return f"{size} bytes"
