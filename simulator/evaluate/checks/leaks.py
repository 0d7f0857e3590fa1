"""Columns that look like context and were made after the draw: found, named, and left out. Called by the evaluation.

A field made of the drawn action (its price, its banner), of the outcome (conversion, revenue, dwell time) or of the
propensity tells a reward model what it must not know, and a learner what it could not have known. What is found moves
from `Columns.fields` to `Columns.set_aside`, with the reason. The five fields of every context and those that the user
named (`--column context=NAME`) stay: if the draws do not fit them, the propensities are wrong (`checks/draw.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from decider.estimate.weights import usual_value
from decider.text import figure, percent
from decider.types import CONTEXT_FIELDS
from simulator.evaluate.checks.balance import Cells, cells_of, name_of_level
from simulator.evaluate.checks.direction import Preference, preferences
from simulator.evaluate.checks.draw import independent_draws, repeated_draws
from simulator.evaluate.checks.within import association_within
from simulator.evaluate.result import Finding
from simulator.evaluate.verdicts import ALARM, LEAKS
from simulator.logs.columns import Columns
from simulator.logs.id_fields import is_only_an_id

SUSPICION = 0.05
"""Chance, over all fields of a right log, of an alarm here; by the bounds used it is far less (see RESULTS.md). The
price of a false one is small: a field less in the reward model."""

TESTS = 3
"""Of each field: its worst cell, all of its cells, and the direction of the outcome."""

STRONG, STRONG_SUSPICION = 0.1, 0.2
"""A field that explains a tenth of the rewards does great harm if it is a leak: less evidence will do, field by field;
the bound of 0.2 is passed by 1 to 2 % of right fields."""

PURE = 1e-6
"""Chance that all decisions with a value are rewarded by luck."""

HOLES = 0.25
"""Share of the expected draws that lie where nothing was drawn: a field made of the action."""

THROUGH_REWARD = 0.01
"""p-value from which on a field goes with the action only through the reward."""

SPREAD = 1e-6
"""Variance of the logarithm of propensities that are not all the same."""

COPY = 0.98
"""Share of the variance of the propensities that the field explains: a copy of them."""


def set_leaks_aside(columns: Columns) -> Columns:
    """Without the fields that were made after the draw.

    >>> from simulator.logs.example import example
    >>> set_leaks_aside(example()).set_aside  # two decisions prove nothing
    {}
    """
    if columns.screened or not len(columns) or not columns.has_propensities:
        return columns
    columns = replace(columns, screened=True)
    judged = independent_draws(columns, repeated_draws(columns))
    if not (judged.propensity < 1.0).any():  # default actions alone: without a draw no field was made after one
        return columns
    cells = {one.field: one for one in cells_of(judged)}
    for name in _suspects(judged):
        for reason in _pure(judged, cells[name]):
            columns, judged = (_without(one, name, reason) for one in (columns, judged))
            break
    while (leak := _worst(judged, cells)) is not None:
        columns, judged = (_without(one, *leak) for one in (columns, judged))
    return columns


def _suspects(columns: Columns) -> list[str]:
    return [name for name in columns.fields if name not in columns.insisted and name not in CONTEXT_FIELDS]


def _without(columns: Columns, name: str, reason: str) -> Columns:
    fields = {field: one for field, one in columns.fields.items() if field != name}
    return replace(columns, fields=fields, set_aside={**columns.set_aside, name: reason})


def _worst(columns: Columns, cells: dict[str, Cells]) -> tuple[str, str] | None:
    """The field with the most evidence that it is none, and the reason."""
    suspects = _suspects(columns)
    if not suspects:
        return None
    preferred = preferences(columns)
    tests = TESTS * len(columns.fields)
    evidence = {name: min(cells[name].least, cells[name].total, preferred[name].chance) * tests for name in suspects}
    for name in sorted(suspects, key=lambda name: evidence[name]):
        for reason in _reasons(columns, cells[name], preferred[name], evidence[name]):
            return name, reason
    return None


def _reasons(columns: Columns, cells: Cells, preferred: Preference, chance: float) -> Iterator[str]:
    """chance: of all tests of the field, corrected for their number."""
    if chance >= SUSPICION and not (preferred.share > STRONG and preferred.chance < STRONG_SUSPICION):
        return
    never = np.where(cells.drawn == 0, cells.expected, 0.0)
    if never.sum() > HOLES * cells.rows.sum():
        level, action = np.unravel_index(int(never.argmax()), never.shape)
        where = name_of_level(columns.fields[cells.field], cells.levels, int(level))
        yield (
            f"its values come with some actions only: where it is {where}, {columns.actions[int(action)]!r} was never "
            f"drawn, though {figure(float(never[level, action]))} draws were to be expected"
        )
    elif _wrong_on_the_whole(cells):
        return
    elif min(cells.least, cells.total) * TESTS * len(columns.fields) < SUSPICION and _copies(columns, cells):
        yield "it is a copy of the propensity of the drawn action"
    elif association_within(columns, cells) >= THROUGH_REWARD:
        yield (
            f"it goes with the outcome: it explains {percent(preferred.share)} of the variance of the rewards, and "
            "where it goes with high ones, actions that do well were drawn more often than their propensities say (by "
            f"chance: {figure(min(chance, preferred.chance))} at most)"
        )


def _wrong_on_the_whole(cells: Cells) -> bool:
    """Where an action is drawn too often at every level alike, no field is to blame."""
    return bool((cells.whole < ALARM / len(cells.whole)).any())


def _pure(columns: Columns, cells: Cells) -> Iterator[str]:
    """Values that come with rewards only, or with one action only."""
    yield from filter(None, (_rewarded_level(columns, cells), _level_of_one_action(columns, cells)))


def _rewarded_level(columns: Columns, cells: Cells) -> str:
    """Whether all decisions with a value have another reward than the usual one, more of them than luck explains."""
    random = columns.propensity < 1.0
    codes = cells.levels.codes(columns.fields[cells.field])[random]
    other = (columns.reward != usual_value(columns.reward))[random]
    rows = np.bincount(codes, minlength=cells.levels.count)
    rewarded = np.bincount(codes, weights=other, minlength=cells.levels.count)
    chance = np.power(float(other.mean()) if len(other) else 1.0, rows)
    pure = (rows > 0) & (rewarded == rows) & (chance * max(1, np.count_nonzero(rows)) < PURE)
    if not pure.any():
        return ""
    level = name_of_level(columns.fields[cells.field], cells.levels, int(np.argmax(np.where(pure, rows, 0))))
    return f"every decision with {cells.field} {level} has a reward other than {figure(usual_value(columns.reward))}"


def _level_of_one_action(columns: Columns, cells: Cells) -> str:
    """Whether all decisions with a value drew the same action, which their propensities make next to impossible."""
    random = columns.propensity < 1.0
    codes = cells.levels.codes(columns.fields[cells.field])[random]
    actions, count = len(columns.actions), cells.levels.count
    drawn = np.bincount(codes * actions + columns.action[random], minlength=count * actions).reshape(count, actions)
    logs = np.bincount(codes, weights=np.log(columns.propensity[random]), minlength=count)
    pure = (np.count_nonzero(drawn, axis=1) == 1) & (logs + np.log(max(1, drawn.size)) < np.log(PURE))
    if not pure.any():
        return ""
    level = int(np.argmax(np.where(pure, drawn.sum(axis=1), 0)))
    name = name_of_level(columns.fields[cells.field], cells.levels, level)
    return f"every decision with {cells.field} {name} drew {columns.actions[int(drawn[level].argmax())]!r}"


def _copies(columns: Columns, cells: Cells) -> bool:
    """Whether the levels tell the propensity."""
    codes, logs = cells.levels.codes(columns.fields[cells.field]), np.log(columns.propensity)
    rows = np.maximum(np.bincount(codes, minlength=cells.levels.count), 1)
    means = np.bincount(codes, weights=logs, minlength=cells.levels.count) / rows
    whole = float(np.var(logs))
    return whole > SPREAD and float(np.var(logs - means[codes])) < (1 - COPY) * whole


def fields_left_out(columns: Columns) -> Finding | None:
    """Columns that are not used as context although they were read as such, each with its reason.

    An id teaches nothing, so leaving it out costs nothing: that alone is fine.
    """
    if not columns.set_aside:
        return None
    names, number = ",".join(columns.set_aside), float(len(columns.set_aside))
    reasons = "; ".join(f"{name}: {reason}" for name, reason in columns.set_aside.items())
    text = f"Not used as context: {reasons}."
    if all(map(is_only_an_id, columns.set_aside.values())):
        return Finding(LEAKS, "fine", text, number)
    return Finding(
        LEAKS,
        "caution",
        text,
        number,
        f"If that is right, say so: --column ignore={names}. If one was known before the draw: --column context=NAME, "
        "and the propensities are judged by it; if it names the visitor: --column unit_id=NAME.",
    )
