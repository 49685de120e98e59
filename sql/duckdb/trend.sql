-- title: Samples of points over a range of time
-- param: point glob           names of the points; * and ? stand for any characters
-- param: from time = -1d      first moment
-- param: to time = now        the moment after the last one
-- column: point_name          name of the point
-- column: ts                  time in UTC
-- column: value               reading, NULL if there was none
-- column: quality             192 and above is good
-- column: flags               bits; bit 0 is the alarm
-- example: etl query @trend --param point='Building1.HVAC.AHU1.*' --param from=2024-02-18 --param to=2024-02-19
SELECT point_name, ts, value, quality, flags
FROM samples
WHERE point_name GLOB CAST($point AS VARCHAR)
  AND ts >= CAST($from AS TIMESTAMP) AND ts < CAST($to AS TIMESTAMP)
ORDER BY point_name, ts;
