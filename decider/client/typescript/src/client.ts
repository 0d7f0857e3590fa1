/**
 * The client for pages and for Node. A page must show something even when the server does not answer: `fallback`.
 *
 * The same surface and words as the Python client (`decider/client/`), as JavaScript writes them.
 */

import { Connection, type Target } from "./connection.js";
import { Decisions, type BatchResult, type Slate } from "./decisions.js";
import { Deliveries, type Outcome } from "./deliveries.js";
import type { Decision, Fallback } from "./fallback.js";
import { Failures, wrongArgument, type Count, type Failure } from "./failures.js";
import { Kept, type KeepMs, type KeptDecision } from "./kept.js";
import { activateRequest, linkRequest, rewardRequest } from "./messages.js";
import { Outbox, type Bounds } from "./outbox.js";
import { watchPage, whenSeen, type SeenOptions } from "./page.js";
import type { Json } from "./proto.js";
import { pageStorages, Store, type PageStorage } from "./storage.js";
import { fields, fullText, positive, text, typeOf, type Fields } from "./values.js";

export { cookieStorage, type PageStorage } from "./storage.js";
export { DeciderError, type Consequence, type Count, type Failure } from "./failures.js";
export type { BatchResult, Slate } from "./decisions.js";
export type { Outcome } from "./deliveries.js";
export type { Decision, Fallback } from "./fallback.js";
export type { KeepMs, KeptDecision } from "./kept.js";
export type { SeenOptions } from "./page.js";
export type * from "./proto.js";

/** A category, a number or a flag; null and undefined are unknown, and left out. */
export type Feature = string | number | boolean | null | undefined;
export type Features = { readonly [name: string]: Feature };
export type Payload = { readonly [name: string]: Json | undefined };

/** What is known about the unit and the moment. */
export interface Known {
  segment?: string | null;
  device?: string | null;
  channel?: string | null;
  location?: string | null;
  intentStage?: string | null;
  /** Anything else. */
  features?: Features | null;
}

/** An action that comes with a call. */
export interface OfferedAction {
  id: string;
  kind?: string | null;
  features?: Features | null;
  payload?: Payload | null;
}

interface Choice extends Known {
  /** What is known about actions only now (price, stock): action id to features. */
  actionFeatures?: { readonly [action: string]: Features | null | undefined } | null;
  /** More actions, for this call only. */
  actions?: readonly OfferedAction[] | null;
  /** False serves the most probable action. */
  explore?: boolean | null;
  /** True returns the whole pmf. */
  withRanking?: boolean | null;
  /** Milliseconds that this call may take. Default: the client's. */
  timeoutMs?: number | null;
}

interface Place {
  eligibleActions?: readonly string[] | null;
  excludedActions?: readonly string[] | null;
  /** What the page would show by itself. */
  defaultAction?: string | null;
}

export interface DecideOptions extends Choice, Place {
  /** What is shown without an answer. With it nothing throws but a wrong fallback. */
  fallback?: Fallback;
  /** The idempotency key; default: a new uuid7. */
  decisionId?: string | null;
}

export interface DecideAsk extends DecideOptions {
  experiment: string;
  unitId: string;
}

/** A place on the page. {} may get everything. */
export interface SlotOptions extends Place {
  features?: Features | null;
}

export interface SlateOptions extends Choice {
  /** One for each slot. */
  fallback?: readonly Fallback[];
  slateId?: string | null;
}

export interface RewardOptions {
  /** The same id for the same decision counts once: an order's number. Default: a new one with each call. */
  rewardId?: string | null;
  /** When it happened, if not now. For the record only. */
  occurredAt?: Date | null;
  /** Put the value in place of what was sent under `rewardId`. */
  correct?: boolean | null;
  /** Take back what was sent under `rewardId`. */
  retract?: boolean | null;
  /** The last word about the decision, which is learned at once. */
  final?: boolean | null;
}

export interface UnitRewardOptions extends RewardOptions {
  /** This experiment alone. With a publishable key it has to be said. */
  experiment?: string | null;
}

