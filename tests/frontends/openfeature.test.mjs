// What withRewards tells a client, with providers that answer at once. Run by test_openfeature.py: node --test.
import assert from "node:assert/strict";
import { test } from "node:test";
import { withRewards } from "../../decider/client/typescript/openfeature.js";

const later = new Date(Date.now() + 60_000).toISOString();
const over = new Date(Date.now() - 1).toISOString();
const evaluation = (decisionId, expires = later) => ({ reason: "SPLIT", variant: "sale", value: "sale", flagMetadata: { decisionId, expires } });

/** A provider on a server, or in a page, with what a client was told. */
function made(provider = {}, settings = {}) {
  const told = [];
  const kept = {};
  const tell = (method) => (...given) => void told.push([method, ...given]);
  const client = {
    ...Object.fromEntries(["activate", "reward", "rewardUnit"].map((method) => [method, tell(method)])),
    keep: (experiment, id) => void (kept[experiment] = id),
    kept: (experiment) => kept[experiment] ?? "",
  };
  withRewards(Object.assign(provider, { runsOn: provider.runsOn ?? "server" }), client, settings);
  const hook = provider.hooks.at(-1);
  const evaluate = (flagKey, details, context = { targetingKey: "u" }) => {
    Object.assign(context, hook.before?.({ context }));
    hook.after({ flagKey, context }, details);
    return context;
  };
  return { provider, told, kept, hook, evaluate };
}

test("an evaluation is one exposure, however often it is made", () => {
  const { told, evaluate } = made();
  evaluate("storefront", evaluation("d1"));
  evaluate("storefront:object", evaluation("d1"));
  assert.deepEqual(told, [["activate", "d1", undefined]]);
});

test("where the provider drops metadata, the id is in the value, or the one that was asked for", () => {
  const { told, evaluate } = made();
  evaluate("storefront:object", { ...evaluation(), value: { action: "sale", decision_id: "d1" }, flagMetadata: {} });
  const { decision_id: asked } = evaluate("storefront", { ...evaluation(), flagMetadata: {} });
  assert.deepEqual(told, [["activate", "d1", undefined], ["activate", asked, undefined]]);
});

test("nothing is told of a decision that is too old, nor of a flag without one", () => {
  const { told, evaluate } = made();
  evaluate("storefront", evaluation("d1", over));
  evaluate("storefront", { ...evaluation("d2"), reason: "DISABLED" });
  evaluate("storefront", { ...evaluation("d3"), variant: undefined });
  assert.deepEqual(told, []);
});

test("a reward is for the named decision, for the one that was shown, or for the unit", () => {
  const { provider, told, evaluate } = made({}, { exposures: false });
  evaluate("storefront", evaluation("d1"));
  const context = { targetingKey: "u" };
  provider.track("click", context, { decisionId: "d0" });
  provider.track("purchase", context, { experiment: "storefront", value: 80.5, rewardId: "order-7" });
  provider.track("click", context);
  provider.track("click", { targetingKey: "v" }, { experiment: "storefront", value: undefined });
  assert.deepEqual(told, [
    ["reward", "d0", "click", 1, { rewardId: undefined }],
    ["reward", "d1", "purchase", 80.5, { rewardId: "order-7" }],
    ["rewardUnit", "u", "click", 1, { experiment: undefined, rewardId: undefined }],
    ["rewardUnit", "v", "click", undefined, { experiment: "storefront", rewardId: undefined }],
  ]);
});

test("a decision that was shown and is over gets no reward, and no other one does", () => {
  const { provider, told, evaluate } = made();
  evaluate("storefront", evaluation("d1", over));
  provider.track("click", { targetingKey: "u" }, { experiment: "storefront" });
  assert.deepEqual(told, []);
});

test("without an answer, the default is told as what was shown", () => {
  const { told, hook } = made();
  const context = { targetingKey: "u" };
  hook.error({ context, defaultValue: "banner" }, new Error("before the id was made"));
  Object.assign(context, hook.before({ context }));
  hook.error({ context, defaultValue: "banner" }, new Error("no answer within 1000 ms"));
  hook.error({ context, defaultValue: {} }, Object.assign(new Error(), { code: "GENERAL" }));
  hook.error({ context, defaultValue: false }, Object.assign(new Error(), { code: "TYPE_MISMATCH" }));
  hook.error({ context, defaultValue: "banner" }, Object.assign(new Error(), { code: "FLAG_NOT_FOUND" }));
  hook.error({ context, defaultValue: "banner" }, Object.assign(new Error(), { response: { status: 403 } }));
  const shown = ["banner", "code-default", "code-default"];
  assert.deepEqual(told, shown.map((action) => ["activate", context.decision_id, action]));
});

test("a call gives up at its deadline", async () => {
  const { provider } = made({ resolveStringEvaluation: () => new Promise(() => {}) }, { deadlineMs: 20 });
  await assert.rejects(provider.resolveStringEvaluation("storefront", "code"), /no answer within 20 ms/);
});

test("a page finds the id of a flag that has lost it, and keeps it for its next page", () => {
  const page = { runsOn: "client", resolveObjectEvaluation: () => ({ value: { decision_id: "d1" } }) };
  const { told, kept, evaluate } = made(page);
  evaluate("storefront", { ...evaluation(), flagMetadata: {} });
  assert.deepEqual([told, kept], [[["activate", "d1", undefined]], { storefront: "d1" }]);
});

test("the page of the purchase rewards what the page before has shown", () => {
  const { provider, told, kept } = made({ runsOn: "client" });
  kept.storefront = "d1";
  provider.track("purchase", { targetingKey: "u" }, { experiment: "storefront", value: 80.5 });
  provider.track("purchase", { targetingKey: "u" }, { experiment: "checkout" });
  assert.deepEqual(told.map(([method, subject]) => [method, subject]), [["reward", "d1"], ["rewardUnit", "u"]]);
});
