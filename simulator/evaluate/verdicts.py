"""The limits between fine, caution and do not use, each with its reason.

Read by the checks of this folder. "Do not use" makes `simulator evaluate` refuse: it stands only where a number would
mislead. Whatever is only imprecise is "caution", since the intervals say so.
"""

from __future__ import annotations

from collections.abc import Iterable

from simulator.evaluate.result import Finding, Verdict

ALARM = 1e-3
"""Probability that a check of a correct log raises an alarm: ten checks of many logs must stay silent."""

MATERIAL = 0.05
"""What is wrong by less than a twentieth is "caution" at most: the lifts that people look for are of this size."""

LEAST_ESS = 10.0
"""Of ten draws the 95 % interval of a share covers half of its range (Wilson: 3 of 10 are 0.11 to 0.60)."""

ENOUGH_ESS = 200.0
"""Of 200 draws it is at most 0.14 wide; in simulated logs, at 16 a nominal 95 % Gaussian interval covered 56 %."""

ENOUGH_SUCCESSES = 50.0
"""Fifty events have a 95 % interval of 0.7 to 1.3 times their number (Garwood, Biometrika 1936); in simulated logs with
34 clicks a Gaussian interval covered 85 %, at ESS 1,827."""

DOMINATES = 0.5
"""One decision that weighs more than all others together: the estimate is that of one visitor."""

TOP_SHARE = 0.5
"""Where 1 % of the decisions carry half of the weight, the other 99 % hardly matter."""

Z_95 = 1.96
"""Standard errors on either side of a 95 % normal interval."""

Z_ALARM = 4.0
"""Standard errors; skewed weights reach 3 by chance far more often than a normal distribution says."""

USEFUL_WEIGHT = 20.0
"""Weights up to w keep an effective sample of at least n / w: a twentieth of the decisions here."""

LEAKS, BALANCE = "columns left out", "balance of the context"
"""Findings about a log that are a caution for every candidate, too: it may be the propensities that are wrong."""

NEGLIGIBLE = 1e-6
"""One slot of the sampler: a probability below it could not be drawn by our service either."""

MORE_LIKE_IT = "A log of a policy that is more like the candidate, or that explores more"
"""What would carry a candidate that the log hardly draws."""

ORDER: tuple[Verdict, ...] = ("fine", "caution", "do not use")
"""From best to worst."""


def worst_verdict(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict; fine of none.

    >>> worst_verdict([Finding("a", "fine", ""), Finding("b", "caution", "")]), worst_verdict([])
    ('caution', 'fine')
    """
    return ORDER[max((ORDER.index(finding.verdict) for finding in findings), default=0)]


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first; among equals the order stays.

    >>> [one.name for one in by_severity([Finding("a", "fine", ""), Finding("b", "caution", "")])]
    ['b', 'a']
    """
    return tuple(sorted(findings, key=lambda finding: -ORDER.index(finding.verdict)))


def reasons(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The texts of those that are not fine, the worst first.

    >>> reasons([Finding("a", "fine", "A."), Finding("b", "caution", "B."), Finding("c", "do not use", "C.")])
    ('C.', 'B.')
    """
    return tuple(finding.text for finding in by_severity(findings) if finding.verdict != "fine")


def alarm(*, significant: bool, material: bool) -> Verdict:
    """Verdict of a significance test: "do not use" where the effect is large as well, else "caution".

    >>> alarm(significant=True, material=True), alarm(significant=False, material=True)
    ('do not use', 'fine')
    """
    if not significant:
        return "fine"
    return "do not use" if material else "caution"


def at_least(value: float, *, least: float, enough: float) -> Verdict:
    """Verdict of a figure that should be large.

    >>> [at_least(x, least=10, enough=200) for x in (2.0, 10.0, 200.0)]
    ['do not use', 'caution', 'fine']
    """
    if value < least:
        return "do not use"
    return "caution" if value < enough else "fine"


def caution_if(condition: bool) -> Verdict:
    """Verdict of a condition that never forbids an estimate.

    >>> caution_if(True), caution_if(False)
    ('caution', 'fine')
    """
    return "caution" if condition else "fine"
