/** One call over HTTP, in the Connect protocol's JSON, with its deadline. Called by `client.ts` and the outboxes. */

import { DeciderError } from "./failures.js";
import type { Methods } from "./proto.js";

export type Method = keyof Methods;

/** What calls go to. key: publishable, for pages; token: secret, for servers. */
export interface Target {
  url: string;
  key: string;
  token: string | (() => string);
  fetch: typeof fetch;
}

/** How a status of HTTP is read where a proxy answered, without Connect's own error. */
const BY_STATUS: { [status: number]: string } = {
  400: "INTERNAL",
  401: "UNAUTHENTICATED",
  403: "PERMISSION_DENIED",
  404: "UNIMPLEMENTED",
  429: "UNAVAILABLE",
  502: "UNAVAILABLE",
  503: "UNAVAILABLE",
  504: "UNAVAILABLE",
};

export class Connection {
  constructor(readonly target: Target) {}

  /** The reply; throws a DeciderError where none comes within so many milliseconds, also where `fetch` hangs. */
  async call<M extends Method>(method: M, request: Methods[M][0], timeoutMs: number): Promise<Methods[M][1]> {
    const controller = new AbortController();
    let timer;
    const over = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new DeciderError("DEADLINE_EXCEEDED", "", `no answer within ${timeoutMs} ms`));
        controller.abort();
      }, timeoutMs);
    });
    try {
      return await Promise.race([this.#ask(method, request, timeoutMs, controller.signal), over]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #ask(method: Method, request: object, timeoutMs: number, signal: AbortSignal): Promise<object> {
    let response, body;
    try {
      response = await this.target.fetch(this.#address(method), {
        method: "POST",
        headers: this.#headers(timeoutMs),
        body: JSON.stringify(request),
        credentials: "omit",
        signal,
      });
      body = await response.text();
    } catch (error) {
      throw new DeciderError("UNAVAILABLE", isNotConnected(error) ? "NOT_CONNECTED" : "", causes(error));
    }
    return read(response, body);
  }

  /** Send it as the page goes away; whether the browser has taken it. Nobody hears the answer. */
  beacon(method: Method, request: object): boolean {
    const body = JSON.stringify(request);
    const { key, token } = this.target;
    try {
      // A beacon has no headers of its own: a text needs no preflight, and a publishable key may stand in the address.
      if (!token && navigator.sendBeacon) return navigator.sendBeacon(this.#address(method, key), body);
      this.target
        .fetch(this.#address(method), { method: "POST", headers: this.#headers(0), body, keepalive: true })
        .catch(() => {});
      return true;
    } catch {
      return false;
    }
  }

  #address(method: Method, key = ""): string {
    return `${this.target.url}/decider.v1.DeciderService/${method}${key && `?key=${encodeURIComponent(key)}`}`;
  }

  #headers(timeoutMs: number): Record<string, string> {
    const { key, token } = this.target;
    const secret = typeof token === "function" ? token() : token;
    return {
      "content-type": "application/json",
      "connect-protocol-version": "1",
      ...(timeoutMs && { "connect-timeout-ms": `${Math.ceil(timeoutMs)}` }),
      ...((secret || key) && { authorization: `Bearer ${secret || key}` }),
    };
  }
}

function read(response: Response, body: string): object {
  let found;
  try {
    found = JSON.parse(body);
  } catch {
    // said below: a proxy's or a hotel's page
  }
  if (response.ok && typeof found === "object" && found) return found;
  const after = 1000 * Number(response.headers.get("retry-after")) || 0;
  if (typeof found?.code !== "string") {
    const code = response.ok ? "UNAVAILABLE" : (BY_STATUS[response.status] ?? "UNKNOWN");
    throw new DeciderError(code, "NOT_DECIDER", `an answer that is not the server's, HTTP ${response.status}`, after);
  }
  const code = found.code === "canceled" ? "CANCELLED" : found.code.toUpperCase();
  throw new DeciderError(code, reasonOf(found.details), `${found.message ?? ""}`, after);
}

/** The reason in google.rpc.ErrorInfo, which is its first field: tag, length, text. */
function reasonOf(details: unknown): string {
  try {
    const info = (details as Array<{ type: string; value: string }>).find((one) => one.type === "google.rpc.ErrorInfo");
    const bytes = atob(info!.value);
    return bytes[0] === "\n" ? bytes.slice(2, 2 + bytes.charCodeAt(1)) : "";
  } catch {
    return ""; // an error with strange details, or with none, is an error all the same
  }
}

/** Nothing was sent: there was no connection to send it on. A page learns that only where it is offline. */
function isNotConnected(error: unknown): boolean {
  const { code = "" } = ((error as Error).cause ?? {}) as { code?: string };
  return globalThis.navigator?.onLine === false || ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN"].includes(code);
}

/** Node says "fetch failed", and why in the cause. */
function causes(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error && cause.message ? `${message}: ${cause.message}` : `${message}`;
}
