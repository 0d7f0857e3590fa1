"""`decider forget`. Added to the command in `command.py`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import click

from decider.errors import DeciderError
from decider.log.open import archived_of_unit, open_to_forget
from decider.log.protocol import Forgotten

EXAMPLES = """
\b
Examples:
  decider forget visitor-42 --db shop.db
  decider forget visitor-42 --db shop.db --context --rebuild
"""


def _check_text(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter(
            "is no UTF-8 text, and every id in a log is one; check the terminal's encoding"
        ) from error
    return value


@click.command("forget", epilog=EXAMPLES)
@click.argument("unit", callback=_check_text)
@click.option("--db", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The log.")
@click.option(
    "--pseudonym", is_flag=True,
    help="Keep one made-up id for all decisions of the unit, so that figures by unit stay right. Whoever knows one of "
    "the decisions then knows all. Without it each decision gets an id of its own.",
)  # fmt: skip
@click.option(
    "--context", is_flag=True,
    help="Remove features and context fields, too. What was learned from them cannot be recomputed any more; "
    "`simulator verify` counts what that concerns.",
)  # fmt: skip
@click.option(
    "--rebuild", is_flag=True,
    help="Write the file anew: unused places of it may hold old copies of rows. Writers wait meanwhile.",
)  # fmt: skip
def forget_command(unit: str, db: Path, pseudonym: bool, context: bool, rebuild: bool) -> None:
    """Remove the traces of UNIT from a log: the ids of the unit, of its decisions and of their rewards.

    Servers may write the log meanwhile. Actions, probabilities and rewards stay, so totals and what was learned do not
    change, and `simulator verify` still recomputes everybody else's decisions. A later call with one of the old
    decision ids is a new decision; a later decision of the unit is stored as usual. Stored models stay, and with them
    names of categories that they know. Archives, copies and backups are not changed. A run that is killed goes on when
    it is started again.
    """
    try:
        with closing(open_to_forget(db)) as log:
            forgotten = log.forget(unit, pseudonym=pseudonym, context=context, rebuild=rebuild)
        click.echo(_describe(forgotten, context=context))
        _tell_parts(archived_of_unit(db, unit))
    except DeciderError as error:
        raise click.ClickException(str(error)) from error
    if not forgotten.cleared:
        raise click.ClickException(
            "the log does not name the unit any more, but a reader keeps old rows in the write-ahead log; end the "
            "reader, then run this again: it will find no decision, and clear them"
        )
    if not rebuild:
        click.echo("unused places of the file may hold old copies: --rebuild writes it anew")


def _tell_parts(decisions: Mapping[Path, int | None]) -> None:
    """decisions: of the unit in each part of the archive; None: the part was not found."""
    for part, count in decisions.items():
        if count is None:
            click.echo(f"not found, so not searched: {part}")
        elif count:
            click.echo(f"still holds {count} decisions of this unit: {part}")
    if any(decisions.values()):
        click.echo(
            "parts of the archive are never changed: keep these where nobody reads them, or delete each as a whole, "
            "with its copies; the log itself still verifies, but not together with a part that is gone, and a changed "
            "policy cannot learn from it"
        )


def _describe(forgotten: Forgotten, *, context: bool) -> str:
    if not forgotten.decisions:
        return "the log has no decision of this unit (after an earlier run: none any more)"
    kept = f"they keep the made-up unit {forgotten.pseudonym}" if forgotten.pseudonym else "each has a unit of its own"
    contexts = "contexts are removed" if context else "contexts are kept"
    return f"{forgotten.decisions} decisions forgotten: {kept}; {contexts}"
