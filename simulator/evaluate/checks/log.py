"""Checks of a log before any policy is evaluated on it. Called by `simulator inspect` and by the evaluation.

Each check is a function that gives one `Finding`, or None where the log does not hold what it would need.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from decider.estimate.weights import usual_value
from decider.text import duration, figure, more_decisions, percent
from decider.types import Reason
from simulator.evaluate.checks.draw import draw_findings
from simulator.evaluate.checks.drift import drift
from simulator.evaluate.checks.leaks import fields_left_out
from simulator.evaluate.checks.left_out import left_out, missing_ids
from simulator.evaluate.checks.never_drawn import never_drawn
from simulator.evaluate.checks.reward_range import reward_range
from simulator.evaluate.checks.split import split_finding, units_in_both, versions_read
from simulator.evaluate.checks.time import time_gaps
from simulator.evaluate.result import Finding
from simulator.evaluate.verdicts import ENOUGH_SUCCESSES, MATERIAL, caution_if
from simulator.logs.columns import Columns, Floats

NEARLY_ALL, FEW = 0.9, 20
"""A unit with nine in ten decisions, of more than twenty, leaves nothing that an interval could be made of."""

OF_ACTIONS = ("mean weight by action", "sample ratio")
"""Findings that tell whether actions came as often as their propensities say."""


def log_findings(columns: Columns) -> tuple[Finding, ...]:
    """All checks that need no policy, in the order in which a reader would ask."""
    draws = draw_findings(columns)
    found: Sequence[Finding | None] = (
        decisions(columns),
        versions_read(columns),
        rewarded_decisions(columns),
        reward_range(columns),
        *draws,
        fields_left_out(columns),
        split_finding(columns),
        units_in_both(columns),
        choice(columns),
        never_drawn(columns),
        repeated_units(columns),
        default_share(columns),
        reward_delay(columns),
        late_rewards(columns),
        refused_rewards(columns),
        overrides(columns),
        not_activated(columns, draws),
        fallbacks(columns),
        exploration_off(columns),
        default_actions(columns),
        left_out(columns),
        *missing_ids(columns),
        models(columns),
        time_gaps(columns),
        drift(columns),
    )
    return tuple(finding for finding in found if finding)


def decisions(columns: Columns) -> Finding:
    """How many there are."""
    count = len(columns)
    text = f"{count:,} decisions among {len(columns.actions):,} actions."
    if count:
        return Finding("decisions", "fine", text, float(count))
    return Finding("decisions", "do not use", "There are no decisions.", 0.0, "A log with decisions.")


def rewarded_decisions(columns: Columns) -> Finding:
    """Decisions with another reward than the usual one: where they are few, every estimate is imprecise."""
    usual = usual_value(columns.reward)
    count = len(columns) - _most_frequent(columns.reward, usual)
    few = count < ENOUGH_SUCCESSES
    text = f"{count:,} decisions have another reward than the usual {figure(usual)}."
    more = more_decisions(len(columns), value=count, enough=ENOUGH_SUCCESSES)
    return Finding("rewarded decisions", caution_if(few), text, float(count), f"Log {more}." if few else "")


def _most_frequent(reward: Floats, usual: float) -> int:
    """How many decisions have the most frequent reward: the median alone would count -r differently than r."""
    count = int(np.count_nonzero(reward == usual))
    return count if 2 * count > len(reward) else int(np.unique(reward, return_counts=True)[1].max(initial=0))


def choice(columns: Columns) -> Finding:
    """Decisions with one eligible action: all policies are equal there."""
    sizes = np.array([len(members) for members in columns.sets], np.int64)
    share = _share(int(np.count_nonzero(sizes[columns.eligible] < 2)), len(columns))
    if not share:
        return Finding("choice", "fine", "Every decision had a choice.", share)
    text = f"{percent(share)} of the decisions had only one eligible action: all policies are equal there."
    needed = "More eligible actions, if policies are to differ there." if share > 0.5 else ""
    return Finding("choice", caution_if(share > 0.5), text, share, needed)


def repeated_units(columns: Columns) -> Finding:
    """Units that come back: their decisions are not independent. Linked units are one."""
    sizes = np.unique(columns.cluster, return_counts=True)[1]
    share = _share(int(sizes[sizes > 1].sum()), len(columns))
    largest = _share(int(sizes.max(initial=0)), len(columns))
    alone = columns.person is None
    if not share:
        return Finding("repeated units", "fine", "Every decision is of another unit.", 0.0)
    whose = _units(columns, len(sizes))
    text = (
        f"{percent(share)} of the decisions are of units that come back ({whose}, the largest with "
        f"{percent(largest)} of the decisions): intervals are clustered by {'unit' if alone else 'person'}."
    )
    dominant = largest > MATERIAL
    if dominant:
        text += " One unit with so many is a robot, a test, or an id that was not filled in."
    one_id = largest > NEARLY_ALL and len(columns) > FEW
    verdict = "do not use" if one_id else caution_if(dominant)
    return Finding("repeated units", verdict, text, share, "An id for every visitor." if dominant else "")


def _units(columns: Columns, persons: int) -> str:
    return f"{persons:,} units" if columns.person is None else f"{persons:,} persons with {columns.unit_count:,} units"


def default_share(columns: Columns) -> Finding | None:
    """Decisions to which no reward came."""
    if columns.default is None:
        return None
    share = _share(int(np.count_nonzero(columns.default)), len(columns))
    text = f"{percent(share)} of the decisions got no reward and count with the default."
    none = share == 1.0
    needed = "Rewards: check that they are sent with the decision's id, and within the window." if none else ""
    return Finding("default share", caution_if(none), text, share, needed)


def reward_delay(columns: Columns) -> Finding | None:
    """From the decision to its first reward, and whether the window cuts it off. value: seconds, nine in ten."""
    known = np.empty(0) if columns.delay is None else columns.delay[~np.isnan(columns.delay)]
    if not len(known):
        return None
    half, most, nearly_all = (float(q) for q in np.quantile(known, (0.5, 0.9, 0.99)))
    windows = columns.known - columns.time
    window = float(windows.max()) / 1e6
    cut = bool(windows.max() == windows.min()) and 0 < 0.9 * window < nearly_all
    text = (
        f"Rewards come within {duration(half)} (half), {duration(most)} (nine in ten), {duration(nearly_all)} (99 %)."
    )
    if cut:
        text += f" The window of {duration(window)} cuts some off."
    return Finding("reward delay", caution_if(cut), text, most, "A longer window." if cut else "")


def late_rewards(columns: Columns) -> Finding | None:
    """Rewards that came after their decision's window: these decisions count as unrewarded."""
    late = count_of(columns, "rewards late")
    if late is None:
        return None
    share = _share(late, late + (count_of(columns, "rewards joined") or 0))
    much = share > MATERIAL
    text = f"{late:,} rewards ({percent(share)}) came after the window and are not in any figure."
    return Finding("late rewards", caution_if(much), text, share, "A longer window." if much else "")


