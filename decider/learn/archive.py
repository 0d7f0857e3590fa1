"""An archive run: a part of the log is written as Parquet, counts from one transaction on, and is deleted from the log.

Called by `decider archive`, beside any number of servers on the same log. It may be killed at any moment: a part that
the log does not name is written anew by the next run, one that it names is finished by whoever comes next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from decider.learn.bases import Need, make_base, needs, refuse_impossible
from decider.log.protocol import CuttableLog, Head, NewPart
from decider.types import Position, Time

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would archive: the entries in (after, until]."""

    after: Head
    until: Head
    decisions: int
    rewards: int
    needed: list[Need]

    @property
    def first(self) -> Position:
        """The position of the first entry."""
        return Position(self.after.position + 1)


@dataclass(frozen=True, slots=True)
class ArchivedPart:
    """What a run has archived. bytes: of the part's files."""

    plan: Plan
    folder: Path
    bytes: int


def make_plan(log: CuttableLog, before: Time) -> Plan | None:
    """None where nothing is to do. Raises FailedPrecondition, UnknownCode where learning could not go on."""
    until = log.choose_cut(before)
    if until is None:
        return None
    after = log.last_cut()
    needed = needs(log, until.position)
    refuse_impossible(log, until.position, needed)
    return Plan(after, until, *log.count(after.position, until.position), needed)


def archive(log: CuttableLog, folder: Path, *, before: Time, remember: int, say: Say) -> ArchivedPart | None:
    """Archive what was decided before a time and has its window over; first finish what a killed run has left.

    remember: microseconds of log time for which a retry still gets an archived decision. say: called with what it does.
    Returns None where nothing is to do. Raises LogError, FailedPrecondition, UnknownCode.
    """
    with log.archiving():
        log.finish_cut(_progress(say))
        plan = make_plan(log, before)
        if plan is None:
            return None
        from decider.log.archive.write import alone_in  # pyarrow is imported where an archive is written

        with alone_in(folder):
            part = _write(log, folder.resolve(), plan, remember, say)
            log.finish_cut(_progress(say))
        return part


def _write(log: CuttableLog, folder: Path, plan: Plan, remember: int, say: Say) -> ArchivedPart:
    """Write the part and let it count."""
    from decider.log.archive.write import discard_unfinished, part_name, write_part

    bases = []
    for need in plan.needed:
        say(f"learning the model of {need.experiment} at the cut")
        bases.append(make_base(log, need))
    path = Path(log.name)
    name = part_name(path, after=plan.after, until=plan.until)
    discard_unfinished(folder, path, after=plan.after)
    say(f"writing {plan.decisions} decisions to {folder / name}")
    part = write_part(path, after=plan.after, until=plan.until, folder=folder, name=name)
    log.cut_off(NewPart(plan.first, plan.until, str(folder / name), part.digest, bases, remember))
    return ArchivedPart(plan, folder / name, sum([file.bytes for file in part.files.values()]))


def _progress(say: Say) -> Callable[[Position], None]:
    def tell(position: Position) -> None:
        say(f"deleting what is archived: position {position}")

    return tell
