"""What of the log is not among its decisions, and whether that matters. Called by `checks/log.py`.

A log that lost rows at random is a smaller log. One that lost the rows without a purchase, or those of one action, is
another log: its figures are wrong by any amount. Lines that are no decisions, and decisions that wait or are kept apart
on purpose, are no loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import kl_div

from decider.estimate.sample import Floats, Longs
from decider.text import figure, percent
from simulator.evaluate.result import Finding, Verdict
from simulator.evaluate.verdicts import ALARM, MATERIAL, caution_if
from simulator.logs.columns import Codes, Columns, LeftOutRows

REPEATED_IDS = ("repeated decision id of another row", "repeated id of another decision")
"""Of a table, of dsjson: rows with an id that stood before and with something else in them. Second deliveries are no
loss."""

WITHOUT_OUTCOME = ("empty reward", "without a label", "bad reward", "bad _label_cost")
"""Kinds whose rows are lost because of their outcome: it is not known, and nothing says that it is like the others'."""

LOSSES = frozenset({*REPEATED_IDS, *WITHOUT_OUTCOME, "several slots", "continuous action"})
"""Kinds that are judged, besides everything that is `bad`."""

MOST = 0.5
"""Where more than half of the decisions is gone, what is left is the exception."""

MOST_WITHOUT_OUTCOME = 0.2
"""Where more decisions have no outcome, the mean can be off by a fifth of the range, and nothing shows which way."""

MOST_REPEATED = 0.05
"""Where more rows have the id of another one, that is no id of a decision, and which rows are kept has no meaning."""

FEW_VALUES = 10
"""Rewards with no more different values are compared value by value, others by tenths; time by tenths."""

_TESTS = 3


@dataclass(frozen=True, slots=True)
class Dependence:
    """The group whose rows were left out most (or least) often, and the others. p: bound of the p-value."""

    what: str
    rate: float
    others: float
    p: float

    @property
    def significant(self) -> bool:
        """Chance alone does not do this, whichever of the three tests was looked at."""
        return self.p < ALARM / _TESTS

    @property
    def material(self) -> bool:
        """Significant, and large enough to move an estimate."""
        return self.significant and abs(self.rate - self.others) > MATERIAL

    def words(self) -> str:
        """What people read.

        >>> Dependence("action 'b'", 0.2, 0.05, 0.0).words()
        "Decisions with action 'b' were left out 4 times as often as the others (20 % against 5 %)."
        """
        against = f"({percent(self.rate)} against {percent(self.others)})"
        if not self.rate:
            return f"Decisions with {self.what} were never left out, others were {against}."
        if not self.others:
            return f"Only decisions with {self.what} were left out {against}."
        times = figure(float(f"{self.rate / self.others:.2g}"))
        return f"Decisions with {self.what} were left out {times} times as often as the others {against}."


def left_out(columns: Columns) -> Finding | None:
    """Every kind with its count; the losses among them with their share and what they depend on. value: that share."""
    counts = {kind: count for kind, count in columns.left_out.items() if count}
    if not counts:
        return None
    text = f"Not among these decisions: {', '.join(f'{count:,} {kind}' for kind, count in counts.items())}."
    losses = {kind: count for kind, count in counts.items() if _is_loss(kind)}
    if not losses:
        return Finding("left out", "fine", text, 0.0)
    share = sum(losses.values()) / (len(columns) + sum(losses.values()))
    found = [one for one in dependences(columns) if one.significant]
    verdict = _verdict(columns, losses, share, found)
    reasons = [*_outcome_words(columns, losses), *_id_words(columns, losses), *[one.words() for one in found]]
    text = " ".join([text, f"{percent(share)} of the decisions are lost.", *reasons])
    needed = "" if verdict == "fine" else _way_out(_gravest(columns, losses))
    return Finding("left out", verdict, text, share, needed)


def _is_loss(kind: str) -> bool:
    return kind in LOSSES or kind.startswith("bad ")


def _verdict(columns: Columns, losses: dict[str, int], share: float, found: list[Dependence]) -> Verdict:
    material = any(one.material for one in found)
    if share > MOST or _too_many_unknown(columns, losses) or _no_id(columns, losses):
        return "do not use"
    if share > MATERIAL and (material or _empty_means_none(columns, losses)):
        return "do not use"
    return caution_if(share > MATERIAL or material or _could_move(columns, losses))


def _without_outcome(losses: dict[str, int]) -> int:
    return sum(losses.get(kind, 0) for kind in WITHOUT_OUTCOME)