export interface ClientOptions {
  /** A publishable key, for pages. */
  key?: string;
  /** A secret token, for servers; or what gives it. */
  token?: string | (() => string);
  /** Milliseconds that a call may take. Default: 1000. */
  timeoutMs?: number;
  /** Rewards and activations that wait to be sent again. Default: 1,000 in a page, 10,000 in Node. */
  queueSize?: number;
  /** Milliseconds that they wait. Default: a day. */
  queueAgeMs?: number;
  /** Milliseconds for which `kept` knows a decision: the reward window of the experiment. Default: a day. */
  keepMs?: KeepMs;
  /** Called with each failure: a fallback is shown; a reward or activation is queued, refused or lost. */
  onError?: (failure: Failure) => unknown;
  /** Where a page keeps what waits and what it decided. Default: localStorage, then sessionStorage. null: in memory. */
  storage?: PageStorage | null;
  /** The same for decision ids alone: see `cookieStorage`. */
  keptStorage?: PageStorage | null;
  /** What is called in place of the global fetch. */
  fetch?: typeof fetch;
}

const OPTIONS = [
  ...["key", "token", "timeoutMs", "queueSize", "queueAgeMs", "keepMs", "onError", "storage", "keptStorage", "fetch"],
];
const DAY = 86_400_000;

/** Reports of fallbacks that wait in a page. */
const MOST_REPORTS = 100;

/** Decisions whose activation this page remembers. */
const MOST_SEEN = 1000;

/** Calls one server, from a page or from Node. Make one for the whole page or program. */
export class Client {
  readonly #failures: Failures;
  readonly #outbox: Outbox;
  readonly #reports: Outbox;
  readonly #decisions: Decisions;
  readonly #deliveries: Deliveries;
  readonly #kept: Kept | undefined;
  readonly #seen = new Set<string>();
  readonly #stopWatching: () => void;

