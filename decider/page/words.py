"""What the page says in words: answers, figures with their bands, ages and times. Called by `page.py` and templates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from decider.durations import duration_text
from decider.estimate.cells import EFFECTIVE_DRAWS, CellMean
from decider.estimate.exploration import ExplorationCost
from decider.estimate.lift import HOLDOUT, POLICY, START, Lift
from decider.estimate.mean import Interval
from decider.experiment.definition import Experiment, Learning
from decider.experiment.guardrails import Guardrail
from decider.learn.guardrails import Judged
from decider.log.protocol import LeaveOut
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
SPLIT_IS_WRONG = Verdict(
    "split is wrong",
    "caution",
    "Nobody can say: units are not in the holdout with the declared share, so the groups cannot be compared. See: Is "
    "all well?",
)

HOLDS = Verdict("holds", "fine", "")
CROSSED = Verdict("crossed", "do not use", "")
NOT_TOLD_YET = Verdict("not told yet", "neutral", "")
TOO_LITTLE_TO_JUDGE = Verdict("too little data", "neutral", "")
OUTWEIGHED = Verdict("cannot be judged", "caution", "")
"""Of guardrails."""


def verdict(found: Lift | None, experiment: Experiment | None, *, split_is_wrong: bool = False) -> Verdict:
    """Does it pay? experiment: None where it has ended."""
    if split_is_wrong:
        return SPLIT_IS_WRONG
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
    if not week.days:
        return Fact(NOTHING, note="no decision in the last seven days")
    traffic = "at last week's traffic" if week.days > 1 else "at the traffic of the last day"
    return Fact(_about(week.more.value), _band(week.more, _about), f"more {reward or 'reward'}, {traffic}")


def _about(x: float) -> str:
    return rough(x, digits=3, written=signed)


def _band(interval: Interval, written: object) -> str:
    assert callable(written)
    return between(interval.low, interval.high, written=written)


def facts(found: Brief, experiment: Experiment, *, split_is_wrong: bool = False) -> dict[str, Fact]:
    """The answer in figures; of a split that is wrong the means alone."""
    lift = found.lift
    explored = _exploration(found.exploration)
    if lift is None:
        return explored
    groups = {"Policy": _mean(lift, POLICY), "Holdout": _mean(lift, HOLDOUT)}
    if not lift.is_known or split_is_wrong:
        return {**groups, **explored}
    return {
        "In per cent": in_per_cent(lift),
        "Per week": per_week(found.week, only_reward(experiment)),
        "Per decision": per_decision(lift),
        **groups,
        "Cost of the holdout": Fact(rough(lift.cost, digits=3), note="a decision: what its units do not earn"),
        **explored,
    }


def _exploration(cost: ExplorationCost | None) -> dict[str, Fact]:
    if cost is None or not cost.is_known:
        return {}
    found = cost.interval
    band = between(found.low, found.high, written=lambda x: rough(x, digits=2, written=signed))
    return {"Cost of exploration": Fact(rough(found.value, digits=3), band, "a draw, against the most probable action")}


def _mean(found: Lift, group: int) -> Fact:
    mean = (found.policy, found.holdout)[group]
    return Fact(figure(mean), note=f"a decision, of {count(found.decisions[group])} decisions")


def worth(found: CellMean) -> str:
    """Of the draws that an estimate needs.

    >>> worth(CellMean(Interval(0.2, 0.0, 1.0), draws=2_132, effective=19.4, coverage=0.9))
    '2,132 draws, worth 19 of 50'
    """
    return f"{count(found.draws)} draws, worth {rough(found.effective)} of {figure(EFFECTIVE_DRAWS)}"


def earns(found: CellMean) -> Fact:
    """Of an action in a segment."""
    if not found.is_known:
        return Fact(
            "too little data",
            note=worth(found) if found.effective < EFFECTIVE_DRAWS else "enough draws, but too few rewards",
        )
    short = partial(rough, digits=3)
    return Fact(short(found.interval.value), between(found.interval.low, found.interval.high, written=short))


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


class Rail(NamedTuple):
    """A row of the guardrails."""

    name: str
    verdict: Verdict
    lift: Fact
    bound: str
    follows: str


def rail(guardrail: Guardrail, judged: Judged | None, experiment: Experiment) -> Rail:
    """judged: None before the first look."""
    name, verdict, lift = guardrail.reward, TOO_LITTLE_TO_JUDGE, Fact(NOTHING)
    if judged is not None and judged.evidence.outweighed:
        verdict = OUTWEIGHED
    if judged is not None and judged.evidence.is_known:
        found = judged.evidence
        lift = Fact(signed(found.lift), between(*sorted((found.bound, found.opposite)), written=signed))
        verdict = HOLDS if _is_within(guardrail, found.opposite) else NOT_TOLD_YET
    crossed = guardrail.crossed_at is not None or (judged is not None and judged.crossed)
    bound = f"{'at least' if guardrail.at_most is None else 'at most'} {signed(guardrail.margin)}"
    return Rail(name, CROSSED if crossed else verdict, lift, bound, _follows(guardrail, experiment, crossed=crossed))


def _is_within(guardrail: Guardrail, bound: float) -> bool:
    return bound <= guardrail.margin if guardrail.at_most is not None else bound >= guardrail.margin


def _follows(guardrail: Guardrail, experiment: Experiment, *, crossed: bool) -> str:
    """What is done, or will be."""
    if not guardrail.falls_back:
        return "An alarm; the policy goes on." if crossed else "If it is crossed: an alarm, and the policy goes on."
    if guardrail.crossed_at is None and experiment.fallback is not None:
        return f"Everybody gets the baseline action already, since {experiment.fallback.reward} was crossed."
    if guardrail.crossed_at is None:
        return (
            "Everybody gets the baseline action in a moment."
            if crossed
            else ("If it is crossed: everybody gets the baseline action.")
        )
    again = f", or the policy tries again after {duration_text(guardrail.again_after)}" * bool(guardrail.again_after)
    since = moment(guardrail.crossed_at)
    return f"Everybody gets the baseline action since {since}. `decider resume {experiment.id}` ends that{again}."


def shares(of_times: Sequence[float]) -> str:
    """What the holdout has, and had in the times that are in a figure.

    >>> shares([0.1, 0.1])
    'The holdout has 10 % of the units.'
    >>> shares([0.05, 0.1])
    'The holdout had 5 %, then 10 % of the units; each of these times is compared within itself.'
    """
    different = [percent(one) for one, before in zip(of_times, [None, *of_times], strict=False) if one != before]
    if len(different) == 1:
        return f"The holdout has {different[0]} of the units."
    return f"The holdout had {', then '.join(different)} of the units; each of these times is compared within itself."


def state(experiment: Experiment, *, held: bool = False, crossed: bool = False) -> str:
    """What it does now, in a few words. crossed: a guardrail is, and the policy goes on."""
    if experiment.ended:
        return "ended"
    if experiment.paused:
        return "paused"
    if experiment.fallback is not None:
        return "baseline only, a guardrail was crossed"
    if held:
        return "learning held"
    words = {Learning.FROZEN: "learning frozen", Learning.APPRENTICE: "apprentice", Learning.LOG_ONLY: "only logs"}
    return words.get(experiment.learning, "running") + ", a guardrail is crossed" * crossed


def left_out(one: LeaveOut, *, log: str, in_force: bool) -> tuple[str, ...]:
    """What models leave out since an entry; and the way back, as long as there is one. log: its name."""
    entry = one.entry
    said = str(entry)
    if entry.until == entry.after:
        return (said,)
    if not in_force:
        return (said, "not in force any more")
    command = f"decider leave-out {entry.experiment} --db {log} --take-back {one.position}"
    return (said, f"the way back: {command}")


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
