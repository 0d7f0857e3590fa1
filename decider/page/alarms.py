"""What the evidence of an experiment's totals says of its figures, in words. Called by `page.py`.

The evidence is that of the metrics (`decider_split_log_evalue` and others), so the page and an alert say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from decider.estimate.missing_rewards import ALARM
from decider.log.totals import HOLDOUT, POLICY, Labels, LabelTotals
from decider.metrics.alarms import VersionAt, propensity_evidence, split_evidence
from decider.text import figure
from decider.types import ExperimentId

BEYOND = "evidence {}, which is an alarm above 6.9"
"""ln 1000."""

SPLIT_IS_WRONG = (
    "Units are not in the holdout with the declared share: decisions of one group get lost, or its units come back "
    "more often. So the groups cannot be compared, and no lift is right until that is mended."
)


@dataclass(frozen=True, slots=True)
class Alarms:
    """Of one experiment. split, propensities: logarithms of evidence; nan: too little is known. missing: names of
    rewards that have stopped, with their groups."""

    split: float
    propensities: float
    missing: Mapping[str, Sequence[str]]

    @property
    def split_is_wrong(self) -> bool:
        """Whether the groups cannot be compared."""
        return self.split > ALARM

    def lines(self) -> Iterator[str]:
        """One for each, for people."""
        if self.split_is_wrong:
            yield f"{SPLIT_IS_WRONG} ({_evidence(self.split)})"
        if self.propensities > ALARM:
            yield (
                "Actions are not drawn with the probabilities that the log has for them, so every estimate of what "
                f"actions earn is wrong. ({_evidence(self.propensities)})"
            )
        for name, groups in sorted(self.missing.items()):
            yield f"Rewards {name!r} have stopped: {_whose(groups)}"


def alarms(totals: LabelTotals, id_: ExperimentId, version_at: VersionAt, missing: Mapping[Labels, float]) -> Alarms:
    """Of one experiment. missing: the evidence of the last look at rewards, by experiment, name and group."""
    stopped: dict[str, list[str]] = {}
    for (experiment, name, group), evidence in missing.items():
        if experiment == id_ and evidence > ALARM:
            stopped.setdefault(name, []).append(group)
    return Alarms(
        split_evidence(totals.lift.get(id_, {}), version_at),
        propensity_evidence(totals, id_).get(id_, 0.0),
        stopped,
    )


def _evidence(found: float) -> str:
    return BEYOND.format(figure(round(found, 1)))


def _whose(groups: Sequence[str]) -> str:
    match POLICY in groups, HOLDOUT in groups:
        case True, True:
            return "next to none comes of the policy's units, and of the holdout's. They get lost on the way."
        case True, False:
            return (
                "next to none comes of the policy's units. Where the holdout's go on, nobody wants what the policy "
                "shows."
            )
        case _:
            return "next to none comes of the holdout's units."
