//go:build integration

package main

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/cloudflare"
	"etl/internal/fault"
	"etl/internal/fleet"
	"etl/internal/object"
	"etl/internal/object/s3"
	"etl/internal/testserver"
	"etl/internal/utc"
)

// openBucket opens a bucket with keys of its own, beside the program.
func openBucket(t *testing.T, b testserver.S3, prefix string) object.Store {
	t.Helper()
	o := s3.Options{Endpoint: b.URL, Region: b.Region, Bucket: b.Bucket, Prefix: prefix, AccessKey: b.AccessKey, Secret: b.Secret, PathStyle: true}
	if b.CAFile != "" {
		o.RootCAs = x509.NewCertPool()
		if !o.RootCAs.AppendCertsFromPEM(readFile(t, b.CAFile)) {
			t.Fatalf("%s holds no certificate", b.CAFile)
		}
	}
	s, err := s3.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	// Whoever looks at what is stored is not what is tested.
	return object.Retry(s, fault.Policy{})
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// runOverREST runs statements in a D1 database over REST, as a sensor's Worker would.
func runOverREST(t *testing.T, db *cloudflare.Database, a cloudflare.Access, stmts ...cloudflare.Statement) {
	t.Helper()
	if err := db.Raw(t.Context(), a, stmts, func(r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestIntegrationAccount archives more than a million rows from Cloudflare's own
// D1 into real S3 services, over TLS, by the program as it is: a backfill that is
// killed and run again, then a nightly with late rows that came over REST. What
// is archived is compared, row by row, with the SQLite file underneath.
func TestIntegrationAccount(t *testing.T) {
	for _, tt := range []struct {
		name string
		// store gives the bucket, its place in etl's words, and what etl has to know.
		store func(t *testing.T, cf *testserver.Cloudflare) (b testserver.S3, place string, env []string)
	}{
		{"R2", func(t *testing.T, cf *testserver.Cloudflare) (testserver.S3, string, []string) {
			// Its keys are made from the API token.
			return cf.R2, "r2://" + cf.R2.Bucket + "/history?endpoint=" + cf.R2.URL, nil
		}},
		{"versitygw", func(t *testing.T, _ *testserver.Cloudflare) (testserver.S3, string, []string) {
			b := *testserver.Versitygw(t, testserver.Options{TLS: true})
			return b, fmt.Sprintf("s3://%s/history?endpoint=%s&region=%s", b.Bucket, b.URL, b.Region),
				[]string{"AWS_ACCESS_KEY_ID=" + b.AccessKey, "AWS_SECRET_ACCESS_KEY=" + b.Secret}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cf := testserver.Miniflare(t, testserver.Options{TLS: true})
			bucket, where, env := tt.store(t, cf)
			p := &place{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)),
				file: cf.SQLitePath, bucket: openBucket(t, bucket, "history")}
			ca := filepath.Join(p.dir, "ca.pem")
			p.must(os.WriteFile(ca, append(readFile(t, cf.CAFile), readFile(t, bucket.CAFile)...), 0o600))
			p.env = append([]string{
				"CLOUDFLARE_ACCOUNT_ID=" + cf.Account, "CLOUDFLARE_API_TOKEN=" + cf.Token, "CLOUDFLARE_API_BASE_URL=" + cf.URL, "ETL_CA_FILE=" + ca,
				"ETL_SOURCE=d1://" + cf.DatabaseID, "ETL_STORE=" + where,
			}, env...)

			o := fleet.Demo()
			o.Days = 15
			f, err := fleet.New(o)
			p.must(err)
			last := f.Days().To - 1
			at := func(d utc.Day) string { return d.Time().Add(2 * time.Hour).Format(time.RFC3339) }
			p.now = at(last)

			if r := p.ok("migrate"); !strings.Contains(r.stdout, "applied 0001_timeseries.sql") || !strings.Contains(r.stderr, "--bookmark=") {
				t.Fatal(r)
			}
			rows, err := f.WriteSQLite(t.Context(), p.db(), f.Days(), fleet.WriteOptions{})
			p.must(err)
			if rows < 1_000_000 {
				t.Fatalf("%d rows, want a million", rows)
			}
			p.conn = p.open()
			// The clock of this machine is the one that a check compares with D1's.
			check := p.command("config", "--check")
			check.Env = append(check.Env, "ETL_NOW=")
			if r := finish(check); r.code != 0 || !strings.Contains(r.stdout, "Nothing is missing.") {
				t.Fatal(r)
			}

			// The backfill, killed in the middle of it, then to its end.
			all := []string{"backfill", "--from", f.Days().From.String(), "--to", last.String(), "--json"}
			cmd := p.command(all...)
			cmd.Stdout, cmd.Stderr = nil, nil
			p.must(cmd.Start())
			timer := time.AfterFunc(2*time.Second+time.Duration(p.rng.IntN(2000))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			err = cmd.Wait()
			timer.Stop()
			t.Logf("the first backfill: %v", err)
			p.safe()
			start := time.Now()
			r := p.ok(all...).report(t)
			t.Logf("the second one: %d samples of %d point-days in %v; %d requests to D1, %d rows read, %d written",
				r.SamplesRead, r.PointDays, time.Since(start).Round(time.Millisecond), r.Billed.Requests, r.Billed.RowsRead, r.Billed.RowsWritten)
			if r.Billed.Requests == 0 || r.Billed.RowsRead < r.SamplesRead {
				t.Errorf("billed %+v for %d samples", r.Billed, r.SamplesRead)
			}
			hot, today := p.hot(), make(map[key]row)
			for k, v := range hot {
				if utc.DayOf(k.ts) == last {
					today[k] = v
					delete(hot, k)
				}
			}
			cold, _ := p.cold()
			same(t, cold, hot)
			p.safe()

			// A day passes, and rows of earlier days arrive.
			p.now = at(last + 1)
			c, err := cloudflare.New(cf.Account, cf.Token, cloudflare.Options{URL: cf.URL, HTTP: testserver.Client(t, cf.CAFile), Rate: 1000, Burst: 1000})
			p.must(err)
			type sample struct {
				Point int32   `json:"p"`
				TS    int64   `json:"t"`
				Value float64 `json:"v"`
			}
			var late []sample
			for _, l := range f.Late() {
				for i, ts := range l.Rows.TS {
					if v := l.Rows.Value[i]; v == v && utc.DayOf(ts) < last {
						late = append(late, sample{l.Point, ts, v})
					}
				}
			}
			body, err := json.Marshal(late)
			p.must(err)
			runOverREST(t, c.Database(cf.DatabaseID), cloudflare.Idempotent, cloudflare.Statement{
				SQL: `INSERT INTO timeseries (point_id, timestamp, value) SELECT value->>'p', value->>'t', value->>'v' FROM json_each(?1) WHERE true
					ON CONFLICT DO UPDATE SET value = excluded.value, quality = excluded.quality, flags = excluded.flags`, Params: []string{string(body)},
			})
			start = time.Now()
			r = p.ok("archive", "--json").report(t)
			t.Logf("the nightly: %d samples in %v; %+v", r.SamplesRead, time.Since(start).Round(time.Millisecond), r.Billed)
			if int(r.SamplesAdded) <= len(today) || r.SamplesReplaced == 0 {
				t.Errorf("%d rows were added and %d corrected, the day alone has %d; %d rows were late", r.SamplesAdded, r.SamplesReplaced, len(today), len(late))
			}
			cold, _ = p.cold()
			same(t, cold, p.hot())
			p.settled(f.Days().From.String(), (last + 1).String(), o.Points)
		})
	}
}

// olderTables are a database that was made by the older design, with a year of
// its habits: an unmanaged log, text among numbers, a trigger that deletes by age.
const olderTables = `
CREATE TABLE d1_migrations (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL);
INSERT INTO d1_migrations (name) VALUES ('001_initial_schema.sql');
CREATE TABLE points (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, site TEXT, system TEXT, equipment TEXT, unit TEXT, created_at INTEGER);
CREATE INDEX idx_points_hierarchy ON points (site, system, equipment);
CREATE TABLE timeseries (point_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, value REAL, quality INTEGER DEFAULT 192, flags INTEGER DEFAULT 0,
	PRIMARY KEY (point_id, timestamp), FOREIGN KEY (point_id) REFERENCES points (id));
CREATE INDEX idx_timeseries_point_time_desc ON timeseries (point_id, timestamp DESC, value, quality);
CREATE INDEX idx_timeseries_bad_quality ON timeseries (timestamp, point_id) WHERE quality < 192;
CREATE INDEX idx_timeseries_alarms ON timeseries (timestamp, point_id) WHERE (flags & 1) = 1;
CREATE VIEW v_latest_values AS SELECT point_id, max(timestamp) AS timestamp, value, quality, flags FROM timeseries GROUP BY point_id;
CREATE TABLE archive_state (id INTEGER PRIMARY KEY AUTOINCREMENT, archived_at INTEGER NOT NULL, point_id INTEGER, records_archived INTEGER, status TEXT);
INSERT INTO archive_state (archived_at, records_archived, status) VALUES (1704412800000, 1440, 'completed');
INSERT INTO points (name, site, system) SELECT 'Building1.HVAC.Zone' || value || '.Temperature', 'Building1', 'HVAC' FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 20) SELECT value FROM n);
INSERT INTO timeseries (point_id, timestamp, value) SELECT p.id, unixepoch('2024-01-20')*1000 + n.value*900000, iif(n.value % 50 = 0, NULL, p.id + n.value/7.0)
	FROM points p, (WITH RECURSIVE n(value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n WHERE value < 19*96 - 1) SELECT value FROM n) n;
UPDATE timeseries SET value = 'broken' WHERE point_id = 3 AND timestamp = unixepoch('2024-01-22')*1000;
CREATE TRIGGER tr_timeseries_retention AFTER INSERT ON timeseries BEGIN
	DELETE FROM timeseries WHERE timestamp < (NEW.timestamp - 2592000000) AND ABS(RANDOM() % 1000) = 0; END;`

// TestIntegrationOlderDatabase brings a database of the older design, in
// Cloudflare's own D1, to the schema of today: no row changes or leaves, what
// deletes by age is gone, and the days are archived.
func TestIntegrationOlderDatabase(t *testing.T) {
	cf := testserver.Miniflare(t, testserver.Options{})
	p := &place{t: t, dir: t.TempDir(), now: "2024-02-08T02:00:00Z", file: cf.SQLitePath, bucket: openBucket(t, cf.R2, "")}
	p.env = []string{"CLOUDFLARE_ACCOUNT_ID=" + cf.Account, "CLOUDFLARE_API_TOKEN=" + cf.Token, "CLOUDFLARE_API_BASE_URL=" + cf.URL,
		"ETL_SOURCE=d1://" + cf.DatabaseID, "ETL_STORE=r2://" + cf.R2.Bucket + "?endpoint=" + cf.R2.URL}
	p.conn = p.open()
	p.must(sqlitex.ExecuteScript(p.conn, olderTables, nil))
	table := func() (rows []string) {
		p.must(sqlitex.Execute(p.conn, "SELECT point_id, timestamp, typeof(value), value, quality, flags FROM timeseries ORDER BY 1, 2", &sqlitex.ExecOptions{ResultFunc: func(st *sqlite.Stmt) error {
			var r []string
			for i := range st.ColumnCount() {
				r = append(r, st.ColumnText(i))
			}
			rows = append(rows, strings.Join(r, "|"))
			return nil
		}}))
		return rows
	}
	before := table()
	if len(before) != 20*19*96 {
		t.Fatalf("%d rows", len(before))
	}

	if r := p.ok("migrate", "--dry-run"); !strings.Contains(r.stdout, "would apply 0001_timeseries.sql") || !slices.Equal(table(), before) {
		t.Fatal(r)
	}
	// The log of the older Worker has no line without an end: this is said, and how to make way.
	r := p.etl("migrate")
	const way = "ALTER TABLE archive_state RENAME TO archive_state_before"
	if r.code != fault.ExitError || !strings.Contains(r.stderr, "archive_state.archived_at") || !strings.Contains(r.stderr, way) || !slices.Equal(table(), before) {
		t.Fatal(r)
	}
	p.exec(way)
	r = p.ok("migrate")
	if !strings.Contains(r.stdout, "applied 0003_retention.sql") || !strings.Contains(r.stderr, "--bookmark=") {
		t.Fatal(r)
	}
	if !slices.Equal(table(), before) {
		t.Fatal("migrate changed rows")
	}
	if r := p.ok("migrate"); !strings.Contains(r.stdout, "is up to date") {
		t.Fatal(r)
	}
	logged := 0
	p.must(sqlitex.Execute(p.conn, "SELECT records_archived FROM archive_state_before WHERE status = 'completed'", &sqlitex.ExecOptions{ResultFunc: func(st *sqlite.Stmt) error {
		logged = st.ColumnInt(0)
		return nil
	}}))
	if logged != 1440 {
		t.Errorf("the log of older runs says %d", logged)
	}

	// Five thousand inserts a year on: the older trigger would have taken rows of
	// January, this one takes none, for nothing is archived.
	p.exec(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 4999)
		INSERT INTO timeseries (point_id, timestamp, value) SELECT 1, unixepoch('2024-03-20')*1000 + i, i FROM n`)
	p.exec("DELETE FROM timeseries WHERE timestamp >= unixepoch('2024-03-20')*1000")
	if !slices.Equal(table(), before) {
		t.Fatal("rows left that are archived nowhere")
	}

	if r := p.ok("archive", "--json").report(t); r.SamplesAdded != int64(len(before)-1) || r.SamplesRejected != 1 {
		t.Errorf("archive: %+v, want %d rows and one reject", r, len(before)-1)
	}
	hot := p.hot()
	delete(hot, key{3, mustDay("2024-01-22").Start()}) // the text
	cold, _ := p.cold()
	same(t, cold, hot)
	if r := p.ok("verify", "--deep"); !strings.Contains(r.stdout, "whole: no findings") {
		t.Error(r)
	}
}
