"""`make propensities`: are logged propensities exact, and what is a log of the default worth to other policies?

Audit: in each world the default has learned some thousand visits; then each of some of their contexts is drawn for
often, by the sampler and the tickets that serve. Drawn shares are held against the propensities that would be logged.

Worth: three candidates that the log knows nothing of are weighted over the second half of a log. The effective
sample size (Kish) is what is left of them: (sum of weights)^2 / sum of squared weights.

Called with `--publish` after each change of the default's learning code: code 2 stands beside the newest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

import click
import numpy as np
from rich.console import Console
from scipy.stats import chi2, norm

from decider.decide.decide import slots_of
from decider.decide.slots import SLOTS, Slots, draw, hash_ticket, one_slot, to_slots
from decider.policy.make import make_policy
from decider.policy.protocol import Choice, PlainPolicy
from decider.types import ActionId, Context
from simulator.load_policy import end_if_bad
from simulator.run.policies import served_experiment
from simulator.studies.codes import codes, play_as_served, policy_of
from simulator.studies.results import write_results
from simulator.worlds.registry import find
from simulator.worlds.world import Floats, World

WORLDS = ("storefront", "product-cta", "clicks", "rare", "cart-offer")
FIRST_SEED = 901
VISITS = 4_000
BINS = (0.0, 0.0015, 0.01, 0.1, 0.5, 0.9, 1.0)
"""Limits of propensities. The lowest one is of the minimum, 0.001."""

LEAST_CORRELATION = 1e-9
"""Eigenvalues of a correlation of bins that are less than this part of the largest are 0: shares sum to 1."""

MARKERS = ("<!-- propensities -->\n", "<!-- /propensities -->")


class Drawn(NamedTuple):
    """What was learned of a decision, but for its reward. slots: those of the draw."""

    context: Context
    actions: Sequence[Choice]
    slots: Slots
    drawn: int


class Recorder:
    """Passes everything on, and keeps what was learned. Raises ValueError where the propensity that is logged is not
    the one that was drawn by."""

    def __init__(self, policy: PlainPolicy, *, minimum: float) -> None:
        self.policy = policy
        self.learned: list[Drawn] = []
        self._minimum = minimum
        self._asked: deque[Slots] = deque()

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """The policy's."""
        pmf = self.policy.pmf(context, actions)
        self._asked.append(to_slots(pmf, minimum=self._minimum))
        return pmf

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """The policy learns it, too."""
        slots = self._asked.popleft() if len(actions) > 1 else one_slot(0, 1)  # for one action nobody is asked
        if slots[drawn] / SLOTS != propensity:
            raise ValueError(f"the propensity is {propensity}, and {slots[drawn]} of {SLOTS} tickets draw that action")
        self.learned.append(Drawn(context, actions, slots, drawn))
        self.policy.learn(context, actions, drawn=drawn, propensity=propensity, reward=reward)


def recorded(world: World, policy: PlainPolicy, *, seed: int, visits: int) -> Recorder:
    """After so many visits, each learned at once: with rewards that come late, half a short log would be uniform."""
    recorder = Recorder(policy, minimum=world.experiment.minimum_propensity)
    play_as_served(world, world.draw(seed, visits), recorder, seed=seed, delayed=False)
    return recorder


