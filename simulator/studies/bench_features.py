"""What each feature of an experiment costs on Decide: the second part of `make bench`.

A server whose experiment declares the feature and one whose experiment does not get the same requests in turns, both
learning a trickle as in `bench.py`. The first row is the cost of a feature that is off: another experiment of the same
server has it. Linux only.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.studies.bench import FROZEN, METHOD, START_UP, WARM, Contestant, check_answers
from simulator.studies.load import frames
from simulator.studies.prepared import Declare, nothing, requests, storefront_visitor, write_log
from simulator.studies.served import LOAD_CORE, SERVER_CORE, serving

ACTIONS = 10
UNITS = 20_000
"""Different units of a load; more than a server answers before the shortest `sticky` is over."""

IN_FLIGHT = 32
SLOTS = 3

Request = pb.DecideRequest | pb.DecideSlateRequest


def _same(request: pb.DecideRequest) -> pb.DecideRequest:
    return request


@dataclass(frozen=True, slots=True)
class Feature:
    """declare: turns it on. beside: what another experiment of the server has. ask: the calls of the server that has
    it. units: different ones; fewer come back sooner."""

    name: str
    declare: Declare = nothing
    beside: Declare = nothing
    ask: Callable[[pb.DecideRequest], Request] = _same
    units: int = UNITS
    decisions: int = 1


def sticky(seconds: int) -> Declare:
    """A unit keeps its decision so long."""

    def declare(made: experiment_pb2.Experiment) -> None:
        made.sticky.FromSeconds(seconds)

    return declare


def required(made: experiment_pb2.Experiment) -> None:
    """Learning from what was activated alone."""
    made.activation = experiment_pb2.ACTIVATION_REQUIRED


def rules(made: experiment_pb2.Experiment) -> None:
    """Five of the actions are for some visitors only."""
    for action in made.actions[: ACTIONS // 2]:
        action.eligible_if = 'segment in ["vip", "loyal"] || intent_stage == "cart"'


def schedule(made: experiment_pb2.Experiment) -> None:
    """One action is available from some time on."""
    made.actions[0].available_from.FromSeconds(1)


def schema(made: experiment_pb2.Experiment) -> None:
    """Every field has known values, and each is looked up."""
    for name in ("segment", "device", "channel", "location", "intent_stage"):
        made.schema.features[name].type = experiment_pb2.FEATURE_TYPE_CATEGORY
        made.schema.features[name].values.extend(f"value-{number}" for number in range(20))


def caps(made: experiment_pb2.Experiment) -> None:
    """Of one action; never reached."""
    _with_baseline(made)
    made.caps.add(action=made.actions[1].id, most=1_000).per.FromSeconds(7 * 86_400)


def budget(made: experiment_pb2.Experiment) -> None:
    """Of one action, never reached."""
    _with_baseline(made)
    made.actions[1].daily_budget = 1_000_000_000


def shares(made: experiment_pb2.Experiment) -> None:
    """Of one action at most, of another at least."""
    made.actions[1].max_share, made.actions[2].min_share = 0.3, 0.1


def _with_baseline(made: experiment_pb2.Experiment) -> None:
    made.baseline_action = made.actions[0].id


def history(made: experiment_pb2.Experiment) -> None:
    """Everything that there is to know of a unit."""
    made.history.rewards.append("click")
    made.history.decisions = made.history.last_action = made.history.last_channel = True


def attribution(made: experiment_pb2.Experiment) -> None:
    """Rewards may name the unit."""
    made.reward.attribution = experiment_pb2.ATTRIBUTION_LAST


def apprentice(made: experiment_pb2.Experiment) -> None:
    """The baseline action is served, and compared with the policy."""
    _with_baseline(made)
    made.learning = experiment_pb2.LEARNING_APPRENTICE


def all_of_them(made: experiment_pb2.Experiment) -> None:
    """What can be declared together."""
    for declare in (sticky(86_400), required, schema, caps, budget, shares, history, attribution):
        declare(made)


def slate(request: pb.DecideRequest) -> pb.DecideSlateRequest:
    """Three slots for the visitor."""
    made = pb.DecideSlateRequest(experiment=request.experiment, unit_id=request.unit_id, context=request.context)
    for _ in range(SLOTS):
        made.slots.add()
    return made


FEATURES: Sequence[Feature] = (
    Feature("all of them off, on in another experiment", beside=all_of_them),
    Feature('`activation = "required"`', required),
    Feature("`sticky`, every unit new", sticky(2)),
    Feature("`sticky`, every unit comes back", sticky(86_400), units=1_000),
    Feature("`eligible_if` of 5 of 10 actions", rules),
    Feature("`available_from` of one action", schedule),
    Feature("`caps`, not reached, every unit new", caps),
    Feature("`daily_budget`, not reached", budget),
    Feature("`min_share`, `max_share`", shares),
    Feature("`history`, every unit new", history),
    Feature("`history`, of 20 decisions", history, units=100),
    Feature("`attribution`", attribution),
    Feature('`learning = "apprentice"`', apprentice),
    Feature("`schema` of five fields, each value unknown", schema),
    Feature(f"`DecideSlate` of {SLOTS}, each slot", ask=slate, decisions=SLOTS),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of the server's processor for a decision: with the feature, without, and the medians of the rounds'
    differences and ratios."""

    on: float
    off: float
    difference: float
    ratio: float


