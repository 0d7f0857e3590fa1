"""The Python client never breaks the page: whatever goes wrong, it shows the fallback, tells, and sends rewards later.

Everything is run with `Client` and with `AsyncClient`, against `decider serve` as a process of its own.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import json
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import count, takewhile
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.client import NOTHING, QUEUED, REFUSED, AsyncClient, Client, Consequence, Failure, Fallback, Kind
from decider.client.connection import RECONNECT
from decider.client.failures import MOST_KINDS, Failures, NotSent
from decider.client.messages import DECIDE_FIELDS, SLATE_FIELDS, SLOT_FIELDS, decide_request
from decider.client.outbox import Call, Outbox
from decider.client.values import feature
from decider.log.open import open_reader
from decider.types import CONTEXT_FIELDS
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.studies.faults.proxy import FORGET, Link
from simulator.verify import verify
from tests.pages import SHOP, stop
from tests.rpc_clients import ServerProcess, experiment, rows, until

PAUSED, CREDITED = "paused", "credited"
ACTIONS = ("new", "sale", "none")
OPTIONS = ("--learn-interval", "0.05")
ROOT = Path(__file__).parent.parent
LONG = 60.0
"""Seconds that a call may take where the test is not about slow ones."""


class Awaited:
    """An AsyncClient on an event loop of its own, to be called as a Client is."""

    def __init__(self, target: str, **settings: Any) -> None:
        self._client = AsyncClient(target, **settings)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *arguments, **keywords: self._runner.run(found(*arguments, **keywords))

    def end(self) -> None:
        """Of its event loop."""
        self._runner.close()


MakeClient = Callable[..., Any]


@pytest.fixture(params=[Client, Awaited], ids=["blocking", "asyncio"])
def make(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    """Makes clients of one of the two kinds; they are closed at the end."""
    made: list[Any] = []

    def one(target: str, **settings: Any) -> Any:
        made.append(request.param(target, **{"timeout": LONG, **settings}))
        return made[-1]

    yield one
    for client in made:
        client.close(0.0)
        if isinstance(client, Awaited):
            client.end()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """With the experiments `shop` and `paused`; at its end the whole log replays."""
    started = start(tmp_path_factory.mktemp("client") / "log.db")
    with closing(started.client()) as client:
        client.apply(experiment(PAUSED, *ACTIONS))
        client.pause(PAUSED)
    yield started
    end(started)


def start(db: Path, *options: str) -> ServerProcess:
    """A server with the experiment `shop`."""
    started = ServerProcess(db, *OPTIONS, *options)
    with closing(started.client()) as client:
        shop = experiment(SHOP, *ACTIONS)
        shop.reward.CopyFrom(
            experiment_pb2.RewardDefinition(
                window=shop.reward.window, range=experiment_pb2.Range(minimum=0.0, maximum=500.0)
            )
        )
        shop.actions_in_calls.most = 5
        shop.policy.squarecb.SetInParent()  # thompson knows nothing of actions that it has not seen
        client.apply(shop)
        credited = experiment(CREDITED, *ACTIONS)
        credited.reward.MergeFrom(shop.reward)
        credited.reward.attribution = experiment_pb2.ATTRIBUTION_LAST
        client.apply(credited)
    return started


def end(started: ServerProcess) -> None:
    """Every decision in the log can be recomputed."""
    assert started.terminate() == 0, started.output
    with closing(open_reader(started.db)) as log:
        found = verify(log)
    assert found.equal == found.decisions
    assert "Traceback" not in started.output


def free_target() -> str:
    """HOST:PORT where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def stopped(server: ServerProcess) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end: a server that does not answer and is not gone."""
    stop(server.process.pid)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def decision(db: Path, id_: str) -> dict[str, Any]:
    """As it is in the log."""
    sql = "select segment, features, action_features from decisions where decision_id = ?"
    (found,) = rows(db, sql, id_)
    return dict(zip(("segment", "features", "action_features"), found, strict=True))


def activations(db: Path, id_: str) -> list[str | None]:
    """The actions that were shown in place of the drawn one."""
    sql = "select a.action from activations a join decisions d on a.decision = d.position where decision_id = ?"
    return [action for (action,) in rows(db, sql, id_)]


def rewards(db: Path, id_: str) -> list[float]:
    """The values in the log, in order."""
    sql = "select value from rewards r join decisions d on r.decision = d.position where decision_id = ?"
    return [value for (value,) in rows(db, f"{sql} order by r.position", id_)]


class Segment(enum.Enum):
    """As a Django project has them."""

    VIP = "vip"


class Tier(str, enum.Enum):  # noqa: UP042 - it prints as something else than its text
    """The older way to write a StrEnum."""

    GOLD = "gold"

    def __str__(self) -> str:
        return "Tier of gold"


class Level(enum.IntEnum):
    """A number with a name."""

    HIGH = 3


class Angry:
    """Nothing can be asked of it."""

    def __float__(self) -> float:
        raise ZeroDivisionError("no")


NO_TEXTS: tuple[Any, ...] = (5, True, ["vip"], "\ud800")
"""Values that no field of the context can have."""

NO_FEATURES: tuple[Any, ...] = (
    *([1], (1,), {"a": 1}, {1}, b"1", 1j, object(), datetime.now(UTC), np.array([1.0]), np.array([1.0, 2.0])),
    *(math.nan, math.inf, -math.inf, np.float32("nan"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity")),
    *(10**400, "\udfff", np.datetime64("2026-11-29")),
)
"""Values that no feature can have."""

NO_ACTIONS: tuple[Any, ...] = ("sale", [""], [5], [None], 5, {"sale": 1})
NO_ACTIONS_OF_A_CALL: tuple[Any, ...] = (
    *(5, "sale", {"id": "sale"}, ["sale"], [{}], [{"id": 5}], [{"id": "sale", "price": 5}]),
    *([{"id": "sale", "features": 5}], [{"id": "sale", "payload": {"price": object()}}]),
)
NO_ACTION_FEATURES: tuple[Any, ...] = (5, "sale", {"sale": 5}, {5: {}}, ["sale"])

WRONG: list[tuple[str, dict[str, Any]]] = [
    *(("experiment", {"experiment": value}) for value in ("", None, 5, b"shop")),
    *(("unit_id", {"unit_id": value}) for value in ("", None, 4711, 4711.0, b"unit", ["unit"], "\ud800")),
    *(("price", {"price": value}) for value in NO_FEATURES),
    ("price", {"features": {"price": [1]}}),
    ("price", {"price": 1, "features": {"price": 2}}),
    ("features", {"features": 5}),
    ("features", {"features": {5: "x"}}),
    *((name, {name: value}) for name in CONTEXT_FIELDS for value in NO_TEXTS),
    *(("eligible_actions", {"eligible_actions": value}) for value in ([], *NO_ACTIONS)),
    *(("excluded_actions", {"excluded_actions": value}) for value in NO_ACTIONS),
    *(("action_features", {"action_features": value}) for value in NO_ACTION_FEATURES),
    *(("actions", {"actions": value}) for value in NO_ACTIONS_OF_A_CALL),
    ("action_features[sale].price", {"action_features": {"sale": {"price": [1]}}}),
    *(("explore", {"explore": value}) for value in ("no", 2)),
    *(("with_ranking", {"with_ranking": value}) for value in ("no", 0.5)),
    *(("decision_id", {"decision_id": value}) for value in (5, b"id")),
    *(("default_action", {"default_action": value}) for value in (5, b"sale", ["sale"])),
]
"""Keywords that no request can carry, and the field that an error names."""

WRONG_IDS = [f"{field}-{number}" for number, (field, _) in enumerate(WRONG)]

NO_SLOTS: tuple[Any, ...] = (None, 5, "top", {}, [], {"features": {}}, [{}, 5], [{}, None], ["top"] * 2, [{}, []])

WRONG_SLATES: list[tuple[str, dict[str, Any]]] = [
    *((field, changes) for field, changes in WRONG if not {*DECIDE_FIELDS} - {*SLATE_FIELDS} & {*changes}),
    *(("slots", {"slots": value}) for value in NO_SLOTS),
    ("slots[1].place", {"slots": [{}, {"place": "top"}]}),
    ("slots[0].features", {"slots": [{"features": 5}, {}]}),
    ("slots[1].features.place", {"slots": [{}, {"features": {"place": [1]}}]}),
    *(("slots[1].eligible_actions", {"slots": [{}, {"eligible_actions": value}]}) for value in ([], *NO_ACTIONS)),
    *(("slots[1].excluded_actions", {"slots": [{}, {"excluded_actions": value}]}) for value in NO_ACTIONS),
    *(("slots[1].default_action", {"slots": [{}, {"default_action": value}]}) for value in (5, b"sale", ["sale"])),
    *(("slate_id", {"slate_id": value}) for value in (5, b"id")),
    *((name, {name: "sale"}) for name in ("decision_id", "default_action")),
    *((name, {name: ["sale"]}) for name in ("eligible_actions", "excluded_actions")),
]
"""As above, of a slate."""

REFUSED_BY_THE_SERVER: dict[str, dict[str, Any]] = {
    "EXPERIMENT_NOT_FOUND": {"experiment": "storefrnt"},
    "EXPERIMENT_PAUSED": {"experiment": PAUSED},
    "INVALID_ARGUMENT": {"unit_id": "x" * 257},
    "NO_ELIGIBLE_ACTION": {"excluded_actions": ACTIONS},
}
"""By the server's reason."""


