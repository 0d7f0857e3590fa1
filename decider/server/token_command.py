"""`decider token`: a fresh token and its lines for the tokens file. Added to the command in `command.py`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from decider.server.roles import Role
from decider.server.tokens import BadTokens, new_page_key, new_token

EXAMPLES = """
\b
Examples:
  decider token shop --role decide --role reward --experiment storefront >> tokens.toml
  decider token storefront-page --page --origin https://shop.example --experiment storefront >> tokens.toml
  decider token ann --role read --role operate --until 2027-01-01 --token-file ann.token >> tokens.toml
"""


@click.command("token", epilog=EXAMPLES)
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    help="May be repeated; needed but for a page, which has decide and reward.",
)
@click.option("--experiment", "experiments", multiple=True, metavar="ID", help="Only this; repeated.  [default: all]")
@click.option("--until", type=click.DateTime(), help="UTC; after that it is good for nothing.  [default: for ever]")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False), help="New file for the token.")
@click.option("--page", is_flag=True, help="A key that pages have, which everybody can read; with --origin.")
@click.option("--origin", "origins", multiple=True, metavar="URL", help="Of a page, https://shop.example; repeated.")
def token_command(
    name: str,
    roles: tuple[str, ...],
    experiments: tuple[str, ...],
    until: datetime | None,
    token_file: Path | None,
    page: bool,
    origins: tuple[str, ...],
) -> None:
    """Make a token for NAME, who may be a program or a person; or with --page a key for the pages of a site.

    The token is shown once, on standard error, or written to a file that only you can read; its lines for the file of
    `decider serve --tokens` are on standard output. They hold a hash of it, not the token. A page's key is no secret:
    it stands in its lines.
    """
    when = until.replace(tzinfo=UTC) if until else None
    kinds = [Role(role) for role in dict.fromkeys(roles)]
    _check_options(kinds, experiments, origins, token_file, page=page)
    try:
        if page:
            click.echo(new_page_key(name, origins=origins, experiments=experiments, roles=kinds, until=when), nl=False)
        else:
            _make_token(name, kinds, experiments, when, token_file)
    except FileExistsError as error:
        way_out = "another token may be in it: name a new file, or delete this one"
        raise click.ClickException(f"{token_file}: is there already; {way_out}") from error
    except (BadTokens, OSError) as error:
        raise click.ClickException(str(error)) from error


def _check_options(
    roles: Sequence[Role],
    experiments: Sequence[str],
    origins: Sequence[str],
    token_file: Path | None,
    *,
    page: bool,
) -> None:
    """Raises UsageError."""
    if page and not (origins and experiments):
        raise click.UsageError("--page: name the sites whose pages have the key (--origin) and its --experiment")
    if page and token_file is not None:
        raise click.UsageError("--token-file: is for secrets; a page's key stands in its lines")
    if not page and origins:
        raise click.UsageError("--origin: is for keys of pages; add --page")
    if not (page or roles):
        raise click.UsageError("--role: is needed, once for each role")


def _make_token(
    name: str, roles: Sequence[Role], experiments: Sequence[str], until: datetime | None, token_file: Path | None
) -> None:
    token, lines = new_token(name, roles, experiments, until)
    if token_file is not None:
        _write(token_file, token)
    click.echo(lines, nl=False)
    if token_file is None:
        click.echo(f"the token of {name}, shown only here: {token}", err=True)


def _write(file: Path, token: str) -> None:
    """Raises OSError where there is such a file."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(f"{token}\n")
