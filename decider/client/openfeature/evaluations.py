"""OpenFeature's hook around each evaluation. It needs no import of OpenFeature: it has the methods of its `Hook`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from decider.client.openfeature.tracking import Decision, Tracker


class Evaluations:
    """Gives each evaluation its decision's id and tells the tracker what was shown."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def supports_flag_value_type(self, _: Any) -> bool:
        """All of them."""
        return True

    def before(self, hook_context: Any, **_: Any) -> Any:
        """The id goes with the context, so it is known even where no answer comes."""
        id_ = hook_context.evaluation_context.attributes.get("decision_id") or str(uuid4())
        hook_context.hook_data["decision_id"] = id_
        return type(hook_context.evaluation_context)(attributes={"decision_id": id_})

    def after(self, hook_context: Any, details: Any, **_: Any) -> None:
        """What was decided is shown. It may not raise: OpenFeature would show the default."""
        if details.reason == "DISABLED" or not details.variant:
            return
        unit = hook_context.evaluation_context.targeting_key
        asked = hook_context.hook_data["decision_id"]
        self._tracker.show(unit, hook_context.flag_key, _decision(details, asked))

    def error(self, hook_context: Any, exception: Exception, **_: Any) -> None:
        """The default is shown, where no answer came or it has another type than the code asked for. Not told where the
        server has said why: nothing was decided then."""
        asked = hook_context.hook_data.get("decision_id")
        if asked and getattr(exception, "error_code", "GENERAL") in _MAYBE_DECIDED and not _was_answered(exception):
            self._tracker.show_default(asked, hook_context.default_value)

    def finally_after(self, **_: Any) -> None:
        """Nothing more."""


_MAYBE_DECIDED = ("GENERAL", "TYPE_MISMATCH")


def _decision(details: Any, asked: str) -> Decision:
    metadata = details.flag_metadata
    inner = details.value.get("decision_id") if isinstance(details.value, Mapping) else None
    return Decision(metadata.get("decisionId") or inner or asked, metadata.get("expires", ""))


def _was_answered(exception: Exception) -> bool:
    """Whether an HTTP response is behind it."""
    return getattr(exception.__cause__, "response", None) is not None
