-- title: Gaps: where a point was silent for longer than it should be
-- about: A gap is the time between two consecutive readings of a point (samples whose value is not NULL) that is longer than tolerance times the interval that is expected: points.interval_ms, or where that is not known the median over the range. A point that reports changes only (interval_ms = 0) has a gap where it is silent for longer than silence; how many samples are missing there nobody can say. What is missing before the first reading of the range and after its last one is a head and a tail, and a range without any reading is empty; they count from a point's first sample, if that is later than from, until it was retired. etl audit finds the same, faster.
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- param: tolerance number = 1.5  how many intervals are no gap yet
-- param: silence duration = 36500d  longest silence of a point that reports changes only
-- param: since time = -8d     from when on to look for a point's first sample, if that is before from
-- column: point_id            id of the point
-- column: point_name          name of the point
-- column: after               the last reading before the gap, UTC; NULL at a head
-- column: before              the first reading after it, UTC; NULL at a tail
-- column: seconds             how long it is, within the range
-- column: interval_s          expected interval
-- column: missing             samples missing, about
-- column: kind                inner, head, tail or empty
-- example: etl query @gaps --param point='Building1.*' --param from=2024-01-12 --param to=2024-02-21
WITH covered AS (
  SELECT p.point_id, p.name AS point_name, p.interval_ms,
         greatest(epoch_ms(CAST($from AS TIMESTAMP)), f.first) AS starts,
         least(epoch_ms(CAST($to AS TIMESTAMP)), coalesce(p.retired_at, 9223372036854775807)) AS ends
  FROM points p
  JOIN (SELECT point_id, min(timestamp) AS first
        FROM samples
        WHERE point_name GLOB CAST($point AS VARCHAR)
          AND ts >= least(CAST($since AS TIMESTAMP), CAST($from AS TIMESTAMP)) AND ts < CAST($to AS TIMESTAMP)
        GROUP BY point_id) f ON f.point_id = p.point_id
), readings AS (
  SELECT s.point_id, s.timestamp, lag(s.timestamp) OVER (PARTITION BY s.point_id ORDER BY s.timestamp) AS previous
  FROM samples s
  JOIN covered c ON c.point_id = s.point_id
  WHERE s.point_name GLOB CAST($point AS VARCHAR)
    AND s.ts >= CAST($from AS TIMESTAMP) AND s.ts < CAST($to AS TIMESTAMP)
    AND s.timestamp >= c.starts AND s.timestamp < c.ends
    AND s.value IS NOT NULL
), seen AS (
  SELECT point_id, median(timestamp - previous) AS usual, min(timestamp) AS first, max(timestamp) AS last
  FROM readings
  GROUP BY point_id
), expected AS (
  SELECT c.*, coalesce(c.interval_ms, s.usual) AS interval, s.first, s.last
  FROM covered c
  LEFT JOIN seen s ON s.point_id = c.point_id
  WHERE c.starts < c.ends
), silences AS (
  SELECT point_id, 'inner' AS kind, previous AS after, timestamp AS before, timestamp - previous AS length, 1 AS less
  FROM readings WHERE previous IS NOT NULL
  UNION ALL
  SELECT point_id, 'head', NULL, first, first - starts, 0 FROM expected WHERE first IS NOT NULL
  UNION ALL
  SELECT point_id, 'tail', last, NULL, ends - last, 1 FROM expected WHERE first IS NOT NULL
  UNION ALL
  SELECT point_id, 'empty', NULL, NULL, ends - starts, 0 FROM expected WHERE first IS NULL
)
SELECT s.point_id, e.point_name,
       make_timestamp_ms(s.after) AS after, make_timestamp_ms(s.before) AS before,
       s.length / 1000.0 AS seconds,
       nullif(e.interval, 0) / 1000.0 AS interval_s,
       CASE WHEN e.interval > 0 THEN greatest(0, CAST(round(s.length / e.interval) - s.less AS BIGINT)) END AS missing,
       s.kind
FROM silences s
JOIN expected e ON e.point_id = s.point_id
WHERE CASE WHEN e.interval > 0 THEN s.length > CAST($tolerance AS DOUBLE) * e.interval
           WHEN e.interval IS NULL AND s.kind = 'empty' THEN true
           ELSE s.length > epoch_ms(CAST($silence AS INTERVAL)) END
ORDER BY s.point_id, coalesce(s.after, s.before - s.length);
