"""VW's own progressive evaluation. Runs in the rivals' environment, see `requirements.txt`.

The package has no `vw` binary; `python -m vowpalwabbit` is its command line, which runs the same C++ over the same
file. Policy and lines are those of our own experiment, so that both evaluate the same learner. What it prints as the
average loss is IPS of the policy that has learned so far: each row is scored before it is learned.
Started by `side_by_side.py` and `bench_evaluate.py`, which write the file.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simulator.studies.rivals.exchange import Arrays, Floats, ToolEstimate, main

LOG, ARGUMENTS, PREDICTIONS = "vw.txt", "vw.arguments", "vw.predictions"
"""Files of the folder: the log in VW's text format, the policy, and the pmfs that VW writes."""


def rows(folder: Path) -> Iterator[ToolEstimate]:
    """Its average loss, turned into a reward."""
    arrays = Arrays.read(folder)
    arguments = (folder / ARGUMENTS).read_text()
    said = run(folder, f"{arguments} -p {folder / PREDICTIONS}")
    yield ToolEstimate(
        tool="vw",
        estimator="average loss (IPS)",
        about="learning policy",
        value=-average_loss(said),
        truth=arrays.earned(_predictions(folder, actions=arrays.means.shape[1])),
        unbiased=True,
        settings="lines and arguments of our squarecb",
    )


def run(folder: Path, arguments: str) -> str:
    """VW over the folder's file, in a process of its own; what it said."""
    command = [sys.executable, "-m", "vowpalwabbit", "-d", str(folder / LOG), *arguments.split()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def average_loss(said: str) -> float:
    """From what VW prints at the end.

    >>> average_loss("finished run\\naverage loss = -0.288000\\ntotal feature number = 7")
    -0.288
    """
    found = re.search(r"average loss = (\S+)", said)
    if found is None:
        raise ValueError(f"vw said: {said}")
    return float(found[1])


def _predictions(folder: Path, *, actions: int) -> Floats:
    """(n, actions): lines like `1:0.8,0:0.2`, an empty one between two decisions."""
    lines = (folder / PREDICTIONS).read_text().split()
    pmfs = np.zeros((len(lines), actions))
    for row, line in enumerate(lines):
        for pair in line.split(","):
            action, _, probability = pair.partition(":")
            pmfs[row, int(action)] = float(probability)
    return pmfs


if __name__ == "__main__":
    main(rows)
