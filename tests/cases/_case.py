"""Helper of the cases in this folder. Run from the root: PYTHONPATH=. .venv/bin/python tests/cases/NAME.py
Loopback, ports 52300-52399 (CASE_PORT moves them), files under $TMPDIR; ends only what it started."""
import os, signal, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

import grpc
from decider.v1 import decider_service_pb2 as pb, experiment_pb2 as ex, experiment_service_pb2 as xs
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub

PORT = int(os.environ.get("CASE_PORT", "52300"))
HERE = Path(tempfile.mkdtemp(prefix="case-"))
TOML = """id = "{id}"
baseline_action = "a"
[[actions]]
id = "a"
[[actions]]
id = "b"
[policy]
{policy} = {{}}
[reward]
window = "{window}"
"""


def toml(id="shop", policy="thompson", window="1s"):
    return TOML.format(id=id, policy=policy, window=window)


class Server:
    """`decider serve` as a child; .out is its combined output."""

    def __init__(self, *args, db="log.db", port=PORT, pre=(), wait=60, env=None):
        self.port, self.http, self.db = port, port + 1, HERE / db
        self.out = HERE / f"out-{time.time_ns()}.txt"
        command = [*pre, ".venv/bin/decider", "serve", "--db", str(self.db), "--listen", f"127.0.0.1:{port}",
                   "--http", f"127.0.0.1:{port + 1}", *map(str, args)]
        self.process = subprocess.Popen(command, stdout=self.out.open("wb"), stderr=subprocess.STDOUT,
                                        env={**os.environ, **(env or {})})
        end = time.time() + wait
        while wait and "gRPC on" not in self.text():
            if self.process.poll() is not None or time.time() > end:
                raise SystemExit(f"server did not start: {self.text()[-2000:]}")
            time.sleep(0.1)

    def text(self):
        return self.out.read_text(errors="replace")

    def channel(self, *options):
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", options=[("grpc.use_local_subchannel_pool", 1), *options])

    def get(self, path="/metrics", timeout=30):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=timeout) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, start):
        return [line for line in self.get()[1].splitlines() if line.startswith(start)]

    def signal(self, number=signal.SIGTERM, wait=30):
        """Seconds until it ended; None if it did not."""
        began = time.time()
        self.process.send_signal(number)
        try:
            self.process.wait(wait)
        except subprocess.TimeoutExpired:
            return None
        return round(time.time() - began, 1)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def write(name, text):
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def decide(stub, unit="u", experiment="shop", timeout=10, **more):
    return stub.Decide(pb.DecideRequest(experiment=experiment, unit_id=unit, **more), timeout=timeout)


def batch(stub, count, experiment="shop", timeout=60, **features):
    done = 0
    while done < count:
        size = min(1000, count - done)
        requests = [pb.DecideRequest(experiment=experiment, unit_id=f"u{done + i}") for i in range(size)]
        for i, request in enumerate(requests):
            request.context.segment = f"s{i % 7}"
            request.context.features.update({"age": float(i % 60)})
        ids = [r.response.decision_id for r in stub.DecideBatch(pb.DecideBatchRequest(requests=requests), timeout=timeout).results]
        done += size
    return ids


def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()[:150]}"
    return "OK"


def verdict(ok, text):
    print(("PASS " if ok else "FAIL ") + text)
    sys.exit(0 if ok else 1)
