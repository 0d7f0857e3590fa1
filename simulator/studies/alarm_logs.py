"""Logs of months for `make alarms`, right ones and ones with a fault, with the evidence at every look.

Called by `alarms.py`. The evidence is computed by the code of the service. Two rules that compare with the past have
none; they are computed here as `decider/metrics/ops/rules.yml` has them, hour by hour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from decider.estimate.missing_actions import missing_action_log_evalue
from decider.estimate.missing_rewards import MissingRewards
from decider.estimate.outage import UsualShare
from decider.estimate.propensities import propensity_log_evalue
from decider.estimate.sample import Flags, Floats, Longs
from decider.estimate.segment_rewards import SegmentCounts, SegmentRewards
from decider.estimate.split import StratumSplit, split_log_evalue
from decider.experiment.strata import BUCKETS
from decider.log.totals import DAYS
from simulator.studies.lift import Scene, simulate

LOOKS = 90
DAY = 2_000
"""Decisions of a day of the propensities' and the rewards' logs."""

SHARE, STEP, SEASON = 0.1, 50, 0.5
"""Of rewarded decisions at the beginning; decisions from look to look; how much the share goes up and down each day."""

Path_ = tuple[Sequence[float], Sequence[int]]
"""The evidence at each look, and after how many decisions that is."""


def split_path(scene: Scene, seed: int, *, lost: float = 0.0) -> Path_:
    """LOOKS looks. lost: share of the holdout's units whose decisions are missing."""
    log = simulate(scene, seed)
    n = len(log.unit)
    unlucky = np.random.default_rng([seed, 1]).random(int(log.unit.max()) + 1) < lost
    there = ~(log.holdout & unlucky[log.unit])
    shape = (LOOKS, len(scene.shares), 2, BUCKETS)
    look = np.arange(n) * LOOKS // n
    place = np.ravel_multi_index((look, log.stratum, log.holdout.astype(np.int64), log.bucket), shape)
    counts = np.bincount(place[there], minlength=math.prod(shape)).reshape(shape).cumsum(axis=0).astype(np.float64)
    found = [
        split_log_evalue([StratumSplit(share, "", one) for share, one in zip(scene.shares, strata, strict=True)])
        for strata in counts
    ]
    return np.nan_to_num(found, nan=0.0).tolist(), [n * (look + 1) // LOOKS for look in range(LOOKS)]


def propensity_path(days: int, seed: int, *, tilt: float = 0.0, after: int = 0, looks: int = 10) -> Path_:
    """So many looks a day. The policy learns: it begins with equal chances, and ends with 78 % for one action in each
    of two segments. tilt: the first action's odds are really larger by that, from day `after` on; only decisions from
    there on are counted."""
    rng = np.random.default_rng(seed)
    sums = np.zeros((2, days * looks, 4))
    for day in range(days):
        best = rng.integers(0, 2, DAY)
        greedy = 0.7 * (1 - math.exp(-3 * day / 30))
        pmf = np.full((DAY, 4), (1 - greedy) / 4)
        pmf[np.arange(DAY), best] += greedy
        real = pmf * np.where(day >= after, [1 + tilt, 1, 1, 1], 1.0)
        real /= real.sum(axis=1, keepdims=True)
        drawn = (rng.random((DAY, 1)) > real.cumsum(axis=1)[:, :-1]).sum(axis=1)
        terms = np.stack([(drawn[:, np.newaxis] == np.arange(4)) - pmf, pmf * (1 - pmf)])
        sums[:, day * looks : (day + 1) * looks] = terms.reshape(2, looks, -1, 4).sum(axis=2)
    found = [_evidence(sums, look, looks) for look in range(after * looks, days * looks)]
    return found, [(one + 1) * DAY // looks for one in range(len(found))]


def _evidence(sums: Floats, look: int, looks: int) -> float:
    """As the totals have it: the newest days apart, and those before together."""
    first = max(0, look // looks - DAYS + 1)
    days = [
        sums[:, day * looks : min((day + 1) * looks, look + 1)].sum(axis=1) for day in range(first, look // looks + 1)
    ]
    excess, variance = np.stack([sums[:, : first * looks].sum(axis=1), *days], axis=1)
    return propensity_log_evalue(excess, variance, days=DAYS)


def rewards_path(days: int, seed: int, *, left: float = 1.0, after: int = 0) -> Path_:
    """A look after every STEP decisions. The share turns with the day, and the policy doubles it in a month. left: so
    much of it still comes, from day `after` on, at any hour; only decisions from there on are counted."""
    rng = np.random.default_rng(seed)
    look = np.arange(days * DAY // STEP)
    time = look * STEP / DAY
    hour = rng.random()
    share = SHARE * (2 - np.exp(-time / 10)) * (1 + SEASON * np.sin(2 * np.pi * (time + hour)))
    fault = time >= after if left < 1 else np.zeros(len(time), np.bool_)
    rewarded = rng.binomial(STEP, np.where(fault, left, 1.0) * share)
    test, found = MissingRewards(UsualShare.known(10_000, int(10_000 * SHARE))), []
    for count in rewarded.tolist():
        test.add(decisions=STEP, rewarded=count)
        found.append(test.value)
    begin = after * DAY // STEP
    return found[begin:], [(one + 1) * STEP for one in range(len(found) - begin)]


def action_path(days: int, seed: int, *, after: int = 0, missing: bool = False, looks: int = 10) -> Path_:
    """The highest evidence of six actions, of which each is the best in one of three segments or in none. The policy
    learns down to a floor of 1 %. missing: the last one is never drawn from noon of day `after` on."""
    rng = np.random.default_rng(seed)
    segment = rng.choice(3, (days * looks, DAY // looks), p=[0.5, 0.3, 0.2])
    expected, drawn = np.zeros((2, days * looks, 6))
    for look, greedy in enumerate(_greedy(days, looks)):
        pmf = np.full((len(segment[look]), 6), (1 - greedy) / 6)
        pmf[np.arange(len(pmf)), segment[look]] += greedy
        action = (rng.random((len(pmf), 1)) > pmf.cumsum(axis=1)[:, :-1]).sum(axis=1)
        expected[look], drawn[look] = pmf.sum(axis=0), np.bincount(action, minlength=6)
    begin = after * looks + looks // 2 if missing else 0
    drawn[begin:, 5] *= not missing
    found = [
        max(_action_evidence(expected[: look + 1, one], drawn[: look + 1, one] > 0, looks) for one in range(6))
        for look in range(begin, days * looks)
    ]
    return found, [(one + 1) * DAY // looks for one in range(len(found))]


def _greedy(days: int, looks: int) -> Floats:
    """Of the probability, what goes to the best action for sure; learned in a month, down to a floor of 1 %."""
    return 0.94 * (1 - np.exp(-3 * np.arange(days * looks) / looks / 30))


def _action_evidence(expected: Floats, drawn: Flags, looks: int) -> float:
    first = max(0, (len(expected) - 1) // looks - DAYS + 1) * looks
    days = np.arange(first, len(expected), looks)
    sums = [expected[:first].sum(), *np.add.reduceat(expected, days)]
    some = [bool(drawn[:first].any()), *np.logical_or.reduceat(drawn, days)]
    return missing_action_log_evalue(np.array(sums), np.array(some), days=DAYS, actions=6)


CHANNELS = np.array([0.5, 0.3, 0.15, 0.05])
"""Of the decisions."""


def channels_path(days: int, seed: int, *, after: int = 0, left: float = 1.0, channel: int = 1) -> Path_:
    """The highest evidence of four channels in both groups, as `rewards_path`: each has its own share and hour. left:
    so much comes of one channel's rewards, from day `after` on."""
    rng = np.random.default_rng(seed)
    time = np.arange(days * DAY // STEP) * STEP / DAY
    weight = np.concatenate([0.9 * CHANNELS, 0.1 * CHANNELS])
    base = np.tile(SHARE * np.array([1.0, 0.8, 1.5, 2.0]), 2)
    hour = np.tile(rng.random(4), 2)
    share = base * (1 + SEASON * np.sin(2 * np.pi * (time[:, None] + hour)))
    share[:, :4] *= (2 - np.exp(-time / 10))[:, None]
    fault = (time >= after)[:, None] & (np.arange(8) % 4 == channel)
    decisions = rng.multinomial(STEP, weight, len(time))
    rewarded = rng.binomial(decisions, np.where(fault, left, 1.0) * share)
    tests = [MissingRewards(UsualShare.known(10_000, int(10_000 * one))) for one in base]
    begin = after * DAY // STEP
    found = [_highest(tests, *rows) for rows in zip(decisions.tolist(), rewarded.tolist(), strict=True)]
    return found[begin:], [(one + 1) * STEP for one in range(len(found) - begin)]


def _highest(tests: Sequence[MissingRewards], decisions: Sequence[int], rewarded: Sequence[int]) -> float:
    for test, *counts in zip(tests, decisions, rewarded, strict=True):
        test.add(decisions=counts[0], rewarded=counts[1])
    return max(test.value for test in tests) - math.log(len(tests))


SEGMENTS = 20


def segments_path(days: int, seed: int, *, after: int = 0, left: float = 1.0, all_left: float = 1.0) -> Path_:
    """The highest evidence of SEGMENTS segments, of which the first has a fifth and the last a hundredth of the visits.
    Each has its own share and hour, and the policy learns more for some than for others: up to three times as much as
    at first. left: so much comes of the third one's rewards, from day `after` on; all_left: of all."""
    rng = np.random.default_rng(seed)
    time = np.arange(days * DAY // STEP) * STEP / DAY
    weight = 1 / np.arange(1, SEGMENTS + 1)
    base, hour, gain = SHARE * rng.uniform(0.5, 1.5, SEGMENTS), rng.random(SEGMENTS), rng.uniform(0, 2, SEGMENTS)
    base[2], gain[2] = SHARE, 0.5
    share = base * (1 + np.outer(1 - np.exp(-time / 10), gain))
    share *= 1 + SEASON * np.sin(2 * np.pi * (time[:, None] + hour))
    fault = np.where(time >= after, 1.0, 0.0)[:, None]
    share *= 1 - fault * (1 - all_left)
    share[:, 2] *= 1 - fault[:, 0] * (1 - left)
    decisions = rng.multinomial(STEP, weight / weight.sum(), len(time))
    rewarded = rng.binomial(decisions, np.minimum(share, 1.0))
    begin = after * DAY // STEP
    found = _segment_evidence(decisions, rewarded)
    return found[begin:].tolist(), [(one + 1) * STEP for one in range(len(found) - begin)]


def _segment_evidence(decisions: Longs, rewarded: Longs) -> Floats:
    """The highest at each look."""
    both = np.stack([decisions, rewarded], axis=2)
    more = np.concatenate([both, both.sum(axis=1, keepdims=True) - both], axis=2)
    sums = np.concatenate([np.zeros((1, *more.shape[1:]), np.int64), more.cumsum(axis=0)])
    newest = np.maximum(0, np.arange(1, len(more) + 1) - DAYS * DAY // STEP)
    recent = sums[1:] - sums[newest]
    tests = [SegmentRewards() for _ in range(decisions.shape[1])]
    found = np.zeros(len(more))
    for look, (now, days) in enumerate(zip(more.tolist(), recent.tolist(), strict=True)):
        for test, *counts in zip(tests, now, days, strict=True):
            test.add(SegmentCounts(*counts[0]), SegmentCounts(*counts[1]))
        known = sum(not math.isnan(test.usual) for test in tests)
        found[look] = max(test.value for test in tests) - math.log(max(1, known))
    return found


HOUR = DAY // 24


def greedy_path(days: int, seed: int, *, best: Sequence[int], fault: int | None = None, gain: float = 0.02) -> Path_:
    """The rule DeciderExplorationCollapsed by hour: infinite where it fires. Six segments of uneven size, whose visits
    turn with the day; five actions. best: the best action of each segment. The policy learns which it is: it knows each
    action's mean up to an error that falls with the draws. fault: from that day on it prefers one action everywhere."""
    rng = np.random.default_rng(seed)
    hours = np.arange(days * 24)
    weight = np.array([0.35, 0.25, 0.15, 0.1, 0.1, 0.05]) * (
        1 + 0.8 * np.sin(2 * np.pi * (hours[:, None] / 24 + rng.random(6)))
    )
    means = np.full((6, 5), 0.1)
    means[np.arange(6), list(best)] += gain
    draws = np.full((6, 5), 10.0)
    sums = rng.binomial(10, means).astype(np.float64)
    greedy = np.zeros((len(hours), 5))
    for hour, count in enumerate(rng.poisson(5 * HOUR * weight / weight.sum(axis=1, keepdims=True))):
        found = (sums / draws).argmax(axis=1)
        if fault is not None and hour >= fault * 24:
            found[:] = 0
        greedy[hour] = np.bincount(found, weights=0.8 * count, minlength=5)
        shown = np.full((6, 5), 0.05) * count[:, None]
        shown[np.arange(6), found] += 0.75 * count
        shown = rng.poisson(shown)
        draws, sums = draws + shown, sums + rng.binomial(shown, means)
    fires = greedy_collapse(greedy)
    begin = 24 * (fault or 0)
    return np.where(fires, math.inf, 0.0)[begin:].tolist(), [(one + 1) * 5 * HOUR for one in range(len(hours) - begin)]


def greedy_collapse(greedy: Floats) -> Flags:
    """As the rule has it, from (hours, actions) draws of the most probable action."""
    draws = greedy + np.vstack([np.zeros((1, greedy.shape[1])), greedy[:-1]])
    many = draws.sum(axis=1) > 200
    effective = np.where(many, draws.sum(axis=1) ** 2 / np.maximum((draws**2).sum(axis=1), 1e-9), np.nan)
    low = effective < 1.02
    found = np.zeros(len(greedy), np.bool_)
    for hour in range(96, len(greedy)):
        past = effective[max(0, hour - 167) : hour - 23]
        known = ~np.isnan(past)
        old = bool(known[:-72].any())
        found[hour] = low[hour] and low[hour - 1] and old and float(past[known].min()) > 1.25
    return found


def half_path(days: int, seed: int, *, left: float = 1.0, after: int = 0) -> Path_:
    """The rule DeciderRewardsFewer, hour by hour, on the logs of `rewards_path` that also turn with the week."""
    rng = np.random.default_rng(seed)
    time = np.arange(days * 24) / 24
    share = SHARE * (2 - np.exp(-time / 10)) * (1 + SEASON * np.sin(2 * np.pi * (time + rng.random())))
    share *= 1 + 0.3 * np.sin(2 * np.pi * (time / 7 + rng.random()))
    share *= np.exp(0.1 * rng.standard_normal(days)).repeat(24)
    share = np.where((time >= after) & (left < 1), left, 1.0) * share
    decisions = rng.poisson(5 * HOUR * (1 + SEASON * np.sin(2 * np.pi * time)))
    rewarded = rng.binomial(decisions, np.minimum(share, 1.0))
    found = np.where(fewer_rewards(decisions, rewarded), math.inf, 0.0)[after * 24 :]
    return found.tolist(), [(one + 1) * 5 * HOUR for one in range(len(found))]


def fewer_rewards(decisions: Longs, rewarded: Longs) -> Flags:
    """As the rule has it, from counts by hour."""
    sums = [np.convolve(one, np.ones(24))[: len(one)] for one in (decisions, rewarded)]
    before = [np.concatenate([np.zeros(168), one])[: len(one)] for one in sums]
    usual = before[1] / np.maximum(before[0], 1)
    low = (before[1] > 500) & (usual * sums[0] > 500) & (sums[1] < 0.6 * usual * sums[0])
    fires: Flags = low & np.concatenate([[False], low[:-1]])
    return fires
