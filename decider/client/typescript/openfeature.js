// OpenFeature's stock providers with rewards and exposures, in pages and in Node: flags come from the stock provider, as
// ever, everything else goes through the Client of client.js. Nothing is imported: any OFREP or flagd provider will do.

const MOST_KNOWN = 10_000; // decisions that are remembered, the oldest are forgotten first
const DEFAULT_SHOWN = "code-default"; // the name of what was shown where the code's default has none
const RESOLVERS = ["Boolean", "String", "Number", "Object"].map((type) => `resolve${type}Evaluation`);

/**
 * Adds rewards, exposures and a deadline to a stock provider, and returns it: `track` becomes a Reward, an evaluation an
 * Activate. Types and defaults: see openfeature.d.ts.
 */
export function withRewards(provider, client, { deadlineMs = 1000, exposures = true } = {}) {
  const page = provider.runsOn === "client";
  const known = new Known();
  const activate = (id, action) => void (exposures && client.activate(id, action));
  for (const method of page ? ["initialize", "onContextChange"] : RESOLVERS) limit(provider, method, deadlineMs);
  const show = ({ flagKey, context }, details) => {
    const decision = decisionOf(provider, page ? flagKey : undefined, context, details);
    const experiment = flagKey.replace(/:object$/, "");
    if (!decision || !known.put(context.targetingKey, experiment, decision) || isOver(decision)) return;
    activate(decision.id);
    if (page) client.keep(experiment, decision.id, details.variant); // for the page of the purchase
  };
  provider.hooks = [...(provider.hooks ?? []), page ? { after: show } : { ...ASKS, after: show, error: tellDefault(activate) }];
  provider.track = (name, context = {}, details = {}) => {
    const { decisionId, experiment, rewardId } = details;
    const amount = "value" in details ? details.value : 1; // one that the page failed to find is the client's to refuse
    const shown = experiment && (known.get(context.targetingKey, experiment) ?? (page && keptBy(client, experiment)));
    const id = decisionId ?? (shown || undefined)?.id;
    if (id === undefined) void client.rewardUnit(context.targetingKey, name, amount, { experiment, rewardId });
    else if (decisionId || !isOver(shown)) void client.reward(id, name, amount, { rewardId });
  };
  return provider;
}

/** On a server each evaluation is asked for with an id: it is known even where no answer comes. */
const ASKS = { before: ({ context }) => (context.decision_id ? undefined : { decision_id: crypto.randomUUID() }) };

/** No answer came, but the decision may have been made, or it was made and has another type than the code asked for: it
 * must not count as if its action had been shown. Not told where the server has said why: nothing was decided then. */
const tellDefault = (activate) => ({ context, defaultValue }, error) => {
  const code = error.code ?? "GENERAL";
  if ((code !== "GENERAL" && code !== "TYPE_MISMATCH") || error.response || !context.decision_id) return;
  activate(context.decision_id, (typeof defaultValue === "string" ? defaultValue : defaultValue?.action) || DEFAULT_SHOWN);
};

/** The decision behind an evaluation; undefined where there is none, as for a paused experiment. */
function decisionOf(provider, flagKey, context, { reason, variant, value, flagMetadata }) {
  if (reason === "DISABLED" || !variant) return undefined;
  // flagd's provider for pages drops metadata: the object flag of the same decision has the id in its value.
  const id = flagMetadata.decisionId ?? value?.decision_id ?? (flagKey ? idInObject(provider, flagKey) : context.decision_id);
  return id && { id, expires: flagMetadata.expires };
}

function idInObject(provider, flagKey) {
  try {
    return provider.resolveObjectEvaluation(`${flagKey}:object`, {}, {}, console).value?.decision_id;
  } catch {
    return undefined; // the server sends no such flag
  }
}

function keptBy(client, experiment) {
  const id = client.kept(experiment);
  return id && { id };
}

const isOver = ({ expires }) => expires !== undefined && Date.parse(expires) <= Date.now();

/** The newest decision of each unit and experiment. */
class Known {
  #decisions = new Map();

  get(unit, experiment) {
    return this.#decisions.get(JSON.stringify([unit, experiment]));
  }

  /** Whether it was not known before. */
  put(unit, experiment, decision) {
    const key = JSON.stringify([unit, experiment]);
    if (this.#decisions.get(key)?.id === decision.id) return false;
    this.#decisions.delete(key);
    this.#decisions.set(key, decision);
    if (this.#decisions.size > MOST_KNOWN) this.#decisions.delete(this.#decisions.keys().next().value);
    return true;
  }
}

/** Makes a method that gives a promise give up after so many milliseconds. */
function limit(provider, method, deadlineMs) {
  const stock = provider[method]?.bind(provider);
  if (!stock) return;
  provider[method] = (...given) => {
    const answer = Promise.resolve(stock(...given));
    answer.catch(() => {}); // it may fail long after nobody waits for it any more
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${deadlineMs} ms`)), deadlineMs);
    });
    return Promise.race([answer, late]).finally(() => clearTimeout(timer));
  };
}
