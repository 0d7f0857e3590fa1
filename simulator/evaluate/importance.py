"""Importance of a context field: a learner with all fields less one without this field. Called by `run.py`.

Both learn from the same decisions in the same order, and the difference is estimated on the same decisions, so what the
two have in common cancels. A positive loss means that the field is useful.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from simulator.evaluate.candidates import LEARNER, Candidate
from simulator.evaluate.estimates import Estimator
from simulator.evaluate.result import FieldImportance
from simulator.evaluate.scores import Scores
from simulator.logs.columns import Columns, Floats


@dataclass(frozen=True, slots=True)
class WithoutField:
    """A candidate that never sees one field of the context."""

    inner: Candidate
    field: str

    @property
    def name(self) -> str:
        """The candidate's, and the field."""
        return f"{self.inner.name} without {self.field}"

    @property
    def estimand(self) -> str:
        """As of the candidate with all fields."""
        return self.inner.estimand

    def pmf(self, block: Columns) -> Floats:
        """As the candidate, of contexts without the field."""
        fields = {name: field for name, field in block.fields.items() if name != self.field}
        return self.inner.pmf(replace(block, fields=fields))

    def rows(self, columns: Columns) -> None:
        """All."""


def without_fields(candidate: Candidate, fresh: Callable[[], Candidate], columns: Columns) -> list[WithoutField]:
    """The candidate once without each field of the context; none where it does not learn. `fresh` makes it anew.

    >>> from simulator.logs.example import example
    >>> from simulator.evaluate.candidates import UniformPolicy
    >>> without_fields(UniformPolicy(), UniformPolicy, example())  # it does not learn
    []
    """
    return [WithoutField(fresh(), field) for field in columns.fields] if candidate.estimand == LEARNER else []


def importance(full: Scores, reduced: WithoutField, less: Scores) -> FieldImportance:
    """How much more `full` earns than `less`, which never saw the field, on the same decisions."""
    one, other = Estimator(full), Estimator(less)
    return FieldImportance(reduced.field, one.subtract(other.terms), reduced.inner.name)
