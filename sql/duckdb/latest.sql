-- title: The latest sample of each point, and how old it is
-- about: Points that never had a sample are left out.
-- param: point glob = *       names of the points; * and ? stand for any characters
-- param: at time = now        the moment from which ages are counted
-- column: point_name          name of the point
-- column: ts                  time in UTC
-- column: value               reading, NULL if there was none
-- column: unit                unit of the point
-- column: quality             192 and above is good
-- column: flags               bits; bit 0 is the alarm
-- column: age_s               seconds since then
-- example: etl query @latest --param point='Building1.Plant.*'
SELECT l.point_name, l.ts, l.value, p.unit, l.quality, l.flags,
       date_diff('second', l.ts, CAST($at AS TIMESTAMP)) AS age_s
FROM latest l
LEFT JOIN points p ON p.point_id = l.point_id
WHERE l.point_name GLOB CAST($point AS VARCHAR)
ORDER BY l.point_name;
