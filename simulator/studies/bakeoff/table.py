"""Results -> Markdown: who wins where, with the losses shown as openly as the wins. Called by `__main__.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from simulator.studies.bakeoff.plan import LABELS, OTHERS
from simulator.studies.bakeoff.results import Row
from simulator.studies.bakeoff.verdicts import (
    BETTER,
    EVEN,
    UNKNOWN,
    WORSE,
    Against,
    Cell,
    Shares,
    against_rivals,
    best,
    cells,
)

START, END = "<!-- bakeoff: make bakeoff writes this -->", "<!-- /bakeoff -->"
"""What stands between them in `simulator/studies/RESULTS.md` is written by `make bakeoff`."""

NOBODY = "-"

Verdicts = Mapping[Cell, Sequence[Against]]


def summary(rows: Sequence[Row]) -> str:
    """For all studies' results: wins and losses against each rival, and every loss against the best of them by name."""
    found = cells(rows)
    verdicts = {cell: against_rivals(shares) for cell, shares in found.items()}
    return "\n\n".join([overall(found), wins_and_losses(verdicts), losses(verdicts), per_world(verdicts)])


def results(rows: Sequence[Row]) -> str:
    """Everything: the summary, and the share of every policy in every world."""
    found = cells(rows)
    horizons = sorted({cell.horizon for cell in found})
    parts = ["# The bake-off", summary(rows)]
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
    head = [f"{horizon:,} rounds" for horizon in horizons]
    return _table(["mean share (least)", *head], [line for line in body if set(line[1:]) != {NOBODY}])


def _mean_and_least(policy: str, there: Sequence[Shares]) -> str:
    if not all(shares.get(policy) for shares in there):
        return NOBODY
    means = [np.mean(list(shares[policy].values())) for shares in there]
    return f"{np.mean(means):.2f} ({min(means):.2f})"


def wins_and_losses(verdicts: Verdicts) -> str:
    """A row a rival, the best of each world first; a column a horizon: better - not told apart - worse."""
    horizons = sorted({cell.horizon for cell in verdicts})
    told = {"**the best rival there**": {cell: best(found) for cell, found in verdicts.items()}}
    for policy, label in OTHERS.items():
        told[label] = {
            cell: next((one for one in found if one.policy == policy), None) for cell, found in verdicts.items()
        }
    body = [
        [label, *[_counts(one for cell, one in of.items() if cell.horizon == horizon) for horizon in horizons]]
        for label, of in told.items()
    ]
    return _table(["our default against", *[f"{horizon:,} rounds" for horizon in horizons]], body)


def _counts(found: Iterable[Against | None]) -> str:
    told = Counter(one.told for one in found if one)
    parts = [f"{told[BETTER]} better", f"{told[EVEN]} even", f"**{told[WORSE]} worse**" if told[WORSE] else "0 worse"]
    compared = parts if told.total() > told[UNKNOWN] else []
    return ", ".join([*compared, *([f"{told[UNKNOWN]} with one seed"] if told[UNKNOWN] else [])]) or NOBODY


def losses(verdicts: Verdicts) -> str:
    """Where some rival is significantly better than our default, each by name."""
    lost = [f"{_where(cell)}: {_lost(one)}" for cell, found in verdicts.items() for one in found if one.told == WORSE]
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
    horizons = sorted({cell.horizon for cell in verdicts})
    settings = dict.fromkeys((cell.world, cell.delayed) for cell in verdicts)
    body = [
        [
            f"{world}, {'delayed' if delayed else 'immediate'}",
            *[_beside(best(verdicts.get(Cell(world, delayed, horizon), ()))) for horizon in horizons],
        ]
        for world, delayed in settings
    ]
    return _table(["world, rewards", *[f"{horizon:,} rounds" for horizon in horizons]], body)


def _beside(one: Against | None) -> str:
    if one is None:
        return NOBODY
    sign = {BETTER: ">", WORSE: "**<**", UNKNOWN: "?"}.get(one.told, "~")
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
