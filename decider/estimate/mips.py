"""IPS over groups of actions instead of actions, for when actions are many. Called by the evaluation."""

from __future__ import annotations

from decider.estimate.ips import Ips


class Mips(Ips):
    """MIPS: (1/n) sum w r, where w is the candidate's over the logged probability of the logged action's *category*.

    Saito & Joachims, ICML 2022, section 3 (the estimator that follows Proposition 3.3). Unbiased where a category was
    possible whenever the candidate wants it (Assumption 3.1) and where, given context and category, the reward does
    not depend on the action (Assumption 3.2, no direct effect); the weights are smaller than those of IPS (Theorem
    3.6). propensity in (0, 1], pmf in [0, 1]: sums over the actions of the logged action's category. Errors as of Ips.

    >>> mips = Mips()
    >>> mips.add(propensity=0.25 + 0.25, reward=1.0, pmf=0.75 + 0.25)
    >>> mips.value
    2.0
    """

    __slots__ = ()
