-- title: Samples in alarm, newest first
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: from time = -1h      first moment
-- param: to time = now        the moment after the last one
-- param: bit int[0,15] = 0    which bit of flags; 0 is the alarm
-- column: point_name          name of the point
-- column: ts                  time in UTC
-- column: value               reading, NULL if there was none
-- column: unit                unit of the point
-- column: quality             192 and above is good
-- column: flags               all bits
-- example: etl query @alarms --param from=2024-02-02 --param to=2024-02-03
SELECT s.point_name, s.ts, s.value, p.unit, s.quality, s.flags
FROM samples s
LEFT JOIN points p ON p.point_id = s.point_id
WHERE s.point_name GLOB CAST($point AS VARCHAR)
  AND s.ts >= CAST($from AS TIMESTAMP) AND s.ts < CAST($to AS TIMESTAMP)
  AND (s.flags >> CAST($bit AS INTEGER)) & 1 = 1
ORDER BY s.ts DESC, s.point_name;
