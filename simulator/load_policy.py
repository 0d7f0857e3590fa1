"""`module:factory` -> somebody's own policy, and the error of every policy's name. Called by `evaluate/` and `run/`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from decider.decide.decide import log_failure
from decider.decide.slots import check_pmf
from decider.errors import DeciderError
from decider.experiment.definition import ExperimentVersion
from decider.policy.protocol import Choice, CountsUnderWay, PlainPolicy, UnusablePmf
from decider.types import Context


class BadPolicy(DeciderError):
    """A policy that there is not, or that cannot be asked about this log or world."""

    reason = "BAD_POLICY"


def factory_of(name: str, *, others: str) -> Callable[[], PlainPolicy]:
    """What makes fresh policies; called once to see that it does. The working directory is searched, too.

    others: all other names, for the message. Raises BadPolicy, also for whatever somebody's own code raises.

    >>> factory_of("decider.policy.static:Uniform", others="default")().save()
    b''
    """
    module, _, factory = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        make: Callable[[], PlainPolicy] = getattr(importlib.import_module(module), factory)
        made = make()
    except (Exception, SystemExit) as error:
        raise BadPolicy(f"{name}: {str(error) or type(error).__name__}; a policy is one of {others}") from error
    missing = [method for method in ("pmf", "learn") if not callable(getattr(made, method, None))]
    if missing:
        raise BadPolicy(f"{name}: what it makes has no {' and no '.join(missing)}; see decider/policy/protocol.py")
    return make


class CheckedPolicy:
    """Somebody's own policy: what it raises, and pmfs that are none, end the work with its name."""

    def __init__(self, name: str, policy: PlainPolicy) -> None:
        self.name = name
        self.policy = policy

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """The policy's. Raises BadPolicy where it is no distribution."""
        with self._named(context):
            pmf = [float(probability) for probability in self.policy.pmf(context, actions)]
        try:
            check_pmf(pmf, len(actions))
        except UnusablePmf as error:
            said = f"gave no distribution over {len(actions)} actions: {pmf[:5]} for {context}"
            raise BadPolicy(f"{self.name}: {said}") from error
        return pmf

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """The policy's."""
        with self._named(context):
            self.policy.learn(context, actions, drawn=drawn, propensity=propensity, reward=reward)

    def count_under_way(self, *, decided: int, sealed: int) -> None:
        """The policy's, if it wants to know."""
        if isinstance(self.policy, CountsUnderWay):
            self.policy.count_under_way(decided=decided, sealed=sealed)

    @contextmanager
    def _named(self, context: Context) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise BadPolicy(f"{self.name}: {type(error).__name__}: {error}, for {context}") from error


def end_if_bad(version: ExperimentVersion, error: Exception) -> None:
    """What the simulator does where a policy fails: what serves falls back as in the server, and somebody's own policy
    ends the work."""
    if isinstance(error, BadPolicy):
        raise error
    log_failure(version, error)
