"""`make tour`: every point of what a decision can mean, played against a real server, which is killed in between; then
its log is replayed. Exits with 1 where something comes out that the texts do not promise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from decider.log.open import open_reader
from simulator.studies.tour import amounts, choice, pages, shown
from simulator.studies.tour.stage import NotAsSaid, Scene, stage
from simulator.verify import Verification, verify

SCENES: Sequence[Scene] = sorted(shown.SCENES + amounts.SCENES + choice.SCENES + pages.SCENES)


def play(db: Path, scenes: Sequence[Scene]) -> Verification:
    """All of them, on a new log. Raises NotAsSaid."""
    with stage(db, click.echo) as where:
        for scene in scenes:
            click.echo(f"{scene.point:2}. {scene.title}")
            scene.play(where)
    with closing(open_reader(db)) as log:
        return verify(log)


@click.command()
@click.option("--point", type=int, multiple=True, help="Only these.")
def main(point: Sequence[int]) -> None:
    """Every point of what a decision can mean, against a real server."""
    scenes = [scene for scene in SCENES if not point or scene.point in point]
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = play(Path(folder, "tour.db"), scenes)
        except NotAsSaid as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"\nsimulator verify: {found.equal} of {found.decisions} decisions equal")
    if found.equal != found.decisions:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
