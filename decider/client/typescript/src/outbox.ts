/**
 * Rewards and activations until they are answered: tried at once, again later, by beacon as the page goes away, and
 * by the next page of the site. Called by `decisions.ts` and `deliveries.ts`.
 *
 * They are idempotent (each reward has a reward id), so sending one twice does no harm: two tabs may both send what is
 * stored. Each is stored under a key of its own, so that tabs overwrite nothing of each other. Both bounds are the
 * caller's; what goes beyond them is dropped, the oldest first, and told.
 */

import type { Connection, Method } from "./connection.js";
import { ANSWERED, DeciderError, failureOf, isLasting, type Failure } from "./failures.js";
import { chunks, newId } from "./messages.js";
import type { RewardRequest } from "./proto.js";
import type { Store } from "./storage.js";

export type Sent = "Reward" | "Activate" | "LinkUnits";

/** Milliseconds between tries while none succeeds: twice as long each time. */
const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 30_000;

/** Milliseconds that a try may take for which nobody waits. */
const PATIENCE = 5_000;

/** Milliseconds after which a page sends what another one has left: that one may be sending it still. */
const TAKE_OVER = 2_000;

/** Tries of a message that the server answers with an error of its own, which another message need not meet. */
const MOST_ANSWERS = 10;

/** Milliseconds between two that go out of a page's queue: its own decisions must not meet the rate of its key. */
const PACE = 100;

/** Milliseconds that a server may ask us to wait. */
const LONGEST_WAIT = 300_000;

/** Rewards in one beacon: browsers take 64 KB of all that is under way. */
const IN_A_BEACON = 50;

interface Stored {
  method: Sent;
  request: { decisionId?: string };
  /** Milliseconds of the device's clock. */
  at: number;
}

interface Item extends Stored {
  id: string;
  /** Milliseconds of a clock that never jumps. */
  since: number;
  answers: number;
  /** It waits for its next try: the first one has failed, or was not made. */
  waits: boolean;
  /** A beacon has gone since the page was last seen. */
  beaconed: boolean;
  /** Another page has stored it. */
  adopted: boolean;
}

export interface Bounds {
  queueSize: number;
  queueAgeMs: number;
}

export class Outbox {
  readonly #items = new Map<string, Item>();
  readonly #idle = new Set<() => void>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #takeOver: ReturnType<typeof setTimeout> | undefined;
  #working = false;
  #closed = false;
  #pause = 0;
  #due = 0;

  /** lost: told of each message that is given up. */
  constructor(
    readonly connection: Connection,
    readonly store: Store,
    readonly prefix: string,
    readonly bounds: Bounds,
    readonly lost: (failure: Failure) => void,
  ) {
    this.#takeOver = later(() => this.takeOver(), TAKE_OVER);
  }

  get size(): number {
    return this.#items.size;
  }

