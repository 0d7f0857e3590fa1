"""`make questions`: the questions of a growth team, asked of a real server, beside the world's truth."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from decider.log.open import open_reader
from simulator.studies.questions.ask import QUESTIONS, Row
from simulator.studies.questions.stage import Stage
from simulator.studies.served import LOAD_CORE, serving
from simulator.verify import verify

NAMES = [question.__name__ for question in QUESTIONS]


def line(row: Row) -> str:
    """Of a table in Markdown.

    >>> line(Row("f", "decider_exploration_cost", 0.02, "0.001", "0.0011"))
    '| f | decider_exploration_cost | 0.02 | 0.001 | 0.0011 |'
    """
    return f"| {row.question} | {row.how} | {row.seconds:.2g} | {row.figure} | {row.truth} |"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--visitors", type=click.IntRange(min=1_000), default=40_000, show_default=True, help="Of the shop.")
@click.option("--db", type=click.Path(path_type=Path), help="Keep the log there; a later run asks more of it.")
@click.option("--question", "names", type=click.Choice(NAMES), multiple=True, help="Only these; may be repeated.")
@click.option("--verify/--no-verify", "verifies", default=True, show_default=True, help="Replay the log at the end.")
def main(visitors: int, db: Path | None, names: tuple[str, ...], verifies: bool) -> None:
    """Drive three experiments with a holdout of 10 %, ask, and print a table: question, how, seconds, figure, truth."""
    with TemporaryDirectory() as folder:
        path = db or Path(folder, "questions.db")
        with serving(path, cores=LOAD_CORE) as server:
            click.echo("| question | how | seconds | figure | truth |\n|---|---|--:|---|---|")
            for question in QUESTIONS:
                if not names or question.__name__ in names:
                    for row in question(Stage(path, server, visitors)):
                        click.echo(line(row))
            server.stop()
        if verifies:
            with closing(open_reader(path)) as log:
                found = verify(log)
            click.echo(f"\nsimulator verify: {found.equal} of {found.decisions} decisions equal")


if __name__ == "__main__":
    main()
