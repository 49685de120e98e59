package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/source/sourcetest"
	"etl/internal/utc"
	"etl/sql"
)

const d0 = utc.Day(19727) // 2024-01-05

var oneDay = utc.Days{From: d0, To: d0 + 1}

// raw opens the file beside the source, and runs a script.
func raw(t testing.TB, path, script string) *sqlite.Conn {
	t.Helper()
	c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	c.SetBusyTimeout(10 * time.Second)
	t.Cleanup(func() { c.Close() })
	if err := sqlitex.ExecuteScript(c, script, nil); err != nil {
		t.Fatalf("%v in\n%s", err, script)
	}
	return c
}

func open(t testing.TB, path string, o Options) *Source {
	t.Helper()
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// migrated makes a database with the migrations applied.
func migrated(t testing.TB) (string, *Source) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hot.db")
	s := open(t, path, Options{Create: true})
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return path, s
}

func TestConformance(t *testing.T) {
	for _, journal := range []string{"wal", "delete"} {
		t.Run(journal, func(t *testing.T) {
			sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
				path, s := migrated(t)
				s.Close()
				c := raw(t, path, "")
				for _, pragma := range []string{"journal_mode = " + journal, "synchronous = off"} { // nobody cuts the power
					if err := sqlitex.ExecuteTransient(c, "PRAGMA "+pragma, nil); err != nil {
						t.Fatal(err)
					}
				}
				s = open(t, path, Options{})
				s.batchRows = 1_000
				if journal == "delete" {
					s.chunkRows = 50
				}
				var mu sync.Mutex
				return sourcetest.Harness{Source: s, ManyRows: 2_160, Exec: func(t testing.TB, script string) {
					t.Helper()
					mu.Lock()
					defer mu.Unlock()
					if err := sqlitex.ExecuteScript(c, script, nil); err != nil {
						t.Errorf("%v in\n%s", err, script)
					}
				}}
			})
		})
	}
}

func TestOpenFaults(t *testing.T) {
	dir := t.TempDir()
	must := func(name string, data string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	missing := filepath.Join(dir, "missing.db")
	if _, err := Open(missing, Options{}); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.HintOf(err), "`etl migrate --source sqlite:"+missing+"`") {
		t.Errorf("a missing file: %v, hint %q", err, fault.HintOf(err))
	}
	if _, err := Open(dir, Options{}); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
		t.Errorf("a folder: %v", err)
	}
	late := open(t, missing, Options{Create: true})
	if _, _, err := late.Points(t.Context()); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.HintOf(err), "etl migrate") {
		t.Errorf("reading before migrate: %v", err)
	}
	if names, err := late.Pending(t.Context()); err != nil || len(names) != len(sql.Migrations()) {
		t.Errorf("pending before migrate: %v, %v", names, err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading made the file: %v", err)
	}

	_, good := migrated(t)
	if err := good.Load(t.Context(), nil, manyRows(50, 1440)); err != nil {
		t.Fatal(err)
	}
	if err := good.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good.path)
	if err != nil {
		t.Fatal(err)
	}
	broken := slices.Clone(whole)
	for i := 40 * 4096; i < len(broken); i++ {
		broken[i] = 0x5a
	}
	tests := []struct {
		name, path string
		kind       fault.Kind
		hint       string
	}{
		{"text", must("text.db", strings.Repeat("this is no database\n", 300)), fault.Invalid, "not a SQLite database"},
		{"empty", must("empty.db", ""), fault.Invalid, "etl migrate"},
		{"cut off", must("cut.db", string(whole[:len(whole)/2])), fault.Corrupt, ".recover"},
		{"overwritten", must("broken.db", string(broken)), fault.Corrupt, ".recover"},
	}
	for _, tt := range tests {
		s := open(t, tt.path, Options{})
		_, _, err := s.Points(t.Context())
		if err == nil {
			ids := make([]int32, 50)
			for i := range ids {
				ids[i] = int32(i + 1)
			}
			_, err = s.Read(t.Context(), source.Query{Points: ids, Days: oneDay}, func(*sample.Batch) error { return nil })
		}
		if !fault.Is(err, tt.kind) || !strings.Contains(fault.HintOf(err), tt.hint) {
			t.Errorf("%s: %v of kind %v, hint %q", tt.name, err, fault.KindOf(err), fault.HintOf(err))
		}
	}
}