  /** One try, and what it came to: a reply, a failure for good ("refused"), or one that is tried again ("queued"). */
  async deliver(method: Sent, request: object, timeoutMs: number): Promise<{ reply: object } | { failure?: Failure }> {
    const item = this.#put(method, request);
    if (!item) return { failure: this.#failure({ method, request, id: "" }, "CLOSED") };
    if (this.#goesBefore(item)) {
      this.#wait(item);
      return {};
    }
    try {
      const reply = await this.connection.call(method, request, timeoutMs);
      this.#settle(item);
      return { reply };
    } catch (error) {
      const failure = failureOf(method, request, error);
      if (isLasting(failure)) this.#settle(item);
      else this.#postpone(item, failure, error);
      return { failure };
    }
  }

  /** Send it when there is time. The same id again is the same message. */
  put(method: Sent, request: object, id: string): void {
    const item = this.#items.has(id) ? undefined : this.#put(method, request, id);
    if (item) this.#wait(item);
  }

  #put(method: Sent, request: object, id = newId()): Item | undefined {
    if (this.#closed) return undefined;
    const now = performance.now();
    const begun = { answers: 0, waits: false, beaconed: false, adopted: false };
    const item = { id, method, request, at: Date.now(), since: now, ...begun };
    this.#items.set(id, item);
    this.store.set(this.prefix + id, JSON.stringify({ method, request, at: item.at } satisfies Stored));
    this.#dropTooMany();
    return item;
  }

  #dropTooMany(): void {
    for (const old of [...this.#items.values()].slice(0, -this.bounds.queueSize)) this.#drop(old, "QUEUE_FULL");
  }

  /** What waits has to be delivered first while nothing gets through, and what is about the same decision. */
  #goesBefore(item: Item): boolean {
    const waiting = [...this.#items.values()].filter((one) => one.waits);
    return waiting.length > 0 && (this.#pause > 0 || waiting.some((one) => subject(one) === subject(item)));
  }

  #wait(item: Item): void {
    item.waits = true;
    this.#start();
  }

  #start(): void {
    if (this.#timer || this.#working || this.#closed) return;
    if (![...this.#items.values()].some((one) => one.waits)) return;
    this.#timer = later(() => void this.#work(), this.#due - performance.now());
  }

  async #work(): Promise<void> {
    this.#timer = undefined;
    if (this.#working) return;
    this.#working = true;
    for (let item; !this.#closed && (item = this.#next()); ) {
      if (!(await this.#try(item))) break;
      if (typeof document !== "undefined") await new Promise((resolve) => setTimeout(resolve, PACE));
    }
    this.#working = false;
    this.#start();
  }

  #next(): Item | undefined {
    const oldest = performance.now() - this.bounds.queueAgeMs;
    for (const item of this.#items.values()) {
      if (item.adopted && !this.store.get(this.prefix + item.id)) this.#remove(item); // another tab has delivered it
      else if (item.since < oldest) this.#drop(item, "TOO_OLD");
    }
    return [...this.#items.values()].find((one) => one.waits);
  }

  /** Whether another one may be tried at once. */
  async #try(item: Item): Promise<boolean> {
    try {
      await this.connection.call(item.method, item.request, PATIENCE);
      this.#settle(item);
      return true;
    } catch (error) {
      const failure = failureOf(item.method, item.request, error);
      if (ANSWERED.includes(failure.code)) item.answers++;
      if (isLasting(failure) || item.answers >= MOST_ANSWERS) {
        this.#settle(item);
        this.lost(failure);
        return true;
      }
      this.#postpone(item, failure, error);
      return false;
    }
  }

  #postpone(item: Item, failure: Failure, error: unknown): void {
    this.#pause = Math.min(LONGEST_PAUSE, Math.max(FIRST_PAUSE, 2 * this.#pause));
    // Many pages lose the server at the same moment: they should not all come back at one.
    const pause = this.#pause * (0.5 + Math.random() / 2);
    const wanted = error instanceof DeciderError ? Math.min(LONGEST_WAIT, error.retryAfterMs) : 0;
    this.#due = performance.now() + Math.max(pause, wanted);
    if (ANSWERED.includes(failure.code) && this.#items.delete(item.id)) this.#items.set(item.id, item); // to the end
    this.#wait(item);
  }

  #settle(item: Item): void {
    this.#pause = this.#due = 0;
    this.#remove(item);
    this.#start();
  }

  #remove(item: Item): void {
    this.#items.delete(item.id);
    this.store.remove(this.prefix + item.id);
    if (!this.size) for (const tell of this.#idle) tell();
  }

  #drop(item: Item, reason: "QUEUE_FULL" | "TOO_OLD" | "CLOSED"): void {
    this.#remove(item);
    this.lost(this.#failure(item, reason));
  }

  #failure({ method, request }: Pick<Item, "method" | "request" | "id">, reason: string): Failure {
    const { queueSize, queueAgeMs } = this.bounds;
    const messages: { [reason: string]: string } = {
      CLOSED: "the client was closed before it could be sent",
      QUEUE_FULL: `more than ${queueSize} messages wait`,
      TOO_OLD: `it could not be sent for ${queueAgeMs} ms`,
    };
    const error = new DeciderError("UNAVAILABLE", reason, messages[reason] ?? "");
    return { ...failureOf(method, request, error), consequence: "dropped" };
  }

  /** Take what other pages of the site have stored, and could not send. */
  takeOver(): void {
    for (const key of this.store.keys(this.prefix)) {
      const id = key.slice(this.prefix.length);
      if (this.#closed || this.#items.has(id)) continue;
      const found = this.store.read(key, isStored);
      if (!found) continue;
      const age = Math.max(0, Date.now() - found.at); // a clock may have been set back since
      const begun = { answers: 0, waits: true, beaconed: false, adopted: true };
      this.#items.set(id, { ...found, id, since: performance.now() - age, ...begun });
    }
    const inOrder = [...this.#items.values()].sort((one, other) => one.since - other.since);
    this.#items.clear();
    for (const item of inOrder) this.#items.set(item.id, item);
    this.#dropTooMany();
    this.#start();
  }

  /** The page may be gone in a moment: send all that is not answered, without hearing the answer. */
  leave(): void {
    const left = [...this.#items.values()].filter((one) => !one.beaconed);
    const rewards = left.filter((one) => one.method === "Reward");
    for (const one of left.filter((one) => one.method !== "Reward")) this.#beacon(one.method, one.request, [one]);
    for (const some of chunks(rewards, IN_A_BEACON)) {
      this.#beacon("RewardBatch", { requests: some.map((one) => one.request as RewardRequest) }, some);
    }
  }

  #beacon(method: Method, request: object, items: Item[]): void {
    if (this.connection.beacon(method, request)) for (const one of items) one.beaconed = true;
  }

  /** The page is seen again, or the network is back. */
  return(): void {
    for (const one of this.#items.values()) one.beaconed = false;
    this.takeOver();
    this.#hurry();
  }

  #hurry(): void {
    this.#due = 0;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#start();
  }

  /** Try at once, and wait for so many milliseconds; whether nothing waits any longer. */
  async flush(timeoutMs: number): Promise<boolean> {
    this.takeOver();
    this.#hurry();
    if (!this.size) return true;
    return new Promise((resolve) => {
      const finish = () => {
        clearTimeout(timer);
        this.#idle.delete(finish);
        resolve(!this.size);
      };
      const timer = setTimeout(finish, timeoutMs);
      this.#idle.add(finish);
    });
  }

  /** Flush; then what still waits is dropped, but for what is stored for the next page, and nothing more is taken. */
  async close(timeoutMs: number): Promise<void> {
    clearTimeout(this.#takeOver);
    await this.flush(timeoutMs);
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const item of this.#items.values()) {
      if (this.store.get(this.prefix + item.id)) this.#items.delete(item.id);
      else this.#drop(item, "CLOSED");
    }
  }
}

/** Messages about the same decision or slate, or about units, are delivered in the order in which they came. */
function subject({ request }: Pick<Stored, "request">): string {
  return (request.decisionId ?? "units").replace(/\/1?[0-9]$/, "");
}

/** Another script of the site may have written it: whatever passes here must not stop the queue. */
function isStored({ method, request, at }: Stored): boolean {
  return ["Reward", "Activate", "LinkUnits"].includes(method) && typeof request === "object" && !!subject({ request }) && at > 0;
}

/** A timer that keeps no program of Node alive. */
function later(step: () => void, ms: number): ReturnType<typeof setTimeout> {
  const timer = setTimeout(step, Math.max(0, ms));
  (timer as { unref?: () => void }).unref?.();
  return timer;
}
