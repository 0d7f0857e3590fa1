// Drives clients in a page: `run(phase, asked)` gives what each client got. Bundled by esbuild.
import { OpenFeature } from "@openfeature/web-sdk";
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";
import { FlagdWebProvider } from "@openfeature/flagd-web-provider";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { DeciderService } from "./gen/decider/v1/decider_service_pb.js";
import { withRewards } from "./provider.js";
import { DEADLINE, HANGS, drives, evaluated, within } from "./drives.mjs";

const parameters = new URLSearchParams(location.search);
const [web, row] = [parameters.get("web"), parameters.get("row")];
const { hostname, port } = new URL(web);
const ofrep = () => new OFREPWebProvider({ baseUrl: web, cacheMode: "network-first" });
const flagd = () => new FlagdWebProvider({ host: hostname, port: Number(port), tls: false });
const settings = { url: web, deadline: DEADLINE };
const providers = {
  "web-ofrep": ofrep,
  "web-ofrep-ours": () => withRewards(ofrep(), settings),
  "web-flagd": flagd,
  "web-flagd-ours": () => withRewards(flagd(), settings),
};
const make = providers[row];
const context = { targetingKey: row, segment: "vip", cart_value: 80.5, tags: ["new", "sale"] };
const openFeature = {
  resolve: async () => {
    await OpenFeature.setContext(context);
    await OpenFeature.setProviderAndWait(make());
    const client = OpenFeature.getClient();
    const found = evaluated(client.getStringDetails("storefront", "code"));
    client.track("click", { experiment: "storefront" });
    // flagd's provider drops metadata: the object flag of the same decision has the id in its value
    return { ...found, decision: found.decision ?? client.getObjectValue("storefront:object", {}).decision_id };
  },
  // The page of the purchase evaluates nothing: it knows the decision from the page before.
  buy: () => make().track("purchase", context, { value: 80.5, experiment: "storefront" }),
  gone: async () => {
    const set = OpenFeature.setProviderAndWait(row, make()).then(() => "set", () => "refused");
    const waited = await within(HANGS, set);
    const value = OpenFeature.getClient(row).getStringValue("storefront", "code");
    return waited === "hangs" && value === "code" ? "code, but setProviderAndWait hangs" : value;
  },
};

const call = (transport) => {
  const client = createClient(DeciderService, transport);
  return (method, message) => client[method[0].toLowerCase() + method.slice(1)](message, { timeoutMs: DEADLINE });
};
const calls = {
  "connect-web-json": call(createConnectTransport({ baseUrl: web })),
  "connect-web-binary": call(createConnectTransport({ baseUrl: web, useBinaryFormat: true })),
  "grpc-web": call(createGrpcWebTransport({ baseUrl: web })),
};
const phases = drives(make ? { web, clients: { [row]: openFeature }, calls: {} } : { web, clients: {}, calls });
window.run = (phase, asked) => phases[phase](asked);
