"""What is wrong with a foreign log: the first bad row ends the reading, or all are counted by kind.

Used by every reader of foreign logs; `cli.py` turns `BadLog` into exit code 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from decider.errors import DeciderError
from decider.text import shortened

SKIP = "mend it, or leave such rows out and count them: --skip-bad"

MOST_SAID = 500
"""Characters of what is wrong with a row: a value may have a megabyte."""


class BadLog(DeciderError):
    """A log that cannot be read (or written); the message names the file, the line and what to do."""

    reason = "BAD_LOG"


class BadRow(Exception):
    """One row that cannot be used. kind: what is counted; what: what is wrong; remedy: what to do."""

    def __init__(self, kind: str, what: str, remedy: str = SKIP) -> None:
        self.what = what if len(what) <= MOST_SAID else shortened(what, MOST_SAID)
        super().__init__(self.what)
        self.kind = kind
        self.remedy = remedy


class BadRows:
    """Ends at the first bad row, or counts them.

    >>> rows = BadRows(skip=True)
    >>> rows.add(BadRow("reward", "'x' is not a number"), where=lambda: "clicks.csv:3")
    >>> rows.counts
    {'bad reward': 1}
    >>> BadRows(skip=False).add(BadRow("reward", "'x' is not a number", "mend it"), where=lambda: "clicks.csv:3")
    Traceback (most recent call last):
    simulator.logs.errors.BadLog: clicks.csv:3: 'x' is not a number; mend it
    """

    def __init__(self, *, skip: bool) -> None:
        self.skip = skip
        self._counted: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many rows were left out, by `bad KIND`."""
        return dict(self._counted)

    def add(self, row: BadRow, *, where: Callable[[], str], count: int = 1) -> None:
        """Raises BadLog; or counts `count` rows of this kind. where: called only for the message."""
        if not self.skip:
            raise BadLog(f"{where()}: {row.what}; {row.remedy}") from row
        self._counted[f"bad {row.kind}"] += count
