"""OFREP 0.3, OpenFeature's protocol of JSON over HTTP: one flag by its key, and all flags at once. Called by `web/`.

Keys have no types here: `ID` is a string flag, `ID:object` the object flag. There is no ETag, since every evaluation is
a decision, and no event stream: a page that is told of each new version would decide everything anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.rpc import code_pb2, error_details_pb2, status_pb2

from decider.errors import InvalidArgument, TargetingKeyMissing, Violation
from decider.log.protocol import Caller
from decider.metrics.rpc import RpcMetrics
from decider.server.flags.contexts import Plain
from decider.server.flags.evaluations import FLAG_SET, OBJECT, Evaluation, set_object
from decider.server.flags.flags import Flags
from decider.server.roles import WEB_PATHS, Rights
from decider.server.rpc import Refused, answer_of
from decider.server.web import compression
from decider.server.web.app import told
from decider.server.web.connect import CODES, JSON_HEAD
from decider.server.web.exchange import Reply, Request
from decider.server.web.routes import Endpoint

SERVICE = "ofrep.v1"
"""As metrics call it."""

BODY = "BODY"
"""The field of what is wrong with a request as a whole: it is no JSON."""

_HEAD = (JSON_HEAD, (b"cache-control", b"no-store"))


class Asked(NamedTuple):
    """key: empty where all flags are asked for."""

    key: str
    context: Plain


def endpoints(flags: Flags, metrics: RpcMetrics) -> Sequence[Endpoint]:
    """Of the web port."""
    handlers: Mapping[str, Callable[[Asked, Caller, Rights], Any]] = {
        "EvaluateFlags": lambda asked, caller, rights: _all(flags, asked, caller, rights),
        "EvaluateFlag": lambda asked, caller, rights: _one(flags, asked, caller, rights),
    }
    return [
        Endpoint(
            path.replace("{key}", ""),
            role,
            partial(_answer, answer_of(handlers[name], service=SERVICE, method=name, metrics=metrics)),
            failure,
        )
        for name, (path, role) in zip(handlers, WEB_PATHS.items(), strict=True)
    ]


def _answer(answer: Callable[..., Any], request: Request, body: bytes, caller: Caller, rights: Rights) -> Reply:
    try:
        content = json.dumps(answer(body, partial(_parse, request.rest), caller, rights), ensure_ascii=False).encode()
    except Refused as refused:
        return told(refused, partial(failure, key=request.rest))
    if len(content) >= compression.SMALLEST and compression.takes_gzip(request.headers.get(b"accept-encoding", b"")):
        return Reply(200, (*_HEAD, (b"content-encoding", compression.GZIP)), compression.compress(content))
    return Reply(200, _HEAD, content)


def _parse(key: str, body: bytes) -> Asked:
    """Raises InvalidArgument. What else a request has is of a newer protocol, or of another server's."""
    try:
        request = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument([Violation(BODY, f"must be JSON: {str(error)[:200]}")]) from error
    context = request.get("context") if isinstance(request, dict) else None
    if not isinstance(request, dict) or not isinstance(context, dict | None):
        raise InvalidArgument([Violation("context", 'must be an object: send {"context": {"targetingKey": "..."}}')])
    return Asked(key, context or {})


def _one(flags: Flags, asked: Asked, caller: Caller, rights: Rights) -> dict[str, Any]:
    evaluation = flags.evaluate(asked.key, asked.context, caller, rights)
    return _of_object(evaluation) if asked.key.endswith(OBJECT) else _of_string(evaluation)


def _all(flags: Flags, asked: Asked, caller: Caller, rights: Rights) -> dict[str, Any]:
    told: list[dict[str, Any]] = []
    for one in flags.evaluate_all(asked.context, caller, rights):
        if isinstance(one, Evaluation):
            told += [_of_string(one), _of_object(one)]
        else:
            experiment, status = one
            told += [_error(status, experiment), _error(status, experiment + OBJECT)]
    return {"flags": told, "metadata": {"flagSetId": FLAG_SET}}


def _of_string(one: Evaluation) -> dict[str, Any]:
    return _told(one, one.experiment, one.variant)


def _of_object(one: Evaluation) -> dict[str, Any]:
    value = Struct()
    if one.reply is not None:
        set_object(value, one.reply)
    return _told(one, one.experiment + OBJECT, MessageToDict(value))


def _told(one: Evaluation, key: str, value: Any) -> dict[str, Any]:
    """Where there is no value the client's code has one. A variant there is always: the Python client looks it up."""
    with_value = {} if one.reply is None else {"value": value}
    return {"key": key, **with_value, "reason": one.reason, "variant": one.variant, "metadata": dict(one.metadata)}


def failure(status: status_pb2.Status, *, key: str = "") -> Reply:
    """What a client gets of an error. key: of the flag, where one is asked for."""
    number = CODES.get(status.code, CODES[code_pb2.UNKNOWN])[1]
    if number in (409, 499):  # clients know 400, 401, 403, 404, 429 and 500
        number = 400
    return Reply(number, _HEAD, json.dumps(_error(status, key), ensure_ascii=False).encode())


def _error(status: status_pb2.Status, key: str) -> dict[str, str]:
    return {**({"key": key} if key else {}), "errorCode": _code(status), "errorDetails": status.message}


def _code(status: status_pb2.Status) -> str:
    """OpenFeature's error code."""
    if status.code == code_pb2.NOT_FOUND:
        return "FLAG_NOT_FOUND"
    if status.code != code_pb2.INVALID_ARGUMENT:
        return "GENERAL"
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    if info.reason == TargetingKeyMissing.reason:
        return TargetingKeyMissing.reason
    return "PARSE_ERROR" if [one.field for one in bad.field_violations] == [BODY] else "INVALID_CONTEXT"