def refused_rewards(columns: Columns) -> Finding | None:
    """Rewards that were sent twice, or for a decision that the log does not know. value: share of the orphans."""
    duplicates, orphans = count_of(columns, "rewards duplicate"), count_of(columns, "rewards orphan")
    if duplicates is None and orphans is None:
        return None
    sent = sum(count_of(columns, f"rewards {what}") or 0 for what in ("joined", "late", "duplicate", "orphan"))
    share = _share(orphans or 0, sent)
    much = share > MATERIAL
    text = (
        f"{duplicates or 0:,} duplicate rewards were counted once; {orphans or 0:,} orphans ({percent(share)} of all "
        "sent) belong to no decision."
    )
    needed = "Decisions that are logged before their reward is sent, and ids passed on unchanged." if much else ""
    return Finding("refused rewards", caution_if(much), text, share, needed)


def overrides(columns: Columns) -> Finding | None:
    """Decisions after which another action was shown than was drawn."""
    count = count_of(columns, "overridden")
    if count is None:
        return None
    share = _share(count, len(columns) + columns.left_out.get("overridden", 0))
    much = share > MATERIAL
    text = f"{count:,} decisions ({percent(share)}) were overridden after the draw."
    if much:
        text += " If overrides depend on the action, the remaining decisions are a biased selection."
    needed = "Take actions that would be overridden out of the eligible ones, before the draw." if much else ""
    return Finding("overrides", caution_if(much), text, share, needed)


