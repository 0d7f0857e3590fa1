"""Who a client's certificate names, under h2corn: it gives the certificate as PEM. Called by `app.py`."""

from __future__ import annotations

import ssl
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from decider.server.certificates import certificate_name

MOST_NAMES = 4_096
"""Certificates whose names are kept; one takes 0.2 ms to read."""


def certificate_of(scope: Any) -> str | None:
    """The name in the caller's certificate, which TLS has verified."""
    chain = scope["extensions"].get("tls", {}).get("client_cert_chain", ())
    return _name(chain[0]) if chain else None


@lru_cache(MOST_NAMES)
def _name(pem: str) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "certificate.pem")
        file.write_text(pem, "ascii")
        # Python reads a certificate that is no connection's for its own tests alone; what it finds has the form that
        # the HTTP port gets, too. `tests/test_fast.py` holds it.
        found = ssl._ssl._test_decode_cert(str(file))  # type: ignore[attr-defined]
    return certificate_name(found)
