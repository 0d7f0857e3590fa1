"""`decider validate`. Added to the command in `command.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from decider.errors import DeciderError, InvalidArgument, Violation
from decider.experiment.combinations import combination_warnings
from decider.experiment.schema import from_message, parse_toml
from decider.learn.limits import Limits
from decider.learn.versions import Versions
from decider.log.open import open_in_memory
from decider.log.protocol import EventLog, NewVersion
from decider.options import Finite
from decider.policy.work import Budget
from decider.server.file_looks import find_files, look_at
from decider.server.json_output import echo_json, json_option
from decider.server.settings import Settings
from decider.text import count
from decider.types import ExperimentId, now

EXAMPLES = """
\b
Examples:
  decider validate simulator/storefront.toml
  decider validate experiments/ --json
"""

_DEFAULTS = Settings()


@dataclass(slots=True)
class Checked:
    """What is wrong with a file, and what in it may surprise. experiment: empty where it cannot be read."""

    file: Path
    experiment: ExperimentId = ExperimentId("")
    errors: Sequence[Violation] = field(default_factory=list)
    warnings: Sequence[str] = field(default_factory=list)


@click.command("validate", epilog=EXAMPLES)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--decide-budget", type=Finite(min=0.001, max=3600), default=_DEFAULTS.decide_budget, show_default=True,
    help="Seconds that a decision may take, as on the server.",
)  # fmt: skip
@click.option(
    "--max-experiments", type=click.IntRange(min=1), default=_DEFAULTS.max_experiments, show_default=True,
    help="Experiments that the server takes.",
)  # fmt: skip
@click.option(
    "--memory", type=click.IntRange(min=300_000_000), default=_DEFAULTS.memory, show_default=True,
    help="Bytes of memory that the server may take.",
)  # fmt: skip
@json_option
def validate_command(
    files: tuple[Path, ...], decide_budget: float, max_experiments: int, memory: int, as_json: bool
) -> None:
    """Check experiment files as a new server would, without one. FILE may be a folder of `*.toml` files.

    All that `decider apply` refuses is named with its field, and so are ids that two files define. Warnings do no harm
    to the exit code. What depends on the version that runs already is checked by `decider apply --dry-run`.

    Exits 0 where all files are right, 1 where one is wrong.

    \b
    --json: valid, files (each with file, experiment, errors (each with field, description) and warnings).
    """
    checked = check_files(files, Limits(max_experiments, memory), Budget(decide_budget))
    valid = not any(one.errors for one in checked)
    if as_json:
        echo_json({"valid": valid, "files": list(map(_content, checked))})
    else:
        for line in _lines(checked):
            click.echo(line)
    sys.exit(0 if valid else 1)


def check_files(paths: Iterable[Path], limits: Limits, budget: Budget) -> list[Checked]:
    """Each file by itself and beside those before it."""
    log = open_in_memory()
    versions = Versions(log, limits, budget)
    defined: dict[ExperimentId, Path] = {}
    return [_check(path, log, versions, defined) for path in dict.fromkeys(find_files([*paths]))]


def _check(path: Path, log: EventLog, versions: Versions, defined: dict[ExperimentId, Path]) -> Checked:
    checked = Checked(path)
    try:
        look = look_at(path)
        if look.problem:
            checked.errors = [Violation("file", look.problem)]
            return checked
        experiment = from_message(parse_toml(look.text, str(path)))
        checked.experiment = experiment.id
        if experiment.id in defined:
            problem = f"{experiment.id!r} is defined by {defined[experiment.id]} already; name one of them otherwise"
            checked.errors = [Violation("id", problem)]
            return checked
        defined[experiment.id] = path
        checked.warnings = list(combination_warnings(experiment, now()))
        versions.apply(experiment, validate_only=True)
        log.append([NewVersion(experiment, 1)])  # it counts for the limits of those that follow
    except InvalidArgument as error:
        checked.errors = error.violations
    except DeciderError as error:
        checked.errors = [Violation("experiment", str(error))]
    return checked


def _content(checked: Checked) -> dict[str, object]:
    return {
        "file": str(checked.file),
        "experiment": checked.experiment or None,
        "errors": [{"field": one.field, "description": one.description} for one in checked.errors],
        "warnings": list(checked.warnings),
    }


def _lines(checked: Sequence[Checked]) -> Iterator[str]:
    for one in checked:
        for error in one.errors:
            yield f"{one.file}: error: {error}"
        for warning in one.warnings:
            yield f"{one.file}: warning: {warning}"
        if not one.errors:
            yield f"{one.file}: experiment {one.experiment} is right"
    wrong = sum(bool(one.errors) for one in checked)
    if not checked:
        yield "there is no *.toml file"
    elif wrong:
        yield f"{count(wrong)} of {count(len(checked))} files are wrong"
