"""The `decider` command. Called by `decider/cli.py`, once it is known that click is there."""

from __future__ import annotations

import difflib
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

import click

from decider.errors import DeciderError
from decider.log.clock import LogClock
from decider.options import Finite, LogPlace, check_age, variable_of
from decider.server.allocator import keep_what_is_there
from decider.server.http.listen import Listening, listen
from decider.server.limits import raise_descriptors
from decider.server.listeners import LISTEN, OPERATE_LISTEN, WEB
from decider.server.settings import ANY_ORIGIN, Settings, site_of, split_address, table, unfit_for_address

if TYPE_CHECKING:
    from decider.server.serve import Server

EXAMPLES = """
\b
Examples:
  decider serve --experiments simulator/storefront.toml --db shop.db
  decider serve --experiments experiments/ --listen 0.0.0.0:50051 --http 0.0.0.0:9464
  decider serve --experiments experiments/ --db shop.db --workers 2
  decider serve --experiments experiments/ --db postgresql://leader@db/shop --workers 2
"""


logger = logging.getLogger(__name__)

COMMANDS = {
    "apply": "experiment_commands",
    "archive": "archive_command",
    "backup": "backup_commands",
    "check": "check_command",
    "copy": "copy_command",
    "doctor": "doctor_command",
    "explain": "explain_command",
    "forget": "forget_command",
    "get": "experiment_commands",
    "leave-out": "leave_out_command",
    "list": "experiment_commands",
    "ops": "ops_command",
    "pause": "experiment_commands",
    "relearn": "relearn_command",
    "reload": "reload_command",
    "restore": "backup_commands",
    "resume": "experiment_commands",
    "rollback": "leave_out_command",
    "token": "token_command",
    "validate": "validate_command",
}
"""Each command that is not here, with its module."""


