// Made by `make proto` from proto/: do not edit. Types of what travels as JSON; nothing here runs.

/** Anything that JSON has. */
export type Json = string | number | boolean | null | Json[] | Struct;

export interface Struct {
  [name: string]: Json;
}

/**
 * The `Status` type defines a logical error model that is suitable for
 * different programming environments, including REST APIs and RPC APIs. It is
 * used by [gRPC](https://github.com/grpc). Each `Status` message contains
 * three pieces of data: error code, error message, and error details.
 *
 * You can find out more about this error model and how to work with it in the
 * [API Design Guide](https://cloud.google.com/apis/design/errors).
 */
export interface Status {
  /**
   * The status code, which should be an enum value of
   * [google.rpc.Code][google.rpc.Code].
   */
  code?: number;
  /**
   * A developer-facing error message, which should be in English. Any
   * user-facing error message should be localized and sent in the
   * [google.rpc.Status.details][google.rpc.Status.details] field, or localized
   * by the client.
   */
  message?: string;
  /**
   * A list of messages that carry the error details.  There is a common set of
   * message types for APIs to use.
   */
  details?: Array<{ "@type": string; [field: string]: unknown }>;
}

/** Why this action. */
export type Reason =
  | "REASON_UNSPECIFIED"
  /** Drawn from the policy's pmf: the most probable action. */
  | "REASON_EXPLOIT"
  /** Drawn from the policy's pmf: another action. */
  | "REASON_EXPLORE"
  /** The unit is in the control group: the baseline action. */
  | "REASON_HOLDOUT"
  /**
   * The fixed policy: the baseline action; where it is not eligible, every eligible action alike.
   * Also where the experiment only logs (LOG_ONLY): the call's default action, then the baseline action. Also where a
   * guardrail was crossed and everybody gets the baseline action.
   */
  | "REASON_BASELINE"
  /** The policy gave no usable pmf: the baseline action; where it is not eligible, every eligible action alike. */
  | "REASON_FALLBACK"
  /** There was nothing to choose. */
  | "REASON_ONLY_ELIGIBLE"
  /** The caller switched exploration off: the most probable action. */
  | "REASON_NO_EXPLORATION"
  /**
   * The unit is in the control group, and the baseline action is not eligible: every eligible action alike. It counts
   * neither for the control group nor for the policy, which does not learn from it.
   */
  | "REASON_HOLDOUT_UNAVAILABLE"
  /** The unit keeps an earlier decision, which is returned: no new draw, and nothing new in the log. */
  | "REASON_STICKY"
  /** Caps and budgets left nothing of what the call allows: the baseline action, whatever the call says about it. */
  | "REASON_WITHHELD"
  /**
   * The experiment's policy is an apprentice: the call's default action; without one the baseline action; where that is
   * not eligible, every eligible action alike.
   */
  | "REASON_APPRENTICE";

/** What became of an activation. */
export type ActivationOutcome =
  | "ACTIVATION_OUTCOME_UNSPECIFIED"
  /** In the decision's window: the drawn action was shown. */
  | "ACTIVATION_OUTCOME_ACTIVATED"
  /** In the decision's window: another action was shown than was drawn. */
  | "ACTIVATION_OUTCOME_OVERRIDDEN"
  /** This decision had been activated before: nothing has changed. */
  | "ACTIVATION_OUTCOME_DUPLICATE"
  /** After the decision's window: it changes nothing of what is learned or counted. Stored, but for an archived decision. */
  | "ACTIVATION_OUTCOME_LATE"
  /** There is no such decision yet: remembered for 10 minutes of log time, and in effect as soon as the decision is made. */
  | "ACTIVATION_OUTCOME_REMEMBERED";

export type RewardOutcome =
  | "REWARD_OUTCOME_UNSPECIFIED"
  /** In the decision's window: what is in force of it when the window ends will be learned from. */
  | "REWARD_OUTCOME_JOINED"
  /** After the window: stored and counted, not learned from. So it is with late corrections and retractions. */
  | "REWARD_OUTCOME_LATE"
  /** This reward_id, or this change of it, was stored before: nothing has changed. */
  | "REWARD_OUTCOME_DUPLICATE"
  /**
   * As JOINED, and by itself outside of the experiment's range. It is stored as sent; what is learned of the decision is
   * cut off at the range.
   */
  | "REWARD_OUTCOME_CLIPPED"
  /** A correction in the decision's window. */
  | "REWARD_OUTCOME_CORRECTED"
  /** A retraction in the decision's window. */
  | "REWARD_OUTCOME_RETRACTED"
  /**
   * A reward by unit, and no decision of the unit could be credited: none has an open window, or none was activated
   * where that is required, or each was overridden. It is stored and counted; it is not credited to later decisions.
   */
  | "REWARD_OUTCOME_NO_DECISION";

export type LinkOutcome =
  | "LINK_OUTCOME_UNSPECIFIED"
  | "LINK_OUTCOME_LINKED"
  /** They were one person before, by this link or by others: nothing has changed. */
  | "LINK_OUTCOME_DUPLICATE";

