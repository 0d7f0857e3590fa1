// Server rendering in Node: the decision is made on the server, the page arrives complete, and takes the decision's id
// along. In Next.js the middle of `home` belongs into a server component (`export const dynamic = "force-dynamic"`),
// and `Banner` of ../react with the decision as its property into a client component.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Client } from "decider-client";

const SERVER = process.env.DECIDER_WEB ?? "http://127.0.0.1:9465"; // where this program reaches the service
const client = new Client({ url: SERVER, token: process.env.DECIDER_TOKEN }); // a secret token: it stays on the server
const FALLBACK = { id: "new-arrivals", payload: { title: "New this week" } };
const escape = (text) => String(text ?? "").replace(/[&<>"']/g, (one) => `&#${one.charCodeAt()};`);
const json = (value) => JSON.stringify(value).replace(/</g, "\\u003c"); // may stand in a script element

async function home(request, response) {
  const unitId = /visitor=([\w-]+)/.exec(request.headers.cookie)?.[1] ?? randomUUID();
  const device = /Mobi/.test(request.headers["user-agent"]) ? "mobile" : "desktop";
  // The page waits 200 ms at most, and then shows its own banner.
  const decision = await client.decide({ experiment: "storefront", unitId, device, timeoutMs: 200, fallback: FALLBACK });
  const { decisionId, action } = decision;
  response.writeHead(200, {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "private, no-store", // one visitor's page: no cache may give it to the next one
    "set-cookie": `visitor=${unitId}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax`,
  });
  response.end(`<!DOCTYPE html><title>Shop</title>
<h1 id="banner" data-action="${escape(action.id)}">${escape(action.payload.title)}</h1>
<button>Look</button>
<script type="application/json" id="decision">${json({ decisionId, action: action.id })}</script>
<script type="module">
  const { decisionId } = JSON.parse(document.querySelector("#decision").textContent);
  const tell = (what) => navigator.sendBeacon("/told", JSON.stringify({ decisionId, what }));
  new IntersectionObserver(([one], all) => one.isIntersecting && (all.disconnect(), tell("seen"))).observe(document.querySelector("#banner"));
  document.querySelector("button").onclick = () => tell("click");
</script>`);
}

async function told(request, response) {
  let body = "";
  for await (const part of request) if ((body += part).length > 1000) return response.writeHead(413).end();
  const { decisionId, what } = JSON.parse(body);
  const outcome = what === "seen" ? await client.activate(decisionId) : await client.reward(decisionId, "click");
  response.end(json({ outcome }));
}

const routes = { "GET /": home, "POST /told": told };
const server = createServer((request, response) => {
  const route = routes[`${request.method} ${request.url}`];
  if (!route) return response.writeHead(404).end();
  route(request, response).catch((error) => (console.error(error), response.writeHead(400).end()));
});
server.listen(Number(process.env.PORT ?? 8000), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
