// A server that speaks the Connect protocol's JSON and does as it is told: slow, failing, hanging, gone. For tests of
// clients alone; what it decides means nothing. As a program it prints its port, and `POST /mode` tells it how to be.

import http from "node:http";

const CORS = {
  "access-control-allow-origin": "*",
  "access-control-allow-headers": "authorization,content-type,connect-protocol-version,connect-timeout-ms",
  "access-control-expose-headers": "retry-after",
  "access-control-max-age": "7200",
};

export class Stub {
  calls = [];
  mode = {};
  #seen = new Set();
  #server = http.createServer((request, response) => void this.#answer(request, response));

  async start(port = 0) {
    await new Promise((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
    this.port = this.#server.address().port;
    this.url = `http://127.0.0.1:${this.port}`;
    return this;
  }

  /** As a server that is killed: connections end, and nobody listens. */
  async stop() {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  of(method) {
    return this.calls.filter((call) => call.method === method).map((call) => call.request);
  }

  async #answer(request, response) {
    const address = new URL(request.url, "http://stub");
    if (request.method === "OPTIONS") return response.writeHead(204, CORS).end();
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const body = Buffer.concat(pieces).toString();
    if (address.pathname === "/mode") {
      this.mode = JSON.parse(body);
      return response.writeHead(200, CORS).end("{}");
    }
    if (address.pathname === "/calls") return response.writeHead(200, CORS).end(JSON.stringify(this.calls));
    const method = address.pathname.split("/").pop();
    const asked = JSON.parse(body);
    const { authorization = "", "content-type": type } = request.headers;
    this.calls.push({ method, request: asked, key: address.searchParams.get("key"), authorization, type });
    const { delayMs = 0, hang = false, status = 200, text, headers = {}, only = "" } = this.mode;
    const applies = !only || only === method;
    if (applies && hang) return;
    if (applies && delayMs) await new Promise((resolve) => setTimeout(resolve, delayMs));
    if (applies && text !== undefined) return response.writeHead(status, { ...CORS, ...headers }).end(text);
    response.writeHead(200, { ...CORS, "content-type": "application/json" }).end(JSON.stringify(this.#reply(method, asked)));
  }

  #reply(method, asked) {
    if (method === "Decide") return this.#decide(asked);
    if (method === "DecideBatch") return { results: asked.requests.map((one) => this.#decideOne(one)) };
    if (method === "DecideSlate") {
      const decisions = asked.slots.map((_, place) => ({ ...this.#decide(asked), decisionId: `${asked.slateId}/${place}` }));
      return { slateId: asked.slateId, decisions };
    }
    if (method === "Reward") return { outcome: this.#once(asked.rewardId, "REWARD_OUTCOME_JOINED") };
    if (method === "RewardBatch") return { results: asked.requests.map((one) => ({ response: this.#reply("Reward", one) })) };
    if (method === "Activate") {
      const outcome = this.#once(`activate ${asked.decisionId}`, "ACTIVATION_OUTCOME_ACTIVATED");
      return { first: !outcome.endsWith("DUPLICATE"), outcome };
    }
    return { outcome: "LINK_OUTCOME_LINKED" };
  }

  #decide({ experiment, decisionId }) {
    const action = { id: "sale", kind: "content", payload: { title: `Sale of ${experiment}`, price: 5 } };
    return { decisionId, action, propensity: 0.5, reason: "REASON_EXPLORE", model: "12", experimentVersion: 1 };
  }

  #decideOne(one) {
    if (one.experiment !== "unknown") return { response: this.#decide(one) };
    const info = { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "EXPERIMENT_NOT_FOUND", domain: "decider.v1" };
    return { error: { code: 5, message: "there is no experiment 'unknown'", details: [info] } };
  }

  #once(id, outcome) {
    const duplicate = this.#seen.has(id);
    this.#seen.add(id);
    return duplicate ? `${outcome.split("_OUTCOME_")[0]}_OUTCOME_DUPLICATE` : outcome;
  }
}

if (process.argv[1] === import.meta.filename) console.log((await new Stub().start()).port);