@dataclass(slots=True)
class Audit:
    """Sums over draws. expected, drawn: by bin of the propensity, of all actions. covariance: (bins, bins), of what is
    drawn; actions of one draw exclude each other. weights, weights_variance: by action, of 1 / propensity where it was
    drawn, less 1 for each draw that could have drawn it."""

    draws: int = 0
    expected: Floats = field(default_factory=lambda: np.zeros(len(BINS) - 1))
    covariance: Floats = field(default_factory=lambda: np.zeros((len(BINS) - 1, len(BINS) - 1)))
    drawn: Floats = field(default_factory=lambda: np.zeros(len(BINS) - 1))
    offered: dict[tuple[str, ActionId], float] = field(default_factory=dict)
    weights: dict[tuple[str, ActionId], float] = field(default_factory=dict)
    weights_variance: dict[tuple[str, ActionId], float] = field(default_factory=dict)

    def add(self, world: str, actions: Sequence[Choice], slots: Slots, counts: Sequence[int]) -> None:
        """Draws with the same slots. counts: how often each action was drawn."""
        draws, by_bin = sum(counts), np.zeros(len(BINS) - 1)
        self.draws += draws
        for choice, share, count in zip(actions, slots, counts, strict=True):
            propensity, key = share / SLOTS, (world, choice.id)
            place = min(int(np.searchsorted(BINS, propensity, side="left")), len(BINS) - 1) - 1
            place = max(place, 0)  # never drawn, and never expected
            by_bin[place] += propensity
            self.drawn[place] += count
            if share:
                self.offered[key] = self.offered.get(key, 0) + draws
                self.weights[key] = self.weights.get(key, 0) + count / propensity
                spread = draws * (1 - propensity) / propensity
                self.weights_variance[key] = self.weights_variance.get(key, 0) + spread
        self.expected += draws * by_bin
        self.covariance += draws * (np.diag(by_bin) - by_bin[:, None] * by_bin)

    def bins(self) -> Iterator[tuple[str, float, float, float]]:
        """Of each that had draws: its name, the share expected, the share drawn, and z."""
        for low, high, expected, drawn, variance in zip(
            BINS, BINS[1:], self.expected, self.drawn, np.diagonal(self.covariance), strict=False
        ):
            if variance > 0:
                z = (drawn - expected) / np.sqrt(variance)
                yield f"{low:g} to {high:g}", expected / self.draws, drawn / self.draws, float(z)

    def p_value(self) -> float:
        """Of chi-square over the bins: the squared distance of what was drawn from what was expected, in units of the
        covariance; as many degrees of freedom as that has."""
        varied = np.diagonal(self.covariance) > 0
        root = np.sqrt(np.diagonal(self.covariance)[varied])
        z = (self.drawn - self.expected)[varied] / root
        correlation = self.covariance[np.ix_(varied, varied)] / (root[:, None] * root)
        inverse = np.linalg.pinv(correlation, rcond=LEAST_CORRELATION, hermitian=True)
        freedom = np.linalg.matrix_rank(correlation, tol=LEAST_CORRELATION * len(root), hermitian=True)
        return float(chi2.sf(z @ inverse @ z, freedom))

    def mean_weights(self) -> list[tuple[float, float]]:
        """Of each action of each world: its mean weight, which should be 1, and z."""
        keys = [key for key in self.offered if self.weights_variance[key] > 0]
        excess = {key: self.weights[key] - self.offered[key] for key in keys}
        return [
            (self.weights[key] / self.offered[key], excess[key] / float(np.sqrt(self.weights_variance[key])))
            for key in keys
        ]


def audit(world: World, recorder: Recorder, into: Audit, *, contexts: int, draws: int) -> None:
    """Draw for contexts that were learned, the latest first, with the slots and the tickets of the server."""
    version = world.version
    for number, one in enumerate(recorder.learned[: -contexts - 1 : -1]):
        slots, _ = slots_of(version, recorder.policy, one.context, one.actions, on_failure=end_if_bad)
        counts = [0] * len(slots)
        for ticket in range(draws):
            counts[draw(slots, hash_ticket(world.name, "draw", f"{number}-{ticket}"))] += 1
        into.add(world.name, one.actions, slots, counts)


Candidate = Callable[[Drawn], Sequence[float]]
"""The pmf of a candidate."""


def even(one: Drawn) -> Sequence[float]:
    """All actions alike."""
    return [1 / len(one.actions)] * len(one.actions)


def always(action: ActionId) -> Candidate:
    """One action; evenly where it may not be chosen."""

    def pmf(one: Drawn) -> Sequence[float]:
        sure = [float(choice.id == action) for choice in one.actions]
        return sure if any(sure) else even(one)

    return pmf


def learned(policy: PlainPolicy) -> Candidate:
    """What a policy has learned elsewhere, and no longer learns."""
    return lambda one: policy.pmf(one.context, one.actions)


def candidates(world: World, *, visits: int) -> dict[str, Candidate]:
    """Chosen without a look at the log: the best single action is the world's, and squarecb learned other visits."""
    drawn = world.draw(FIRST_SEED - 1, visits)
    best = ActionId(world.actions[int(drawn.means[drawn.seen].mean(axis=0).argmax())])
    other = make_policy(served_experiment("squarecb", world).policy)
    recorded(world, other, seed=FIRST_SEED - 1, visits=visits)
    return {
        "uniform": even,
        "best single action": always(best),
        "squarecb, learned elsewhere": learned(other),
    }


class Worth(NamedTuple):
    """Of some decisions for a candidate. kish: their effective sample size / their number, as drawn. expected: the same
    of endless draws with these propensities, 1 / mean squared weight, which has no luck in it. mean: of the weights."""

    kish: float
    expected: float
    mean: float


