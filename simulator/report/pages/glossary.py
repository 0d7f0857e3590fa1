"""What the words of a report mean, one line each, for people who are not statisticians. Called by the page.

Only the words that a report uses are explained in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Term:
    """names: how an evaluation calls it; letters and digits count, nothing else. Without names: always explained."""

    title: str
    meaning: str
    names: tuple[str, ...] = ()


TERMS = (
    Term(
        "Reward per decision",
        "What one decision earned on average: with rewards of 0 and 1, such as clicks, the share that was rewarded.",
    ),
    Term(
        "95 % interval",
        "The range that holds the true value in 95 of 100 such evaluations. A wide one: not enough data to say.",
    ),
    Term(
        "Difference",
        "The policy's estimate less what was logged, on the same decisions. Where 0 is in its interval, the two are "
        "not told apart.",
    ),
    Term("Propensity", "The probability with which the logged action was drawn."),
    Term(
        "Weight",
        "How many decisions one logged decision stands for: the policy's probability of the logged action, divided by "
        "its propensity. On average it must be about 1; if it is not, the log's propensities are wrong.",
    ),
    Term(
        "ESS, effective sample size",
        "How many decisions' worth of evidence is left after weighting. It counts, not the size of the log.",
    ),
    Term(
        "Effective successes",
        "The same for rewarded decisions only. Below a few dozen, no estimate of a rare reward is precise.",
    ),
    Term(
        "Support violation",
        "A decision where the policy wants an action that the log could not draw: nothing can be learned about it.",
    ),
    Term(
        "Fine, caution, do not use",
        "Use it; use it, and do what is named to make it better; the figure would mislead.",
    ),
    Term(
        "Fixed policy",
        "Estimand: what a policy that does not learn would have earned on these visitors.",
        ("fixed policy", "fixed"),
    ),
    Term(
        "Progressive learner",
        "Estimand: what a policy that learns would have earned, where it learns from this log's decisions and is asked "
        "before it learns from each.",
        ("progressive learner", "progressive"),
    ),
    Term(
        "Deployed curve",
        "Estimand: what a policy that learns would have earned had it been live and learned from its own decisions.",
        ("deployed curve", "deployed", "deployed learning curve"),
    ),
    Term("mean", "The plain mean of the logged rewards.", ("mean", "mean of the log")),
    Term("ips", "Weighted mean of the rewards; right on average, but wide where weights are large.", ("ips",)),
    Term(
        "clipped ips",
        "The same with large weights cut: narrower, and too low by what was cut.",
        ("clipped ips", "clipped", "ips clipped", "cips"),
    ),
    Term(
        "snips",
        "Weighted mean divided by the mean weight: steadier than ips, with a bias that vanishes in long logs.",
        ("snips",),
    ),
    Term(
        "dm, direct method",
        "What a model fitted on the log predicts for the policy. As wrong as the model is, and its interval does not "
        "know it.",
        ("dm", "direct method"),
    ),
    Term(
        "dr, doubly robust",
        "The model's prediction, corrected by the weighted errors that it made: right if the propensities are, "
        "narrower if the model is good.",
        ("dr", "doubly robust"),
    ),
    Term(
        "holdout",
        "The control group: units that always get the baseline action. Their own mean reward needs no weights. "
        '"dr and holdout" mixes that and dr so that the interval is shortest.',
        ("holdout", "dr and holdout", "ips and holdout"),
    ),
    Term("sndr", "dr with the correction divided by the mean weight: steadier.", ("sndr", "self normalised dr")),
    Term(
        "switch-dr",
        "dr where weights are small, the model alone where they are large.",
        ("switch dr", "switch", "switch dr slope"),
    ),
    Term(
        "dr with optimistic shrinkage",
        "dr with weights shrunk as far as it lowers the expected error.",
        ("dros", "dr os", "dr shrinkage", "dr optimistic", "optimistic shrinkage"),
    ),
    Term(
        "slope", "Chooses from the data how far weights are cut or shrunk.", ("slope", "switch dr slope", "dros slope")
    ),
    Term(
        "cressie-read",
        "Estimate and interval from empirical likelihood: honest where successes are few and weights large.",
        ("cressie read", "cressieread", "empirical likelihood"),
    ),
    Term(
        "replay",
        "Mean over the decisions where the policy would have done what was done. Throws most of the log away; for "
        "comparison only.",
        ("replay", "rejection replay", "rejection"),
    ),
    Term(
        "mips",
        "ips by kinds of actions in place of single ones: narrower where actions are many, biased where actions of one "
        "kind differ.",
        ("mips", "marginalised ips"),
    ),
    Term(
        "rips",
        "Of pages with several slots: each slot's reward, weighted by the slots up to it. Narrower than ips of whole "
        "pages; biased where a slot's reward depends on the slots behind it.",
        ("rips", "snrips"),
    ),
    Term("iips", "Of pages: each slot by itself, behind what was logged before it.", ("iips",)),
    Term(
        "asymptotic",
        "Interval that assumes many successes; too narrow where there are few.",
        ("asymptotic", "normal", "gaussian"),
    ),
    Term("bootstrap", "Interval from drawing the log's units again and again; too narrow for few.", ("bootstrap",)),
    Term("clopper-pearson", "Exact interval of a share, such as a click rate.", ("clopper pearson",)),
    Term("wilson", "Interval of a share that holds where successes are rare.", ("wilson",)),
    Term(
        "empirical bernstein",
        "Interval that always holds, at the price of being wide.",
        ("empirical bernstein", "bernstein"),
    ),
    Term(
        "betting",
        "Interval from bets against each possible value: it always holds, and is narrow for one that does.",
        ("betting",),
    ),
    Term(
        "Confidence sequence",
        "Intervals for every moment of the log that hold all at once: one may look every day and stop at any time.",
        ("confidence sequence",),
    ),
    Term(
        "Importance of a field",
        "What the policy would lose if it were never told this part of the context.",
        ("importance",),
    ),
)


def explained(words: Iterable[str]) -> list[Term]:
    """The terms that are always explained and those among the words, in the glossary's order.

    >>> always = len(explained([]))
    >>> [term.title for term in explained(["Switch-DR", "clopper_pearson", "unheard of"])[always:]]
    ['switch-dr', 'clopper-pearson']
    """
    used = set(map(_bare, words))
    return [term for term in TERMS if not term.names or used & set(map(_bare, term.names))]


def _bare(word: str) -> str:
    return re.sub("[^a-z0-9]+", "", word.lower())
