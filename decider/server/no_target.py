"""`--target` of the commands that read files: it says what they read in place of a server. Called by these commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., None])

READS_LOG = "reads the log's file itself, also while a server writes it: run it where the file is, with --db LOG"


def no_target(what: str) -> Callable[[Command], Command]:
    """Adds it, hidden: whoever knows it from `list` or `get` must learn what to type here. what: the command does."""

    def refuse(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(f"--target: `{context.info_name}` takes no gRPC address; it {what}", context)

    def add(command: Command) -> Command:
        option: Any = click.option("--target", hidden=True, expose_value=False, callback=refuse)
        return option(command)  # type: ignore[no-any-return]

    return add
