/**
 * Rewards, activations and links: tried at once, and again where that may help. Called by `client.ts`.
 *
 * Nothing here throws for what the server, the network or a value does: a page that thanks for an order must not die of
 * a reward.
 */

import { isLasting, wrongArgument, type Failures } from "./failures.js";
import type { Outbox, Sent } from "./outbox.js";

/**
 * What became of it. The server's word, such as "joined", "late", "duplicate"; "activated" and the like of an
 * activation. "queued": it could not be delivered now, and is sent again. "refused": it is wrong, or the server does not
 * take it; logged, counted and told to `onError`. "nothing": there is no decision, since its action was a fallback.
 */
export type Outcome =
  | "joined"
  | "late"
  | "duplicate"
  | "clipped"
  | "corrected"
  | "retracted"
  | "no_decision"
  | "activated"
  | "overridden"
  | "remembered"
  | "linked"
  | "queued"
  | "refused"
  | "nothing"
  | (string & {});

export class Deliveries {
  constructor(
    readonly outbox: Outbox,
    readonly timeoutMs: number,
    readonly failures: Failures,
  ) {}

  /** make: the request; undefined where there is nothing to send. */
  async deliver(method: Sent, make: () => object | undefined): Promise<Outcome> {
    let request;
    try {
      request = make();
    } catch (error) {
      this.failures.note(wrongArgument(method, error));
      return "refused";
    }
    if (!request) return "nothing";
    const done = await this.outbox.deliver(method, request, this.timeoutMs);
    if ("reply" in done) return word(done.reply);
    const { failure } = done;
    const outcome = failure && (failure.consequence === "dropped" || isLasting(failure)) ? "refused" : "queued";
    if (failure) this.failures.note(outcome === "queued" ? { ...failure, consequence: outcome } : failure);
    return outcome;
  }
}

/** The server's word; of a newer server that has another one, its number; of an older one, what it has. */
function word({ outcome, first }: { outcome?: unknown; first?: boolean }): Outcome {
  if (outcome === undefined) return first ? "first" : "again";
  return typeof outcome === "string" ? outcome.split("_OUTCOME_").pop()!.toLowerCase() : `outcome ${outcome}`;
}
