-- Retention: about one insert in a thousand takes at most two days of the
-- inserted point out of this database. It replaces the trigger of the same name
-- that deleted by age, archived or not, and scanned the table to do so.
--
-- A day goes only if it is marked (done = 1: a claim blocks it, a late row
-- too) and ends 30 days or more before the inserted row and before now,
-- whichever is earlier. So the day of the inserted row never goes, and the order
-- in which the triggers of an insert fire does not matter.
--
-- All work is by primary key. Where nothing is to go a firing costs one seek for
-- the oldest row and reads the marks of the one point. The first two statements
-- choose the same days, for nothing that the choice depends on changes between
-- them. The third marks what has gone. NOT EXISTS instead of OR IGNORE because
-- the conflict clause of the outer statement would override it.
DROP TRIGGER IF EXISTS tr_timeseries_retention;
CREATE TRIGGER tr_timeseries_retention AFTER INSERT ON timeseries
WHEN abs(random() % 1000) = 0
BEGIN
  INSERT INTO archive_trims (point_id, day)
  SELECT NEW.point_id, d.day
  FROM (
    SELECT m.day FROM archive_marks m
    WHERE m.point_id = NEW.point_id AND m.done = 1
      AND m.day >= (SELECT CAST(o.timestamp AS INTEGER) / 86400000 FROM timeseries o
                    WHERE o.point_id = NEW.point_id ORDER BY o.timestamp LIMIT 1)
      AND m.day < min(CAST(NEW.timestamp AS INTEGER), unixepoch('now') * 1000) / 86400000 - 30
      AND EXISTS (SELECT 1 FROM timeseries r
                  WHERE r.point_id = NEW.point_id
                    AND r.timestamp >= m.day * 86400000 AND r.timestamp < (m.day + 1) * 86400000)
    ORDER BY m.day LIMIT 2) d
  WHERE NOT EXISTS (SELECT 1 FROM archive_trims x WHERE x.point_id = NEW.point_id AND x.day = d.day);

  DELETE FROM timeseries
  WHERE point_id = NEW.point_id AND timestamp IN (
    SELECT t.timestamp
    FROM (
      SELECT m.day FROM archive_marks m
      WHERE m.point_id = NEW.point_id AND m.done = 1
        AND m.day >= (SELECT CAST(o.timestamp AS INTEGER) / 86400000 FROM timeseries o
                      WHERE o.point_id = NEW.point_id ORDER BY o.timestamp LIMIT 1)
        AND m.day < min(CAST(NEW.timestamp AS INTEGER), unixepoch('now') * 1000) / 86400000 - 30
        AND EXISTS (SELECT 1 FROM timeseries r
                    WHERE r.point_id = NEW.point_id
                      AND r.timestamp >= m.day * 86400000 AND r.timestamp < (m.day + 1) * 86400000)
      ORDER BY m.day LIMIT 2) d
    CROSS JOIN timeseries t
    WHERE t.point_id = NEW.point_id
      AND t.timestamp >= d.day * 86400000 AND t.timestamp < (d.day + 1) * 86400000);

  UPDATE archive_marks SET done = 2
  WHERE point_id = NEW.point_id AND done = 1
    AND day < min(CAST(NEW.timestamp AS INTEGER), unixepoch('now') * 1000) / 86400000 - 30
    AND EXISTS (SELECT 1 FROM archive_trims x
                WHERE x.point_id = archive_marks.point_id AND x.day = archive_marks.day)
    AND NOT EXISTS (SELECT 1 FROM timeseries r
                    WHERE r.point_id = archive_marks.point_id
                      AND r.timestamp >= archive_marks.day * 86400000
                      AND r.timestamp < (archive_marks.day + 1) * 86400000);
END;
