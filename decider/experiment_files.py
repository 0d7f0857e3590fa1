"""Reads experiment files. Called by the server, which watches its files, and by the simulator; `experiment/` itself
reads no files.
"""

from __future__ import annotations

from pathlib import Path

from decider.errors import InvalidExperiment, Violation
from decider.experiment.schema import parse_toml
from decider.v1 import experiment_pb2 as pb


def read_toml(path: Path) -> pb.Experiment:
    """The experiment in a TOML file. Raises InvalidExperiment that names the file and what is wrong in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidExperiment([Violation(str(path), str(error))]) from error
    return parse_toml(text, str(path))
