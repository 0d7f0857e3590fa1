"""The client for pages that wait for their answer. `asynchronous.py` is its twin; the steps are in `core.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from os import PathLike
from types import TracebackType
from typing import Any, SupportsFloat, TypeVar

from decider.channel import credentials_of
from decider.client.connection import Connection
from decider.client.core import Core
from decider.client.decisions import Steps
from decider.client.deliveries import Outcome
from decider.client.failures import Kind, OnError
from decider.client.fallback import ABSENT, Absent, GivenFallback, GivenFallbacks
from decider.v1 import decider_service_pb2 as pb

T = TypeVar("T")


class Client:
    """Calls one server, from any number of threads; after a fork also from the child. Also a context manager.

    target: HOST:PORT. timeout: seconds that a call may take.
    queue_size, queue_age: rewards and activations that wait to be sent again, and seconds that they wait; what goes
    beyond is dropped, the oldest first. (Reports of fallbacks wait apart, under the same bounds.)
    on_error: called with a Failure for each fallback, each reward or activation that is queued, refused or lost, in
    the thread where that was found: also in the one that sends again.
    token, or token_file: says who calls; the file is read anew when it changes. ca: PEM file of the authority that made
    the server's certificate; with it, or with cert and key (PEM files of the client's own certificate), calls are
    encrypted. What is left out comes from the environment: DECIDER_TOKEN, DECIDER_TOKEN_FILE, DECIDER_CA,
    DECIDER_CLIENT_CERT, DECIDER_CLIENT_KEY.
    Raises TypeError or ValueError for wrong settings.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 1.0,
        queue_size: int = 10_000,
        queue_age: float = 3600.0,
        on_error: OnError | None = None,
        token: str | None = None,
        token_file: str | PathLike[str] | None = None,
        ca: str | PathLike[str] | None = None,
        cert: str | PathLike[str] | None = None,
        key: str | PathLike[str] | None = None,
    ) -> None:
        credentials = credentials_of(token=token, token_file=token_file, ca=ca, cert=cert, key=key)
        self._core = Core(
            target,
            timeout=timeout,
            queue_size=queue_size,
            queue_age=queue_age,
            on_error=on_error,
            credentials=credentials,
        )
        self._connection = Connection(self._core.target, timeout=self._core.timeout, credentials=credentials)

    @property
    def stub(self) -> Any:
        """The generated code's, for what has no method here. Its calls raise grpc.RpcError."""
        return self._connection.stub

    def decide(
        self,
        /,
        experiment: str,
        unit_id: str,
        *,
        fallback: GivenFallback = ABSENT,
        decision_id: str | None = None,
        eligible_actions: Iterable[str] | None = None,
        excluded_actions: Iterable[str] | None = None,
        action_features: Mapping[str, Mapping[str, object]] | None = None,
        actions: Iterable[Mapping[str, object]] | None = None,
        default_action: str | None = None,
        explore: bool | None = None,
        with_ranking: bool | None = None,
        features: Mapping[str, object] | None = None,
        **context: object,
    ) -> pb.DecideResponse:
        """Choose an action. Other keywords are the context: its five fields, anything else is a feature.

        `default_action` is what the page would show by itself: served where the experiment's `learning` says so.
        `features` takes those whose names are keywords already. None is unknown. Every call has a decision id: a new
        one if none is given.

        With `fallback` (an action's id, or a Fallback with a payload) nothing raises but a wrong fallback: whatever
        goes wrong gives that action, with reason FALLBACK and without a decision id. It is counted, logged, told to
        `on_error`, and the server is told which action was shown. Without it, TypeError or ValueError names the wrong
        field, and grpc.RpcError is the server's or the network's.
        """
        asked = {
            "experiment": experiment,
            "unit_id": unit_id,
            "decision_id": decision_id,
            "eligible_actions": eligible_actions,
            "excluded_actions": excluded_actions,
            "action_features": action_features,
            "actions": actions,
            "default_action": default_action,
            "explore": explore,
            "with_ranking": with_ranking,
            "features": features,
            **context,
        }
        return self._take(self._core.decisions.decide(asked, fallback))

    def decide_slate(
        self,
        /,
        experiment: str,
        unit_id: str,
        slots: Iterable[Mapping[str, object]],
        *,
        fallback: GivenFallbacks = ABSENT,
        slate_id: str | None = None,
        action_features: Mapping[str, Mapping[str, object]] | None = None,
        actions: Iterable[Mapping[str, object]] | None = None,
        explore: bool | None = None,
        with_ranking: bool | None = None,
        features: Mapping[str, object] | None = None,
        **context: object,
    ) -> pb.DecideSlateResponse:
        """Fill several slots of a page, the first one first; no action is taken twice.

        slots: of each place a mapping with `features` of the place, `eligible_actions`, `excluded_actions` and
        `default_action`, each where it has any: {} is a place that may get everything. The other keywords are those of
        `decide`. The reply has a decision for each slot; `reward` and `activate` take the id of one of them, or the
        `slate_id` for all.

        With `fallback`, a list with an action for each slot, nothing raises but a wrong fallback, as in `decide`: then
        there is neither a slate id nor a decision id, and the server is told what was shown in each slot.
        """
        asked = {
            "experiment": experiment,
            "unit_id": unit_id,
            "slots": slots,
            "slate_id": slate_id,
            "action_features": action_features,
            "actions": actions,
            "explore": explore,
            "with_ranking": with_ranking,
            "features": features,
            **context,
        }
        return self._take(self._core.decisions.decide_slate(asked, fallback))

    def decide_batch(
        self, requests: Iterable[Mapping[str, object]], *, fallback: GivenFallback = ABSENT
    ) -> list[pb.DecideResult]:
        """Many decisions, 1,000 in a call and a commit. requests: mappings with the keywords of `decide`.

        A result has a `response`, or the `error` of that request alone. With a `fallback`, in a request or for all,
        each has a response and nothing raises, as in `decide`.
        """
        return self._take(self._core.decisions.decide_batch(requests, fallback))

    def reward(
        self,
        decision_id: str | None,
        name: str | None = None,
        value: SupportsFloat | Absent = ABSENT,
        *,
        reward_id: str | None = None,
        occurred_at: datetime | None = None,
        correct: bool = False,
        retract: bool = False,
        final: bool = False,
    ) -> Outcome:
        """Say how well a decision went, or with a slate's id a whole page: a `name` (default: "reward") and a `value`
        (default: 1). For a fallback's empty id nothing is sent, and the outcome is NOTHING.

        It never raises. What the server answers is the outcome. Where no answer comes, it is QUEUED and sent again
        until it is answered or too old. Without a `reward_id` each call makes one, so that sending again counts once;
        but two calls without it are two rewards. What is wrong is REFUSED, logged, counted and told to `on_error`.
        `final`: it is the last word about the decision, which is learned at once.
        """
        asked = {
            "decision_id": decision_id,
            "name": name,
            "reward_id": reward_id,
            "occurred_at": occurred_at,
            "correct": correct,
            "retract": retract,
            "final": final,
            "value": value,
        }
        return self._take(self._core.deliveries.reward(asked))

    def reward_unit(
        self,
        unit_id: str,
        name: str | None = None,
        value: SupportsFloat | Absent = ABSENT,
        *,
        experiment: str | None = None,
        reward_id: str | None = None,
        occurred_at: datetime | None = None,
        correct: bool = False,
        retract: bool = False,
        final: bool = False,
    ) -> Outcome:
        """Say that a unit did something, where nobody knows after which decision: a purchase in a store. The server
        credits it to open decisions of the unit, as the experiments say (`reward.attribution`); to those of
        `experiment` alone, if it is given. Otherwise as `reward`; without a `reward_id` two calls are two rewards.
        """
        asked = {
            "unit_id": unit_id,
            "name": name,
            "experiment": experiment,
            "reward_id": reward_id,
            "occurred_at": occurred_at,
            "correct": correct,
            "retract": retract,
            "final": final,
            "value": value,
        }
        return self._take(self._core.deliveries.reward(asked))

    def link_units(self, unit_id: str, same_as: str) -> Outcome:
        """Say that two units are one person: a visitor has signed in. Rewards by unit of either one then reach the
        decisions of both. It never raises, as `reward`.
        """
        return self._take(self._core.deliveries.link_units({"unit_id": unit_id, "same_as": same_as}))

    def reward_batch(self, rewards: Iterable[Mapping[str, object]]) -> list[Outcome]:
        """Many rewards, 1,000 in a call and a commit. rewards: mappings with the keywords of `reward` or
        `reward_unit`."""
        return self._take(self._core.deliveries.reward_batch(rewards))

    def activate(self, decision_id: str | None, action: str | None = None) -> Outcome:
        """Say that the decision's action was shown, or which other one was. With a slate's id: that all were shown. It
        never raises, as `reward`."""
        return self._take(self._core.deliveries.activate({"decision_id": decision_id, "action": action}))

    def activate_later(self, decision_id: str | None, action: str | None = None) -> Outcome:
        """As `activate`, but no page waits for it: it is sent within a tenth of a second, after what waits already, and
        the outcome is QUEUED."""
        return self._core.deliveries.activate_later({"decision_id": decision_id, "action": action})

    @property
    def fallbacks(self) -> Counter[Kind]:
        """Calls of this process for which fallbacks were shown, by (code, reason); of a batch, requests."""
        return self._core.fallbacks

    @property
    def undelivered(self) -> Counter[Kind]:
        """Rewards and activations that were refused or dropped, by (code, reason)."""
        return self._core.undelivered

    @property
    def waiting(self) -> int:
        """Rewards, activations and reports of fallbacks that are not delivered yet."""
        return self._core.waiting

    def flush(self, timeout: float = 5.0) -> bool:
        """Try at once to deliver what waits, for so many seconds; whether nothing waits any longer."""
        return self._core.flush(timeout)

    def close(self, timeout: float = 2.0) -> None:
        """Flush for so many seconds, drop what is left, and let go of the connection."""
        self._core.close(timeout)
        self._connection.close()

    def _take(self, steps: Steps[T]) -> T:
        try:
            call = next(steps)
            while True:
                try:
                    reply = self._connection.call(call)
                except BaseException as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
