// A shop behind a CDN: the page is the same for everybody and cached, with a placeholder where something is decided; the
// browser decides. What is said of one visitor is never cached.
import { createServer } from "node:http";

const SERVER = process.env.DECIDER_WEB ?? "http://127.0.0.1:9465";

const PAGE = `<!DOCTYPE html><title>Shop</title>
<style>#banner { min-height: 6rem }</style>
<h1 id="banner"><!--banner--></h1>
<script type="module">
  import { Client } from "${SERVER}/client.js";
  const banner = document.querySelector("#banner");
  if (!banner.dataset.action) { // no edge has filled it: the browser asks
    const client = new Client({ url: "${SERVER}" });
    const unitId = (localStorage.visitor ??= String(Math.random()).slice(2));
    const fallback = { id: "new-arrivals", payload: { title: "New this week" } };
    const decision = await client.decide({ experiment: "storefront", unitId, timeoutMs: 300, fallback });
    banner.dataset.action = decision.action.id;
    banner.dataset.decision = decision.decisionId;
    banner.textContent = decision.action.payload.title ?? "";
    client.seen(banner, decision.decisionId);
  }
</script>`;

const ANSWERS = {
  // The same for all: browsers keep it a minute, the CDN ten, and a day more while it fetches a new one. No cookies.
  "/": ["text/html; charset=utf-8", "public, max-age=60, s-maxage=600, stale-while-revalidate=86400", PAGE],
  // The content's hash is in the name: it never changes.
  "/banner.3f9c1e.svg": ["image/svg+xml", "public, max-age=31536000, immutable", `<svg xmlns="http://www.w3.org/2000/svg"/>`],
  // One visitor's: no cache keeps it.
  "/bag": ["application/json", "private, no-store", `{"items": []}`],
};

const server = createServer((request, response) => {
  const [type, cache, body] = ANSWERS[new URL(request.url, "http://shop").pathname] ?? [];
  if (!body) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": type, "cache-control": cache }).end(body);
});
server.listen(Number(process.env.PORT ?? 8000), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
