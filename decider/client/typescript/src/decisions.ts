/** `decide` and its like: a reply, or the fallback and everybody told. Called by `client.ts`. */

import type { Connection } from "./connection.js";
import { errorOf, failureOf, mayBeLogged, wrongArgument, type DeciderError, type Failures } from "./failures.js";
import { fallbackDecision, filled, readFallback, readFallbacks, type Decision } from "./fallback.js";
import { chunks, decideRequest, numbered, slateRequest } from "./messages.js";
import type { Outbox } from "./outbox.js";
import type { DecideRequest, DecideSlateRequest } from "./proto.js";
import { isFields, typeOf, type Fields } from "./values.js";

/** Of one request of a batch: a response, or what went wrong. */
export type BatchResult = { response: Decision; error?: undefined } | { response?: undefined; error: DeciderError };

export interface Slate {
  /** Empty where fallbacks are shown. */
  slateId: string;
  /** One for each slot. */
  decisions: Decision[];
}

type Shown = Array<Decision["action"]>;

interface Waiting {
  request: DecideRequest;
  timeoutMs: number;
  resolve: (decision: Decision) => void;
  reject: (error: unknown) => void;
}

export class Decisions {
  /** Calls of this moment: those with one deadline travel together, as one DecideBatch. */
  #moment: Waiting[] = [];
  /** Calls that are not answered, with what is shown in their place. */
  readonly #flying = new Map<DecideRequest | DecideSlateRequest, Shown>();

  /** reports: sends which fallback was shown. keep: given each decision of the server. */
  constructor(
    readonly connection: Connection,
    readonly timeoutMs: number,
    readonly failures: Failures,
    readonly reports: Outbox,
    readonly keep: (experiment: string, id: string, action: string) => void,
  ) {}

  async decide(asked: Fields): Promise<Decision> {
    const shown = "fallback" in asked ? readFallback(asked.fallback) : undefined;
    return this.#decide("Decide", shown, asked.timeoutMs, () => decideRequest(asked));
  }

  async decideBatch(given: unknown, options: Fields): Promise<BatchResult[]> {
    const all = this.#list(given, options).map((one, place) => {
      const asked = isFields(one) ? one : {};
      const fallback = "fallback" in asked ? asked : options;
      const field = `requests[${place}].fallback`;
      const shown = "fallback" in fallback ? readFallback(fallback.fallback, field) : undefined;
      return { shown, timeoutMs: asked.timeoutMs, make: () => numbered("requests", place, () => decideRequest(one)) };
    });
    for (const { shown, make } of all) if (!shown) make(); // a wrong request without a fallback: nothing is sent
    return Promise.all(
      all.map(({ shown, timeoutMs, make }) =>
        this.#decide("DecideBatch", shown, timeoutMs, make).then(
          (response) => ({ response }),
          (error: DeciderError) => ({ error }),
        ),
      ),
    );
  }

  #list(given: unknown, options: Fields): unknown[] {
    if (Array.isArray(given)) return given;
    const error = new TypeError(`requests: is ${typeOf(given)}; give an array of objects, each with the options of decide`);
    if (!("fallback" in options)) throw error;
    readFallback(options.fallback);
    this.failures.note({ ...wrongArgument("DecideBatch", error), consequence: "fallback" });
    return [];
  }

  async decideSlate(asked: Fields): Promise<Slate> {
    const places = Array.isArray(asked.slots) ? asked.slots.length : 0;
    const shown = "fallback" in asked ? readFallbacks(asked.fallback, places) : undefined;
    const fallback = () => ({ slateId: "", decisions: shown!.map(fallbackDecision) });
    return this.#ask("DecideSlate", shown, () => slateRequest(asked), fallback, async (request) => {
      const reply = await this.connection.call("DecideSlate", request, this.#timeout(asked.timeoutMs));
      const slate = { slateId: "", ...reply, decisions: (reply.decisions ?? []).map(filled) };
      this.keep(request.experiment!, slate.slateId, "");
      return slate;
    });
  }

  #decide(
    method: string,
    shown: Decision["action"] | undefined,
    timeoutMs: unknown,
    make: () => DecideRequest,
  ): Promise<Decision> {
    return this.#ask(
      method,
      shown && [shown],
      make,
      () => fallbackDecision(shown!),
      async (request) => {
        const decision = await this.#together(request, this.#timeout(timeoutMs));
        this.keep(request.experiment!, decision.decisionId, decision.action.id);
        return decision;
      },
    );
  }

  /** The answer; without one the fallback, and everybody told. Where there is none to show, it throws. */
  async #ask<R extends DecideRequest | DecideSlateRequest, T>(
    method: string,
    shown: Shown | undefined,
    make: () => R,
    fallback: () => T,
    send: (request: R) => Promise<T>,
  ): Promise<T> {
    let request;
    try {
      request = make();
      if (shown) this.#flying.set(request, shown);
      return await send(request);
    } catch (error) {
      if (!shown) throw error;
      const failure = request ? failureOf(method, request, error) : wrongArgument(method, error);
      if (request && mayBeLogged(failure)) this.#report(request, shown);
      this.failures.note({ ...failure, consequence: "fallback", shown: shown.map((one) => one.id).join(", ") });
      return fallback();
    } finally {
      if (request) this.#flying.delete(request);
    }
  }

  #timeout(given: unknown): number {
    return given == null ? this.timeoutMs : (given as number);
  }

  #together(request: DecideRequest, timeoutMs: number): Promise<Decision> {
    return new Promise((resolve, reject) => {
      if (this.#moment.push({ request, timeoutMs, resolve, reject }) === 1) queueMicrotask(() => this.#send());
    });
  }

  #send(): void {
    const all = this.#moment;
    this.#moment = [];
    for (const timeoutMs of new Set(all.map((one) => one.timeoutMs))) {
      for (const some of chunks(all.filter((one) => one.timeoutMs === timeoutMs))) {
        void this.#sendOrReject(some, timeoutMs);
      }
    }
  }

  async #sendOrReject(some: Waiting[], timeoutMs: number): Promise<void> {
    const start = performance.now();
    try {
      await this.#sendSome(some, timeoutMs);
    } catch (error) {
      const left = timeoutMs - (performance.now() - start);
      const alone = some[1] && left > 0 && (error as DeciderError).reason === "NOT_FOR_PAGES";
      // One of them asks for what a page's key may not, and a batch is refused whole: the others did nothing wrong.
      for (const one of some) alone ? void this.#sendOrReject([one], left) : one.reject(error);
    }
  }

  async #sendSome(some: Waiting[], timeoutMs: number): Promise<void> {
    const requests = some.map((one) => one.request);
    const { results = [] } = some[1]
      ? await this.connection.call("DecideBatch", { requests }, timeoutMs)
      : { results: [{ response: await this.connection.call("Decide", requests[0]!, timeoutMs), error: undefined }] };
    some.forEach(({ resolve, reject }, place) => {
      const { response, error } = results[place] ?? {};
      if (response?.action?.id) resolve(filled(response));
      else reject(errorOf(error ?? { message: "an answer without an action" }));
    });
  }

  /** The page goes away for good, and nobody will see the answers. */
  leave(): void {
    for (const [request, shown] of this.#flying) this.#report(request, shown);
  }

  /** A decision that was committed without an answer must not be learned from as if its action had been shown. */
  #report(request: DecideRequest | DecideSlateRequest, shown: Shown): void {
    shown.forEach(({ id: action }, place) => {
      const decisionId = "slots" in request ? `${request.slateId}/${place}` : (request as DecideRequest).decisionId!;
      this.reports.put("Activate", { decisionId, action }, decisionId);
    });
  }
}
