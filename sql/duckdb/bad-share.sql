-- title: Points of which too large a share of the samples is of bad quality
-- about: Bad is a quality below 192. The rule quality of etl audit.
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- param: share number[0,1] = 0.05  what part may be bad
-- column: point_id            id of the point
-- column: point_name          name of the point
-- column: first               time of the first bad sample, UTC
-- column: last                time of the last one, UTC
-- column: samples             how many are bad
-- column: share               their part of all samples
-- example: etl query @bad-share --param from=-30d --param share=0.001
SELECT s.point_id, any_value(p.name) AS point_name,
       min(s.ts) FILTER (s.quality < 192) AS first, max(s.ts) FILTER (s.quality < 192) AS last,
       count(*) FILTER (s.quality < 192) AS samples, count(*) FILTER (s.quality < 192) / count(*) AS share
FROM samples s
JOIN points p ON p.point_id = s.point_id
WHERE s.point_name GLOB CAST($point AS VARCHAR)
  AND s.ts >= CAST($from AS TIMESTAMP) AND s.ts < CAST($to AS TIMESTAMP)
  AND (p.retired_at IS NULL OR s.timestamp < p.retired_at)
GROUP BY s.point_id
HAVING share > CAST($share AS DOUBLE)
ORDER BY s.point_id;
