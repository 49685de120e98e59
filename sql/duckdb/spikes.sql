-- title: Spikes: values far from all others of their point
-- about: By the robust z-score, 0.6745 × |value − median| / MAD, where MAD is the median of the distances from the median: unlike a mean and a standard deviation these are not moved by the spikes. A point of which more than half of the values are the same has nothing to measure by and is left out, and so is ±Inf. The rule spike of etl audit.
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- param: score number[0,] = 10  the score from which a value is a spike
-- column: point_id            id of the point
-- column: point_name          name of the point
-- column: first               time of the first spike, UTC
-- column: last                time of the last one, UTC
-- column: samples             how many there are
-- column: worst               the highest score
-- column: middle              the median of the values
-- example: etl query @spikes --param from=-30d --param score=3
WITH readings AS (
  SELECT s.point_id, s.ts, s.value
  FROM samples s
  JOIN points p ON p.point_id = s.point_id
  WHERE s.point_name GLOB CAST($point AS VARCHAR)
    AND s.ts >= CAST($from AS TIMESTAMP) AND s.ts < CAST($to AS TIMESTAMP)
    AND isfinite(s.value)
    AND (p.retired_at IS NULL OR s.timestamp < p.retired_at)
), middles AS (
  SELECT point_id, median(value) AS middle
  FROM readings
  GROUP BY point_id
), spreads AS (
  SELECT m.point_id, any_value(m.middle) AS middle, median(abs(r.value - m.middle)) AS mad
  FROM middles m
  JOIN readings r ON r.point_id = m.point_id
  GROUP BY m.point_id
), scores AS (
  SELECT r.point_id, r.ts, s.middle, 0.6745 * abs(r.value - s.middle) / s.mad AS score
  FROM readings r
  JOIN spreads s ON s.point_id = r.point_id
  WHERE s.mad > 0
)
SELECT s.point_id, any_value(p.name) AS point_name, min(s.ts) AS first, max(s.ts) AS last, count(*) AS samples, max(s.score) AS worst, any_value(s.middle) AS middle
FROM scores s
JOIN points p ON p.point_id = s.point_id
WHERE s.score > CAST($score AS DOUBLE)
GROUP BY s.point_id
ORDER BY s.point_id;
