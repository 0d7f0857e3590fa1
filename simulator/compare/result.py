"""What a comparison found, as plain data: its JSON, its tables and its page are made of it. Made by its command.

`to_json` of the evaluation gives exactly these names. SCHEMA grows by one whenever a name's meaning changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from decider.errors import DeciderError
from decider.experiment.definition import Experiment
from simulator.compare.paired import Comparison
from simulator.evaluate.result import Estimate

SCHEMA = 2
LEVEL = 0.95

Value = str | float | int | bool | None
TableRow = Mapping[str, Value]
"""One task in the table: its parameters, then its figures."""


class BadComparison(DeciderError):
    """What was asked for cannot be compared."""

    reason = "BAD_COMPARISON"


@dataclass(frozen=True, slots=True)
class Standing:
    """One policy. estimate: of the headline figure, with the interval of this policy alone; None where there is none.

    estimand: what it is an estimate of. parameters: by name. beside: other figures, by name. trouble: why it has no
    figures or is not compared; empty where it is.
    """

    name: str
    estimand: str
    parameters: Mapping[str, Value]
    estimate: Estimate | None
    beside: Mapping[str, float] = field(default_factory=dict)
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Comparisons of one figure with simultaneous intervals. how: in words, for the table's head."""

    figure: str
    how: str
    comparisons: tuple[Comparison, ...]

    def of(self, name: str) -> Comparison | None:
        """The one that compares this policy with the reference."""
        return next((one for one in self.comparisons if one.name == name), None)


@dataclass(frozen=True, slots=True)
class ShareCurve:
    """The share of the attainable lift so far, the mean over seeds. rounds: the points."""

    name: str
    rounds: tuple[int, ...]
    share: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """Everything. figure: what the standings' estimates are of. conditions: under which, in a sentence.

    standings: the best first, those without an estimate last. families: the first is of `figure`. notes: what must be
    known to read it. seconds: of the whole command.
    """

    subject: str
    line: str
    figure: str
    conditions: str
    reference: str
    standings: tuple[Standing, ...]
    families: tuple[Family, ...]
    curves: tuple[ShareCurve, ...] = ()
    notes: tuple[str, ...] = ()
    level: float = LEVEL
    seconds: float = 0.0
    schema: int = SCHEMA

    @property
    def head(self) -> Family | None:
        """Of the headline figure, each policy with the reference; None where there is nothing to compare."""
        return self.families[0] if self.families else None


def rank(standings: Sequence[Standing]) -> tuple[Standing, ...]:
    """The best first; those that are not compared last.

    >>> one = Standing("a", "", {}, Estimate(0.1, 0.0, 0.2, ""))
    >>> two = Standing("b", "", {}, Estimate(0.2, 0.0, 0.3, ""))
    >>> [standing.name for standing in rank([Standing("c", "", {}, None), one, two])]
    ['b', 'a', 'c']
    """
    return tuple(
        sorted(standings, key=lambda one: (one.estimate is None, -(one.estimate.value if one.estimate else 0)))
    )


def sentence(comparison: Comparison) -> str:
    """A comparison in words.

    >>> sentence(Comparison("a", "b", 0.1, 0.05, 0.15, 0.01, real=True))
    'a is better than b'
    """
    said = {
        "better": "is better than",
        "worse": "is worse than",
        "no significant difference": "does not differ significantly from",
    }
    if comparison.conclusion in said:
        return f"{comparison.name} {said[comparison.conclusion]} {comparison.against}"
    return f"{comparison.name} against {comparison.against}: {comparison.conclusion}"


def parameters_of(name: str, experiment: Experiment | None) -> dict[str, Value]:
    """All parameters of what is served under the name, defaults, too; only its kind where none is, or it never learns.

    >>> parameters_of("fixed:sale", None)
    {'algorithm': 'fixed'}
    """
    if experiment is None or not experiment.policy.learns:
        return {"algorithm": name.partition(":")[0]}
    spec = experiment.policy
    return {
        "algorithm": spec.algorithm,
        **{f"{spec.algorithm}.{key}": value for key, value in spec.parameters.items()},
        "interactions": "+".join(spec.interactions),
        "minimum_propensity": experiment.minimum_propensity,
    }
