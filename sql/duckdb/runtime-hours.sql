-- title: Hours that equipment ran, by day
-- about: It runs while the reading is above threshold. A reading holds until the next sample of its point, but no longer than hold, so that an outage counts for nothing; known_hours tells how much of the day is known. Days are those of the time zone, so that a day has 23 or 25 hours when clocks change.
-- param: point glob           names of the points; * and ? stand for any characters
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- param: threshold number = 0.5  it runs while the reading is above
-- param: hold duration = 1h   how long a reading holds at most; for points that report changes only, longer
-- param: tz zone = UTC        time zone of the days
-- column: point_name          name of the point
-- column: day                 day in that time zone
-- column: hours               hours in which it ran
-- column: known_hours         hours of which there is a reading
-- column: starts              how often it started
-- example: etl query @runtime-hours --param point='*.PumpStatus' --param from=2024-02-12 --param to=2024-02-19 --param tz=Europe/Berlin
WITH held AS (
  SELECT point_name, ts, value > CAST($threshold AS DOUBLE) AS runs,
         lag(value) OVER w > CAST($threshold AS DOUBLE) AS ran,
         lead(ts) OVER w AS next_ts
  FROM samples
  WHERE point_name GLOB CAST($point AS VARCHAR)
    AND ts >= CAST($from AS TIMESTAMP) - CAST($hold AS INTERVAL) AND ts < CAST($to AS TIMESTAMP)
  WINDOW w AS (PARTITION BY point_id ORDER BY ts)
), spans AS (
  SELECT point_name, runs, ts >= CAST($from AS TIMESTAMP) AND NOT ran AS starts,
         greatest(ts, CAST($from AS TIMESTAMP)) AT TIME ZONE 'UTC' AS a,
         least(next_ts, ts + CAST($hold AS INTERVAL), CAST($to AS TIMESTAMP)) AT TIME ZONE 'UTC' AS b
  FROM held
  WHERE runs IS NOT NULL
), days AS ( -- a span that crosses midnight is cut there
  SELECT point_name, runs, starts AND d.day = a_day AS starts, d.day,
         greatest(a, d.day AT TIME ZONE CAST($tz AS VARCHAR)) AS a,
         least(b, (d.day + INTERVAL 1 DAY) AT TIME ZONE CAST($tz AS VARCHAR)) AS b
  FROM (SELECT *, date_trunc('day', a AT TIME ZONE CAST($tz AS VARCHAR)) AS a_day,
               generate_series(date_trunc('day', a AT TIME ZONE CAST($tz AS VARCHAR)),
                               b AT TIME ZONE CAST($tz AS VARCHAR), INTERVAL 1 DAY) AS of
        FROM spans WHERE b > a), LATERAL (SELECT unnest(of) AS day) d
)
SELECT point_name, CAST(day AS DATE) AS day,
       round(coalesce(sum(epoch_ms(b) - epoch_ms(a)) FILTER (runs), 0) / 3600000.0, 3) AS hours,
       round(sum(epoch_ms(b) - epoch_ms(a)) / 3600000.0, 3) AS known_hours,
       count(*) FILTER (starts AND runs) AS starts
FROM days
WHERE b > a
GROUP BY ALL
ORDER BY point_name, day;
