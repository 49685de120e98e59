-- title: Points with samples of bad quality, worst first
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: from time = -1d      first moment
-- param: to time = now        the moment after the last one
-- param: good int = 192       quality from which a sample is good
-- column: point_name          name of the point
-- column: samples             number of samples
-- column: bad                 those below the good quality
-- column: bad_pct             their share in percent
-- column: worst               lowest quality
-- column: first_bad           time of the first of them, UTC
-- column: last_bad            time of the last of them, UTC
-- example: etl query @bad-quality --param from=2024-02-01 --param to=2024-02-08
SELECT point_name, count(*) AS samples,
       count(*) FILTER (quality < CAST($good AS INTEGER)) AS bad,
       round(100.0 * count(*) FILTER (quality < CAST($good AS INTEGER)) / count(*), 3) AS bad_pct,
       min(quality) AS worst,
       min(ts) FILTER (quality < CAST($good AS INTEGER)) AS first_bad,
       max(ts) FILTER (quality < CAST($good AS INTEGER)) AS last_bad
FROM samples
WHERE point_name GLOB CAST($point AS VARCHAR)
  AND ts >= CAST($from AS TIMESTAMP) AND ts < CAST($to AS TIMESTAMP)
GROUP BY point_name
HAVING bad > 0
ORDER BY bad_pct DESC, bad DESC, point_name;
