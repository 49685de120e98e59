-- title: Points whose level changed most against the same span before
-- about: The averages of two spans of equal length are compared: [from, to) and the one before it. The change is ranked in standard deviations of the earlier span, so that points of any unit compare; one that never varied before comes first.
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: from time = -1d      first moment of the later span
-- param: to time = now        the moment after the last one
-- param: n int[1,] = 20       how many points
-- column: point_name          name of the point
-- column: unit                unit of the point
-- column: before              average in the earlier span
-- column: after               average in the later span
-- column: change              their difference
-- column: deviations          the difference in standard deviations of the earlier span
-- example: etl query @top-movers --param point='*Temp' --param from=2024-02-18 --param to=2024-02-19 --param n=5
WITH spans AS (
  SELECT point_id, point_name,
         avg(value) FILTER (ts < CAST($from AS TIMESTAMP)) AS before,
         avg(value) FILTER (ts >= CAST($from AS TIMESTAMP)) AS after,
         stddev_pop(value) FILTER (ts < CAST($from AS TIMESTAMP)) AS deviation
  FROM samples
  WHERE point_name GLOB CAST($point AS VARCHAR)
    AND ts >= CAST($from AS TIMESTAMP) - (CAST($to AS TIMESTAMP) - CAST($from AS TIMESTAMP))
    AND ts < CAST($to AS TIMESTAMP)
    AND isfinite(value)
  GROUP BY ALL
)
SELECT s.point_name, p.unit, s.before, s.after, s.after - s.before AS change,
       CASE WHEN s.after = s.before THEN 0.0
            WHEN s.deviation > 0 THEN (s.after - s.before) / s.deviation
            ELSE sign(s.after - s.before) * CAST('inf' AS DOUBLE) END AS deviations
FROM spans s
LEFT JOIN points p ON p.point_id = s.point_id
WHERE s.before IS NOT NULL AND s.after IS NOT NULL
ORDER BY abs(deviations) DESC, abs(change) DESC, s.point_name
LIMIT CAST($n AS BIGINT);
