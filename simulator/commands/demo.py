"""`simulator demo`. Added to the command in `group.py`."""

from __future__ import annotations

import subprocess
import time
from contextlib import closing
from pathlib import Path

import click
from rich.console import Console

from decider.errors import DeciderError
from simulator.drive import demo
from simulator.drive.shop.port import ShopPort
from simulator.report.demo import returning_table, rewards_table, sent_line
from simulator.report.table import in_terminal

DB = click.Path(path_type=Path, dir_okay=False)


@click.command("demo", epilog="\b\nExamples:\n  simulator demo\n  simulator demo --exit --fresh")
@click.option("--db", type=DB, default=Path("demo.db"), show_default=True, help="The demo's log.")
@click.option("--listen", default="127.0.0.1:50051", show_default=True, help="HOST:PORT of the demo's server.")
@click.option("--http", default="127.0.0.1:9464", show_default=True, help="HOST:PORT of its page and metrics.")
@click.option("--web", default="127.0.0.1:9465", show_default=True, help="HOST:PORT of it that pages call.")
@click.option("--shop", default="127.0.0.1:9466", show_default=True, help="HOST:PORT of the shop, for a browser.")
@click.option("--visitors", type=click.IntRange(min=1), default=15_000, show_default=True, help="Visits to simulate.")
@click.option("--exit", "exit_", is_flag=True, help="End after the table.")
@click.option("--fresh", is_flag=True, help="Forget earlier runs.")
def demo_command(
    db: Path, listen: str, http: str, web: str, shop: str, visitors: int, exit_: bool, fresh: bool
) -> None:
    """A server, a simulated storefront over real gRPC, and a table of what was learned; and a shop for your browser."""
    console = Console()
    try:
        if fresh:
            demo.remove(db)
        if db.exists():
            console.print(f"Goes on with the log of an earlier run, {db}; --fresh forgets it.", soft_wrap=True)
        with (
            closing(ShopPort(shop)) as port,
            demo.server(db, listen=listen, http=http, web=web, origins=port.origins) as server,
            port.serving(demo.shop(server, db)),
        ):
            metrics = f"http://{server.http}/metrics"
            console.print(f"Decide: grpc://{server.target}  metrics: {metrics}  log: {db}", soft_wrap=True)
            console.print(f"Visit the shop: {port.address}", soft_wrap=True)
            sent = demo.run(demo.storefront_drive(server.target, visitors, seed=time.time_ns()), console)
            places = demo.drive_returning(server.target, visitors)
            demo.wait_until_sealed(db)
            console.print(sent_line(sent), soft_wrap=True)
            console.print(in_terminal(rewards_table(demo.rewards(db))))
            console.print(in_terminal(returning_table(places)))
            console.print(f"Replay it: simulator verify {db}", soft_wrap=True)
            if not exit_:
                console.print(f"Still serving Decide on {server.target}, metrics on {metrics}; Ctrl-C ends it.")
                console.print(f"Visit the shop in a browser: {port.address}", soft_wrap=True)
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
