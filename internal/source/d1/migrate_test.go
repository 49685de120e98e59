package d1

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/source/sourcetest"
	"etl/internal/utc"
	"etl/sql"
)

func allMigrations() []string { return sql.Pending(nil, false) }

// must fails unless a condition holds in the database.
func must(t testing.TB, srv *cloudflaretest.Server, condition string) {
	t.Helper()
	srv.Exec(t, "DROP TABLE IF EXISTS checked; CREATE TABLE checked (ok INTEGER NOT NULL CHECK (ok = 1)); INSERT INTO checked SELECT ("+condition+"); DROP TABLE checked")
}

func TestMigrate(t *testing.T) {
	srv, s := serve(t, "", Options{})
	if _, _, err := s.Points(t.Context()); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.HintOf(err), "`etl migrate --source d1://"+cloudflaretest.Database+"`") {
		t.Errorf("reading before migrate: %v, hint %q", err, fault.HintOf(err))
	}
	if names, err := s.Pending(t.Context()); err != nil || !slices.Equal(names, allMigrations()) {
		t.Errorf("pending: %v, %v", names, err)
	}
	batches := 0
	srv.On(func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
		for _, text := range r.SQL {
			if low := strings.ToLower(text); strings.HasPrefix(low, "begin") || strings.Contains(low, "journal_mode") || strings.Contains(low, "pragma_") {
				t.Errorf("D1 forbids %q", text)
			}
			if strings.Contains(text, "d1_migrations (name)") {
				batches++
			}
		}
		return nil
	})
	if names, err := s.Migrate(t.Context()); err != nil || !slices.Equal(names, allMigrations()) || batches != len(names) {
		t.Fatalf("migrate: %v, %v, in %d batches", names, err, batches)
	}
	must(t, srv, fmt.Sprintf("SELECT count(*) = %d AND min(applied_at) > '2020' FROM d1_migrations", len(allMigrations())))
	if names, err := s.Migrate(t.Context()); err != nil || names != nil {
		t.Errorf("migrate again: %v, %v", names, err)
	}
	if ps, _, err := s.Points(t.Context()); err != nil || len(ps) != 0 {
		t.Errorf("points: %v, %v", ps, err)
	}
}

