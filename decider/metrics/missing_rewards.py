"""Watches the rewards of every name and group in the log's totals, from scrape to scrape. Called by `collector.py`.

Where the policy's and the holdout's rewards are missing, they get lost on the way; where only the policy's are, nobody
wants what it shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from decider.estimate.missing_rewards import MissingRewards
from decider.estimate.outage import UsualShare
from decider.log.totals import ALL, BEFORE, Labels, LabelTotals


class RewardsWatch:
    """What it knows is of this process; the usual shares of the last days are in the totals. One thread at a time."""

    def __init__(self) -> None:
        self._tests: dict[Labels, MissingRewards] = {}
        self._seen: Counter[Labels] = Counter()
        self.found: Mapping[Labels, float] = {}
        """What the last look found; from any thread."""

    def look(self, totals: LabelTotals) -> Mapping[Labels, float]:
        """The evidence by experiment, name and group, of those whose usual share is known."""
        seen, recent = sums_by_name(totals), sums_by_name(totals, recent=True)
        for key in seen:
            if key[1] != ALL:
                self._look_at(key, seen, recent)
        self._tests = {key: test for key, test in self._tests.items() if key in seen}
        self._seen = seen
        self.found = {key: test.value for key, test in self._tests.items() if test.share.is_known}
        return self.found

    def _look_at(self, key: Labels, seen: Counter[Labels], recent: Counter[Labels]) -> None:
        everything = (key[0], ALL, key[2])
        usual = UsualShare.known(recent[everything], recent[key])
        decisions, rewarded = (seen[one] - self._seen[one] for one in (everything, key))
        if key not in self._tests or min(decisions, rewarded) < 0:  # the first look, or it is counted anew
            self._tests[key] = MissingRewards(usual)
            return
        self._tests[key].add(decisions=decisions, rewarded=rewarded)
        self._tests[key].get_used_to(usual)


def sums_by_name(totals: LabelTotals, *, recent: bool = False) -> Counter[Labels]:
    """Sealed decisions with a reward of a name, by experiment, name or ALL, and group. recent: of the last days."""
    found: Counter[Labels] = Counter()
    for (*labels, day), count in totals.rewarded.items():
        if not recent or day != BEFORE:
            found[tuple(labels)] += count
    return found


def missing_metrics(totals: LabelTotals, watch: RewardsWatch) -> Iterator[Metric]:
    """The evidence of a look."""
    family = GaugeMetricFamily(
        "decider_rewards_missing_log_evalue",
        "Log evidence that rewards of a name have stopped; above 6.9 they have. Absent where few are usual.",
        labels=("experiment", "name", "group"),
    )
    for key, value in watch.look(totals).items():
        family.add_metric(key, value)
    yield family
