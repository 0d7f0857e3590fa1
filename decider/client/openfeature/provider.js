/**
 * OpenFeature's stock providers, with rewards and exposures: `withRewards(provider, settings)`, for pages and for Node.
 *
 * `track(name, {value})` becomes a Reward, an evaluation becomes an Activate, and a call has a deadline. The flags
 * themselves come from the stock provider, as ever. Nothing is imported: any OFREP or flagd provider will do.
 */

const MOST_KNOWN = 10_000; // decisions that a server remembers, the oldest are forgotten first
const MOST_STORED = 50; // decisions that a page remembers, for its next pages too
const STORED = "decider:decisions"; // their key in localStorage
const DEFAULT_SHOWN = "code-default"; // the name of what was shown where the code's default has none
const RESOLVERS = ["Boolean", "String", "Number", "Object"].map((type) => `resolve${type}Evaluation`);
const TRIES = 4;
const FIRST_PAUSE = 500; // milliseconds before the second try, twice as long before each other one
const ANSWER = 10_000; // milliseconds that a try may take

/**
 * Adds rewards, exposures and a deadline to a stock provider, and returns it.
 *
 * @param provider an OFREPWebProvider, FlagdWebProvider, OFREPProvider or FlagdProvider
 * @param {object} settings
 * @param {string} settings.url what the server's `--web` listens on, such as "https://decider.shop.example"
 * @param {string} [settings.key] a page's publishable key; on a server a token
 * @param {number} [settings.deadline] milliseconds after which the code's default is shown: default 1000
 * @param {boolean} [settings.exposures] false: evaluations send no Activate
 * @param {(problem: unknown) => void} [settings.onProblem] told of what could not be sent: default console.warn
 */
export function withRewards(provider, settings) {
  const { url, key, deadline = 1000, exposures = true, onProblem = (problem) => console.warn("decider:", problem) } = settings;
  const page = provider.runsOn === "client";
  const known = new Known(page ? MOST_STORED : MOST_KNOWN, page ? storage() : undefined);
  const send = sender(url, key, page);
  const tell = (method, message) => send(method, message).catch(onProblem);
  for (const method of page ? ["initialize", "onContextChange"] : RESOLVERS) bound(provider, method, deadline);
  provider.hooks = [...(provider.hooks ?? []), decisions(provider, known, exposures ? tell : () => {}, page)];
  provider.track = (name, context, details = {}) => {
    const reward = rewardOf(name, context ?? {}, details, known);
    return typeof reward === "string" ? onProblem(reward) : void tell("Reward", reward);
  };
  return provider;
}

/** What a track call says, as a Reward; or why it says nothing. */
function rewardOf(name, context, details, known) {
  const reward = { name, value: details.value, rewardId: details.rewardId ?? newId() };
  if (details.decisionId) return { ...reward, decisionId: details.decisionId };
  const unitId = context.targetingKey;
  if (!unitId) return `${name}: give track a decisionId, or the context a targetingKey`;
  const decision = details.experiment && known.get(unitId, details.experiment);
  if (!decision) return { ...reward, unitId, experiment: details.experiment };
  if (isOver(decision)) return `${name}: the decision ${decision.id} was made too long ago to be rewarded`;
  return { ...reward, decisionId: decision.id };
}

/** A hook that gives each evaluation on a server its decision's id, remembers what was decided and tells what was shown. */
function decisions(provider, known, tell, page) {
  return {
    before: ({ context }) => (page || context.decision_id ? undefined : { decision_id: newId() }),
    after: ({ flagKey, context }, details) => {
      const decision = decisionOf(provider, page ? flagKey : undefined, context, details);
      if (decision && known.put(context.targetingKey, experimentOf(flagKey), decision) && !isOver(decision))
        tell("Activate", { decisionId: decision.id });
    },
    // No answer came, but the decision may have been made: it must not count as if its action had been shown.
    error: ({ context, defaultValue }, error) => {
      if (!page && (error.code ?? "GENERAL") === "GENERAL" && !error.response && context.decision_id)
        tell("Activate", { decisionId: context.decision_id, action: nameOf(defaultValue) });
    },
  };
}

