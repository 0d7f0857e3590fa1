// A decision as a hook of React. The client is made once, for the whole app.
import { useEffect, useRef, useState } from "react";
import { Client } from "decider-client";

const url = import.meta.env.VITE_DECIDER_WEB ?? "http://127.0.0.1:9465";
export const client = new Client({ url, key: import.meta.env.VITE_DECIDER_KEY }); // a publishable key: it is no secret
const asked = new Map();

/** The decision for `key`, asked for once however often React renders; null until it is there or its time is over.
 * options: null asks for none. */
export function useDecision(key, options) {
  const [decision, setDecision] = useState(null);
  useEffect(() => {
    if (!options) return;
    let here = true;
    if (!asked.has(key)) asked.set(key, client.decide({ timeoutMs: 300, ...options }));
    asked.get(key).then((found) => here && setDecision(found));
    return () => {
      here = false;
    };
  }, [key]);
  return decision;
}

/** Says that the decision was shown, once half of the element has been on the screen. */
export function useSeen(decision) {
  const element = useRef(null);
  useEffect(() => {
    if (decision?.decisionId && element.current) client.seen(element.current, decision.decisionId);
  }, [decision]);
  return element;
}