def _repeated(losses: dict[str, int]) -> int:
    return sum(losses.get(kind, 0) for kind in REPEATED_IDS)


def _share(lost: int, columns: Columns) -> float:
    return lost / (len(columns) + lost) if lost else 0.0


def _too_many_unknown(columns: Columns, losses: dict[str, int]) -> bool:
    return _share(_without_outcome(losses), columns) > MOST_WITHOUT_OUTCOME


def _no_id(columns: Columns, losses: dict[str, int]) -> bool:
    return _share(_repeated(losses), columns) > MOST_REPEATED


def _gravest(columns: Columns, losses: dict[str, int]) -> str:
    """The kind to mend first: one that alone forbids the log, else the most frequent one."""
    forbids = [*REPEATED_IDS] if _no_id(columns, losses) else []
    forbids += [*WITHOUT_OUTCOME] if _too_many_unknown(columns, losses) else []
    return max([kind for kind in forbids if kind in losses] or losses, key=losses.__getitem__)


def _empty_means_none(columns: Columns, losses: dict[str, int]) -> bool:
    """Whether rows without an outcome are lost and all others were rewarded: then the lost ones earned nothing."""
    return _without_outcome(losses) > 0 and bool((columns.reward > 0).all() or (columns.reward < 0).all())


def _could_move(columns: Columns, losses: dict[str, int]) -> bool:
    """Whether unknown outcomes, all at one end of the range, would move the mean reward by more than chance does."""
    low, high = columns.reward_range
    share = _share(_without_outcome(losses), columns)
    return bool(share * (high - low) > float(columns.reward.std()) / max(1, len(columns)) ** 0.5)


def _outcome_words(columns: Columns, losses: dict[str, int]) -> list[str]:
    count, lost = _without_outcome(losses), sum(losses.values())
    if not count:
        return []
    which = "They" if count == lost else f"{count:,} of the {lost:,}"
    words = [f"{which} have no usable reward: what they earned may be unlike what the others did."]
    if _too_many_unknown(columns, losses):
        words.append(f"With more than {percent(MOST_WITHOUT_OUTCOME)} of the decisions that can be anything.")
    if _empty_means_none(columns, losses):
        words.append("All others were rewarded: the lost ones look like those that earned nothing.")
    return words


def _id_words(columns: Columns, losses: dict[str, int]) -> list[str]:
    again = _repeated(losses)
    whole = len(columns) + again
    if not _no_id(columns, losses):
        return []
    if len(columns) == 1:
        return [f"All {whole:,} rows have one decision id: it was not filled in, or is no id of a decision."]
    return [
        f"{again:,} of {whole:,} rows have a decision id that stood before, and something else in them: it was not "
        "filled in everywhere, or is no id of a decision."
    ]


def _way_out(kind: str) -> str:
    if kind == REPEATED_IDS[0]:
        return "An id of its own for every decision; or leave that column out, so that all count: --column ignore=NAME."
    if kind == REPEATED_IDS[1]:
        return "An EventId of its own for every decision; or none, so that all lines count: jq -c 'del(.EventId)' FILE."
    if kind == "empty reward":
        return (
            "Say what an empty reward means: --empty-reward 0 where it is that nothing came; or wait until it is known."
        )
    if kind in WITHOUT_OUTCOME:
        return "The reward of every decision, also where nothing came: 0 (in dsjson _label_cost 0)."
    return "Mend these rows, at their source or in the file, rather than leave them out."


def dependences(columns: Columns) -> list[Dependence]:
    """How the loss depends on the action, the outcome and the time: as far as the lost rows tell them."""
    rows = columns.left_out_rows
    if rows is None or not len(columns):
        return []
    alike = _rows_of_a_unit(columns)
    found = (_by_action(columns, rows, alike), _by_reward(columns, rows, alike), _by_time(columns, rows, alike))
    return [one for one in found if one]


def _rows_of_a_unit(columns: Columns) -> float:
    """How many rows the unit of a row has on average: as many may have been lost together, and be alike."""
    sizes = np.unique(columns.cluster, return_counts=True)[1].astype(np.float64)
    return float(np.dot(sizes, sizes) / sizes.sum())


def _by_action(columns: Columns, rows: LeftOutRows, alike: float) -> Dependence | None:
    lost = rows.action[rows.action >= 0]
    return dependence(columns.action, lost, [f"action {one!r}" for one in columns.actions], alike)


