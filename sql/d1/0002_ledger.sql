-- The ledger: which days of which points are safely in the cold tier and have
-- not changed since, and the log of the runs that brought them there.

-- The identity of this database, made once. The cold tier refuses another one.
CREATE TABLE IF NOT EXISTS archive_source (source_id TEXT NOT NULL);
INSERT INTO archive_source (source_id)
SELECT lower(hex(randomblob(16))) WHERE NOT EXISTS (SELECT 1 FROM archive_source);

-- One line per run: a log for people and monitors, never a gate.
CREATE TABLE IF NOT EXISTS archive_state (
  run              TEXT NOT NULL,
  command          TEXT,    -- archive, backfill, rearchive
  status           TEXT,    -- running, done, partial, failed, interrupted
  started_at       INTEGER, -- Unix milliseconds
  heartbeat_at     INTEGER, -- when the run last wrote this line
  archived_at      INTEGER, -- when the run ended, NULL while it runs
  first_day        TEXT,    -- as 2024-01-05, inclusive
  last_day         TEXT,    -- inclusive
  records_archived INTEGER, -- samples read
  files_written    INTEGER,
  bytes_written    INTEGER,
  error            TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS idx_archive_state_run ON archive_state (run);

-- One row for each (point, day) that a run claims or has archived. day counts
-- UTC days since 1970-01-01, so day * 86400000 is its first millisecond.
--   done = 0  claimed: a run is archiving it, or died doing so
--   done = 1  marked: archived, and no row of it was inserted or updated since
--   done = 2  marked, and its rows have left this database
-- The delete clears the table when this file is applied again, which is done
-- after the triggers below were lost: then nothing vouches for the marks.
CREATE TABLE IF NOT EXISTS archive_marks (
  point_id INTEGER NOT NULL,
  day      INTEGER NOT NULL,
  run      TEXT NOT NULL,
  done     INTEGER NOT NULL CHECK (done IN (0, 1, 2)),
  PRIMARY KEY (point_id, day)
) WITHOUT ROWID;
DELETE FROM archive_marks;

-- The (point, day)s of which rows have left this database at some time. Late
-- rows do not remove them: this database is no longer all that there was.
CREATE TABLE IF NOT EXISTS archive_trims (
  point_id INTEGER NOT NULL,
  day      INTEGER NOT NULL,
  PRIMARY KEY (point_id, day)
) WITHOUT ROWID;

-- A row that arrives or changes takes the mark of its day away, so the next run
-- archives that day again. Costs a seek in archive_marks for each row, and a
-- billed write only where there was a mark. An INSERT OR REPLACE fires the first
-- one, an upsert that updates the second, an ignored row neither. CAST because
-- a column may hold a REAL, and days are whole. Plain DELETE because the
-- conflict clause of the outer statement would override one in here.
DROP TRIGGER IF EXISTS tr_timeseries_insert_unmarks;
CREATE TRIGGER tr_timeseries_insert_unmarks AFTER INSERT ON timeseries
BEGIN
  DELETE FROM archive_marks
  WHERE point_id = NEW.point_id AND day = CAST(NEW.timestamp AS INTEGER) / 86400000;
END;
DROP TRIGGER IF EXISTS tr_timeseries_update_unmarks;
CREATE TRIGGER tr_timeseries_update_unmarks AFTER UPDATE ON timeseries
BEGIN
  DELETE FROM archive_marks
  WHERE point_id = OLD.point_id AND day = CAST(OLD.timestamp AS INTEGER) / 86400000;
  DELETE FROM archive_marks
  WHERE point_id = NEW.point_id AND day = CAST(NEW.timestamp AS INTEGER) / 86400000;
END;