def not_activated(columns: Columns, draws: Sequence[Finding]) -> Finding | None:
    """Decisions that had to be activated and were not: no loss, unless their actions are why. None without any.

    draws: what was found about the draws of the others. They follow the pmfs whatever context keeps a page from being
    seen, but not where the drawn action does.
    """
    count = columns.left_out.get("not activated", 0)
    if not count:
        return None
    share = _share(count, len(columns) + count)
    selected = any(one.name in OF_ACTIONS and one.verdict != "fine" for one in draws)
    text = f"{count:,} decisions ({percent(share)}) were not activated: nobody is known to have seen them."
    if not selected:
        return Finding("not activated", "fine", text, share)
    return Finding(
        "not activated",
        "caution",
        f"{text} The draws of the others do not follow their pmfs: perhaps some actions are activated less often.",
        share,
        "Activate whatever was shown, whichever action it was; take actions that often fail to be shown out of the "
        "eligible ones, before the draw.",
    )


def fallbacks(columns: Columns) -> Finding | None:
    """Decisions where the policy gave no usable pmf and the baseline was taken. None in other tools' logs."""
    if columns.reason is None:
        return None
    share = _share(_with_reason(columns, Reason.FALLBACK), len(columns))
    text = f"In {percent(share)} of the decisions the policy failed, and the baseline was taken."
    needed = "A policy that gives a pmf: see the server's log for its errors." if share > MATERIAL else ""
    return Finding("fallbacks", caution_if(share > MATERIAL), text, share, needed)


def exploration_off(columns: Columns) -> Finding | None:
    """Decisions whose caller switched exploration off, with propensity 1. None in other tools' logs."""
    if columns.reason is None:
        return None
    share = _share(_with_reason(columns, Reason.NO_EXPLORATION), len(columns))
    text = f"In {percent(share)} of the decisions the caller had switched exploration off."
    needed = "Calls that leave exploration on: only then can other policies be evaluated." if share > MATERIAL else ""
    return Finding("exploration switched off", caution_if(share > MATERIAL), text, share, needed)


def default_actions(columns: Columns) -> Finding | None:
    """Decisions of an apprentice, which served its caller's action. None where there is none."""
    count = _with_reason(columns, Reason.APPRENTICE)
    if not count:
        return None
    share = _share(count, len(columns))
    text = (
        f"{percent(share)} of the decisions are an apprentice's: they show what a default action earns, and nothing of "
        "the others."
    )
    needed = 'simulator agreement, for how far the policy does the same; learning = "online", for what it earns.'
    return Finding("default actions", "caution", text, share, needed)


def _with_reason(columns: Columns, reason: Reason) -> int:
    if columns.reason is None or reason not in columns.reason.values:
        return 0
    return int(np.count_nonzero(columns.reason.codes == columns.reason.values.index(reason)))


def models(columns: Columns) -> Finding | None:
    """How many models decided: several are no fault, since each propensity is that of the model that drew."""
    if columns.model is None:
        return None
    count = len(np.unique(columns.model))
    text = f"{count:,} models decided, each with its own propensities: the logged policy is their mixture over time."
    return Finding("models", "fine", text if count > 1 else "At most one model served.", float(count))


def count_of(columns: Columns, kind: str) -> int | None:
    """How many of a kind the log counted, among its decisions or left out; None where it does not count them."""
    return columns.counts.get(kind, columns.left_out.get(kind))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