func TestReadOnlyFile(t *testing.T) {
	path, s := migrated(t)
	s.Close()
	if err := sqlitex.ExecuteTransient(raw(t, path, ""), "PRAGMA journal_mode = delete", nil); err != nil {
		t.Fatal(err)
	}
	ro := open(t, path, Options{ReadOnly: true})
	if err := ro.Claim(t.Context(), "r", []source.Slice{{Point: 1, Day: d0}}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("claim, read-only: %v", err)
	}
	if _, err := ro.Migrate(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("migrate, read-only: %v", err)
	}
	if _, err := ro.Revoke(t.Context(), []source.Slice{{Point: 1, Day: d0}}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("revoke, read-only: %v", err)
	}
	if _, _, err := ro.Prune(t.Context(), []source.Cut{{Slice: source.Slice{Point: 1, Day: d0}, Run: "r", Rows: 1}}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("prune, read-only: %v", err)
	}
	if err := ro.Restore(t.Context(), manyRows(1, 1), true); !fault.Is(err, fault.Unavailable) {
		t.Errorf("restore, read-only: %v", err)
	}
	if err := ro.RestorePoints(t.Context(), []sample.Point{{ID: 1, Name: "x"}}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("restore points, read-only: %v", err)
	}
	if err := ro.Marks(t.Context(), []int32{1}, oneDay, func(source.Mark) {}); err != nil {
		t.Errorf("marks, read-only: %v", err)
	}
	if os.Getuid() == 0 {
		t.Log("as root the mode of a file stops nobody: a write to a read-only file is not tried")
		return
	}
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := open(t, path, Options{}).Claim(t.Context(), "r", []source.Slice{{Point: 1, Day: d0}}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("claim on a read-only file: %v", err)
	}
}

// A full disk is simulated by a limit on the pages of the database.
func TestFullDisk(t *testing.T) {
	_, s := migrated(t)
	if err := s.with(t.Context(), s.writer, "limit", func(c *conn) error { return exec(c, "PRAGMA max_page_count = 20") }); err != nil {
		t.Fatal(err)
	}
	var sl []source.Slice
	for p := range int32(20_000) {
		sl = append(sl, source.Slice{Point: p, Day: d0})
	}
	err := s.Claim(t.Context(), "r", sl)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.HintOf(err), "full") {
		t.Errorf("claim: %v, hint %q", err, fault.HintOf(err))
	}
	// Nothing of it was written, and the connection is usable.
	if err := s.Claim(t.Context(), "r", sl[:1]); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := s.Marks(t.Context(), []int32{0, 1, 2}, oneDay, func(source.Mark) { n++ }); err != nil || n != 1 {
		t.Errorf("%d marks, %v", n, err)
	}
}

