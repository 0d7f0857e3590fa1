"""Whole pages of a log, as `DecideSlate` filled them: what another policy would have earned a page. Called by `run.py`.

The log has each slot's pmf given the slots before it, and a candidate is scored on the same: its pmf among the actions
that the logged slots before have left, as `decide_slate` would give it. So the weight of a page is the product of its
slots' weights, and whole pages go through the estimates and checks of decisions as if each were one.

decisions + scores --> layout (pages, slots) --> pages as columns, each candidate's scores of them --> results
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from decider.estimate.iips import Iips
from decider.estimate.rips import Rips
from decider.text import percent
from simulator.evaluate.answer import of_pages
from simulator.evaluate.candidates import Candidate, LoggedPolicies
from simulator.evaluate.checks.answer import Answer, answer_findings
from simulator.evaluate.checks.candidate import (
    concentration,
    diagnose,
    effective_sample_size,
    largest_weight,
)
from simulator.evaluate.checks.mean_weight import mean_of_weights
from simulator.evaluate.checks.overlap import Overlap
from simulator.evaluate.estimates import Estimator, estimate_mean, mean_reward
from simulator.evaluate.result import Estimate, Finding, PageResults, PageReward, PolicyResult
from simulator.evaluate.reward_bounds import possible_rewards
from simulator.evaluate.scores import Scores
from simulator.evaluate.support import Unseen, samples_of
from simulator.evaluate.verdicts import NEGLIGIBLE, caution_if
from simulator.logs.columns import Columns, Flags, Floats, Longs, Pages

SHOWN = ("ips", "snips")
"""Of the estimates that decisions have: those that say something of pages."""

RIPS_NOTE = "biased where a slot's reward depends on the slots behind it"
IIPS_NOTE = "biased where a slot's reward, or this policy's choice for it, depends on the slots before"


@dataclass(frozen=True)
class Layout:
    """The slots of the whole pages, (slots,) each: row among the decisions, number of its page, and place there.

    incomplete: pages of which a slot was left out, or all of them.
    """

    row: Longs
    page: Longs
    place: Longs
    incomplete: int

    @classmethod
    def of(cls, pages: Pages) -> Layout:
        """Pages in the order of the log; their slots stand one after the other.

        >>> Layout.of(Pages(np.array([0, 0, -1, 1, 2, 2]), np.array([2, 2, 1, 2, 2, 2]))).row.tolist()
        [0, 1, 4, 5]
        """
        slot = np.flatnonzero(pages.page >= 0)
        _, page, seen = np.unique(pages.page[slot], return_inverse=True, return_counts=True)
        whole = seen[page] == pages.slots[slot]
        row = slot[whole]
        _, first, number = np.unique(page[whole], return_index=True, return_inverse=True)
        place = np.arange(len(row)) - first[number]
        return cls(row, number.astype(np.int64), place, incomplete=len(seen) - len(first) + pages.left_out)

    def __len__(self) -> int:
        return int(self.page[-1]) + 1 if len(self.page) else 0

    @cached_property
    def sizes(self) -> Longs:
        """(pages,): how many slots each has."""
        sizes: Longs = np.bincount(self.page, minlength=len(self))
        return sizes

    @cached_property
    def first(self) -> Longs:
        """(pages,): the row of its first slot."""
        first: Longs = self.row[self.place == 0]
        return first

    @cached_property
    def there(self) -> Flags:
        """(pages, most slots): which slots a page has."""
        there: Flags = np.arange(int(self.sizes.max(initial=0))) < self.sizes[:, None]
        return there

    def spread(self, values: Floats, *, empty: float) -> Floats:
        """(pages, most slots) of (n,) values of decisions; `empty` where a page has no such slot."""
        found = np.full(self.there.shape, empty)
        found[self.page, self.place] = values[self.row]
        return found


def evaluate_pages(
    columns: Columns,
    candidates: Sequence[Candidate],
    scores: Sequence[Scores],
    *,
    findings: tuple[Finding, ...],
    force: bool,
) -> PageResults | None:
    """None where the log has no whole page of several slots. findings: of the log. scores: of each candidate.

    >>> from simulator.logs.example import example
    >>> evaluate_pages(example(), [], [], findings=(), force=False)
    """
    layout = Layout.of(columns.pages) if columns.pages and columns.has_propensities else None
    if layout is None or layout.there.shape[1] < 2:
        return None
    kind = reward_kind(columns, layout)
    logged = as_pages(columns, layout, kind)
    return PageResults(
        pages=len(layout),
        incomplete=layout.incomplete,
        slots=len(layout.row),
        most_slots=layout.there.shape[1],
        reward=kind,
        mean_reward=mean_reward(logged.reward, logged.units, logged.reward_range),
        reward_range=logged.reward_range,
        policies=tuple(
            [
                _evaluate(candidate, one, kind, findings=findings, force=force)
                for candidate, one in zip(candidates, scores, strict=True)
                if not isinstance(candidate, LoggedPolicies)
            ]
        ),
    )


def reward_kind(columns: Columns, layout: Layout) -> PageReward:
    """A reward that is sent for a slate goes to each of its slots, in one commit: then all slots have the same one at
    the same moment, on every page."""
    if columns.delay is None:
        return "sum"
    several = layout.sizes > 1
    delay = layout.spread(np.nan_to_num(columns.delay, nan=-1.0), empty=-1.0)[several]
    reward, there = layout.spread(columns.reward, empty=0.0)[several], layout.there[several]
    alike = (((delay == delay[:, :1]) & (reward == reward[:, :1])) | ~there).all()
    return "page" if alike and (delay >= 0).any() else "sum"


def as_pages(columns: Columns, layout: Layout, kind: PageReward) -> Columns:
    """A row for each page: the product of the propensities, and what the page earned."""
    rewards = layout.spread(columns.reward, empty=0.0)
    low, high = possible_rewards(columns)
    sizes = (int(layout.sizes.min()), int(layout.sizes.max())) if kind == "sum" else (1,)
    drawn = layout.spread(columns.action.astype(np.float64), empty=-1.0).astype(np.int64)
    distinct, action = np.unique(drawn, axis=0, return_inverse=True)
    return Columns(
        name=columns.name,
        actions=tuple([", ".join([columns.actions[code] for code in page if code >= 0]) for page in distinct.tolist()]),
        action=action.reshape(-1).astype(np.int32),
        propensity=layout.spread(columns.propensity, empty=1.0).prod(axis=1),
        reward=rewards.sum(axis=1) if kind == "sum" else rewards[:, 0],
        reward_range=(min([low * size for size in sizes]), max([high * size for size in sizes])),
        time=columns.time[layout.first],
        known=columns.known[layout.first],
        unit=columns.unit[layout.first],
        person=None if columns.person is None else columns.person[layout.first],
        fields={},
        sets=(),
        eligible=np.zeros(len(layout), np.int32),
        eligible_logged=True,
    )


def _evaluate(
    candidate: Candidate, scores: Scores, kind: PageReward, *, findings: tuple[Finding, ...], force: bool
) -> PolicyResult:
    assert scores.columns.pages is not None
    layout = Layout.of(scores.columns.pages)
    pages = PageScores(scores, layout)
    whole = pages.as_scores(as_pages(scores.columns, layout, kind))
    estimator = Estimator(whole)
    found = estimator.answer
    answer = Answer(found, estimator.terms.terms, estimator.value_range) if found else None
    diagnostics = diagnose(whole, log=findings, answer=answer, findings_of=page_findings)
    result = PolicyResult(
        name=candidate.name,
        estimand=candidate.estimand,
        decisions=len(layout),
        refused=(diagnostics.verdict == "do not use" and not force) or not len(layout),
        headline=estimator.headline,
        diagnostics=diagnostics,
        estimates={},
        difference=None,
    )
    if result.refused:
        return result
    estimates = {name: one for name, one in estimator.estimates().items() if name in SHOWN}
    slots = pages.estimates(estimator) if kind == "sum" else {}
    return replace(result, estimates=estimates | slots, difference=estimator.difference())


class PageScores:
    """One candidate's scores, by page and slot. weight, missing: (pages, most slots); 1 and 0 where no slot is."""

    def __init__(self, scores: Scores, layout: Layout) -> None:
        self._scores, self._layout = scores, layout
        self.weight = layout.spread(scores.weight, empty=1.0)
        self.missing = layout.spread(scores.missing, empty=0.0)

    @cached_property
    def unseen(self) -> Floats:
        """(pages, most slots): the probability that the candidate has left what the log can show at this slot.

        With the weight of the slots up to it the mean is 1: w_1 ... w_k + sum of w_1 ... w_(j-1) missing_j, j <= k.
        """
        return np.cumsum(self._before * self.missing, axis=1)

    @cached_property
    def _possible_slots(self) -> Floats:
        """(pages, most slots): the largest weight that any action could have had there, behind the slots before."""
        scores = self._scores
        if scores.possible_weights is None:
            return np.where(self._layout.there, scores.possible_weight, 1.0)
        return self._layout.spread(scores.possible_weights, empty=1.0)

    @cached_property
    def possible(self) -> Floats:
        """(most slots,): the largest weight of a page up to each place, of any action there behind what was logged."""
        # The product of each place's largest is a bound whatever is drawn before, and no use: no page has two
        # favourites of the candidate in it, so it is three times too large for two slots, and 20 ** 20 for 20.
        largest = (self._before * self._possible_slots).max(axis=0, initial=1.0)
        return np.maximum.accumulate(largest)

    @cached_property
    def _before(self) -> Floats:
        """(pages, most slots): the weight of the slots before each."""
        return np.hstack([np.ones((len(self.weight), 1)), self.weight.cumprod(axis=1)[:, :-1]])

    def as_scores(self, pages: Columns) -> Scores:
        """Of whole pages. There is no reward model for them."""
        nothing, by_action = np.zeros(len(pages)), np.zeros(len(pages.actions))
        unknown = np.full(len(pages), np.nan)
        return Scores(
            columns=pages,
            pmf=self._layout.spread(self._scores.pmf, empty=1.0).prod(axis=1),
            weight=self.weight.prod(axis=1),
            predicted=unknown,
            expected=unknown,
            missing=self.unseen[:, -1] if len(pages) else nothing,
            guess=nothing,
            shares=by_action,
            logged_shares=by_action,
            missing_by_action=by_action,
            example=np.full(len(pages.actions), -1, np.int64),
            possible_weight=float(self.possible[-1]) if len(self.possible) else 1.0,
            predictions=pages.reward_range,
        )

    def estimates(self, whole: Estimator) -> dict[str, Estimate]:
        """Those that need a reward of each slot. whole: of the pages."""
        reward = self._layout.spread(self._scores.columns.reward, empty=0.0)
        weights = {"weight": self.weight, "reward": reward}
        rips = self._estimate(
            whole, Rips.terms(**weights), self.weight.cumprod(axis=1), self.unseen, self.possible, RIPS_NOTE
        )
        value = Rips.normalised(**weights, there=self._layout.there)
        alone = self._possible_slots.max(axis=0, initial=1.0)
        iips = self._estimate(whole, Iips.terms(**weights), self.weight, self.missing, alone, IIPS_NOTE)
        widened = replace(rips, value=value, low=min(rips.low, value), high=max(rips.high, value))
        return {"rips": rips, "snrips": widened, "iips": iips}

    def _estimate(
        self, whole: Estimator, terms: Floats, weight: Floats, unseen: Floats, possible: Floats, note: str
    ) -> Estimate:
        """The mean of terms sum_k w_k r_k: as of one weight a page, the mean of the w_k, and a reward that is within
        the page's range, their weighted sum over it. weight, unseen: (pages, most slots). possible: (most slots,)."""
        there, sizes, units = self._layout.there, self._layout.sizes, whole.columns.units
        control = np.where(there, weight + unseen, 0.0).sum(axis=1) / sizes
        missing = np.where(there, unseen, 0.0).sum(axis=1)
        most = float((possible.cumsum() / np.arange(1, len(possible) + 1)).max())
        low, high = whole.value_range
        bounds = {"low": min(0.0, low * most), "high": max(0.0, high * most)}
        largest = most + float((missing / sizes).max())
        sample = units.sample(terms, control, **bounds, max_weight=largest)
        least, best = possible_rewards(self._scores.columns)
        unknown = Unseen(missing * least, missing * best).sums(units) if missing.any() else None
        return estimate_mean(samples_of(replace(sample, idle=(0.0, 0.0)), unknown), whole.value_range, note=note)


