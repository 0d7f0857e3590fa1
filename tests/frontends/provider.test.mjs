// What withRewards sends, with providers that answer at once. Run by test_openfeature.py: node --test.
import assert from "node:assert/strict";
import { test } from "node:test";
import { withRewards } from "../../decider/client/openfeature/provider.js";

const url = "http://decider:9465/";
const later = new Date(Date.now() + 60_000).toISOString();
const over = new Date(Date.now() - 1).toISOString();
const evaluation = (decisionId, expires = later) => ({ reason: "SPLIT", variant: "sale", value: "sale", flagMetadata: { decisionId, expires } });
const server = (answers = {}) => ({ runsOn: "server", hooks: [], ...answers });
const settle = () => new Promise((done) => setTimeout(done, 20));

/** A provider with the requests and the problems that come of it. answer: of each request. */
function made(provider, settings = {}, answer = () => new Response("{}")) {
  const sent = [];
  const problems = [];
  globalThis.fetch = async (address, request) => {
    sent.push({ method: address.split("/").at(-1), headers: request.headers, ...JSON.parse(request.body) });
    return answer(sent.length);
  };
  withRewards(provider, { url, onProblem: (problem) => problems.push(String(problem)), ...settings });
  const hook = provider.hooks.at(-1);
  const evaluate = (flagKey, details, context = { targetingKey: "u" }) => {
    Object.assign(context, hook.before({ context }));
    hook.after({ flagKey, context }, details);
    return context;
  };
  return { sent, problems, hook, evaluate };
}

test("an evaluation is one exposure, however often it is made", async () => {
  const { sent, evaluate } = made(server());
  evaluate("storefront", evaluation("d1"));
  evaluate("storefront:object", evaluation("d1"));
  await settle();
  assert.deepEqual(sent.map(({ method, decisionId }) => [method, decisionId]), [["Activate", "d1"]]);
});

test("nothing is sent for a decision that is too old, nor for a flag without one", async () => {
  const { sent, evaluate } = made(server());
  evaluate("storefront", evaluation("d1", over));
  evaluate("storefront", { ...evaluation("d2"), reason: "DISABLED" });
  evaluate("storefront", { ...evaluation("d3"), variant: undefined });
  await settle();
  assert.deepEqual(sent, []);
});

test("a reward is for the named decision, for the one that was shown, or for the unit", async () => {
  const provider = server();
  const { sent, evaluate, problems } = made(provider, { exposures: false });
  evaluate("storefront", evaluation("d1"));
  const context = { targetingKey: "u" };
  provider.track("click", context, { decisionId: "d0" });
  provider.track("purchase", context, { experiment: "storefront", value: 80.5, rewardId: "order-7" });
  provider.track("click", context);
  provider.track("click", { targetingKey: "somebody else" }, { experiment: "storefront" });
  provider.track("click", {});
  await settle();
  assert.deepEqual(
    sent.map(({ name, decisionId, unitId, experiment, value }) => ({ name, decisionId, unitId, experiment, value })),
    [
      { name: "click", decisionId: "d0", unitId: undefined, experiment: undefined, value: undefined },
      { name: "purchase", decisionId: "d1", unitId: undefined, experiment: undefined, value: 80.5 },
      { name: "click", decisionId: undefined, unitId: "u", experiment: undefined, value: undefined },
      { name: "click", decisionId: undefined, unitId: "somebody else", experiment: "storefront", value: undefined },
    ],
  );
  assert.equal(sent[1].rewardId, "order-7");
  assert.deepEqual(problems, ["click: give track a decisionId, or the context a targetingKey"]);
});

test("a decision that was shown and is over by now gets no reward, and no other one does", async () => {
  const provider = server();
  const { sent, evaluate, problems } = made(provider);
  evaluate("storefront", evaluation("d1", over));
  provider.track("click", { targetingKey: "u" }, { experiment: "storefront" });
  await settle();
  assert.deepEqual([sent, problems], [[], ["click: the decision d1 was made too long ago to be rewarded"]]);
});

test("without an answer, the default is told as what was shown", async () => {
  const { sent, hook } = made(server());
  const context = { targetingKey: "u" };
  Object.assign(context, hook.before({ context }));
  hook.error({ context, defaultValue: "banner" }, new Error("no answer within 1000 ms"));
  hook.error({ context, defaultValue: {} }, Object.assign(new Error(), { code: "GENERAL" }));
  hook.error({ context, defaultValue: "banner" }, Object.assign(new Error(), { code: "FLAG_NOT_FOUND" }));
  hook.error({ context, defaultValue: "banner" }, Object.assign(new Error(), { response: { status: 403 } }));
  await settle();
  assert.deepEqual(
    sent.map(({ decisionId, action }) => [decisionId, action]),
    [[context.decision_id, "banner"], [context.decision_id, "code-default"]],
  );
});

test("what gets no answer is sent again under the same id, what is refused is not", async () => {
  const provider = server();
  const { sent, problems } = made(provider, {}, (count) => {
    if (count === 1) throw new TypeError("fetch failed");
    return count === 2 ? new Response("{}") : new Response("no such name", { status: 400 });
  });
  provider.track("click", {}, { decisionId: "d1" });
  await new Promise((done) => setTimeout(done, 600));
  assert.equal(sent.length, 2);
  assert.equal(sent[0].rewardId, sent[1].rewardId);
  provider.track("klick", {}, { decisionId: "d1" });
  await settle();
  assert.deepEqual(problems, ["Error: Reward: no such name"]);
});

test("a server sends its token in a header, a page its key in the address", async () => {
  const provider = server();
  const { sent } = made(provider, { key: "secret" });
  provider.track("click", {}, { decisionId: "d1" });
  const page = { runsOn: "client" };
  const { sent: fromPage } = made(page, { key: "key" });
  page.track("click", {}, { decisionId: "d1" });
  await settle();
  assert.equal(sent[0].headers.authorization, "Bearer secret");
  assert.deepEqual([fromPage[0].method, fromPage[0].headers], ["Reward?key=key", {}]);
});

test("a call gives up at its deadline", async () => {
  const provider = server({ resolveStringEvaluation: () => new Promise(() => {}) });
  made(provider, { deadline: 20 });
  await assert.rejects(provider.resolveStringEvaluation("storefront", "code"), /no answer within 20 ms/);
});

test("a page without storage remembers while it lasts, and finds the id of a flag that has lost it", async () => {
  const page = { runsOn: "client", resolveObjectEvaluation: () => ({ value: { decision_id: "d1" } }) };
  const { sent, evaluate } = made(page);
  evaluate("storefront", { ...evaluation(), flagMetadata: {} });
  page.track("click", { targetingKey: "u" }, { experiment: "storefront" });
  await settle();
  assert.deepEqual(sent.map(({ method, decisionId }) => [method, decisionId]), [["Activate", "d1"], ["Reward", "d1"]]);
});
