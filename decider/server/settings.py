"""Every setting of the server, once: the command's options, `--help`, and what is shown at start come from here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from decider.log.place import LogUrl

MIB = 2**20

MAX_REPLY_BYTES = 4 * MIB
"""What a client of gRPC takes by default."""

LAST_PORT = 65_535

WEB_PORTS = {"http": 80, "https": 443}
"""That an address need not name."""

ANY_ORIGIN = "*"
"""Pages of every origin may call."""

_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\[\]\s]*:[^\[\]\s]*)\]|(?P<host>[^:\[\]\s]+)):(?P<port>[0-9]{1,5})")

_ORIGIN = re.compile(r"https?://([a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class Settings:
    """Also settable by environment: DECIDER_DB, DECIDER_LISTEN, ..."""

    experiments: tuple[Path, ...] = _setting((), "Experiment file (TOML) or folder of such files; may be repeated.")
    strict: bool = _setting(
        False, "A wrong experiment file ends the start with an error; else the others and what the log has are served."
    )
    db: Path | LogUrl = _setting(
        Path("decider.db"),
        "The log: one SQLite file, or the address of one in PostgreSQL (postgresql://...); made if there is none.",
    )
    listen: str = _setting("127.0.0.1:50051", "HOST:PORT for gRPC; port 0 takes a free one, [::1]:50051 is IPv6.")
    operate_listen: str | None = _setting(
        None, "HOST:PORT of a listener of its own for ExperimentService, which --listen then answers no longer."
    )
    http: str = _setting("127.0.0.1:9464", "HOST:PORT for the page, /decisions/ID, /metrics, /healthz and /readyz.")
    web: str | None = _setting(
        None,
        "HOST:PORT for frontends over HTTP: DeciderService in JSON, Connect and gRPC-Web, OpenFeature's OFREP and "
        "flagd, /client.js. None: there is no such port.",
    )
    web_origin: tuple[str, ...] = _setting(
        (),
        "Origin of pages that may call --web, like https://shop.example; * is every one. May be repeated; pages of "
        "other origins are refused.",
    )
    web_proxy: tuple[str, ...] = _setting(
        (),
        "Address of a proxy before --web, or network like 10.0.0.0/28, whose X-Forwarded-For is believed: keys of "
        "pages have rates by address. May be repeated.",
    )
    tls_cert: Path | None = _setting(None, "PEM file of certificates: all ports then take TLS only.")
    tls_key: Path | None = _setting(None, "PEM file of the key of --tls-cert, without a password.")
    tls_client_ca: Path | None = _setting(
        None, "PEM file of authorities: callers over gRPC must show a certificate of one of them."
    )
    tokens: Path | None = _setting(
        None, "TOML file that says who may do what: names, hashes of tokens, roles, experiments."
    )
    page_writes: tuple[str, ...] = _setting(
        (),
        "Address at which people open the page, like http://127.0.0.1:9464: there it lets whoever reaches it (with "
        "--tokens, whoever has the role operate) pause, resume and roll back. May be repeated; without it the page "
        "only shows.",
    )
    synchronous: str = _setting("NORMAL", "NORMAL survives kill -9; FULL also power loss, with one fsync per commit.")
    learn_interval: float = _setting(0.5, "Seconds between rounds of sealing and learning.")
    store_interval: float = _setting(300.0, "Seconds of learning, at most, that a kill costs: then a model is stored.")
    store_bytes: int = _setting(
        150, "A model is stored earlier once this many bytes for each decision learned pay for its size."
    )
    guard: str = _setting(
        "on", "While rewards are missing beyond doubt, nothing is learned (on); or learn whatever comes (off)."
    )
    keep_bytes: int = _setting(100_000_000, "Bytes that the stored models of an experiment may take.")
    disk_reserve: int = _setting(1_000_000_000, "Bytes that should be free on the log's disk; less is warned of.")
    memory: int = _setting(
        1_000_000_000,
        "Bytes of memory that the process may take: 25 % models, 20 % definitions, 5 % slots; the rest is for the "
        "interpreter, calls in flight and what the allocator keeps.",
    )
    max_experiments: int = _setting(1000, "Experiments that have not ended; more get RESOURCE_EXHAUSTED.")
    decide_budget: float = _setting(
        0.05,
        "Seconds that one decision may take, estimated from its features; above, the baseline action is served. "
        "An experiment of which no decision fits is refused.",
    )
    workers: int = _setting(
        0,
        "Processes that serve calls on one port, beside one that leads (Linux); 0: one process does both.",
    )
    core: int | None = _setting(None, "Run on this core only (Linux): one Python process gains nothing from several.")
    threads: int = _setting(2, "Threads that serve calls; few are fastest.")
    max_concurrent_rpcs: int = _setting(1000, "Calls at once, waiting ones included; more get RESOURCE_EXHAUSTED.")
    max_caller_rpcs: int = _setting(
        500, "Calls at once of one token, certificate or address; more get RESOURCE_EXHAUSTED."
    )
    max_streams: int = _setting(4000, "Health watches, reflection streams and event streams of flags at once.")
    max_caller_streams: int = _setting(
        2000,
        "Health watches, reflection streams and event streams of flags at once of one token, certificate or address.",
    )
    max_connections: int = _setting(
        4000,
        "Connections at once to --listen, and as many to --web, silent ones included; at most half of the files the "
        "process may open, with --web a quarter each.",
    )
    max_age: float = _setting(
        60.0,
        "Seconds after which a client is asked to connect anew, with --workers; no call is lost by that, load spreads, "
        "and `decider reload` can put a new process into a worker's place.",
    )
    hung_after: float = _setting(
        20.0,
        "Seconds in which a worker or its leader has given no sign of life, and nothing of it ran, after which it is "
        "ended and started again; ten times as many where it runs, never at its start.",
    )
    max_idle: float = _setting(900.0, "Seconds without a call after which a connection of gRPC is closed.")
    max_request_bytes: int = _setting(4 * MIB, "Largest request; larger ones get RESOURCE_EXHAUSTED.")
    max_reply_bytes: int = _setting(
        MAX_REPLY_BYTES,
        "Largest reply: clients of gRPC refuse more than 4 MiB by default. A call with a larger one is refused before "
        "anything is logged; definitions have three quarters of it.",
    )
    archive: Path | None = _setting(
        None,
        "Folder for old decisions: once a day they are moved there. What was moved before is looked for there, too.",
    )
    archive_after: str = _setting("30d", "Decisions older than this are moved there, in log time: 30d, 12h, ...")
    grace: float = _setting(10.0, "Seconds that calls in flight get to finish after SIGTERM.")


def unfit_for_address(settings: Settings) -> str:
    """What the settings ask of a log in PostgreSQL that only a file can give, and the way out; empty: nothing."""
    if isinstance(settings.db, LogUrl) and settings.archive is not None:
        return (
            f"--archive: nothing is archived out of PostgreSQL yet; leave it out, or name a file by --db (it is now "
            f"{settings.db})"
        )
    return ""


def table() -> list[tuple[str, Any, str]]:
    """(option, default, help) of every setting."""
    return [(f"--{f.name.replace('_', '-')}", f.default, f.metadata["help"]) for f in fields(Settings)]


def site_of(address: str) -> str:
    """The address of a page as browsers name its site (RFC 6454). Raises ValueError.

    >>> site_of("http://Decider.internal:80/"), site_of("https://[::1]:9464")
    ('http://decider.internal', 'https://[::1]:9464')
    """
    found = urlsplit(address.strip())
    if (
        found.scheme not in WEB_PORTS
        or not found.hostname
        or found.path not in ("", "/")
        or found.query
        or "@" in address
    ):
        raise ValueError(f"{address!r} is not the address of a page, like http://127.0.0.1:9464")
    host = f"[{found.hostname}]" if ":" in found.hostname else found.hostname
    port = "" if found.port in (None, WEB_PORTS[found.scheme]) else f":{found.port}"
    return f"{found.scheme}://{host}{port}"


def page_origin(address: Any) -> str:
    """As browsers send it in `Origin`. One site's alone: with a pattern, whoever gets hold of a forgotten subdomain
    would be let in. Raises ValueError, whose text does not repeat what may be a secret in the wrong place.

    >>> page_origin("https://Shop.example/"), page_origin("http://localhost:5173")
    ('https://shop.example', 'http://localhost:5173')
    """
    try:
        origin = site_of(address) if isinstance(address, str) else ""
    except ValueError:
        origin = ""
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(
            "is not the address of a site, like https://shop.example or http://localhost:5173: no path, no * (name "
            "each subdomain), and xn-- where letters are not ASCII"
        )
    return origin


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT; an IPv6 address stands in brackets. Raises ValueError.

    >>> split_address("127.0.0.1:50051"), split_address("[::1]:50051")
    (('127.0.0.1', 50051), ('::1', 50051))
    """
    found = _ADDRESS.fullmatch(address)
    if not found or int(found["port"]) > LAST_PORT:
        raise ValueError(f"{address!r} is not HOST:PORT, like 127.0.0.1:50051 or [::1]:50051")
    return found["ipv6"] or found["host"], int(found["port"])


def join_address(host: str, port: int) -> str:
    """As people write it.

    >>> join_address("::1", 50051)
    '[::1]:50051'
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
