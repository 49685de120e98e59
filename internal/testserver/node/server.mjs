// Starts Cloudflare's local runtime with what the JSON in argv[2] says (see
// cloudflare.go) and prints "ready <url>". SIGTERM ends it.
import { readFileSync } from "node:fs";
import { Miniflare, Log, LogLevel, convertV4MiniflareOptions } from "miniflare";

const o = JSON.parse(process.argv[2]);
const compatibilityDate = "2026-11-01";
const r2 = (id) => ({ id, s3Credentials: { accessKeyId: o.accessKey, secretAccessKey: o.secret } });
const named = (list, f) => Object.fromEntries(list.map((id) => [id, f(id)]));

const workers = [{
  name: "rest",
  modules: [{ type: "ESModule", path: "rest.mjs", contents: readFileSync(new URL("rest.mjs", import.meta.url), "utf8") }],
  modulesRoot: "/",
  compatibilityDate,
  compatibilityFlags: ["d1_binding_jsrpc"], // gives D1Database.query
  d1Databases: named(o.databases, (id) => id),
  r2Buckets: named(o.buckets, r2),
  bindings: {
    ACCOUNT: o.account, TOKEN: o.token, READ_TOKEN: o.readToken, TOKEN_ID: o.accessKey,
    DATABASES: o.databases,
  },
  serviceBindings: o.worker ? { WORKER: "worker" } : {},
}];
if (o.worker) {
  workers.push({
    name: "worker",
    modules: [{ type: "ESModule", path: "worker.mjs", contents: readFileSync(o.worker.script, "utf8") }],
    modulesRoot: "/",
    compatibilityDate,
    d1Databases: { [o.worker.d1]: o.databases[0] },
    r2Buckets: { [o.worker.r2]: r2(o.buckets[0]) },
    bindings: o.worker.vars ?? {}, // null without variables
  });
}

const mf = new Miniflare(convertV4MiniflareOptions({
  host: "127.0.0.1",
  port: 0,
  https: Boolean(o.cert),
  httpsCert: o.cert,
  httpsKey: o.key,
  resourcePersistencePath: o.state,
  log: new Log(LogLevel.WARN),
  cf: false,
  telemetry: { enabled: false },
  workers,
}));
process.on("SIGTERM", async () => {
  await mf.dispose();
  process.exit(0);
});
console.log("ready", (await mf.ready).origin);
