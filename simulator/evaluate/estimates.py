"""A candidate's scores -> every estimate of what it would have earned, with its interval. Called by `run.py`.

An estimate that is a mean of one term per decision gets its interval from these terms, summed by unit. SNIPS and the
Cressie-Read value estimate the same mean as IPS, and SNDR the same as DR: they have the interval of those, widened to
hold their value.
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
from decider.estimate.default_interval import default_interval
from decider.estimate.dr import DoublyRobust
from decider.estimate.dr_shrinkage import DrShrinkage
from decider.estimate.ips import Ips
from decider.estimate.mean import Interval
from decider.estimate.mips import Mips
from decider.estimate.replay import RejectionReplay, tickets
from decider.estimate.sample import Sample, Units
from decider.estimate.sndr import Sndr
from decider.estimate.snips import Snips
from decider.estimate.switch_dr import SwitchDr
from decider.estimate.weights import effective_size
from simulator.evaluate.result import Difference, Estimate
from simulator.evaluate.scores import GroupProbabilities, Scores
from simulator.evaluate.verdicts import LEAST_ESS
from simulator.logs.columns import Floats, Longs
from simulator.text import figure

REPLAY_SEED = 1

Z_95 = 1.96
"""Standard errors on either side of a 95 % normal interval."""

DM_NOTE = "the reward model alone: as wrong as the model is, and no interval covers that"
CUT_NOTE = "biased where weights are cut (limit {})"
SHRUNK_NOTE = "biased where weights are shrunk (strength {})"
MIPS_NOTE = "unbiased only if, within a {}, the reward does not depend on the action"
REPLAY_NOTE = "for comparison: {:,} of {:,} decisions accepted, the others thrown away"


@dataclass(frozen=True, slots=True)
class Terms:
    """An estimate as a mean of terms. terms: (n,); low, high: what one term can be; note: why it is biased.

    idle: what a term can be where the candidate would not have drawn the action (its weight is 0).
    """

    terms: Floats
    low: float
    high: float
    note: str = ""
    idle: tuple[float, float] | None = None


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
        self._low, self._high = scores.columns.reward_range
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

    def _from_weights(self) -> dict[str, Estimate]:
        ips = self._estimate(self.ips())
        cressie_read, snips = CressieRead(), Snips()
        cressie_read.add_many(**self._weighting)
        snips.add_many(**self._weighting)
        found = {"ips": ips}
        for name, value in (("snips", snips.value), ("cressie_read", cressie_read.value)):
            if value is not None:
                found[name] = replace(ips, value=value, low=min(ips.low, value), high=max(ips.high, value))
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
        found["dr"] = dr = self._estimate(self.dr())
        sndr = Sndr()
        sndr.add_many(**self._weighting, **self._model)
        if sndr.value is not None:
            found["sndr"] = replace(dr, value=sndr.value, low=min(dr.low, sndr.value), high=max(dr.high, sndr.value))
        found["switch_dr"] = self._estimate_tuned(self._switch_dr(), dr)
        found["dr_shrinkage"] = self._estimate_tuned(self._dr_shrinkage(), dr)
        return found

    def ips(self) -> Terms:
        """Terms w r."""
        return Terms(Ips.terms(**self._weighting), *self._weighted_bounds(), idle=(0.0, 0.0))

    def dr(self) -> Terms:
        """Terms expected + w (r - predicted)."""
        terms = DoublyRobust.terms(**self._weighting, **self._model)
        least, most = self._scores.predictions
        weight = self._scores.possible_weight
        low, high = least + weight * (self._low - most), most + weight * (self._high - least)
        return Terms(terms, low, high, idle=(least, most))

    @cached_property
    def terms(self) -> Terms:
        """Of the headline."""
        return self.dr() if self.headline == "dr" else self.ips()

    def _weighted_bounds(self) -> tuple[float, float]:
        most = self._scores.possible_weight
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
        if bool(((kept == 0) | (kept == 1)).all()) and len(units.size) == len(kept):
            interval = proportion_interval(Proportion(int(kept.sum()), len(kept)), method="exact")
            return _as_estimate(interval, "Clopper-Pearson", note, unbiased=True)
        sample = units.sample(kept, np.ones(len(kept)), low=self._low, high=self._high, max_weight=1.0)
        return _as_estimate(asymptotic(sample, value_range=self.value_range), "asymptotic", note, unbiased=True)

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

    def sample(self, terms: Terms) -> Sample:
        """Terms by unit, with the weights as control variate."""
        weight = self._scores.weight
        most = max(1.0, self._scores.possible_weight)
        sample = self._units.sample(terms.terms, weight, low=terms.low, high=terms.high, max_weight=most)
        return replace(sample, idle=terms.idle)

    def _estimate(self, terms: Terms) -> Estimate:
        return estimate_mean(self.sample(terms), self.value_range, note=terms.note)

    def _estimate_tuned(self, terms: Terms, unbiased: Estimate) -> Estimate:
        """SLOPE allows a bias as large as the unbiased estimate's interval is wide: this interval includes both."""
        own = asymptotic(self.sample(terms), value_range=self.value_range)
        interval = Interval(own.value, min(own.low, unbiased.low), max(own.high, unbiased.high))
        return _as_estimate(interval, f"asymptotic, and {DEFAULT}", terms.note, unbiased=not terms.note)

    def estimate_segment(self, rows: Longs, units: Units) -> tuple[float, Estimate | None]:
        """Effective sample size of the decisions at these indexes, and their estimate unless that is too small."""
        weight = self._scores.weight[rows]
        ess = effective_size(weight)
        if ess < LEAST_ESS:
            return ess, None
        terms, most = self.terms, max(1.0, self._scores.possible_weight)
        sample = units.sample(terms.terms[rows], weight, low=terms.low, high=terms.high, max_weight=most)
        sample = replace(sample, idle=terms.idle)
        return ess, estimate_mean(sample, self.value_range)

    def segment_difference(self, rows: Longs, units: Units, *, level: float) -> Estimate:
        """To the mean reward logged in the decisions at these indexes. level: of the interval."""
        terms, most, width = self._less(self._logged), max(1.0, self._scores.possible_weight), self._high - self._low
        sample = units.sample(
            terms.terms[rows], self._scores.weight[rows], low=terms.low, high=terms.high, max_weight=most
        )
        return estimate_mean(replace(sample, idle=terms.idle), (-width, width), level=level)

    @cached_property
    def _logged(self) -> Terms:
        """The logged rewards."""
        return Terms(self._weighting["reward"], self._low, self._high, idle=self.value_range)

    def difference(self) -> Difference:
        """To the logged mean reward, on the same decisions."""
        less = self.subtract(self._logged)
        return Difference("logged", self.headline, less.value, less.low, less.high, less.interval)

    def subtract(self, other: Terms) -> Estimate:
        """The headline estimate less another one on the same decisions: what the two have in common cancels."""
        terms = self._less(other)
        if not terms.terms.any() and bool((self._scores.weight == 1).all()):
            return Estimate(0.0, 0.0, 0.0, DEFAULT, note="the two do the same")
        width = self._high - self._low
        return estimate_mean(self.sample(terms), (-width, width))

    def _less(self, other: Terms) -> Terms:
        own, idle = self.terms, None
        if own.idle and other.idle:
            idle = (own.idle[0] - other.idle[1], own.idle[1] - other.idle[0])
        return Terms(own.terms - other.terms, own.low - other.high, own.high - other.low, idle=idle)


def estimate_mean(sample: Sample, value_range: tuple[float, float], *, note: str = "", level: float = 0.95) -> Estimate:
    """The mean term with the default interval. That one uses the weights and may miss the mean: then it is widened.

    >>> estimate_mean(Sample(np.array([0.5, 0.5]), np.ones(2), np.ones(2), 0.0, 1.0, 1.0), (0.0, 1.0)).value
    0.5
    """
    interval = default_interval(sample, value_range=value_range, level=level)
    low, high = min(interval.low, sample.value), max(interval.high, sample.value)
    return Estimate(sample.value, low, high, DEFAULT, not note, note)


def mean_reward(reward: Floats, units: Units, value_range: tuple[float, float]) -> Estimate:
    """The mean reward of some decisions as they were logged, with its interval, clustered by unit."""
    low, high = value_range
    sample = units.sample(reward, np.ones(len(reward)), low=low, high=high, max_weight=1.0)
    return estimate_mean(sample, value_range)


def _as_estimate(interval: Interval, name: str, note: str, *, unbiased: bool) -> Estimate:
    return Estimate(interval.value, interval.low, interval.high, name, unbiased, note)
