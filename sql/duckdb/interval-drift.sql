-- title: Points that report at another interval than the one that is set
-- about: The median time between consecutive readings against points.interval_ms, of points with ten such times at least. The rule drift of etl audit.
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- param: drift number[0,] = 0.1  what part of the interval it may be off
-- column: point_id            id of the point
-- column: point_name          name of the point
-- column: first               time of the first reading, UTC
-- column: last                time of the last one, UTC
-- column: samples             how many times between readings there are
-- column: interval_ms         the interval that is kept
-- column: set_ms              the one that is set
-- example: etl query @interval-drift --param from=-30d --param drift=0.000001
WITH deltas AS (
  SELECT s.point_id, p.interval_ms, s.ts, s.timestamp - lag(s.timestamp) OVER (PARTITION BY s.point_id ORDER BY s.timestamp) AS delta
  FROM samples s
  JOIN points p ON p.point_id = s.point_id
  WHERE s.point_name GLOB CAST($point AS VARCHAR)
    AND s.ts >= CAST($from AS TIMESTAMP) AND s.ts < CAST($to AS TIMESTAMP)
    AND s.value IS NOT NULL AND p.interval_ms > 0
    AND (p.retired_at IS NULL OR s.timestamp < p.retired_at)
)
SELECT d.point_id, any_value(p.name) AS point_name, min(d.ts) AS first, max(d.ts) AS last, count(d.delta) AS samples,
       median(d.delta) AS interval_ms, any_value(d.interval_ms) AS set_ms
FROM deltas d
JOIN points p ON p.point_id = d.point_id
GROUP BY d.point_id
HAVING count(d.delta) >= 10 AND abs(median(d.delta) - any_value(d.interval_ms)) > CAST($drift AS DOUBLE) * any_value(d.interval_ms)
ORDER BY d.point_id;
