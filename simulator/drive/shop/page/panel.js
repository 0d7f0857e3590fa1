// What stands beside the shop: what everybody gets (from the log, each second), and what you got and did.
const PLACES = {
  "shop-banner": "The banner",
  "shop-picks": "Picked, or asked",
  "shop-cta": "The call to action",
  "shop-cart": "The offer in the bag",
};
const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
const width = (share) => `${100 * share}%`;
const element = (tag, attributes = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
};

export class Panel {
  #places = new Map();
  #page = document.documentElement.dataset.page;

  constructor() {
    for (const [id, title] of Object.entries(PLACES)) this.#places.set(id, this.#place(id, title));
    this.#look();
  }

  /** A decision was made for you. */
  decided(experiment, decision) {
    const place = this.#places.get(experiment);
    place.decision = decision;
    this.#mark(place);
    place.mine.replaceChildren(
      element("span", { className: "you", textContent: "you" }),
      decision.decisionId
        ? ` ${decision.action.id}, drawn with a probability of ${percent(decision.propensity)}`
        : ` ${decision.action.id}: no answer, so the page shows its own`,
    );
  }

  /** You did something, and this came of it. */
  happened(text) {
    const time = element("time", { textContent: new Date().toLocaleTimeString("en-GB") });
    const events = document.getElementById("events");
    if (!events.querySelector("time")) events.replaceChildren();
    events.prepend(element("li", {}, time, ` ${text}`));
  }

  knows(context) {
    const parts = Object.entries(context).filter(([, value]) => value !== "").map(([name, value]) => `${name} ${value}`);
    document.getElementById("known").textContent = parts.join(", ");
  }

  #place(id, title) {
    const link = element("a", { href: `${this.#page}/experiments/${id}`, target: "_blank", textContent: "its figures" });
    link.setAttribute("aria-label", `${title}: its figures`);
    const head = element("div", { className: "place-head" }, element("h3", { textContent: title }), link);
    const bars = element("ul", { className: "bars" });
    const mine = element("p", { className: "note", textContent: "You have not been there yet." });
    const count = element("p", { className: "note" });
    document.getElementById("places").append(element("div", { className: "place" }, head, mine, bars, count));
    return { bars, mine, count, rows: new Map(), decision: null };
  }

  #mark({ decision, rows }) {
    const chances = new Map((decision?.ranking ?? []).map((one) => [one.action, one.propensity ?? 0]));
    for (const [action, row] of rows) {
      row.line.classList.toggle("mine", action === decision?.action.id);
      row.chance.hidden = !chances.has(action);
      row.chance.style.left = width(chances.get(action) ?? 0);
    }
  }

  #row(place, action) {
    if (!place.rows.has(action)) {
      const fill = element("span", { className: "fill" });
      const chance = element("span", { className: "chance", hidden: true, title: "your probability" });
      const share = element("span", { className: "percent" });
      const line = element("li", {}, element("span", { textContent: action }), element("span", { className: "track" }, fill, chance), share);
      place.bars.append(line);
      place.rows.set(action, { line, fill, chance, share });
    }
    return place.rows.get(action);
  }

  #show(state) {
    for (const [id, found] of Object.entries(state)) {
      const place = this.#places.get(id);
      for (const [action, share] of Object.entries(found.actions)) {
        const row = this.#row(place, action);
        row.fill.style.width = width(share);
        row.share.textContent = percent(share);
      }
      this.#mark(place);
      const persons = `${found.persons} of the newest ${found.newest} for people with a browser`;
      place.count.textContent = `${found.decisions} decisions, ${persons}`;
    }
  }

  async #look() {
    try {
      if (!document.hidden) this.#show(await (await fetch("/shop/state")).json());
    } catch {
      document.getElementById("beside").textContent = "The demo has ended: start it again with make demo.";
    }
    setTimeout(() => this.#look(), 1000);
  }
}