/** What is known about the unit and the moment. Every field is optional, unknown values are legal. */
export interface Context {
  segment?: string;
  device?: string;
  channel?: string;
  location?: string;
  intentStage?: string;
  /** Anything else: name to category (string), number or flag. At most 100. */
  features?: Struct;
}

export interface DecideRequest {
  /** Id of the experiment. */
  experiment?: string;
  /** Who the decision is for: visitor, customer, device. At most 256 characters. */
  unitId?: string;
  context?: Context;
  /**
   * The caller's idempotency key, at most 128 characters: the same id again returns the stored decision.
   * Default: a new uuid7.
   */
  decisionId?: string;
  /**
   * Only these actions may be chosen. Default: all active ones. Here, in `excluded_actions` and in `action_features`,
   * ids that the experiment does not have and retired ones are left out: `ignored_actions` of the reply names them.
   */
  eligibleActions?: Array<string>;
  /** These actions may not be chosen. */
  excludedActions?: Array<string>;
  /** What is known about actions only now (price, stock): action id to features. They win over the experiment's. */
  actionFeatures?: { [name: string]: Struct };
  /** False serves the most probable action with propensity 1. Default: true. */
  explore?: boolean;
  /** True returns the whole pmf. */
  withRanking?: boolean;
  /**
   * More actions, for this call only, where the experiment has `actions_in_calls`: they can be chosen beside the
   * experiment's own. One with the id of an active action of the experiment only adds its features and its payload.
   */
  actions?: Array<CalledAction>;
  /**
   * What the caller would show by itself, from among the eligible actions. Served where the experiment's `learning` is
   * APPRENTICE or LOG_ONLY; without effect elsewhere, so calls may always send it. No active action: it is left out, and
   * named in `ignored_actions`. Where it is left out, or a rule of the experiment leaves it out: the baseline action.
   */
  defaultAction?: string;
}

/** An action that comes with a call. */
export interface CalledAction {
  /** Letters, digits, '-', '_' and '.', at most 64 of them. */
  id?: string;
  /** Default: "content", or that of the experiment's action with this id. */
  kind?: string;
  /** What the policy may know about it: name to category (string), number or flag. */
  features?: Struct;
  /** Returned with the decision. Not logged: a retry has to send it again. */
  payload?: Struct;
}

export interface DecidedAction {
  id?: string;
  kind?: string;
  payload?: Struct;
}

export interface RankedAction {
  action?: string;
  /** Probability with which the action was drawn, in millionths it is whole. */
  propensity?: number;
}

export interface DecideResponse {
  decisionId?: string;
  action?: DecidedAction;
  /** The exact probability, in (0, 1], with which the action was drawn. */
  propensity?: number;
  reason?: Reason;
  /** The model that served: the log position that it has learned up to. 0: nothing learned yet. */
  model?: string;
  /** The version of the experiment, counted from 1. */
  experimentVersion?: number;
  /** Most probable first; only when asked for. The propensities sum to 1. */
  ranking?: Array<RankedAction>;
  /**
   * Ids in the request that are no active action of the experiment, and were left out: the first 20, each cut off at
   * 64 characters.
   */
  ignoredActions?: Array<string>;
}

export interface DecideBatchRequest {
  /** At most 1000. */
  requests?: Array<DecideRequest>;
}

export interface DecideBatchResponse {
  results?: Array<DecideResult>;
}

export interface DecideResult {
  response?: DecideResponse;
  error?: Status;
}

export interface DecideSlateRequest {
  /** Id of the experiment. */
  experiment?: string;
  /** Who the slate is for. At most 256 characters. */
  unitId?: string;
  context?: Context;
  /**
   * The caller's idempotency key, at most 120 characters: the same id again returns the stored slate. The decisions of
   * its slots have the ids SLATE/0, SLATE/1 and so on. Default: a new uuid7.
   */
  slateId?: string;
  /**
   * From the first to the last one filled, at most 20. No action is taken twice, so the order matters: the best place
   * first.
   */
  slots?: Array<Slot>;
  /** What is known about actions only now, as in DecideRequest. */
  actionFeatures?: { [name: string]: Struct };
  /** False serves the most probable action of each slot with propensity 1. Default: true. */
  explore?: boolean;
  /** True returns the whole pmf of each slot. */
  withRanking?: boolean;
  /** More actions, for this call only, as in DecideRequest: each can be chosen for every slot that allows it. */
  actions?: Array<CalledAction>;
}

/** A place on the page. */
export interface Slot {
  /**
   * What the policy may know about the place, as features of the context ("place": "top"). They may not have names
   * that the context has, too.
   */
  features?: Struct;
  /** Only these actions may be chosen here. Default: all active ones. */
  eligibleActions?: Array<string>;
  /** These actions may not be chosen here. */
  excludedActions?: Array<string>;
  /**
   * What the caller would show here by itself, as in DecideRequest. Where a slot before has taken it, it is not eligible
   * here.
   */
  defaultAction?: string;
}

