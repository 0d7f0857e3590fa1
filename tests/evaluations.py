"""An evaluation as a real log could give it, with everything that a report must bear: read by the report's tests.

Four candidates on 80 actions: one that is fine, one to be careful with, one that is refused, and one forced although
its figures cannot be relied on. Names hold markup, quotes, formulas and many scripts; figures hold nan and inf.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from simulator.evaluate.answer import with_answers
from simulator.evaluate.result import (
    ActionShare,
    Curve,
    Diagnostics,
    Difference,
    Estimate,
    Evaluation,
    FieldImportance,
    Finding,
    Histogram,
    LogSummary,
    OverTime,
    Period,
    PolicyResult,
    Segment,
    VersionChange,
)

HOSTILE = """<script>document.title="taken"</script>"""
UNPRINTABLE = "line\nbreak\x00\ud800\u202e"
"""A zero, half of a character, and a mark that turns the direction of what follows."""
ACTIONS = (
    "none",
    f"banner {HOSTILE}",
    "夏のセール・新作コレクションのご案内・期間限定",
    "$x^2$ & 'half' \"price\"",
    "عرض خاص",
    "_private",
    UNPRINTABLE,
    *(f"banner-{n:02}" for n in range(73)),
)
DECISIONS = 10_000
SEGMENTS = {
    "device": {"phone": 6412, "desktop": 2901, "tablet": 687},
    "segment": {"new": 4410, "returning": 3207, "loyal": 1893, "werbemüde Stammkundschaft mit Kundenkarte": 490},
    "location": {f"city {n}": 900 - 60 * n for n in range(14)} | {HOSTILE: 12, UNPRINTABLE: 11},
}

LOG = LogSummary(
    name=f"shop-2025-11.db {HOSTILE}",
    decisions=DECISIONS,
    units=8_123,
    actions=len(ACTIONS),
    mean_reward=0.0038,
    mean_reward_low=0.002736,
    mean_reward_high=0.005134,
    reward_range=(0.0, 1.0),
    hours=167.9,
    left_out={"not yet final": 112, "overridden": 31, "broken line <b>": 2},
    verdict="caution",
    findings=(
        Finding("propensity calibration", "fine", "Actions came as often as their propensities say.", 1.004),
        Finding("sample ratio", "fine", "The e-process never rose above 20.", 1.7),
        Finding(
            "late rewards",
            "caution",
            "4.1 % of the rewards came after the window had closed and do not count.",
            0.041,
            "A window of 3 days instead of 1 would have caught them.",
        ),
        Finding("drift", "fine", "The mean reward of ten blocks of time differs no more than chance allows.", 0.31),
        Finding("duplicate units", "fine", "1.23 decisions a unit; intervals are by unit.", 1.231),
        Finding("default share", "fine", "99.6 % of the decisions took the default reward.", math.nan),
    ),
)

SOUND = Diagnostics(
    ess=1639.50,
    effective_successes=8.24,
    max_weight=19.5984,
    possible_weight=19.5984,
    top_share=0.1207,
    mean_weight=0.9533,
    smallest_propensity=0.0125,
    support_violations=0,
    missing_mass=0.0,
    verdict="caution",
    reasons=("Only about 8 rewards carry this estimate: its interval is wide.",),
    findings=(
        Finding("effective sample size", "fine", "The weights leave 1,640 of 10,000 decisions.", 1639.5),
        Finding(
            "effective successes",
            "caution",
            "Only about 8 rewards carry this estimate: its interval is wide.",
            8.24,
            "About 120,000 decisions logged like these would carry 100 rewards.",
        ),
        Finding("mean weight", "fine", "0.953: about 1, as it must be.", 0.9533),
    ),
)


def _estimates(scale: float = 1.0) -> dict[str, Estimate]:
    rows = {
        "ips": (0.004552880, 0.001611, 0.009377, "cressie-read", ""),
        "snips": (0.004775833, 0.001702, 0.009811, "cressie-read", ""),
        "clipped_ips": (0.004399, 0.001702, 0.008711, "cressie-read", "weights above 10 are cut, so it is too low"),
        "dm": (0.003911, 0.003702, 0.004123, "asymptotic", "as good as the reward model, whose error it cannot see"),
        "dr": (0.004601, 0.001688, 0.009122, "cressie-read", ""),
        "sndr": (0.004699, 0.001702, 0.009655, "cressie-read", ""),
        "switch_dr": (0.004502, 0.00191, 0.00871, "bootstrap", "uses the model where weights are large"),
        "replay": (math.nan, -math.inf, math.inf, "clopper-pearson", "no decision agreed"),
    }
    return {
        name: Estimate(value * scale, low * scale, high * scale, interval, unbiased=not note, note=note)
        for name, (value, low, high, interval, note) in rows.items()
    }


def _curve(rewards: float, scale: float) -> Curve:
    """A running mean of clicks that count for `scale`, with a sequence as wide as such ones are."""
    rng = np.random.default_rng(11)
    decisions = np.unique(np.geomspace(10, DECISIONS, 200).astype(np.int64))
    terms = (rng.random(DECISIONS) < rewards / scale) * scale
    value = np.cumsum(terms)[decisions - 1] / decisions
    width = 1.7 * np.sqrt(rewards * scale * np.log(12 + decisions) / decisions)
    low, high = np.maximum(0, value - width), value + width
    high[:5] = math.inf
    return Curve(
        tuple(decisions.tolist()),
        tuple(value.tolist()),
        tuple(low.tolist()),
        tuple(high.tolist()),
        estimator="snips" if scale > 1 else "dr",
    )


def _weights(spread: float) -> Histogram:
    drawn = np.random.default_rng(5).lognormal(-(spread**2) / 2, spread, DECISIONS)
    drawn[: DECISIONS // 10] = 0
    edges = np.array([0.0, *np.geomspace(0.001, 1000.0, 25)])
    return Histogram(tuple(edges.tolist()), tuple(np.histogram(drawn, edges)[0].tolist()))


def _actions(strength: float) -> tuple[ActionShare, ...]:
    liked = np.exp(strength * np.random.default_rng(3).normal(size=len(ACTIONS)))
    shares = liked / liked.sum()
    return tuple(ActionShare(one, 1 / len(ACTIONS), float(p)) for one, p in zip(ACTIONS, shares, strict=True))


def _segments() -> tuple[Segment, ...]:
    rng = np.random.default_rng(8)

    def estimate(decisions: int, mean: float) -> Estimate:
        width = 2 * math.sqrt(mean / decisions)
        return Estimate(mean, max(0.0, mean - width), mean + 1.3 * width, "cressie-read")

    return tuple(
        Segment(
            name,
            value,
            n,
            0.16 * n,
            estimate(n, 0.0038 * rng.uniform(0.6, 1.4)),
            estimate(n, 0.0047 * rng.uniform(0.5, 1.5)) if n > 100 else None,
            Estimate(0.0009, 0.0009 - 0.12 / math.sqrt(n), 0.0009 + 0.16 / math.sqrt(n), "") if n > 100 else None,
        )
        for name, values in SEGMENTS.items()
        for value, n in values.items()
    )


THOMPSON = PolicyResult(
    name=f"table:thompson.csv {HOSTILE}",
    estimand="fixed policy",
    decisions=DECISIONS,
    refused=False,
    headline="snips",
    diagnostics=SOUND,
    estimates=_estimates(),
    difference=Difference("logged", "snips", 0.000976, -0.0021, 0.00601, "cressie-read"),
    curve=_curve(0.0046, 3.0),
    weights=_weights(1.3),
    actions=_actions(1.0),
    segments=_segments(),
)
LEARNED = PolicyResult(
    name="squarecb.toml",
    estimand="progressive learner",
    decisions=DECISIONS,
    refused=False,
    headline="dr",
    diagnostics=Diagnostics(
        ess=4210.0,
        effective_successes=31.7,
        max_weight=9.1,
        possible_weight=80.0,
        top_share=0.0512,
        mean_weight=1.0021,
        smallest_propensity=0.0125,
        support_violations=0,
        missing_mass=0.0,
        verdict="fine",
        reasons=(),
        findings=(Finding("effective sample size", "fine", "The weights leave 4,210 of 10,000 decisions.", 4210.0),),
    ),
    estimates=_estimates(1.6),
    difference=Difference("logged", "dr", 0.00356, 0.0011, 0.00702, "cressie-read"),
    curve=_curve(0.0074, 1.0),
    weights=_weights(0.6),
    actions=_actions(0.4),
)
REFUSED = PolicyResult(
    name="fixed:夏のセール・新作コレクションのご案内・期間限定",
    estimand="fixed policy",
    decisions=DECISIONS,
    refused=True,
    headline="snips",
    diagnostics=Diagnostics(
        ess=2.1,
        effective_successes=0.0,
        max_weight=math.inf,
        possible_weight=math.inf,
        top_share=1.0,
        mean_weight=math.nan,
        smallest_propensity=0.0,
        support_violations=9_871,
        missing_mass=0.9871,
        verdict="do not use",
        reasons=("9,871 decisions could not have drawn what this policy wants.", "Two decisions carry everything."),
        findings=(
            Finding(
                "support",
                "do not use",
                "9,871 decisions could not have drawn what this policy wants.",
                9871.0,
                "Log with a minimum propensity of 0.01 for this action in every context.",
            ),
            Finding("effective sample size", "do not use", "Two decisions carry everything.", 2.1, "More decisions."),
        ),
    ),
    estimates={},
    difference=None,
    weights=_weights(3.0),
    actions=_actions(2.5),
)
FORCED = PolicyResult(
    name="own:make_policy",
    estimand="deployed curve",
    decisions=DECISIONS,
    refused=False,
    headline="ips",
    diagnostics=Diagnostics(
        ess=16.2,
        effective_successes=1.0,
        max_weight=812.0,
        possible_weight=math.inf,
        top_share=0.93,
        mean_weight=4.6,
        smallest_propensity=0.0008,
        support_violations=3,
        missing_mass=0.0003,
        verdict="do not use",
        reasons=("The mean weight is 4.6 and should be about 1: the propensities do not fit the actions.",),
    ),
    estimates={"ips": Estimate(0.0139, -math.inf, math.inf, "bernstein"), "unheard_of": Estimate(0.01, 0.0, 0.4, "?")},
    difference=Difference("logged", "ips", 0.0101, -math.inf, math.inf, "bernstein"),
)
LOGGED = PolicyResult(
    name="logged",
    estimand="fixed policy",
    decisions=DECISIONS,
    refused=False,
    headline="ips",
    diagnostics=replace(LEARNED.diagnostics, ess=10_000.0, max_weight=1.0, possible_weight=1.0, mean_weight=1.0),
    estimates={"ips": Estimate(0.0038, 0.002736, 0.005134, "cressie-read")},
    difference=None,
)


def _period(day: int) -> Period:
    """Eight days; one without decisions, one with very few, one whose interval nobody could compute."""
    few, mean = day == 5, 0.0034 + 0.0002 * day
    width = math.inf if day == 1 else 0.4 if few else 0.003
    return Period(
        begins=f"2025-11-{10 + day}T00:00:00Z",
        place=day,
        decisions=7 if few else 1_427,
        mean_reward=Estimate(mean, max(0.0, mean - width), mean + width, "cressie-read"),
        shares=(0.3 - 0.02 * day, 0.1 + 0.02 * day, 0.12, 0.1, 0.05),
    )


OVER_TIME = OverTime(
    unit="day",
    actions=(ACTIONS[1], ACTIONS[2], ACTIONS[3], ACTIONS[5], UNPRINTABLE),
    periods=tuple(_period(day) for day in range(8) if day != 2),
    versions=tuple(
        VersionChange(number, f"2025-11-13T{24 * (place % 1):02.0f}:00:00Z", place)
        for number, place in ((2, 3.5), (3, 3.6))
    ),
)
EVALUATION = with_answers(
    Evaluation(
        log=LOG,
        policies=(LOGGED, THOMPSON, LEARNED, REFUSED, FORCED),
        seconds=3.217,
        importance=(
            FieldImportance(
                "segment", Estimate(0.00121, 0.0004, 0.0021, "cressie-read"), LEARNED.name, 4_000, "useful"
            ),
            FieldImportance(
                f"intent_stage {HOSTILE}", Estimate(0.00003, -0.0008, 0.0009, "cressie-read"), LEARNED.name, 4_000
            ),
        ),
        importance_missing={REFUSED.name: "this log cannot carry this policy"},
        over_time=OVER_TIME,
    )
)
