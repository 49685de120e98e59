-- title: Average, minimum and maximum of points in buckets of time
-- about: Buckets without a reading are left out. Readings weigh the same, however far apart they are; infinite ones are left out.
-- param: point glob           names of the points; * and ? stand for any characters
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- param: bucket duration = 1h length of a bucket; days begin at midnight UTC
-- column: point_name          name of the point
-- column: bucket              start of the bucket in UTC
-- column: average             mean of the readings
-- column: minimum             least reading
-- column: maximum             greatest reading
-- column: readings            number of readings
-- example: etl query @trend-downsampled --param point='*.AirFlow' --param from=2024-01-15 --param to=2024-02-15 --param bucket=1d
SELECT point_name, time_bucket(CAST($bucket AS INTERVAL), ts) AS bucket,
       avg(value) AS average, min(value) AS minimum, max(value) AS maximum, count(*) AS readings
FROM samples
WHERE point_name GLOB CAST($point AS VARCHAR)
  AND ts >= CAST($from AS TIMESTAMP) AND ts < CAST($to AS TIMESTAMP)
  AND isfinite(value)
GROUP BY ALL
ORDER BY point_name, bucket;
