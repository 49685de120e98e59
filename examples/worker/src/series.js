// Reading a series over both tiers.
import { DAY, VERSION, monthBounds, monthOf, readMonth } from "./cold.js";
import { Failure } from "./failure.js";

/** @typedef {import("./cold.js").Sample} Sample */

// Days back that late rows are archived from (the default of etl archive). D1 is
// asked beside the archive for days within, if they changed since they were archived.
const HOT_WINDOW = 35;

// 250,000 samples are 20 MB of objects and as much of JSON, of the 128 MB a
// Worker has. A point every minute has 44,640 in a month.
const MAX_SAMPLES = 250_000;

// A range touches 13 months then, and needs some 30 subrequests.
const MAX_DAYS = 366;

// Rows of one answer of D1: about 1 MB.
const PAGE = 20_000;

/**
 * The samples of a point with startTs <= timestamp < endTs (Unix milliseconds),
 * ascending, each once, over D1 and R2.
 *
 * For each day: archived and unchanged since → R2. Archived and changed, within the
 * hot window → both, D1 winning. Not archived → D1.
 *
 * INVARIANT: marks are read first, then D1, then manifests, then month files. A row
 * leaves D1 only after the manifest that has it was committed, so a row that D1
 * has no more when it is read is in a manifest that is read later. And a day that
 * was marked is archived in every later manifest. So runs may archive, and rows
 * may leave D1, while this reads.
 *
 * @param {{DB: D1Database, ARCHIVE: R2Bucket, ARCHIVE_PREFIX?: string}} env
 * @param {string} pointName
 * @param {number} startTs
 * @param {number} endTs
 * @returns {Promise<Sample[]>}
 */
export async function queryTimeSeries(env, pointName, startTs, endTs) {
  if (!(Number.isSafeInteger(startTs) && Number.isSafeInteger(endTs) && startTs < endTs)) {
    throw new Failure(400, "want two times, the first before the second");
  }
  if (endTs - startTs > MAX_DAYS * DAY) throw new Failure(400, `more than ${MAX_DAYS} days: ask for less at a time`);
  const id = await pointId(env, pointName);
  const firstDay = Math.floor(startTs / DAY);
  const lastDay = Math.floor((endTs - 1) / DAY);

  const marks = new Map(); // day → 1: unchanged since it was archived, 2: and gone from D1
  const { results } = await env.DB.prepare("SELECT day, done FROM archive_marks WHERE point_id = ?1 AND day >= ?2 AND day <= ?3 AND done > 0")
    .bind(id, firstDay, lastDay).all();
  for (const { day, done } of results) marks.set(day, done);

  const hot = [];
  for (const [from, to] of spans(firstDay, lastDay, (day) => !marks.has(day))) {
    await readHot(env, id, Math.max(from * DAY, startTs), Math.min(to * DAY, endTs), hot);
  }

  const today = Math.floor(Date.now() / DAY);
  const samples = [];
  let h = 0; // hot rows before it are done with
  for (let at = startTs; at < endTs; at = monthBounds(monthOf(at))[1]) {
    const month = monthOf(at);
    const [monthStart, monthEnd] = monthBounds(month);
    const end = Math.min(monthEnd, endTs);
    const inMonth = (day) => day - monthStart / DAY;
    const days = Array.from({ length: Math.ceil(end / DAY) - Math.floor(at / DAY) }, (_, i) => Math.floor(at / DAY) + i);
    const { entry, samples: cold } = await readMonth(env, month, id, (e) => days.some((day) => e.days[inMonth(day)] > 0));
    const archived = (day) => entry !== undefined && entry.days[inMonth(day)] !== null;
    const asked = (day) => !archived(day) || (!marks.has(day) && day >= today - HOT_WINDOW);

    // Marks without a manifest: it was lost, or it is another bucket's.
    const lost = days.filter((day) => marks.has(day) && !archived(day));
    const gone = lost.find((day) => marks.get(day) === 2);
    if (gone !== undefined) {
      throw new Failure(500, `${dayName(gone)} of point ${id} has left D1, and _manifests/${month}.json does not have it`);
    }
    const extra = [];
    for (const day of lost) await readHot(env, id, Math.max(day * DAY, startTs), Math.min((day + 1) * DAY, endTs), extra);

    const fromHot = [];
    for (; h < hot.length && hot[h].timestamp < end; h++) {
      if (asked(Math.floor(hot[h].timestamp / DAY))) fromHot.push(hot[h]);
    }
    const fromCold = cold.filter(({ timestamp: ts }) => ts >= at && ts < end && archived(Math.floor(ts / DAY)));
    merge(fromCold, extra.length > 0 ? merge(fromHot, extra, []) : fromHot, samples);
    if (samples.length > MAX_SAMPLES) throw tooMany();
  }
  return samples;
}

