"""Small reports about assignments and rewards, one after the other; all on one server with a restart in the middle."""
from _case import *

def text(holdout=0.2, extra="", weights="", window="600s", reward=""):
    return f'id = "shop"\nholdout = {holdout}\nbaseline_action = "a"\n[[actions]]\nid = "a"\n{extra}[reward]\nwindow = "{window}"\n{weights}{reward}'
B = '[[actions]]\nid = "b"\n'
path = write("shop.toml", text(extra=B, weights="weights = { click = 0.5 }\n"))
write("one.toml", 'id = "one"\n[[actions]]\nid = "only"\n[reward]\nwindow = "1s"\n')
server = Server("--experiments", path, "--experiments", HERE / "one.toml")
stub = DeciderServiceStub(server.channel())
results = {}
def reward(id, name="click", **more):
    try: return pb.RewardOutcome.Name(stub.Reward(pb.RewardRequest(decision_id=id, name=name, **more), timeout=5).outcome)
    except grpc.RpcError as error: return error.code().name
def edit(content):
    """The file; until its version serves. A changed file is applied once it has stayed as it is for 3 s."""
    number, end = server.text().count("experiment shop, new version"), time.time() + 20
    path.write_text(content)
    while server.text().count("experiment shop, new version") == number:
        assert time.time() < end, "the file is not applied"
        time.sleep(0.05)
    time.sleep(0.2)
def held(): return {f"u{i}" for i in range(400) if decide(stub, f"u{i}").reason == pb.REASON_HOLDOUT}
try:
    one = [decide(stub, f"v{i}", "one") for i in range(20)]
    results["one arm"] = all(r.action.id == "only" and r.propensity == 1 and r.reason == pb.REASON_ONLY_ELIGIBLE for r in one)
    first = held(); before = decide(stub, "w1", decision_id="w1"); removed = next(d for d in (decide(stub, f"r{i}") for i in range(200)) if d.action.id == "b")
    edit(text(0.4, B, "weights = { click = 0.9 }\n")); more = held()
    edit(text(0.2, B, "weights = { click = 0.9 }\n")); again = held()
    results["holdout grows and shrinks at its edge"] = first <= more and again == first and len(more) > len(first)
    edit(text(0.2, "", "weights = { click = 0.9 }\n"))
    results["action removed, reward later"] = reward(removed.decision_id) == "REWARD_OUTCOME_JOINED"
    results["activate with the removed one"] = code(lambda: stub.Activate(pb.ActivateRequest(decision_id=removed.decision_id, action="a"), timeout=5)) == "OK"
    results["same reward id, two decisions"] = (reward("w1", reward_id="order-1"), reward(decide(stub, "w2", decision_id="w2").decision_id, reward_id="order-1")) == ("REWARD_OUTCOME_JOINED",) * 2
    early = reward("w3", reward_id="early"); decide(stub, "w3", decision_id="w3"); late = reward("w3", reward_id="early")
    results["reward before its decision, sent again"] = (early, late) == ("NOT_FOUND", "REWARD_OUTCOME_JOINED")
    results["same decision id, other context"] = decide(stub, "w1", decision_id="w1", context=pb.Context(segment="x")).action.id == before.action.id
    results["same decision id, other unit"] = code(lambda: decide(stub, "other", decision_id="w1")).startswith("ALREADY_EXISTS")
    server.signal(); server = Server("--experiments", path, "--experiments", HERE / "one.toml"); stub = DeciderServiceStub(server.channel())
    results["reward from before the restart"] = reward("w2", reward_id="order-2") == "REWARD_OUTCOME_JOINED"
    results["replayed reward id after the restart"] = reward("w1", reward_id="order-1") == "REWARD_OUTCOME_DUPLICATE"
    results["decision id after the restart"] = decide(stub, "w1", decision_id="w1").action.id == before.action.id
    sql = __import__("sqlite3").connect(f"file:{server.db}?mode=ro", uri=True)
    results["weight of the decision's version"] = sql.execute("select distinct r.weight from rewards r join decisions d on d.position = r.decision where d.decision_id = 'w1'").fetchall() == [(0.5,)]
    server.signal()
    run = subprocess.run([".venv/bin/simulator", "verify", str(server.db)], capture_output=True, text=True, timeout=200); print(run.stdout.strip().splitlines()[-1])
    results["verify"] = run.returncode == 0
    print(*results.items(), sep="\n"); verdict(all(results.values()), "semantics")
finally:
    server.kill()
