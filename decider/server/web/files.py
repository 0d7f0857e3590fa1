"""Files that every page may load: `/client.js` and `/openfeature.js`. Called by `port.py` and `worker.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from decider.server.web.app import Route
from decider.server.web.compression import GZIP, compress, takes_gzip
from decider.server.web.exchange import Headers, Reply, Request

CACHES: Headers = (
    # For an hour no page asks. For a day more a page takes what it has and asks beside: none waits, a new release is
    # there at the next load. A CDN gives what it has for a week where the server is down: pages show their fallbacks.
    (b"cache-control", b"public, max-age=3600, stale-while-revalidate=86400, stale-if-error=604800"),
    (b"vary", b"accept-encoding"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True, slots=True)
class File:
    """Something that everybody may load, like the client for pages."""

    path: str
    content_type: str
    content: bytes


def client_files() -> Sequence[File]:
    """The client for pages, and what adds it to OpenFeature's providers: `decider/client/typescript/`."""
    folder = resources.files("decider").joinpath("client/typescript")
    return [
        File(f"/{name}", "text/javascript; charset=utf-8", folder.joinpath(name).read_bytes())
        for name in ("client.js", "openfeature.js")
    ]


def file_routes(files: Iterable[File]) -> Mapping[str, Route]:
    """By path."""
    return {one.path: Route(("GET", "HEAD"), _answer(one), public=True, protocol="file") for one in files}


def _answer(file: File) -> Callable[[Request], Awaitable[Reply]]:
    kind = (b"content-type", file.content_type.encode())
    plain = _reply(file.content, [kind])
    packed = _reply(compress(file.content), [kind, (b"content-encoding", GZIP)])

    async def answer(request: Request) -> Reply:
        reply = packed if takes_gzip(request.headers.get(b"accept-encoding", b"")) else plain
        tag, *_ = reply.headers
        known = request.headers.get(b"if-none-match", b"")
        return Reply(304, [tag, *CACHES]) if tag[1] in known else reply

    return answer


def _reply(content: bytes, headers: Headers) -> Reply:
    """Each encoding has a tag of its own, as caches want it."""
    tag = b'"%s"' % hashlib.sha256(content).hexdigest()[:16].encode()
    return Reply(200, [(b"etag", tag), *CACHES, *headers], content)