const dayName = (day) => new Date(day * DAY).toISOString().slice(0, 10);

const tooMany = () => new Failure(400, `more than ${MAX_SAMPLES} samples: ask for less at a time`);

/** The id of a point: D1 is the authority, the catalog knows those that D1 has dropped. */
async function pointId(env, name) {
  const id = await env.DB.prepare("SELECT id FROM points WHERE name = ?1").bind(name).first("id");
  if (id !== null) return id;
  const object = await env.ARCHIVE.get(`${env.ARCHIVE_PREFIX ?? ""}_manifests/points.json`);
  const catalog = await object?.json();
  if (catalog && catalog.version !== VERSION) throw new Failure(500, `the catalog has version ${catalog.version}, this reader knows ${VERSION}`);
  const point = catalog?.points.find((p) => p.name === name);
  if (point === undefined) throw new Failure(404, `no point is named ${JSON.stringify(name)}`);
  return point.id;
}

/** The maximal ranges [from, to) of days first to last that f holds for. */
function* spans(first, last, f) {
  for (let day = first; day <= last; day++) {
    if (!f(day)) continue;
    const from = day;
    while (day <= last && f(day)) day++;
    yield [from, day];
  }
}

/**
 * Appends the samples in D1 with from <= timestamp < to, page by page. Rows that
 * no sample can hold (etl records them as rejects) are left out. Infinity has a
 * column of its own because D1 answers in JSON, which has none.
 */
async function readHot(env, id, from, to, samples) {
  const statement = env.DB.prepare(
    `SELECT timestamp, value, quality, flags, CASE value WHEN 9e999 THEN 1 WHEN -9e999 THEN -1 END
     FROM timeseries
     WHERE point_id = ?1 AND timestamp >= ?2 AND timestamp < ?3 AND typeof(timestamp) = 'integer'
       AND typeof(value) IN ('real', 'null') AND typeof(quality) = 'integer' AND typeof(flags) = 'integer'
       AND quality BETWEEN 0 AND 255 AND flags BETWEEN 0 AND 65535
     ORDER BY timestamp LIMIT ${PAGE}`);
  for (;;) {
    const rows = await statement.bind(id, from, to).raw();
    for (const [timestamp, value, quality, flags, infinite] of rows) {
      samples.push({ timestamp, value: infinite === null ? value : infinite * Infinity, quality, flags });
    }
    if (samples.length > MAX_SAMPLES) throw tooMany();
    if (rows.length < PAGE) return;
    from = rows[PAGE - 1][0] + 1;
  }
}

/** Appends the union by timestamp of two ascending series to out; b wins. */
function merge(a, b, out) {
  let i = 0;
  for (const s of b) {
    while (i < a.length && a[i].timestamp < s.timestamp) out.push(a[i++]);
    if (i < a.length && a[i].timestamp === s.timestamp) i++;
    out.push(s);
  }
  while (i < a.length) out.push(a[i++]);
  return out;
}