  /** url: of the server's port for frontends, as in "https://decider.shop.example". Throws a TypeError for wrong options. */
  constructor(url: string, options: ClientOptions = {}) {
    fields("options", options, OPTIONS);
    const isPage = typeof document !== "undefined";
    const { keepMs = DAY } = options;
    for (const ms of typeof keepMs === "object" ? Object.values(keepMs) : [keepMs]) positive("keepMs", ms);
    const target = targetOf(url, options);
    const connection = new Connection(target);
    const timeoutMs = positive("timeoutMs", options.timeoutMs ?? 1000);
    const bounds = {
      queueSize: positive("queueSize", options.queueSize ?? (isPage ? 1000 : 10_000)),
      queueAgeMs: positive("queueAgeMs", options.queueAgeMs ?? DAY),
    };
    const failures = new Failures(options.onError);
    const store = new Store(storagesOf("storage", options.storage));
    const keptStore = options.keptStorage === undefined ? store : new Store(storagesOf("keptStorage", options.keptStorage));
    const prefix = `decider|${target.url}|`;
    const outbox = (name: string, bounds: Bounds, lost: (failure: Failure) => void) =>
      new Outbox(connection, store, `${prefix}${name}|`, bounds, lost);
    this.#failures = failures;
    this.#outbox = outbox("q", bounds, (failure) => failures.note(failure));
    // Reports wait apart: those of an outage must not push a reward out, nor fill what a page may store.
    const most = { ...bounds, queueSize: isPage ? Math.min(bounds.queueSize, MOST_REPORTS) : bounds.queueSize };
    this.#reports = outbox("r", most, (failure) => {
      // The decision was never committed: there is nothing to correct.
      if (failure.reason !== "DECISION_NOT_FOUND") failures.note(failure);
    });
    // A server's visitors must not get each other's decisions: outside of a page nothing is kept unless a storage says where.
    const keeps = isPage || keptStore.storages.length;
    this.#kept = keeps ? new Kept(keptStore, `${prefix}k|`, keepMs) : undefined;
    this.#decisions = new Decisions(connection, timeoutMs, failures, this.#reports, (experiment, id, action) =>
      this.#kept?.keep(experiment, id, action),
    );
    this.#deliveries = new Deliveries(this.#outbox, timeoutMs, failures);
    this.#stopWatching = watchPage({
      hide: () => this.#leave(),
      leave: (kept) => {
        if (!kept) this.#decisions.leave();
        this.#leave();
      },
      again: () => this.#kept?.showAgain(),
      return: () => {
        this.#outbox.return();
        this.#reports.return();
      },
    });
  }

  /**
   * Choose an action. Calls of one moment (without an `await` between them) travel as one DecideBatch, if they
   * have one `timeoutMs`.
   *
   * With `fallback` nothing throws but a wrong fallback: whatever goes wrong gives that action, with the reason
   * REASON_FALLBACK and without a decision id. It is counted, logged, told to `onError`, and the server is told which
   * action was shown. Without it a TypeError names the wrong field, and a DeciderError is the server's or the network's.
   */
  async decide(experiment: string, unitId: string, options: DecideOptions = {}): Promise<Decision> {
    return this.#decisions.decide(asked(options, { experiment, unitId }));
  }

  /** Many decisions, 1,000 in a call and a commit: one call as the page loads. A result has a `response`, or the `error`
   * of that request alone. With a `fallback`, in a request or for all, each has a response. */
  async decideBatch(requests: readonly DecideAsk[], options: { fallback?: Fallback } = {}): Promise<BatchResult[]> {
    return this.#decisions.decideBatch(requests, asked(options, {}));
  }

  /** Fill several slots of a page, the first one first; no action is taken twice. */
  async decideSlate(
    experiment: string,
    unitId: string,
    slots: readonly SlotOptions[],
    options: SlateOptions = {},
  ): Promise<Slate> {
    return this.#decisions.decideSlate(asked(options, { experiment, unitId, slots }));
  }

  /** Say that the decision's action was shown, or which other one was. With a slate's id: that all were. Never throws. */
  activate(decisionId: string | null | undefined, action?: string): Promise<Outcome> {
    return this.#deliveries.deliver("Activate", () => activateRequest({ decisionId, action }));
  }

  /**
   * Activate the decision once its element was really seen: half of it for a second, in a page that is not hidden.
   * Once for a decision, however often the page renders, comes back, or calls. The result stops watching.
   */
  activateWhenSeen(
    element: Element | null,
    decision: string | { readonly decisionId: string } | null | undefined,
    options: SeenOptions = {},
  ): () => void {
    const decisionId = typeof decision === "string" ? decision : decision?.decisionId;
    if (!decisionId || this.#seen.has(decisionId)) return () => {};
    if (typeof Element === "undefined" || !(element instanceof Element)) {
      const error = new TypeError(`element: is ${typeOf(element)}; give an element of the page`);
      this.#failures.note(wrongArgument("Activate", error));
      return () => {};
    }
    return whenSeen(element, options, () => {
      if (this.#seen.has(decisionId)) return;
      if (this.#seen.size >= MOST_SEEN) this.#seen.clear();
      this.#seen.add(decisionId);
      void this.activate(decisionId);
    });
  }

  /**
   * Say how well a decision went, or with a slate's id a whole page: a `name` (default: "reward") and a `value`
   * (default: 1). For a fallback's empty id nothing is sent, and the outcome is "nothing".
   *
   * It never throws. What the server answers is the outcome. Where no answer comes it is "queued", and sent again until
   * it is answered or too old: by beacon as the page goes away, and by the next page. Two calls without a `rewardId` are
   * two rewards.
   */
  async reward(
    ...given: [decisionId: string | null | undefined, name?: string | null, value?: number, options?: RewardOptions]
  ): Promise<Outcome> {
    const [decisionId, name, , options] = given;
    const outcome = await this.#deliveries.deliver("Reward", () =>
      rewardRequest({ decisionId, name, options, ...valueOf(given, options) }),
    );
    if (outcome === "late" && decisionId) this.#kept?.forget(decisionId);
    return outcome;
  }

  /** Say that a unit did something, where nobody knows after which decision: see `reward.attribution` of the experiment.
   * Otherwise as `reward`. */
  rewardUnit(
    ...given: [unitId: string, name?: string | null, value?: number, options?: UnitRewardOptions]
  ): Promise<Outcome> {
    const [unitId, name, , options] = given;
    return this.#deliveries.deliver("Reward", () => rewardRequest({ unitId, name, options, ...valueOf(given, options) }));
  }

  /** Say that two units are one person: a visitor has signed in. Never throws. */
  linkUnits(unitId: string, sameAs: string): Promise<Outcome> {
    return this.#deliveries.deliver("LinkUnits", () => linkRequest({ unitId, sameAs }));
  }

  /** The id of the newest decision of an experiment, also of an earlier page of the site: for `reward` at the purchase.
   * "" where there is none, or its time is over. Of a slate, the slate's. */
  kept(experiment: string): string {
    return this.#kept?.find(experiment)?.decisionId ?? "";
  }

  /** All that are kept, the newest first. */
  get keptDecisions(): KeptDecision[] {
    return this.#kept?.all() ?? [];
  }

  /** Keep a decision that this client did not make: the page's server did. */
  keep(experiment: string, decisionId: string, action = ""): void {
    if (decisionId) this.#kept?.keep(fullText("experiment", experiment), text("decisionId", decisionId), action);
  }

  /** Forget every decision that is kept: the visitor has signed out, or wants nothing stored. */
  forget(): void {
    this.#kept?.clear();
  }

  /** Calls for which fallbacks were shown, by code and reason; of a batch, requests. */
  get fallbacks(): Count[] {
    return this.#failures.count("fallback");
  }

  /** Rewards and activations that were refused or dropped, by code and reason. */
  get undelivered(): Count[] {
    return this.#failures.count("refused", "dropped");
  }

  /** Rewards, activations and reports of fallbacks that are not answered yet. */
  get waiting(): number {
    return this.#outbox.size + this.#reports.size;
  }

  /** Try at once to deliver what waits, for so many milliseconds; whether nothing waits any longer. */
  async flush(timeoutMs = 5000): Promise<boolean> {
    const done = await Promise.all([this.#outbox.flush(timeoutMs), this.#reports.flush(timeoutMs)]);
    return done.every(Boolean);
  }

  /** Flush for so many milliseconds, drop what is left and not stored, and listen to the page no more. */
  async close(timeoutMs = 2000): Promise<void> {
    await Promise.all([this.#outbox.close(timeoutMs), this.#reports.close(timeoutMs)]);
    this.#stopWatching();
  }

  #leave(): void {
    this.#outbox.leave();
    this.#reports.leave();
  }
}

function targetOf(url: string, { key = "", token = "", fetch: own }: ClientOptions): Target {
  let found;
  try {
    found = new URL(url, globalThis.location?.href);
  } catch {
    found = undefined;
  }
  if (!/^https?:$/.test(found?.protocol ?? "")) {
    throw new TypeError(`url: is no address; give that of the server's port for frontends, https://...`);
  }
  text("key", key);
  if (typeof token !== "function") text("token", token);
  if (key && token) throw new TypeError("token: is given beside a key; give the key in a page, the token in a server");
  // A browser's own fetch must not be called as a method of something else.
  const call = (...given: Parameters<typeof fetch>) => (own ?? globalThis.fetch)(...given);
  return { url: found!.href.replace(/\/+$/, ""), key, token, fetch: call };
}

function storagesOf(field: string, given: PageStorage | null | undefined): PageStorage[] {
  if (given === undefined) return pageStorages();
  if (given === null) return [];
  if (typeof given.getItem !== "function") throw new TypeError(`${field}: is ${typeOf(given)}; give a Storage, or null`);
  return [given];
}

/** What was passed as a value, also where that is undefined: a page failed to find the amount. A retraction needs none. */
function valueOf(given: readonly unknown[], options: RewardOptions | undefined): { value?: unknown } {
  const needed = given.length > 2 && !(given[2] === undefined && options?.retract);
  return needed ? { value: given[2] } : {};
}

/** Arguments and options as one. Options of a page's own making may hide arguments: those win. */
function asked(options: unknown, first: Fields): Fields {
  return { ...(fields("options", options) as Fields), ...first };
}