REFUSED_SLATES: dict[str, dict[str, Any]] = {
    "EXPERIMENT_NOT_FOUND": {"experiment": "storefrnt"},
    "EXPERIMENT_PAUSED": {"experiment": PAUSED},
    "INVALID_ARGUMENT": {"slate_id": "x" * 121},
    "NO_ELIGIBLE_ACTION": {"slots": [{"eligible_actions": ["sale"]}] * 2},
}
"""By the server's reason."""


def slate(changes: dict[str, Any]) -> dict[str, Any]:
    """Keywords of a page with two slots, with these changes."""
    return asked({"slots": [{}, {}], **changes})


def asked(changes: dict[str, Any]) -> dict[str, Any]:
    """Keywords of a decision, with these changes."""
    return {"experiment": SHOP, "unit_id": "visitor-1", **changes}


@pytest.mark.parametrize(("field", "changes"), WRONG, ids=WRONG_IDS)
def test_wrong_input_gives_the_fallback(
    make: MakeClient, server: ServerProcess, field: str, changes: dict[str, Any]
) -> None:
    """A page must not die of a missing price; the developer must still hear of it."""
    told: list[Failure] = []
    client = make(server.target, on_error=told.append)
    reply = client.decide(**asked(changes), fallback="sale")
    assert (reply.action.id, reply.reason, reply.decision_id) == ("sale", pb.REASON_FALLBACK, "")
    assert client.fallbacks == {Kind("INVALID_ARGUMENT", "WRONG_ARGUMENT"): 1}
    assert [one.message.startswith(field) for one in told] == [True], told
    assert client.waiting == 0  # nothing was sent, so there is nothing to correct


@pytest.mark.parametrize(("field", "changes"), WRONG, ids=WRONG_IDS)
def test_wrong_input_without_a_fallback_names_the_field(make: MakeClient, field: str, changes: dict[str, Any]) -> None:
    """`bad argument type for built-in operation` does not say what to mend."""
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(field)}.*: "):
        make("127.0.0.1:1").decide(**asked(changes))


def test_what_a_pages_own_object_raises_gives_the_fallback(make: MakeClient, server: ServerProcess) -> None:
    """Lazy texts and database fields run code of their own when they are read."""
    client = make(server.target)
    assert client.decide(SHOP, "visitor-1", price=Angry(), fallback="sale").action.id == "sale"
    (result,) = client.decide_batch([asked({"price": Angry()})], fallback="sale")
    assert result.response.action.id == "sale"


@pytest.mark.parametrize("reason", REFUSED_BY_THE_SERVER)
def test_what_the_server_refuses_gives_the_fallback(make: MakeClient, server: ServerProcess, reason: str) -> None:
    """A misspelt experiment and a paused one: the page is shown either way."""
    client = make(server.target)
    reply = client.decide(**asked(REFUSED_BY_THE_SERVER[reason]), fallback="sale")
    assert reply.action.id == "sale"
    ((kind, count),) = client.fallbacks.items()
    assert (kind.reason, count) == (reason, 1)
    assert client.waiting == 0  # the server says that nothing was done
    with pytest.raises(grpc.RpcError):
        client.decide(**asked(REFUSED_BY_THE_SERVER[reason]))


@pytest.mark.parametrize(
    "fallback",
    [None, "", 5, b"sale", ["sale"], {"id": "sale"}, pb.DecidedAction(), pb.DecideResponse()],
    ids=repr,
)
def test_a_wrong_fallback_is_an_error_at_once(make: MakeClient, server: ServerProcess, fallback: Any) -> None:
    """It would show nothing in the first outage: the one thing that a developer must hear of before."""
    client = make(server.target)
    with pytest.raises((TypeError, ValueError), match=r"^fallback"):
        client.decide(SHOP, "visitor-1", fallback=fallback)
    with pytest.raises((TypeError, ValueError), match=r"fallback"):
        client.decide_batch([asked({"fallback": fallback})])


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"id": ""}, "fallback.id"),
        ({"id": None}, "fallback.id"),
        ({"id": "sale", "kind": 5}, "fallback.kind"),
        ({"id": "sale", "payload": 5}, "fallback.payload"),
        ({"id": "sale", "payload": {"price": object()}}, "fallback.payload.price"),
        ({"id": "sale", "payload": {"links": [1, math.nan]}}, "fallback.payload.links[1]"),
    ],
)
def test_a_wrong_fallback_with_a_payload_cannot_be_made(arguments: dict[str, Any], field: str) -> None:
    """It is written once, at the start of the program; there the error belongs."""
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(field)}: "):
        Fallback(**arguments)


def test_a_fallback_carries_what_the_page_needs(make: MakeClient) -> None:
    """A page that renders payloads has nothing to show with an id alone."""
    payload = {
        "title": "20 % off",
        "price": Decimal("19.90"),
        "links": ["/sale", None],
        "deep": {"new": np.bool_(True)},
    }
    client = make("127.0.0.1:1")
    own = Fallback("sale", kind="offer", payload=payload)
    for fallback in (own, own.message):
        action = client.decide(SHOP, "visitor-1", fallback=fallback).action
        assert (action.id, action.kind, action.payload["title"]) == ("sale", "offer", "20 % off")
        assert (action.payload["price"], action.payload["deep"]["new"]) == (19.9, True)
        assert list(action.payload["links"]) == ["/sale", None]


KNOWN = {
    "decimal": (Decimal("19.90"), 19.9),
    "float32": (np.float32(0.5), 0.5),
    "float64": (np.float64(0.25), 0.25),
    "longdouble": (np.longdouble(0.5), 0.5),
    "int64": (np.int64(7), 7.0),
    "array": (np.array(7.5), 7.5),
    "fraction": (Fraction(1, 4), 0.25),
    "int": (31, 31.0),
    "level": (Level.HIGH, 3.0),
    "yes": (np.bool_(True), True),
    "no": (False, False),
    "tier": (Tier.GOLD, "gold"),
    "member": (Segment.VIP, "vip"),
    "text": (np.str_("red"), "red"),
    "emoji": ("🛒", "🛒"),
}
"""What a page has, and what the log has of it."""