export interface DecideSlateResponse {
  slateId?: string;
  /**
   * One for each slot. A propensity is that of the action given what the slots before it got; that of the whole slate
   * is the product. Rewards and activations name the decision of a slot, or the slate for all of them.
   */
  decisions?: Array<DecideResponse>;
}

export interface ActivateRequest {
  /** At most 128 characters. */
  decisionId?: string;
  /**
   * The action that was shown when it was not the drawn one, at most 128 characters. Such a decision is logged as
   * overridden; the experiment's `override` says what becomes of it. Default: the drawn action was shown.
   */
  action?: string;
}

export interface ActivateResponse {
  /** False: nothing was stored; see `outcome`. */
  first?: boolean;
  outcome?: ActivationOutcome;
}

export interface RewardRequest {
  /** The decision that is rewarded, or a slate. Or `unit_id` in its place. */
  decisionId?: string;
  /** For example "click" or "purchase". Default: "reward"; of a change: the name of the reward that is changed. */
  name?: string;
  /** Default: 1. A correction has to say it, a retraction needs none. */
  value?: number;
  /**
   * The caller's idempotency key, at most 128 characters: the same id for the same decision counts once; for the same
   * unit too, whichever experiments it names. A reward by decision and one by unit with the same id and name are one
   * purchase of the person in an experiment: the second one is a DUPLICATE there, whichever decision was credited.
   */
  rewardId?: string;
  /** When it happened, if not now. For the record only: windows are measured when rewards arrive. */
  occurredAt?: string;
  /**
   * Takes back what was sent for this decision or unit under `reward_id`, as when a purchase is returned. If that has
   * not come yet, it counts nothing when it comes; without `name`, whatever its name is. A purchase that was sent by
   * decision can be taken back and corrected by unit, and the other way round.
   */
  retract?: boolean;
  /**
   * Puts `value` in place of what was sent for this decision under `reward_id`. If that has not come yet, it counts this
   * value. The same change again (equal reward_id, value and occurred_at) is a DUPLICATE: to go back to an earlier value
   * give `occurred_at`.
   */
  correct?: boolean;
  /**
   * The last word about the decision: it is sealed at once, and not only when its window is over. What comes later is
   * LATE. Nothing is sealed where the reward is a DUPLICATE.
   */
  final?: boolean;
  /**
   * Who did it, where nobody knows for which decision: a purchase in a store or on another device. It is credited to
   * those decisions of the unit whose window is open, as `reward.attribution` of their experiments says; at most 256
   * characters. See also LinkUnits.
   */
  unitId?: string;
  /**
   * Only for `unit_id`: this experiment alone. Default: every experiment that has `reward.attribution` and takes such
   * a reward. A change holds wherever its reward was credited: leave it out, or send what the reward was sent with.
   */
  experiment?: string;
}

export interface RewardResponse {
  outcome?: RewardOutcome;
  /**
   * Of a reward by unit, or a change of one: the newest 10 decisions that it is credited to. A DUPLICATE has those of
   * the first, also where that named a decision.
   */
  decisionIds?: Array<string>;
}

export interface LinkUnitsRequest {
  /** At most 256 characters. */
  unitId?: string;
  /** The other id of the same person. A person has at most 20. */
  sameAs?: string;
}

export interface LinkUnitsResponse {
  outcome?: LinkOutcome;
}

export interface RewardBatchRequest {
  /** At most 1000. */
  requests?: Array<RewardRequest>;
}

export interface RewardBatchResponse {
  results?: Array<RewardResult>;
}

export interface RewardResult {
  response?: RewardResponse;
  error?: Status;
}

/** Each call with its request and its reply. */
export interface Methods {
  /** Chooses one action. Answers after the decision is committed to the log. */
  Decide: [DecideRequest, DecideResponse];
  /** Many decisions in one call and one commit. Results in the order of the requests, each with its own status. */
  DecideBatch: [DecideBatchRequest, DecideBatchResponse];
  /** Fills several slots of a page with different actions, in one call and one commit: all of them or none. */
  DecideSlate: [DecideSlateRequest, DecideSlateResponse];
  /**
   * Says that a decision's action was really shown, or which other action was shown in its place. May come before its
   * Decide: so a caller that gave up says what it showed.
   */
  Activate: [ActivateRequest, ActivateResponse];
  /** Says how well a decision went. Answers after the reward is committed to the log. */
  Reward: [RewardRequest, RewardResponse];
  /**
   * Many rewards in one call and one commit; in several, one after the other, where they write more than 1000 entries,
   * as rewards by unit may. Results in the order of the requests, each with its own status: a reward is stored whole, or
   * has an error.
   */
  RewardBatch: [RewardBatchRequest, RewardBatchResponse];
  /**
   * Says that two units are one person: an anonymous visitor has signed in. From here on a reward by unit of either one
   * reaches the decisions of both. Answers after the link is committed to the log.
   */
  LinkUnits: [LinkUnitsRequest, LinkUnitsResponse];
}
