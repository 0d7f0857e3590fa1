"""Results -> Markdown: who wins where, with the losses shown as openly as the wins. Called by `__main__.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from simulator.studies.bakeoff.aims import aims, least_told
from simulator.studies.bakeoff.plan import LABELS, OTHERS
from simulator.studies.bakeoff.results import SeedResult
from simulator.studies.bakeoff.verdicts import (
    BETTER,
    EVEN,
    UNKNOWN,
    WORSE,
    Against,
    Cell,
    Shares,
    Verdicts,
    against_rivals,
    best,
    cells,
    together,
    verdict,
)

START, END = "<!-- bakeoff: make bakeoff writes this -->", "<!-- /bakeoff -->"
"""What stands between them in `simulator/studies/RESULTS.md` is written by `make bakeoff`."""

NOBODY = "-"


def summary(rows: Sequence[SeedResult]) -> str:
    """For all studies' results: wins and losses against each rival, and every loss against the best of them by name."""
    found = cells(rows)
    return _summary(found, _verdicts(found))


def _verdicts(found: Mapping[Cell, Shares]) -> Verdicts:
    return {cell: against_rivals(shares) for cell, shares in found.items()}


def _summary(found: Mapping[Cell, Shares], verdicts: Verdicts) -> str:
    parts = [overall(found), aims_reached(found, verdicts), wins_and_losses(verdicts), losses(verdicts)]
    return "\n\n".join([*parts, per_world(verdicts)])


def results(rows: Sequence[SeedResult]) -> str:
    """Everything: the summary, and the share of every policy in every world."""
    found = cells(rows)
    horizons = sorted({cell.horizon for cell in found})
    verdicts = _verdicts(found)
    parts = ["# The bake-off", _summary(found, verdicts), "## What could have been told", power(verdicts)]
    for horizon in horizons:
        for delayed in (False, True):
            there = {cell.world: shares for cell, shares in found.items() if cell[1:] == (delayed, horizon)}
            if there:
                parts += [f"## {horizon:,} rounds, {_rewards(delayed)}", shares_of_all(there)]
    return "\n\n".join(parts) + "\n"


def overall(found: Mapping[Cell, Shares]) -> str:
    """A row a policy, a column a horizon: the mean share over all worlds, and the least; of those that played all."""
    horizons = sorted({cell.horizon for cell in found})
    there = [[shares for cell, shares in found.items() if cell.horizon == horizon] for horizon in horizons]
    body = [[label, *[_mean_and_least(policy, shares) for shares in there]] for policy, label in LABELS.items()]
    body.append(["the best rival of each, as known afterwards", *[_best_of_each(shares) for shares in there]])
    head = [f"{horizon:,} rounds" for horizon in horizons]
    return _table(["mean share (least)", *head], [line for line in body if set(line[1:]) != {NOBODY}])


def _best_of_each(there: Sequence[Shares]) -> str:
    played = [[np.mean(list(one[policy].values())) for policy in OTHERS if one.get(policy)] for one in there]
    if not all(played):
        return NOBODY
    means = [max(found) for found in played]
    return f"{np.mean(means):.2f} ({min(means):.2f})"


def _mean_and_least(policy: str, there: Sequence[Shares]) -> str:
    if not all(shares.get(policy) for shares in there):
        return NOBODY
    means = [np.mean(list(shares[policy].values())) for shares in there]
    return f"{np.mean(means):.2f} ({min(means):.2f})"


def aims_reached(found: Mapping[Cell, Shares], verdicts: Verdicts) -> str:
    """A row an aim of `PLAN.md`, a column a horizon; all cells as one family."""
    horizons = sorted({cell.horizon for cell in found})
    head = ["aim (PLAN.md), corrected for all cells", *[f"{horizon:,} rounds" for horizon in horizons]]
    return _table(head, aims(found, verdicts))


def power(verdicts: Verdicts) -> str:
    """A row a world, a column a horizon: the smallest difference to the hardest rival that could have been told."""
    return _by_world(verdicts, lambda cell: _three(least_told(cell, verdicts)), head="told with 80 % probability from")


def _three(value: float) -> str:
    return NOBODY if np.isnan(value) else f"{value:.3f}"