def test_what_a_page_has_arrives(make: MakeClient, server: ServerProcess) -> None:
    """Prices are Decimals in Django, and scores are numpy's: no page converts them first."""
    given = {name: value for name, (value, _) in KNOWN.items()}
    reply = make(server.target).decide(
        SHOP,
        "visitor-1",
        segment=Segment.VIP,
        device=None,
        unknown=None,
        **given,
        features={"explore": "by foot", "fallback": 1, "experiment": True, "gone": None},
        action_features={"sale": {"price": Decimal("9.5"), "unknown": None}, "none": None},
    )
    found = decision(server.db, reply.decision_id)
    wanted = {name: value for name, (_, value) in KNOWN.items()}
    features = json.loads(found["features"])
    assert features == {**wanted, "explore": "by foot", "fallback": 1.0, "experiment": True}
    assert {name: type(value) for name, value in features.items()} == {
        name: type(value) for name, value in {**wanted, "explore": "", "fallback": 1.0, "experiment": True}.items()
    }
    assert (found["segment"], json.loads(found["action_features"])) == ("vip", {"sale": {"price": 9.5}})


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.lists(st.integers())
    | st.datetimes()
)
def test_a_value_is_carried_or_refused_by_name(value: object) -> None:
    """There is no third way: nothing is lost on the way, and no error leaves the page to guess."""
    found, refusal = None, ""
    try:
        found = feature("price", value)
    except (TypeError, ValueError) as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith("price: ")
    else:
        request = decide_request({"experiment": SHOP, "unit_id": "visitor-1", "price": value})
        arrived = dict(pb.DecideRequest.FromString(request.SerializeToString()).context.features)
        assert arrived == ({} if value is None else {"price": found})
        assert type(found) in (str, float, bool, type(None))


def test_every_field_of_a_request_is_a_keyword(make: MakeClient, server: ServerProcess) -> None:
    """Nobody should have to build messages to leave an action out."""
    assert {*DECIDE_FIELDS} - {"features", "fallback"} == {*pb.DecideRequest.DESCRIPTOR.fields_by_name} - {"context"}
    assert {*CONTEXT_FIELDS, "features"} == {*pb.Context.DESCRIPTOR.fields_by_name}
    client = make(server.target)
    reply = client.decide(
        SHOP, "visitor-1", eligible_actions={"sale", "none"}, excluded_actions=("none",), with_ranking=True
    )
    assert (reply.action.id, [one.action for one in reply.ranking]) == ("sale", ["sale"])
    again = client.decide(SHOP, "visitor-1", decision_id=reply.decision_id)
    assert (again.decision_id, again.action.id) == (reply.decision_id, "sale")
    own = [{"id": "new", "features": {"price": Decimal("9.5"), "unknown": None}, "payload": {"title": "Own"}}]
    brought = client.decide(SHOP, "visitor-1", actions=own, eligible_actions=["new"])
    assert (brought.action.id, brought.action.payload["title"]) == ("new", "Own")
    certain = client.decide(experiment=SHOP, unit_id="visitor-1", explore=np.bool_(False), self="a feature")
    assert certain.propensity == 1.0


def test_every_field_of_a_reward_is_a_keyword(make: MakeClient, server: ServerProcess) -> None:
    """As above."""
    client = make(server.target)
    moment = datetime(2026, 11, 29, tzinfo=UTC)
    id_ = client.decide(SHOP, "visitor-1").decision_id
    outcome = client.reward(id_, "purchase", Decimal("19.90"), reward_id="order-1", occurred_at=moment)
    assert outcome == "joined"
    assert client.reward(id_, "purchase", 5, reward_id="order-1") == "duplicate"
    assert rewards(server.db, id_) == [19.9]
    assert client.reward(id_, value=12, reward_id="order-1", correct=True) == "corrected"
    assert client.reward(id_, reward_id="order-1", retract=True) == "retracted"
    fields = {*pb.RewardRequest.DESCRIPTOR.fields_by_name}
    of_both = {*inspect.signature(Client.reward).parameters, *inspect.signature(Client.reward_unit).parameters}
    assert fields <= of_both
    assert fields - {"decision_id"} <= {*inspect.signature(Client.reward_unit).parameters}


def test_a_purchase_in_a_store_reaches_the_page_of_a_linked_visitor(make: MakeClient, server: ServerProcess) -> None:
    """The till knows a customer, the page knew a visitor."""
    client = make(server.target)
    visitor, customer = f"visitor-{uuid.uuid4()}", f"customer-{uuid.uuid4()}"
    id_ = client.decide(CREDITED, visitor).decision_id
    assert client.reward_unit(customer, "purchase", 7, reward_id="till-1") == "no_decision"
    assert client.link_units(visitor, customer) == "linked"
    assert client.link_units(customer, visitor) == "duplicate"
    assert client.reward_unit(customer, "purchase", Decimal("19.90"), reward_id="till-2") == "joined"
    assert client.reward_unit(customer, "purchase", 19.9, experiment=CREDITED, reward_id="till-2") == "duplicate"
    assert rewards(server.db, id_) == [19.9]
    assert client.reward_unit(visitor, value=12, reward_id="till-2", correct=True) == "corrected"
    assert client.reward_batch([{"unit_id": visitor, "name": "click", "final": True}, {"decision_id": id_}]) == [
        *("joined", "late")
    ]
    assert client.undelivered == {}


def test_wrong_units_do_not_break_the_page(make: MakeClient) -> None:
    """As with a wrong reward, the developer hears of it."""
    told: list[Failure] = []
    client = make("127.0.0.1:1", on_error=told.append)
    assert client.reward_unit(None, "purchase") == REFUSED
    assert client.link_units("visitor", 5) == REFUSED
    assert [one.message.partition(":")[0] for one in told] == ["unit_id", "same_as"]


def test_links_and_rewards_of_units_wait_for_a_server_that_is_down(make: MakeClient, tmp_path: Path) -> None:
    """In their order: a reward before its link would find nothing."""
    first = start(tmp_path / "log.db")
    client = make(first.target)
    id_ = client.decide(CREDITED, "visitor").decision_id
    first.kill()
    assert client.link_units("visitor", "customer") == QUEUED
    assert client.reward_unit("customer", "purchase", 7) == QUEUED
    second = start(first.db, "--listen", first.target)
    until(lambda: client.waiting == 0, what="all is delivered")
    assert rewards(first.db, id_) == [7.0]
    end(second)


def test_both_clients_have_the_same_surface() -> None:
    """What is learned with one must hold for the other."""
    blocking, twin = (
        {
            name: inspect.signature(getattr(one, "fget", one)).parameters
            for name, one in vars(kind).items()
            if not name.startswith("__") and (callable(one) or isinstance(one, property))
        }
        for kind in (Client, AsyncClient)
    )
    assert blocking == twin


@pytest.mark.parametrize(
    "target",
    [
        *("", None, 5, "shop.example", "http://shop.example:80", "shop.example:", "shop.example:http", ":50051"),
        *("[::1]", "::1:50051", "shop.example:0", "shop.example:65536", "a b:1", " 127.0.0.1:50051", "unix:"),
    ],
)
def test_a_target_that_nobody_can_reach_is_an_error_at_once(make: MakeClient, target: Any) -> None:
    """Else the page shows its fallback for ever, and nobody knows why."""
    with pytest.raises((TypeError, ValueError), match=r"^target: "):
        make(target)


@pytest.mark.parametrize(
    "target", ["shop.example:50051", "[::1]:50051", "127.0.0.1:1", "unix:/tmp/decider", "a_b-c:80"]
)
def test_a_target_that_somebody_may_listen_at_is_taken(make: MakeClient, target: str) -> None:
    """A check must not refuse what works."""
    assert make(target).waiting == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("timeout", value) for value in (0, -1, None, "1", math.nan)),
        *(("queue_size", 0), ("queue_size", 1.5), ("queue_age", 0), ("on_error", 5), ("on_error", asyncio.sleep)),
    ],
)
def test_wrong_settings_are_named(make: MakeClient, name: str, value: Any) -> None:
    """At the start of the program, not in the first outage."""
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        make("127.0.0.1:1", **{name: value})


