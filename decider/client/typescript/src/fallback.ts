/** What the page shows when there is no answer. Called by `decisions.ts`. */

import type { DecidedAction, DecideResponse, Struct } from "./proto.js";
import { branches, fields, fullText, text, typeOf } from "./values.js";

/** An action's id; or an action with all that the page needs to show it. */
export type Fallback = string | { id: string; kind?: string; payload?: { readonly [name: string]: unknown } };

/** What was decided, with nothing left out that JSON leaves out. `decisionId` is empty for a fallback. */
export interface Decision extends Required<Omit<DecideResponse, "action">> {
  action: { id: string; kind: string; payload: Struct };
}

const HELP = "give an action's id or {id, payload}, or leave it out and catch the errors";

/** The action to show, or undefined where none was given. Throws for anything else: here, not in the first outage. */
export function readFallback(given: unknown, field = "fallback"): Decision["action"] {
  if (typeof given === "string") return { id: fullText(field, given), kind: "", payload: {} };
  if (typeof given !== "object" || !given) throw new TypeError(`${field}: is ${typeOf(given)}; ${HELP}`);
  const { id, kind = "", payload = {} } = fields(field, given, ["id", "kind", "payload"]);
  return {
    id: fullText(`${field}.id`, id),
    kind: text(`${field}.kind`, kind),
    payload: branches(`${field}.payload`, payload),
  };
}

/** One for each slot. */
export function readFallbacks(given: unknown, slots: number): Array<Decision["action"]> {
  if (!Array.isArray(given) || !given.length) {
    throw new TypeError(`fallback: is ${typeOf(given)}; give an array of actions, one for each slot`);
  }
  const shown = given.map((one, place) => readFallback(one, `fallback[${place}]`));
  if (slots && slots !== shown.length) {
    throw new TypeError(`fallback: has ${shown.length} actions for ${slots} slots; give one for each`);
  }
  return shown;
}

/** It has no decision id: nothing was decided, so there is nothing to reward. */
export function fallbackDecision(action: Decision["action"]): Decision {
  return filled({ action, propensity: 1, reason: "REASON_FALLBACK" });
}

/** With the fields that JSON leaves out where they are zero or empty. */
export function filled(reply: DecideResponse): Decision {
  return {
    decisionId: "",
    propensity: 0,
    reason: "REASON_UNSPECIFIED",
    model: "0",
    experimentVersion: 0,
    ranking: [],
    ignoredActions: [],
    ...reply,
    action: filledAction(reply.action),
  };
}

function filledAction(action: DecidedAction = {}): Decision["action"] {
  return { id: "", kind: "", payload: {}, ...action };
}
