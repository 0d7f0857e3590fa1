"""Which entries are still wanted when a commit begins. Called by every log, in the thread that commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from decider.log.protocol import Awaited, Entry, Mark

Write = Callable[[list[Entry]], list[Mark | None]]


def write_wanted(entries: Sequence[Entry], write: Write) -> list[Mark | None]:
    """Write all but the decisions whose callers have given up; None for those, which the others do not notice."""
    # Each caller once: half of a batch must not be written because its deadline passed between two looks.
    gone = {caller for caller in {entry.caller for entry in entries if type(entry) is Awaited} if caller.gave_up}
    wanted = [entry for entry in entries if not (type(entry) is Awaited and entry.caller in gone)] if gone else entries
    marks = iter(write([entry.decision if type(entry) is Awaited else entry for entry in wanted]))
    if not gone:
        return list(marks)
    return [None if type(entry) is Awaited and entry.caller in gone else next(marks) for entry in entries]
