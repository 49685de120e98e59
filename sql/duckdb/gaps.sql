-- title: Gaps: where a point was silent for longer than it should be
-- about: A gap is the time between two consecutive readings of a point (samples whose value is not NULL) that is longer than tolerance times the interval that is expected: points.interval_ms, or where that is not known the median over the range. A point that reports changes only (interval_ms = 0) has a gap where it is silent for longer than silence; how many samples are missing there nobody can say. What is missing before the first reading of the range and after its last one is not listed.
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- param: tolerance number = 1.5  how many intervals are no gap yet
-- param: silence duration = 36500d  longest silence of a point that reports changes only
-- column: point_id            id of the point
-- column: point_name          name of the point
-- column: after               the last reading before the gap, UTC
-- column: before              the first reading after it, UTC
-- column: seconds             time between them
-- column: interval_s          expected interval
-- column: missing             samples missing, about
-- example: etl query @gaps --param point='Building1.*' --param from=2024-01-12 --param to=2024-02-21
WITH readings AS (
  SELECT point_id, point_name, timestamp,
         lag(timestamp) OVER (PARTITION BY point_id ORDER BY timestamp) AS previous
  FROM samples
  WHERE point_name GLOB CAST($point AS VARCHAR)
    AND ts >= CAST($from AS TIMESTAMP) AND ts < CAST($to AS TIMESTAMP)
    AND value IS NOT NULL
), deltas AS (
  SELECT point_id, point_name, previous, timestamp, timestamp - previous AS delta
  FROM readings
  WHERE previous IS NOT NULL
), expected AS (
  SELECT d.point_id, coalesce(any_value(p.interval_ms), median(d.delta) FILTER (p.interval_ms IS NULL)) AS interval
  FROM deltas d
  LEFT JOIN points p ON p.point_id = d.point_id
  GROUP BY d.point_id
)
SELECT d.point_id, d.point_name,
       make_timestamp_ms(d.previous) AS after, make_timestamp_ms(d.timestamp) AS before,
       d.delta / 1000.0 AS seconds,
       nullif(e.interval, 0) / 1000.0 AS interval_s,
       CASE WHEN e.interval > 0 THEN CAST(round(d.delta / e.interval) - 1 AS BIGINT) END AS missing
FROM deltas d
JOIN expected e USING (point_id)
WHERE CASE WHEN e.interval > 0 THEN d.delta > CAST($tolerance AS DOUBLE) * e.interval
           ELSE d.delta > epoch_ms(CAST($silence AS INTERVAL)) END
ORDER BY d.point_id, after;
