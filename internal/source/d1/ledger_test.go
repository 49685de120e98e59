package d1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

// late is a line on which requests get lost: D1 executes them later, before or
// instead of an answer.
type late struct {
	http.RoundTripper
	mu      sync.Mutex
	lose    func(body string) (done, again bool) // nil loses nothing
	waiting []*http.Request
}

var errLost = errors.New("the line is dead")

func (l *late) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	copied := func() *http.Request {
		c := r.Clone(r.Context())
		c.Body = io.NopCloser(bytes.NewReader(body))
		return c
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lose != nil {
		done, again := l.lose(string(body))
		if done {
			resp, err := l.RoundTripper.RoundTrip(copied())
			if err == nil {
				resp.Body.Close()
			}
			return nil, errLost
		}
		if again {
			l.waiting = append(l.waiting, copied())
			return nil, errLost
		}
	}
	return l.RoundTripper.RoundTrip(copied())
}

// arrive lets D1 execute the i-th of the requests that wait.
func (l *late) arrive(t *testing.T, i int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.waiting[i].Clone(t.Context())
	r.Body = l.waiting[i].Body
	l.waiting = slices.Delete(l.waiting, i, i+1)
	resp, err := l.RoundTripper.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

// overLate opens a source of the server over such a line.
func overLate(t *testing.T, srv *cloudflaretest.Server, o Options) (*late, *Source) {
	t.Helper()
	line := &late{RoundTripper: http.DefaultTransport.(*http.Transport).Clone()}
	c, err := cloudflare.New(cloudflaretest.Account, cloudflaretest.Token, cloudflare.Options{
		URL: srv.URL, HTTP: &http.Client{Transport: line}, Rate: 10_000, Burst: 10_000,
		Retry: fault.Policy{Base: time.Millisecond, Cap: time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	return line, Open(c.Database(cloudflaretest.Database), o)
}

func marksOf(t testing.TB, s *Source, points ...int32) map[source.Slice]source.Mark {
	t.Helper()
	got := map[source.Slice]source.Mark{}
	if err := s.Marks(t.Context(), points, utc.Days{From: d0 - 10, To: d0 + 10}, func(m source.Mark) { got[m.Slice] = m }); err != nil {
		t.Fatal(err)
	}
	return got
}

// A claim whose reply was lost arrives again after its repeat, and after a row
// took the repeat away: it is never confirmed.
func TestLateClaim(t *testing.T) {
	srv, _ := migrated(t)
	line, s := overLate(t, srv, Options{})
	a, b := source.Slice{Point: 1, Day: d0}, source.Slice{Point: 2, Day: d0}
	lost := 0
	line.lose = func(body string) (bool, bool) {
		if strings.Contains(body, "REPLACE INTO archive_marks") && lost == 0 {
			lost++
			return false, true
		}
		return false, false
	}
	if err := s.Claim(t.Context(), "r", []source.Slice{a, b}); err != nil {
		t.Fatal(err)
	}
	if m := marksOf(t, s, 1, 2); m[a].Run != "r~2" || m[b].Run != "r~2" || lost != 1 {
		t.Fatalf("marks %v", m)
	}
	srv.Exec(t, fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (1, %d)", d0.Start())) // takes the claim of a away
	line.arrive(t, 0)
	if m := marksOf(t, s, 1, 2); m[a].Run != "r" || m[b].Run != "r" {
		t.Fatalf("marks %v, want those of the late claim", m)
	}
	if n, err := s.Confirm(t.Context(), "r", []source.Slice{a, b}); err != nil || n != 0 {
		t.Errorf("confirmed %d, %v", n, err)
	}
	// The run goes on, and its claims from now on are good.
	if err := s.Claim(t.Context(), "r", []source.Slice{a}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Confirm(t.Context(), "r", []source.Slice{a}); err != nil || n != 1 {
		t.Errorf("confirmed %d, %v", n, err)
	}
	if m := marksOf(t, s, 1, 2); m[a].State != source.Marked || m[b].State != source.Claimed {
		t.Errorf("marks %v", m)
	}
}

// A claim that failed is confirmed by no claim of the same run from before.
func TestFailedClaimAgain(t *testing.T) {
	srv, _ := migrated(t)
	line, s := overLate(t, srv, Options{})
	slice := []source.Slice{{Point: 1, Day: d0}}
	if err := s.Claim(t.Context(), "r", slice); err != nil {
		t.Fatal(err)
	}
	line.lose = func(body string) (bool, bool) { return false, strings.Contains(body, "REPLACE INTO archive_marks") }
	if err := s.Claim(t.Context(), "r", slice); !fault.Is(err, fault.Unknown) || len(line.waiting) != repeats {
		t.Fatalf("%d attempts, %v", len(line.waiting), err)
	}
	line.lose = nil
	srv.Exec(t, fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (1, %d)", d0.Start()))
	line.arrive(t, 0) // the one that signs as the first claim did
	if n, err := s.Confirm(t.Context(), "r", slice); err != nil || n != 0 {
		t.Errorf("confirmed %d, %v", n, err)
	}
}

// INVARIANT: a mark says that the slice was archived with all of its rows, on a
// line on which any request may get lost and be executed at any later time.
func TestLedgerOverLateLine(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	lost, arrived, marked := 0, 0, 0
	for range 12 {
		srv, _ := migrated(t)
		line, s := overLate(t, srv, Options{})
		s.sizes.slices = 2
		runs := []*Source{s}
		if _, other := overLate(t, srv, Options{}); r.IntN(2) == 0 {
			runs = append(runs, other)
		}
		var all []source.Slice
		version, archived := map[source.Slice]int{}, map[source.Slice]int{}
		for p := int32(1); p <= 2; p++ {
			for d := d0; d < d0+2; d++ {
				all = append(all, source.Slice{Point: p, Day: d})
			}
		}
		ts := int64(0)
		arrive := func(sl source.Slice) {
			ts++
			srv.Exec(t, fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp) VALUES (%d, %d)", sl.Point, sl.Day.Start()+ts))
			version[sl]++
		}
		line.lose = func(body string) (bool, bool) {
			if !strings.Contains(body, "archive_marks") || r.IntN(3) > 0 {
				return false, false
			}
			lost++
			return r.IntN(3) == 0, true
		}
		check := func(after string) {
			t.Helper()
			for sl, m := range marksOf(t, runs[len(runs)-1], 1, 2) {
				if m.State == source.Marked && archived[sl] != version[sl] {
					t.Fatalf("after %s: %v is marked with version %d, the rows are of version %d", after, m, archived[sl], version[sl])
				}
				if m.State == source.Marked {
					marked++
				}
			}
		}
		// between is what others do at any moment of a run.
		between := func() {
			for r.IntN(2) == 0 {
				if r.IntN(3) == 0 {
					arrive(all[r.IntN(len(all))])
					check("a row")
				} else if n := len(line.waiting); n > 0 {
					arrived++
					line.arrive(t, r.IntN(n))
					check("a late request")
				}
			}
		}
		for step := range 25 {
			who := r.IntN(len(runs))
			id := fmt.Sprint("run", who, step/10) // the same for several
			var sls []source.Slice
			for _, sl := range all {
				if r.IntN(2) == 0 {
					sls = append(sls, sl)
				}
			}
			between()
			err := runs[who].Claim(t.Context(), id, sls)
			between()
			if err != nil {
				if !fault.Is(err, fault.Unknown) && !fault.Is(err, fault.Transient) {
					t.Fatal(err)
				}
				continue // a run does not archive what it could not claim
			}
			extracted := map[source.Slice]int{}
			for _, sl := range sls {
				extracted[sl] = version[sl]
				if r.IntN(4) == 0 {
					between()
				}
			}
			if r.IntN(8) == 0 {
				continue // died, or its manifest conflicts
			}
			for sl, v := range extracted {
				archived[sl] = max(archived[sl], v)
			}
			between()
			n, err := runs[who].Confirm(t.Context(), id, sls)
			if err != nil && !fault.Is(err, fault.Unknown) && !fault.Is(err, fault.Transient) {
				t.Fatal(err)
			}
			if n > len(sls) {
				t.Fatalf("confirmed %d of %d", n, len(sls))
			}
			check("a confirmation")
		}
	}
	t.Logf("%d requests lost, %d arrived late, %d marks checked", lost, arrived, marked)
	if lost == 0 || arrived == 0 || marked == 0 {
		t.Error("nothing was tried")
	}
}

// A line of the log that D1 writes late does not overwrite a newer one.
func TestLateLog(t *testing.T) {
	srv, _ := migrated(t)
	line, s := overLate(t, srv, Options{})
	run := source.Run{ID: "r", Command: "archive", Status: "running", Started: time.UnixMilli(1_700_000_000_000)}
	first := true
	line.lose = func(body string) (bool, bool) {
		if strings.Contains(body, "INSERT INTO archive_state") && first {
			first = false
			return false, true
		}
		return false, false
	}
	if err := s.Log(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond)
	run.Status, run.Finished = "done", time.UnixMilli(1_700_000_005_000)
	if err := s.Log(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	line.arrive(t, 0)
	srv.Exec(t, "CREATE TABLE checked (ok CHECK (ok = 1)); INSERT INTO checked SELECT status = 'done' AND archived_at = 1700000005000 FROM archive_state")
}

// Options.Now is the clock of all that is written; without it D1's is.
func TestClock(t *testing.T) {
	srv, s := migrated(t)
	info, err := s.Info(t.Context())
	if d := time.Since(info.Now); err != nil || d < -time.Minute || d > time.Minute { // the server runs on this computer
		t.Errorf("info %+v, %v", info, err)
	}
	at := time.UnixMilli(1_700_000_000_000)
	s = reopen(t, srv, Options{Now: func() time.Time { return at }})
	if info, err := s.Info(t.Context()); err != nil || !info.Now.Equal(at) {
		t.Errorf("info %+v, %v", info, err)
	}
	if err := s.Log(t.Context(), source.Run{ID: "r", Status: "running", Started: at}); err != nil {
		t.Fatal(err)
	}
	srv.Exec(t, "CREATE TABLE checked (ok CHECK (ok = 1)); INSERT INTO checked SELECT heartbeat_at = 1700000000000 FROM archive_state")
	at = at.Add(time.Hour)
	if runs, err := s.CloseCrashed(t.Context(), time.Minute); err != nil || !slices.Equal(runs, []string{"r"}) {
		t.Errorf("closed %q, %v", runs, err)
	}
}

// Every fault at every request of every method that writes: the result is right,
// or the error says what is known.
func TestWritesUnderFaults(t *testing.T) {
	slice := []source.Slice{{Point: 1, Day: d0}, {Point: 2, Day: d0 + 1}, {Point: 3, Day: d0}}
	run := source.Run{ID: "r", Status: "running", Started: time.UnixMilli(5)}
	ctx := t.Context()
	ops := []struct {
		name   string
		before string // with the schema
		do     func(*Source) (string, error)
	}{
		{"claim", "", func(s *Source) (string, error) { return "", s.Claim(ctx, "r", slice) }},
		{"claim and confirm", "", func(s *Source) (string, error) {
			if err := s.Claim(ctx, "r", slice); err != nil {
				return "", err
			}
			n, err := s.Confirm(ctx, "r", slice)
			if err == nil && n == 3 {
				for _, m := range marksOf(t, s, 1, 2, 3) {
					if m.State != source.Marked {
						n = -1
					}
				}
			}
			return fmt.Sprint(n), err
		}},
		{"log", "", func(s *Source) (string, error) { return "", s.Log(ctx, run) }},
		{"close crashed", "INSERT INTO archive_state (run, status, heartbeat_at) VALUES ('a', 'running', 5), ('b', 'done', 5)", func(s *Source) (string, error) {
			runs, err := s.CloseCrashed(ctx, time.Minute)
			return fmt.Sprint(runs), err
		}},
		{"create points", "INSERT INTO points (id, name) VALUES (7, 'b')", func(s *Source) (string, error) {
			ids, err := s.CreatePoints(ctx, []string{"a", "b", "c", "a"})
			return fmt.Sprint(ids), err
		}},
		{"revoke", marked(7, 1), func(s *Source) (string, error) {
			n, err := s.Revoke(ctx, slice)
			return fmt.Sprint(n, marksOf(t, s, 1, 2, 3)), err
		}},
		{"prune", marked(7, 1), func(s *Source) (string, error) {
			s.sizes.prune = 14 // two chunks
			cuts := []source.Cut{{Slice: slice[0], Run: "r", Rows: 7}, {Slice: slice[1], Run: "r", Rows: 7}, {Slice: slice[2], Run: "r", Rows: 8}}
			for id := int32(4); id <= 5; id++ {
				cuts = append(cuts, source.Cut{Slice: source.Slice{Point: id, Day: d0}, Run: "r", Rows: 7})
			}
			cut, rows, err := s.Prune(ctx, cuts)
			if err != nil {
				return "", err
			}
			return fmt.Sprint(cut, rows, marksOf(t, s, 1, 2, 3, 4, 5), held(t, s)), nil
		}},
		{"restore", "INSERT INTO timeseries (point_id, timestamp, value) VALUES (1, 1704412800000, 9)", func(s *Source) (string, error) {
			s.sizes.restore = 10
			b := someSamples(25)
			if err := s.Restore(ctx, b, true); err != nil {
				return "", err
			}
			kept := held(t, s)
			err := s.Restore(ctx, b, false)
			return kept + held(t, s), err
		}},
		{"restore points", "INSERT INTO points (id, name) VALUES (7, 'b')", func(s *Source) (string, error) {
			if err := s.RestorePoints(ctx, []sample.Point{{ID: 7, Name: "b"}, {ID: 3, Name: "c", MinValue: new(0.1)}}); err != nil {
				return "", err
			}
			ps, _, err := s.Points(ctx)
			return fmt.Sprint(len(ps), ps[0].Name, *ps[0].MinValue, ps[1].Name), err
		}},
		{"migrate", "DELETE FROM archive_marks; DROP TRIGGER tr_timeseries_insert_unmarks", func(s *Source) (string, error) {
			_, err := s.Migrate(ctx)
			if err != nil {
				return "", err
			}
			pending, err := s.Pending(ctx)
			return fmt.Sprint(pending), err
		}},
	}
	tried := 0
	for _, op := range ops {
		want := ""
		requests := 0
		srv, _ := serve(t, schema(), Options{})
		try := func(plan func(int, cloudflaretest.Request) *cloudflaretest.Fault) (string, error) {
			srv.Exec(t, "DROP TABLE IF EXISTS d1_migrations; DELETE FROM points; DELETE FROM sqlite_sequence; DELETE FROM archive_state; DELETE FROM timeseries; DELETE FROM archive_trims;"+schema()+op.before)
			srv.On(plan)
			defer srv.On(nil)
			got, err := op.do(reopen(t, srv, Options{}))
			requests = srv.Requests()
			return got, err
		}
		want, err := try(nil)
		if err != nil {
			t.Fatalf("%s: %v", op.name, err)
		}
		for at := range requests {
			for _, f := range cloudflaretest.Faults() {
				tried++
				fired := false
				got, err := try(func(n int, _ cloudflaretest.Request) *cloudflaretest.Fault {
					if n != at {
						return nil
					}
					fired = true
					return f.Fault
				})
				if err != nil || got != want || !fired {
					t.Errorf("%s, %s at request %d (fired: %t): %q, %v; want %q", op.name, f.Name, at, fired, got, err, want)
				}
			}
		}
	}
	t.Logf("%d faults tried", tried)
}

// A dead line ends a write after some attempts, with an outcome that is unknown.
func TestWriteOfUnknownOutcome(t *testing.T) {
	srv, s := migrated(t)
	srv.On(func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
		if len(r.SQL) > 1 {
			return &cloudflaretest.Fault{Reset: true, Ran: true}
		}
		return nil
	})
	slice := []source.Slice{{Point: 1, Day: d0}}
	if err := s.Claim(t.Context(), "r", slice); !fault.Is(err, fault.Unknown) || srv.Requests() > 20 {
		t.Errorf("claim: %v after %d requests", err, srv.Requests())
	}
	srv.On(nil)
	if n, err := s.Confirm(t.Context(), "r", slice); err != nil || n != 0 {
		t.Errorf("a claim that is not known to be one is confirmed: %d, %v", n, err)
	}
}

func TestReadOnlyAndDenied(t *testing.T) {
	srv, _ := migrated(t)
	slice := []source.Slice{{Point: 1, Day: d0}}
	writes := func(s *Source) map[string]error {
		_, confirm := s.Confirm(t.Context(), "r", slice)
		_, crashed := s.CloseCrashed(t.Context(), 0)
		_, create := s.CreatePoints(t.Context(), []string{"x"})
		_, migrate := s.Migrate(t.Context())
		_, revoke := s.Revoke(t.Context(), slice)
		_, _, prune := s.Prune(t.Context(), []source.Cut{{Slice: slice[0], Run: "r", Rows: 1}})
		return map[string]error{"claim": s.Claim(t.Context(), "r", slice), "confirm": confirm, "close crashed": crashed, "create points": create,
			"revoke": revoke, "prune": prune, "restore": s.Restore(t.Context(), someSamples(2), true),
			"restore points": s.RestorePoints(t.Context(), []sample.Point{{ID: 1, Name: "x"}}),
			"migrate":        migrate, "log": s.Log(t.Context(), source.Run{ID: "r"})}
	}
	for what, err := range writes(reopen(t, srv, Options{ReadOnly: true})) {
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("%s, read-only: %v", what, err)
		}
	}
	srv.Exec(t, "INSERT INTO archive_state (run, status) VALUES ('old', 'running'); DROP TABLE archive_trims")
	for _, f := range []*cloudflaretest.Fault{cloudflaretest.Fails(403, 7403, "not authorized"), cloudflaretest.ExpiredToken()} {
		srv.On(func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
			for _, text := range r.SQL {
				if !strings.HasPrefix(text, "SELECT") && !strings.HasPrefix(text, "PRAGMA") {
					return f
				}
			}
			return nil
		})
		for what, err := range writes(reopen(t, srv, Options{})) {
			if what == "close crashed" || what == "revoke" {
				continue // finds before it writes that the ledger is not whole
			}
			if hint := fault.HintOf(err); !fault.Is(err, fault.Unavailable) || !strings.Contains(hint, "D1 Edit") || !strings.Contains(hint, "--no-state") {
				t.Errorf("%s, not allowed: %v of kind %v, hint %q", what, err, fault.KindOf(err), hint)
			}
		}
	}
}
