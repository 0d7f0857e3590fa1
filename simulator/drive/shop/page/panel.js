// What stands beside the shop: what everybody gets (from the log, each second), and what you got and did.
const PLACES = {
  "shop-banner": "The banner",
  "shop-picks": "Picked, or asked",
  "shop-cta": "The call to action",
  "shop-cart": "The offer in the bag",
};
const percent = (share) => `${Math.round(100 * share)} %`;
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
    const chances = new Map((decision.ranking ?? []).map((one) => [one.action, one.propensity ?? 0]));
    for (const [action, row] of place.rows) {
      row.line.classList.toggle("mine", action === decision.action.id);
      row.chance.hidden = !chances.has(action);
      row.chance.style.left = width(chances.get(action) ?? 0);
    }
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
    document.getElementById("events").prepend(element("li", {}, time, ` ${text}`));
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
    return { bars, mine, count, rows: new Map() };
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
      place.count.textContent = `${found.decisions} decisions; of the newest ${found.newest}, ${found.persons} for you or other people`;
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