@contextmanager
def contestants(feature: Feature, folder: Path, seconds: float) -> Iterator[tuple[Contestant, Contestant]]:
    """(with the feature, without), ready."""
    asked = requests(storefront_visitor, actions=ACTIONS, count=feature.units)
    with ExitStack() as opened:
        both = [
            opened.enter_context(_server(one, asked, folder / f"{number}.db", seconds))
            for number, one in enumerate((feature, Feature("without", units=feature.units)))
        ]
        yield both[0], both[1]


@contextmanager
def _server(feature: Feature, asked: Sequence[pb.DecideRequest], db: Path, seconds: float) -> Iterator[Contestant]:
    write_log(
        db, storefront_visitor, actions=ACTIONS, window=FROZEN, trickle=seconds + START_UP,
        declare=feature.declare, beside=feature.beside,
    )  # fmt: skip
    sent = [feature.ask(request) for request in asked]
    method = "DecideSlate" if feature.ask is slate else "Decide"
    calls = [frames(METHOD + method, message.SerializeToString()) for message in sent]
    with serving(db, cores=SERVER_CORE) as server:
        check_answers(server.port, method, sent[0])
        yield Contestant(server.pid, server.port, calls, feature.decisions, IN_FLIGHT, 1)


def measure(feature: Feature, folder: Path, *, seconds: float, rounds: int) -> Cost:
    """Both, in turns."""
    with contestants(feature, folder, 2 * (rounds * seconds + WARM)) as both:
        for one in both:
            one.measure(WARM)
        pairs = [(both[0].measure(seconds).cpu, both[1].measure(seconds).cpu) for _ in range(rounds)]
    median = statistics.median
    return Cost(
        on=median(on for on, _ in pairs),
        off=median(off for _, off in pairs),
        difference=median(on - off for on, off in pairs),
        ratio=median(on / off for on, off in pairs),
    )


def heading() -> str:
    """The first two lines of the table, in Markdown."""
    return "| feature | with it, cpu us | without | more | ratio |\n|---|--:|--:|--:|--:|"


def line(feature: Feature, cost: Cost) -> str:
    """A row of the table."""
    return f"| {feature.name} | {cost.on:,.0f} | {cost.off:,.0f} | {cost.difference:+,.0f} | {cost.ratio:.2f} |"


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="Seconds of each load.")
@click.option("--rounds", default=5, show_default=True, help="Rounds of each comparison.")
@click.option("--only", default="", help="Only the features with this in their name.")
@click.option("--quick", is_flag=True, help="One round of a second: is everything there?")
def main(seconds: float, rounds: int, only: str, quick: bool) -> None:
    """What each feature costs on Decide, as processor time with and without it, in turns."""
    seconds, rounds = (1.0, 1) if quick else (seconds, rounds)
    os.sched_setaffinity(0, LOAD_CORE)
    click.echo(f"{rounds} rounds of {seconds:g} s each, medians\n\n{heading()}")
    features = [feature for feature in FEATURES if only in feature.name]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for feature in progress.track(features, description="features"):
            with tempfile.TemporaryDirectory() as folder:
                click.echo(line(feature, measure(feature, Path(folder), seconds=seconds, rounds=rounds)))


if __name__ == "__main__":
    main()
