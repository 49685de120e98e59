-- title: How two points go together
-- about: Both are averaged in buckets of time, so that their intervals need not agree; only buckets in which both have a reading count.
-- param: a text               name of one point
-- param: b text               name of the other one
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- param: bucket duration = 15m  length of a bucket
-- column: a                   name of one point
-- column: b                   name of the other one
-- column: pairs               buckets in which both have a reading
-- column: correlation         Pearson's r, -1 to 1; NULL where one does not vary
-- column: slope               change of b for each unit of a, by least squares
-- column: intercept           b where a is 0
-- example: etl query @correlation --param a=Building1.Plant.Chiller1.SupplyWaterTemp --param b=Building1.Plant.Chiller1.ReturnWaterTemp --param from=2024-02-12 --param to=2024-02-19
WITH x AS (
  SELECT time_bucket(CAST($bucket AS INTERVAL), ts) AS bucket, avg(value) AS value
  FROM samples
  WHERE point_name = CAST($a AS VARCHAR)
    AND ts >= CAST($from AS TIMESTAMP) AND ts < CAST($to AS TIMESTAMP) AND isfinite(value)
  GROUP BY ALL
), y AS (
  SELECT time_bucket(CAST($bucket AS INTERVAL), ts) AS bucket, avg(value) AS value
  FROM samples
  WHERE point_name = CAST($b AS VARCHAR)
    AND ts >= CAST($from AS TIMESTAMP) AND ts < CAST($to AS TIMESTAMP) AND isfinite(value)
  GROUP BY ALL
)
SELECT CAST($a AS VARCHAR) AS a, CAST($b AS VARCHAR) AS b, count(*) AS pairs,
       CASE WHEN isfinite(corr(y.value, x.value)) THEN corr(y.value, x.value) END AS correlation,
       CASE WHEN isfinite(regr_slope(y.value, x.value)) THEN regr_slope(y.value, x.value) END AS slope,
       CASE WHEN isfinite(regr_intercept(y.value, x.value)) THEN regr_intercept(y.value, x.value) END AS intercept
FROM x JOIN y USING (bucket);
