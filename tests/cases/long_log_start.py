"""A log of ROWS decisions whose models cannot be used (new release, changed file, damaged row): what does a start look like
from outside (liveness probe, SIGTERM, SIGKILL half way), how long is the first scrape, and Decide meanwhile?"""
import shutil, sqlite3, threading
from _case import *

ROWS = int(os.environ.get("ROWS", "200000"))
path = write("shop.toml", toml())
from decider.experiment.schema import from_message, parse_toml
from tests.long_logs import write_past
write_past(HERE / "log.db", ROWS, from_message(parse_toml(path.read_text(), str(path))))
cpu = lambda s: sum(map(int, open(f"/proc/{s.process.pid}/stat").read().split()[13:15])) / 100
print(f"log of {ROWS} decisions: {(HERE / 'log.db').stat().st_size/1e6:.0f} MB")

def probe():
    try: return server.get("/healthz", timeout=2)[0]
    except OSError as error: return type(getattr(error, "reason", error)).__name__

again = Server("--experiments", path, wait=0); server = again; began = time.time()
seen = {}
while time.time() - began < 6:
    seen[round(time.time() - began)] = probe(); time.sleep(1)
print("liveness probe in the first seconds of a start:", seen)
took = again.signal(wait=200)
print(f"SIGTERM 6 s into the start: ended after {took} s; words: {again.text().splitlines()[-1:]}")
data = lambda: sqlite3.connect(f"file:{server.db}?mode=ro", uri=True).execute("select count(*) from models where data is not null").fetchone()[0]
db = sqlite3.connect(server.db); db.execute("delete from models"); db.commit(); db.close()
if os.environ.get("KILL", "1") == "1":
    again = Server("--experiments", path, wait=0); time.sleep(10); again.kill()
    print("killed 10 s into a start: models kept of that work:", data())
began = time.time()
again = Server("--experiments", path, wait=600); print(f"a start left alone: {time.time()-began:.0f} s until it serves, {cpu(again):.0f} s of CPU")
began = time.time(); again.signal(); again = Server("--experiments", path, wait=600); print(f"a restart with its model: {time.time()-began:.0f} s")
server = again
known = DeciderServiceStub(again.channel()); decide(known)
slow, done = [], threading.Event()
def load():
    while not done.is_set():
        t = time.time(); decide(known, timeout=60); slow.append(time.time() - t); time.sleep(0.02)
thread = threading.Thread(target=load); thread.start(); time.sleep(2); calm = max(slow); slow.clear()
t = time.time(); status, text = again.get(timeout=300); first = time.time() - t
worst = max(slow or [0]); t = time.time(); again.get(); second = time.time() - t; done.set(); thread.join()
print(f"first scrape {first:.1f} s, next {second:.2f} s; slowest Decide: before {calm*1000:.0f} ms, during the first scrape {worst*1000:.0f} ms")
print("RSS kB", [l for l in open(f"/proc/{again.process.pid}/status") if l.startswith(("VmRSS", "VmHWM"))])
again.signal()
verdict(200 in seen.values() and took is not None and took < 15, "a long start answers its liveness probe and heeds SIGTERM")