func TestMigrateTogether(t *testing.T) {
	srv, _ := serve(t, "CREATE TABLE timeseries (point_id INTEGER, timestamp INTEGER, value REAL)", Options{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var applied []string
	for range 4 {
		s := reopen(t, srv, Options{})
		wg.Go(func() {
			names, err := s.Migrate(t.Context())
			if err != nil {
				t.Errorf("migrate: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			applied = append(applied, names...)
		})
	}
	wg.Wait()
	slices.Sort(applied)
	if !slices.Equal(applied, allMigrations()) {
		t.Errorf("applied %v, want each once", applied)
	}
	must(t, srv, fmt.Sprintf("SELECT count(*) = %d FROM d1_migrations", len(allMigrations())))
}

// Every fault at every request of a migration of a database that other hands
// made: all is applied once.
func TestMigrateUnderFaults(t *testing.T) {
	const old = `CREATE TABLE points (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO points VALUES (1, 'a');
		CREATE TABLE timeseries (point_id INTEGER, timestamp INTEGER, value REAL); INSERT INTO timeseries VALUES (1, 5, 1.5)`
	requests, tried := 1, 0
	for at := 0; at < requests; at++ {
		for i, f := range cloudflaretest.Faults() {
			if testing.Short() && (i+at)%6 > 0 {
				continue
			}
			srv, s := serve(t, old, Options{})
			fired := false
			srv.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
				if n != at {
					return nil
				}
				fired = true
				return f.Fault
			})
			names, err := s.Migrate(t.Context())
			if err != nil || !slices.Equal(names, allMigrations()) || !fired {
				t.Errorf("%s at request %d (fired: %t): %v, %v", f.Name, at, fired, names, err)
			}
			if tried++; tried == 1 {
				requests = srv.Requests() // the first fault is a delay, which repeats none
			}
			srv.On(nil)
			must(t, srv, fmt.Sprintf("SELECT (SELECT count(*) FROM d1_migrations) = %d AND (SELECT value = 1.5 AND quality = 192 FROM timeseries) AND (SELECT name = 'a' AND site IS NULL FROM points)", len(allMigrations())))
			if info, err := s.Info(t.Context()); err != nil || !info.Ledger || info.ID == "" {
				t.Errorf("%s at request %d: info %+v, %v", f.Name, at, info, err)
			}
			srv.Close()
		}
	}
	t.Logf("%d faults tried", tried)
}

// A migration that fails leaves neither its statements nor its line, and those
// before it stay.
func TestMigrateIsAtomic(t *testing.T) {
	srv, s := serve(t, "CREATE VIEW archive_marks AS SELECT 1 AS done", Options{}) // 0002 can not make its table
	names, err := s.Migrate(t.Context())
	if !fault.Is(err, fault.Invalid) || !slices.Equal(names, []string{"0001_timeseries.sql"}) || !strings.Contains(err.Error(), sql.LedgerMigration) {
		t.Fatalf("migrate: %v, %v", names, err)
	}
	if p, err := s.Pending(t.Context()); err != nil || len(p) != len(allMigrations())-1 {
		t.Errorf("pending %v, %v", p, err)
	}
	must(t, srv, "SELECT count(*) = 0 FROM sqlite_schema WHERE name = 'archive_source'")
	srv.Exec(t, "DROP VIEW archive_marks")
	if names, err := s.Migrate(t.Context()); err != nil || len(names) != len(allMigrations())-1 {
		t.Errorf("migrate again: %v, %v", names, err)
	}
}

// What wrangler applied is not applied again, and wrangler would find what was
// applied here: wrangler and etl take turns.
func TestMigratedByWrangler(t *testing.T) {
	script := sql.BookTable + ";"
	for _, m := range sql.Migrations()[:2] {
		script += m.SQL + fmt.Sprintf("\nINSERT INTO \"d1_migrations\" (name) values ('%s');", m.Name)
	}
	srv, s := serve(t, script, Options{})
	if p, err := s.Pending(t.Context()); err != nil || !slices.Equal(p, allMigrations()[2:]) {
		t.Errorf("pending %v, %v", p, err)
	}
	if names, err := s.Migrate(t.Context()); err != nil || !slices.Equal(names, allMigrations()[2:]) {
		t.Errorf("migrate %v, %v", names, err)
	}
	must(t, srv, "SELECT group_concat(name) = '"+strings.Join(allMigrations(), ",")+"' FROM d1_migrations")
}

func TestUnfitTables(t *testing.T) {
	const points = "CREATE TABLE points (id INTEGER PRIMARY KEY, name TEXT);"
	const series = "CREATE TABLE timeseries (point_id INTEGER, timestamp INTEGER, value REAL, quality INTEGER, flags INTEGER"
	tests := []struct {
		name, schema, about string
		mendable            bool
	}{
		{"no tables", "CREATE TABLE x (y)", "no table points", true},
		{"no timeseries", points, "no table timeseries", true},
		{"no name", "CREATE TABLE points (id INTEGER PRIMARY KEY)", "points has no column name", false},
		{"no value", points + "CREATE TABLE timeseries (point_id INTEGER, timestamp INTEGER, quality, flags, PRIMARY KEY (point_id, timestamp))", "no column value", true},
		{"no timestamp", points + "CREATE TABLE timeseries (point_id INTEGER, ts INTEGER, value, quality, flags)", "no column timestamp", false},
		{"no key", points + series + ")", "no unique key", true},
		{"a partial key", points + series + "); CREATE UNIQUE INDEX u ON timeseries (point_id, timestamp) WHERE flags = 0", "no unique key", true},
		{"a key in the other order", points + series + ", PRIMARY KEY (timestamp, point_id)) WITHOUT ROWID", "no unique key", true},
		{"a key of three", points + series + ", PRIMARY KEY (point_id, timestamp, flags)) WITHOUT ROWID", "no unique key", true},
		{"a key on one", points + series + ", PRIMARY KEY (timestamp))", "no unique key", true},
		{"an index that is not unique", points + series + "); CREATE INDEX i ON timeseries (point_id, timestamp)", "no unique key", true},
		{"timestamps as text", points + "CREATE TABLE timeseries (point_id INTEGER, timestamp VARCHAR(30), value, quality, flags, PRIMARY KEY (point_id, timestamp))", "timestamp is declared VARCHAR(30)", false},
		{"ids as reals", points + "CREATE TABLE timeseries (point_id REAL, timestamp INTEGER, value, quality, flags, PRIMARY KEY (point_id, timestamp))", "point_id is declared REAL", false},
	}
	for _, tt := range tests {
		_, s := serve(t, tt.schema, Options{})
		_, _, err := s.Points(t.Context())
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.about) || !strings.Contains(fault.HintOf(err), "etl migrate --source d1://") {
			t.Errorf("%s: %v, hint %q", tt.name, err, fault.HintOf(err))
		}
		if _, err := s.Migrate(t.Context()); (err == nil) != tt.mendable || (err != nil && !fault.Is(err, fault.Invalid)) {
			t.Errorf("%s: migrate: %v", tt.name, err)
		}
		if _, _, err := s.Points(t.Context()); (err == nil) != tt.mendable {
			t.Errorf("%s: after migrate: %v", tt.name, err)
		}
	}
	// Other forms of a unique key are fit.
	for _, key := range []string{", UNIQUE (point_id, timestamp))", `); CREATE UNIQUE INDEX "it's a ""key""" ON timeseries (Point_ID, TIMESTAMP DESC)`} {
		_, s := serve(t, points+series+key, Options{})
		if _, _, err := s.Points(t.Context()); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// The tables as the architecture document has them, other columns beside, and
// everything that its loose types let in.
func TestForeignTables(t *testing.T) {
	srv, s := serve(t, fmt.Sprintf(`
		CREATE TABLE d1_migrations(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL);
		INSERT INTO d1_migrations (name) VALUES ('0001_initial_schema.sql');
		CREATE TABLE _cf_KV (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
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
			(1, NULL, 2.5, 192, 0), (NULL, %[1]d, 3.5, 192, 0), (NULL, NULL, 3.5, 192, 0), (2, -1, 1.5, 192, 0)`, d0.Start()), Options{})
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
		if err != nil || len(strays) != 2 || !slices.ContainsFunc(strays, func(r sample.Reject) bool { return r.Timestamp.V == nil && strings.Contains(r.Reason, "NULL") }) {
			t.Errorf("%s: strays %+v, %v", when, strays, err)
		}
	}
	check("as it was")
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	check("migrated")
	srv.Exec(t, "UPDATE points SET site = 'north' WHERE id = 1")
	if points, _, err := s.Points(t.Context()); err != nil || points[0].Site == nil || *points[0].Site != "north" {
		t.Errorf("a column that migrate added is not read: %+v, %v", points[0], err)
	}
	if info, err := s.Info(t.Context()); err != nil || !info.Ledger || info.ID == "" {
		t.Errorf("info %+v, %v", info, err)
	}
	must(t, srv, fmt.Sprintf("SELECT count(*) = %d FROM d1_migrations", 1+len(allMigrations())))
	for _, r := range []source.Run{{ID: "r", Status: "running", Started: time.Now()}, {ID: "r", Status: "done", Started: time.Now(), Finished: time.Now()}} {
		if err := s.Log(t.Context(), r); err != nil {
			t.Errorf("log: %v", err)
		}
	}
}

// Reading needs no migration where the tables are fit for it.
func TestReadsUnmigrated(t *testing.T) {
	_, s := serve(t, fmt.Sprintf(`CREATE TABLE points (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
		CREATE TABLE timeseries (point_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, value REAL, quality INTEGER, flags INTEGER, PRIMARY KEY (point_id, timestamp)) WITHOUT ROWID;
		INSERT INTO points VALUES (1, 'a'); INSERT INTO timeseries VALUES (1, %d, 1.5, 192, 0)`, d0.Start()), Options{ReadOnly: true})
	if rows, _ := sourcetest.ReadAll(t, s, source.Query{Points: []int32{1}, Days: oneDay}); len(rows) != 1 {
		t.Errorf("rows %v", rows)
	}
	if info, err := s.Info(t.Context()); err != nil || info.Ledger || info.ID != "" || info.Now.IsZero() {
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
		srv, s := serve(t, tt.schema, Options{})
		_, err := s.Migrate(t.Context())
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.about) || fault.HintOf(err) == "" {
			t.Fatalf("%s: %v", tt.name, err)
		}
		// The hint is SQL that mends it.
		_, fix, ok := strings.Cut(fault.HintOf(err), ": ")
		if !ok {
			fix = fault.HintOf(err)
		}
		srv.Exec(t, fix)
		if _, err := s.Migrate(t.Context()); err != nil {
			t.Errorf("%s: after the hint: %v", tt.name, err)
		}
	}
}
