"""What `simulator lift` prints: one short table, then plain sentences. Called by its command and by the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from decider.estimate.mean import Interval
from decider.estimate.missing_rewards import ALARM
from decider.text import between, count, duration, figure, percent, printable, rough, signed, signed_percent
from simulator.lift.result import SPLIT_IS_WRONG, GuardrailRow, LiftResult, LiftRow, PersonsFound
from simulator.logs.groups import LEARNED
from simulator.report.table import Cell, Column, Table, Tone, in_terminal

MOST_NAMED = 5
"""Names of rewards in a sentence."""

TONES: dict[str, Tone] = {"yes": "fine", "no": "do not use", SPLIT_IS_WRONG: "caution"}


def lift_parts(found: LiftResult) -> Iterator[RenderableType]:
    """Everything in the order in which it should be read."""
    yield Text(printable(conclusion(found)), "bold")
    yield in_terminal(table(found, found.rows))
    for _, rows in groupby(found.by, key=attrgetter("field")):
        yield in_terminal(table(found, list(rows)))
    if found.guardrails:
        yield in_terminal(guardrail_table(found))
    yield from map(Text, map(printable, sentences(found)))


def conclusion(found: LiftResult) -> str:
    """The answer in one sentence."""
    row = found.rows[0]
    about = f"{found.experiment}: "
    if row.answer == SPLIT_IS_WRONG:
        return (
            f"{about}nobody can say what the policy brings. Units are not in the holdout with the declared share: "
            "decisions of one group get lost, or its units come back more often (evidence "
            f"{figure(found.split_log_evalue)}, an alarm above {ALARM}). So the groups cannot be compared, and no "
            "figure below is right."
        )
    if row.answer == "too little":
        return f"{about}too little is known to say what the policy brings."
    in_percent = f", that is {between(*_ends(row.relative), written=signed_percent)}" if _is_relative(row) else ""
    interval = f"({percent(found.level)}, valid at every look: {_signed(row.lift)}{in_percent})"
    if row.answer == "not yet":
        return f"{about}nobody can say yet whether the policy earns more than the holdout {interval}."
    more = "more" if row.answer == "yes" else "less"
    size = figure(abs(row.lift.value)) + (f" ({percent(abs(row.relative.value))})" if _is_relative(row) else "")
    return f"{about}the policy earns {size} {more} a decision than the holdout {interval}."


def _is_relative(row: LiftRow) -> bool:
    """Whether there are per cent of the holdout's mean."""
    return bool(np.isfinite(row.relative.low))


def table(found: LiftResult, rows: Sequence[LiftRow]) -> Table[LiftRow]:
    """One family of rows."""
    by = bool(rows and rows[0].field)
    shown: list[Column[LiftRow]] = [
        Column("Decisions" if by else "Reward", _name, "name"),
        Column("More?", lambda row: Cell(row.answer, tone=TONES.get(row.answer, "")), "verdict", narrow="joined"),
        Column("Lift", _lift, "number"),
        Column("In per cent", _relative, "number"),
        Column("Per week", _per_week, "number"),
        Column("Policy", lambda row: _group(row, 0), "number", narrow="left out"),
        Column("Holdout", lambda row: _group(row, 1), "number", narrow="left out"),
    ]
    if not any(row.per_week for row in rows):
        shown = [column for column in shown if column.heading != "Per week"]
    return Table(
        title=f"By {rows[0].field}" if by else "Lift over the holdout",
        columns=shown,
        rows=rows,
        note=note(found, rows),
    )


def guardrail_table(found: LiftResult) -> Table[GuardrailRow]:
    """Those that are declared now."""
    tone: dict[str, Tone] = {"crossed": "do not use", "held": "fine"}
    return Table(
        title="Guardrails",
        columns=[
            Column("Reward", lambda row: row.reward, "name"),
            Column("Crossed?", lambda row: Cell(row.answer, tone=tone.get(row.answer, "")), "verdict", narrow="joined"),
            Column("Lift", _guardrail_lift, "number"),
            Column("Declared", _declared, "number"),
            Column("Policy", lambda row: _guardrail_group(row.policy, row.decisions[0]), "number", narrow="left out"),
            Column("Holdout", lambda row: _guardrail_group(row.holdout, row.decisions[1]), "number", narrow="left out"),
        ],
        rows=found.guardrails,
        note="valid at every look; all together are crossed by chance in 5 % of the cases at most",
    )


def _guardrail_lift(row: GuardrailRow) -> Cell:
    if row.lift is None or row.bound is None:
        return Cell("-")
    return Cell(signed(row.lift), note=f"{'above' if row.at_least is None else 'below'} {signed(row.bound)} for sure")


def _declared(row: GuardrailRow) -> Cell:
    margin = row.at_most if row.at_most is not None else row.at_least or 0.0
    return Cell(f"at {'least' if row.at_most is None else 'most'} {signed(margin)}")


def _guardrail_group(mean: float | None, decisions: int) -> Cell:
    return Cell("-" if mean is None else figure(mean), note=f"{count(decisions)} decisions")


def note(found: LiftResult, rows: Sequence[LiftRow]) -> str:
    """What the intervals promise."""
    told = f"{percent(found.level)} intervals by unit, valid at every look"
    if rows[0].field:
        return f"{told}, all {len(found.by)} of them together" if len(found.by) > 1 else told
    if len(rows) == 1:
        return told
    return f"{told}; as learned: by itself; all other names of rewards together ({found.other_names})"


