"""What the HTTP port answers, over real sockets: probes, scrapes in both formats, errors, and where it listens."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import logging
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click import BadParameter
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from decider.errors import AddressInUse, LogLocked
from decider.server.command import serve
from decider.server.http.connection import Connection
from decider.server.http.exposition import exposition
from decider.server.http.listen import open_socket
from decider.server.http.port import THREADS, HttpPort
from decider.server.http.probes import Readiness, probes
from decider.server.http.serving import make_server
from decider.server.http.turns import MOST_WAITING
from tests.rpc_clients import PATIENCE, InProcessClient, ServerProcess, experiment, fetch, refused, until

PATHS = ("/metrics", "/healthz", "/readyz")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessClient]:
    """A whole server with a few decisions and rewards, which stay as they are."""
    opened = InProcessClient(tmp_path_factory.mktemp("http") / "log.db", learn_interval=3600.0)
    opened.apply(experiment("e", "a", "b"))
    for unit in range(20):
        opened.reward(opened.decide("e", f"unit-{unit}").decision_id, name="click")
    yield opened
    opened.close()


Answer = tuple[int, http.client.HTTPMessage, bytes]


def ask(address: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """Status, headers and body of one request on a connection of its own. `a_b` is the header `a-b`."""
    with closing(http.client.HTTPConnection(address, timeout=PATIENCE)) as connection:
        return ask_on(connection, path, method, **headers)


def ask_on(connection: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str) -> Answer:
    """The same on a connection that stays."""
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


@contextmanager
def port(*routes: Route) -> Iterator[str]:
    """An HTTP port of routes that the test makes; its address."""
    opened = HttpPort("127.0.0.1", 0, routes=routes)
    opened.start()
    try:
        yield f"127.0.0.1:{opened.port}"
    finally:
        assert opened.stop(PATIENCE)


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
def test_head_is_answered_as_get_without_a_body(client: InProcessClient, path: str) -> None:
    """Load balancers ask so; they must learn the same as from a GET."""
    got, asked = ask(client.http, path), ask(client.http, path, "HEAD")
    assert asked[0] == got[0]
    assert asked[2] == b""
    assert asked[1]["Content-Type"] == got[1]["Content-Type"]
    if path != "/metrics":  # which says how much memory there is
        assert asked[1]["Content-Length"] == str(len(got[2]))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize("path", PATHS)
def test_other_methods_are_refused_with_those_that_are_possible(
    client: InProcessClient, path: str, method: str
) -> None:
    """A POST that seems to work would hide a mistake in a script."""
    status, headers, body = ask(client.http, path, method)
    assert (status, {*headers["Allow"].split(", ")}) == (405, {"GET", "HEAD"})
    assert body == b"Method Not Allowed\n"


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "//healthz", "/../../etc/passwd"])
def test_an_unknown_path_says_what_there_is(client: InProcessClient, path: str) -> None:
    """Whoever mistypes the path of a probe finds the right one in the answer, and is sent nowhere else."""
    status, headers, body = ask(client.http, path, Host="elsewhere.example")
    assert (status, body) == (404, b"there are /metrics, /healthz, /readyz, /, /experiments/ and /decisions/\n")
    assert "Location" not in headers


def test_a_query_changes_nothing(client: InProcessClient) -> None:
    """Some probes add one so that no cache answers."""
    assert ask(client.http, "/healthz?now=1")[::2] == (200, b"ok\n")


def test_requests_follow_each_other_on_one_connection(client: InProcessClient) -> None:
    """A scraper saves a connection for each scrape."""
    with closing(http.client.HTTPConnection(client.http, timeout=PATIENCE)) as connection:
        connection.connect()
        first = connection.sock
        for path, method in [("/metrics", "GET"), ("/nothing", "GET"), ("/metrics", "HEAD"), ("/healthz", "GET")] * 2:
            ask_on(connection, path, method)
        assert connection.sock is first


def test_the_body_of_an_answer_waits_for_no_acknowledgement() -> None:
    """Head and body are written apart: without TCP_NODELAY every answer but a connection's first took 40 ms more."""
    seen: list[socket.socket] = []

    class Noting(Connection):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            seen.append(transport.get_extra_info("socket"))

    app = Starlette(routes=[Route("/", lambda _: Response())])
    server = make_server(app, certificates=None, http=Noting, lifespan="off")
    with open_socket("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with closing(http.client.HTTPConnection(address, timeout=PATIENCE)) as connection:
            ask_on(connection, "/")
            is_set = seen[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        server.should_exit = True
        thread.join(PATIENCE)
    assert is_set


def test_old_and_hasty_callers_are_answered(client: InProcessClient) -> None:
    """HTTP/1.0 without a Host, a caller that closes its half at once, and requests sent without waiting."""
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    assert talk(client.http, b"GET /healthz HTTP/1.0\r\n\r\n").count(b"ok\n") == 1
    assert b"# TYPE decider_decisions_total counter" in talk(client.http, b"GET /metrics HTTP/1.0\r\n\r\n", half=True)
    assert talk(client.http, health * 9 + health.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).count(
        b"\r\n\r\nok\n"
    ) == 10  # fmt: skip


def talk(address: str, request: bytes, *, half: bool = False) -> bytes:
    """Everything that is answered until the server closes. half: close our half first."""
    host, _, number = address.rpartition(":")
    with socket.create_connection((host, int(number)), PATIENCE) as sock:
        sock.sendall(request)
        if half:
            sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65_536), b""))


