// A Worker over both tiers of the archive:
//
//   GET  /series?point=NAME&from=TIME&to=TIME    samples of a point, from <= timestamp < to
//   POST /samples                                insert or update samples in D1
//
// See README.md.
import { Failure } from "./failure.js";
import { queryTimeSeries } from "./series.js";
import { writeSamples } from "./samples.js";

export { queryTimeSeries };

export default {
  async fetch(request, env) {
    try {
      const url = new URL(request.url);
      switch (`${request.method} ${url.pathname}`) {
        case "GET /series": {
          await authorize(request, env.READ_TOKEN, env.WRITE_TOKEN);
          const point = url.searchParams.get("point");
          if (!point) throw new Failure(400, "point: want a name");
          const samples = await queryTimeSeries(env, point, parseTime(url, "from"), parseTime(url, "to"));
          return new Response(`{"point":${JSON.stringify(point)},"samples":[${samples.map(json)}]}\n`, {
            headers: { "content-type": "application/json" },
          });
        }
        case "POST /samples": {
          await authorize(request, env.WRITE_TOKEN);
          let body;
          try {
            body = await request.json();
          } catch {
            throw new Failure(400, "the body is not JSON");
          }
          return Response.json({ samples: await writeSamples(env, body) });
        }
        default:
          throw new Failure(404, "want GET /series or POST /samples");
      }
    } catch (e) {
      if (e instanceof Failure) return Response.json({ error: e.message, ...e.details }, { status: e.status });
      console.error(e);
      return Response.json({ error: String(e?.message ?? e) }, { status: 500 });
    }
  },
};

/** Refuses a request that does not bear one of the tokens. A secret that is not set allows nothing. */
async function authorize(request, ...tokens) {
  const digest = (s) => crypto.subtle.digest("SHA-256", new TextEncoder().encode(s));
  const given = await digest(request.headers.get("authorization")?.match(/^Bearer (.+)$/i)?.[1] ?? "");
  for (const token of tokens) {
    if (token && crypto.subtle.timingSafeEqual(given, await digest(token))) return;
  }
  throw new Failure(401, "want the header Authorization: Bearer TOKEN");
}

/** A time of the query string: Unix milliseconds, a day, or a day and a time with a zone. */
function parseTime(url, name) {
  const s = url.searchParams.get(name) ?? "";
  const ts = /^-?\d{1,16}$/.test(s) ? Number(s)
    : /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?$/.test(s) ? Date.parse(s) : NaN;
  if (!(ts >= 0 && ts < 8e15)) throw new Failure(400, `${name}: want Unix milliseconds, 2024-01-05 or 2024-01-05T06:30:00Z`);
  return ts;
}

/** A sample as JSON. What JSON does not have is "Infinity" and "-Infinity"; -0 is kept. */
function json({ timestamp, value, quality, flags }) {
  const v = value === null ? "null" : Number.isFinite(value) ? (Object.is(value, -0) ? "-0.0" : String(value)) : `"${value}"`;
  return `{"timestamp":${timestamp},"value":${v},"quality":${quality},"flags":${flags}}`;
}