def _name(row: LiftRow) -> Cell:
    reward = "" if row.reward == LEARNED else row.reward
    if row.field:
        return Cell(row.value, note=reward)
    return Cell(reward or "as learned")


def _lift(row: LiftRow) -> Cell:
    if row.answer == "too little":
        return Cell("-")
    return Cell(signed(row.lift.value), _signed(row.lift))


def _relative(row: LiftRow) -> Cell:
    if row.answer == "too little":
        return Cell("-")
    if not _is_relative(row):
        return Cell("-", note="the holdout's mean could be 0")
    return Cell(
        signed_percent(row.relative.value), between(row.relative.low, row.relative.high, written=signed_percent)
    )


def _per_week(row: LiftRow) -> Cell:
    if row.per_week is None:
        return Cell("-")
    return Cell(_about(row.per_week.value), between(*_ends(row.per_week), written=_about))


def _about(x: float) -> str:
    return rough(x, digits=3, written=signed)


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def _signed(interval: Interval) -> str:
    return between(*_ends(interval), written=signed)


def _group(row: LiftRow, group: int) -> Cell:
    return Cell(figure((row.policy, row.holdout)[group]), note=f"{count(row.units[group])} units")


def sentences(found: LiftResult) -> Iterator[str]:
    """What was compared, what was left out, and why."""
    if found.strata:
        yield f"Compared: {_strata(found)}, over {duration((found.end - found.begin) / 1e6)}."
        yield f"The policy served {_made(found.rows[0], 0)}, the holdout {_made(found.rows[0], 1)}."
    else:
        yield "There is nothing to compare yet: no decision counts."
    if any(row.per_week for row in found.rows):
        yield "A week has the mean traffic of all that was read; the server's page takes the last seven days."
    yield from _limits(found)
    for guardrail in found.guardrails:
        if guardrail.crossed_at is not None:
            yield (
                f"Since the guardrail {guardrail.reward} was crossed everybody gets the baseline action; "
                f"`decider resume {found.experiment}` ends that."
            )
    yield from _costs(found)
    if found.left_out:
        kinds = [f"{count(number)} {kind}" for kind, number in found.left_out.items()]
        yield f"Left out: {', '.join(kinds)}."


def _limits(found: LiftResult) -> Iterator[str]:
    """What the figures do not say."""
    poor = next((row for row in (*found.rows, *found.by) if row.answer == "too little"), None)
    if poor is not None:
        which = f" of {poor.field} {poor.value}" if poor.field else ""
        yield (
            f"An interval needs the rewards of about {figure(poor.needed)} units in each group, and of more where "
            f"a few amounts are large; one group{which} has {rough(poor.clusters)} so far. Wait, or make the holdout "
            "larger."
        )
    if found.since or found.until:
        yield (
            "Only a part of the log was read. Its intervals hold at every look if the part was named before anybody "
            "saw its rewards, and always begins at the same time. One that moves, like the last 7 days, is another "
            "question every day. Guardrails are judged by the whole log."
        )
    if found.persons is not None:
        yield _persons(found.persons)
    if found.live_strata:
        yield (
            f"The metrics, the page and guardrails know the newest {found.live_strata} of these "
            f"{len(found.strata)} times with another holdout, so the lift there is another one."
        )
    if found.other_rewards:
        names = [f"--reward {name}" for name in found.other_rewards[:MOST_NAMED]]
        more = ", and others" if len(found.other_rewards) > MOST_NAMED else ""
        yield f"There are rewards with a lift of their own: {', '.join(names)}{more}."


def _persons(found: PersonsFound) -> str:
    both = f", {count(found.in_both)} of them with units in both groups" if found.in_both else ""
    by_person = "too little is known" if found.lift is None else _signed(found.lift)
    return (
        f"{count(found.units)} units are linked: they are {count(found.persons)} persons{both}. Groups are drawn by "
        f"unit, and so are the figures above. By person the lift is {by_person}: go by that where one purchase counts "
        "for several units of a person."
    )


def _costs(found: LiftResult) -> Iterator[str]:
    if found.cost is not None:
        told = "what its units do not earn without the policy"
        yield f"The holdout costs {rough(found.cost.value, digits=3)} a decision ({_roughly(found.cost)}): {told}."
    if found.exploration is not None:
        cost = found.exploration
        told = "what the policy's most probable action would have earned more"
        yield f"Exploration costs {rough(cost.value, digits=3)} a draw ({_roughly(cost)}): {told}, in one step."


def _roughly(cost: Interval) -> str:
    return between(*_ends(cost), written=_about)


def _made(row: LiftRow, group: int) -> str:
    made = f"{count(row.decisions[group])} decisions of {count(row.units[group])} units"
    return f"{made} (mean {figure((row.policy, row.holdout)[group])})"


def _strata(found: LiftResult) -> str:
    parts = [f"{_versions(one.versions)} with a holdout of {percent(one.share)}" for one in found.strata]
    told = ", ".join(parts)
    return f"{told}; each within itself, then weighted by its decisions" if len(parts) > 1 else told


def _versions(numbers: Sequence[int]) -> str:
    """
    >>> _versions((3,)), _versions((3, 4, 6))
    ('version 3', 'versions 3 to 6')
    """
    return f"version {numbers[0]}" if len(numbers) == 1 else f"versions {numbers[0]} to {numbers[-1]}"
