-- title: Values that the point can not have, by points.min_value and max_value
-- about: The rule range of etl audit.
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- column: point_id            id of the point
-- column: point_name          name of the point
-- column: first               time of the first such value, UTC
-- column: last                time of the last one, UTC
-- column: samples             how many there are
-- column: worst               the one that is furthest out
-- column: bound               the bound that it is beyond
-- example: etl query @out-of-range --param from=-30d
WITH outside AS (
  SELECT s.point_id, p.name AS point_name, s.ts, s.value, CASE WHEN s.value > p.max_value THEN p.max_value ELSE p.min_value END AS bound
  FROM samples s
  JOIN points p ON p.point_id = s.point_id
  WHERE s.point_name GLOB CAST($point AS VARCHAR)
    AND s.ts >= CAST($from AS TIMESTAMP) AND s.ts < CAST($to AS TIMESTAMP)
    AND (s.value < p.min_value OR s.value > p.max_value)
    AND (p.retired_at IS NULL OR s.timestamp < p.retired_at)
)
SELECT point_id, point_name, min(ts) AS first, max(ts) AS last, count(*) AS samples,
       first(value ORDER BY abs(value - bound) DESC, ts) AS worst, first(bound ORDER BY abs(value - bound) DESC, ts) AS bound
FROM outside
GROUP BY point_id, point_name
ORDER BY point_id;
