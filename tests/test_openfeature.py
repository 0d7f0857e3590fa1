"""What the providers over OpenFeature's stock ones send: rewards and exposures. The stock ones: `test_frontends.py`."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from typing import Any

import pytest

from decider.client.openfeature.evaluations import Evaluations
from decider.client.openfeature.tracking import MOST_KNOWN, Decision, Tracker
from tests.clients_table import FRONTENDS
from tests.test_architecture import ROOT

OVER = "2020-01-01T00:00:00Z"


class Sent:
    """A client that keeps what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def activate_later(self, *given: object) -> None:
        """As Client."""
        self.calls.append(("activate", *given))

    def reward(self, decision_id: str, name: str, value: object, *, reward_id: str | None) -> None:
        """As Client."""
        self.calls.append(("reward", decision_id, name, value if isinstance(value, float) else None, reward_id))

    def reward_unit(
        self, unit: str, name: str, value: object, *, experiment: str | None, reward_id: str | None
    ) -> None:
        """As Client."""
        self.calls.append(
            ("reward_unit", unit, name, value if isinstance(value, float) else None, experiment, reward_id)
        )


@dataclass
class Context:
    """As EvaluationContext."""

    targeting_key: str | None = "u"
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Tracked:
    """As TrackingEventDetails."""

    value: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Details:
    """As FlagEvaluationDetails."""

    value: Any = "sale"
    variant: str | None = "sale"
    reason: str = "SPLIT"
    flag_metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Evaluation:
    """As HookContext."""

    flag_key: str = "storefront"
    default_value: Any = "banner"
    evaluation_context: Context = field(default_factory=Context)
    hook_data: dict[str, Any] = field(default_factory=dict)


@dataclass
class Failed(Exception):
    """As OpenFeatureError."""

    error_code: str


@pytest.fixture
def sent() -> Sent:
    """The client."""
    return Sent()


@pytest.fixture
def tracker(sent: Sent) -> Tracker:
    """Sends exposures, too."""
    return Tracker(sent, exposures=True)  # type: ignore[arg-type]


def evaluate(tracker: Tracker, details: Details, evaluation: Evaluation | None = None) -> str:
    """A whole evaluation; the id that it asked for."""
    evaluation = evaluation or Evaluation()
    hook = Evaluations(tracker)
    merged = hook.before(evaluation, hints={})
    hook.after(evaluation, details, hints={})
    hook.finally_after(hook_context=evaluation, details=details, hints={})
    return str(merged.attributes["decision_id"])


def test_an_evaluation_is_one_exposure(tracker: Tracker, sent: Sent) -> None:
    """A page may ask for the same flag many times."""
    details = Details(flag_metadata={"decisionId": "d", "expires": "2999-01-01T00:00:00Z"})
    evaluate(tracker, details)
    evaluate(tracker, details, Evaluation("storefront:object"))
    assert sent.calls == [("activate", "d")]


def test_where_the_provider_drops_metadata_the_id_is_in_the_value_or_the_one_asked_for(
    tracker: Tracker, sent: Sent
) -> None:
    """As flagd's provider does."""
    evaluate(tracker, Details(value={"action": "sale", "decision_id": "d"}))
    asked = evaluate(tracker, Details())
    given = evaluate(tracker, Details(), Evaluation(evaluation_context=Context(attributes={"decision_id": "mine"})))
    assert sent.calls == [("activate", "d"), ("activate", asked), ("activate", "mine")]
    assert given == "mine"


def test_a_flag_without_a_decision_sends_nothing(tracker: Tracker, sent: Sent) -> None:
    """A paused experiment, or nothing to choose from."""
    evaluate(tracker, Details(reason="DISABLED"))
    evaluate(tracker, Details(variant=None))
    assert sent.calls == []


def test_a_decision_that_is_over_gets_nothing_and_no_other_one_does(tracker: Tracker, sent: Sent) -> None:
    """An old value of a cache is no reason to reward a newer decision."""
    evaluate(tracker, Details(flag_metadata={"decisionId": "d", "expires": OVER}))
    tracker.track("click", Context(), Tracked(attributes={"experiment": "storefront"}))
    assert sent.calls == []


def test_a_default_is_told_as_what_was_shown(tracker: Tracker, sent: Sent) -> None:
    """A decision may have been made though no answer came. Where the server has said why not, none was."""
    hook = Evaluations(tracker)
    evaluation, unnamed, mistyped = Evaluation(), Evaluation(default_value={}), Evaluation(default_value=False)
    for one in (evaluation, unnamed, mistyped):
        hook.before(one, hints={})
        hook.error(one, Failed("TYPE_MISMATCH" if one is mistyped else "GENERAL"), hints={})
    hook.error(evaluation, Failed("FLAG_NOT_FOUND"), hints={})
    refused = Failed("GENERAL")
    refused.__cause__ = Exception()
    refused.__cause__.response = "403"  # type: ignore[attr-defined] # as requests has it
    hook.error(evaluation, refused, hints={})
    hook.error(Evaluation(), Failed("GENERAL"), hints={})  # before `before`: the provider is not ready
    asked = [one.hook_data["decision_id"] for one in (evaluation, unnamed, mistyped)]
    shown = ["banner", "code-default", "code-default"]
    assert sent.calls == [("activate", id_, action) for id_, action in zip(asked, shown, strict=True)]


def test_a_reward_is_for_the_named_decision_the_shown_one_or_the_unit(tracker: Tracker, sent: Sent) -> None:
    """In this order."""
    tracker.show("u", "storefront:object", Decision("d"))
    tracker.track("click", Context(), Tracked(attributes={"decision_id": "other"}))
    tracker.track("purchase", Context(), Tracked(80.5, {"experiment": "storefront", "reward_id": "order-7"}))
    tracker.track("click", Context(), None)
    tracker.track("click", Context("v"), Tracked(attributes={"experiment": "storefront"}))
    assert sent.calls[1:] == [
        ("reward", "other", "click", None, None),
        ("reward", "d", "purchase", 80.5, "order-7"),
        ("reward_unit", "u", "click", None, None, None),
        ("reward_unit", "v", "click", None, "storefront", None),
    ]


def test_it_remembers_so_many_decisions(sent: Sent) -> None:
    """A server's memory does not grow with its visitors."""
    tracker = Tracker(sent, exposures=False)  # type: ignore[arg-type]
    for number in range(MOST_KNOWN + 1):
        tracker.show(f"u{number}", "e", Decision(f"d{number}"))
    for unit in ("u0", "u1"):
        tracker.track("click", Context(unit), Tracked(attributes={"experiment": "e"}))
    assert [call[:2] for call in sent.calls] == [("reward_unit", "u0"), ("reward", "d1")]


@pytest.mark.skipif(not shutil.which("node"), reason="no Node.js on the PATH")
def test_openfeature_js() -> None:
    """The same in JavaScript; it needs no package."""
    done = subprocess.run(
        ["node", "--test", str(FRONTENDS / "openfeature.test.mjs")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
