"""Certificates of authorities of our own, made by the `openssl` command. For the bench, the attack and tests."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM files."""

    cert: Path
    key: Path


def authority(folder: Path, name: str) -> Pair:
    """It signs itself."""
    pair = _pair(folder, name)
    _openssl("req", "-x509", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", pair.key, "-out", pair.cert)
    return pair


def issue(folder: Path, name: str, by: Pair, *, days: int = 2, subject: str = "") -> Pair:
    """Of a server at 127.0.0.1, or of a client called `name`. days: negative: it ran out. subject: another one than its
    name."""
    pair, request, more = _pair(folder, name), folder / f"{name}.request", folder / f"{name}.extensions"
    more.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    _openssl("req", "-new", *_NEW_KEY, "-subj", subject or f"/CN={name}", "-keyout", pair.key, "-out", request)
    signed = ("x509", "-req", "-in", request, "-CA", by.cert, "-CAkey", by.key, "-days", days, "-extfile", more)
    _openssl(*signed, "-out", pair.cert)
    return pair


def _pair(folder: Path, name: str) -> Pair:
    folder.mkdir(exist_ok=True)
    return Pair(folder / f"{name}.pem", folder / f"{name}.key")


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
