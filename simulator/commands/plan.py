"""`simulator plan`. Added to the command in `group.py`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from decider.estimate.lift import LEVEL
from decider.log.open import LogUrl
from decider.options import LogPlace
from simulator.commands.options import (
    archive_option,
    bad_input,
    experiment_option,
    json_option,
    print_results,
    refuse_overwriting,
    with_options,
    write_json,
)
from simulator.evaluate.result import to_json
from simulator.lift.plan import DAYS, Question, find_plan, shares_of
from simulator.lift.power import POWER, Rewards
from simulator.lift.traffic import Traffic, load_traffic
from simulator.logs.errors import BadLog
from simulator.report.plan import plan_parts

EXAMPLES = """\b
Examples:
  simulator plan --rate 10% --lift 10% --traffic 20000/day
  simulator plan --mean 4.20 --deviation 31 --lift 0.50 --traffic 8000/day --days 14
  simulator plan --rate 0.03 --traffic 5000/day --holdout 5% --days 30
  simulator plan --log shop.db --experiment storefront --lift 5%"""

SMALLEST, LARGEST = 1e-12, 1e12

_DAYS_OF = {"hour": 1 / 24, "day": 1.0, "week": 7.0}


class Share(click.ParamType[float]):
    """A number between 0 and 1, or per cent.

    >>> Share().convert("10%", None, None), Share().convert("0.1", None, None)
    (0.1, 0.1)
    """

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        found = _number(str(value).removesuffix("%")) / (100.0 if str(value).endswith("%") else 1.0)
        if not 1e-6 <= found <= 1.0 - 1e-6:
            self.fail(f"{value!r} is no share between 0 and 1, like 0.1 or 10%", param, ctx)
        return found


class Positive(click.ParamType[float]):
    """A number above 0. at_least: the smallest one."""

    name = "number"

    def __init__(self, at_least: float = 0.0) -> None:
        self._least = at_least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        found = _number(str(value))
        if not max(SMALLEST, self._least) <= found <= LARGEST:
            above = f"of {self._least:g} or more" if self._least else "above 0"
            self.fail(f"{value!r} is no number {above}", param, ctx)
        return found


class PerDay(click.ParamType[float]):
    """Decisions in a day: 20000, 20000/day, 900/hour or 140000/week.

    >>> PerDay().convert("140000/week", None, None)
    20000.0
    """

    name = "traffic"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number of them."""
        number, _, unit = str(value).partition("/")
        found = _number(number) / _DAYS_OF.get(unit or "day", math.nan)
        if not SMALLEST <= found <= LARGEST:
            self.fail(f"{value!r} is no traffic, like 20000/day, 900/hour or 140000/week", param, ctx)
        return found


class LiftGiven(click.ParamType[tuple[float, bool]]):
    """In units of the reward, or in per cent of the mean reward without the policy.

    >>> LiftGiven().convert("5%", None, None), LiftGiven().convert("0.01", None, None)
    ((0.05, True), (0.01, False))
    """

    name = "lift"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, bool]:
        """The number, and whether it is relative."""
        is_relative = str(value).endswith("%")
        found = _number(str(value).removesuffix("%")) / (100.0 if is_relative else 1.0)
        if not SMALLEST <= found <= LARGEST:
            self.fail(f"{value!r} is no lift above 0, like 0.01 (in units of the reward) or 5%", param, ctx)
        return found, is_relative


def _number(text: str) -> float:
    """nan where it is none."""
    return float(text) if re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", text) else math.nan


def _finite(_: click.Context, __: click.Parameter, number: float | None) -> float | None:
    if number is not None and not abs(number) <= LARGEST:
        raise click.BadParameter(f"{number} is no finite number, like 4.20")
    return number


reward_options = with_options(
    click.option(
        "--rate", type=Share(), metavar="SHARE", help="Of decisions with a reward, without the policy: 0.1 or 10%."
    ),
    click.option(
        "--mean", type=float, callback=_finite, help="Reward of a decision without the policy, where rewards vary."
    ),
    click.option("--deviation", type=Positive(), help="Standard deviation of a decision's reward; 0 where none came."),
    click.option("--visits", type=Positive(1.0), help="Of a unit, in the time that is planned.  [default: 1]"),
    click.option(
        "--correlation", type=click.FloatRange(0, 1), help="Of the rewards of two visits of a unit.  [default: 0]"
    ),
)
"""What is known of rewards before a holdout begins."""