def test_a_fallback_is_counted_logged_once_and_told(make: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    """A page full of fallbacks looks as if all were well; a line for each visitor hides all others."""
    told: list[Failure] = []
    client = make("127.0.0.1:1", on_error=told.append)
    with caplog.at_level(logging.WARNING, "decider.client"):
        for _ in range(5):
            client.decide(SHOP, "visitor-1", fallback="sale")
        client.decide(SHOP, "", fallback="sale")
        client.decide(SHOP, "visitor-1", price=[], fallback="sale")
    assert client.fallbacks == {Kind("UNAVAILABLE", ""): 5, Kind("INVALID_ARGUMENT", "WRONG_ARGUMENT"): 2}
    assert len(told) == 7
    assert (told[0].experiment, told[0].shown, told[0].consequence) == (SHOP, "sale", Consequence.FALLBACK)
    assert isinstance(told[0].error, grpc.RpcError)
    assert [line.partition(":")[2].split(":")[0] for line in caplog.messages] == [
        " UNAVAILABLE",
        " INVALID_ARGUMENT",
        " INVALID_ARGUMENT",
    ]


def test_a_callback_that_fails_does_not_break_the_page(make: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    """Its author thinks of errors, not of errors in it; one that calls the client must not call itself for ever."""
    calls = []

    def on_error(failure: Failure) -> None:
        calls.append(failure)
        if isinstance(client, Client):
            client.decide(SHOP, "visitor-2", fallback="sale")
        raise RuntimeError("the callback's own fault")

    client = make("127.0.0.1:1", on_error=on_error)
    assert client.decide(SHOP, "visitor-1", fallback="sale").action.id == "sale"
    assert len(calls) == 1
    assert any("on_error failed" in line for line in caplog.messages)


def test_kinds_of_failures_are_bounded() -> None:
    """A server, or a value in a name, must not fill the memory of the page."""
    failures = Failures()
    for number in range(3 * MOST_KINDS):
        failures.note(Failure("Decide", "INVALID_ARGUMENT", f"REASON_{number}", f"field {number}: is wrong"))
    counted = failures.count(Consequence.REFUSED)
    assert (len(counted), counted.total()) == (MOST_KINDS + 1, 3 * MOST_KINDS)
    assert len(failures._logged) <= MOST_KINDS


def test_a_batch_answers_each_request(make: MakeClient, server: ServerProcess) -> None:
    """One wrong line of a campaign must not cost the others; more than a call takes is several calls."""
    client = make(server.target)
    requests = [asked({"unit_id": f"visitor-{number}", "price": Decimal(number)}) for number in range(1203)]
    requests[3]["price"] = [1]
    requests[5]["experiment"] = "storefrnt"
    requests[7].update(price=[1], fallback=Fallback("sale", payload={"title": "own"}))
    results = client.decide_batch(requests, fallback="none")
    assert len(results) == 1203
    assert [result.WhichOneof("result") for result in results] == ["response"] * 1203
    fallbacks = {place: one.response.action.id for place, one in enumerate(results) if not one.response.decision_id}
    assert fallbacks == {3: "none", 5: "none", 7: "sale"}
    assert results[7].response.action.payload["title"] == "own"
    assert client.fallbacks.total() == 3
    assert decision(server.db, results[1202].response.decision_id)["features"] == '{"price":1202.0}'


def test_a_batch_without_a_fallback_says_what_is_wrong(make: MakeClient, server: ServerProcess) -> None:
    """What cannot be sent names its place before anything is sent; what the server refuses is that request's error."""
    client = make(server.target)
    with pytest.raises(TypeError, match=r"^requests\[1\]\.unit_id: is of type int"):
        client.decide_batch([asked({}), asked({"unit_id": 5})])
    with pytest.raises(TypeError, match=r"^requests"):
        client.decide_batch(None)
    good, bad = client.decide_batch([asked({}), asked({"experiment": "storefrnt"})])
    assert good.response.decision_id
    assert "storefrnt" in bad.error.message
    assert client.decide_batch([]) == []


@pytest.mark.parametrize("requests", [None, 5, [None], ["shop"], [5]])
def test_a_batch_of_nonsense_with_a_fallback_does_not_raise(make: MakeClient, requests: Any) -> None:
    """As `decide`."""
    results = make("127.0.0.1:1").decide_batch(requests, fallback="sale")
    assert all(one.response.action.id == "sale" for one in results)


def test_a_batch_without_a_server_is_fallbacks(make: MakeClient) -> None:
    """A campaign is sent all the same."""
    client = make("127.0.0.1:1")
    results = client.decide_batch([asked({}), asked({"unit_id": "visitor-2"})], fallback="sale")
    assert [one.response.action.id for one in results] == ["sale", "sale"]
    with pytest.raises(grpc.RpcError):
        client.decide_batch([asked({})])


# Slates.


@pytest.mark.parametrize(
    ("field", "changes"), WRONG_SLATES, ids=[f"{field}-{number}" for number, (field, _) in enumerate(WRONG_SLATES)]
)
def test_a_wrong_slate_gives_the_fallback_and_names_the_field(
    make: MakeClient, field: str, changes: dict[str, Any]
) -> None:
    """As of a decision: the page is shown, and the developer hears which field of which slot is wrong."""
    told: list[Failure] = []
    client = make("127.0.0.1:1", on_error=told.append)
    reply = client.decide_slate(**slate(changes), fallback=["sale", Fallback("none", payload={"title": "own"})])
    assert [one.action.id for one in reply.decisions] == ["sale", "none"]
    assert reply.decisions[1].action.payload["title"] == "own"
    assert {(one.reason, one.decision_id) for one in reply.decisions} == {(pb.REASON_FALLBACK, "")}
    assert reply.slate_id == ""
    assert client.fallbacks == {Kind("INVALID_ARGUMENT", "WRONG_ARGUMENT"): 1}
    assert [(one.message.startswith(field), one.shown) for one in told] == [(True, "sale, none")], told
    assert client.waiting == 0
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(field)}.*: "):
        client.decide_slate(**slate(changes))


def test_what_a_pages_own_slots_raise_gives_the_fallback(make: MakeClient) -> None:
    """They may be read from a database while they are asked for."""

    def slots() -> Iterator[dict[str, Any]]:
        yield {}
        raise ZeroDivisionError("no")

    client = make("127.0.0.1:1")
    assert len(client.decide_slate(SHOP, "visitor-1", slots(), fallback=["sale", "none"]).decisions) == 2
    angry = [{"features": {"price": Angry()}}]
    assert client.decide_slate(SHOP, "visitor-1", angry, fallback=["sale"]).decisions[0].action.id == "sale"


@pytest.mark.parametrize("reason", REFUSED_SLATES)
def test_a_slate_that_the_server_refuses_gives_the_fallback(
    make: MakeClient, server: ServerProcess, reason: str
) -> None:
    """As of a decision."""
    client = make(server.target)
    reply = client.decide_slate(**slate(REFUSED_SLATES[reason]), fallback=["sale", "none"])
    assert [one.action.id for one in reply.decisions] == ["sale", "none"]
    ((kind, count),) = client.fallbacks.items()
    assert (kind.reason, count) == (reason, 1)
    assert client.waiting == 0  # the server says that nothing was done
    with pytest.raises(grpc.RpcError):
        client.decide_slate(**slate(REFUSED_SLATES[reason]))


@pytest.mark.parametrize(
    "fallback",
    [
        *(None, "", 5, "sale", b"sale", Fallback("sale"), {"sale": "none"}, {"sale", "none"}, iter(["sale", "none"])),
        *([], ["sale"], ["sale", "none", "new"], ["sale", ""], ["sale", None], ["sale", 5], ["sale", {"id": "none"}]),
        *([pb.DecidedAction(), "sale"], pb.DecideSlateResponse()),
    ],
    ids=lambda fallback: type(fallback).__name__,
)
def test_a_wrong_fallback_of_a_slate_is_an_error_at_once(
    make: MakeClient, server: ServerProcess, fallback: Any
) -> None:
    """A page with two places and one fallback has an empty place in the first outage."""
    with pytest.raises((TypeError, ValueError), match=r"^fallback"):
        make(server.target).decide_slate(SHOP, "visitor-1", [{}, {}], fallback=fallback)
    with pytest.raises((TypeError, ValueError), match=r"^fallback"):
        make(server.target).decide_slate(SHOP, "visitor-1", ({} for _ in range(2)), price=[1], fallback=fallback)


def test_every_field_of_a_slate_is_a_keyword(make: MakeClient, server: ServerProcess) -> None:
    """Nobody should have to build messages for a page with two places."""
    fields = {*pb.DecideSlateRequest.DESCRIPTOR.fields_by_name}
    assert {*SLATE_FIELDS} - {"features", "fallback"} == fields - {"context"}
    assert {*SLOT_FIELDS} == {*pb.Slot.DESCRIPTOR.fields_by_name}
    assert {*SLATE_FIELDS} == {*inspect.signature(Client.decide_slate).parameters} - {"self", "context"}
    client = make(server.target)
    id_ = f"page-{uuid.uuid4()}"
    reply = client.decide_slate(
        SHOP,
        "visitor-1",
        [
            {
                "features": {"place": "top", "rank": Decimal(1), "unknown": None},
                "eligible_actions": {"article", "sale"},
            },
            {"excluded_actions": ["none", "new"], "default_action": "sale", "features": None},
        ],
        slate_id=id_,
        actions=[{"id": "article", "kind": "news", "features": {"words": 9}, "payload": {"url": "/article"}}],
        action_features={"sale": {"price": Decimal("9.5")}},
        with_ranking=True,
        segment=Segment.VIP,
        price=np.float32(0.5),
        features={"slots": 3.0},
    )
    assert (reply.slate_id, [one.decision_id for one in reply.decisions]) == (id_, [f"{id_}/0", f"{id_}/1"])
    assert sorted(one.action.id for one in reply.decisions) == ["article", "sale"]
    (brought,) = [one.action for one in reply.decisions if one.action.id == "article"]
    assert (brought.kind, brought.payload["url"]) == ("news", "/article")
    assert {one.action for one in reply.decisions[0].ranking} == {"article", "sale"}
    assert json.loads(decision(server.db, f"{id_}/0")["features"]) == {
        **{"place": "top", "rank": 1.0, "price": 0.5, "slots": 3.0}
    }
    assert decision(server.db, f"{id_}/1")["segment"] == "vip"
    again = client.decide_slate(SHOP, "visitor-1", [{}, {}], slate_id=id_)
    assert [one.action.id for one in again.decisions] == [one.action.id for one in reply.decisions]
    certain = client.decide_slate(experiment=SHOP, unit_id="visitor-1", slots=[{}], explore=False, self="a feature")
    assert certain.decisions[0].propensity == 1.0
    assert certain.slate_id


def test_rewards_and_activations_take_a_slate_or_a_slot(make: MakeClient, server: ServerProcess) -> None:
    """What was bought cannot be given to one place of the page; a click can."""
    client = make(server.target)
    reply = client.decide_slate(SHOP, "visitor-1", [{}, {}], fallback=["sale", "none"])
    first, second = [one.decision_id for one in reply.decisions]
    assert client.reward(reply.slate_id, "purchase", 7, reward_id="order") == "joined"
    assert client.reward(second, "click") == "joined"
    assert client.reward(reply.slate_id, "purchase", 5, reward_id="order", correct=True) == "corrected"
    assert [rewards(server.db, id_) for id_ in (first, second)] == [[7.0], [7.0, 1.0]]
    assert client.activate(first, "none" if reply.decisions[0].action.id != "none" else "sale") == "overridden"
    assert client.activate(reply.slate_id) == "activated"
    assert client.activate(reply.slate_id) == "duplicate"
    assert [len(activations(server.db, id_)) for id_ in (first, second)] == [1, 1]
    shown = make("127.0.0.1:1").decide_slate(SHOP, "visitor-1", [{}], fallback=["sale"])
    assert (client.reward(shown.slate_id), client.activate(shown.slate_id)) == (NOTHING, NOTHING)


def test_what_waits_about_a_slot_goes_before_what_is_said_of_its_slate(make: MakeClient, tmp_path: Path) -> None:
    """The first activation counts: the other way round the page would have shown what it did not."""
    first = start(tmp_path / "log.db")
    client = make(first.target)
    reply = client.decide_slate(SHOP, "visitor-1", [{}, {}])
    slot = reply.decisions[1]
    other = next(action for action in ACTIONS if action != slot.action.id)
    first.kill()
    assert client.activate(slot.decision_id, other) == QUEUED
    assert client.activate(reply.slate_id) == QUEUED
    second = start(first.db, "--listen", first.target)
    until(lambda: client.waiting == 0, what="all is delivered")
    assert activations(first.db, slot.decision_id) == [other]
    assert activations(first.db, reply.decisions[0].decision_id) == [None]
    end(second)


def test_messages_about_slots_and_their_slate_are_about_one_thing() -> None:
    """Else the one that comes later may overtake the one that waits."""
    subjects = [Call("Activate", pb.ActivateRequest(decision_id=id_)).subject for id_ in ("p", "p/0", "p/19", "p/20")]
    assert subjects == ["p", "p", "p", "p/20"]


def test_a_slate_without_a_server_is_fallbacks(make: MakeClient) -> None:
    """And nothing is reported of a call that was never sent; each place is counted with its page."""
    told: list[Failure] = []
    client = make(free_target(), on_error=told.append)
    reply = client.decide_slate(**slate({}), slate_id="page-7", fallback=["sale", "none"])
    assert [one.action.id for one in reply.decisions] == ["sale", "none"]
    assert (client.fallbacks, client.waiting) == ({Kind("UNAVAILABLE", ""): 1}, 0)
    (failure,) = told
    assert (failure.call, failure.experiment, failure.decision_id) == ("DecideSlate", SHOP, "page-7")
    assert (failure.shown, failure.consequence) == ("sale, none", Consequence.FALLBACK)
    client.close()
    assert client.decide_slate(**slate({}), fallback=["sale", "none"]).decisions[0].action.id == "sale"
    with pytest.raises(NotSent, match="closed"):
        client.decide_slate(**slate({}))


def test_the_fallbacks_of_a_slate_that_may_be_committed_are_reported(make: MakeClient, server: ServerProcess) -> None:
    """Slot by slot: what was drawn for the page was seen by nobody."""
    client, patient = make(server.target, timeout=0.2), make(server.target)
    reply = patient.decide_slate(SHOP, "visitor-1", [{}, {}])
    drawn = [one.action.id for one in reply.decisions]
    with stopped(server):
        # The same id as that of a committed slate: as if the call had been committed unanswered.
        shown = client.decide_slate(SHOP, "visitor-1", [{}, {}], slate_id=reply.slate_id, fallback=drawn[::-1])
        assert ([one.action.id for one in shown.decisions], shown.slate_id) == (drawn[::-1], "")
        assert (client.fallbacks, client.waiting) == ({Kind("DEADLINE_EXCEEDED", ""): 1}, 2)
    until(lambda: client.waiting == 0, what="all is delivered")
    assert [activations(server.db, one.decision_id) for one in reply.decisions] == [[drawn[1]], [drawn[0]]]
    assert client.undelivered == {}


def test_a_cancelled_slate_is_reported(server: ServerProcess) -> None:
    """Who waits with a timeout of their own shows their fallback."""

    async def page() -> list[list[str | None]]:
        async with AsyncClient(server.target, timeout=LONG) as client:
            reply = await client.decide_slate(SHOP, "visitor-1", [{}, {}])
            shown = [one.action.id for one in reply.decisions][::-1]
            with stopped(server):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await client.decide_slate(SHOP, "visitor-1", [{}, {}], slate_id=reply.slate_id, fallback=shown)
                assert client.waiting == 2
            assert await client.flush(LONG)
            found = [activations(server.db, one.decision_id) for one in reply.decisions]
            assert found == [[one] for one in shown]
            return found

    assert asyncio.run(page())


def seen_otherwise(db: Path, shown: dict[str, str]) -> list[str]:
    """Decisions of slots that the log says were shown with another action than the page has shown."""
    sql = """
      select d.decision_id, coalesce(a.action, d.action) from decisions d
      left join activations a on a.decision = d.position
    """
    return [id_ for id_, action in rows(db, sql) if id_ in shown and shown[id_] != action]


def test_no_slot_is_learned_as_shown_where_the_page_showed_its_fallback(server: ServerProcess) -> None:
    """Half a page cannot be answered: where the answer is late, the log must know it of every slot."""
    shown: dict[str, str] = {}
    late: set[str] = set()
    stop_at = threading.Event()

    def stop_and_go() -> None:
        while not stop_at.wait(0.5):
            with stopped(server):
                stop_at.wait(0.5)

    async def page(client: AsyncClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            id_ = f"slate-{number}"
            reply = await client.decide_slate(
                SHOP, f"visitor-{number}", [{}, {}], slate_id=id_, fallback=["none", "sale"]
            )
            shown.update({f"{id_}/{place}": one.action.id for place, one in enumerate(reply.decisions)})
            late.update([] if reply.slate_id else [id_])

    async def pages() -> None:
        async with AsyncClient(server.target, timeout=0.2) as client:
            numbers = takewhile(lambda number: number < 2000 or not late, count())  # also where they are soon done
            await asyncio.gather(*(page(client, numbers) for _ in range(50)))
            stop_at.set()
            assert await client.flush(LONG)
            assert client.undelivered == {}
            assert client.fallbacks.total() == len(late)

    nudge = threading.Thread(target=stop_and_go)
    nudge.start()
    try:
        asyncio.run(pages())
    finally:
        stop_at.set()
        nudge.join()
    assert late
    assert any(id_.rpartition("/")[0] not in late for id_ in shown)
    assert seen_otherwise(server.db, shown) == []


def test_slates_go_on_through_kills_and_drains(make: MakeClient, tmp_path: Path) -> None:
    """Whatever ends the server: the page is shown, and the log has what was shown on it."""
    running = start(tmp_path / "log.db", "--grace", "0.2")
    client = make(running.target)
    over = threading.Event()
    shown: dict[str, str] = {}
    failed: list[BaseException] = []

    def page() -> None:
        try:
            while not over.is_set():
                id_ = f"slate-{len(shown)}"
                reply = client.decide_slate(SHOP, id_, [{}, {}], slate_id=id_, fallback=["none", "sale"])
                shown.update({f"{id_}/{place}": one.action.id for place, one in enumerate(reply.decisions)})
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=page)
    thread.start()
    for drained in (True, False, True):
        before = len(shown)
        until(lambda before=before: len(shown) > before + 60, what="pages are shown")  # type: ignore[misc]
        if drained:
            assert running.terminate() == 0
        else:
            running.kill()
        running = start(running.db, "--listen", running.target, "--grace", "0.2")
    over.set()
    thread.join(LONG)
    assert failed == []
    assert client.flush(LONG)
    assert client.undelivered == {}
    assert seen_otherwise(running.db, shown) == []
    end(running)


def test_rewards_and_activations_say_what_became_of_them(make: MakeClient, server: ServerProcess) -> None:
    """None, as it was, is also what a late reward got."""
    client = make(server.target)
    id_ = client.decide(SHOP, "visitor-1").decision_id
    assert client.activate(id_) == "activated"
    assert client.activate(id_, "sale") == "duplicate"
    assert client.activate_later("") == NOTHING
    assert client.activate_later(id_) == QUEUED
    assert client.flush(LONG)
    assert client.reward(id_) == "joined"
    assert client.reward_batch(
        [
            {"decision_id": id_, "name": "click", "reward_id": "one"},
            {"decision_id": id_, "name": "click", "reward_id": "one"},
            {"decision_id": ""},
            {"decision_id": "nobody"},
            {"decision_id": id_, "value": None},
        ]
    ) == ["joined", "duplicate", NOTHING, REFUSED, REFUSED]
    assert client.undelivered.total() == 2


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"value": None}, "value"),
        ({"value": math.nan}, "value"),
        ({"value": "5"}, "value"),
        ({"value": [5]}, "value"),
        ({"name": 5}, "name"),
        ({"reward_id": 5}, "reward_id"),
        ({"decision_id": 5}, "decision_id"),
        ({"correct": True, "value": 5}, "reward_id"),
        ({"retract": "yes"}, "retract"),
        ({"occurred_at": "today"}, "occurred_at"),
        ({"occurred_at": datetime(2026, 11, 29)}, "occurred_at"),  # it has no time zone
    ],
)
def test_a_wrong_reward_does_not_break_the_page(make: MakeClient, arguments: dict[str, Any], field: str) -> None:
    """The page that thanks for an order is the last that should fail; the developer hears of it."""
    told: list[Failure] = []
    client = make("127.0.0.1:1", on_error=told.append)
    assert client.reward(**{"decision_id": "id", **arguments}) == REFUSED
    assert [one.message.startswith(f"{field}: ") for one in told] == [True], told
    assert client.waiting == 0


