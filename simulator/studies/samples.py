"""`make samples`: the sample outputs in `simulator/README.md`, made again by the commands that stand above them.

A sample is a fenced block below a comment `<!-- sample: COMMAND -->`. `tests/test_readme.py` runs the same commands and
compares the words.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

TEXT = Path(__file__).parents[1] / "README.md"
WIDTH = "100"
"""Columns of the samples; in fewer, tables of intervals break their words."""

MARKED = re.compile(r"^(<!-- sample: (simulator [^\n]+) -->\n```\n)(.*?)(?=^```$)", re.DOTALL | re.MULTILINE)


def samples(text: str) -> dict[str, str]:
    """The commands of a text's samples, with the output that the text shows.

    >>> samples("<!-- sample: simulator worlds -->\\n```\\nstorefront\\n```\\n")
    {'simulator worlds': 'storefront\\n'}
    """
    return {command: output for _, command, output in MARKED.findall(text)}


def output_of(command: str) -> str:
    """What a command of the simulator prints, run in an empty folder."""
    arguments = [sys.executable, "-m", "simulator.cli", *shlex.split(command)[1:]]
    environment = {**os.environ, "COLUMNS": WIDTH}
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            arguments, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, encoding="utf-8"
        )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.strip().splitlines())


def remade(text: str) -> str:
    """The text with the output of its samples' commands as they are now."""
    return MARKED.sub(lambda found: found[1] + output_of(found[2]), text)


if __name__ == "__main__":
    TEXT.write_text(remade(TEXT.read_text(encoding="utf-8")), encoding="utf-8")
