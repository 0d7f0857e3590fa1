// decider/client/typescript/client.js, as it is served, in Node: what it sends, what it gives, what it does in failures.
// Run by tests/test_typescript_client.py; by hand: node --test --test-force-exit tests/frontends/typescript_client.test.mjs

import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";

import { Client, DeciderError } from "../../decider/client/typescript/client.js";
import { Stub } from "./connect_stub.mjs";

const stub = await new Stub().start();
const clients = [];
const failures = [];
console.warn = () => {}; // the client's lines about the failures that are made here

beforeEach(() => {
  stub.calls = [];
  stub.mode = {};
  failures.length = 0;
});
after(async () => {
  await Promise.all(clients.map((one) => one.close(0)));
  await stub.stop();
});

function client(options = {}, url = stub.url) {
  const made = new Client(url, { timeoutMs: 20_000, onError: (failure) => failures.push(failure), ...options });
  clients.push(made);
  return made;
}

/** As localStorage is; `full` and `denied` as browsers are. */
class FakeStorage {
  map = new Map();
  full = false;
  denied = false;
  #check() {
    if (this.denied) throw new Error("SecurityError");
  }
  getItem(key) {
    this.#check();
    return this.map.get(key) ?? null;
  }
  setItem(key, value) {
    this.#check();
    if (this.full) throw new Error("QuotaExceededError");
    this.map.set(key, String(value));
  }
  removeItem(key) {
    this.#check();
    this.map.delete(key);
  }
  key(place) {
    this.#check();
    return [...this.map.keys()][place] ?? null;
  }
  get length() {
    this.#check();
    return this.map.size;
  }
}

