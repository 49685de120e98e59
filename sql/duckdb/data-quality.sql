-- title: Monitor: the share of bad samples in the last 24 hours
-- about: Alert if bad_quality_pct is above 5. @bad-quality tells which points.
-- param: from time = -1d      first moment
-- param: to time = now        the moment after the last one
-- column: total_samples       number of samples
-- column: bad_quality_count   those whose quality is below 192
-- column: bad_quality_pct     their share in percent, NULL without samples
-- example: etl query @data-quality --json
SELECT count(*) AS total_samples,
       count(*) FILTER (quality < 192) AS bad_quality_count,
       100.0 * count(*) FILTER (quality < 192) / nullif(count(*), 0) AS bad_quality_pct
FROM samples
WHERE ts >= CAST($from AS TIMESTAMP) AND ts < CAST($to AS TIMESTAMP);
