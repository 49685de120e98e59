-- title: Monitor: how old the newest sample is, and how many points are stale
-- about: Alert if staleness_s is above 300, as the architecture has it. One seek for each point, never a scan. Samples later than the moment (a clock that is ahead) do not count as fresh.
-- param: at time = now        the moment from which ages are counted
-- param: limit duration = 5m  age from which a point is stale
-- column: latest              time of the newest sample, UTC
-- column: staleness_s         its age in seconds
-- column: points              points that have samples
-- column: stale_points        those whose latest sample is older than the limit
-- example: etl query @freshness --param limit=15m
SELECT max(ts) FILTER (ts <= CAST($at AS TIMESTAMP)) AS latest,
       round((epoch_ms(CAST($at AS TIMESTAMP)) - max(timestamp) FILTER (ts <= CAST($at AS TIMESTAMP))) / 1000.0, 3) AS staleness_s,
       count(*) AS points,
       count(*) FILTER (ts < CAST($at AS TIMESTAMP) - CAST($limit AS INTERVAL)) AS stale_points
FROM latest;
