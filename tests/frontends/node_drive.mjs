// Drives clients for Node: lines of JSON come in, each with a phase, and a line with what each client got goes out.
import { createInterface } from "node:readline";
import { OpenFeature } from "@openfeature/server-sdk";
import { OFREPProvider } from "@openfeature/ofrep-provider";
import { FlagdProvider } from "@openfeature/flagd-provider";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { DeciderService } from "./gen/decider/v1/decider_service_pb.js";
import { Client } from "./client.js";
import { withRewards } from "./openfeature.js";
import { DEADLINE, HANGS, callWith, drives, evaluated, within } from "./drives.mjs";

const [web, target, protos, common] = process.argv.slice(2);
const [host, port] = target.split(":");
const flagd = () => new FlagdProvider({ host, port: Number(port), tls: false, deadlineMs: DEADLINE });
const ofrep = () => new OFREPProvider({ baseUrl: web });
const ours = new Client(web, { timeoutMs: DEADLINE });
const settings = { deadlineMs: DEADLINE };
const providers = {
  "node-ofrep": ofrep(),
  "node-ofrep-ours": withRewards(ofrep(), ours, settings),
  "node-flagd": flagd(),
  "node-flagd-ours": withRewards(flagd(), ours, settings),
};
await Promise.all(Object.entries(providers).map(([name, provider]) => OpenFeature.setProviderAndWait(name, provider)));

const { decider } = grpc.loadPackageDefinition(loader.loadSync("decider/v1/decider_service.proto", { includeDirs: [protos, common] }));
const stub = new decider.v1.DeciderService(target, grpc.credentials.createInsecure());
// As decider/README.md says: grpc-js drops a plain object in place of a Struct, and says nothing.
const struct = (known) => ({ fields: Object.fromEntries(Object.entries(known).map(([name, numberValue]) => [name, { numberValue }])) });
const written = ({ context, ...others }) => (context ? { ...others, context: { ...context, features: struct(context.features) } } : others);
const grpcJs = (method, message) =>
  new Promise((done, failed) =>
    stub[method](written(message), { deadline: Date.now() + DEADLINE }, (error, reply) => (error ? failed(error) : done(reply))),
  );
const connect = (transport) => {
  const client = createClient(DeciderService, transport);
  return (method, message) => client[method[0].toLowerCase() + method.slice(1)](message, { timeoutMs: DEADLINE });
};
const calls = {
  "client-js-node": callWith(ours),
  "connect-node": connect(createConnectTransport({ baseUrl: web, httpVersion: "1.1", useBinaryFormat: false })),
  "connect-node-grpc": connect(createGrpcTransport({ baseUrl: `http://${target}` })),
  "grpc-js": grpcJs,
};
const context = (unit) => ({ targetingKey: unit, segment: "vip", cart_value: 80.5, tags: ["new", "sale"] });
const clients = Object.fromEntries(
  Object.keys(providers).map((name) => {
    const client = OpenFeature.getClient(name);
    return [
      name,
      {
        resolve: async () => evaluated(await client.getStringDetails("storefront", "code", context(name))),
        click: () => client.track("click", context(name), { experiment: "storefront" }),
        buy: (decisionId) => client.track("purchase", context(name), { value: 80.5, decisionId }),
        gone: () => within(HANGS, client.getStringValue("storefront", "code", context(name))),
      },
    ];
  }),
);

const phases = drives({ web, clients, calls });
for await (const line of createInterface({ input: process.stdin })) {
  const { phase, ...asked } = JSON.parse(line);
  console.log(JSON.stringify(await phases[phase](asked)));
}
process.exit(0);
