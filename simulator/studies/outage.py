"""What an outage of rewards costs, with the guard of learning and without: the storefront against a real server.

`make outage`. Visits with rewards, visits without any, then with rewards again, as a pixel that fails for a minute.
The share of the attainable lift is by the world's true means of the actions that were drawn.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import click

from simulator.studies.served import serving


class Phase(NamedTuple):
    """Visits of one kind. lost: share of their rewards that is never sent. rate: visits a second; None: no limit."""

    name: str
    visitors: int
    lost: float
    rate: float | None


PHASES = (
    Phase("before", 20_000, 0, None),
    Phase("no rewards", 5_000, 1, 300),
    Phase("back, first 2,000", 2_000, 0, 300),
    Phase("then 4,500", 4_500, 0, 300),
)


def play(guard: str, holdout: float, folder: Path) -> list[float]:
    """The share of the attainable lift in each phase, in order."""
    db = folder / f"{guard}-{holdout}.db"
    with serving(db, "--guard", guard) as server:
        shares = [_drive(server.port, phase, number, holdout, folder) for number, phase in enumerate(PHASES)]
        server.stop()
    _verify(db)
    return shares


def _drive(port: int, phase: Phase, seed: int, holdout: float, folder: Path) -> float:
    result = folder / "drive.json"
    rate = [] if phase.rate is None else ["--rate", str(phase.rate)]
    _run(
        "drive", "storefront", "--target", f"127.0.0.1:{port}", "--visitors", str(phase.visitors), "--seed", str(seed),
        "--window", "1", "--lost", str(phase.lost), "--late", "0", "--duplicate", "0", "--reordered", "0",
        "--holdout", str(holdout), "--json", str(result), *rate,
    )  # fmt: skip
    return float(json.loads(result.read_text(encoding="utf-8"))["earned"]["share"])


def _verify(db: Path) -> None:
    """Raises subprocess.CalledProcessError where a decision is recomputed otherwise."""
    _run("verify", str(db))


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "simulator.cli", *arguments], check=True, stdout=subprocess.DEVNULL)


@click.command()
@click.option("--holdout", "holdouts", multiple=True, type=float, default=(0.0, 0.1), show_default=True)
def main(holdouts: tuple[float, ...]) -> None:
    """Play the outage with the guard and without, and print the shares of the attainable lift, in per cent."""
    print("| guard | holdout | " + " | ".join(phase.name for phase in PHASES) + " |")
    print("|---|--:|" + "--:|" * len(PHASES))
    with TemporaryDirectory() as folder:
        for holdout in holdouts:
            for guard in ("on", "off"):
                shares = play(guard, holdout, Path(folder))
                print(
                    f"| {guard} | {holdout:g} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
