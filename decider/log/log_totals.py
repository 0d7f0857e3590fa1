"""The totals of a log up to its end, by names and labels, counted on from a checkpoint in the log.

Counting from position 0, going on from the last scrape and going on from a checkpoint are the same code and give the
same bits, so totals survive a restart by construction, and serving a call counts nothing. Called by the metrics, and
by whoever archives a log, with the totals at the cut.
"""

from __future__ import annotations

from collections.abc import Mapping

from decider.errors import EntriesArchived
from decider.log.protocol import Head, LogReader, Mark, TotalsCheckpoint
from decider.log.rows import damage_as_log_corrupt
from decider.log.totals import LabelTotals
from decider.types import START, Position, Time

SLICE = 20_000
"""Entries that are counted at once."""


class LogTotals:
    """Totals of a log up to a mark: entries by position, sealed decisions by the end of their declared window."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._begin()

    def _begin(self) -> None:
        self.refused: Mapping[tuple[str, str], int] = {}
        self._restore(self._log.totals_checkpoint())

    def _restore(self, checkpoint: TotalsCheckpoint | None) -> None:
        self.mark, self._chain = (checkpoint.mark, checkpoint.chain) if checkpoint else (Mark(START, Time(0)), b"")
        self.totals = LabelTotals.from_json(checkpoint.content) if checkpoint else LabelTotals()

    def catch_up(self) -> None:
        """Count up to the log's end."""
        while not self.advance():
            pass

    def advance(self, entries: int = SLICE) -> bool:
        """Count the next entries; returns whether the log's end is reached. Where that fails half way, the next call
        counts from the last checkpoint on."""
        try:
            end = self._log.head()
            self._count(self._next_place(entries, end))
            self.refused = self._log.refused_rewards()
        except EntriesArchived:
            self._begin()
            return False
        except BaseException:
            self._begin()
            raise
        return self.mark.position >= end.position

    def _next_place(self, entries: int, end: Head) -> Head:
        """The next place whose chain is known: a checkpoint has to name it."""
        next_ = self._log.known_place(Position(self.mark.position + entries))
        while self.mark.position >= next_.position < end.position:  # a commit may be longer than a slice
            entries *= 2
            next_ = self._log.known_place(Position(self.mark.position + entries))
        return next_

    def _count(self, until: Head) -> None:
        # Seals may have been counted further than entries: so it is in a checkpoint at a cut.
        mark = Mark(until.position, max(until.time, self.mark.time))
        with damage_as_log_corrupt(f"what is counted up to position {until.position}"):
            counted = self._log.totals(self.mark, mark)
            self.totals.add(counted, self._log.experiment_ids(counted.versions()))
        self.mark, self._chain = mark, until.chain

    def checkpoint(self) -> TotalsCheckpoint:
        """What is counted, to be stored."""
        return TotalsCheckpoint(self.mark, self._chain, self.totals.to_json())


def totals_at(log: LogReader, cut: Head, *, sealed_until: Time) -> TotalsCheckpoint:
    """The totals at a cut: entries up to its position, seals up to `sealed_until`.

    sealed_until: so late that every decision up to the cut is sealed then, since none of them is there later on.
    """
    known = log.totals_checkpoint(until=Mark(cut.position, sealed_until))
    after = known.mark if known else Mark(START, Time(0))
    totals = LabelTotals.from_json(known.content) if known else LabelTotals()
    until = Mark(cut.position, sealed_until)
    counted = log.totals(after, until)
    totals.add(counted, log.experiment_ids(counted.versions()))
    return TotalsCheckpoint(until, cut.chain, totals.to_json())
