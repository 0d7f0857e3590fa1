"""A candidate's scores -> every estimate of what it would have earned, with its interval. Called by `run.py`.

An estimate that is a mean of one term per decision gets its interval from these terms, summed by unit. SNIPS and the
Cressie-Read value estimate the same mean as IPS, and SNDR the same as DR: they have the interval of those, widened to
hold their value. Every interval includes what actions that the log cannot show may earn (`support.py`), and lies within
the range of rewards; of the values only that of IPS may leave it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from typing import TypedDict

import numpy as np

from decider.estimate.asymptotic import asymptotic
from decider.estimate.binomial import Proportion, proportion_interval
from decider.estimate.clipped_ips import ClippedIps
from decider.estimate.cressie_read_value import CressieRead
from decider.estimate.default_interval import NAME as DEFAULT
from decider.estimate.dr import DoublyRobust
from decider.estimate.dr_shrinkage import DrShrinkage
from decider.estimate.ips import Ips
from decider.estimate.mean import Interval
from decider.estimate.mips import Mips
from decider.estimate.replay import RejectionReplay, tickets
from decider.estimate.sample import Units
from decider.estimate.sndr import Sndr
from decider.estimate.snips import Snips
from decider.estimate.switch_dr import SwitchDr
from decider.estimate.weights import effective_size
from decider.text import figure, percent
from simulator.evaluate.result import Difference, Estimate
from simulator.evaluate.reward_bounds import possible_rewards
from simulator.evaluate.scores import GroupProbabilities, Scores
from simulator.evaluate.support import Samples, Unseen, difference_of, samples_of
from simulator.evaluate.verdicts import LEAST_ESS, Z_95
from simulator.logs.columns import Floats, Longs

REPLAY_SEED = 1

DM_NOTE = "the reward model alone: as wrong as the model is, and no interval covers that"
CUT_NOTE = "biased where weights are cut (limit {})"
SHRUNK_NOTE = "biased where weights are shrunk (strength {})"
OUTSIDE_NOTE = "outside the range of rewards by chance; the interval is not"
CUT_VALUE_NOTE = "cut to the range of rewards"
UNSEEN_NOTE = "counts {} of the candidate's draws as 0: the log cannot show what they earn"
MIPS_NOTE = "unbiased only if, within a {}, the reward does not depend on the action"
REPLAY_NOTE = "for comparison: {:,} of {:,} decisions accepted, the others thrown away"


@dataclass(frozen=True, slots=True)
class Terms:
    """An estimate as a mean of terms. terms: (n,); low, high: what one term can be; note: why it is biased.

    idle: what a term can be where the candidate would not have drawn the action (its weight is 0).
    unseen: what actions that the log cannot show may add; None where there are none.
    """

    terms: Floats
    low: float
    high: float
    note: str = ""
    idle: tuple[float, float] | None = None
    unseen: Unseen | None = None


class _Weighting(TypedDict):
    """What every weighted estimator takes, (n,) each."""

    propensity: Floats
    pmf: Floats
    reward: Floats


class _Model(TypedDict):
    """What the reward model says, (n,) each."""

    predicted: Floats
    expected: Floats


class Estimator:
    """Everything that is estimated from one candidate's scores."""

    def __init__(self, scores: Scores) -> None:
        self.columns = scores.columns
        self._scores = scores
        self._units = scores.columns.units
        self._low, self._high = possible_rewards(scores.columns)
        columns = scores.columns
        self._weighting = _Weighting(propensity=columns.propensity, pmf=scores.pmf, reward=columns.reward)
        self._model = _Model(predicted=scores.predicted, expected=scores.expected)

    @property
    def value_range(self) -> tuple[float, float]:
        """Within which a mean reward lies."""
        return self._low, self._high

    @property
    def headline(self) -> str:
        """The estimator to look at first: the doubly robust one, but IPS where it is the log's own mean anyway, or
        where there is no reward model for the candidate; without propensities the reward model alone."""
        if not self.columns.has_propensities:
            return "dm"
        return "dr" if self._has_model and not bool((self._scores.weight == 1).all()) else "ips"

    @cached_property
    def _has_model(self) -> bool:
        return not np.isnan(self._scores.expected).any()

    def estimates(self) -> dict[str, Estimate]:
        """By the estimator's name. Without propensities, or without logged pmfs, those that need them are missing."""
        found: dict[str, Estimate] = {}
        if self._scores.columns.has_propensities:
            found |= self._from_weights()
        if self._has_model:
            found |= self._from_model()
        return found

    @cached_property
    def answer(self) -> Estimate | None:
        """The headline estimate where decisions have weights."""
        if not self.columns.has_propensities or not len(self.columns):
            return None
        return self._dr_estimate if self.headline == "dr" else self._ips_estimate

    @cached_property
    def _ips_estimate(self) -> Estimate:
        found = self._estimate(self.ips())
        value = float(self.ips().terms.mean())
        outside = "" if self._low <= value <= self._high else OUTSIDE_NOTE
        unseen = UNSEEN_NOTE.format(percent(float(self._scores.missing.mean()))) if self._unseen else ""
        return replace(found, value=value, unbiased=not unseen, note="; ".join(filter(None, (unseen, outside))))

    @cached_property
    def _dr_estimate(self) -> Estimate:
        return self._estimate(self.dr())

    def _from_weights(self) -> dict[str, Estimate]:
        ips = self._ips_estimate
        cressie_read, snips = CressieRead(), Snips()
        cressie_read.add_many(**self._weighting)
        snips.add_many(**self._weighting)
        found = {"ips": ips}
        for name, value in (("snips", snips.value), ("cressie_read", cressie_read.value)):
            if value is not None:
                found[name] = self._another_value(ips, value)
        found["clipped_ips"] = self._estimate_tuned(self._clipped_ips(), ips)
        if self._scores.grouped is not None:
            found["mips"] = self._estimate(self._mips(self._scores.grouped))
        found["replay"] = self._replay()
        return found

    def _from_model(self) -> dict[str, Estimate]:
        found = {
            "dm": _as_estimate(Interval(float(self._scores.expected.mean()), nan, nan), "none", DM_NOTE, unbiased=False)
        }
        if not self._scores.columns.has_propensities:
            return found
        found["dr"] = dr = self._dr_estimate
        sndr = Sndr()
        sndr.add_many(**self._weighting, **self._model)
        if sndr.value is not None:
            found["sndr"] = self._another_value(dr, sndr.value)
        found["switch_dr"] = self._estimate_tuned(self._switch_dr(), dr)
        found["dr_shrinkage"] = self._estimate_tuned(self._dr_shrinkage(), dr)
        return found

    def _another_value(self, of: Estimate, value: float) -> Estimate:
        """An estimate of the same mean: its interval, widened to hold another value."""
        held, note = self._cut(value)
        return replace(of, value=held, low=min(of.low, held), high=max(of.high, held), note=note or of.note)

    def _cut(self, value: float) -> tuple[float, str]:
        """Within what a mean reward can be, and a note where that moved it."""
        held = min(max(value, self._low), self._high)
        return held, "" if held == value else CUT_VALUE_NOTE

    @cached_property
    def _unseen(self) -> Unseen | None:
        """What missing actions may add to a term that counts them as 0."""
        missing = self._scores.missing
        return Unseen(missing * self._low, missing * self._high) if missing.any() else None

    def ips(self) -> Terms:
        """Terms w r."""
        terms = Ips.terms(**self._weighting)
        return Terms(terms, *self._weighted_bounds(), idle=(0.0, 0.0), unseen=self._unseen)

    def dr(self) -> Terms:
        """Terms expected + w (r - predicted)."""
        terms = DoublyRobust.terms(**self._weighting, **self._model)
        least, most = self._scores.predictions
        weight = self._scores.possible_weight
        low, high = least + weight * (self._low - most), most + weight * (self._high - least)
        unseen, guess = self._unseen, self._scores.guess
        unseen = unseen and Unseen(unseen.low - guess, unseen.high - guess)
        return Terms(terms, low, high, idle=(least, most), unseen=unseen)

    @cached_property
    def terms(self) -> Terms:
        """Of the headline."""
        return self.dr() if self.headline == "dr" else self.ips()

    def _weighted_bounds(self) -> tuple[float, float]:
        most = self._scores.possible_weight
        if bool((self._scores.weight == 1).all()):
            return self._low, self._high
        return min(0.0, self._low * most), max(0.0, self._high * most)

    def _clipped_ips(self) -> Terms:
        chosen = ClippedIps.tune(**self._weighting, interval=self._normal_interval)
        note = CUT_NOTE.format(figure(chosen.limit)) if np.isfinite(chosen.limit) else ""
        return Terms(chosen.terms(**self._weighting), *self._weighted_bounds(), note)

    def _switch_dr(self) -> Terms:
        chosen = SwitchDr.tune(**self._weighting, **self._model, interval=self._normal_interval)
        note = CUT_NOTE.format(figure(chosen.limit)) if np.isfinite(chosen.limit) else ""
        return replace(self.dr(), terms=chosen.terms(**self._weighting, **self._model), note=note)

    def _dr_shrinkage(self) -> Terms:
        chosen = DrShrinkage.tune(**self._weighting, **self._model, interval=self._normal_interval)
        note = SHRUNK_NOTE.format(figure(chosen.strength)) if np.isfinite(chosen.strength) else ""
        return replace(self.dr(), terms=chosen.terms(**self._weighting, **self._model), note=note)

    def _mips(self, grouped: GroupProbabilities) -> Terms:
        terms = Mips.terms(propensity=grouped.propensity, pmf=grouped.pmf, reward=self._weighting["reward"])
        return Terms(terms, *self._weighted_bounds(), MIPS_NOTE.format(grouped.trait))

    def _replay(self) -> Estimate:
        """A decision is accepted with probability w / max_weight, by a ticket that depends on its row number alone."""
        reward = self._weighting["reward"]
        replay = RejectionReplay(max(1.0, float(self._scores.weight.max(initial=1.0))))
        ticket = tickets(len(reward), seed=REPLAY_SEED)
        accepted = replay.accepts(propensity=self._weighting["propensity"], pmf=self._scores.pmf, ticket=ticket)
        note = REPLAY_NOTE.format(int(accepted.sum()), len(reward))
        rows = np.flatnonzero(accepted)
        kept, units = reward[rows], self._units.part(rows)
        highest = kept == self._high
        if bool((highest | (kept == self._low)).all()) and len(units.size) == len(kept):
            share = proportion_interval(Proportion(int(highest.sum()), len(kept)), method="exact")
            interval = _scale(share, self.value_range)
            return _as_estimate(self._with_missing(interval), "Clopper-Pearson", note, unbiased=self._unseen is None)
        sample = units.sample(kept, np.ones(len(kept)), low=self._low, high=self._high, max_weight=1.0)
        interval = self._with_missing(asymptotic(sample, value_range=self.value_range))
        return _as_estimate(interval, "asymptotic", note, unbiased=self._unseen is None)

    def _with_missing(self, seen: Interval) -> Interval:
        """Of a mean over the actions that the log shows: the others may earn the least or the most."""
        mass = float(self._scores.missing.mean())
        low, high = seen.low + mass * (self._low - seen.low), seen.high + mass * (self._high - seen.high)
        return Interval(seen.value, low, high)

    def _normal_interval(self, terms: Floats) -> Interval:
        """Of the mean of terms, clustered by unit; SLOPE takes one per parameter, so it is two passes only.

        With sum s_u and size n_u of a unit: sum (s_u - m n_u)^2 = sum s_u^2 - 2 m sum s_u n_u + m^2 sum n_u^2.
        """
        sums, size = self._units.sums(terms), self._units.size
        value = float(sums.sum()) / len(terms)
        squares = float(np.dot(sums, sums)) - 2 * value * float(np.dot(sums, size)) + value**2 * self._squared_sizes
        half = Z_95 * math.sqrt(max(squares, 0.0)) / len(terms)
        return Interval(value, value - half, value + half)

    @cached_property
    def _squared_sizes(self) -> float:
        return float(np.dot(self._units.size, self._units.size))

    def samples(self, terms: Terms) -> Samples:
        """Terms by unit, with the weights as control variate; its mean is 1 with what is missing."""
        weight, most = self._control
        sample = self._units.sample(terms.terms, weight, low=terms.low, high=terms.high, max_weight=most)
        return samples_of(replace(sample, idle=terms.idle), terms.unseen and terms.unseen.sums(self._units))

    @cached_property
    def _control(self) -> tuple[Floats, float]:
        """(n,) numbers whose true mean is 1, and the largest that one can be."""
        weight, missing = self._scores.weight, self._scores.missing
        most = max(1.0, self._scores.possible_weight)
        if self._unseen is None:
            return weight, most
        return weight + missing, most + float(missing.max())

    def _estimate(self, terms: Terms) -> Estimate:
        found = estimate_mean(self.samples(terms), self.value_range, note=terms.note)
        value, note = self._cut(found.value)
        return replace(found, value=value, note=note or found.note)

    def _estimate_tuned(self, terms: Terms, unbiased: Estimate) -> Estimate:
        """SLOPE allows a bias as large as the unbiased estimate's interval is wide: this interval includes both."""
        own = asymptotic(self.samples(terms).own, value_range=self.value_range)
        held, note = self._cut(own.value)
        interval = Interval(held, min(held, own.low, unbiased.low), max(held, own.high, unbiased.high))
        notes = "; ".join(filter(None, (terms.note, note)))
        return _as_estimate(interval, f"asymptotic, and {DEFAULT}", notes, unbiased=not terms.note)

    def estimate_segment(self, rows: Longs, units: Units) -> tuple[float, Estimate | None]:
        """Effective sample size of the decisions at these indexes, and their estimate unless that is too small."""
        ess = effective_size(self._scores.weight[rows])
        if ess < LEAST_ESS:
            return ess, None
        return ess, estimate_mean(self._part(self.terms, rows, units), self.value_range)

    def segment_difference(self, rows: Longs, units: Units, *, level: float) -> Estimate:
        """To the mean reward logged in the decisions at these indexes. level: of the interval."""
        width = self._high - self._low
        return estimate_mean(self._part(self.less_logged, rows, units), (-width, width), level=level)

    def _part(self, terms: Terms, rows: Longs, units: Units) -> Samples:
        """Of the decisions at these indexes."""
        weight, most = self._control
        sample = units.sample(terms.terms[rows], weight[rows], low=terms.low, high=terms.high, max_weight=most)
        return samples_of(replace(sample, idle=terms.idle), terms.unseen and terms.unseen.part(rows).sums(units))

    @cached_property
    def _logged(self) -> Terms:
        """The logged rewards."""
        return Terms(self._weighting["reward"], self._low, self._high, idle=self.value_range)

    def difference(self) -> Difference:
        """To the logged mean reward, on the same decisions."""
        less = self.subtract(self._logged)
        return Difference("logged", self.headline, less.value, less.low, less.high, less.interval)

    def subtract(self, other: Terms, *, level: float = 0.95) -> Estimate:
        """The headline estimate less another one on the same decisions: what the two have in common cancels."""
        terms = self._less(other)
        if not terms.terms.any() and bool((self._scores.weight == 1).all()):
            return Estimate(0.0, 0.0, 0.0, DEFAULT, note="the two do the same")
        width = self._high - self._low
        return estimate_mean(self.samples(terms), (-width, width), level=level)

    @property
    def less_logged(self) -> Terms:
        """The headline's terms less the logged rewards: their mean is the difference."""
        return self._less(self._logged)

    def _less(self, other: Terms) -> Terms:
        """The headline's terms less others."""
        own, idle = self.terms, None
        if own.idle and other.idle:
            idle = (own.idle[0] - other.idle[1], own.idle[1] - other.idle[0])
        unseen = difference_of(own.unseen, other.unseen)
        return Terms(own.terms - other.terms, own.low - other.high, own.high - other.low, idle=idle, unseen=unseen)