func TestLocked(t *testing.T) {
	path, s := migrated(t)
	s.Close()
	c := raw(t, path, "")
	for _, journal := range []string{"delete", "wal"} {
		if err := sqlitex.ExecuteTransient(c, "PRAGMA journal_mode = "+journal, nil); err != nil {
			t.Fatal(err)
		}
		s := open(t, path, Options{BusyTimeout: 50 * time.Millisecond})
		if err := sqlitex.ExecuteTransient(c, "BEGIN EXCLUSIVE", nil); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err := s.Claim(t.Context(), "r", []source.Slice{{Point: 1, Day: d0}})
		if !fault.Is(err, fault.Transient) || fault.HintOf(err) == "" {
			t.Errorf("%s: claim: %v of kind %v", journal, err, fault.KindOf(err))
		}
		if waited := time.Since(began); waited < 50*time.Millisecond || waited > 5*time.Second {
			t.Errorf("%s: waited %v, want 50 ms", journal, waited)
		}
		_, _, err = s.Points(t.Context())
		if journal == "delete" && !fault.Is(err, fault.Transient) {
			t.Errorf("points: %v of kind %v", err, fault.KindOf(err))
		}
		if journal == "wal" && err != nil { // readers are not kept waiting
			t.Errorf("points: %v", err)
		}
		if err := sqlitex.ExecuteTransient(c, "COMMIT", nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Claim(t.Context(), "r", []source.Slice{{Point: 1, Day: d0}}); err != nil {
			t.Errorf("%s: claim after the lock went: %v", journal, err)
		}
		s.Close()
	}
}

// While f of Read runs no statement is open: a writer in rollback mode is not
// kept waiting, and f may write itself.
func TestNoReadTransactionDuringCallback(t *testing.T) {
	path, s := migrated(t)
	if err := s.Load(t.Context(), nil, manyRows(2, 1_300)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	c := raw(t, path, "")
	if err := sqlitex.ExecuteTransient(c, "PRAGMA journal_mode = delete", nil); err != nil {
		t.Fatal(err)
	}
	c.SetBusyTimeout(0)
	s = open(t, path, Options{BusyTimeout: time.Millisecond})
	s.batchRows = 1_000
	calls, rows := 0, 0
	_, err := s.Read(t.Context(), source.Query{Points: []int32{1, 2}, Days: oneDay}, func(b *sample.Batch) error {
		calls++
		rows += b.Len()
		if err := sqlitex.ExecuteScript(c, fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (3, %d)", calls), nil); err != nil {
			t.Errorf("call %d: a writer: %v", calls, err)
		}
		return s.Claim(t.Context(), "r", []source.Slice{{Point: 1, Day: d0}})
	})
	if err != nil || calls != 3 || rows != 2_600 {
		t.Errorf("%d calls with %d rows, %v", calls, rows, err)
	}
}

func TestUnfitTables(t *testing.T) {
	const points = "CREATE TABLE points (id INTEGER PRIMARY KEY, name TEXT);"
	tests := []struct {
		name, schema, about string
		mendable            bool
	}{
		{"no tables", "CREATE TABLE x (y)", "no table points", true},
		{"no timeseries", points, "no table timeseries", true},
		{"no name", "CREATE TABLE points (id INTEGER PRIMARY KEY)", "points has no column name", false},
		{"no value", points + "CREATE TABLE timeseries (point_id INTEGER, timestamp INTEGER, quality, flags, PRIMARY KEY (point_id, timestamp))", "no column value", true},
		{"no timestamp", points + "CREATE TABLE timeseries (point_id INTEGER, ts INTEGER, value, quality, flags)", "no column timestamp", false},
		{"no key", points + "CREATE TABLE timeseries (point_id INTEGER, timestamp INTEGER, value REAL, quality INTEGER, flags INTEGER)", "no unique key", true},
		{"a partial key", points + "CREATE TABLE timeseries (point_id INTEGER, timestamp INTEGER, value REAL, quality INTEGER, flags INTEGER); CREATE UNIQUE INDEX u ON timeseries (point_id, timestamp) WHERE flags = 0", "no unique key", true},
		{"a key in the other order", points + "CREATE TABLE timeseries (point_id INTEGER, timestamp INTEGER, value REAL, quality INTEGER, flags INTEGER, PRIMARY KEY (timestamp, point_id)) WITHOUT ROWID", "no unique key", true},
		{"timestamps as text", points + "CREATE TABLE timeseries (point_id INTEGER, timestamp VARCHAR(30), value, quality, flags, PRIMARY KEY (point_id, timestamp))", "timestamp is declared VARCHAR(30)", false},
		{"ids as reals", points + "CREATE TABLE timeseries (point_id REAL, timestamp INTEGER, value, quality, flags, PRIMARY KEY (point_id, timestamp))", "point_id is declared REAL", false},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "old.db")
		raw(t, path, tt.schema)
		s := open(t, path, Options{})
		_, _, err := s.Points(t.Context())
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.about) || !strings.Contains(fault.HintOf(err), "etl migrate --source sqlite:") {
			t.Errorf("%s: %v, hint %q", tt.name, err, fault.HintOf(err))
		}
		if _, err := s.Migrate(t.Context()); (err == nil) != tt.mendable || (err != nil && !fault.Is(err, fault.Invalid)) {
			t.Errorf("%s: migrate: %v", tt.name, err)
		}
		if _, _, err := s.Points(t.Context()); (err == nil) != tt.mendable {
			t.Errorf("%s: after migrate: %v", tt.name, err)
		}
	}
}

