-- title: How long each point was at each of its values
-- about: For points that take few values, such as switches and modes. A reading holds until the next sample of its point, but no longer than hold, so that an outage counts for nothing. What held at the first moment is looked for as far back as hold.
-- param: point glob           names of the points; * and ? stand for any characters
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- param: hold duration = 1h   how long a reading holds at most; for points that report changes only, longer
-- column: point_name          name of the point
-- column: state               the value, NULL for samples without a reading
-- column: hours               time in that state
-- column: share_pct           share of the time that is known, in percent
-- column: times               how often the point came into that state
-- example: etl query @time-in-state --param point='*.FanStatus' --param from=2024-02-12 --param to=2024-02-19
WITH held AS (
  SELECT point_name, value, ts,
         lag(value) OVER w AS before, lag(ts) OVER w AS before_ts,
         lead(ts) OVER w AS next_ts
  FROM samples
  WHERE point_name GLOB CAST($point AS VARCHAR)
    AND ts >= CAST($from AS TIMESTAMP) - CAST($hold AS INTERVAL) AND ts < CAST($to AS TIMESTAMP)
  WINDOW w AS (PARTITION BY point_id ORDER BY ts)
), spans AS (
  SELECT point_name, value,
         greatest(ts, CAST($from AS TIMESTAMP)) AS a,
         least(next_ts, ts + CAST($hold AS INTERVAL), CAST($to AS TIMESTAMP)) AS b,
         ts >= CAST($from AS TIMESTAMP)
           AND (value IS DISTINCT FROM before OR before_ts IS NULL OR before_ts < ts - CAST($hold AS INTERVAL)) AS enters
  FROM held
), states AS (
  SELECT point_name, value AS state, sum(epoch_ms(b) - epoch_ms(a)) AS ms, count(*) FILTER (enters) AS times
  FROM spans
  WHERE b > a
  GROUP BY ALL
)
SELECT point_name, state, round(ms / 3600000.0, 3) AS hours,
       round(100.0 * ms / sum(ms) OVER (PARTITION BY point_name), 3) AS share_pct, times
FROM states
ORDER BY point_name, state;
