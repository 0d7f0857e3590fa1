"""`simulator evaluate` and `simulator inspect`. Added to the command in `group.py`."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from decider.options import Finite
from simulator.commands.options import (
    REFUSED,
    bad_input,
    bar,
    json_option,
    log_options,
    print_results,
    read_log,
    refuse_overwriting,
    report_option,
    write_json,
)
from simulator.evaluate.checks.leaks import set_leaks_aside
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.importance import SECONDS, add_importance
from simulator.evaluate.parse import NAMES, logged_policies, parse
from simulator.evaluate.result import to_json
from simulator.evaluate.run import evaluate, summarize_log
from simulator.report.checks import inspection_parts
from simulator.report.evaluation import terminal_parts
from simulator.report.pages.evaluation import write_report

EVALUATE_EXAMPLES = """\b
Examples:
  simulator evaluate demo.db --experiment storefront --policy uniform --policy simulator/storefront.toml
  simulator evaluate open-bandit:random/all --policy table:bts.csv --json result.json --report report
  simulator evaluate clicks.csv --column reward=clicked --column action=banner --policy fixed:sale"""
INSPECT_EXAMPLES = """\b
Examples:
  simulator inspect demo.db --experiment storefront
  simulator inspect personalizer.dsjson --skip-bad --json findings.json"""


@click.command("evaluate", epilog=EVALUATE_EXAMPLES)
@click.argument("log")
@log_options
@click.option("--policy", "names", multiple=True, required=True, metavar="P", help=f"May be repeated. One of: {NAMES}.")
@click.option("--no-delay", is_flag=True, help="A learning policy gets every reward at once, not when the log did.")
@click.option("--importance", is_flag=True, help="How much each context field adds to a learning policy.")
@click.option(
    "--importance-seconds",
    type=Finite(0, min_open=True),
    metavar="S",
    help=f"Time for --importance: it takes the first decisions of the log, as many as fit.  [default: {SECONDS:g}]",
)
@click.option("--force", is_flag=True, help="Print numbers even where the log cannot carry the question.")
@json_option
@report_option
def evaluate_command(
    log: str,
    names: tuple[str, ...],
    no_delay: bool,
    importance: bool,
    importance_seconds: float | None,
    force: bool,
    json_file: Path | None,
    report: Path | None,
    **reading: Any,
) -> None:
    """What other policies would have earned on LOG: a path, or a data set such as open-bandit:random/men.

    A policy in a TOML file learns as it goes: every decision is scored before it is learned from, and its reward
    comes when the log knew it. Exits 1 if a policy was refused (the log cannot carry the question), 2 on bad input.
    """
    if importance_seconds is not None and not importance:
        raise click.UsageError("--importance-seconds is the time for --importance; give that, too")
    started = time.perf_counter()
    stderr = Console(stderr=True)
    with bad_input():
        refuse_overwriting(json_file, log)
        columns = set_leaks_aside(read_log(log, stderr, **reading))
        candidates = [parse(name, columns, delayed=not no_delay) for name in _with_logged(names)]
        candidates[0] = logged_policies(columns)
        with bar(stderr, "evaluating") as progress:
            done = evaluate(columns, candidates, force=force, breakdown=report is not None, on_progress=progress)
        if importance:
            fresh = {name: partial(parse, name, columns, delayed=not no_delay) for name in names}
            with bar(stderr, "importance of fields") as progress:
                done = add_importance(done, columns, fresh, seconds=importance_seconds or SECONDS, on_progress=progress)
        done = replace(done, seconds=time.perf_counter() - started)
        write_json(json_file, to_json(done))
        page = write_report(done, report) if report else None
        print_results(terminal_parts(done), report=page)
    if any(policy.refused for policy in done.policies):
        sys.exit(REFUSED)


@click.command("inspect", epilog=INSPECT_EXAMPLES)
@click.argument("log")
@log_options
@json_option
def inspect_command(log: str, json_file: Path | None, **reading: Any) -> None:
    """Check LOG without any policy: each check with a verdict in plain words.

    Exits 1 if something is so wrong that the log should not be used, 2 if it cannot be read.
    """
    with bad_input():
        refuse_overwriting(json_file, log)
        columns = set_leaks_aside(read_log(log, Console(stderr=True), **reading))
        found = summarize_log(columns, log_findings(columns))
        write_json(json_file, to_json(found))
        print_results(inspection_parts(found))
    if found.verdict == "do not use":
        sys.exit(REFUSED)


def _with_logged(names: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(["logged", *names]))
