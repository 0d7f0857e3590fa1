"""`--author` and `--note` of the commands that change an experiment or what its models learn."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from typing import TypeVar

import click

from decider.experiment.origin import MAX_AUTHOR, MAX_NOTE

Command = TypeVar("Command", bound=Callable[..., None])


def person() -> str:
    """Who runs this process, as the system knows them; a number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def origin_options(command: Command) -> Command:
    """Adds both."""
    author = click.option(
        "--author", default=person, show_default="who runs this command", metavar="NAME",
        help=f"Who does it; at most {MAX_AUTHOR} characters, kept in the log.",
    )  # fmt: skip
    note = click.option(
        "--note", default="", metavar="TEXT",
        help=f"Why; at most {MAX_NOTE} characters, kept in the log. A name in it stays there.",
    )  # fmt: skip
    return author(note(command))
