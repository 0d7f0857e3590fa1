// What each client goes through, in Node and in a page. `clients` are OpenFeature's, `calls` those of DeciderService.

export const DEADLINE = 2000; // milliseconds, of each call that has one
export const HANGS = 5000; // milliseconds after which a call without one has none

/** What an evaluation was, as the application knows it. */
export const evaluated = ({ value, reason, flagMetadata }) => ({ value, reason, decision: flagMetadata?.decisionId });

/** Whatever a promise gives, or "hangs" after so many milliseconds. */
export const within = (milliseconds, promise) =>
  Promise.race([promise, new Promise((done) => setTimeout(() => done("hangs"), milliseconds))]);

// A client that fails has its problem in its answer: the others are driven all the same.
const each = async (clients, step) => {
  const answer = async ([name, client]) => {
    const found = await within(30_000, step(client, name).catch((problem) => ({ problem: `${problem}` })));
    return [name, found === "hangs" ? { problem: found } : found];
  };
  return Object.fromEntries(await Promise.all(Object.entries(clients).map(answer)));
};

const timed = async (step) => {
  const begin = Date.now();
  const value = await step();
  return { value, seconds: (Date.now() - begin) / 1000 };
};

/** As a shop that has no client of ours would. */
const keep = (kept, answers) => {
  const ids = Object.entries(answers).map(([name, { decision }]) => [name, decision]);
  kept?.setItem("shop:decisions", JSON.stringify({ ...JSON.parse(kept.getItem("shop:decisions")), ...Object.fromEntries(ids) }));
  return answers;
};

const FEATURES = { cart_value: 80.5 };
const request = (unit) => ({ experiment: "storefront", unitId: unit, context: { segment: "vip", features: FEATURES } });
/** The client of client.js as the others are called. */
export const callWith = (client) => async (method, { experiment, unitId, decisionId, name, value }) => {
  if (method === "Decide") return client.decide(experiment, unitId, { segment: "vip", features: FEATURES, fallback: "code" });
  return method === "Activate" ? client.activate(decisionId) : client.reward(decisionId, name, value ?? 1);
};

/** The phases of a drive. kept: where the ids are until the purchase; without it, they come with what is asked. */
export function drives({ web, clients, calls, kept }) {
  const post = (message) =>
    fetch(`${web}/decider.v1.DeciderService/Reward`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(message),
    }).then(async (response) => {
      if (!response.ok) throw new Error(await response.text());
    });
  return {
    ready: async () => ({}),
    live: async () => keep(kept, {
      ...(await each(clients, async (client) => {
        const found = await client.resolve();
        await client.click?.();
        return found;
      })),
      ...(await each(calls, async (call, name) => {
        const { decisionId, action } = await call("Decide", request(name));
        await call("Activate", { decisionId });
        await call("Reward", { decisionId, name: "click" });
        return { value: action.id, decision: decisionId };
      })),
    }),
    purchase: async ({ decisions: given }) => {
      const decisions = kept ? JSON.parse(kept.getItem("shop:decisions")) : given;
      const mine = (kind) => Object.fromEntries(Object.entries(kind).filter(([name]) => decisions[name]));
      const purchase = (name) => ({ decisionId: decisions[name], name: "purchase", value: 80.5 });
      const answers = {
        ...(await each(mine(clients), async ({ buy }, name) => (name.endsWith("-ours") ? buy(decisions[name]) : post(purchase(name))))),
        ...(await each(mine(calls), (call, name) => call("Reward", purchase(name)).then(() => undefined))),
      };
      await new Promise((done) => setTimeout(done, 300)); // tracking is not waited for
      return answers;
    },
    gone: async () => ({
      ...(await each(clients, (client) => timed(client.gone))),
      ...(await each(calls, (call, name) =>
        timed(() =>
          within(
            HANGS,
            call("Decide", request(name)).then(
              ({ action }) => action.id,
              () => "code",
            ),
          ),
        ),
      )),
    }),
  };
}
