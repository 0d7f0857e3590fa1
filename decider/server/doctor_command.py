"""`decider doctor`. Added to the command in `command.py`."""

from __future__ import annotations

import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import click

from decider.channel import Credentials, authorization_of, credentials_of
from decider.errors import DeciderError
from decider.learn.diagnosis import diagnose
from decider.learn.finding import Finding
from decider.log.open import LogUrl, open_beside
from decider.options import LogPlace, credential_options
from decider.server.json_output import echo_json, json_option
from decider.server.no_target import READS_LOG, no_target
from decider.server.settings import split_address
from decider.types import now

EXAMPLES = """
\b
Examples:
  decider doctor --db shop.db
  decider doctor --db shop.db --http 127.0.0.1:9464 --json
  decider doctor --db shop.db --http 127.0.0.1:9464 --token-file ann.token --ca ca.pem
"""

TIMEOUT = 10.0
"""Seconds for an answer of /readyz."""

MOST_BYTES = 1_000_000
"""Of an answer that are read."""


def _address(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None:
            split_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


@click.command("doctor", epilog=EXAMPLES)
@click.option("--db", type=LogPlace(), help="The log.")
@click.option(
    "--http", callback=_address, metavar="HOST:PORT", help="HTTP address of a running server: ask its /readyz, too."
)
@credential_options
@click.option(
    "--archive", "archives", multiple=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder with parts of this log's archive that were moved; may be repeated.",
)  # fmt: skip
@no_target(f"{READS_LOG}; --http HOST:PORT asks a server's /readyz, too")
@json_option
def doctor_command(db: Path | LogUrl | None, http: str | None, archives: tuple[Path, ...], as_json: bool) -> None:
    """Say why experiments do not learn: what stands in the way, the evidence, and the way out.

    It reads the log, also while servers write it, and changes nothing. Where there are too few decisions to tell (200
    for most checks), it says nothing. A note is about what may be meant, like a pause. Without --db only the server is
    asked. A server with --tokens tells its troubles to who may read all experiments: --token-file.

    Exits 0 where nothing was found (notes do not count), 1 where something was, 2 where the log cannot be read.

    \b
    --json: healthy (nothing but notes), findings (each with experiment (null: of all), check (its name), text, way_out
    and note (true: it may be meant)).
    """
    if db is None and http is None:
        raise click.UsageError("name the log with --db, a running server with --http, or both")
    try:
        found = [] if db is None else _log_says(db, archives)
    except DeciderError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    found = [*_server_says(http), *found]
    healthy = all(one.is_note for one in found)
    if as_json:
        echo_json({"healthy": healthy, "findings": list(map(_content, found))})
    else:
        for line in _lines(found):
            click.echo(line)
        if healthy:
            click.echo(f"nothing stands in the way of learning, as far as {_seen(db)}")
    sys.exit(0 if healthy else 1)


def _log_says(db: Path | LogUrl, archives: Sequence[Path]) -> list[Finding]:
    with closing(open_beside(db, archives)) as log:
        return diagnose(log, now=now())


def _seen(db: Path | LogUrl | None) -> str:
    return "the log shows" if db is not None else "the server says; the log, which shows more, was not read (--db LOG)"


def _server_says(http: str | None) -> Iterator[Finding]:
    """What /readyz says but for "ok"."""
    if http is None:
        return
    try:
        text, is_hidden = _readyz(http)
    except (OSError, ValueError) as error:
        way_out = "start the server, or name another --http; one with --tls-cert is asked with --ca FILE"
        yield Finding("", "server", f"{http} does not answer: {error}", way_out)
        return
    if is_hidden:
        way_out = "--token-file with a token that has the role `read` for every experiment shows it"
        yield Finding("", "server", "/readyz hides its text from this caller", way_out, is_note=True)
    for line in text.splitlines():
        if line != "ok":
            way_out = "the server's output says more; decider/README.md, Operating and Alerts"
            yield Finding("", "server", f"/readyz says: {line}", way_out, is_note=line.startswith("learning "))


def _readyz(http: str) -> tuple[str, bool]:
    """Its text, and whether the server keeps a part of it back. Raises OSError, ValueError."""
    credentials = credentials_of()
    request = urllib.request.Request(f"{'https' if credentials.encrypts else 'http'}://{http}/readyz")
    if authorization := authorization_of(credentials):
        request.add_header("Authorization", authorization)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT, context=_tls(credentials)) as answer:
            found, headers = answer.read(MOST_BYTES), answer.headers
    except urllib.error.HTTPError as error:
        found, headers = error.read(MOST_BYTES), error.headers  # 503 says why, too
    return found.decode(errors="replace"), "WWW-Authenticate" in headers


def _tls(credentials: Credentials) -> ssl.SSLContext | None:
    if not credentials.encrypts:
        return None
    context = ssl.create_default_context(cafile=credentials.ca)
    if credentials.cert is not None:
        context.load_cert_chain(credentials.cert, credentials.key)
    return context


def _content(finding: Finding) -> dict[str, object]:
    return {
        "experiment": finding.experiment or None,
        "check": finding.check,
        "text": finding.text,
        "way_out": finding.way_out,
        "note": finding.is_note,
    }


def _lines(found: Sequence[Finding]) -> Iterator[str]:
    for one in found:
        about = f"experiment {one.experiment}: " if one.experiment else ""
        yield f"{'note: ' if one.is_note else ''}{about}{one.text}"
        yield f"  way out: {one.way_out}"