def page_findings(overlap: Overlap, answer: Answer | None) -> tuple[Finding, ...]:
    """The checks of a candidate, of pages instead of decisions."""
    if not len(overlap.weight):
        return (Finding("weights", "do not use", "There are no whole pages.", 0.0, "A log with whole pages."),)
    mean = mean_of_weights(overlap)
    rewards = overlap.columns.reward
    judged = () if answer is None or mean.verdict == "do not use" else (answer, rewards)
    found = (
        _support(overlap),
        mean,
        effective_sample_size(overlap.weight),
        *(answer_findings(*judged, missing=float(overlap.missing.mean())) if judged else ()),
        largest_weight(overlap),
        concentration(overlap.weight),
    )
    return tuple([replace(one, text=of_pages(one.text), needed=of_pages(one.needed)) for one in found])


def _support(overlap: Overlap) -> Finding:
    mass, count = float(overlap.missing.mean()), int(np.count_nonzero(overlap.missing > NEGLIGIBLE))
    if not count:
        return Finding("support", "fine", "Full support: no page of the candidate is missing in the log.", mass)
    return Finding(
        "support",
        caution_if(True),
        f"On {count:,} of {len(overlap.missing):,} pages the candidate would draw actions that the log could not. "
        f"{percent(mass)} of its pages have one. What they would earn is unknown: the intervals include it.",
        mass,
        "A log that draws these actions, too.",
    )