class LateGroup(click.Group):
    """A command's module is imported when it is asked for: most take long, and `serve` should listen at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, sorted."""
        return sorted([*super().list_commands(ctx), *COMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """By its name."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"decider.server.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command


@click.group(cls=LateGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="decider")
def main() -> None:
    """A contextual bandit decision service."""


def _address(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None:
            split_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


_FILE = click.Path(path_type=Path, dir_okay=False)


def _sites(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple([site_of(value) for value in values])
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _origins(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    named = tuple([value for value in values if value != ANY_ORIGIN])
    return _sites(context, parameter, named) + ((ANY_ORIGIN,) if len(named) < len(values) else ())


def _proxies(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_network(value)
        except ValueError as error:
            raise click.BadParameter(f"{error}; name an address, or a network like 10.0.0.0/28") from error
    return values


_SPECIAL: dict[str, dict[str, Any]] = {
    "--experiments": {"type": click.Path(path_type=Path, readable=False), "multiple": True},  # no file stops a start
    "--strict": {"is_flag": True},
    "--db": {"type": LogPlace()},
    "--synchronous": {"type": click.Choice(["NORMAL", "FULL"], case_sensitive=False)},
    "--guard": {"type": click.Choice(["on", "off"])},
    "--listen": {"callback": _address},
    "--operate-listen": {"callback": _address},
    "--tls-cert": {"type": _FILE},
    "--tls-key": {"type": _FILE},
    "--tls-client-ca": {"type": _FILE},
    "--tokens": {"type": _FILE},
    "--http": {"callback": _address},
    "--web": {"callback": _address},
    "--web-origin": {"callback": _origins, "multiple": True, "metavar": "ORIGIN"},
    "--web-proxy": {"callback": _proxies, "multiple": True, "metavar": "ADDRESS"},
    "--page-writes": {"callback": _sites, "multiple": True, "metavar": "URL"},
    "--learn-interval": {"type": Finite(min=0.01, max=3600)},
    "--store-interval": {"type": Finite(min=0.1, max=86_400)},
    "--store-bytes": {"type": click.IntRange(min=0)},
    "--keep-bytes": {"type": click.IntRange(min=0)},
    "--disk-reserve": {"type": click.IntRange(min=0)},
    "--memory": {"type": click.IntRange(min=300_000_000)},
    "--max-experiments": {"type": click.IntRange(min=1)},
    "--decide-budget": {"type": Finite(min=0.001, max=3600)},
    "--workers": {"type": click.IntRange(min=0, max=256)},
    "--core": {"type": click.IntRange(min=0)},
    "--threads": {"type": click.IntRange(min=1, max=64)},
    "--max-concurrent-rpcs": {"type": click.IntRange(min=1)},
    "--max-caller-rpcs": {"type": click.IntRange(min=1)},
    "--max-streams": {"type": click.IntRange(min=1)},
    "--max-caller-streams": {"type": click.IntRange(min=1)},
    "--max-connections": {"type": click.IntRange(min=1)},
    "--max-age": {"type": Finite(min=1, max=86_400)},
    "--hung-after": {"type": Finite(min=1, max=86_400)},
    "--max-idle": {"type": Finite(min=1, max=86_400)},
    "--max-request-bytes": {"type": click.IntRange(min=1024)},
    "--max-reply-bytes": {"type": click.IntRange(min=65_536)},
    "--archive": {"type": click.Path(path_type=Path, file_okay=False)},
    "--archive-after": {"callback": check_age},
    "--grace": {"type": Finite(min=0)},
}


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for name, default, text in reversed(table()):
        command = click.option(
            name, default=default, help=text, show_default=True, show_envvar=False,
            envvar=variable_of(name), **_SPECIAL[name],
        )(command)  # fmt: skip
    return command


ALIKE = 0.75
"""How much a variable has to be like a setting to be taken for a slip: of 1, as difflib counts. Others are not told,
since Kubernetes sets names like DECIDER_PORT beside a service called `decider`."""


def misspelt(variables: Iterable[str]) -> Iterator[str]:
    """What to tell of variables that look like a setting of the server and are none: they count for nothing.

    >>> list(misspelt(["DECIDER_MEMROY", "DECIDER_MEMORY", "DECIDER_SERVICE_PORT"]))
    ['DECIDER_MEMROY is no setting, and counts for nothing; is DECIDER_MEMORY meant?']
    """
    settings = [variable_of(name) for name, _, _ in table()]
    known = {name.removeprefix("DECIDER_"): name for name in settings}
    for variable in sorted(variables):
        name = variable.removeprefix("DECIDER_")
        if name == variable or name in known:
            continue
        for alike in difflib.get_close_matches(name, known, n=1, cutoff=ALIKE):
            yield f"{variable} is no setting, and counts for nothing; is {known[alike]} meant?"


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
    """Serve decisions over gRPC, and over HTTP where --web is given, until SIGTERM or Ctrl-C.

    Every option can also come from the environment, as DECIDER_DB for --db.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    looks: SimpleQueue[int] = SimpleQueue()
    if hasattr(signal, "SIGHUP"):
        # From the first moment on, else it ends the process. Not Python's code, which a storm of signals would
        # interrupt anew each time, until there is no stack left.
        signal.signal(signal.SIGHUP, looks.put)  # type: ignore[arg-type]
    settings = Settings(**options)
    if unfit := unfit_for_address(settings):
        raise click.ClickException(unfit)
    for doubt in misspelt(os.environ):
        logger.warning("%s", doubt)
    if settings.core is not None:
        _keep_to(settings.core)
    raise_descriptors()
    try:
        listening = listen(settings.http)
        settings = replace(settings, http=listening.address)  # a given socket may be one that others reach
        if settings.workers:
            _supervise(settings, listening)
        server = _make_server(settings, listening)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.request_stop())
        served = server.start()
    except (DeciderError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if served:
        keep_what_is_there()
        _tell_addresses(settings, server.grpc_addresses, listening.address)
        while not server.wait(0.2):  # a signal that another thread receives does not wake an endless wait
            if asked := looks.qsize():
                for _ in range(asked):
                    looks.get()
                server.request_look()
    click.echo("draining")
    server.stop()
    click.echo("stopped")
    _end()


def _supervise(settings: Settings, listening: Listening) -> NoReturn:
    """Serve by several processes, of which this is the parent."""
    from decider.server.supervise import supervise  # seconds of imports, as below

    code = supervise(settings, listening, lambda addresses: _tell_addresses(settings, addresses, listening.address))
    if not code:
        click.echo("stopped")
    _end(code)


def _end(code: int = 0) -> NoReturn:
    """End the process at once: all is closed, and whoever restarts it waits for its end."""
    # The interpreter would take apart its modules (0.2 s of processor time, much longer where clients that call in vain
    # share the core) and wait for threads that may never end.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _make_server(settings: Settings, listening: Listening) -> Server:
    # Seconds of imports: callers of the HTTP port wait meanwhile.
    from decider.server.serve import Server

    return Server(settings, listening=listening.socket, clock=LogClock())


UNTOLD = ("--tokens", "--tls-key")
"""Options whose values are not printed: outputs are read by more people than these files."""


def _tell_addresses(settings: Settings, grpc: Mapping[str, str], http: str) -> None:
    for option, _, _ in table():
        value = getattr(settings, option[2:].replace("-", "_"))
        if option in UNTOLD and value is not None:
            value = "given"
        click.echo(f"  {option} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
    scheme = "http" if settings.tls_cert is None else "https"
    click.echo(f"page on {scheme}://{http}/")
    if OPERATE_LISTEN in grpc:
        click.echo(f"ExperimentService on {grpc[OPERATE_LISTEN]}")
    if WEB in grpc:
        click.echo(f"Connect and JSON on {scheme}://{grpc[WEB]}/")
    click.echo(f"gRPC on {grpc[LISTEN]}, metrics on {scheme}://{http}/metrics")
    sys.stdout.flush()
