-- title: How much of what was due is archived, from the manifests alone
-- about: No month file is read. Expected samples follow from points.interval_ms and count archived days only; a point that reports changes only, or whose interval is not known, has none.
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: from day = -30d      first day
-- param: to day = today       the day after the last one
-- column: point_name          name of the point
-- column: days_archived       days that are archived
-- column: days_empty          those of them without a sample
-- column: days_not_archived   days of the archived months that were never archived
-- column: samples             samples that are archived
-- column: expected            samples that were due on the archived days
-- column: coverage_pct        samples in percent of those expected
-- example: etl query @coverage --param point='Building1.Plant.*' --param from=2024-01-12 --param to=2024-02-21
SELECT d.point_name,
       count(d.samples) AS days_archived,
       count(*) FILTER (d.samples = 0) AS days_empty,
       count(*) FILTER (d.samples IS NULL) AS days_not_archived,
       coalesce(sum(d.samples), 0)::BIGINT AS samples,
       count(d.samples) * (86400000 // nullif(any_value(p.interval_ms), 0)) AS expected,
       round(100.0 * sum(d.samples) / nullif(expected, 0), 2) AS coverage_pct
FROM archive_days d
LEFT JOIN points p ON p.point_id = d.point_id
WHERE d.point_name GLOB CAST($point AS VARCHAR)
  AND d.day >= CAST($from AS DATE) AND d.day < CAST($to AS DATE)
GROUP BY d.point_id, d.point_name
ORDER BY coverage_pct NULLS LAST, d.point_name;
