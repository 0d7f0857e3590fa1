"""The `simulator` command."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import click
from rich.console import Console
from rich.progress import Progress

from decider.errors import DeciderError
from decider.log.open import open_reader
from decider.log.protocol import Damage, LogReader
from simulator import demo as storefront_demo
from simulator.verify import Difference, refuse_imported, verify

DB = click.Path(path_type=Path, dir_okay=False)


class LateGroup(click.Group):
    """Commands that need SciPy, Arrow or plots are imported when they are asked for: others start at once."""

    LATE: ClassVar = {
        "compare": "simulator.compare.cli:compare_command",
        "inspect": "simulator.evaluate.cli:inspect_command",
        "evaluate": "simulator.evaluate.cli:evaluate_command",
        "import": "simulator.logs.cli:import_command",
        "export": "simulator.logs.cli:export_command",
        "drive": "simulator.drive.cli:drive_command",
        "run": "simulator.run.cli:run_command",
        "worlds": "simulator.worlds.cli:worlds_command",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, sorted."""
        return sorted([*super().list_commands(ctx), *self.LATE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """By its name."""
        if cmd_name not in self.LATE:
            return super().get_command(ctx, cmd_name)
        module, _, name = self.LATE[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(
    cls=LateGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 120,
        "auto_envvar_prefix": "SIMULATOR",
    },
)
def main() -> None:
    """Worlds, datasets, replay and evaluation for the decision service.

    Every option can also come from the environment, as SIMULATOR_DEMO_LISTEN for `demo --listen`.
    """


@main.command("verify", epilog="\b\nExample:\n  simulator verify demo.db")
@click.argument("db", type=DB)
def verify_command(db: Path) -> None:
    """Recompute every decision of the log DB with the code that serves, and compare.

    First the log is held against its own checksums: whatever was changed, is missing or was added since it was
    acknowledged is told with its place. Prints `N of N decisions equal`; exits 1 with the first difference otherwise,
    2 if the log is damaged, cannot be read, or was made by learning code that this build does not have.
    """
    try:
        with closing(open_reader(db)) as log, Progress(console=Console(stderr=True), transient=True) as progress:
            refuse_imported(log)
            damages = _checked(log, progress)
            task = progress.add_task("decisions", total=log.count_decisions())
            result = verify(log, on_decision=lambda: progress.advance(task))
    except DeciderError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    click.echo(f"{result.equal} of {result.decisions} decisions equal")
    if result.first is not None:
        click.echo(_told(result.first))
        sys.exit(1)
    if damages:
        sys.exit(2)


def _checked(log: LogReader, progress: Progress) -> Sequence[Damage]:
    """What the log's checksums say, told at once: what comes after may fail on the same damage."""
    task = progress.add_task("entries", total=log.head().position)
    damages = log.check(lambda position: progress.update(task, completed=position))
    for damage in damages:
        click.echo(f"damaged: {damage}")
    later = log.chained_later()
    if later is not None:
        click.echo(f"entries up to position {later.position} got their checksums at an upgrade, later than written")
    return damages


def _told(difference: Difference) -> str:
    logged = difference.logged
    return (
        f"first difference at position {logged.position}, decision {logged.decision.decision_id}: {difference.what}\n"
        f"  logged:     {logged.decision}\n  recomputed: {difference.recomputed}"
    )


@main.command(epilog="\b\nExamples:\n  simulator demo\n  simulator demo --exit --fresh")
@click.option("--db", type=DB, default=Path("demo.db"), show_default=True, help="The demo's log.")
@click.option("--listen", default="127.0.0.1:50051", show_default=True, help="HOST:PORT of the demo's server.")
@click.option("--http", default="127.0.0.1:9464", show_default=True, help="HOST:PORT of its metrics.")
@click.option("--visitors", type=click.IntRange(min=1), default=15_000, show_default=True, help="Visits to simulate.")
@click.option("--exit", "exit_", is_flag=True, help="End after the table.")
@click.option("--fresh", is_flag=True, help="Forget earlier runs.")
def demo(db: Path, listen: str, http: str, visitors: int, exit_: bool, fresh: bool) -> None:
    """A server, a simulated storefront over real gRPC, and a table of what was learned."""
    console = Console()
    try:
        if fresh:
            storefront_demo.remove(db)
        with storefront_demo.server(db, listen=listen, http=http) as server:
            metrics = f"http://{server.http}/metrics"
            console.print(f"Decide: grpc://{server.target}  metrics: {metrics}  log: {db}", soft_wrap=True)
            sent = storefront_demo.drive(server.target, visitors, seed=time.time_ns(), console=console)
            storefront_demo.wait_until_sealed(db)
            console.print(
                f"{sent.decisions} decisions, {sent.clicks} clicks: {sent.lost} lost on the way; rewards: "
                + ", ".join(f"{count} {name}" for name, count in sorted(sent.outcomes.items())),
                soft_wrap=True,
            )
            console.print(storefront_demo.table(db))
            console.print(f"Replay it: simulator verify {db}", soft_wrap=True)
            if not exit_:
                console.print(f"Still serving Decide on {server.target}, metrics on {metrics}; Ctrl-C ends it.")
                _serve_until_interrupt(server.process)
    except DeciderError as error:
        raise click.ClickException(str(error)) from error


def _serve_until_interrupt(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait()
    except KeyboardInterrupt:
        click.echo("\ndraining")
    else:
        raise click.ClickException("the server has ended")


if __name__ == "__main__":
    main()
