"""The models of a leader whose workers are on several hosts: its own copies, and those that all hosts can load. Called
by the server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from decider.errors import LogError
from decider.log.protocol import Hosts, ModelName
from decider.policy.protocol import Model
from decider.policy.saved import SavedModel
from decider.serving.follower import Copies, Owner

logger = logging.getLogger(__name__)


class SharedCopies(Copies):
    """own: of this host. hosts: where the others find them."""

    def __init__(self, own: Copies, hosts: Hosts) -> None:
        super().__init__()
        self._own = own
        self._hosts = hosts
        self._problems: dict[Owner, str] = {}

    def put(self, name: ModelName, model: Model, save: Callable[[], SavedModel]) -> None:
        """See Copies. Where it cannot be shared, other hosts go on with the model before."""
        saved = save()
        self._own.put(name, model, lambda: saved)
        self._try_to(partial(self._hosts.share_model, name, saved), (name.experiment, name.signature))

    def _try_to(self, work: Callable[[], None], owner: Owner) -> None:
        try:
            work()
        except LogError as error:
            if self._problems.get(owner) != str(error):
                self._problems[owner] = str(error)
                logger.error("experiment %s: its newest model does not reach other hosts: %s", owner[0], error)
        else:
            self._problems.pop(owner, None)

    def get(self, name: ModelName) -> Model | None:
        """See Copies."""
        return self._own.get(name)

    def load(self, name: ModelName) -> SavedModel | None:
        """See Copies."""
        return self._own.load(name)

    def drop(self, owner: Owner) -> None:
        """See Copies."""
        self._own.drop(owner)
        self._try_to(partial(self._hosts.drop_models, *owner), owner)
        self._problems.pop(owner, None)