def wins_and_losses(verdicts: Verdicts) -> str:
    """A row a rival, all of each world first; a column a horizon: better - not told apart - worse."""
    horizons = sorted({cell.horizon for cell in verdicts})
    told: dict[str, Mapping[Cell, str]] = {
        "**all rivals there**": {cell: verdict(found) for cell, found in verdicts.items() if found},
        "all rivals there, corrected for all cells": together(verdicts),
    }
    for policy, label in OTHERS.items():
        told[label] = {
            cell: one.conclusion for cell, found in verdicts.items() for one in found if one.policy == policy
        }
    body = [
        [label, *[_counts(one for cell, one in of.items() if cell.horizon == horizon) for horizon in horizons]]
        for label, of in told.items()
    ]
    return _table(["our default against", *[f"{horizon:,} rounds" for horizon in horizons]], body)


def _counts(found: Iterable[str]) -> str:
    told = Counter(found)
    parts = [f"{told[BETTER]} better", f"{told[EVEN]} even", f"**{told[WORSE]} worse**" if told[WORSE] else "0 worse"]
    compared = parts if told.total() > told[UNKNOWN] else []
    return ", ".join([*compared, *([f"{told[UNKNOWN]} with one seed"] if told[UNKNOWN] else [])]) or NOBODY


def losses(verdicts: Verdicts) -> str:
    """Where some rival is significantly better than our default, each by name."""
    lost = [
        f"{_where(cell)}: {_lost(one)}" for cell, found in verdicts.items() for one in found if one.conclusion == WORSE
    ]
    if not lost:
        return "No rival is significantly better than our default anywhere."
    return "\n".join(["Significantly worse than:", "", *[f"- {one}" for one in lost]])


def _where(cell: Cell) -> str:
    return f"{cell.world}, {_rewards(cell.delayed)}, {cell.horizon:,} rounds"


def _lost(one: Against) -> str:
    return f"{LABELS[one.policy]} by {-one.difference:.3f} ({-one.high:.3f} to {-one.low:.3f})"


def _rewards(delayed: bool) -> str:
    return "delayed rewards" if delayed else "immediate rewards"


def per_world(verdicts: Verdicts) -> str:
    """A row a world: our default's share and that of the best rival there, and whether they are told apart."""
    return _by_world(verdicts, lambda cell: _beside(best(verdicts[cell])), head="world, rewards")


def _by_world(verdicts: Verdicts, text: Callable[[Cell], str], *, head: str) -> str:
    horizons = sorted({cell.horizon for cell in verdicts})
    settings = dict.fromkeys((cell.world, cell.delayed) for cell in verdicts)
    body = [
        [
            f"{world}, {'delayed' if delayed else 'immediate'}",
            *[text(cell) if cell in verdicts else NOBODY for cell in (Cell(world, delayed, h) for h in horizons)],
        ]
        for world, delayed in settings
    ]
    return _table([head, *[f"{horizon:,} rounds" for horizon in horizons]], body)


def _beside(one: Against | None) -> str:
    if one is None:
        return NOBODY
    sign = {BETTER: ">", WORSE: "**<**", UNKNOWN: "?"}.get(one.conclusion, "~")
    return f"{one.ours:.2f} {sign} {one.theirs:.2f} {LABELS[one.policy]}"


def shares_of_all(there: Mapping[str, Shares]) -> str:
    """A row a policy, a column a world: the mean share over seeds ± standard error."""
    body = [
        [label, *[_mean(list(shares.get(policy, {}).values())) for shares in there.values()]]
        for policy, label in LABELS.items()
    ]
    return _table(["policy", *there], [line for line in body if set(line[1:]) != {NOBODY}])


def _mean(found: list[float]) -> str:
    if not found:
        return NOBODY
    error = np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
    return f"{np.mean(found):.3f}" if np.isnan(error) else f"{np.mean(found):.3f} ±{error:.3f}"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in [head, *body]]
    return "\n".join([lines[0], "|---" + "|--:" * (len(head) - 1) + "|", *lines[1:]])


def placed(text: str, part: str) -> str:
    """The text with the part between its markers; unchanged where it has none.

    >>> placed(f"a {START} old {END} b", "new") == f"a {START}\\nnew\\n{END} b"
    True
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return f"{before}{start}\n{part}\n{end}{after}" if end else text
