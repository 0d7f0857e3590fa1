"""The clock runs a day ahead for some seconds (bad NTP answer, resumed VM) and is then put right. Is anything learned?"""
from _case import *

def day_ahead_then_right(seconds):
    """Run the real server with a clock that is a day ahead for its first seconds."""
    import decider.types as types, time as clock
    from decider.log.clock import LogClock
    began, right = clock.time(), types.now
    ahead = lambda: types.Time(right() + (86_400_000_000 if clock.time() - began < seconds else 0))
    from decider.server.command import serve
    serve.callback.__globals__["LogClock"] = lambda: LogClock(wall=ahead)
    from decider.server.command import main
    main(prog_name="decider")

if len(sys.argv) > 1 and sys.argv[1] == "serve":
    day_ahead_then_right(float(os.environ["AHEAD"]))
    sys.exit()

class Odd(Server):
    pass

path = write("shop.toml", toml(window="1s"))
def run(ahead, db):
    server = object.__new__(Server)
    server.port, server.http, server.db, server.out = PORT, PORT + 1, HERE / db, HERE / f"{db}.txt"
    server.process = subprocess.Popen([sys.executable, __file__, "serve", "--db", str(server.db), "--listen", f"127.0.0.1:{PORT}",
        "--http", f"127.0.0.1:{PORT+1}", "--experiments", str(path)], stdout=server.out.open("wb"), stderr=subprocess.STDOUT,
        env={**os.environ, "AHEAD": str(ahead)})
    while "gRPC on" not in server.text():
        time.sleep(0.2)
    return server

server = run(12, "jump.db")
try:
    stub = DeciderServiceStub(server.channel())
    batch(stub, 50)               # in the wrong day
    time.sleep(14)                # the clock is right again
    for _ in range(3):
        for d in batch(stub, 100):
            stub.Reward(pb.RewardRequest(decision_id=d), timeout=5)
    time.sleep(6)                 # the window of 1 s is over
    for name in ("decider_decisions_total", "decider_sealed_total", "decider_open_decisions", "decider_seal_lag_seconds",
                 "decider_model_age", "decider_model_position", "decider_learn_failures"):
        print(*server.metric(name), sep="\n")
    print("readyz:", server.get("/readyz"))
    open_ = float(server.metric("decider_open_decisions")[0].split()[-1])
    lag = float(server.metric("decider_seal_lag_seconds")[0].split()[-1])
    print("server's words:", [l for l in server.text().splitlines() if "ERROR" in l or "WARN" in l][-3:])
    server.signal()
    server = Server("--experiments", path, db="jump.db")  # an ordinary restart: does it help or warn?
    stub = DeciderServiceStub(server.channel())
    batch(stub, 10); time.sleep(5)
    open2 = float(server.metric("decider_open_decisions")[0].split()[-1])
    print("after an ordinary restart: open", open2, "; words:", [l for l in server.text().splitlines() if "ERROR" in l or "WARN" in l][-3:])
    verdict(open_ == 0 or lag > 0 or server.get("/readyz")[0] != 200, f"{open_:.0f} decisions are open long after their window of 1 s, seal lag says {lag}")
finally:
    server.kill()