def estimate_mean(
    samples: Samples, value_range: tuple[float, float], *, note: str = "", level: float = 0.95
) -> Estimate:
    """The mean term with the default interval, which lies within the range.

    >>> from decider.estimate.sample import Sample
    >>> sample = Sample(np.array([0.5, 0.5]), np.ones(2), np.ones(2), 0.0, 1.0, 1.0)
    >>> estimate_mean(samples_of(sample, None), (0.0, 1.0)).value
    0.5
    """
    interval = samples.interval(value_range, level=level)
    return _as_estimate(interval, DEFAULT, note, unbiased=not note)


def _scale(share: Interval, ends: tuple[float, float]) -> Interval:
    """The mean of rewards that are the lower or, in this share, the upper end."""
    low, high = ends
    return Interval(*[low * (1 - part) + high * part for part in (share.value, share.low, share.high)])


def mean_reward(reward: Floats, units: Units, value_range: tuple[float, float]) -> Estimate:
    """The mean reward of some decisions as they were logged, with its interval, clustered by unit."""
    low, high = value_range
    sample = units.sample(reward, np.ones(len(reward)), low=low, high=high, max_weight=1.0)
    return estimate_mean(samples_of(sample, None), value_range)


def _as_estimate(interval: Interval, name: str, note: str, *, unbiased: bool) -> Estimate:
    return Estimate(interval.value, interval.low, interval.high, name, unbiased, note)
