package d1

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

// everything calls each method of a source that is not Read or Count.
func everything(t *testing.T, s *Source, points []int32) {
	t.Helper()
	ctx := t.Context()
	var sls []source.Slice
	for _, p := range points {
		sls = append(sls, source.Slice{Point: p, Day: d0})
	}
	window := utc.Days{From: d0 - 5, To: d0 + 5}
	for what, f := range map[string]func() error{
		"info":      func() error { _, err := s.Info(ctx); return err },
		"points":    func() error { _, _, err := s.Points(ctx); return err },
		"strays":    func() error { _, err := s.Strays(ctx, points, window); return err },
		"summaries": func() error { return s.Summaries(ctx, points, func(int32, source.Summary) {}) },
		"group":     func() error { _, err := s.Group(ctx, "g"); return err },
		"create":    func() error { _, err := s.CreatePoints(ctx, []string{"new", "p1"}); return err },
		"claim": func() error {
			err := s.Claim(ctx, "r", sls)
			if err == nil {
				_, err = s.Confirm(ctx, "r", sls)
			}
			return err
		},
		"revoke": func() error { _, err := s.Revoke(ctx, sls); return err },
		"prune": func() error {
			var cuts []source.Cut
			for _, sl := range sls {
				cuts = append(cuts, source.Cut{Slice: sl, Run: "r", Rows: 1})
			}
			_, _, err := s.Prune(ctx, cuts)
			return err
		},
		"restore": func() error {
			b := &sample.Batch{PointID: []int32{1}, Series: sample.Series{TS: []int64{5}, Value: []float64{1}, Quality: []uint8{1}, Flags: []uint16{1}}}
			if err := s.Restore(ctx, b, true); err != nil {
				return err
			}
			return s.Restore(ctx, b, false)
		},
		"restore points": func() error {
			return s.RestorePoints(ctx, []sample.Point{{ID: 1, Name: "p1"}, {ID: 9999, Name: "p9999"}})
		},
		"marks":   func() error { return s.Marks(ctx, points, window, func(source.Mark) {}) },
		"pruned":  func() error { return s.Pruned(ctx, points, window, func(source.Slice) {}) },
		"log":     func() error { return s.Log(ctx, source.Run{ID: "r", Status: "running"}) },
		"crashed": func() error { _, err := s.CloseCrashed(ctx, -time.Hour); return err },
	} {
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

const someRows = `INSERT INTO points (id, name) WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 40) SELECT n, 'p' || n FROM i;
	INSERT INTO timeseries (point_id, timestamp) SELECT id, %d + id FROM points; INSERT INTO timeseries (point_id, timestamp) VALUES (1, 5), (2.5, 7);
	INSERT INTO point_groups VALUES ('g', 1); INSERT INTO archive_trims SELECT id, %d FROM points;`

// No statement that these methods send scans or sorts a table that grows, and
// all are within D1's limits.
func TestOtherPlans(t *testing.T) {
	srv, s := migrated(t)
	srv.Exec(t, fmt.Sprintf(someRows, d0.Start(), d0))
	s.sizes = sizes{points: 7, ids: 7, named: 30, marks: 7, slices: 9, restore: 7, prune: 5}
	var mu sync.Mutex
	sent := map[string]bool{}
	srv.On(func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
		mu.Lock()
		defer mu.Unlock()
		for _, text := range r.SQL {
			sent[text] = true
		}
		return nil
	})
	var ids []int32
	for id := int32(1); id <= 40; id++ {
		ids = append(ids, id)
	}
	everything(t, s, ids)
	counts := []string{confirmedSQL, prunedSQL} // sent after an unknown outcome only
	for text := range sent {
		counts = append(counts, text)
	}

	c, err := sqlite.OpenConn(":memory:", sqlite.OpenReadWrite, sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := sqlitex.ExecuteScript(c, schema(), nil); err != nil {
		t.Fatal(err)
	}
	seeks := 0
	for _, text := range counts {
		if len(text) > 20_000 {
			t.Errorf("a statement of %d bytes: %.200s", len(text), text)
		}
		if strings.HasPrefix(text, "PRAGMA") {
			continue
		}
		st, _, err := c.PrepareTransient("EXPLAIN QUERY PLAN " + text)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		var plan []string
		for {
			if ok, err := st.Step(); err != nil || !ok {
				break
			}
			plan = append(plan, st.ColumnText(3))
		}
		st.Finalize()
		for _, line := range plan {
			if regexp.MustCompile(`^SCAN (timeseries|t|archive_marks|m|archive_trims|points|p)\b`).MatchString(line) {
				t.Errorf("%s\nscans: %s", text, line)
			}
			if strings.Contains(line, "TEMP B-TREE") && !strings.Contains(text, "DISTINCT") {
				t.Errorf("%s\nsorts: %s", text, line)
			}
			if regexp.MustCompile(`^SEARCH (timeseries|t|archive_marks|archive_trims) USING PRIMARY KEY \(point_id(=\?|[<>])`).MatchString(line) {
				seeks++
			}
		}
	}
	if len(counts) < 20 || seeks < 15 {
		t.Errorf("%d statements with %d seeks", len(counts), seeks)
	}
}

// Requests are what Cloudflare limits: how many it takes for 10,000 points.
func TestRequests(t *testing.T) {
	srv, _ := migrated(t)
	srv.Exec(t, fmt.Sprintf(strings.Replace(someRows, "n < 40", "n < 10000", 1), d0.Start(), d0))
	var ids []int32
	var sls []source.Slice
	for id := int32(1); id <= 10_000; id++ {
		ids = append(ids, id)
		sls = append(sls, source.Slice{Point: id, Day: d0})
	}
	s := reopen(t, srv, Options{})
	if _, err := s.inspected(t.Context(), "inspect"); err != nil {
		t.Fatal(err)
	}
	window := utc.Days{From: d0 - 35, To: d0 + 1}
	for _, op := range []struct {
		name string
		most int
		do   func() error
	}{
		{"info", 1, func() error { _, err := s.Info(t.Context()); return err }},
		{"points", 3, func() error {
			ps, _, err := s.Points(t.Context())
			if len(ps) != 10_000 {
				t.Errorf("%d points", len(ps))
			}
			return err
		}},
		{"strays", 2, func() error { _, err := s.Strays(t.Context(), ids, window); return err }},
		{"summaries", 1, func() error { return s.Summaries(t.Context(), ids, func(int32, source.Summary) {}) }},
		{"claim", 1, func() error { return s.Claim(t.Context(), "r", sls) }},
		{"confirm", 1, func() error { _, err := s.Confirm(t.Context(), "r", sls); return err }},
		{"marks", 1, func() error { return s.Marks(t.Context(), ids, window, func(source.Mark) {}) }},
		{"pruned", 1, func() error { return s.Pruned(t.Context(), ids, window, func(source.Slice) {}) }},
		{"log", 1, func() error { return s.Log(t.Context(), source.Run{ID: "r", Status: "done"}) }},
		{"close crashed", 1, func() error { _, err := s.CloseCrashed(t.Context(), time.Hour); return err }},
	} {
		srv.On(nil)
		began := time.Now()
		if err := op.do(); err != nil {
			t.Errorf("%s: %v", op.name, err)
		}
		if n := srv.Requests(); n > op.most {
			t.Errorf("%s took %d requests, want %d at most", op.name, n, op.most)
		}
		t.Logf("%s: %d requests, %v", op.name, srv.Requests(), time.Since(began).Round(time.Millisecond))
	}
}

// Text is what the table has, byte by byte, and numbers are what they are.
func TestPointsExact(t *testing.T) {
	srv, s := migrated(t)
	srv.Exec(t, `INSERT INTO points (id, name, site, system, equipment, unit, interval_ms, min_value, max_value, created_at) VALUES
		(1, CAST(x'61ff62' AS TEXT), CAST(x'610062' AS TEXT), '', x'6162', 17, 9007199254740993, -9e999, 9e999, 9223372036854775807),
		(2, CAST(x'61fe62' AS TEXT), '<&>"\', char(10), 'ü€😀', NULL, -9223372036854775808, 4.9e-324, 1.7976931348623157e308, 'x'),
		(3, x'61', NULL, NULL, NULL, NULL, 1.5, 'low', 0.1, NULL)`)
	ps, _, err := s.Points(t.Context())
	if err != nil || len(ps) != 3 {
		t.Fatalf("%v, %v", ps, err)
	}
	show := func(p sample.Point) string {
		out := fmt.Sprintf("%q", p.Name)
		for _, c := range []*string{p.Site, p.System, p.Equipment, p.Unit} {
			if c == nil {
				out += " nil"
			} else {
				out += fmt.Sprintf(" %q", *c)
			}
		}
		for _, c := range []*int64{p.IntervalMS, p.CreatedAt} {
			if c == nil {
				out += " nil"
			} else {
				out += fmt.Sprintf(" %d", *c)
			}
		}
		for _, c := range []*float64{p.MinValue, p.MaxValue} {
			if c == nil {
				out += " nil"
			} else {
				out += fmt.Sprintf(" %v", *c)
			}
		}
		return out
	}
	for i, want := range []string{
		`"a\xffb" "a\x00b" "" "ab" "17" 9007199254740993 9223372036854775807 -Inf +Inf`,
		`"a\xfeb" "<&>\"\\" "\n" "ü€😀" nil -9223372036854775808 nil 5e-324 1.7976931348623157e+308`,
		`"" nil nil nil nil nil nil nil 0.1`,
	} {
		if got := show(ps[i]); got != want {
			t.Errorf("point %d is %s, want %s", i+1, got, want)
		}
	}
}

// Ids that are there twice are noticed wherever a page ends.
func TestPointsTwice(t *testing.T) {
	for size := 1; size <= 6; size++ {
		_, s := serve(t, schema()+"DROP TABLE points; CREATE TABLE points (id, name TEXT); INSERT INTO points VALUES (1, 'a'), (2, 'b'), (3, 'c'), (NULL, 'x'), (2.5, 'x'), ('y', 'x'), (5000000000, 'x'), (4, 'd'), (4, 'e')", Options{})
		s.sizes.points = size
		if _, _, err := s.Points(t.Context()); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "the id 4 twice") || fault.HintOf(err) == "" {
			t.Errorf("pages of %d: %v", size, err)
		}
	}
	_, s := serve(t, schema()+"DROP TABLE points; CREATE TABLE points (id, name TEXT); INSERT INTO points VALUES (3, 'c'), (1, 'a'), (NULL, 'x'), (2.5, 'x'), ('y', 'x'), (-5000000000, 'x')", Options{})
	if ps, _, err := s.Points(t.Context()); err != nil || len(ps) != 2 || ps[0].Name != "a" || ps[1].Name != "c" {
		t.Errorf("%v, %v", ps, err)
	}
}

// Ids of any kind, in chunks of any size, are found as a scan of the table finds them.
func TestSkipScanModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	srv, s := migrated(t)
	for range 60 {
		ints, odd := map[int32]bool{}, 0
		script := "DELETE FROM timeseries;"
		for n := r.IntN(25); n > 0; n-- {
			id := int32(r.IntN(8) - 4)
			switch r.IntN(8) {
			case 0:
				id = []int32{math.MinInt32, math.MaxInt32}[r.IntN(2)]
			case 1, 2, 3:
				frac := fmt.Sprintf("%d + %g", id, []float64{0.25, 0.5, 0.75}[r.IntN(3)])
				script += fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (%s, %d);", frac, n)
				odd++
				continue
			case 4:
				script += fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (%s, %d);", []string{"3000000000", "-3000000000", "'x'", "x'00'", "9e999", "-9e999", "2147483647.5"}[r.IntN(7)], n)
				odd++
				continue
			}
			ints[id] = true
			script += fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (%d, %d);", id, n)
		}
		srv.Exec(t, script)
		s.sizes.ids = 1 + r.IntN(6)
		ps, rejects, err := s.Points(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range ps {
			if !ints[p.ID] || !p.Orphan || (i > 0 && ps[i-1].ID >= p.ID) {
				t.Fatalf("points %v of %v", ps, ints)
			}
		}
		if len(ps) != len(ints) || len(rejects) != odd {
			t.Fatalf("chunks of %d: %d points and %d rejects, want %d and %d, of\n%s", s.sizes.ids, len(ps), len(rejects), len(ints), odd, script)
		}
	}
}

// Rejects too large for an answer are fewer, not a failure.
func TestLargeRejects(t *testing.T) {
	srv := cloudflaretest.Start(t, filepath.Join(t.TempDir(), "hot.db"), cloudflaretest.Options{MaxAnswer: 1 << 20})
	srv.Exec(t, schema()+`WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 200)
		INSERT INTO timeseries (point_id, timestamp, value) SELECT 1, n, replace(hex(zeroblob(10000)), '0', 'x') FROM i`)
	s := reopen(t, srv, Options{})
	rejects, err := s.Strays(t.Context(), []int32{1}, oneDay)
	if err != nil || len(rejects) == 0 || len(rejects) > 60 {
		t.Fatalf("%d rejects, %v", len(rejects), err)
	}
	for _, r := range rejects {
		if r.Value.V != strings.Repeat("x", 20_000) {
			t.Fatalf("value %.80v", r.Value.V)
		}
	}
}

// An answer with other columns, and every fault that passes, at each request of
// each method that reads.
func TestReadsUnderFaults(t *testing.T) {
	srv, _ := migrated(t)
	srv.Exec(t, fmt.Sprintf(someRows, d0.Start(), d0)+"INSERT INTO archive_marks SELECT id, 19727, 'r', 1 FROM points")
	ids := []int32{1, 2, 3, 7, 40}
	window := utc.Days{From: d0 - 5, To: d0 + 5}
	ops := map[string]func(*Source) (any, error){
		"info": func(s *Source) (any, error) {
			i, err := s.Info(t.Context())
			return fmt.Sprint(i.ID, i.Ledger), err
		},
		"points": func(s *Source) (any, error) {
			ps, rejects, err := s.Points(t.Context())
			return fmt.Sprint(len(ps), rejects), err
		},
		"strays": func(s *Source) (any, error) {
			rejects, err := s.Strays(t.Context(), ids, window)
			return fmt.Sprint(rejects), err
		},
		"summaries": func(s *Source) (any, error) {
			out := ""
			err := s.Summaries(t.Context(), ids, func(id int32, sum source.Summary) { out += fmt.Sprint(id, sum) })
			return out, err
		},
		"group": func(s *Source) (any, error) {
			g, err := s.Group(t.Context(), "g")
			return fmt.Sprint(g), err
		},
		"marks": func(s *Source) (any, error) {
			out := ""
			err := s.Marks(t.Context(), ids, window, func(m source.Mark) { out += fmt.Sprint(m) })
			return out, err
		},
		"pruned": func(s *Source) (any, error) {
			out := ""
			err := s.Pruned(t.Context(), ids, window, func(sl source.Slice) { out += fmt.Sprint(sl) })
			return out, err
		},
		"pending": func(s *Source) (any, error) {
			names, err := s.Pending(t.Context())
			return fmt.Sprint(names), err
		},
	}
	small := sizes{points: 15, ids: 15, named: 3, marks: 2, slices: 2}
	tried := 0
	for name, do := range ops {
		s := reopen(t, srv, Options{})
		s.sizes = small
		srv.On(nil)
		want, err := do(s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		requests := srv.Requests()
		for at := range requests {
			for _, f := range cloudflaretest.Faults() {
				s := reopen(t, srv, Options{})
				s.sizes = small
				fired := false
				srv.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
					if n != at {
						return nil
					}
					fired = true
					return f.Fault
				})
				tried++
				if got, err := do(s); err != nil || got != want || !fired {
					t.Errorf("%s, %s at request %d (fired: %t): %v, %v; want %v", name, f.Name, at, fired, got, err, want)
				}
			}
			// Answers of another width, as no version of D1 should give.
			for _, rows := range []string{`[[1]]`, `[[1,2]]`, `[["x","y","z"]]`, `[[null,null,null,null]]`, `[[1.5,1.5,1.5,1.5,1.5]]`, `[[1,2,3,4,5,6,7,8,9,10]]`} {
				s := reopen(t, srv, Options{})
				s.sizes = small
				srv.On(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
					if n != at {
						return nil
					}
					return &cloudflaretest.Fault{Edit: func(b []byte) []byte {
						columns := `["a"` + strings.Repeat(`,"a"`, strings.Count(rows, ",")) + `]`
						return regexp.MustCompile(`"columns":\[[^\]]*\],"rows":\[.*?\]\}`).ReplaceAllLiteral(b, []byte(`"columns":`+columns+`,"rows":`+rows+`}`))
					}}
				})
				_, _ = do(s) // an error or not: it must not panic or go on for ever
			}
		}
		srv.On(nil)
	}
	t.Logf("%d faults tried", tried)
}

func TestCreatePointsRefuses(t *testing.T) {
	srv, s := migrated(t)
	for _, name := range []string{"a\xffb", "a\x00b"} {
		if _, err := s.CreatePoints(t.Context(), []string{"good", name}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	must(t, srv, "SELECT count(*) = 0 FROM points")
	srv.Exec(t, "INSERT INTO points (id, name) VALUES (3000000000, 'far')")
	if _, err := s.CreatePoints(t.Context(), []string{"far"}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "3000000000") {
		t.Errorf("an id that is no 32-bit integer: %v", err)
	}
	// Names of more bytes than a parameter has.
	srv.Exec(t, "DELETE FROM points; DELETE FROM sqlite_sequence")
	var names []string
	for i := range 300 {
		names = append(names, fmt.Sprintf("%d%s", i, strings.Repeat("<ü>", 2000)))
	}
	ids, err := s.CreatePoints(t.Context(), names)
	if err != nil || len(ids) != 300 || ids[names[0]] != 1 || ids[names[299]] != 300 {
		t.Errorf("%d ids, %v", len(ids), err)
	}
	if slices.ContainsFunc(names, func(n string) bool { return ids[n] == 0 }) {
		t.Error("a name has no id")
	}
}