def _by_reward(columns: Columns, rows: LeftOutRows, alike: float) -> Dependence | None:
    lost = rows.reward[np.isfinite(rows.reward)]
    values = np.unique(np.concatenate([columns.reward, lost]))
    if len(values) <= FEW_VALUES:
        names = [f"reward {figure(float(value))}" for value in values]
        return dependence(np.searchsorted(values, columns.reward), np.searchsorted(values, lost), names, alike)
    return _by_tenths(columns.reward, lost, alike, lambda low, high: f"a reward of {figure(low)} to {figure(high)}")


def _by_time(columns: Columns, rows: LeftOutRows, alike: float) -> Dependence | None:
    kept, lost = columns.time.astype(np.float64), rows.time[rows.time >= 0].astype(np.float64)
    return _by_tenths(kept, lost, alike, lambda low, high: f"a time from {_moment(low)} to {_moment(high)}")


def _moment(microseconds: float) -> str:
    return f"{np.datetime64(round(microseconds), 'us').astype('datetime64[m]')}"


def _by_tenths(kept: Floats, lost: Floats, alike: float, words: Callable[[float, float], str]) -> Dependence | None:
    """By tenths of all rows; equal values are in one group."""
    both = np.concatenate([kept, lost])
    inner = np.unique(np.quantile(both, np.linspace(0.1, 0.9, 9), method="lower"))
    group = np.searchsorted(inner, both, side="left")
    used = np.unique(group)
    names = [words(float(both[group == one].min()), float(both[group == one].max())) for one in used.tolist()]
    places = np.searchsorted(used, group)
    return dependence(places[: len(kept)], places[len(kept) :], names, alike)


def dependence(kept: Longs | Codes, lost: Longs | Codes, names: Sequence[str], alike: float = 1.0) -> Dependence | None:
    """kept, lost: the group of each row. alike: how many rows may count as one. None where there is nothing to compare.

    Where rows are lost at random, the lost ones of a group are hypergeometric. Its tails are bounded by
    exp(-m KL(share of the lost || share of all)) (Hoeffding, JASA 1963, theorems 1 and 4), at any number of rows; the
    smallest of the groups' p-values is corrected for their number (Bonferroni).
    """
    if not len(lost) or len(names) < 2:
        return None
    in_lost = np.bincount(lost, minlength=len(names)).astype(np.float64)
    in_all = in_lost + np.bincount(kept, minlength=len(names))
    bounds = 2.0 * np.exp(-len(lost) / alike * _divergence(in_lost / len(lost), in_all / in_all.sum()))
    farthest = int(np.argmin(bounds))
    others = (in_lost.sum() - in_lost[farthest]) / max(1.0, in_all.sum() - in_all[farthest])
    p = min(1.0, float(bounds[farthest]) * len(names))
    return Dependence(names[farthest], in_lost[farthest] / max(1.0, in_all[farthest]), float(others), p)


def _divergence(share: Floats, expected: Floats) -> Floats:
    """Kullback and Leibler's, of two probabilities of an event."""
    return np.asarray(kl_div(share, expected) + kl_div(1.0 - share, 1.0 - expected))


def missing_ids(columns: Columns) -> tuple[Finding, ...]:
    """Rows whose id is empty, and rows that stand there twice: none is left out, and what that means is said."""
    found = (
        _missing_id(columns, "decision ids", "without a decision id", "each counts as a decision of its own"),
        _missing_id(columns, "unit ids", "without a unit id", "each counts as a unit of its own"),
        _copies(columns),
    )
    return tuple(finding for finding in found if finding)


def _missing_id(columns: Columns, name: str, kind: str, meaning: str) -> Finding | None:
    count = columns.counts.get(kind, 0)
    if not count:
        return None
    share = count / max(1, len(columns))
    some = MATERIAL < share < 1.0
    text = f"{count:,} decisions ({percent(share)}) are {kind}: {meaning}."
    if some:
        text += " Who has none may be one visitor, or of another kind than the others."
    return Finding(name, caution_if(some), text, share, f"{name.capitalize()} for all decisions." if some else "")


def _copies(columns: Columns) -> Finding | None:
    count = columns.counts.get("exact copies of rows", 0)
    if not count:
        return None
    share = count / max(1, len(columns))
    many = share > MATERIAL
    text = f"{count:,} rows ({percent(share)}) are exact copies of earlier ones; without a decision id all count."
    needed = (
        "Take the copies out, or name the column that tells decisions apart: --column decision_id=NAME." if many else ""
    )
    return Finding("copies", caution_if(many), text, share, needed)
