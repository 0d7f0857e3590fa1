"""The table of clients in `decider/FRONTENDS.md`: which clients were driven, and what each of them could do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FRONTENDS = ROOT / "tests" / "frontends"
PAGE = ROOT / "decider" / "FRONTENDS.md"
BEGIN, END = "<!-- clients -->\n", "<!-- /clients -->\n"
HEAD = (
    "Client",
    "resolves",
    "falls back when the server is late",
    "falls back when it is down",
    "tracks",
    "activates",
    "id survives to the purchase",
)
NO_DEADLINE = "no, nothing within 5 s"
NO_WAIT = "yes, if nothing waits for `setProviderAndWait`"


@dataclass(slots=True)
class Found:
    """Of one client; seen in its answers and in the log."""

    resolves: bool = False
    late: str = ""
    down: str = ""
    tracks: bool = False
    activates: bool = False
    survives: bool = False

    def cells(self) -> list[str]:
        """As the table has them.

        >>> Found(resolves=True, late="yes", down="yes").cells()
        ['yes', 'yes', 'yes', 'no', 'no', 'no']
        """
        says = {True: "yes", False: "no"}
        last = [says[one] for one in (self.tracks, self.activates, self.survives)]
        return [says[self.resolves], self.late, self.down, *last]


CLIENTS = {
    "python-ofrep": "Python, `openfeature-provider-ofrep` {openfeature-provider-ofrep}",
    "python-ofrep-ours": "- with `ofrep_provider`",
    "python-flagd": "Python, `openfeature-provider-flagd` {openfeature-provider-flagd}",
    "python-flagd-ours": "- with `flagd_provider`",
    "node-ofrep": "Node, `@openfeature/ofrep-provider` {@openfeature/ofrep-provider}",
    "node-ofrep-ours": "- with `withRewards`",
    "node-flagd": "Node, `@openfeature/flagd-provider` {@openfeature/flagd-provider}",
    "node-flagd-ours": "- with `withRewards`",
    "web-ofrep": "Chromium, `@openfeature/ofrep-web-provider` {@openfeature/ofrep-web-provider}",
    "web-ofrep-ours": "- with `withRewards`",
    "web-flagd": "Chromium, `@openfeature/flagd-web-provider` {@openfeature/flagd-web-provider}",
    "web-flagd-ours": "- with `withRewards`",
    "connect-web-json": "Chromium, `@connectrpc/connect-web` {@connectrpc/connect-web}, Connect in JSON",
    "connect-web-binary": "- Connect in protobuf",
    "grpc-web": "- gRPC-Web",
    "connect-node": "Node, `@connectrpc/connect-node` {@connectrpc/connect-node}, Connect in JSON",
    "connect-node-grpc": "- gRPC",
    "grpc-js": "Node, `@grpc/grpc-js` {@grpc/grpc-js}",
    "curl": "curl, JSON",
    "buf": "`buf curl`, Connect in JSON",
    "buf-grpc": "- gRPC",
    "java": "Java, `java.net.http` of the JDK, JSON",
    "java-grpc": "Java, grpc-java 1.41 of Debian 12, gRPC",
}
"""What was driven, by the name of its unit in the log."""


def table_of(found: Mapping[str, Found]) -> str:
    """In Markdown, with the versions that `make frontends` installs."""
    rows = [
        [re.sub(r"\{(.*?)\}", lambda name: _versions()[name[1]], CLIENTS[name]), *one.cells()]
        for name, one in found.items()
    ]
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _versions() -> dict[str, str]:
    packages = json.loads((FRONTENDS / "package.json").read_text())["dependencies"]
    return packages | dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (FRONTENDS / "requirements.txt").read_text(), re.MULTILINE)
    )


def written_table() -> str:
    """What the page has."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


def write_table(table: str) -> None:
    """Into the page, in place of what it has."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    PAGE.write_text(before + begin + table + end + after)
