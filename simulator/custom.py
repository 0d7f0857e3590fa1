"""`module:factory` -> somebody's own policy, and the error of every policy's name. Called by `evaluate/parse.py` and
`run/policies.py`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from decider.errors import DeciderError
from decider.policy.protocol import Policy


class BadPolicy(DeciderError):
    """A policy that there is not, or that cannot be asked about this log or world."""

    reason = "BAD_POLICY"


def factory_of(name: str, *, others: str) -> Callable[[], Policy]:
    """What makes fresh policies; called once to see that it does. The working directory is searched, too.

    others: all other names, for the message. Raises BadPolicy, also for whatever somebody's own code raises.

    >>> factory_of("decider.policy.static:Uniform", others="default")().save()
    b''
    """
    module, _, factory = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        make: Callable[[], Policy] = getattr(importlib.import_module(module), factory)
        made = make()
    except (Exception, SystemExit) as error:
        raise BadPolicy(f"{name}: {str(error) or type(error).__name__}; a policy is one of {others}") from error
    missing = [method for method in ("pmf", "learn") if not callable(getattr(made, method, None))]
    if missing:
        raise BadPolicy(f"{name}: what it makes has no {' and no '.join(missing)}; see decider/policy/protocol.py")
    return make
