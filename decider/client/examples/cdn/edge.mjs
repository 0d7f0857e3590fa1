// The same shop where the CDN can run code (a worker with `fetch`): the cached page is filled at the edge, so it arrives
// complete, and only what is filled in is decided for each visitor.
import { Client } from "decider-client";

const FALLBACK = { id: "new-arrivals", payload: { title: "New this week" } };
const escape = (text) => String(text ?? "").replace(/[&<>"']/g, (one) => `&#${one.charCodeAt()};`);

export default {
  async fetch(request, env) {
    const page = await fetch(env.ORIGIN + new URL(request.url).pathname); // this one the CDN may cache
    if (!page.headers.get("content-type")?.startsWith("text/html")) return page;
    const client = new Client({ url: env.DECIDER_WEB, token: env.DECIDER_TOKEN }); // a secret of the edge
    const unitId = /visitor=([\w-]+)/.exec(request.headers.get("cookie"))?.[1] ?? crypto.randomUUID();
    const decision = await client.decide({ experiment: "storefront", unitId, timeoutMs: 100, fallback: FALLBACK });
    const data = `data-action="${escape(decision.action.id)}" data-decision="${escape(decision.decisionId)}"`;
    const html = (await page.text())
      .replace('id="banner"', `id="banner" ${data}`)
      .replace("<!--banner-->", escape(decision.action.payload.title));
    const headers = {
      "content-type": "text/html; charset=utf-8",
      "cache-control": "private, no-store", // filled, it is one visitor's
      "set-cookie": `visitor=${unitId}; Path=/; Max-Age=31536000; SameSite=Lax`,
    };
    return new Response(html, { headers });
  },
};
