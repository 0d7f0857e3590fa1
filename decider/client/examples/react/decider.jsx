// A decision as a hook of React. The client is made once, for the whole app.
import { useEffect, useRef, useState } from "react";
import { Client } from "decider-client";

const url = import.meta.env.VITE_DECIDER_WEB ?? "http://127.0.0.1:9465";
const key = import.meta.env.VITE_DECIDER_KEY; // a publishable key: it is no secret
export const client = new Client(url, { key, timeoutMs: 300 });
const asked = new Map();

/** The decision for an experiment, asked for once however often React renders; null until it is there, or its time is
 * over and the fallback is shown. options: null asks for none. */
export function useDecision(experiment, unitId, options) {
  const [decision, setDecision] = useState(null);
  useEffect(() => {
    if (!options) return;
    let here = true;
    if (!asked.has(experiment)) asked.set(experiment, client.decide(experiment, unitId, options));
    asked.get(experiment).then((found) => here && setDecision(found));
    return () => {
      here = false;
    };
  }, [experiment]);
  return decision;
}

/** Says that the decision was shown, once half of the element has been on the screen for a second. */
export function useSeen(decision) {
  const element = useRef(null);
  useEffect(() => (element.current ? client.activateWhenSeen(element.current, decision) : undefined), [decision]);
  return element;
}
