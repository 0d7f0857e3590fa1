"""`decider get`, `apply`, `pause` and `resume`: a running server's experiments, over gRPC. Added to the command in
`command.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import grpc

from decider.channel import credentials_of, open_channel
from decider.errors import DeciderError
from decider.experiment.schema import file_content_of
from decider.experiment.toml_text import toml_text
from decider.experiment_files import read_toml
from decider.options import credential_options
from decider.server.origin_options import origin_options
from decider.v1 import experiment_service_pb2 as pb
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub

Command = TypeVar("Command", bound=Callable[..., None])

TIMEOUT = 30.0
"""Seconds that a call may take; a definition may be megabytes long."""

EXAMPLES = """
\b
Examples:
  decider get storefront > storefront.toml
  decider apply storefront.toml --note "a tenth of the visitors as a control group"
  decider pause storefront --note "the tracking pixel is broken"
"""


def _target(command: Command) -> Command:
    option = click.option(
        "--target", default="127.0.0.1:50051", show_default=True, metavar="HOST:PORT", help="The server's gRPC address."
    )
    return option(credential_options(command))


@contextmanager
def _service(target: str) -> Iterator[Any]:
    """The server's experiments; what it refuses, and whatever else fails, as an error of the command."""
    try:
        with open_channel(target, credentials_of()) as channel:
            yield ExperimentServiceStub(channel)  # type: ignore[no-untyped-call]
    except grpc.RpcError as error:
        advice = ""
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            advice = "; is a server there? --target names another address"
        raise click.ClickException(f"{target}: {error.code().name}: {error.details()}{advice}") from error
    except (DeciderError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@click.command("get", epilog=EXAMPLES)
@click.argument("experiment")
@_target
def get_command(experiment: str, target: str) -> None:
    """Write EXPERIMENT as it serves, as an experiment file on standard output; `decider apply` takes it back.

    It is complete: defaults are written out, too. Above it stands, as comments, which version it is and who made it.
    """
    with _service(target) as service:
        found = service.GetExperiment(pb.GetExperimentRequest(id=experiment), timeout=TIMEOUT).experiment
        text = toml_text(file_content_of(found.experiment))
    click.echo(f"# version {found.version}, {found.applied_at.ToJsonString()}{_made(found)}\n{text}", nl=False)
    if found.HasField("waiting"):
        click.echo(f"version {found.waiting.version} waits until its policy has learned the log", err=True)


def _made(version: pb.VersionedExperiment) -> str:
    """Who made it, as comments."""
    said = [part for part in (version.author and f"by {version.author}", version.source) if part]
    return "".join([f", {part}" for part in said]) + "".join([f"\n# {line}" for line in version.note.splitlines()])


@click.command("apply", epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_target
@click.option("--dry-run", is_flag=True, help="Check it and say what would change; change nothing.")
@origin_options
def apply_command(file: Path, target: str, dry_run: bool, author: str, note: str) -> None:
    """Make the experiment in FILE run on a server, and say what has changed.

    A FILE that does not say `state` leaves a pause or an end as it is.
    """
    with _service(target) as service:
        request = pb.ApplyExperimentRequest(experiment=read_toml(file), validate_only=dry_run, author=author, note=note)
        reply = service.ApplyExperiment(request, timeout=TIMEOUT)
    version = f"experiment {reply.applied.experiment.id}, version {reply.applied.version}"
    if not reply.changed:
        click.echo(f"{version}: nothing has changed")
        return
    click.echo(f"would be {version}:" if dry_run else f"{version}:")
    for words in reply.changes:
        click.echo(f"  {words}")
    if reply.waits:
        click.echo("it serves once its policy has learned the log; what ran before serves until then")


@click.command("pause", epilog=EXAMPLES)
@click.argument("experiment")
@_target
@origin_options
def pause_command(experiment: str, target: str, author: str, note: str) -> None:
    """Refuse decisions of EXPERIMENT until it is resumed; rewards are still taken."""
    with _service(target) as service:
        request = pb.PauseExperimentRequest(id=experiment, author=author, note=note)
        version = service.PauseExperiment(request, timeout=TIMEOUT).experiment
    click.echo(f"experiment {experiment} is paused: version {version.version}")


@click.command("resume", epilog=EXAMPLES)
@click.argument("experiment")
@_target
@origin_options
def resume_command(experiment: str, target: str, author: str, note: str) -> None:
    """End the pause of EXPERIMENT; where there is none, its fallback to the baseline after a guardrail was crossed."""
    with _service(target) as service:
        request = pb.ResumeExperimentRequest(id=experiment, author=author, note=note)
        version = service.ResumeExperiment(request, timeout=TIMEOUT).experiment
    waits = ", and a newer one waits for its policy" if version.HasField("waiting") else ""
    crossed = [one.reward for one in version.experiment.guardrails if one.HasField("crossed_at")]
    if crossed:
        waits = f"; everybody still gets the baseline, since the guardrail {crossed[0]} was crossed: resume it again"
    click.echo(f"experiment {experiment} decides: version {version.version}{waits}")
