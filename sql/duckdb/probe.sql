-- title: Monitor: a query to time, the samples of one point over 30 days
-- about: The architecture expects less than 500 ms. A query of more than a second is logged with where the time went.
-- param: point text           name of the point
-- param: from time = -30d     first moment
-- param: to time = now        the moment after the last one
-- column: point_id            id of the point
-- column: sample_count        number of samples
-- column: oldest              time of the first one, UTC
-- column: newest              time of the last one, UTC
-- example: etl query @probe --param point=Building1.HVAC.AHU1.SupplyAirTemperature
SELECT point_id, count(*) AS sample_count, min(ts) AS oldest, max(ts) AS newest
FROM samples
WHERE point_name = CAST($point AS VARCHAR)
  AND ts >= CAST($from AS TIMESTAMP) AND ts < CAST($to AS TIMESTAMP)
GROUP BY point_id;
