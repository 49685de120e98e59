-- The hot tier: points, their samples, and what reads them.
--
-- These files are wrangler migrations (wrangler d1 migrations apply) and are
-- what etl migrate applies. Statements can be applied to a database that has
-- the tables already, and applying them again changes no row. Keywords are
-- capitals and line breaks are LF because the splitters of wrangler and of D1
-- take a trigger apart otherwise.

CREATE TABLE IF NOT EXISTS points (
  id          INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused: an id in the cold tier means one series for ever
  name        TEXT NOT NULL UNIQUE,
  site        TEXT,
  system      TEXT,
  equipment   TEXT,
  unit        TEXT,
  interval_ms INTEGER, -- expected interval, 0 for change of value, NULL if unknown
  min_value   REAL,    -- range that readings are expected in
  max_value   REAL,
  created_at  INTEGER DEFAULT (unixepoch('now') * 1000), -- Unix milliseconds, like every time here
  retired_at  INTEGER  -- no samples are expected from then on
);

-- Serves: the points of a system, or of a system at one site, without reading
-- all of the points. Costs one billed write and about 30 bytes a point, once.
CREATE INDEX IF NOT EXISTS idx_points_hierarchy ON points (system, site, equipment);

-- 25 to 31 bytes a row. The primary key is the only copy of the rows, so it
-- serves time ranges of a point, its latest row and every descending scan.
-- There is no covering reverse index: it would cost a second billed write for
-- each row (194 million a month at 4,500 points a minute, 194 dollars) and double
-- the size, and buy nothing that walking the key backwards does not give.
CREATE TABLE IF NOT EXISTS timeseries (
  point_id  INTEGER NOT NULL,
  timestamp INTEGER NOT NULL,             -- Unix milliseconds
  value     REAL,
  quality   INTEGER NOT NULL DEFAULT 192, -- 0 to 255, 192 and above is good
  flags     INTEGER NOT NULL DEFAULT 0,   -- 16 bits, bit 0 is the alarm
  PRIMARY KEY (point_id, timestamp)
) WITHOUT ROWID;

-- Serves: alarms of all points since a time, the one question that goes across
-- points. Without it an hour of alarms reads each row of that hour (270,000 at
-- 4,500 points a minute), and a dashboard that asks every ten seconds reads 70
-- billion rows a month, far past the 25 billion included. Costs one billed
-- write and 15 bytes for each row in alarm, nothing for the others: at 1 % of
-- the rows 2 million writes a month, 2 dollars once the included ones are used.
--
-- Bad quality has no such index. It would cost the same for 5 % of the rows, and
-- the share of bad rows needs a count of all of them anyway.
CREATE INDEX IF NOT EXISTS idx_timeseries_alarms ON timeseries (timestamp) WHERE (flags & 1) = 1;

-- The latest row of each point, by one descending seek per point. Rows more
-- than a day ahead of the clock (a wrong clock, microseconds) do not count.
DROP VIEW IF EXISTS v_latest_values;
CREATE VIEW v_latest_values AS
SELECT t.point_id, t.timestamp, t.value, t.quality, t.flags
FROM points p
CROSS JOIN timeseries t
WHERE t.point_id = p.id
  AND t.timestamp = (
    SELECT max(l.timestamp) FROM timeseries l
    WHERE l.point_id = p.id AND l.timestamp < (unixepoch('now') + 86400) * 1000);

-- Named sets of points, such as all of an air handling unit.
CREATE TABLE IF NOT EXISTS point_groups (
  name     TEXT NOT NULL,
  point_id INTEGER NOT NULL,
  PRIMARY KEY (name, point_id)
) WITHOUT ROWID;