// The tables as the architecture document has them, other columns beside, and
// everything that its loose types let in.
func TestForeignTables(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old.db")
	c := raw(t, path, fmt.Sprintf(`
		CREATE TABLE d1_migrations(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL);
		INSERT INTO d1_migrations (name) VALUES ('0001_initial_schema.sql');
		CREATE TABLE _cf_KV (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
		CREATE TABLE _cf_METADATA (key INTEGER PRIMARY KEY, value BLOB);
		CREATE TABLE points (ID INTEGER PRIMARY KEY, note TEXT, Name, system TEXT, min_value TEXT);
		CREATE INDEX idx_points_hierarchy ON points (system);
		CREATE TABLE timeseries (Flags, Quality, note TEXT, Value, Timestamp INTEGER, Point_ID INTEGER, PRIMARY KEY (Point_ID, Timestamp));
		CREATE INDEX idx_timeseries_point_time_desc ON timeseries (point_id, timestamp DESC);
		CREATE TABLE archive_state (id INTEGER PRIMARY KEY, archived_at INTEGER, records_archived INTEGER, status TEXT NOT NULL DEFAULT 'ok');
		INSERT INTO archive_state (archived_at) VALUES (5);
		CREATE TRIGGER tr_timeseries_retention AFTER INSERT ON timeseries BEGIN
			DELETE FROM timeseries WHERE timestamp < (NEW.timestamp - 2592000000) AND ABS(RANDOM() %% 1000) = 0; END;
		INSERT INTO points VALUES (1, 'n', 'one', 'HVAC', 'low'), (2, 'n', NULL, NULL, 5), (3, 'n', 17, NULL, 5.5);
		INSERT INTO timeseries (point_id, timestamp, value, quality, flags) VALUES
			(1, %[1]d, 1.5, 192, 0), (1, %[1]d + 1, 7, 192, 0), (1, %[1]d + 2, 9007199254740992, 192, 0), (1, %[1]d + 3, 9007199254740993, 192, 0),
			(1, %[1]d + 4, -9007199254740993, 192, 0), (1, %[1]d + 5, 1.5, NULL, 0), (1, %[1]d + 6, 1.5, 192, NULL),
			(1, NULL, 2.5, 192, 0), (NULL, %[1]d, 3.5, 192, 0), (NULL, NULL, 3.5, 192, 0), (2, -1, 1.5, 192, 0)`, d0.Start()))
	s := open(t, path, Options{})
	check := func(when string) {
		t.Helper()
		points, rejects, err := s.Points(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		var names []string
		for _, p := range points {
			names = append(names, fmt.Sprintf("%d=%s", p.ID, p.Name))
		}
		if got := strings.Join(names, " "); got != "1=one 2= 3=" {
			t.Errorf("%s: points %s", when, got)
		}
		if *points[0].System != "HVAC" || points[0].Site != nil || points[0].MinValue != nil {
			t.Errorf("%s: point %+v", when, points[0])
		}
		if len(rejects) != 2 || rejects[0].PointID.V != nil || !strings.Contains(rejects[0].Reason, "NULL") {
			t.Errorf("%s: rejects %+v", when, rejects)
		}
		rows, rejects := sourcetest.ReadAll(t, s, source.Query{Points: []int32{1, 2}, Days: oneDay})
		if len(rows) != 3 || rows[1].Value != math.Float64bits(7) || rows[2].Value != math.Float64bits(1<<53) {
			t.Errorf("%s: rows %+v", when, rows)
		}
		if len(rejects) != 4 || rejects[0].Value.V != int64(1<<53+1) || rejects[2].Quality.V != nil || rejects[3].Flags.V != nil {
			t.Errorf("%s: rejects %+v", when, rejects)
		}
		strays, err := s.Strays(t.Context(), []int32{1, 2}, utc.Days{From: d0 - 5, To: d0 + 5})
		if err != nil || len(strays) != 2 || strays[0].Timestamp.V != nil || !strings.Contains(strays[0].Reason, "NULL") {
			t.Errorf("%s: strays %+v, %v", when, strays, err)
		}
	}
	check("as it was")
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	check("migrated")
	if err := sqlitex.ExecuteScript(c, "UPDATE points SET site = 'north' WHERE id = 1", nil); err != nil {
		t.Fatal(err)
	}
	if points, _, err := s.Points(t.Context()); err != nil || points[0].Site == nil || *points[0].Site != "north" {
		t.Errorf("a column that migrate added is not read: %+v, %v", points[0], err)
	}
	info, err := s.Info(t.Context())
	if err != nil || !info.Ledger || info.ID == "" {
		t.Errorf("info %+v, %v", info, err)
	}
	var lines []string
	if err := sqlitex.ExecuteTransient(c, "SELECT name FROM d1_migrations ORDER BY id", &sqlitex.ExecOptions{ResultFunc: func(st *sqlite.Stmt) error {
		lines = append(lines, st.ColumnText(0))
		return nil
	}}); err != nil || len(lines) != 1+len(sql.Migrations()) {
		t.Errorf("d1_migrations %v, %v", lines, err)
	}
	for _, r := range []source.Run{{ID: "r", Status: "running", Started: time.Now()}, {ID: "r", Status: "done", Started: time.Now(), Finished: time.Now()}} {
		if err := s.Log(t.Context(), r); err != nil {
			t.Errorf("log: %v", err)
		}
	}
}

// Reading needs no migration where the tables are fit for it.
func TestReadsUnmigrated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old.db")
	raw(t, path, fmt.Sprintf(`CREATE TABLE points (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
		CREATE TABLE timeseries (point_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, value REAL, quality INTEGER, flags INTEGER, PRIMARY KEY (point_id, timestamp)) WITHOUT ROWID;
		INSERT INTO points VALUES (1, 'a'); INSERT INTO timeseries VALUES (1, %d, 1.5, 192, 0)`, d0.Start()))
	s := open(t, path, Options{ReadOnly: true})
	if rows, _ := sourcetest.ReadAll(t, s, source.Query{Points: []int32{1}, Days: oneDay}); len(rows) != 1 {
		t.Errorf("rows %v", rows)
	}
	if info, err := s.Info(t.Context()); err != nil || info.Ledger || info.ID != "" {
		t.Errorf("info %+v, %v", info, err)
	}
	if err := s.Marks(t.Context(), []int32{1}, oneDay, nil); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.HintOf(err), "etl migrate") {
		t.Errorf("marks: %v", err)
	}
	if _, err := s.Group(t.Context(), "g"); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.HintOf(err), "etl migrate") {
		t.Errorf("group: %v", err)
	}
}

