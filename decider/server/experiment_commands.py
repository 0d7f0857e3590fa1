"""`decider list`, `get`, `apply`, `pause` and `resume`: a running server's experiments, over gRPC; `list` and `get`
read them from a log, too. Added to the command in `command.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import grpc

from decider.channel import credentials_of, open_channel
from decider.errors import DeciderError
from decider.experiment.origin import UNKNOWN
from decider.experiment.schema import file_content_of
from decider.experiment.toml_text import toml_text
from decider.experiment_files import read_toml
from decider.log.open import LogUrl, open_reader
from decider.options import LogPlace, credential_options
from decider.server.convert import version_message
from decider.server.json_output import echo_json, json_option
from decider.server.origin_options import origin_options
from decider.serving.lineup import Lineup
from decider.text import cells, printable, shortened
from decider.types import START
from decider.v1 import experiment_pb2
from decider.v1 import experiment_service_pb2 as pb
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub

Command = TypeVar("Command", bound=Callable[..., None])

TIMEOUT = 30.0
"""Seconds that a call may take; a definition may be megabytes long."""

ADVICE = {
    grpc.StatusCode.UNAVAILABLE: (
        "; is a server there? --target names another address; one that takes TLS only needs --ca, "
        "and with --tls-client-ca also --client-cert and --client-key"
    ),
    grpc.StatusCode.UNAUTHENTICATED: "; --token-file names the file of your token",
}
"""What to try, behind what a call was answered."""

EXAMPLES = """
\b
Examples:
  decider list
  decider list --db shop.db --json
  decider get storefront > storefront.toml
  decider get storefront --db shop.db
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
        advice = ADVICE.get(error.code(), "")
        raise click.ClickException(f"{target}: {error.code().name}: {error.details()}{advice}") from error
    except (DeciderError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@click.command("list", epilog=EXAMPLES)
@_target
@click.option("--db", type=LogPlace(), help="Those of this log, without a server.")
@json_option
def list_command(target: str, db: Path | LogUrl | None, as_json: bool) -> None:
    """Name the experiments that have not ended: version, state, policy, holdout, who changed them last, and when.

    With --db those that have ended are listed, too: a server keeps nothing of them in memory.

    \b
    --json: experiments, by id, each with experiment, version, state (active, paused or ended), policy, holdout,
    changed_at, author, source, note and waiting (the newer version that does not serve yet, or null).
    """
    if db is not None:
        found = _in_log(db)
    else:
        with _service(target) as service:
            found = list(_on_server(service))
    if as_json:
        echo_json({"experiments": [{**_said_of(one), "waiting": one.waiting.version or None} for one in found]})
        return
    for line in _table([HEAD, *map(_row, found)]):
        click.echo(line)


HEAD = ("experiment", "version", "state", "policy", "holdout", "changed", "by")

WIDEST = 40
"""Columns of a name in a table."""


def _on_server(service: Any) -> Iterator[pb.VersionedExperiment]:
    token = ""
    while True:
        page = service.ListExperiments(pb.ListExperimentsRequest(page_token=token), timeout=TIMEOUT)
        yield from page.experiments
        token = page.next_page_token
        if not token:
            return


def _in_log(db: Path | LogUrl) -> list[pb.VersionedExperiment]:
    try:
        with closing(open_reader(db)) as log:
            lineup = Lineup(log)
            lineup.follow(log.follow(START))
            origins = log.origins([one.serving.position for one in lineup.values()])
            return [
                version_message(
                    log.version_at(one.serving.position),
                    waiting=pb.WaitingVersion(version=one.waiting.number) if one.waiting else None,
                    origin=origins.get(one.serving.position, UNKNOWN),
                )
                for _, one in sorted(lineup.items())
            ]
    except DeciderError as error:
        raise click.ClickException(str(error)) from error


def _said_of(version: pb.VersionedExperiment) -> dict[str, Any]:
    experiment = version.experiment
    return {
        "experiment": experiment.id,
        "version": version.version,
        "state": _state(experiment),
        "policy": experiment.policy.WhichOneof("algorithm"),
        "holdout": experiment.holdout,
        "changed_at": version.applied_at.ToJsonString(),
        "author": version.author,
        "source": version.source,
        "note": version.note,
    }


def _state(experiment: experiment_pb2.Experiment) -> str:
    name: str = experiment_pb2.ExperimentState.Name(experiment.state)
    return name.removeprefix("EXPERIMENT_STATE_").lower()


def _row(version: pb.VersionedExperiment) -> tuple[str, ...]:
    said = _said_of(version)
    number = str(version.version) + (f" ({version.waiting.version} waits)" if version.HasField("waiting") else "")
    by = ", ".join([part for part in (version.author, version.source) if part])
    return (
        shortened(said["experiment"], WIDEST), number, said["state"], said["policy"], f"{said['holdout']:g}",
        version.applied_at.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ"), printable(by),
    )  # fmt: skip


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Lines with columns of one width."""
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [text + " " * (width - cells(text)) for text, width in zip(row, widths, strict=True)]
        yield "  ".join(padded).rstrip()


@click.command("get", epilog=EXAMPLES)
@click.argument("experiment")
@_target
@click.option("--db", type=LogPlace(), help="As this log has it, without a server.")
@json_option
def get_command(experiment: str, target: str, db: Path | LogUrl | None, as_json: bool) -> None:
    """Write EXPERIMENT as it serves, as an experiment file on standard output; `decider apply` takes it back.

    It is complete: defaults are written out, too. Above it stands, as comments, which version it is and who made it.

    \b
    --json: experiment, version, state, policy, holdout, changed_at, author, source, note, waiting (the newer version
    that does not serve yet, or null) and definition (what the file would hold, with the file's names).
    """
    found = _one_on_server(target, experiment) if db is None else _one_in_log(db, experiment)
    content = file_content_of(found.experiment)
    if as_json:
        echo_json({**_said_of(found), "waiting": found.waiting.version or None, "definition": content})
        return
    text = toml_text(content)
    click.echo(f"# version {found.version}, {found.applied_at.ToJsonString()}{_made(found)}\n{text}", nl=False)
    if found.HasField("waiting"):
        click.echo(f"version {found.waiting.version} waits until its policy has learned the log", err=True)


def _one_on_server(target: str, id_: str) -> pb.VersionedExperiment:
    with _service(target) as service:
        found: pb.VersionedExperiment = service.GetExperiment(
            pb.GetExperimentRequest(id=id_), timeout=TIMEOUT
        ).experiment
        return found


def _one_in_log(db: Path | LogUrl, id_: str) -> pb.VersionedExperiment:
    known = {one.experiment.id: one for one in _in_log(db)}
    if id_ not in known:
        names = ", ".join(known) or "none"
        raise click.ClickException(f"{db}: there is no experiment {id_!r}; there is {shortened(names, 500)}")
    return known[id_]


def _made(version: pb.VersionedExperiment) -> str:
    """Who made it, as comments."""
    said = [part for part in (version.author and f"by {version.author}", version.source) if part]
    return "".join([f", {part}" for part in said]) + "".join([f"\n# {line}" for line in version.note.splitlines()])


@click.command("apply", epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_target
@click.option("--dry-run", is_flag=True, help="Check it and say what would change; change nothing.")
@origin_options
@json_option
def apply_command(file: Path, target: str, dry_run: bool, author: str, note: str, as_json: bool) -> None:
    """Make the experiment in FILE run on a server, and say what has changed.

    A FILE that does not say `state` leaves a pause or an end as it is.

    \b
    --json: experiment, version, state, changed (whether it is a new version), changes (in words), waits (whether it
    serves only once its policy has learned the log) and dry_run.
    """
    with _service(target) as service:
        request = pb.ApplyExperimentRequest(experiment=read_toml(file), validate_only=dry_run, author=author, note=note)
        reply = service.ApplyExperiment(request, timeout=TIMEOUT)
    if as_json:
        told = {"changed": reply.changed, "changes": [*reply.changes], "waits": reply.waits, "dry_run": dry_run}
        echo_json({**_changed(reply.applied), **told})
        return
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
@json_option
def pause_command(experiment: str, target: str, author: str, note: str, as_json: bool) -> None:
    """Refuse decisions of EXPERIMENT until it is resumed; rewards are still taken.

    \b
    --json: experiment, version, state, waiting (the newer version that does not serve yet, or null), fallback (the
    reward whose guardrail was crossed, so that everybody gets the baseline, or null).
    """
    with _service(target) as service:
        request = pb.PauseExperimentRequest(id=experiment, author=author, note=note)
        version = service.PauseExperiment(request, timeout=TIMEOUT).experiment
    if as_json:
        echo_json(_of_state(version))
        return
    click.echo(f"experiment {experiment} is paused: version {version.version}")


@click.command("resume", epilog=EXAMPLES)
@click.argument("experiment")
@_target
@origin_options
@json_option
def resume_command(experiment: str, target: str, author: str, note: str, as_json: bool) -> None:
    """End the pause of EXPERIMENT; where there is none, its fallback to the baseline after a guardrail was crossed.

    \b
    --json: experiment, version, state, waiting (the newer version that does not serve yet, or null), fallback (the
    reward whose guardrail was crossed, so that everybody gets the baseline, or null).
    """
    with _service(target) as service:
        request = pb.ResumeExperimentRequest(id=experiment, author=author, note=note)
        version = service.ResumeExperiment(request, timeout=TIMEOUT).experiment
    crossed = _fallback(version)
    if as_json:
        echo_json(_of_state(version))
        return
    waits = ", and a newer one waits for its policy" if version.HasField("waiting") else ""
    if crossed:
        waits = f"; everybody still gets the baseline, since the guardrail {crossed} was crossed: resume it again"
    click.echo(f"experiment {experiment} decides: version {version.version}{waits}")


def _changed(version: pb.VersionedExperiment) -> dict[str, Any]:
    return {
        "experiment": version.experiment.id,
        "version": version.version,
        "state": _state(version.experiment),
    }


def _of_state(version: pb.VersionedExperiment) -> dict[str, Any]:
    return {**_changed(version), "waiting": version.waiting.version or None, "fallback": _fallback(version)}


def _fallback(version: pb.VersionedExperiment) -> str | None:
    crossed = (one.reward for one in version.experiment.guardrails if one.HasField("crossed_at"))
    return next(crossed, None)