def scrape(address: str, **headers: str) -> tuple[str, bytes]:
    """Content type and body of a scrape that works."""
    status, found, body = ask(address, "/metrics", **headers)
    assert status == 200
    return found["Content-Type"], body


ASKS_FOR_OPENMETRICS = (
    "application/openmetrics-text",
    "application/openmetrics-text; version=1.0.0",
    "application/openmetrics-text;version=99.x;escaping=nothing",
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
)


@pytest.mark.parametrize("accept", ASKS_FOR_OPENMETRICS)
def test_openmetrics_is_sent_to_who_asks_for_it(client: InProcessClient, accept: str) -> None:
    """A strict reader takes every line, and finds what the text format says: before it and after it the same, while the
    server may still be at work on what came last."""

    def texts_around() -> tuple[str, bytes, bytes] | None:
        before, (found, body), after = (scrape(client.http, **sent) for sent in ({}, {"Accept": accept}, {}))
        alike = samples_of_text(before[1]) == samples_of_text(after[1])
        return (found, body, after[1]) if alike else None

    content_type, body, text = client.until(texts_around, what="nothing changes between two scrapes")
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body.endswith(b"\n# EOF\n")
    strictly = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
    assert samples(strictly) == samples_of_text(text)


def samples_of_text(body: bytes) -> dict[tuple[str, str], float]:
    """`samples` of a body in the text format."""
    return samples(parse_text(body.decode()))


