"""Watches the rewards in the log's totals from scrape to scrape: of every name and group, of every channel, and of
every segment and device beside the others. Called by `collector.py`.

Where the policy's and the holdout's rewards are missing, they get lost on the way; where only the policy's are, nobody
wants what it shows. Of channels and segments there are many, so the logarithm of how many an experiment has is taken
off the evidence of each: the rate of false alarms is that of all of them together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from decider.estimate.missing_rewards import MissingRewards
from decider.estimate.outage import UsualShare
from decider.estimate.segment_rewards import SegmentCounts, SegmentRewards
from decider.log.totals import ALL, ANY, BEFORE, CHANNEL, DEVICE, SEGMENT, Labels, LabelTotals


class RewardsWatch:
    """What it knows is of this process; the usual shares of the last days are in the totals. One thread at a time.

    sums: sealed decisions with a reward of a name, by experiment, name or ALL, and more labels."""

    def __init__(self, sums: Callable[..., Counter[Labels]]) -> None:
        self._sums = sums
        self._tests: dict[Labels, MissingRewards] = {}
        self._seen: Counter[Labels] = Counter()
        self.found: Mapping[Labels, float] = {}
        """What the last look found; from any thread."""

    def look(self, totals: LabelTotals) -> Mapping[Labels, float]:
        """The evidence by labels, of those whose usual share is known."""
        seen, recent = self._sums(totals), self._sums(totals, recent=True)
        for key in seen:
            if key[1] != ALL:
                self._look_at(key, seen, recent)
        self._tests = {key: test for key, test in self._tests.items() if key in seen}
        self._seen = seen
        self.found = {key: test.value for key, test in self._tests.items() if test.share.is_known}
        return self.found

    def _look_at(self, key: Labels, seen: Counter[Labels], recent: Counter[Labels]) -> None:
        everything = (key[0], ALL, *key[2:])
        usual = UsualShare.known(recent[everything], recent[key])
        decisions, rewarded = (seen[one] - self._seen[one] for one in (everything, key))
        if key not in self._tests or min(decisions, rewarded) < 0:  # the first look, or it is counted anew
            self._tests[key] = MissingRewards(usual)
            return
        self._tests[key].add(decisions=decisions, rewarded=rewarded)
        self._tests[key].get_used_to(usual)


class SegmentsWatch:
    """The same for segments and devices."""

    def __init__(self) -> None:
        self._tests: dict[Labels, SegmentRewards] = {}
        self._seen: Mapping[Labels, SegmentCounts] = {}

    def look(self, totals: LabelTotals) -> Mapping[Labels, float]:
        """The evidence by experiment, field and value, of those whose usual ratio is known."""
        seen, recent = sums_by_segment(totals), sums_by_segment(totals, recent=True)
        self._tests = {key: self._look_at(key, counts, recent) for key, counts in seen.items()}
        self._seen = seen
        return {key: test.value for key, test in self._tests.items() if not math.isnan(test.usual)}

    def _look_at(self, key: Labels, counts: SegmentCounts, recent: Mapping[Labels, SegmentCounts]) -> SegmentRewards:
        more = SegmentCounts(*(new - old for new, old in zip(counts, self._seen.get(key, counts), strict=True)))
        test = self._tests.get(key, SegmentRewards())
        if min(more) < 0:  # it is counted anew
            test, more = SegmentRewards(), SegmentCounts()
        test.add(more, recent.get(key, SegmentCounts()))
        return test


def sums_by_name(totals: LabelTotals, *, recent: bool = False) -> Counter[Labels]:
    """Sealed decisions with a reward of a name, by experiment, name or ALL, and group. recent: of the last days."""
    found: Counter[Labels] = Counter()
    for (*labels, day), count in totals.rewarded.items():
        if not recent or day != BEFORE:
            found[tuple(labels)] += count
    return found


def sums_by_channel(totals: LabelTotals, *, recent: bool = False) -> Counter[Labels]:
    """The same by experiment, name or ALL, group and channel, of decisions with a channel."""
    found: Counter[Labels] = Counter()
    for (experiment, field, value, name, group, day), count in totals.by_field.items():
        if field == CHANNEL and value and not (recent and day == BEFORE):
            found[experiment, name, group, value] += count
    return found


def sums_by_segment(totals: LabelTotals, *, recent: bool = False) -> dict[Labels, SegmentCounts]:
    """By experiment, field and value; decisions without one are among the others."""
    of, all_ = Counter[Labels](), Counter[Labels]()
    for (experiment, field, value, name, _, day), count in totals.by_field.items():
        if field in (SEGMENT, DEVICE) and not (recent and day == BEFORE):
            of[experiment, field, value, name] += count
            all_[experiment, field, name] += count
    return {
        key: SegmentCounts(of[*key, ALL], of[*key, ANY], *(all_[*key[:2], one] - of[*key, one] for one in (ALL, ANY)))
        for key in {labels[:3] for labels in of if labels[2]}
    }


class Watches:
    """Of all rewards."""

    def __init__(self) -> None:
        self._names, self._channels = RewardsWatch(sums_by_name), RewardsWatch(sums_by_channel)
        self._segments = SegmentsWatch()

    @property
    def found(self) -> Mapping[Labels, float]:
        """The evidence of the last look, by experiment, name and group; from any thread."""
        return self._names.found

    def look_at_names(self, totals: LabelTotals) -> None:
        """At rewards by name alone, which is cheap."""
        self._names.look(totals)

    def look(self, totals: LabelTotals) -> Iterator[Metric]:
        """The evidence of a look."""
        yield _family(
            "decider_rewards_missing_log_evalue",
            "Log evidence that rewards of a name have stopped; above 6.9 they have. Absent where few are usual.",
            ("experiment", "name", "group"), self._names.look(totals),
        )  # fmt: skip
        yield _family(
            "decider_channel_rewards_missing_log_evalue",
            "The same by channel, of all channels together; above 6.9 they have stopped in this one.",
            ("experiment", "name", "group", "channel"), of_all(self._channels.look(totals)),
        )  # fmt: skip
        yield _family(
            "decider_segment_rewards_missing_log_evalue",
            "Log evidence that rewards of a segment or device have stopped beside those of the others; above 6.9 they "
            "have.",
            ("experiment", "field", "value"), of_all(self._segments.look(totals)),
        )  # fmt: skip


def of_all(found: Mapping[Labels, float]) -> dict[Labels, float]:
    """Less the logarithm of how many an experiment has, the first label; at least 0.

    >>> of_all({("shop", "a"): 7.0, ("shop", "b"): 0.0, ("home", "a"): 7.0})
    {('shop', 'a'): 6.306852819440055, ('shop', 'b'): 0.0, ('home', 'a'): 7.0}
    """
    many = Counter(key[0] for key in found)
    return {key: max(0.0, value - math.log(many[key[0]])) for key, value in found.items()}


def _family(name: str, text: str, labels: tuple[str, ...], values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