@click.command("plan", epilog=EXAMPLES)
@reward_options
@click.option(
    "--lift", type=LiftGiven(), metavar="LIFT", help="The smallest one worth finding: 0.01 (rewards/decision) or 10%."
)
@click.option("--traffic", type=PerDay(), metavar="N[/day]", help="Decisions, or visits: 20000/day, 140000/week.")
@click.option(
    "--holdout", "shares", type=Share(), multiple=True, metavar="SHARE", help="Of units, to plan for; may be repeated."
)
@click.option(
    "--days",
    type=Positive(),
    help=f"In which an answer is wanted; without --lift: which lift can be found then?  [default: {DAYS:g}]",
)
@click.option("--power", type=Share(), default=str(POWER), show_default=True, help="Probability to find it in time.")
@click.option("--level", type=Share(), default=str(LEVEL), show_default=True, help="Of the interval.")
@click.option(
    "--log",
    type=LogPlace(folders=True),
    metavar="LOG",
    help="Take mean, deviation, traffic and visits from a log of ours, unless they are given.",
)
@experiment_option
@archive_option
@json_option
def plan_command(
    lift: tuple[float, bool] | None,
    traffic: float | None,
    shares: tuple[float, ...],
    days: float | None,
    power: float,
    level: float,
    log: Path | LogUrl | None,
    experiment: str | None,
    archive: tuple[Path, ...],
    json_file: Path | None,
    **stated: float | None,
) -> None:
    """How large a holdout should be, how long it takes, and what it costs.

    The days are those of the interval of `simulator lift`, which holds however often you look; a test with one look
    needs fewer. Without --lift: the smallest lift that can be found within --days.
    """
    with bad_input():
        refuse_overwriting(json_file, log)
        if lift is None and days is None:
            raise BadLog("--lift: missing; name the smallest lift worth finding (--lift 10%), or the time (--days 28)")
        seen = _read(log, experiment, archive)
        rewards = _rewards(seen, **stated)
        question = Question(
            rewards=rewards,
            traffic=_traffic(traffic, seen),
            lift=None if lift is None else _absolute(lift, rewards),
            days=days or DAYS,
            shares=shares_of(shares),
            power=power,
            level=level,
            source=str(log or ""),
        )
        plan = find_plan(question)
        write_json(json_file, to_json(plan))
        print_results(plan_parts(plan))


def _read(log: Path | LogUrl | None, experiment: str | None, archive: tuple[Path, ...]) -> Traffic | None:
    if log is None:
        if experiment is not None or archive:
            raise BadLog("--experiment, --archive: belong to a log; give it, too: --log shop.db")
        return None
    seen = load_traffic(log, experiment, archive)
    Console(stderr=True).print(seen.note, soft_wrap=True, markup=False, highlight=False, emoji=False)
    return seen


def _rewards(
    seen: Traffic | None,
    *,
    rate: float | None,
    mean: float | None,
    deviation: float | None,
    visits: float | None,
    correlation: float | None,
) -> Rewards:
    """What was stated, else what the log says. Raises BadLog."""
    often, alike = visits or 1.0, correlation or 0.0
    match rate, mean, deviation:
        case float(), None, None:
            return Rewards.of_rate(rate, visits=often, correlation=alike)
        case None, float(), float():
            return Rewards(mean, deviation, visits=often, correlation=alike)
        case None, None, None:
            return _seen_rewards(seen, are_repeated=visits is not None or correlation is not None)
        case None, _, _:
            raise BadLog("--mean and --deviation: belong together; where rewards are 0 or 1, give --rate instead")
    raise BadLog("--rate: is for rewards of 0 and 1, --mean and --deviation for others; give one or the other")


def _seen_rewards(seen: Traffic | None, *, are_repeated: bool) -> Rewards:
    if seen is None:
        raise BadLog(
            "--rate: missing; give the share of rewarded decisions (--rate 10%), or mean and deviation where rewards "
            "vary (--mean 4.20 --deviation 31), or a log (--log shop.db)"
        )
    if are_repeated:
        raise BadLog("--visits, --correlation: the log says how units come back; they go with --rate or with --mean")
    return seen.rewards


def _traffic(given: float | None, seen: Traffic | None) -> float:
    if given is not None:
        return given
    if seen is None:
        raise BadLog("--traffic: missing; say how many decisions there are, like --traffic 20000/day")
    if seen.per_day is None:
        raise BadLog("--traffic: the log is shorter than a day; say how many decisions there are: --traffic 20000/day")
    return seen.per_day


def _absolute(lift: tuple[float, bool], rewards: Rewards) -> float:
    """In units of the reward. Raises BadLog."""
    number, is_relative = lift
    if is_relative and rewards.mean <= 0:
        raise BadLog(
            f"--lift {100 * number:g}%: there are no per cent of a mean of {rewards.mean:g}; give it in units of the "
            "reward, like --lift 0.5"
        )
    found = number * rewards.mean if is_relative else number
    if rewards.is_rate and rewards.mean + found >= 1.0:
        raise BadLog(
            f"--lift {found:g}: beyond a rate of {rewards.mean:g} it would reward more than every decision; give a "
            "smaller one, or --mean and --deviation where rewards are no 0 or 1"
        )
    return found
