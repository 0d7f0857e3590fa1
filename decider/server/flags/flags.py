"""Flags by key and context: the decisions of experiments, as OpenFeature asks for them. Called by `flagd.py` and
`ofrep.py`, whose protocols differ in their words alone.

Everything is decided by DeciderService: the same checks, rules, rights, log. A flag is the experiment that has its key
as its id; an experiment that the caller may not use is a flag that does not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from google.rpc import status_pb2

from decider.errors import FailedPrecondition, InvalidArgument, NotFound, Violation
from decider.log.protocol import Caller, LocateAll, LogReader
from decider.server import convert, pages
from decider.server.flags.contexts import DECISION_ID, UNIT, Plain, read_context
from decider.server.flags.evaluations import OBJECT, Evaluation, bulk_bytes, disabled, evaluated
from decider.server.roles import Rights
from decider.server.service import DeciderService
from decider.serving.current import Current
from decider.types import CONTEXT_FIELDS, DecisionId, ExperimentId, Time
from decider.v1 import decider_service_pb2 as pb

logger = logging.getLogger(__name__)

SERVES_NOTHING = ("EXPERIMENT_PAUSED", "EXPERIMENT_ENDED")
"""Reasons of errors that are no errors of a flag: it is off."""

_SENT = {
    "unit_id": f"context[{UNIT}]",
    "decision_id": f"context[{DECISION_ID}]",
    **{f"context.{name}": f"context[{name}]" for name in CONTEXT_FIELDS},
}

ALL_AT_ONCE = (
    "experiment %s: a client has asked for all flags at once, and the pages of those that have been decided may never "
    'show it: set `activation = "required"` and send Activate when it is seen, or what nobody saw is learned from'
)


class Flags:
    """current: what serves. locate_all: finds decisions in the log."""

    def __init__(self, service: DeciderService, current: Current, log: LogReader, *, locate_all: LocateAll) -> None:
        self._service = service
        self._current = current
        self._log = log
        self._locate_all = locate_all
        self._warned: set[ExperimentId] = set()

    def experiment_of(self, key: str, rights: Rights) -> str:
        """The experiment that a flag is. Raises NotFound."""
        experiment = key.removesuffix(OBJECT)
        if rights.sees(experiment):
            with suppress(NotFound):
                with suppress(FailedPrecondition):  # it has ended, or cannot serve yet: it is there
                    self._current[ExperimentId(experiment)]
                return experiment
        shown = f"{key[:80]!r}"
        raise NotFound(f"there is no flag {shown}; a key is an experiment's id, or ID{OBJECT}", reason="FLAG_NOT_FOUND")

    def evaluate(self, key: str, context: Plain, caller: Caller, rights: Rights) -> Evaluation:
        """One flag: a decision. With a `decision_id` in the context that is in the log, that one. Raises DeciderError;
        InvalidArgument names attributes of the context."""
        experiment = self.experiment_of(key, rights)
        asked = read_context(context)
        request = pb.DecideRequest(
            experiment=experiment, unit_id=asked.unit_id, context=asked.context, decision_id=asked.decision_id
        )
        try:
            with _as_sent():
                reply = self._service.Decide(request, caller, rights)
        except FailedPrecondition as error:
            if error.reason in SERVES_NOTHING:
                return disabled(experiment, asked.unit_id)
            raise
        (expires,) = self._expiries([reply])
        return evaluated(experiment, reply, asked.unit_id, expires)

    def evaluate_all(
        self, context: Plain, caller: Caller, rights: Rights
    ) -> Sequence[Evaluation | tuple[str, status_pb2.Status]]:
        """Each experiment that is there for the caller, decided in one commit; or with the error that it has. Those
        that have ended are left out. Raises DeciderError where all fails."""
        asked = read_context(context)
        if asked.decision_id:
            said = "is one decision's, and all flags at once are many; leave it out"
            raise InvalidArgument([Violation(f"context[{DECISION_ID}]", said)])
        seen = [one.version.experiment for one in self._current.all() if rights.sees(one.version.experiment.id)]
        serving = [one for one in seen if not one.paused]
        for one in serving:
            if not one.needs_activation:
                self._warn(one.id)
        batch = pb.DecideBatchRequest()
        for one in serving:
            batch.requests.add(experiment=one.id, unit_id=asked.unit_id, context=asked.context)
        results = self._decide_all(batch, caller, rights, asked.unit_id)
        ends = iter(self._expiries([one.response for one in results if one.HasField("response")]))
        return [
            *[disabled(one.id, asked.unit_id) for one in seen if one.paused],
            *[
                evaluated(one.id, result.response, asked.unit_id, next(ends))
                if result.HasField("response")
                else (one.id, result.error)
                for one, result in zip(serving, results, strict=True)
            ],
        ]

    def _warn(self, experiment: ExperimentId) -> None:
        """Once."""
        if experiment not in self._warned:
            self._warned.add(experiment)
            logger.warning(ALL_AT_ONCE, experiment)

    def _decide_all(
        self, batch: pb.DecideBatchRequest, caller: Caller, rights: Rights, unit_id: str
    ) -> Sequence[pb.DecideResult]:
        if not batch.requests:
            return ()
        with _as_sent():  # what no experiment takes is one error, and not one of each
            convert.decision_request(batch.requests[0])
        try:
            decide = partial(self._service.DecideBatch, size_of=partial(bulk_bytes, unit_id=unit_id))
            return list(pages.answer(decide, batch, caller, rights).results)
        except InvalidArgument as error:  # they are too many, or their payloads too large
            raise FailedPrecondition(
                f"all flags at once: {error}; ask for each by its key, or with a token for some experiments",
                reason="TOO_MANY_FLAGS",
            ) from error

    def _expiries(self, replies: Sequence[pb.DecideResponse]) -> list[Time | None]:
        """The ends of their windows; None of what lies in an archive."""
        places = self._locate_all([DecisionId(one.decision_id) for one in replies])
        return [
            None if one is None else Time(one.time + self._log.version_at(one.version).experiment.reward.window)
            for one in places
        ]


@contextmanager
def _as_sent() -> Iterator[None]:
    """An InvalidArgument names fields of a DecideRequest: call them as the attributes that they came from."""
    try:
        yield
    except InvalidArgument as error:
        raise InvalidArgument([_rename(one) for one in error.violations]) from error


def _rename(wrong: Violation) -> Violation:
    return replace(wrong, field=_SENT.get(wrong.field) or wrong.field.replace("context.features", "context", 1))
