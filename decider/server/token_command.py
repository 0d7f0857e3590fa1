"""`decider token`: a fresh token and its lines for the tokens file. Added to the command in `command.py`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from decider.server.roles import Role
from decider.server.tokens import BadTokens, new_token

EXAMPLES = """
\b
Examples:
  decider token shop --role decide --role reward --experiment storefront >> tokens.toml
  decider token ann --role read --role operate --until 2027-01-01 --token-file ann.token >> tokens.toml
"""


@click.command("token", epilog=EXAMPLES)
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    required=True,
    help="May be repeated.",
)
@click.option("--experiment", "experiments", multiple=True, metavar="ID", help="Only this; repeated.  [default: all]")
@click.option("--until", type=click.DateTime(), help="UTC; after that it is good for nothing.  [default: for ever]")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False), help="New file for the token.")
def token_command(
    name: str, roles: tuple[str, ...], experiments: tuple[str, ...], until: datetime | None, token_file: Path | None
) -> None:
    """Make a token for NAME, who may be a program or a person.

    The token is shown once, on standard error, or written to a file that only you can read; its lines for the file of
    `decider serve --tokens` are on standard output. They hold a hash of it, not the token.
    """
    when = until.replace(tzinfo=UTC) if until else None
    try:
        token, lines = new_token(name, [Role(role) for role in dict.fromkeys(roles)], experiments, when)
        if token_file is not None:
            _write(token_file, token)
    except FileExistsError as error:
        way_out = "another token may be in it: name a new file, or delete this one"
        raise click.ClickException(f"{token_file}: is there already; {way_out}") from error
    except (BadTokens, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(lines, nl=False)
    if token_file is None:
        click.echo(f"the token of {name}, shown only here: {token}", err=True)


def _write(file: Path, token: str) -> None:
    """Raises OSError where there is such a file."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(f"{token}\n")
