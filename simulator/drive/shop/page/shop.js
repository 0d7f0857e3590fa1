// A shop whose banner, picks, call to action and offer are decided by the service. Everything it asks and tells goes
// from the browser to the service, by the client that the service brings along.
import { Panel } from "./panel.js";

const { Client } = await import(new URL("/client.js", document.documentElement.dataset.web));
const client = new Client(document.documentElement.dataset.web, { timeout: 1000 });
const panel = new Panel();

const PRODUCTS = [
  ["Ava dress", 79, "dresses", "#f1d9c7", "#9b4a32"],
  ["Straight jeans", 89, "denim", "#d5deea", "#35507c"],
  ["Court shoe", 99, "shoes", "#dfe6da", "#4c6a4a"],
  ["Running top", 39, "sport", "#eadcec", "#6e4a7e"],
  ["Linen dress", 95, "dresses", "#e6e2cf", "#6f6a35"],
  ["Wide jeans", 85, "denim", "#dce6e8", "#2f5f6b"],
  ["Trail shoe", 119, "shoes", "#f2dedd", "#95404a"],
  ["Training tee", 29, "sport", "#dbe8e3", "#2d6a58"],
].map(([name, price, kind, tint, shade]) => ({ name, price, kind, tint, shade }));
const TASTES = { dresses: "Dresses", denim: "Denim", sport: "Sport", shoes: "Shoes" };
const MARGIN = 0.3;
const SHIPPING = 4;

const id = (name) => document.getElementById(name);
const unit = (localStorage.visitor ??= `you-${crypto.randomUUID()}`);
const bag = [];
const current = {};
let stage = "browse";
let taste = "";
let visit = 0;

const element = (tag, attributes = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
};
const button = (textContent, onclick, className = "") => element("button", { type: "button", textContent, onclick, className });
const money = (amount) => `${amount.toFixed(2)} €`;
const total = () => bag.reduce((sum, one) => sum + one.price, 0);

