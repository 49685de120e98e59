-- title: The typical day of a point: its readings by hour of the day
-- about: Hours are those of the time zone's clock. When clocks change an hour is missing or comes twice, as it does on the wall.
-- param: point glob           names of the points; * and ? stand for any characters
-- param: from time = -28d     first moment
-- param: to time = now        the moment after the last one
-- param: tz zone = UTC        time zone of the hours, like Europe/Berlin
-- param: days all|weekdays|weekends = all  which days
-- column: point_name          name of the point
-- column: hour                hour of the day, 0 to 23
-- column: average             mean of the readings
-- column: minimum             least reading
-- column: maximum             greatest reading
-- column: days                days that have a reading in that hour
-- example: etl query @daily-profile --param point='*.AirFlow' --param from=2024-01-22 --param to=2024-02-19 --param tz=Europe/Berlin --param days=weekdays
SELECT point_name, hour(local) AS hour, avg(value) AS average, min(value) AS minimum, max(value) AS maximum,
       count(DISTINCT CAST(local AS DATE)) AS days
FROM (
  SELECT point_name, value, ts AT TIME ZONE 'UTC' AT TIME ZONE CAST($tz AS VARCHAR) AS local
  FROM samples
  WHERE point_name GLOB CAST($point AS VARCHAR)
    AND ts >= CAST($from AS TIMESTAMP) AND ts < CAST($to AS TIMESTAMP)
    AND isfinite(value)
)
WHERE CASE CAST($days AS VARCHAR)
        WHEN 'weekdays' THEN isodow(local) < 6
        WHEN 'weekends' THEN isodow(local) >= 6
        ELSE true END
GROUP BY ALL
ORDER BY point_name, hour;