/** The decision behind an evaluation; undefined where there is none, as for a paused experiment. */
function decisionOf(provider, flagKey, context, { reason, variant, value, flagMetadata }) {
  if (reason === "DISABLED" || !variant) return undefined;
  // flagd's provider for pages drops metadata; the object flag of the same decision has the id in its value.
  const id = flagMetadata.decisionId ?? value?.decision_id ?? (flagKey ? idInObject(provider, flagKey) : context.decision_id);
  return id && { id, expires: flagMetadata.expires };
}

function idInObject(provider, flagKey) {
  try {
    return provider.resolveObjectEvaluation(`${flagKey}:object`, {}, {}, console).value?.decision_id;
  } catch {
    return undefined; // a server that sends no such flag
  }
}

const experimentOf = (flagKey) => flagKey.replace(/:object$/, "");
const isOver = ({ expires }) => expires !== undefined && Date.parse(expires) <= Date.now();
const nameOf = (shown) => (typeof shown === "string" ? shown : shown?.action) || DEFAULT_SHOWN;
const newId = () =>
  crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The newest decision of each unit and experiment; a page keeps them in its storage, for the page of the purchase. */
class Known {
  constructor(most, stored) {
    this.most = most;
    this.stored = stored;
    this.decisions = new Map(stored?.read());
  }

  get(unit, experiment) {
    return this.decisions.get(JSON.stringify([unit, experiment]));
  }

  /** Whether it was not known before. */
  put(unit, experiment, decision) {
    const key = JSON.stringify([unit, experiment]);
    if (this.decisions.get(key)?.id === decision.id) return false;
    this.decisions.delete(key);
    this.decisions.set(key, decision);
    if (this.decisions.size > this.most) this.decisions.delete(this.decisions.keys().next().value);
    this.stored?.write([...this.decisions]);
    return true;
  }
}

/** The page's localStorage; where it is closed, as in a private window, nothing outlives the page. */
function storage() {
  return {
    read: () => {
      try {
        return JSON.parse(localStorage.getItem(STORED)) ?? [];
      } catch {
        return [];
      }
    },
    write: (decisions) => {
      try {
        localStorage.setItem(STORED, JSON.stringify(decisions));
      } catch {} // full, or closed
    },
  };
}

/** Makes a method that gives a promise give up after so many milliseconds. */
function bound(provider, method, deadline) {
  const stock = provider[method]?.bind(provider);
  if (!stock) return;
  provider[method] = (...given) => {
    const answer = Promise.resolve(stock(...given));
    answer.catch(() => {}); // it may fail long after nobody waits for it any more
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${deadline} ms`)), deadline);
    });
    return Promise.race([answer, late]).finally(() => clearTimeout(timer));
  };
}

/**
 * Sends Rewards and Activates as JSON, again where no answer comes: both are idempotent.
 *
 * A page's request is a simple one (text/plain, the key in its address): no preflight, and it outlives its page.
 */
function sender(url, key, page) {
  const address = (method) => `${url.replace(/\/$/, "")}/decider.v1.DeciderService/${method}`;
  const query = page && key ? `?key=${encodeURIComponent(key)}` : "";
  const headers = page ? {} : { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
  return async (method, message) => {
    const body = JSON.stringify(message);
    for (let tries = 1, pause = FIRST_PAUSE; ; tries += 1, pause *= 2) {
      const last = tries === TRIES;
      try {
        const request = { method: "POST", headers, body, keepalive: true, signal: AbortSignal.timeout(ANSWER) };
        const response = await fetch(address(method) + query, request);
        if (response.ok) return;
        const text = await response.text();
        if (last || (response.status !== 429 && response.status < 500)) throw new Refused(`${method}: ${text}`);
      } catch (error) {
        if (last || error instanceof Refused) throw error;
      }
      await new Promise((done) => setTimeout(done, pause));
    }
  };
}

class Refused extends Error {}