func TestMigrateInTheWay(t *testing.T) {
	const series = "CREATE TABLE timeseries (point_id INTEGER, timestamp INTEGER, value REAL, quality INTEGER, flags INTEGER);"
	tests := []struct{ name, schema, about string }{
		{"the same sample twice", series + "INSERT INTO timeseries VALUES (5, 7, 1, 1, 1), (5, 7, 2, 1, 1)", "2 rows of point 5 at 7"},
		{"a log with needs", "CREATE TABLE archive_state (id INTEGER PRIMARY KEY, bucket TEXT NOT NULL)", "needs a value for bucket"},
		// A run that goes on has no end yet, and words of its own for its state.
		{"a log of ends only", "CREATE TABLE archive_state (id INTEGER PRIMARY KEY, archived_at INTEGER NOT NULL, status TEXT)", "NOT NULL constraint failed: archive_state.archived_at"},
		{"a log of other words", "CREATE TABLE archive_state (id INTEGER PRIMARY KEY, archived_at INTEGER, status TEXT CHECK (status IN ('completed', 'failed')))", "CHECK constraint failed"},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "old.db")
		c := raw(t, path, tt.schema)
		s := open(t, path, Options{})
		_, err := s.Migrate(t.Context())
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.about) || fault.HintOf(err) == "" {
			t.Fatalf("%s: %v", tt.name, err)
		}
		// The hint is SQL that mends it.
		_, fix, ok := strings.Cut(fault.HintOf(err), ": ")
		if !ok {
			fix = fault.HintOf(err)
		}
		if err := sqlitex.ExecuteScript(c, fix, nil); err != nil {
			t.Errorf("%s: the hint %q: %v", tt.name, fix, err)
		}
		if _, err := s.Migrate(t.Context()); err != nil {
			t.Errorf("%s: after the hint: %v", tt.name, err)
		}
	}
}

// A migration that fails leaves neither its statements nor its line, and those
// before it stay.
func TestMigrateIsAtomic(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hot.db")
	c := raw(t, path, "CREATE VIEW archive_marks AS SELECT 1 AS done") // 0002 can not make its table
	s := open(t, path, Options{})
	names, err := s.Migrate(t.Context())
	if err == nil || !slices.Equal(names, []string{"0001_timeseries.sql"}) || !strings.Contains(err.Error(), sql.LedgerMigration) {
		t.Fatalf("migrate: %v, %v", names, err)
	}
	if p, err := s.Pending(t.Context()); err != nil || len(p) != len(sql.Migrations())-1 {
		t.Errorf("pending %v, %v", p, err)
	}
	if err := sqlitex.ExecuteScript(c, "SELECT 1 FROM archive_source", nil); err == nil {
		t.Error("a part of the migration stayed")
	}
	if err := sqlitex.ExecuteScript(c, "DROP VIEW archive_marks", nil); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Migrate(t.Context()); err != nil || len(names) != len(sql.Migrations())-1 {
		t.Errorf("migrate again: %v, %v", names, err)
	}
}

func TestMigrateTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hot.db")
	var wg sync.WaitGroup
	var mu sync.Mutex
	var applied []string
	for range 4 {
		s := open(t, path, Options{Create: true})
		wg.Go(func() {
			names, err := s.Migrate(t.Context())
			if err != nil {
				t.Errorf("migrate: %v", err)
			}
			mu.Lock()
			applied = append(applied, names...)
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.Sort(applied)
	var want []string
	for _, m := range sql.Migrations() {
		want = append(want, m.Name)
	}
	if !slices.Equal(applied, want) {
		t.Errorf("applied %v, want each once", applied)
	}
	mode := ""
	if err := sqlitex.ExecuteTransient(raw(t, path, ""), "PRAGMA journal_mode", &sqlitex.ExecOptions{ResultFunc: func(st *sqlite.Stmt) error {
		mode = st.ColumnText(0)
		return nil
	}}); err != nil || mode != "wal" {
		t.Errorf("journal mode %q, %v", mode, err)
	}
}

// What wrangler applied is not applied again, and its mode and rows stay.
func TestMigratedByWrangler(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hot.db")
	c := raw(t, path, sql.BookTable)
	for _, m := range sql.Migrations() {
		if err := sqlitex.ExecuteScript(c, m.SQL+fmt.Sprintf("\nINSERT INTO \"d1_migrations\" (name) values ('%s');", m.Name), nil); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, path, Options{})
	if p, err := s.Pending(t.Context()); err != nil || len(p) != 0 {
		t.Errorf("pending %v, %v", p, err)
	}
	if names, err := s.Migrate(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("migrate %v, %v", names, err)
	}
	if info, err := s.Info(t.Context()); err != nil || !info.Ledger {
		t.Errorf("info %+v, %v", info, err)
	}
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the journal mode changed: %v", err)
	}
}

func TestNowAndClose(t *testing.T) {
	path, _ := migrated(t)
	at := time.UnixMilli(1_700_000_000_000)
	s := open(t, path, Options{Now: func() time.Time { return at }})
	if info, err := s.Info(t.Context()); err != nil || !info.Now.Equal(at) {
		t.Errorf("info %+v, %v", info, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if _, _, err := s.Points(t.Context()); err == nil {
		t.Error("points after close")
	}
}

// A cancelled context ends a read that is under way.
func TestCancelDuringRead(t *testing.T) {
	_, s := migrated(t)
	if err := s.Load(t.Context(), nil, manyRows(3, 800)); err != nil {
		t.Fatal(err)
	}
	s.batchRows = 1_000
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	_, err := s.Read(ctx, source.Query{Points: []int32{1, 2, 3}, Days: oneDay}, func(*sample.Batch) error {
		calls++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	if n, err := s.Count(t.Context(), source.Query{Points: []int32{1, 2, 3}, Days: oneDay}); err != nil || n[1]+n[2]+n[3] != 2_400 {
		t.Errorf("afterwards: %v rows, %v", n, err)
	}
}

// A cancelled context ends a statement, not only the work between two.
func TestCancelDuringStatement(t *testing.T) {
	_, s := migrated(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := s.read(ctx, "count to a billion", func(c *conn, _ *source.Tables) error {
		return exec(c, "WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 1000000000) SELECT count(*) FROM i")
	})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// Rejects of any length do not pile up in one batch, and a read that goes on
// behind a timestamp that is no integer misses none between two that are.
func TestBigRejects(t *testing.T) {
	path, s := migrated(t)
	raw(t, path, fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 199)
		INSERT INTO timeseries (point_id, timestamp, value) SELECT 1, %d + n * 0.5, replace(hex(zeroblob(100000)), '00', 'x') FROM i`, d0.Start()))
	calls := 0
	seen := map[any]bool{}
	if _, err := s.Read(t.Context(), source.Query{Points: []int32{1}, Days: oneDay}, func(b *sample.Batch) error {
		calls++
		for _, r := range b.Rejects {
			if seen[r.Timestamp.V] {
				t.Errorf("%v comes twice", r.Timestamp.V)
			}
			seen[r.Timestamp.V] = true
		}
		return nil
	}); err != nil || len(seen) != 200 || calls < 4 {
		t.Errorf("%d rejects in %d calls, %v", len(seen), calls, err)
	}
}

func TestBatchBoundaries(t *testing.T) {
	for _, n := range []int64{99, 100, 101, 199, 200, 201} {
		_, s := migrated(t)
		s.batchRows = 100
		b := manyRows(1, n)
		b.PointID = append(b.PointID, 2)
		b.Append(d0.Start(), 1, 192, 0)
		if err := s.Load(t.Context(), nil, b); err != nil {
			t.Fatal(err)
		}
		if rows, _ := sourcetest.ReadAll(t, s, source.Query{Points: []int32{1, 2, 3}, Days: oneDay}); int64(len(rows)) != n+1 {
			t.Errorf("%d rows, want %d", len(rows), n+1)
		}
	}
}

// manyRows are per rows of each of the points 1 to n, spread over d0.
func manyRows(n int32, per int64) *sample.Batch {
	b := &sample.Batch{}
	for p := range n {
		for i := range per {
			b.PointID = append(b.PointID, p+1)
			b.Append(d0.Start()+i*utc.DayMillis/per, float64(p)+float64(i%100)*0.1+0.05, 192, 0)
		}
	}
	return b
}

const benchPoints = 1000

var benchDir string

// bench makes the database of the benchmarks once.
var bench = sync.OnceValues(func() (path string, err error) {
	if benchDir, err = os.MkdirTemp("", "bench"); err != nil {
		return "", err
	}
	path = filepath.Join(benchDir, "hot.db")
	s, err := Open(path, Options{Create: true})
	if err != nil {
		return "", err
	}
	defer s.Close()
	if _, err := s.Migrate(context.Background()); err != nil {
		return "", err
	}
	return path, s.Load(context.Background(), nil, manyRows(benchPoints, 1440))
})

func TestMain(m *testing.M) {
	code := m.Run()
	if benchDir != "" {
		os.RemoveAll(benchDir)
	}
	os.Exit(code)
}

func benchPath(b *testing.B) string {
	path, err := bench()
	if err != nil {
		b.Fatal(err)
	}
	return path
}

// BenchmarkRead reads a day of 1,000 points a minute, 1.44 M rows. raw is the
// same statements stepped through without looking at a column, the floor.
func BenchmarkRead(b *testing.B) {
	path := benchPath(b)
	ids := make([]int32, benchPoints)
	for i := range ids {
		ids[i] = int32(i + 1)
	}
	report := func(b *testing.B, n int64) {
		b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mrows/s")
	}
	b.Run("source", func(b *testing.B) {
		s := open(b, path, Options{})
		b.ReportAllocs()
		var n int64
		for b.Loop() {
			st, err := s.Read(b.Context(), source.Query{Points: ids, Days: oneDay}, func(*sample.Batch) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
			n += st.Rows
		}
		report(b, n)
	})
	b.Run("raw", func(b *testing.B) {
		c := raw(b, path, "")
		var n int64
		for b.Loop() {
			for _, id := range ids {
				st := c.Prep(readFrom)
				st.BindInt64(1, int64(id))
				st.BindInt64(2, d0.Start())
				st.BindInt64(3, d0.End())
				for {
					ok, err := st.Step()
					if err != nil {
						b.Fatal(err)
					}
					if !ok {
						break
					}
					n++
				}
				st.Reset()
			}
		}
		report(b, n)
	})
	b.Run("in-list", func(b *testing.B) {
		c := raw(b, path, "")
		list := strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ","), "[]")
		var n int64
		for b.Loop() {
			st := c.Prep("SELECT point_id, timestamp, value, quality, flags FROM timeseries WHERE point_id IN (" + list + ") AND timestamp >= ? AND timestamp < ? ORDER BY point_id, timestamp")
			st.BindInt64(1, d0.Start())
			st.BindInt64(2, d0.End())
			for {
				ok, err := st.Step()
				if err != nil {
					b.Fatal(err)
				}
				if !ok {
					break
				}
				n++
			}
			st.Reset()
		}
		report(b, n)
	})
}

func BenchmarkPoints(b *testing.B) {
	s := open(b, benchPath(b), Options{})
	for b.Loop() {
		if ps, _, err := s.Points(b.Context()); err != nil || len(ps) != benchPoints {
			b.Fatal(len(ps), err)
		}
	}
}

func BenchmarkList(b *testing.B) {
	s := open(b, benchPath(b), Options{})
	for b.Loop() {
		if ps, _, err := s.List(b.Context()); err != nil || len(ps) != benchPoints {
			b.Fatal(len(ps), err)
		}
	}
}

func BenchmarkClaimConfirm2000(b *testing.B) {
	_, s := migrated(b)
	var sl []source.Slice
	for p := range int32(2000) {
		sl = append(sl, source.Slice{Point: p, Day: d0})
	}
	b.Run("claim", func(b *testing.B) {
		for b.Loop() {
			if err := s.Claim(b.Context(), "run", sl); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("confirm", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if err := s.Claim(b.Context(), "run", sl); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if n, err := s.Confirm(b.Context(), "run", sl); err != nil || n != len(sl) {
				b.Fatal(n, err)
			}
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	rows := manyRows(50, 1440)
	_, s := migrated(b)
	for b.Loop() {
		for i := range rows.TS { // new ones each time
			rows.TS[i] += utc.DayMillis
		}
		if err := s.Load(b.Context(), nil, rows); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(rows.Len())/b.Elapsed().Seconds()/1e6, "Mrows/s")
}

// A chunk that fails is not done at all, and those before it are told.
func TestPruneFailsInTheMiddle(t *testing.T) {
	path, s := migrated(t)
	s.chunkRows = 20
	if err := s.Load(t.Context(), nil, manyRows(6, 10)); err != nil {
		t.Fatal(err)
	}
	var sls []source.Slice
	var cuts []source.Cut
	for id := int32(1); id <= 6; id++ {
		sls = append(sls, source.Slice{Point: id, Day: d0})
		cuts = append(cuts, source.Cut{Slice: sls[id-1], Run: "r", Rows: 10})
	}
	if err := s.Claim(t.Context(), "r", sls); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Confirm(t.Context(), "r", sls); err != nil || n != 6 {
		t.Fatal(n, err)
	}
	if err := sqlitex.ExecuteScript(raw(t, path, ""), "CREATE TRIGGER no AFTER DELETE ON timeseries WHEN OLD.point_id = 4 BEGIN SELECT raise(ABORT, 'not this one'); END", nil); err != nil {
		t.Fatal(err)
	}
	cut, rows, err := s.Prune(t.Context(), cuts)
	if err == nil || len(cut) != 2 || rows != 20 {
		t.Errorf("cut %v, %d rows, %v", cut, rows, err)
	}
	got, _ := sourcetest.ReadAll(t, s, source.Query{Points: []int32{1, 2, 3, 4, 5, 6}, Days: oneDay})
	marked := 0
	if err := s.Marks(t.Context(), []int32{1, 2, 3, 4, 5, 6}, oneDay, func(m source.Mark) {
		if m.State == source.Marked {
			marked++
		}
	}); err != nil || len(got) != 40 || marked != 4 {
		t.Errorf("%d rows and %d marks are left, %v", len(got), marked, err)
	}
}

func BenchmarkPrune(b *testing.B) {
	_, s := migrated(b)
	rows := manyRows(100, 1440)
	var sls []source.Slice
	var cuts []source.Cut
	for id := range int32(100) {
		sls = append(sls, source.Slice{Point: id + 1, Day: d0})
		cuts = append(cuts, source.Cut{Slice: sls[id], Run: "r", Rows: 1440})
	}
	for b.Loop() {
		b.StopTimer()
		err := s.Load(b.Context(), nil, rows)
		if err == nil {
			err = s.Claim(b.Context(), "r", sls)
		}
		if err == nil {
			_, err = s.Confirm(b.Context(), "r", sls)
		}
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if cut, n, err := s.Prune(b.Context(), cuts); err != nil || len(cut) != 100 || int(n) != rows.Len() {
			b.Fatal(len(cut), n, err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(rows.Len())/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkRestore writes new rows, and rows that are there already.
func BenchmarkRestore(b *testing.B) {
	for _, fresh := range []bool{true, false} {
		for _, keep := range []bool{true, false} {
			b.Run(fmt.Sprintf("new=%t/keep=%t", fresh, keep), func(b *testing.B) {
				_, s := migrated(b)
				rows := manyRows(100, 1440)
				for b.Loop() {
					if fresh {
						for i := range rows.TS {
							rows.TS[i] += utc.DayMillis
						}
					}
					if err := s.Restore(b.Context(), rows, keep); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*float64(rows.Len())/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}