const until = async (condition, ms = 30_000) => {
  for (const end = Date.now() + ms; !condition(); ) {
    assert.ok(Date.now() < end, `not within ${ms} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

test("a decision, its reward, its activation", async () => {
  const one = client({ key: "page-key" });
  const decision = await one.decide("storefront", "visitor-1", {
    fallback: "none",
    segment: "vip",
    intentStage: null,
    features: { price: 19.9, member: true, size: null, colour: undefined, 日本: "🛒" },
  });
  assert.equal(decision.action.id, "sale");
  assert.deepEqual(decision.action.payload, { title: "Sale of storefront", price: 5 });
  assert.equal(decision.reason, "REASON_EXPLORE");
  assert.deepEqual(decision.ranking, []);
  const [call] = stub.calls;
  assert.deepEqual(call.request.context, { segment: "vip", features: { price: 19.9, member: true, 日本: "🛒" } });
  assert.equal(call.request.decisionId, decision.decisionId);
  assert.match(decision.decisionId, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(call.authorization, "Bearer page-key");
  assert.equal(call.type, "application/json");
  assert.equal(await one.reward(decision.decisionId, "click"), "joined");
  assert.equal(await one.reward(decision.decisionId, "purchase", 80, { rewardId: "order-1", final: true }), "joined");
  assert.equal(await one.reward(decision.decisionId, "purchase", 80, { rewardId: "order-1" }), "duplicate");
  assert.equal(await one.activate(decision.decisionId), "activated");
  assert.equal(await one.activate(decision.decisionId, "none"), "duplicate");
  assert.equal(await one.rewardUnit("customer-7", "purchase", 80, { experiment: "storefront" }), "joined");
  assert.equal(await one.linkUnits("visitor-1", "customer-7"), "linked");
  const occurredAt = new Date("2026-11-29T12:00:00Z");
  await one.reward(decision.decisionId, null, undefined, { rewardId: "order-1", retract: true, occurredAt });
  const last = stub.of("Reward").pop();
  assert.deepEqual(last, {
    ...{ decisionId: decision.decisionId, rewardId: "order-1", retract: true },
    occurredAt: "2026-11-29T12:00:00.000Z",
  });
  assert.equal(one.waiting, 0);
  assert.deepEqual(failures, []);
});

test("calls of one moment are one DecideBatch, and each has its own answer", async () => {
  const one = client();
  const [banner, cart, wrong, free] = await Promise.all([
    one.decide("storefront", "visitor-1", { fallback: "none" }),
    one.decide("cart", "visitor-1", { fallback: "none" }),
    one.decide("unknown", "visitor-1", { fallback: "none" }),
    one.decide("unknown", "visitor-1").catch((error) => error),
  ]);
  assert.deepEqual(stub.calls.map((call) => call.method), ["DecideBatch"]);
  assert.equal(banner.action.payload.title, "Sale of storefront");
  assert.equal(cart.action.payload.title, "Sale of cart");
  assert.deepEqual([wrong.action.id, wrong.decisionId, wrong.reason], ["none", "", "REASON_FALLBACK"]);
  assert.ok(free instanceof DeciderError);
  assert.deepEqual([free.code, free.reason], ["NOT_FOUND", "EXPERIMENT_NOT_FOUND"]);
  assert.deepEqual(one.fallbacks, [{ code: "NOT_FOUND", reason: "EXPERIMENT_NOT_FOUND", count: 1 }]);
  assert.equal(one.waiting, 0); // the server said that it did nothing: there is nothing to report
});

test("a batch has a result for each request", async () => {
  const one = client();
  const results = await one.decideBatch([
    { experiment: "storefront", unitId: "visitor-1", segment: "vip" },
    { experiment: "unknown", unitId: "visitor-2" },
    { experiment: "unknown", unitId: "visitor-3", fallback: { id: "plain", payload: { title: "Hello" } } },
  ]);
  assert.equal(results[0].response.action.id, "sale");
  assert.equal(results[1].error.code, "NOT_FOUND");
  assert.deepEqual(results[2].response.action, { id: "plain", kind: "", payload: { title: "Hello" } });
  const wrong = [{ experiment: "storefront", unitId: "a" }, { experiment: "storefront", unitId: 4711 }];
  await assert.rejects(one.decideBatch(wrong), /^TypeError: requests\[1\].unitId: is of type number/);
  const shown = await one.decideBatch(wrong, { fallback: "none" });
  assert.deepEqual(shown.map(({ response }) => response.action.id), ["sale", "none"]);
  assert.equal((await one.decideBatch(Array(1001).fill({ experiment: "e", unitId: "u" }), { fallback: "none" })).length, 1001);
  assert.deepEqual(stub.of("DecideBatch").map(({ requests }) => requests.length).slice(-1), [1000]);
  assert.deepEqual(await one.decideBatch("wrong", { fallback: "none" }), []);
});

test("a slate", async () => {
  const one = client();
  const slots = [{ features: { place: "top" } }, { excludedActions: ["none"] }];
  const page = await one.decideSlate("storefront", "visitor-1", slots, { fallback: ["a", "b"], slateId: "page-7" });
  assert.deepEqual(page.decisions.map((one) => one.decisionId), ["page-7/0", "page-7/1"]);
  assert.deepEqual(stub.of("DecideSlate")[0].slots, slots);
  await assert.rejects(one.decideSlate("storefront", "v", slots, { fallback: ["a"] }), /has 1 actions for 2 slots/);
  stub.mode = { hang: true, only: "DecideSlate" };
  const fallback = await one.decideSlate("storefront", "v", slots, {
    ...{ fallback: ["a", "b"], slateId: "page-8", timeoutMs: 50 },
  });
  assert.deepEqual([fallback.slateId, fallback.decisions.map((one) => one.action.id)], ["", ["a", "b"]]);
  await until(() => stub.of("Activate").length === 2);
  assert.deepEqual(stub.of("Activate"), [
    { decisionId: "page-8/0", action: "a" },
    { decisionId: "page-8/1", action: "b" },
  ]);
});

test("a slow server: the fallback in time, and the server is told what was shown", async () => {
  const one = client({ timeoutMs: 100 });
  stub.mode = { delayMs: 1000, only: "Decide" };
  const decision = await one.decide("storefront", "visitor-1", { fallback: { id: "none", payload: { title: "Hello" } } });
  assert.deepEqual(decision.action, { id: "none", kind: "", payload: { title: "Hello" } });
  assert.equal(decision.decisionId, "");
  assert.equal(await one.reward(decision.decisionId, "click"), "nothing");
  assert.equal(await one.activate(decision.decisionId), "nothing");
  await until(() => stub.of("Activate").length);
  assert.deepEqual(stub.of("Activate"), [{ decisionId: stub.of("Decide")[0].decisionId, action: "none" }]);
  assert.equal(failures[0].code, "DEADLINE_EXCEEDED");
  assert.deepEqual([failures[0].consequence, failures[0].shown], ["fallback", "none"]);
  await assert.rejects(one.decide("storefront", "visitor-1"), { name: "DeciderError", code: "DEADLINE_EXCEEDED" });
  stub.mode = { delayMs: 100 };
  const [quick, patient] = await Promise.all([
    one.decide("storefront", "visitor-1", { fallback: "none", timeoutMs: 20 }),
    one.decide("storefront", "visitor-1", { fallback: "none", timeoutMs: 20_000 }),
  ]);
  assert.deepEqual([quick.action.id, patient.action.id], ["none", "sale"]);
});

test("a fetch that never ends, and one that throws", async () => {
  const hanging = client({ fetch: (url, rest) => (url.endsWith("/Decide") ? new Promise(() => {}) : fetch(url, rest)), timeoutMs: 30 });
  assert.equal((await hanging.decide("e", "u", { fallback: "none" })).action.id, "none");
  const broken = client({ fetch: () => { throw new RangeError("no"); } });
  assert.equal((await broken.decide("e", "u", { fallback: "none" })).action.id, "none");
});

test("what servers and proxies answer", async () => {
  const one = client();
  const info = Buffer.from([10, 13, ...Buffer.from("RATE_EXCEEDED"), 18, 10, ...Buffer.from("decider.v1")]);
  const detail = { type: "google.rpc.ErrorInfo", value: info.toString("base64").replace(/=+$/, "") };
  const limited = JSON.stringify({ code: "resource_exhausted", message: "too many", details: [detail] });
  for (const [mode, code, reason] of [
    [{ status: 429, text: limited }, "RESOURCE_EXHAUSTED", "RATE_EXCEEDED"],
    [{ status: 499, text: '{"code": "canceled"}' }, "CANCELLED", ""],
    [{ status: 500, text: '{"code": "internal", "details": [{"type": "google.rpc.ErrorInfo", "value": 7}, null]}' }, "INTERNAL", ""],
    [{ status: 500, text: "boom" }, "UNKNOWN", "NOT_DECIDER"],
    [{ status: 502, text: "<html>" }, "UNAVAILABLE", "NOT_DECIDER"],
    [{ status: 404, text: "" }, "UNIMPLEMENTED", "NOT_DECIDER"],
    [{ status: 200, text: "<html>sign in to this hotel" }, "UNAVAILABLE", "NOT_DECIDER"],
    [{ status: 200, text: "null" }, "UNAVAILABLE", "NOT_DECIDER"],
    [{ status: 200, text: "{}" }, "UNKNOWN", ""],
  ]) {
    stub.mode = { only: "Decide", ...mode };
    assert.equal((await one.decide("e", "u", { fallback: "none" })).decisionId, "");
    const failure = failures.filter((failure) => failure.call === "Decide").pop();
    assert.deepEqual([failure.code, failure.reason], [code, reason], JSON.stringify(mode));
  }
});

test("rewards during an outage wait, and come once, in order", async () => {
  const gone = await new Stub().start();
  const one = client({}, gone.url);
  await gone.stop();
  assert.equal((await one.decide("e", "u", { fallback: "none" })).action.id, "none");
  assert.equal(one.waiting, 0); // nothing was sent, so nothing was committed
  assert.equal(failures[0].reason, "NOT_CONNECTED");
  assert.equal(await one.reward("d-1", "click"), "queued");
  assert.equal(await one.reward("d-1", "purchase", 80), "queued");
  assert.equal(await one.activate("d-1"), "queued");
  assert.equal(one.waiting, 3);
  assert.equal(await one.flush(50), false);
  await gone.start(gone.port);
  assert.equal(await one.flush(30_000), true);
  assert.deepEqual(gone.calls.map(({ method, request }) => [method, request.name]), [
    ["Reward", "click"],
    ["Reward", "purchase"],
    ["Activate", undefined],
  ]);
  assert.deepEqual(one.undelivered, []);
  assert.deepEqual(failures.map((failure) => failure.consequence), ["fallback", "queued"]); // the others were not tried
  await one.close(0);
  await gone.stop();
});

test("a reward whose answer was lost is sent again under the same id", async () => {
  const one = client({ timeoutMs: 60 });
  stub.mode = { hang: true, only: "Reward" };
  assert.equal(await one.reward("d-2", "click"), "queued");
  stub.mode = {};
  assert.equal(await one.flush(30_000), true);
  const [first, second] = stub.of("Reward");
  assert.equal(first.rewardId, second.rewardId);
});

test("a server that says when", async () => {
  const one = client();
  stub.mode = { status: 429, text: '{"code": "resource_exhausted"}', headers: { "retry-after": "1" } };
  const start = performance.now();
  assert.equal(await one.reward("d-3", "click"), "queued");
  stub.mode = {};
  await until(() => !one.waiting);
  assert.ok(performance.now() - start >= 990);
});

test("a server that asks for ages is asked again within minutes, not at once", async () => {
  const one = client();
  stub.mode = { status: 503, text: "", headers: { "retry-after": "1e12" } };
  assert.equal(await one.reward("d-3", "click"), "queued"); // setTimeout fires at once for such a time
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(stub.calls.length, 1);
});

test("what is refused is told and not sent again; ten answers of an error are enough", async () => {
  const one = client();
  stub.mode = { status: 404, text: '{"code": "not_found", "message": "decision_id: unknown"}' };
  assert.equal(await one.reward("d-4", "click"), "refused");
  assert.equal(one.waiting, 0);
  stub.mode = {};
  assert.equal(await one.reward("d-4", "click", undefined), "refused"); // an amount that the page failed to find
  assert.equal(await one.reward("d-4", "click", null), "refused");
  assert.equal(await one.reward("d-4", "click", NaN), "refused");
  assert.equal(await one.reward("d-4", "click", 1, { retract: true }), "refused");
  assert.equal(await one.reward("d-4", "click", 1, { reward_id: "order-1" }), "refused");
  assert.equal(await one.rewardUnit("", "click"), "refused");
  assert.equal(await one.linkUnits("a", 7), "refused");
  assert.equal(stub.of("Reward").length, 1);
  assert.deepEqual(one.undelivered, [
    { code: "NOT_FOUND", reason: "", count: 1 },
    { code: "INVALID_ARGUMENT", reason: "WRONG_ARGUMENT", count: 7 },
  ]);
});

test("the queue is bounded in number and age", async () => {
  const gone = await new Stub().start();
  await gone.stop();
  const few = client({ queueSize: 2 }, gone.url);
  for (const id of ["d-1", "d-2", "d-3"]) assert.equal(await few.reward(id, "click"), "queued");
  assert.equal(few.waiting, 2);
  assert.deepEqual(few.undelivered, [{ code: "UNAVAILABLE", reason: "QUEUE_FULL", count: 1 }]);
  assert.equal(failures.find((failure) => failure.consequence === "dropped").decisionId, "d-1");
  const short = client({ queueAgeMs: 20 }, gone.url);
  await short.reward("d-1", "click");
  await until(() => !short.waiting);
  assert.deepEqual(short.undelivered, [{ code: "UNAVAILABLE", reason: "TOO_OLD", count: 1 }]);
  await few.close(0);
  assert.equal(await few.reward("d-4", "click"), "refused");
  assert.equal(few.undelivered.find((one) => one.reason === "CLOSED").count, 3);
});

test("wrong options and fallbacks are errors at once", async () => {
  const one = client();
  for (const fallback of [undefined, null, "", 7, {}, { id: "" }, { id: "a", title: "b" }, { id: "a", payload: [] }]) {
    await assert.rejects(one.decide("e", "u", { fallback }), TypeError);
  }
  for (const [options, message] of [
    [{ timeoutMs: 0 }, /timeoutMs: is 0; give a number above 0/],
    [{ price: 1 }, /options.price: there is no such field; there are experiment/],
    [{ eligible_actions: ["a"] }, /eligible_actions/],
    [{ eligibleActions: [] }, /eligibleActions: is empty/],
    [{ features: { price: [1] } }, /features.price: is of type array/],
    [{ features: { price: Infinity } }, /features.price: is Infinity/],
    [{ features: { day: new Date() } }, /features.day: is of type object/],
    [{ segment: "\ud800" }, /surrogate/],
    [{ actions: [{ id: "a", payload: { x: () => 1 } }] }, /actions\[0\].payload.x: is of type function/],
  ]) {
    await assert.rejects(one.decide("e", "u", options), message);
    assert.equal((await one.decide("e", "u", { ...options, fallback: "none" })).action.id, "none");
  }
  assert.equal(stub.calls.length, 0);
  for (const [url, options] of [
    ["localhost:50051"],
    ["ftp://a"],
    [""],
    [stub.url, { timeout: 1 }],
    [stub.url, { timeoutMs: 0 }],
    [stub.url, { keepMs: "1d" }],
    [stub.url, { keepMs: { storefront: 0 } }],
    [stub.url, { key: "a", token: "b" }],
    [stub.url, { onError: "print" }],
    [stub.url, { storage: {} }],
  ]) {
    assert.throws(() => new Client(url, options), TypeError);
  }
});

test("onError may throw or call the client", async () => {
  const one = client({ onError: () => { one.reward("d", "x", NaN); throw new Error("no"); } });
  const told = console.error;
  console.error = () => {};
  assert.equal((await one.decide("", "u", { fallback: "none" })).action.id, "none");
  console.error = told;
});

test("an id is kept for a later page, and no longer than its time", async (context) => {
  const storage = new FakeStorage();
  const one = client({ storage, keepMs: { storefront: 60_000, cart: 120_000 } });
  const { decisionId } = await one.decide("storefront", "visitor-1", { fallback: "none" });
  await one.decide("cart", "visitor-1", { fallback: "none" });
  const next = client({ storage });
  assert.equal(next.kept("storefront"), decisionId);
  assert.equal(next.kept("other"), "");
  assert.deepEqual(next.keptDecisions.map((one) => one.experiment).sort(), ["cart", "storefront"]);
  assert.ok(![...storage.map.values()].join().includes("visitor-1"));
  stub.mode = { hang: true, only: "Decide" }; // a fallback does not take the place of a decision
  await next.decide("storefront", "visitor-1", { fallback: "none", timeoutMs: 50 });
  assert.equal(next.kept("storefront"), decisionId);
  const now = Date.now;
  context.after(() => (Date.now = now));
  Date.now = () => now() + 90_000;
  assert.equal(next.kept("storefront"), "");
  assert.notEqual(next.kept("cart"), "");
  Date.now = () => now() - 10 * 86_400_000; // the clock was set back: nothing lives for ever
  assert.equal(next.kept("cart"), "");
  Date.now = now;
  assert.equal([...storage.map.keys()].filter((key) => key.includes("|k|")).length, 0);
});

test("a reward that came too late ends the keeping; forget ends all", async () => {
  const storage = new FakeStorage();
  const one = client({ storage });
  await one.decide("storefront", "visitor-1", { fallback: "none" });
  stub.mode = { text: '{"outcome": "REWARD_OUTCOME_LATE"}' };
  assert.equal(await one.reward(one.kept("storefront"), "purchase", 80), "late");
  assert.equal(one.kept("storefront"), "");
  one.keep("storefront", "made-by-the-server");
  assert.equal(one.kept("storefront"), "made-by-the-server");
  one.forget();
  assert.equal(storage.map.size, 0);
});

test("in Node nothing is kept, visitors do not share; and there is nothing to see", async () => {
  const one = client();
  await one.decide("storefront", "visitor-1", { fallback: "none" });
  assert.equal(one.kept("storefront"), "");
  one.activateWhenSeen(null, "d-1")();
  assert.equal(failures.pop().message, "element: is null; give an element of the page");
});

test("a storage that is full, denied, or holds nonsense", async () => {
  for (const broken of ["full", "denied"]) {
    const storage = new FakeStorage();
    storage[broken] = true;
    const one = client({ storage });
    const { decisionId } = await one.decide("storefront", "visitor-1", { fallback: "none" });
    assert.equal(one.kept("storefront"), decisionId); // of this page, in memory
    assert.equal(await one.reward(decisionId, "click"), "joined");
    assert.deepEqual(failures, []);
  }
  stub.calls = [];
  const storage = new FakeStorage();
  const prefix = `decider|${stub.url}|`;
  for (const [key, value] of [["k|a", "{"], ["k|b", "7"], ["k|c", '{"experiment": 7}'], ["q|x", '{"method": "Decide"}']]) {
    storage.map.set(prefix + key, value);
  }
  storage.map.set("the shop's own", "7");
  const one = client({ storage });
  assert.deepEqual(one.keptDecisions, []);
  assert.equal(await one.flush(0), true);
  assert.deepEqual([...storage.map.keys()], ["the shop's own"]);
  assert.equal(stub.calls.length, 0);
});

test("what another script has written where rewards wait does not stop them", async () => {
  const storage = new FakeStorage();
  const wrong = [{ request: null }, { request: 7 }, { request: { decisionId: 7 } }, { request: {}, at: "x" }];
  wrong.forEach((one, place) => {
    const stored = { method: "Reward", at: Date.now(), ...one };
    storage.map.set(`decider|${stub.url}|q|${place}`, JSON.stringify(stored));
  });
  stub.calls = [];
  const one = client({ storage });
  assert.equal(await one.flush(0), true);
  assert.equal(await one.reward("d-1", "click"), "joined");
  assert.deepEqual([stub.calls.length, storage.map.size, failures], [1, 0, []]);
});

test("a page that is left during an outage: the next one sends, and two of them do no harm", async () => {
  const storage = new FakeStorage();
  const gone = await new Stub().start();
  await gone.stop();
  const first = client({ storage }, gone.url);
  assert.equal(await first.reward("d-1", "purchase", 80, { rewardId: "order-1" }), "queued");
  await first.close(0);
  assert.deepEqual(first.undelivered, []); // it is stored, not lost
  const now = Date.now;
  Date.now = () => now() - 3_600_000; // a clock that was set back does not make it older
  const [second, third] = [client({ storage }, gone.url), client({ storage }, gone.url)];
  await gone.start(gone.port);
  assert.deepEqual(await Promise.all([second.flush(30_000), third.flush(30_000)]), [true, true]);
  assert.deepEqual(gone.of("Reward").map((one) => one.rewardId), ["order-1", "order-1"]);
  Date.now = now;
  await gone.stop();
  const tabs = Array.from({ length: 3 }, () => client({ storage, queueSize: 2 }, gone.url));
  for (const tab of tabs) await tab.reward("d-2", "click", 1);
  for (const tab of tabs) await tab.flush(0); // each knows the clicks of the others now, and keeps the newest two
  assert.deepEqual(tabs.map((tab) => tab.waiting), [2, 2, 2]);
  assert.ok(storage.map.size <= 3);
  Date.now = () => now() + 2 * 86_400_000; // the clock jumps two days ahead: what waits is no older
  await gone.start(gone.port);
  assert.equal(await tabs[2].flush(30_000), true);
  const before = gone.of("Reward").length;
  assert.equal(await tabs[1].flush(30_000), true); // of two, one was another tab's, which has delivered it
  Date.now = now;
  assert.ok(gone.of("Reward").length <= before + 1);
  assert.equal(storage.map.size, 0);
  await gone.stop();
});
