// The cold tier: manifests and month files, as docs/format.md describes them.
import { parquetMetadata, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { Failure } from "./failure.js";

export const DAY = 86_400_000; // ms

export const VERSION = 1; // of manifests, month files and the catalog

/** @typedef {{timestamp: number, value: number | null, quality: number, flags: number}} Sample */
/** @typedef {{path: string, bytes: number, sha256: string, days: (number | null)[]}} Entry one point in a manifest */

/** Says which object can not be answered from. */
const corrupt = (object, why) => new Failure(500, `${object} is corrupt: ${why}`, { corrupt: object });

/** The month "YYYY-MM" that a time lies in. @param {number} ts Unix milliseconds */
export const monthOf = (ts) => new Date(ts).toISOString().slice(0, 7);

/** First millisecond of a month, and of the next one. @param {string} month "YYYY-MM" */
export function monthBounds(month) {
  const [y, m] = month.split("-").map(Number);
  return [Date.UTC(y, m - 1), Date.UTC(y, m)];
}

/**
 * The entry of a point in a month's manifest; undefined if the point has none.
 * @returns {Promise<Entry | undefined>}
 */
export async function readEntry(env, month, id) {
  const key = `_manifests/${month}.json`;
  const object = await env.ARCHIVE.get((env.ARCHIVE_PREFIX ?? "") + key);
  if (object === null) return undefined;
  let manifest;
  try {
    manifest = await object.json();
  } catch (e) {
    throw corrupt(key, e.message);
  }
  if (manifest?.format !== "etl-manifest" || manifest.month !== month || !Array.isArray(manifest.points)) {
    throw corrupt(key, `it is no manifest of ${month}`);
  }
  if (manifest.version !== VERSION) throw new Failure(500, `${key} has version ${manifest.version}, this reader knows ${VERSION}`);
  const entry = manifest.points.find((p) => p.id === id);
  if (entry === undefined) return undefined;

  const [from, to] = monthBounds(month);
  const count = (n) => Number.isSafeInteger(n) && n >= 0;
  const folder = `timeseries/${month.replace("-", "/")}/`;
  if (
    !Array.isArray(entry.days) || entry.days.length !== (to - from) / DAY || !entry.days.every((n) => n === null || count(n)) ||
    !(entry.path === "" ? entry.days.every((n) => !n) : new RegExp(`^${folder}[^/\\\\\\0]+\\.parquet$`).test(entry.path))
  ) {
    throw corrupt(key, `the entry of point ${id} is malformed`);
  }
  return entry;
}

/**
 * The samples of a point in a month, ascending, and the manifest's entry that says
 * which days of them count: rows of days that are null there must be ignored.
 *
 * The month file must have the SHA-256 of its entry. If it differs, another run
 * may have committed in between, so the manifest is read once more. If it still
 * differs the file may be pending: stored by a run that has not committed yet.
 *
 * @param {(entry: Entry) => boolean} wanted whether the rows are needed at all
 * @returns {Promise<{entry: Entry | undefined, samples: Sample[]}>}
 */
export async function readMonth(env, month, id, wanted) {
  for (let attempt = 1; ; attempt++) {
    const entry = await readEntry(env, month, id);
    if (entry === undefined || entry.path === "" || !wanted(entry)) return { entry, samples: [] };
    const object = await env.ARCHIVE.get((env.ARCHIVE_PREFIX ?? "") + entry.path);
    if (object !== null) {
      const file = await object.arrayBuffer();
      const verified = file.byteLength === entry.bytes && (await sha256(file)) === entry.sha256;
      if (verified || attempt === 2) return { entry, samples: await decode(file, entry.path, month, id, verified) };
    } else if (attempt === 2) {
      throw corrupt(entry.path, "it is missing");
    }
  }
}

/** Decodes a month file; one that is not verified must prove itself by its footer. */
async function decode(file, path, month, id, verified) {
  try {
    const metadata = parquetMetadata(file);
    const samples = await parquetReadObjects({
      file, metadata, compressors,
      columns: ["timestamp", "value", "quality", "flags"],
      parsers: { timestampFromMilliseconds: Number }, // not a Date
    });
    for (const s of samples) s.value ??= null;
    if (verified) return samples;

    const facts = JSON.parse(metadata.key_value_metadata.find((kv) => kv.key === "etl").value);
    if (facts.v !== VERSION || facts.id !== id || facts.month !== month) {
      throw new Error(`its footer does not name point ${id}, ${month} and version ${VERSION}`);
    }
    if ((await sha256(canonicalRows(samples))) !== facts.rows_sha256) throw new Error("its rows have not the hash in its footer");
    return samples;
  } catch (e) {
    throw corrupt(path, verified ? e.message : `it has not the SHA-256 of its manifest entry, and ${e.message}`);
  }
}

/** 19 bytes a row, little-endian: timestamp, bits of the value, quality, flags. */
function canonicalRows(samples) {
  const bytes = new Uint8Array(19 * samples.length);
  const view = new DataView(bytes.buffer);
  samples.forEach((s, i) => {
    const at = 19 * i;
    view.setBigInt64(at, BigInt(s.timestamp), true);
    if (s.value === null) view.setBigUint64(at + 8, 0x7ff8000000000000n, true);
    else view.setFloat64(at + 8, s.value, true);
    view.setUint8(at + 16, s.quality);
    view.setUint16(at + 17, s.flags, true);
  });
  return bytes;
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (b) => b.toString(16).padStart(2, "0")).join("");
}