def test_what_the_server_refuses_is_not_sent_again(make: MakeClient, server: ServerProcess) -> None:
    """It would be refused for ever."""
    client = make(server.target)
    assert client.reward("nobody") == REFUSED
    assert client.activate("nobody", "no such id!" * 20) == REFUSED
    assert client.waiting == 0
    unknown, wrong = Kind("NOT_FOUND", "DECISION_NOT_FOUND"), Kind("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert client.undelivered == {unknown: 1, wrong: 1}


def test_there_is_nothing_to_say_about_a_fallback(make: MakeClient) -> None:
    """Its decision id is empty, or None where a session has none."""
    client = make("127.0.0.1:1")
    for id_ in ("", None):
        assert client.reward(id_, "click") == NOTHING
        assert client.activate(id_) == NOTHING
    assert client.waiting == 0


def test_rewards_wait_for_a_server_that_is_down_and_count_once(make: MakeClient, tmp_path: Path) -> None:
    """An outage must not cost the purchases of its visitors, nor count one twice."""
    first = start(tmp_path / "log.db")
    client = make(first.target)
    ids = [client.decide(SHOP, f"visitor-{number}").decision_id for number in range(5)]
    first.kill()
    assert [client.reward(id_, "purchase", 7, reward_id="order") for id_ in ids] == [QUEUED] * 5
    assert client.reward_batch([{"decision_id": id_, "name": "click"} for id_ in ids]) == [QUEUED] * 5
    assert client.activate(ids[0], "sale") == QUEUED
    assert not client.flush(0.1)
    assert client.waiting == 11
    second = start(first.db, "--listen", first.target)
    until(lambda: client.waiting == 0, what="all is delivered")
    assert client.undelivered == {}
    assert [rewards(first.db, id_) for id_ in ids] == [[7.0, 1.0]] * 5  # in the order in which they came
    assert client.reward(ids[0], "purchase", 7, reward_id="order") == "duplicate"
    end(second)


def test_a_server_that_stands_still_costs_fallbacks_and_no_reward(make: MakeClient, server: ServerProcess) -> None:
    """A call without an answer may have been committed: a reward is sent again, a fallback is reported."""
    client, patient = make(server.target, timeout=0.2), make(server.target)
    reply = patient.decide(SHOP, "visitor-1")
    other = next(action for action in ACTIONS if action != reply.action.id)
    with stopped(server):
        # The same id as that of a committed decision: what a page asks for again, or what was committed unanswered.
        shown = client.decide(SHOP, "visitor-1", decision_id=reply.decision_id, fallback=other)
        assert (shown.action.id, shown.decision_id) == (other, "")
        assert client.reward(reply.decision_id, "purchase", 7) == QUEUED
        assert client.fallbacks == {Kind("DEADLINE_EXCEEDED", ""): 1}
    until(lambda: client.waiting == 0, what="all is delivered")
    assert rewards(server.db, reply.decision_id) == [7.0]
    assert activations(server.db, reply.decision_id) == [other]
    assert client.undelivered == {}


def test_a_fallback_is_reported_only_where_the_call_may_be_committed(make: MakeClient) -> None:
    """A minute without a server must not end with thousands of reports of calls that were never sent."""
    client = make("127.0.0.1:1")
    client.decide(SHOP, "visitor-1", fallback="sale")
    client.decide_batch([asked({})], fallback="sale")
    assert client.waiting == 0


def test_a_fallback_that_the_experiment_does_not_have_is_harmless(make: MakeClient, server: ServerProcess) -> None:
    """A misspelt fallback is shown all the same; the client says that the server does not know it."""
    client, patient = make(server.target, timeout=0.2), make(server.target)
    id_ = patient.decide(SHOP, "visitor-1").decision_id
    with stopped(server):
        client.decide(SHOP, "visitor-1", decision_id=id_, fallback="no such action")
    until(lambda: client.waiting == 0, what="the report is answered")
    assert client.undelivered in ({}, {Kind("NOT_FOUND", "ACTION_NOT_FOUND"): 1})


def test_a_cancelled_call_is_reported_and_its_reward_is_sent(server: ServerProcess) -> None:
    """Who waits with a timeout of their own shows their fallback; the reward must not be lost with it."""

    async def page() -> str:
        async with AsyncClient(server.target, timeout=LONG) as client:
            reply = await client.decide(SHOP, "visitor-1")
            other = next(action for action in ACTIONS if action != reply.action.id)
            with stopped(server):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await client.decide(SHOP, "visitor-1", decision_id=reply.decision_id, fallback=other)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await client.reward(reply.decision_id, "purchase", 7)
                assert client.waiting == 2
            assert await client.flush(LONG)
            assert activations(server.db, reply.decision_id) == [other]
            return reply.decision_id

    assert rewards(server.db, asyncio.run(page())) == [7.0]


def test_an_asyncio_client_serves_one_event_loop_after_the_other(server: ServerProcess) -> None:
    """It is made where the module is imported, before any loop runs, and each test of a page has a loop of its own."""
    client = AsyncClient(server.target, timeout=LONG)

    async def page() -> str:
        replies = await asyncio.gather(*(client.decide(SHOP, f"visitor-{number}") for number in range(20)))
        return replies[0].decision_id

    assert asyncio.run(page()) != asyncio.run(page())
    asyncio.run(client.close())


RESTARTS = int(os.environ.get("RESTARTS", "3"))
"""Of a server under load; an operator's day has a hundred."""

PAGES = 32
"""With a blocking client of their own; as many have one for asyncio."""

PAUSE = 0.05
"""Seconds of a page between two calls."""


def test_restarts_under_load_never_break_a_page(tmp_path: Path) -> None:
    """A drain answers, refuses or cancels; with a fallback none of these is an exception.

    Between two calls a page waits: while nobody listens calls fail at once, and pages that asked without a pause would
    leave a server on the same core nothing to start with.
    """
    running = start(tmp_path / "log.db", "--grace", "0.2")
    over = threading.Event()
    failed: list[BaseException] = []
    shown: list[str] = []

    def page(client: Client, number: int) -> None:
        try:
            while not over.is_set():
                reply = client.decide(SHOP, f"visitor-{number}", fallback="none")
                shown.append(reply.action.id)
                client.reward(reply.decision_id, "click")
                time.sleep(PAUSE)
        except BaseException as error:
            failed.append(error)

    async def pages(number: int) -> None:
        async with AsyncClient(running.target, timeout=LONG) as client:
            while not over.is_set():
                reply = await client.decide(SHOP, f"visitor-{number}", fallback="none")
                shown.append(reply.action.id)
                await client.reward(reply.decision_id, "click")
                await asyncio.sleep(PAUSE)

    async def all_pages() -> None:
        await asyncio.gather(*map(pages, range(PAGES)))

    def loop() -> None:
        try:
            asyncio.run(all_pages())
        except BaseException as error:
            failed.append(error)

    with ExitStack() as opened:
        clients = [opened.enter_context(Client(running.target, timeout=LONG)) for _ in range(PAGES)]
        threads = [threading.Thread(target=page, args=(client, number)) for number, client in enumerate(clients)]
        threads.append(threading.Thread(target=loop))
        for thread in threads:
            thread.start()
        for _ in range(RESTARTS):
            seen = len(shown)
            until(lambda seen=seen: len(shown) > seen + 200, what="pages are shown")  # type: ignore[misc]
            assert running.terminate() == 0
            running = start(running.db, "--listen", running.target, "--grace", "0.2")
        over.set()
        for thread in threads:
            thread.join(LONG)
        assert failed == []
        assert all(client.flush(LONG) for client in clients)
        assert [client.undelivered for client in clients] == [{}] * PAGES
    answered = rows(running.db, "select count(*) from decisions")[0][0]
    clicks = rows(running.db, "select count(*), count(distinct decision) from rewards")
    assert clicks[0][0] == clicks[0][1] <= answered
    assert len(shown) >= 200 * RESTARTS
    end(running)


def test_no_decision_is_learned_as_shown_where_the_page_showed_its_fallback(server: ServerProcess) -> None:
    """Where answers come late, the log must hold what visitors saw, not what was drawn for them."""
    fallbacks: set[str] = set()
    stop_at = threading.Event()

    def stop_and_go() -> None:
        while not stop_at.wait(0.5):
            with stopped(server):
                stop_at.wait(0.5)

    async def page(client: AsyncClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            id_ = f"page-{number}"
            reply = await client.decide(SHOP, f"visitor-{number}", decision_id=id_, fallback="none")
            fallbacks.update([] if reply.decision_id else [id_])

    async def pages() -> None:
        async with AsyncClient(server.target, timeout=0.2) as client:
            numbers = takewhile(lambda number: number < 2000 or not fallbacks, count())  # also where they are soon done
            await asyncio.gather(*(page(client, numbers) for _ in range(50)))
            stop_at.set()
            assert await client.flush(LONG)
            assert client.fallbacks.total() == len(fallbacks)

    nudge = threading.Thread(target=stop_and_go)
    nudge.start()
    try:
        asyncio.run(pages())
    finally:
        stop_at.set()
        nudge.join()
    assert fallbacks
    sql = """
      select d.decision_id from decisions d left join activations a on a.decision = d.position
      where d.decision_id like 'page-%' and d.action <> 'none' and a.action is null
    """
    learned_as_shown = {id_ for (id_,) in rows(server.db, sql)}
    assert learned_as_shown
    assert not learned_as_shown & fallbacks


def run_page(server: ServerProcess, *arguments: str) -> list[str]:
    """A program of `pages.py`, which must succeed; the words that it prints. The server goes on afterwards."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.pages", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * LONG, check=False)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("queued", [False, True], ids=["idle", "queued"])
def test_after_a_fork_parent_and_children_go_on(server: ServerProcess, queued: bool) -> None:
    """Servers of pages fork their workers; what waits in the parent must not be sent by each of them."""
    ids = run_page(server, "fork", server.target, str(server.process.pid) if queued else "")
    assert len(set(ids)) == 4
    assert [rewards(server.db, id_) for id_ in ids] == [[1.0]] * 4


def test_what_waits_is_delivered_when_a_program_ends(server: ServerProcess) -> None:
    """A script that never closes its client must not lose its last rewards."""
    with closing(server.client()) as other:
        id_ = other.decide(SHOP).decision_id
    run_page(server, "end", server.target, str(server.process.pid), id_)
    assert rewards(server.db, id_) == [1.0]


def test_a_closed_client_shows_fallbacks_and_loses_nothing_silently(make: MakeClient, server: ServerProcess) -> None:
    """At the end of a program some page may still be on its way."""
    client = make(server.target)
    id_ = client.decide(SHOP, "visitor-1").decision_id
    client.close()
    assert client.decide(SHOP, "visitor-1", fallback="sale").action.id == "sale"
    assert client.reward(id_) == REFUSED
    assert client.undelivered == {Kind("UNAVAILABLE", "CLOSED"): 1}
    with pytest.raises(NotSent, match="closed"):
        client.decide(SHOP, "visitor-1")


def test_what_is_left_at_the_close_is_counted_and_told(make: MakeClient, server: ServerProcess) -> None:
    """Who closes without waiting must know what that cost."""
    told: list[Failure] = []
    id_ = make(server.target).decide(SHOP, "visitor-1").decision_id
    client = make(free_target(), on_error=told.append)
    assert client.reward(id_) == QUEUED
    client.close(0.0)
    assert client.undelivered == {Kind("UNAVAILABLE", "CLOSED"): 1}
    assert [(one.consequence, one.decision_id) for one in told] == [("queued", id_), ("dropped", id_)]


def reward_call(number: int) -> Call:
    """To be told from others by its decision id."""
    return Call("Reward", pb.RewardRequest(decision_id=f"id-{number}"))


class Deaf:
    """A server that answers nothing until it is told to. sent: what it got then."""

    def __init__(self) -> None:
        self.answers = False
        self.sent: list[str] = []

    def __call__(self, call: Call) -> None:
        """One try."""
        if not self.answers:
            raise grpc.RpcError
        self.sent.append(getattr(call.request, "decision_id", ""))


def test_the_queue_is_bounded_in_number() -> None:
    """An outage of a day must not fill the memory of the page; the oldest are the least worth."""
    lost: list[Failure] = []
    server = Deaf()
    outbox = Outbox(server, size=10, age=LONG, lost=lost.append)
    for number in range(25):
        assert outbox.put(reward_call(number))
    assert len(outbox) == 10
    assert [one.decision_id for one in lost] == [f"id-{number}" for number in range(15)]
    assert {one.kind for one in lost} == {Kind("UNAVAILABLE", "QUEUE_FULL")}
    server.answers = True
    assert outbox.flush(LONG)
    assert server.sent == [f"id-{number}" for number in range(15, 25)]


def test_the_queue_is_bounded_in_age() -> None:
    """A reward that comes hours late is worth nothing to whoever learns from it."""
    lost: list[Failure] = []
    outbox = Outbox(Deaf(), size=10, age=0.3, lost=lost.append)
    for number in range(3):
        outbox.put(reward_call(number))
    until(lambda: len(lost) == 3, what="all are too old")
    assert (len(outbox), {one.kind for one in lost}) == (0, {Kind("UNAVAILABLE", "TOO_OLD")})


def test_a_message_that_the_server_cannot_take_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """One reward on which the server fails must not cost all that stand behind it."""
    monkeypatch.setattr("decider.client.outbox.LONGEST_PAUSE", 0.1)
    sent: list[str] = []
    lost: list[Failure] = []

    class Failing(grpc.RpcError):  # type: ignore[misc]
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.INTERNAL

        def details(self) -> str:
            return "internal error"

    def send(call: Call) -> None:
        id_ = getattr(call.request, "decision_id", "")
        if id_ == "id-0":
            raise Failing
        sent.append(id_)

    outbox = Outbox(send, size=10, age=LONG, lost=lost.append)
    for number in range(3):
        outbox.put(reward_call(number))
    until(lambda: len(lost) == 1, what="the first is given up")
    assert (sent, lost[0].kind, lost[0].decision_id) == (["id-1", "id-2"], Kind("INTERNAL", ""), "id-0")


def test_the_client_is_back_soon_after_its_server() -> None:
    """gRPC's own pauses between tries grow to two minutes: a page would show fallbacks long after the outage."""
    tries = {"ours": 0, "plain": 0}
    over = threading.Event()

    def refuse(listener: socket.socket, name: str) -> None:
        while not over.is_set():
            try:
                listener.accept()[0].close()
                tries[name] += 1
            except TimeoutError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as ours, socket.create_server(("127.0.0.1", 0)) as plain:
        threads = []
        for name, listener in (("ours", ours), ("plain", plain)):
            listener.settimeout(0.1)
            threads.append(threading.Thread(target=refuse, args=(listener, name)))
            threads[-1].start()
        targets = [f"127.0.0.1:{one.getsockname()[1]}" for one in (ours, plain)]
        with Client(targets[0]) as client, grpc.insecure_channel(targets[1]) as channel:

            def look() -> bool:
                client.decide(SHOP, "visitor-1", fallback="sale")
                try:
                    channel.unary_unary("/a/b")(b"", timeout=1)
                except grpc.RpcError:
                    return tries["ours"] >= 12
                return False

            until(look, what="the client has tried often")
        over.set()
        for thread in threads:
            thread.join()
    assert tries["plain"] < tries["ours"] - 3
    assert dict(RECONNECT)["grpc.max_reconnect_backoff_ms"] <= 2_000


@contextmanager
def forgetful_line(port: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """An address through which that port is reached, and what makes it carry nothing more of what is open now."""
    link, over = Link(("127.0.0.1", port), Random(1)), threading.Event()
    ports: SimpleQueue[int] = SimpleQueue()

    async def forward() -> None:
        link.flows.set()
        before = await asyncio.start_server(link.accept, "127.0.0.1", 0)
        ports.put(before.sockets[0].getsockname()[1])
        await asyncio.to_thread(over.wait)
        before.close()
        for one in [*link.connections]:
            one.reset()
        await asyncio.sleep(0.05)  # until all of them have noticed

    with ThreadPoolExecutor(1) as threads:
        forwarding = threads.submit(lambda: asyncio.run(forward()))
        try:
            yield f"127.0.0.1:{ports.get()}", lambda: link.do(FORGET, 0.0)
        finally:
            over.set()
            forwarding.result()


def test_a_connection_that_carries_nothing_is_given_up(server: ServerProcess) -> None:
    """A server without power says nothing, nor does a proxy that has forgotten the connection: the kernel would wait
    for a quarter of an hour, and every page would show its fallback."""
    with (
        forgetful_line(int(server.target.rpartition(":")[2])) as (target, forget),
        Client(target, timeout=0.5) as client,
    ):

        def is_decided() -> bool:
            return bool(client.decide(SHOP, "visitor-1", fallback="sale").decision_id)

        assert is_decided()
        forget()
        assert not is_decided()
        until(is_decided, what="the client has made another connection")


def test_after_an_outage_only_what_is_about_the_same_decision_waits() -> None:
    """A queue that is sent one by one must not grow while its server is well: it would never be empty again."""

    class Away(grpc.RpcError):  # type: ignore[misc]
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return "away"

    back, turns = threading.Event(), threading.Semaphore(0)

    def send(_: Call) -> None:
        if not back.is_set():
            raise Away
        assert turns.acquire(timeout=60)

    def about(decision: str) -> Call:
        return Call("Activate", pb.ActivateRequest(decision_id=decision))

    outbox = Outbox(send, size=10, age=LONG, lost=lambda _: None)
    for decision in ("one", "two", "three"):
        outbox.put(about(decision))
    assert outbox.goes_before(about("another"))  # nothing gets through
    back.set()
    turns.release()
    until(lambda: len(outbox) == 2, what="the first is delivered")
    assert not outbox.goes_before(about("another"))
    assert not outbox.goes_before(about("one"))
    assert outbox.goes_before(about("three"))
    turns.release(2)
    assert outbox.flush(60)
    assert not outbox.goes_before(about("three"))
