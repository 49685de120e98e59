-- title: Flat lines: measured values that stay the same for too long
-- about: The longest time that each point's value stayed the same, where that is at least as long as least and ten readings. Left out are points that report changes only (interval_ms = 0), those that only ever have whole numbers, which may be states or counters, and those that change in fewer than a tenth of their other readings, as setpoints do. The rule flatline of etl audit.
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- param: least duration = 24h how long a value has to stay the same
-- column: point_id            id of the point
-- column: point_name          name of the point
-- column: first               its first reading of the value, UTC
-- column: last                its last one, UTC
-- column: samples             how many readings it is
-- column: hours               how long it is
-- column: value               the value
-- example: etl query @flatlines --param from=2024-01-12 --param to=2024-02-21 --param least=15m
WITH readings AS (
  SELECT s.point_id, s.ts, s.value, lag(s.value) OVER (PARTITION BY s.point_id ORDER BY s.ts) AS previous
  FROM samples s
  JOIN points p ON p.point_id = s.point_id
  WHERE s.point_name GLOB CAST($point AS VARCHAR)
    AND s.ts >= CAST($from AS TIMESTAMP) AND s.ts < CAST($to AS TIMESTAMP)
    AND s.value IS NOT NULL
    AND (p.interval_ms IS NULL OR p.interval_ms > 0)
    AND (p.retired_at IS NULL OR s.timestamp < p.retired_at)
), numbered AS (
  -- A sum, for DuckDB begins count(*) FILTER anew for each row.
  SELECT point_id, ts, value,
         sum(CAST(previous IS NULL OR value <> previous AS INTEGER)) OVER (PARTITION BY point_id ORDER BY ts ROWS UNBOUNDED PRECEDING) AS run
  FROM readings
), runs AS (
  SELECT point_id, run, min(ts) AS first, max(ts) AS last, count(*) AS samples, any_value(value) AS value
  FROM numbered
  GROUP BY point_id, run
), longest AS (
  SELECT *, count(*) OVER w AS runs, sum(samples) OVER w AS readings, bool_or(value <> trunc(value)) OVER w AS measures
  FROM runs
  WINDOW w AS (PARTITION BY point_id)
  QUALIFY row_number() OVER (PARTITION BY point_id ORDER BY last - first DESC, run) = 1
)
SELECT l.point_id, p.name AS point_name, l.first, l.last, l.samples, epoch(l.last - l.first) / 3600 AS hours, l.value
FROM longest l
JOIN points p ON p.point_id = l.point_id
WHERE l.samples >= 10 AND l.last - l.first >= CAST($least AS INTERVAL)
  AND l.measures AND 10 * (l.runs - 1) >= l.readings - l.samples
ORDER BY l.point_id;
