"""`decider token`: a fresh token and its lines for the tokens file. Added to the command in `command.py`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from decider.server.roles import Role
from decider.server.tokens import BadTokens, new_token

EXAMPLES = """
\b
Examples:
  decider token shop --role decide --role reward --experiment storefront >> tokens.toml
  decider token ann --role read --role operate --until 2027-01-01
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
def token_command(name: str, roles: tuple[str, ...], experiments: tuple[str, ...], until: datetime | None) -> None:
    """Make a token for NAME, who may be a program or a person.

    The token is shown once, on standard error; its lines for the file of `decider serve --tokens` are on standard
    output. They hold a hash of it, not the token.
    """
    when = until.replace(tzinfo=UTC) if until else None
    try:
        token, lines = new_token(name, [Role(role) for role in dict.fromkeys(roles)], experiments, when)
    except BadTokens as error:
        raise click.ClickException(str(error)) from error
    click.echo(lines, nl=False)
    click.echo(f"the token of {name}, shown only here: {token}", err=True)
