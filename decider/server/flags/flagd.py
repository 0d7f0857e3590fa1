"""flagd's evaluation API, versions 1 and 2: the handlers of `flagd.evaluation.v1.Service` and `v2`. Called as those of
DeciderService are.

Both versions have the same words; the second one leaves out a value and a variant that the first one sends empty.
Clients know by the status what went wrong: NOT_FOUND, no such flag; INVALID_ARGUMENT, a flag of another type.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from decider.errors import InvalidArgument, Violation
from decider.log.protocol import Caller
from decider.server.flags.contexts import plain
from decider.server.flags.evaluations import FLAG_SET, OBJECT, Evaluation, set_metadata, set_object
from decider.server.flags.events import FlagEvents
from decider.server.flags.flags import Flags
from decider.server.methods import Stream
from decider.server.roles import Rights


class Flagd:
    """Of one version. messages: its generated module."""

    def __init__(self, messages: ModuleType, flags: Flags, events: FlagEvents) -> None:
        self._messages, self._flags, self._events = messages, flags, events

    def ResolveString(self, request: Any, caller: Caller, rights: Rights) -> Any:
        """The action."""
        if request.flag_key.endswith(OBJECT):
            self._refuse_type(request, rights, f"is an object flag: the string flag is without {OBJECT}")
        evaluation = self._flags.evaluate(request.flag_key, plain(request.context), caller, rights)
        reply = self._reply(self._messages.ResolveStringResponse(), evaluation)
        if evaluation.reply is not None:
            reply.value = evaluation.variant
        return reply

    def ResolveObject(self, request: Any, caller: Caller, rights: Rights) -> Any:
        """Action, payload, decision id and propensity."""
        evaluation = self._flags.evaluate(request.flag_key, plain(request.context), caller, rights)
        reply = self._reply(self._messages.ResolveObjectResponse(), evaluation)
        if evaluation.reply is not None:
            set_object(reply.value, evaluation.reply)
        return reply

    def ResolveBoolean(self, request: Any, rights: Rights) -> Any:
        """Raises InvalidArgument, as an experiment is no such flag; NotFound."""
        self._refuse_number(request, rights)

    ResolveInt = ResolveFloat = ResolveBoolean

    def ResolveAll(self, request: Any, caller: Caller, rights: Rights) -> Any:
        """The string flag and the object flag of each experiment. A client of this API takes a flag without a value for
        one of a wrong type: what is off or has an error is left out."""
        response = self._messages.ResolveAllResponse()
        set_metadata(response.metadata, {"flagSetId": FLAG_SET})
        for one in self._flags.evaluate_all(plain(request.context), caller, rights):
            if isinstance(one, Evaluation) and one.reply is not None:
                self._reply(response.flags[one.experiment], one).string_value = one.variant
                set_object(self._reply(response.flags[one.experiment + OBJECT], one).object_value, one.reply)
        return response

    def EventStream(self, stream: Stream, _: bytes) -> None:
        """Takes no thread: what happens is sent as it comes."""
        message = self._messages.EventStreamResponse
        self._events.open(stream, lambda type_, data: message(type=type_, data=data).SerializeToString())

    def _reply(self, reply: Any, evaluation: Evaluation) -> Any:
        """What every reply has, into an empty one."""
        reply.reason = evaluation.reason
        if evaluation.reply is not None:
            reply.variant = evaluation.variant
        set_metadata(reply.metadata, evaluation.metadata)
        return reply

    def _refuse_number(self, request: Any, rights: Rights) -> None:
        self._refuse_type(request, rights, "is no boolean and no number: ask for a string, or for an object")

    def _refuse_type(self, request: Any, rights: Rights, said: str) -> None:
        """Before anything is decided: nobody would see it. Raises NotFound, InvalidArgument."""
        self._flags.experiment_of(request.flag_key, rights)
        raise InvalidArgument([Violation("flag_key", f"{request.flag_key[:80]!r} {said}")])
