"""`decider forget`. Added to the command in `command.py`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from decider.errors import DeciderError
from decider.log.open import LogUrl, open_to_forget
from decider.log.protocol import Forgotten
from decider.options import LogPlace

EXAMPLES = """
\b
Examples:
  decider forget visitor-42 --db shop.db
  decider forget visitor-42 --db shop.db --context --rebuild
  decider forget visitor-42 --db postgresql://owner@db/shop
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
@click.option("--db", required=True, type=LogPlace(), help="The log.")
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
    help="Write the file (in PostgreSQL, the tables) anew: unused places may hold old copies of rows. Writers wait "
    "meanwhile.",
)  # fmt: skip
@click.option(
    "--archive", multiple=True, type=click.Path(path_type=Path, file_okay=False),
    help="A folder with parts of the log's archive that were moved. Can be given several times.",
)  # fmt: skip
def forget_command(
    unit: str, db: Path | LogUrl, pseudonym: bool, context: bool, rebuild: bool, archive: tuple[Path, ...]
) -> None:
    """Remove the traces of UNIT from a log and its archive: the ids of the unit, of its decisions and of their rewards,
    its links with other units, and its id in rewards by unit. Units that it was linked with are told, and stay.

    Servers may write the log meanwhile. Actions, probabilities and rewards stay, so totals and what was learned do not
    change, and `simulator verify` still recomputes everybody else's decisions. A later call with one of the old
    decision ids is a new decision; a later decision of the unit is stored as usual. Stored models stay, and with them
    names of categories that they know. Copies and backups, and the write-ahead log and standbys of PostgreSQL, are not
    changed; there it takes the owner of the tables. A run that is killed goes on when it is
    started again.
    """
    try:
        with closing(open_to_forget(db, archives=archive)) as log:
            forgotten = log.forget(unit, pseudonym=pseudonym, context=context, rebuild=rebuild)
    except DeciderError as error:
        raise click.ClickException(str(error)) from error
    click.echo(_describe(forgotten, context=context))
    if forgotten.linked:
        click.echo(f"it was linked with {', '.join(forgotten.linked)}: these stay; forget each that is the same person")
    for part in forgotten.parts:
        click.echo(f"written anew: {part}")
    if not forgotten.cleared:
        raise click.ClickException(
            "the log does not name the unit any more, but a reader keeps old rows in the write-ahead log; end the "
            "reader, then run this again: it will find no decision, and clear them"
        )
    if not rebuild:
        what = "tables may hold old copies: --rebuild writes them anew"
        file = "the file may hold old copies: --rebuild writes it anew"
        click.echo(f"unused places of {what if isinstance(db, LogUrl) else file}")
    if forgotten.left:
        raise click.ClickException(
            "these parts of the archive may still hold the unit, everything else is done; put them right, then run "
            "this again:\n" + "\n".join(forgotten.left)
        )


def _describe(forgotten: Forgotten, *, context: bool) -> str:
    if not forgotten.decisions:
        return "the log has no decision of this unit (after an earlier run: none any more)"
    kept = f"they keep the made-up unit {forgotten.pseudonym}" if forgotten.pseudonym else "each has a unit of its own"
    contexts = "contexts are removed" if context else "contexts are kept"
    return f"{forgotten.decisions} decisions forgotten: {kept}; {contexts}"
