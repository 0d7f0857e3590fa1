import type { Client } from "./types/client.js";

export interface RewardSettings {
  /** Milliseconds after which the code's default is shown. Default: 1000. */
  deadlineMs?: number;
  /** Whether an evaluation is told as an exposure (Activate). Default: true. */
  exposures?: boolean;
}

/**
 * Adds rewards, exposures and a deadline to a provider of OpenFeature for OFREP or flagd, and returns it.
 *
 * `track(name, context, details)` is a Reward of `details.value`: of the decision `details.decisionId`; else of the last
 * one that was shown to the context's targetingKey by the flag `details.experiment`; else by unit, and the server knows
 * for which decision. `details.rewardId`, such as an order's number, counts once. A decision that is too old to be
 * rewarded gets nothing.
 */
export function withRewards<Provider extends object>(provider: Provider, client: Client, settings?: RewardSettings): Provider;
