/**
 * Decision ids from the page that decided to the page of the purchase, one for each experiment: the newest.
 *
 * No unit and no context is stored. Called by `client.ts`.
 */

import type { Store } from "./storage.js";

/** A decision that a later page may reward. */
export interface KeptDecision {
  experiment: string;
  /** Of a slate, its id. */
  decisionId: string;
  /** Of a slate, "". */
  action: string;
  /** When it was last put on a page, and until when it is kept, in milliseconds of the device's clock. */
  shownAt: number;
  until: number;
}

/** Milliseconds, for all experiments or by their ids. */
export type KeepMs = number | { readonly [experiment: string]: number };

const DAY = 86_400_000;

/** Experiments with a kept decision; the oldest are forgotten first. */
const MOST = 50;

export class Kept {
  /** What this page has decided itself. */
  readonly #own = new Map<string, KeptDecision>();

  constructor(
    readonly store: Store,
    readonly prefix: string,
    readonly keepMs: KeepMs,
  ) {}

  keep(experiment: string, decisionId: string, action: string): void {
    const ms = typeof this.keepMs === "number" ? this.keepMs : (this.keepMs[experiment] ?? DAY);
    const now = Date.now();
    this.#put({ experiment, decisionId, action, shownAt: now, until: now + ms });
    for (const old of this.all().slice(MOST)) this.#drop(old);
  }

  /** That of an experiment, if it is kept still. */
  find(experiment: string): KeptDecision | undefined {
    return this.all().find((one) => one.experiment === experiment);
  }

  /** The newest first; what is over is removed. */
  all(): KeptDecision[] {
    const found = new Map(this.#own);
    for (const key of this.store.keys(this.prefix)) {
      const one = this.store.read(key, isKept);
      const own = one && found.get(one.experiment);
      if (one && !(own && own.shownAt > one.shownAt)) found.set(one.experiment, one);
    }
    const all = [...found.values()];
    for (const one of all.filter(isOver)) this.#drop(one);
    return all.filter((one) => !isOver(one)).sort((a, b) => b.shownAt - a.shownAt);
  }

  /** The browser shows this page as it was, after others: what it shows is what was shown last. */
  showAgain(): void {
    for (const one of this.#own.values()) this.#put({ ...one, shownAt: Date.now() });
  }

  /** Rewards for it come too late. */
  forget(decisionId: string | undefined): void {
    for (const one of this.all()) if (one.decisionId === decisionId) this.#drop(one);
  }

  clear(): void {
    for (const one of this.all()) this.#drop(one);
  }

  #put(one: KeptDecision): void {
    this.#own.set(one.experiment, one);
    this.store.set(this.prefix + one.experiment, JSON.stringify(one));
  }

  #drop({ experiment }: KeptDecision): void {
    this.#own.delete(experiment);
    this.store.remove(this.prefix + experiment);
  }
}

/** A clock that was set back makes nothing live for ever. */
function isOver({ shownAt, until }: KeptDecision): boolean {
  return Date.now() >= until || Date.now() < shownAt - 2 * DAY;
}

function isKept({ experiment, decisionId, action, shownAt, until }: KeptDecision): boolean {
  const texts = [experiment, decisionId, action];
  return texts.every((one) => typeof one === "string") && !!decisionId && shownAt > 0 && until > 0;
}