function art(product, className = "art") {
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawing.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${product.kind}`);
  drawing.append(use);
  const made = element("span", { className }, drawing);
  made.style.setProperty("--tint", product.tint);
  made.style.setProperty("--shade", product.shade);
  return made;
}

// What the page knows of the visitor, as the place's experiment names it.
const device = () => (innerWidth < 800 ? "mobile" : "desktop");
const segment = () => id("segment").value;
const member = (segment) => (segment === "regular" ? "member" : segment);
const CONTEXTS = {
  "shop-banner": () => ({ segment: segment(), device: device(), channel: id("channel").value, intentStage: stage }),
  "shop-picks": () => ({ device: device(), channel: id("channel").value, features: taste ? { taste } : {} }),
  "shop-cta": () => ({ segment: segment() === "new" ? "new" : "member", device: device(), channel: id("channel").value, intentStage: stage === "checkout" ? "cart" : stage }),
  "shop-cart": () => ({ segment: member(segment()), device: device(), features: { cart_value: total(), days_since: 0 } }),
};

/** What is shown there; without an answer in time, `fallback`: a page has to show something. */
async function decide(experiment, fallback, more = {}) {
  const context = CONTEXTS[experiment]();
  const decision = await client.decide(experiment, unit, { fallback, context, withRanking: true, ...more });
  current[experiment] = decision;
  panel.decided(experiment, decision);
  panel.knows({ segment: segment(), channel: id("channel").value, device: device(), stage, taste });
  return { ...decision, payload: decision.action.payload ?? {} };
}

/** As soon as half of it has been on the screen, the decision counts as shown. */
const seen = (target, experiment) => client.seen(target, current[experiment]);

async function reward(experiment, name, value = 1) {
  const decision = current[experiment];
  if (!decision?.decisionId) return;
  const outcome = await client.reward(decision.decisionId, name, value);
  panel.happened(`${name} ${value === 1 ? "" : `${value.toFixed(2)} `}for ${decision.action.id}: ${outcome}`);
}

async function showBanner() {
  const place = id("banner");
  const { action, payload } = await decide("shop-banner", "new-arrivals");
  place.hidden = action.kind === "none";
  if (place.hidden) return;
  const text = { title: "New this week", text: "Straight from the studio.", button: "See what is new", ...payload };
  const go = () => {
    reward("shop-banner", "click");
    action.id === "finish-checkout" ? openBag() : id("all-title").scrollIntoView();
  };
  const drawing = art(PRODUCTS[visit % PRODUCTS.length]).firstChild;
  place.replaceChildren(drawing, element("h2", { textContent: text.title }), element("p", { textContent: text.text }), button(text.button, go));
  seen(place, "shop-banner");
}

async function showPicks() {
  const place = id("picks");
  const { action, payload } = await decide("shop-picks", "bestsellers", { excludedActions: taste ? ["ask"] : [] });
  id("picks-title").textContent = payload.title ?? "What everybody buys";
  place.hidden = false;
  if (action.id === "ask") {
    const answers = Object.entries(TASTES).map(([name, title]) => button(title, () => answer(name)));
    id("picks-content").replaceChildren(element("p", { textContent: payload.text }), element("div", { className: "answers" }, ...answers));
  } else {
    const fitting = PRODUCTS.filter((one) => one.kind === action.id);
    const products = fitting.length ? [...fitting, ...PRODUCTS.filter((one) => one.kind !== action.id)] : PRODUCTS;
    id("picks-content").replaceChildren(list(products.slice(0, 4), () => reward("shop-picks", "click")));
  }
  seen(place, "shop-picks");
}

function answer(name) {
  taste = name;
  reward("shop-picks", "answer");
  toast(`Thank you: ${TASTES[name].toLowerCase()} it is.`);
  showPicks();
}

function list(products, onPick = () => {}) {
  const item = (product) => {
    const label = element("span", { className: "label" }, element("span", { textContent: product.name }), element("span", { className: "price", textContent: money(product.price) }));
    const pick = element("button", { type: "button" }, art(product), label);
    pick.onclick = () => (onPick(), openProduct(product));
    return element("li", {}, pick);
  };
  return element("ul", { className: "products" }, ...products.map(item));
}

async function openProduct(product) {
  if (stage === "browse") stage = "compare";
  const { action, payload } = await decide("shop-cta", "buy-now");
  const said = element("p", { className: "answered", role: "status" });
  const act = () => {
    reward("shop-cta", "click");
    said.textContent = payload.done ?? "It is in your bag.";
    if (action.id === "buy-now") put(product);
  };
  const call = button(payload.button ?? "Buy it now", act, "main");
  const texts = element("div", { className: "stack" }, element("h2", { id: "product-name", textContent: product.name }), element("p", { textContent: money(product.price) }), call, said);
  if (action.id !== "buy-now") texts.append(button("Put it into the bag", () => (put(product), id("product").close())));
  id("product").replaceChildren(closer("product"), element("div", { className: "shown" }, art(product), texts));
  open("product");
  seen(call, "shop-cta");
}

function put(product) {
  bag.push(product);
  stage = "cart";
  id("bag-count").textContent = bag.length;
  toast(`${product.name} is in your bag.`);
}

async function openBag() {
  const lines = bag.map((one) => element("li", {}, art(one, "cart-art"), element("span", { className: "name", textContent: one.name }), element("span", { className: "price", textContent: money(one.price) })));
  const content = [closer("cart"), element("h2", { id: "cart-title", textContent: "Your bag" })];
  if (!bag.length) {
    id("cart").replaceChildren(...content, element("p", { className: "note", textContent: "Nothing in it yet." }));
    return open("cart");
  }
  stage = "checkout";
  const { action, payload } = await decide("shop-cart", "reminder");
  const off = total() * (payload.discount ?? 0);
  const shipping = payload.shipping ? 0 : SHIPPING;
  const offer = element("p", { className: "offer", textContent: payload.title ?? "" });
  const sums = element("dl", { className: "sums" });
  const sum = (name, amount, className = "") => sums.append(element("dt", { textContent: name, className }), element("dd", { textContent: money(amount), className }));
  sum("Bag", total());
  if (off) sum("Offer", -off);
  sum("Shipping", shipping);
  sum("Total", total() - off + shipping, "total");
  if (action.kind !== "none" && payload.title) content.push(offer);
  id("cart").replaceChildren(...content, element("ul", { className: "lines" }, ...lines), sums, button("Order", () => order(off, SHIPPING - shipping), "main"));
  open("cart");
  seen(action.kind === "none" ? sums : offer, "shop-cart");
}

/** The ids of what was decided are still there: the order is the reward of the bag's offer, and seen for the banner. */
function order(off, shipping) {
  reward("shop-cart", "margin", Math.max(0, MARGIN * total() - off - shipping));
  reward("shop-banner", "order");
  bag.length = 0;
  id("bag-count").textContent = 0;
  id("cart").close();
  toast("Thank you for your order. (Nothing was bought: this is a demo.)");
}

const closer = (name) => button("Close", () => id(name).close(), "close");
const open = (name) => id(name).open || id(name).showModal();

let clearing;
function toast(text) {
  id("toast").textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => (id("toast").textContent = ""), 4000);
}

function startVisit() {
  visit += 1;
  stage = bag.length ? "cart" : "browse";
  showBanner();
  showPicks();
}

id("bag").onclick = openBag;
id("who").onsubmit = (event) => (event.preventDefault(), startVisit());
id("all").replaceWith(Object.assign(list(PRODUCTS), { id: "all" }));
startVisit();
