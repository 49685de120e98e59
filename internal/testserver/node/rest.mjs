// Cloudflare's REST API of D1, as far as etl uses it, over D1 bindings: each row
// comes from Cloudflare's own runtime. It also answers for the tokens. What is
// no API call goes to the Worker under test, if there is one.
const reply = (status, body) => Response.json({ result: null, errors: [], messages: [], success: status < 400, ...body }, { status });
const fail = (status, code, message) => reply(status, { errors: [{ code, message }] });
const refused = () => fail(403, 7403, "The given account is not valid or is not authorized to access this service");

// Databases that were made and deleted over REST. They are taken from the end
// of the list, tests take theirs from its beginning.
const made = new Map();
let deleted = 0;

export default {
  async fetch(request, env) {
    const path = new URL(request.url).pathname;
    const route = path.match(/^\/client\/v4\/(.*)$/)?.[1];
    if (route === undefined) return env.WORKER ? env.WORKER.fetch(request) : fail(404, 7003, `Could not route to ${path}`);

    const token = request.headers.get("authorization")?.match(/^Bearer (.+)$/)?.[1];
    if (token !== env.TOKEN && token !== env.READ_TOKEN) return fail(401, 10000, "Authentication error");

    if (route === "user/tokens/verify" || route === `accounts/${env.ACCOUNT}/tokens/verify`) {
      return reply(200, {
        result: { id: token === env.TOKEN ? env.TOKEN_ID : "0".repeat(32), status: "active" },
        messages: [{ code: 10000, message: "This API Token is valid and active", type: null }],
      });
    }
    const m = route.match(/^accounts\/([^/]+)\/d1\/database(?:\/([^/]+)(?:\/(.+))?)?$/);
    if (!m) return fail(404, 7003, `Could not route to ${path}, perhaps your object identifier is invalid?`);
    const [, account, id, action] = m;
    if (account !== env.ACCOUNT) return refused();
    const readOnly = token === env.READ_TOKEN;

    if (id === undefined) {
      if (request.method === "GET") {
        return reply(200, { result: [...made].map(([uuid, name]) => ({ uuid, name, version: "production" })) });
      }
      if (readOnly) return refused();
      const { name } = await request.json();
      const uuid = env.DATABASES[env.DATABASES.length - 1 - made.size - deleted];
      made.set(uuid, name);
      return reply(200, { result: { uuid, name, version: "production" } });
    }
    if (!env.DATABASES.includes(id)) return fail(404, 7404, `The database ${id} could not be found`);
    switch (`${request.method} ${action ?? ""}`) {
      case "GET ":
        return reply(200, { result: { uuid: id, name: made.get(id) ?? "test", version: "production" } });
      case "DELETE ":
        if (readOnly) return refused();
        if (made.delete(id)) deleted++;
        return reply(200, {});
      case "GET time_travel/bookmark": // the real ones name a state of the log
        return reply(200, { result: { bookmark: `00000001-00000001-00004e6f-${Date.now().toString(16).padStart(32, "0")}` } });
      case "POST raw":
      case "POST query":
        break;
      default:
        return fail(405, 7001, `Method ${request.method} not available for that URI.`);
    }

    let queries;
    try {
      const body = await request.json();
      queries = (body.batch ?? [body]).map(({ sql, params }) => ({ sql, params: params ?? [] }));
      if (queries.some((q) => typeof q.sql !== "string")) throw new Error("sql: Required");
    } catch (e) {
      return fail(400, 7400, `The request is malformed: ${e.message}`);
    }
    if (readOnly && queries.some((q) => !/^\s*(SELECT|WITH|EXPLAIN|PRAGMA)\b/i.test(q.sql))) return refused();
    try {
      // prepare().raw() would lose meta, and batch() columns of the same name.
      const { results } = await env[id].query({ queries });
      return reply(200, {
        result: results.map(({ meta, data: { columns, rows } }) => ({
          results: action === "raw" ? { columns, rows } : rows.map((row) => Object.fromEntries(row.map((v, i) => [columns[i], v]))),
          success: true,
          meta,
        })),
      });
    } catch (e) {
      return fail(400, 7500, String(e.message ?? e).replace(/^D1_ERROR: /, ""));
    }
  },
};
