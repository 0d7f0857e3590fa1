/** Options -> requests. Errors name the field; see `values.ts`. Called by `decisions.ts` and `deliveries.ts`. */

import type {
  ActivateRequest,
  CalledAction,
  Context,
  DecideRequest,
  DecideSlateRequest,
  LinkUnitsRequest,
  RewardRequest,
  Slot,
} from "./proto.js";
import { branches, features, fields, flag, fullText, list, number, positive, text, texts, typeOf, type Fields } from "./values.js";

/** What the server takes in one call. */
export const MOST_IN_A_BATCH = 1000;

const CONTEXT = ["segment", "device", "channel", "location", "intentStage"] as const;
const BOTH = [
  ...["experiment", "unitId", "actionFeatures", "actions", "explore", "withRanking", "features", "fallback", "timeoutMs"],
];
const OF_PLACES = ["eligibleActions", "excludedActions", "defaultAction"];
const DECIDE = [...BOTH, ...OF_PLACES, ...CONTEXT, "decisionId"];
const SLATE = [...BOTH, ...CONTEXT, "slateId", "slots"];
const SLOT = ["features", ...OF_PLACES];
const ACTION = ["id", "kind", "features", "payload"];
const REWARD = ["rewardId", "occurredAt", "correct", "retract", "final"];

/** A uuid7: ids that rise with time keep the log's indexes small. (randomUUID is missing in pages without TLS.) */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  const random = [...bytes].map((one) => one.toString(16).padStart(2, "0")).join("");
  const time = Date.now().toString(16).padStart(12, "0");
  const variant = "89ab"[bytes[2]! & 3];
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(0, 3)}-${variant}${random.slice(5, 8)}-${random.slice(8)}`;
}

/** From the options of `decide`; null is the same as none given. It always has a decision id. */
export function decideRequest(given: unknown): DecideRequest {
  const asked = fields("options", given, DECIDE);
  optional(positive, "timeoutMs", asked);
  return {
    experiment: fullText("experiment", asked.experiment),
    unitId: fullText("unitId", asked.unitId),
    context: context(asked),
    decisionId: optional(text, "decisionId", asked) || newId(),
    ...ofPlace(asked, ""),
    ...rest(asked),
  };
}

/** From the options of `decideSlate`, as above. It always has a slate id. */
export function slateRequest(given: unknown): DecideSlateRequest {
  const asked = fields("options", given, SLATE);
  optional(positive, "timeoutMs", asked);
  const slots = list("slots", asked.slots, "objects").map((one, place) => slot(`slots[${place}]`, one));
  if (!slots.length) throw new TypeError("slots: is empty; give an object for each place, {} where it has nothing");
  return {
    experiment: fullText("experiment", asked.experiment),
    unitId: fullText("unitId", asked.unitId),
    context: context(asked),
    slateId: optional(text, "slateId", asked) || newId(),
    slots,
    ...rest(asked),
  };
}

/** From the options of `reward` or `rewardUnit`; undefined where there is no decision to reward, since a fallback was
 * shown. It always has a reward id, so that it can be sent again and counts once. */
export function rewardRequest(asked: Fields): RewardRequest | undefined {
  const byUnit = "unitId" in asked;
  fields("options", asked.options ?? {}, byUnit ? [...REWARD, "experiment"] : REWARD);
  const options = (asked.options ?? {}) as Fields;
  if (!byUnit && (asked.decisionId ?? "") === "") return undefined;
  const rewardId = optional(text, "rewardId", options);
  if (!rewardId && (options.correct || options.retract)) {
    throw new TypeError("rewardId: is missing; a change needs that of the reward that it changes");
  }
  return {
    ...(byUnit
      ? { unitId: fullText("unitId", asked.unitId), experiment: optional(text, "experiment", options) }
      : { decisionId: fullText("decisionId", asked.decisionId) }),
    name: optional(text, "name", asked),
    // undefined and null are given, and refused: a page failed to find the amount
    value: "value" in asked ? number("value", asked.value) : undefined,
    rewardId: rewardId || newId(),
    occurredAt: optional(moment, "occurredAt", options),
    correct: optional(flag, "correct", options),
    retract: optional(flag, "retract", options),
    final: optional(flag, "final", options),
  };
}

/** From the arguments of `activate`; undefined where there is no decision. */
export function activateRequest(asked: Fields): ActivateRequest | undefined {
  const decisionId = optional(text, "decisionId", asked);
  return decisionId ? { decisionId, action: optional(text, "action", asked) } : undefined;
}

/** From the arguments of `linkUnits`. */
export function linkRequest(asked: Fields): LinkUnitsRequest {
  return { unitId: fullText("unitId", asked.unitId), sameAs: fullText("sameAs", asked.sameAs) };
}

/** One of several requests; errors name its place, too. */
export function numbered<T>(name: string, place: number, make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw new TypeError(`${name}[${place}].${(error as Error).message}`, { cause: error });
  }
}

/** As many as one call takes, in order. */
export function* chunks<T>(all: readonly T[], most = MOST_IN_A_BATCH): Generator<T[]> {
  for (let start = 0; start < all.length; start += most) yield all.slice(start, start + most);
}

function optional<T>(read: (field: string, value: unknown) => T, name: string, asked: Fields, path = ""): T | undefined {
  return asked[name] == null ? undefined : read(path + name, asked[name]);
}

function context(asked: Fields): Context {
  const found: Context = { features: optional(features, "features", asked) };
  for (const name of CONTEXT) found[name] = optional(text, name, asked);
  return found;
}

function rest(asked: Fields): Pick<DecideRequest, "actionFeatures" | "actions" | "explore" | "withRanking"> {
  return {
    actionFeatures: optional(actionFeatures, "actionFeatures", asked),
    actions: optional(actions, "actions", asked),
    explore: optional(flag, "explore", asked),
    withRanking: optional(flag, "withRanking", asked),
  };
}

function ofPlace(asked: Fields, path: string): Omit<Slot, "features"> {
  const eligibleActions = optional(texts, "eligibleActions", asked, path);
  // To the server, no names mean all actions: the opposite of what a page means that found none to be possible.
  if (eligibleActions && !eligibleActions.length) {
    throw new TypeError(`${path}eligibleActions: is empty, so nothing may be chosen; leave it out where all may be`);
  }
  return {
    eligibleActions,
    excludedActions: optional(texts, "excludedActions", asked, path),
    defaultAction: optional(text, "defaultAction", asked, path),
  };
}

function slot(path: string, given: unknown): Slot {
  const asked = fields(path, given, SLOT);
  return { features: optional(features, "features", asked, `${path}.`), ...ofPlace(asked, `${path}.`) };
}

function actionFeatures(field: string, given: unknown): { [name: string]: ReturnType<typeof features> } {
  const known = Object.entries(fields(field, given)).filter(([, one]) => one != null);
  return Object.fromEntries(known.map(([action, one]) => [action, features(`${field}.${action}`, one)]));
}

function actions(field: string, given: unknown): CalledAction[] {
  return list(field, given, "objects").map((one, place) => {
    const path = `${field}[${place}]`;
    const asked = fields(path, one, ACTION);
    return {
      id: fullText(`${path}.id`, asked.id),
      kind: optional(text, "kind", asked, `${path}.`),
      features: optional(features, "features", asked, `${path}.`),
      payload: optional(branches, "payload", asked, `${path}.`),
    };
  });
}

function moment(field: string, given: unknown): string {
  if (!(given instanceof Date) || isNaN(+given)) throw new TypeError(`${field}: is ${typeOf(given)}; give a valid Date`);
  return given.toISOString();
}
