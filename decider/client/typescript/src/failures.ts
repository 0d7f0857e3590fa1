/**
 * What went wrong in a call: counted, logged and told to the application.
 *
 * A page that shows its fallback looks as if all were well. So each failure is counted, logged (once a minute for each
 * kind) and given to `onError`. Called by `decisions.ts`, `deliveries.ts` and `outbox.ts`.
 */

import type { Status } from "./proto.js";

/** What became of the call. */
export type Consequence = "fallback" | "queued" | "refused" | "dropped";

/** A call that failed. */
export interface Failure {
  /** The RPC's name. */
  call: string;
  /** gRPC's name, such as "UNAVAILABLE". */
  code: string;
  /** The server's name for it; "WRONG_ARGUMENT" where nothing was sent; "" where there is none. */
  reason: string;
  /** For people; names the field where one was wrong. */
  message: string;
  consequence: Consequence;
  experiment: string;
  /** Of a slate, its id. */
  decisionId: string;
  /** The fallback action, if one was shown; of a slate, those of its slots. */
  shown: string;
  /** What was thrown, if anything was. */
  error?: unknown;
}

/** How many failures there were of a kind. */
export interface Count {
  code: string;
  reason: string;
  count: number;
}

/** A call without a reply: the server's word, or the network's. */
export class DeciderError extends Error {
  override readonly name = "DeciderError";

  constructor(
    readonly code: string,
    readonly reason: string,
    message: string,
    /** Milliseconds after which the server wants to be asked again. */
    readonly retryAfterMs = 0,
  ) {
    super(message);
  }
}

/** Codes of gRPC by their numbers, as in the results of a batch. */
const CODES = (
  "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED " +
  "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS " +
  "UNAUTHENTICATED"
).split(" ");

/** Codes by which a server says that it did nothing, and would not the next time. Not UNAUTHENTICATED: a key that has
 * run out is replaced, and rewards wait for that. */
const LASTING = [3, 5, 6, 7, 9, 11, 12, 15].map((number) => CODES[number]);

/** Answers of the server's own, which another message need not meet. */
export const ANSWERED = ["INTERNAL", "UNKNOWN"];

/** Milliseconds after which a kind of failure is logged again, with their number since. */
const LOG_AGAIN = 60_000;

/** Kinds that are told apart: reasons come from outside. */
const MOST_KINDS = 256;

/** The same call would fail again. */
export function isLasting(failure: Failure): boolean {
  return LASTING.includes(failure.code);
}

/** The server may have committed the call, although no answer came. */
export function mayBeLogged(failure: Failure): boolean {
  return !(
    isLasting(failure) ||
    (failure.code === "RESOURCE_EXHAUSTED" && failure.reason) || // our server's word that it took nothing
    failure.code === "UNAUTHENTICATED" || // whose call was not even read
    failure.reason === "NOT_CONNECTED"
  );
}

/** Of an option that cannot be sent. */
export function wrongArgument(call: string, error: unknown): Failure {
  const message = error instanceof Error ? error.message : String(error);
  return made(call, {}, { code: "INVALID_ARGUMENT", reason: "WRONG_ARGUMENT", message, error });
}

/** Of whatever a call threw. request: what was asked for. */
export function failureOf(call: string, request: object, error: unknown): Failure {
  const { code, reason, message } =
    error instanceof DeciderError ? error : new DeciderError("UNKNOWN", (error as Error)?.name ?? "", String(error));
  return made(call, request, { code, reason, message, error });
}

/** Of one result of a batch. */
export function errorOf({ code = 2, message = "", details = [] }: Status = {}): DeciderError {
  const info = details.find((one) => typeof one.reason === "string");
  return new DeciderError(CODES[code] ?? "UNKNOWN", String(info?.reason ?? ""), message);
}

/** Counts, logs and tells the failures of one client. */
export class Failures {
  readonly #counts = new Map<string, Count & { consequence: Consequence }>();
  readonly #logged = new Map<string, { at: number; others: number }>();
  #telling = false;

  /** onError: called with each; what it throws is logged and goes no further. */
  constructor(readonly onError?: (failure: Failure) => unknown) {
    if (onError && typeof onError !== "function") throw new TypeError("onError: give a function");
  }

  /** By kind, up to now. */
  count(...consequences: Consequence[]): Count[] {
    const found = new Map<string, Count>();
    for (const { code, reason, count, consequence } of this.#counts.values()) {
      if (!consequences.includes(consequence)) continue;
      const kind = `${code} ${reason}`;
      found.set(kind, { code, reason, count: count + (found.get(kind)?.count ?? 0) });
    }
    return [...found.values()];
  }

  note(failure: Failure): void {
    this.#add(failure);
    this.#log(failure);
    this.#tell(failure);
  }

  #add({ consequence, code, reason }: Failure): void {
    let kind = `${consequence} ${code} ${reason}`;
    if (!this.#counts.has(kind) && this.#counts.size >= MOST_KINDS) {
      [kind, code, reason] = [`${consequence} OTHER`, "OTHER", ""];
    }
    const known = this.#counts.get(kind) ?? { consequence, code, reason, count: 0 };
    known.count++;
    this.#counts.set(kind, known);
  }

  #log(failure: Failure): void {
    const { call, consequence, code, reason, experiment } = failure;
    const kind = [call, consequence, code, reason, experiment].join(" ");
    const last = this.#logged.get(kind);
    if (last && performance.now() - last.at < LOG_AGAIN) {
      last.others++;
      return;
    }
    if (this.#logged.size >= MOST_KINDS) this.#logged.clear();
    this.#logged.set(kind, { at: performance.now(), others: 0 });
    console.warn(`decider: ${sentence(failure)}${last?.others ? ` (${last.others} more like it before)` : ""}`);
  }

  #tell(failure: Failure): void {
    if (!this.onError || this.#telling) return; // it calls the client, which fails again
    this.#telling = true;
    try {
      this.onError(failure);
    } catch (error) {
      console.error("decider: onError failed; the page goes on", error);
    } finally {
      this.#telling = false;
    }
  }
}

function made(call: string, request: object, found: Partial<Failure>): Failure {
  const { experiment = "", decisionId, slateId } = request as { [name: string]: string | undefined };
  const about = { call, experiment, decisionId: decisionId || slateId || "", shown: "" };
  return { code: "", reason: "", message: "", ...about, ...found, consequence: "refused" };
}

/** For whoever reads the console of the page. */
function sentence({ call, experiment, code, reason, message, consequence, shown }: Failure): string {
  const become = {
    fallback: `the fallback '${shown}' is shown`,
    queued: "it is queued and sent again",
    refused: "it is not sent again",
    dropped: "it is lost",
  };
  const where = experiment ? ` for experiment '${experiment}'` : "";
  return `${call}${where}: ${[code, reason, message].filter(Boolean).join(": ")}; ${become[consequence]}`;
}
