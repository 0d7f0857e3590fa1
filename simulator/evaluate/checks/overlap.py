"""A candidate's probabilities beside a log's: what the checks of a candidate read of the evaluation's scores."""

from __future__ import annotations

from typing import Protocol

from simulator.logs.columns import Columns, Floats, Longs


class Overlap(Protocol):
    """A candidate's probabilities beside a log's; `Scores` is one. Arrays are (n,) unless said otherwise."""

    @property
    def columns(self) -> Columns:
        """The decisions that the candidate is judged on."""

    @property
    def weight(self) -> Floats:
        """Its probability of the drawn action / propensity; nan where there is no propensity."""

    @property
    def missing(self) -> Floats:
        """Its probability of actions that the log could not draw; 0 where the log cannot say."""

    @property
    def predicted(self) -> Floats:
        """The reward model at the drawn action; nan where it says nothing."""

    @property
    def expected(self) -> Floats:
        """Its mean under the candidate."""

    @property
    def guess(self) -> Floats:
        """What of that it says of actions that the log could not draw."""

    @property
    def missing_by_action(self) -> Floats:
        """(actions,): the same by action, means."""

    @property
    def example(self) -> Longs:
        """(actions,): a row of `columns` where the action is missing; -1 for none."""

    @property
    def possible_weight(self) -> float:
        """The largest weight that any action could have had."""