def worth_of(decisions: Sequence[Drawn], candidate: Candidate) -> Worth:
    """For a candidate.

    >>> one = Drawn(Context(), (Choice(ActionId("a")), Choice(ActionId("b"))), (250_000, 750_000), drawn=0)
    >>> worth_of([one, *[one._replace(drawn=1)] * 3], always(ActionId("a")))
    Worth(kish=0.25, expected=0.25, mean=1.0)
    """
    weights, squares = [], []
    for one in decisions:
        pmf = candidate(one)
        weights.append(pmf[one.drawn] * SLOTS / one.slots[one.drawn])
        squares.append(sum(p * p * SLOTS / max(slot, 1) for p, slot in zip(pmf, one.slots, strict=True) if p))
    total, squared = sum(weights), sum(one * one for one in weights)
    kish = total * total / squared / len(weights) if squared else 0.0
    return Worth(kish, len(squares) / sum(squares), total / len(weights))


ByCandidate = dict[tuple[int, str], Worth]
"""By learning code and candidate."""


def worth(world: World, *, seeds: int, visits: int) -> ByCandidate:
    """By code and candidate, means over the seeds."""
    asked = candidates(world, visits=visits)
    found: ByCandidate = {}
    for code in codes():
        logs = [
            recorded(world, policy_of(world, code), seed=seed, visits=visits).learned
            for seed in range(FIRST_SEED, FIRST_SEED + seeds)
        ]
        for name, candidate in asked.items():
            halves = [log[len(log) // 2 :] for log in logs]  # at first the policy knows nothing, and is even
            found[code, name] = Worth(*np.mean([worth_of(log, candidate) for log in halves], axis=0).tolist())
    return found


def audit_report(found: Sequence[tuple[int, Audit]]) -> str:
    """A table of all codes in Markdown."""
    lines = "| learning code | propensity | share expected | share drawn | z |\n|---|---|--:|--:|--:|\n"
    said = ""
    for code, one in found:
        for name, expected, drawn, z in one.bins():
            lines += f"| {code} | {name} | {100 * expected:.4f} % | {100 * drawn:.4f} % | {z:+.2f} |\n"
        means = one.mean_weights()
        limit = norm.isf(0.025 / len(means))
        said += (
            f"- Code {code}: {one.draws:,} draws, chi-square over the bins p = {one.p_value():.2f}. Mean weights of "
            f"{len(means)} actions {min(means)[0]:.4f} to {max(means)[0]:.4f}, largest |z| "
            f"{max(abs(z) for _, z in means):.2f} (5 % limit for as many: {limit:.2f}).\n"
        )
    return f"{lines}\n{said}"


def _cells(one: Worth) -> str:
    return f"{100 * one.expected:.3g} % | {100 * one.kish:.3g} % | {one.mean:.2f}"


def worth_report(found: Sequence[tuple[str, dict[tuple[int, str], Worth]]], *, seeds: int, visits: int) -> str:
    """A row a world and a candidate, a column a code."""
    versions = codes()
    head = " | ".join(f"code {code}: expected | as drawn | mean weight" for code in versions)
    lines = f"| world | candidate | {head} |\n|---|---|{'--:|--:|--:|' * len(versions)}\n"
    names = list(dict.fromkeys(name for _, of in found for _, name in of))
    for (world, of), name in product(found, names):
        cells = [_cells(of[code, name]) for code in versions]
        lines += f"| {world} | {name} | {' | '.join(cells)} |\n"
    return (
        f"Effective sample size of the later half of {visits:,} decisions, as a share of it; means of {seeds} logs. "
        f"Expected: of endless draws with the same propensities.\n\n{lines}"
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--draws", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="Of the audit.")
@click.option("--seeds", type=click.IntRange(min=1), default=10, show_default=True, help="Logs of each world.")
@click.option("--visits", type=click.IntRange(min=10), default=VISITS, show_default=True, help="Of each log.")
@click.option("--publish", is_flag=True, help="Write the tables into simulator/studies/RESULTS.md.")
def main(draws: int, seeds: int, visits: int, publish: bool) -> None:
    """Exactness of propensities, and what logs are worth to other policies, by learning code 2 and the newest."""
    worlds = [find(name) for name in WORLDS]
    contexts = 200
    audits = []
    for code in codes():
        one = Audit()
        for world in worlds:
            recorder = recorded(world, policy_of(world, code), seed=FIRST_SEED, visits=visits)
            audit(world, recorder, one, contexts=contexts, draws=-(-draws // (contexts * len(worlds))))
        audits.append((code, one))
    found = [(world.name, worth(world, seeds=seeds, visits=visits)) for world in worlds]
    text = f"{audit_report(audits)}\n{worth_report(found, seeds=seeds, visits=visits)}"
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
    if publish:
        write_results(text, MARKERS)


if __name__ == "__main__":
    main()
