import { createRoot } from "react-dom/client";
import { client, useDecision, useSeen } from "./decider.jsx";

const unitId = (localStorage.visitor ??= String(Math.random()).slice(2));
const OWN = { id: "new-arrivals", payload: { title: "New this week", link: "#new" } };

/** `decision` is given where the server has decided already (server rendering); else it is asked for. */
function Banner({ decision: given }) {
  const options = { experiment: "storefront", unitId, intentStage: "browse", fallback: OWN };
  const asked = useDecision("banner", given ? null : options);
  const decision = given ?? asked;
  const element = useSeen(decision);
  if (!decision) return <section style={{ minHeight: "9rem" }} />; // its room, so that nothing jumps
  const { id, kind, payload } = decision.action;
  return (
    <section ref={element} id="banner" data-action={id} data-decision={decision.decisionId} style={{ minHeight: "9rem" }}>
      {kind !== "none" && (
        <a href={payload.link} onClick={() => client.reward(decision.decisionId, "click")}>
          {payload.title}
        </a>
      )}
    </section>
  );
}

createRoot(document.getElementById("root")).render(<Banner />);
