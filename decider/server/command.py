"""The `decider` command. Called by `decider/cli.py`, once it is known that click is there."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from decider.errors import DeciderError
from decider.log.clock import LogClock
from decider.options import Finite
from decider.server.archive_command import archive_command, check_age
from decider.server.experiment_commands import apply_command, get_command, pause_command, resume_command
from decider.server.explain_command import explain_command
from decider.server.forget_command import forget_command
from decider.server.leave_out_command import leave_out_command, rollback_command
from decider.server.ops_command import ops_command
from decider.server.relearn_command import relearn_command
from decider.server.serve import Server
from decider.server.settings import Settings, join_address, split_address, table
from decider.server.token_command import token_command

EXAMPLES = """
\b
Examples:
  decider serve --experiments simulator/storefront.toml --db shop.db
  decider serve --experiments experiments/ --listen 0.0.0.0:50051 --http 0.0.0.0:9464
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="decider")
def main() -> None:
    """A contextual bandit decision service."""


main.add_command(forget_command)
main.add_command(explain_command)
main.add_command(archive_command)
main.add_command(relearn_command)
main.add_command(leave_out_command)
main.add_command(rollback_command)
main.add_command(get_command)
main.add_command(apply_command)
main.add_command(pause_command)
main.add_command(resume_command)
main.add_command(ops_command)
main.add_command(token_command)


def _address(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        split_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


_FILE = click.Path(path_type=Path, dir_okay=False)

_SPECIAL: dict[str, dict[str, Any]] = {
    "--experiments": {"type": click.Path(path_type=Path, exists=True), "multiple": True},
    "--db": {"type": click.Path(path_type=Path, dir_okay=False)},
    "--synchronous": {"type": click.Choice(["NORMAL", "FULL"], case_sensitive=False)},
    "--guard": {"type": click.Choice(["on", "off"])},
    "--listen": {"callback": _address},
    "--tls-cert": {"type": _FILE},
    "--tls-key": {"type": _FILE},
    "--tls-client-ca": {"type": _FILE},
    "--tokens": {"type": _FILE},
    "--http": {"callback": _address},
    "--learn-interval": {"type": Finite(min=0.01, max=3600)},
    "--store-interval": {"type": Finite(min=0.1, max=86_400)},
    "--store-bytes": {"type": click.IntRange(min=0)},
    "--keep-bytes": {"type": click.IntRange(min=0)},
    "--disk-reserve": {"type": click.IntRange(min=0)},
    "--memory": {"type": click.IntRange(min=300_000_000)},
    "--max-experiments": {"type": click.IntRange(min=1)},
    "--decide-budget": {"type": Finite(min=0.001, max=3600)},
    "--core": {"type": click.IntRange(min=0)},
    "--threads": {"type": click.IntRange(min=1, max=64)},
    "--max-concurrent-rpcs": {"type": click.IntRange(min=1)},
    "--max-caller-rpcs": {"type": click.IntRange(min=1)},
    "--max-streams": {"type": click.IntRange(min=1)},
    "--max-caller-streams": {"type": click.IntRange(min=1)},
    "--max-request-bytes": {"type": click.IntRange(min=1024)},
    "--archive": {"type": click.Path(path_type=Path, file_okay=False)},
    "--archive-after": {"callback": check_age},
    "--grace": {"type": Finite(min=0)},
}


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for name, default, text in reversed(table()):
        command = click.option(
            name, default=default, help=text, show_default=True, show_envvar=False,
            envvar=f"DECIDER_{name[2:].replace('-', '_').upper()}", **_SPECIAL[name],
        )(command)  # fmt: skip
    return command


def _keep_to(core: int) -> None:
    """All threads of this process on one core. Threads that pass the interpreter around between cores wait for it."""
    if not hasattr(os, "sched_setaffinity"):
        raise click.BadParameter("is possible on Linux only", param_hint="--core")
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        cores = sorted(os.sched_getaffinity(0))
        raise click.BadParameter(f"there is no core {core}; there are {cores}", param_hint="--core") from error


@main.command(epilog=EXAMPLES)
@_options
def serve(**options: Any) -> None:
    """Serve decisions over gRPC until SIGTERM or Ctrl-C.

    Every option can also come from the environment, as DECIDER_DB for --db.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    settings = Settings(**options)
    if settings.core is not None:
        _keep_to(settings.core)
    server = Server(settings, clock=LogClock())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.request_stop())
    try:
        served = server.start()
    except (DeciderError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if served:
        _tell_addresses(server, settings)
        while not server.wait(0.5):  # a signal that another thread receives does not wake an endless wait
            pass
    click.echo("draining")
    server.stop()
    click.echo("stopped")


def _tell_addresses(server: Server, settings: Settings) -> None:
    for option, _, _ in table():
        value = getattr(settings, option[2:].replace("-", "_"))
        if (
            option in ("--tokens", "--tls-key") and value is not None
        ):  # outputs are read by more people than these files
            value = "given"
        click.echo(f"  {option} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
    grpc = join_address(split_address(settings.listen)[0], server.port)
    http = join_address(split_address(settings.http)[0], server.http_port)
    click.echo(f"gRPC on {grpc}, metrics on {'http' if settings.tls_cert is None else 'https'}://{http}/metrics")
    sys.stdout.flush()