def samples(families: Iterable[Metric]) -> dict[tuple[str, str], float]:
    """The samples of ours by name and labels."""
    return {
        (sample.name, repr(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith(("decider_", "grpc_")) and sample.name not in CHANGES
    }


CHANGES = {
    "decider_disk_free_bytes",
    "decider_clock_offset_seconds",
    "decider_model_age_seconds",
    "decider_seal_lag_seconds",
}
"""From one scrape to the next, on a server that nobody calls."""


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "text/html, nonsense;;=,", "application/openmetrics"])
def test_everybody_else_is_sent_the_text_format(client: InProcessClient, accept: str) -> None:
    """It is what every reader knows."""
    content_type, body = scrape(client.http, Accept=accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\ndecider_decisions_total{" in body


def test_promtool_has_nothing_to_say(client: InProcessClient) -> None:
    """Prometheus' own check of names, types and help texts."""
    binary = shutil.which("promtool", path="/usr/bin")
    if binary is None:
        pytest.skip("there is no /usr/bin/promtool")
    _, body = scrape(client.http)
    done = subprocess.run([binary, "check", "metrics"], input=body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"])
def test_a_scrape_is_compressed_where_that_is_asked_for(client: InProcessClient, accept: str) -> None:
    """A scrape is text that repeats itself: it becomes a tenth."""
    status, headers, body = ask(client.http, "/metrics", Accept=accept, Accept_Encoding="gzip")
    plain = scrape(client.http, Accept=accept)[1]
    assert (status, headers["Content-Encoding"], headers["Content-Length"]) == (200, "gzip", str(len(body)))
    assert samples(parse_text(gzip.decompress(body).decode())).keys() == samples(parse_text(plain.decode())).keys()
    assert len(body) < len(plain) / 5


@pytest.mark.parametrize("encoding", ["", "identity", "deflate, br", "gzipped"])
def test_a_scrape_is_plain_for_everybody_else(client: InProcessClient, encoding: str) -> None:
    """A reader must get what it can read."""
    _, headers, body = ask(client.http, "/metrics", Accept_Encoding=encoding)
    assert "Content-Encoding" not in headers
    assert body.startswith(b"# HELP")


def ipv6() -> bool:
    """Whether this machine has it."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not ipv6(), reason="no IPv6 on this machine")


@needs_ipv6
@pytest.mark.parametrize("host", ["[::1]", "[::]", "[0:0:0:0:0:0:0:1]"])
def test_both_ports_listen_on_ipv6(tmp_path: Path, host: str) -> None:
    """There are clusters without IPv4; the addresses that are shown must be such as can be called."""
    server = ServerProcess(tmp_path / "log.db", "--listen", f"{host}:0", "--http", f"{host}:0")
    try:
        assert server.target.startswith(f"{host}:")
        assert server.http.startswith(f"{host}:")
        assert ask(server.http, "/healthz")[0] == 200
        with closing(server.client()) as client:
            client.apply(experiment("e"))
            assert client.decide("e").decision_id
        if host == "[::]":
            assert ask(server.http.replace("[::]", "127.0.0.1"), "/readyz")[0] == 200
        code, output = refused(tmp_path / "other.db", "--http", server.http)
        assert (code, "Traceback" in output) == (1, False)
        assert f"cannot listen on {server.http} for HTTP: [Errno 98] Address already in use\n" in output
    finally:
        assert server.terminate() == 0


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0"])
def test_ipv4_and_names_are_found_where_they_were(host: str) -> None:
    """A name that has addresses of both kinds is its IPv4 one, as it was before there was IPv6 here."""
    opened = HttpPort(host, 0, routes=probes(lambda: Readiness(True, "ok")))
    opened.start()
    assert fetch(f"http://127.0.0.1:{opened.port}/readyz") == (200, "ok\n")
    assert opened.stop(PATIENCE)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "x" * 300, "203.0.113.7", "2001:db8::7"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    """In one sentence that names it."""
    with pytest.raises(AddressInUse, match=r"cannot listen on .* for HTTP: "):
        HttpPort(host, 9, routes=probes(lambda: Readiness(True, "ok")))


NO_ADDRESSES = (
    *("", ":9464", "9464", "shop", "shop:", "shop:x", "shop:65536", "a b:1"),
    *("::1:9464", "[::1]", "[::1:9464", "[shop]:9464"),
)


@pytest.mark.parametrize("option", ["--http", "--listen"])
@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_address_is_refused(option: str, address: str) -> None:
    """`::1:9464` could be an address and a port, or an address alone: brackets say which."""
    with pytest.raises(BadParameter, match=r"is not HOST:PORT, like 127\.0\.0\.1:50051 or \[::1\]:50051"):
        serve.make_context("serve", [f"{option}={address}"])


def raises(error: Exception) -> Route:
    """A path that fails."""

    def endpoint(_: Request) -> Response:
        raise error

    return Route("/fails", endpoint)


def test_an_error_of_ours_is_answered_and_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """The text says what to do, to whoever asked and to whoever reads the output."""
    with port(raises(LogLocked("another process keeps the log locked"))) as address:
        assert fetch(f"http://{address}/fails") == (500, "another process keeps the log locked\n")
    (record,) = caplog.records
    assert (record.getMessage(), record.exc_info) == ("/fails: another process keeps the log locked", None)


def test_any_other_error_is_logged_with_its_traceback_and_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A traceback tells strangers about the machine; operators need it, once."""
    with port(raises(ValueError("the password is 1234"))) as address:
        assert fetch(f"http://{address}/fails") == (500, "this failed; the server's output says why\n")
        assert ask(address, "/nothing")[0] == 404
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "the password is 1234" in str(record.exc_info[1])
    assert record.levelno == logging.ERROR


def reads_body() -> Route:
    """A path that takes a body, as those for operators do."""

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    return Route("/body", endpoint, methods=["POST"])


def test_a_body_is_taken_up_to_a_bound() -> None:
    """What a stranger sends must not fill the memory, declared or in pieces."""
    with port(reads_body()) as address, closing(http.client.HTTPConnection(address, timeout=PATIENCE)) as connection:
        connection.request("POST", "/body", b"x" * 1000)
        assert connection.getresponse().read() == b"1000"
        connection.request("POST", "/body", iter([b"x" * 500, b"y" * 500]), encode_chunked=True)
        assert connection.getresponse().read() == b"1000"
        connection.request("POST", "/body", iter([b"x" * 60_000] * 2), encode_chunked=True)
        assert connection.getresponse().status == 413
    with port(reads_body()) as address, closing(http.client.HTTPConnection(address, timeout=PATIENCE)) as connection:
        connection.request("POST", "/body", headers={"Content-Length": "99999999"})
        assert connection.getresponse().status == 413


def test_a_caller_that_leaves_in_the_middle_of_its_body_leaves_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """Phones lose their network all the time."""
    with port(reads_body()) as address:
        host, _, number = address.rpartition(":")
        for _ in range(3):
            with socket.create_connection((host, int(number)), PATIENCE) as sock:
                sock.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
        assert ask(address, "/body", "POST")[0] == 200
    assert not caplog.records


class Stuck(Collector):
    """A log that takes as long to be counted as the test likes. `counts`: how often it was counted."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.counts = 0

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not count."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Waits."""
        self.counts += 1
        mine = self.counts
        assert self.free.wait(PATIENCE)
        yield CounterMetricFamily("counts", "How often it was counted.", value=mine)


@contextmanager
def stuck() -> Iterator[tuple[Stuck, str]]:
    """A port whose scrapes are stuck in the log until they are let go."""
    collector, registry = Stuck(), CollectorRegistry()
    registry.register(collector)
    try:
        with port(exposition(registry), *probes(lambda: Readiness(True, "ok"))) as address:
            try:
                yield collector, address
            finally:
                collector.free.set()
    finally:
        collector.free.set()


def test_scrapes_that_wait_share_one_count_and_keep_no_probe(caplog: pytest.LogCaptureFixture) -> None:
    """Many scrapers at once cost as much as two, and none is told what was true before it asked. A liveness probe that
    waited for a slow disk would have the process killed, which makes nothing better."""
    with stuck() as (log, address), ThreadPoolExecutor(2 * MOST_WAITING) as pool:
        asked = [pool.submit(ask, address, "/metrics") for _ in range(2 * MOST_WAITING)]
        until(lambda: sum(one.done() for one in asked) == MOST_WAITING, what="those that are too many are refused")
        assert [ask(address, path)[0] for path in ("/healthz", "/readyz", "/nothing")] == [200, 200, 404]
        log.free.set()
        answers = [one.result() for one in asked]
    assert {answer[2] for answer in answers if answer[0] == 503} == {b"too many ask at once; try again later\n"}
    assert all("Retry-After" in answer[1] for answer in answers if answer[0] == 503)
    counted = [answer[2].rpartition(b"counts_total ")[2] for answer in answers if answer[0] == 200]
    assert len(counted) == MOST_WAITING
    assert {*counted} <= {b"1.0\n", b"2.0\n"}
    assert not caplog.records


def test_every_form_of_a_scrape_takes_its_turn() -> None:
    """Formats differ in text alone: two scrapers that ask for different ones count one after the other."""
    forms = [{}, {"Accept": "application/openmetrics-text"}, {"Accept_Encoding": "gzip"}]
    with stuck() as (log, address), ThreadPoolExecutor() as pool:
        asked = [pool.submit(scrape, address, **form) for form in forms]
        until(lambda: log.counts, what="one of them counts")
        assert ask(address, "/readyz")[0] == 200
        assert log.counts == 1
        log.free.set()
        assert all(one.result() for one in asked)


def test_a_readiness_that_hangs_keeps_nobody_else() -> None:
    """It reads the log; liveness reads nothing."""
    free = threading.Event()

    def ready() -> Readiness:
        free.wait(PATIENCE)
        return Readiness(False, "slow")

    with port(*probes(ready)) as address, ThreadPoolExecutor() as pool:
        asked = [pool.submit(ask, address, "/readyz") for _ in range(5)]
        assert ask(address, "/healthz")[::2] == (200, b"ok\n")
        free.set()
        assert {one.result()[::2] for one in asked} == {(503, b"slow\n")}


def test_endpoints_that_block_have_few_threads() -> None:
    """A page that reads the log for each of a hundred readers must not become a hundred threads."""
    running, most = [0], [0]
    lock = threading.Lock()

    def endpoint(_: Request) -> Response:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.02)
        with lock:
            running[0] -= 1
        return PlainTextResponse("read")

    with port(Route("/reads", endpoint)) as address, ThreadPoolExecutor(32) as pool:
        assert {one[0] for one in pool.map(lambda _: ask(address, "/reads"), range(64))} == {200}
    assert most[0] == THREADS


def test_a_stop_waits_for_what_is_under_way_but_not_longer_than_it_is_told() -> None:
    """An answer that reads the log has to end before the log is closed; one that never ends must not keep us."""
    collector, registry = Stuck(), CollectorRegistry()
    registry.register(collector)
    opened = HttpPort("127.0.0.1", 0, routes=[exposition(registry)])
    opened.start()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(scrape, f"127.0.0.1:{opened.port}")
        until(lambda: collector.counts, what="the scrape counts")
        assert not opened.stop(0.2)
        collector.free.set()
        assert opened.stop(PATIENCE)
        assert b"counts_total 1.0" in asked.result()[1]


def test_a_port_that_never_started_lets_go_of_its_address() -> None:
    """A start that fails closes what it has opened."""
    routes: Sequence[Route] = probes(lambda: Readiness(True, "ok"))
    opened = HttpPort("127.0.0.1", 0, routes=routes)
    with pytest.raises(AddressInUse):
        HttpPort("127.0.0.1", opened.port, routes=routes)
    assert opened.stop()
    again = HttpPort("127.0.0.1", opened.port, routes=routes)
    assert again.stop()
