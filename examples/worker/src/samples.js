// Writing samples to D1.
import { DAY } from "./cold.js";
import { Failure } from "./failure.js";

const MAX_SAMPLES = 10_000;
const MAX_NAME = 250; // characters, at most 3 bytes of UTF-8 each

// Samples of one statement: 2,000 × (750 bytes of name + 100) are 1.7 MB, of the
// 2 MB that a parameter of D1 can have.
const CHUNK = 2_000;

// Nothing measured by a sensor is older; seconds taken for milliseconds are.
const EARLIEST = Date.UTC(2000, 0);

// Only names that are missing are inserted, rather than all with ON CONFLICT DO
// NOTHING: a conflict may use up an id, and ids are never reused.
const CREATE = `INSERT INTO points (name)
SELECT DISTINCT n.value FROM json_each(?1) n
WHERE NOT EXISTS (SELECT 1 FROM points p WHERE p.name = n.value)`;

// CROSS JOIN keeps the order of the samples, so that of two at one timestamp the
// last one stays. A sample that is there already, equal, is not written: that
// would be billed, and the day archived again.
const UPSERT = `INSERT INTO timeseries (point_id, timestamp, value, quality, flags)
SELECT p.id, s.value ->> 1, s.value ->> 2, s.value ->> 3, s.value ->> 4
FROM json_each(?1) s CROSS JOIN points p
WHERE p.name = s.value ->> 0
ON CONFLICT (point_id, timestamp) DO UPDATE
SET value = excluded.value, quality = excluded.quality, flags = excluded.flags
WHERE timeseries.value IS NOT excluded.value OR timeseries.quality <> excluded.quality OR timeseries.flags <> excluded.flags`;

/**
 * Inserts or updates samples [{point, timestamp, value, quality?, flags?}], all
 * or none, and creates the points that are missing. Triggers take the marks of
 * the days away that change, so the next run archives them again.
 *
 * Samples go as JSON, for D1 allows 100 parameters: SQLite reads each number
 * of it back to the same double. It has no infinities, but reads 9e999 as one.
 *
 * @returns {Promise<number>} how many samples there were
 */
export async function writeSamples(env, samples) {
  const rows = validate(samples);
  if (rows.length === 0) return 0;
  const statements = [env.DB.prepare(CREATE).bind(JSON.stringify([...new Set(rows.map((r) => r[0]))]))];
  for (let i = 0; i < rows.length; i += CHUNK) {
    const json = rows.slice(i, i + CHUNK).map(([name, ts, value, quality, flags]) =>
      `[${JSON.stringify(name)},${ts},${Number.isFinite(value) || value === null ? JSON.stringify(value) : value > 0 ? "9e999" : "-9e999"},${quality},${flags}]`);
    statements.push(env.DB.prepare(UPSERT).bind(`[${json}]`));
  }
  await env.DB.batch(statements); // one transaction
  return rows.length;
}

/** @returns {[string, number, number | null, number, number][]} */
function validate(samples) {
  if (!Array.isArray(samples)) throw new Failure(400, "want an array of samples");
  if (samples.length > MAX_SAMPLES) throw new Failure(400, `${samples.length} samples, ${MAX_SAMPLES} at most at a time`);
  const latest = Date.now() + DAY;
  return samples.map((s, i) => {
    const refuse = (why) => {
      throw new Failure(400, `sample ${i}: ${why}`);
    };
    if (typeof s !== "object" || s === null) refuse("want an object");
    const { point, timestamp, value, quality = 192, flags = 0, ...rest } = s;
    if (Object.keys(rest).length > 0) refuse(`unknown field ${JSON.stringify(Object.keys(rest)[0])}`);
    if (typeof point !== "string" || point.length < 1 || point.length > MAX_NAME || !point.isWellFormed() || /[\0-\x1f\x7f]/.test(point)) {
      refuse(`point: want a name of 1 to ${MAX_NAME} characters, none of them a control character`);
    }
    if (!Number.isSafeInteger(timestamp)) refuse("timestamp: want an integer, Unix milliseconds");
    if (timestamp < EARLIEST || timestamp >= latest) {
      refuse(`timestamp: want Unix milliseconds from 2000 to tomorrow${timestamp * 1000 >= EARLIEST && timestamp * 1000 < latest ? "; these look like seconds" : ""}`);
    }
    const infinite = value === "Infinity" || value === "-Infinity";
    if (!infinite && value !== null && !Number.isFinite(value)) refuse('value: want a finite number, null, "Infinity" or "-Infinity"');
    for (const [name, n, max] of [["quality", quality, 255], ["flags", flags, 65535]]) {
      if (!Number.isInteger(n) || n < 0 || n > max) refuse(`${name}: want an integer from 0 to ${max}`);
    }
    return [point, timestamp, infinite ? Number(value) : value, quality, flags];
  });
}
