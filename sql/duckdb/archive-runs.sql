-- title: Monitor: the archive's runs by day, newest first
-- about: Alert if failed_count is above 0. A run counts on the day on which it ended; failed are those that ended in another way than done, a crashed one included. Needs the source's ledger.
-- param: from time = -7d      first moment
-- param: to time = now        the moment after the last one
-- column: archive_date        day in UTC
-- column: archives_completed  runs that ended
-- column: total_records       samples that they read
-- column: failed_count        runs that failed, entirely or in part
-- example: etl query @archive-runs --param from=-30d
SELECT CAST(make_timestamp_ms(coalesce(archived_at, heartbeat_at)) AS DATE) AS archive_date,
       count(*) AS archives_completed,
       coalesce(sum(records_archived), 0)::BIGINT AS total_records,
       count(*) FILTER (status <> 'done') AS failed_count
FROM archive_state
WHERE coalesce(archived_at, heartbeat_at) >= epoch_ms(CAST($from AS TIMESTAMP))
  AND coalesce(archived_at, heartbeat_at) < epoch_ms(CAST($to AS TIMESTAMP))
  AND (archived_at IS NOT NULL OR status = 'crashed')
GROUP BY archive_date
ORDER BY archive_date DESC;
