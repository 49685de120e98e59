package cost

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/sql"
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance*math.Abs(want) {
		t.Errorf("%s: %g, want %g within %g %%", what, got, want, 100*tolerance)
	}
}

// The fleet of the design, by hand.
func TestDesign(t *testing.T) {
	r, err := Compute(Default(), Cloudflare())
	if err != nil {
		t.Fatal(err)
	}
	part := func(name string) Part {
		for _, p := range r.Parts {
			if strings.HasPrefix(p.Name, name) {
				return p
			}
		}
		t.Fatalf("no part %s", name)
		return Part{}
	}
	const month = 4500 * 1440 * 30 // 194.4 M
	near(t, "rows of 30 days", r.D1.Rows, month, 0)
	near(t, "bytes of them", r.D1.Data, month*27/0.87, 1e-9)
	near(t, "alarms", r.D1.Indexes, month*0.01*15, 1e-9)
	near(t, "the ledger after a year", r.D1.Ledger, 4500*365*(41.3+11.1), 1e-9)
	// A row and, of a hundredth, its entry in the index of alarms; 45 late rows take a mark away.
	near(t, "inserts", part("sensors").RowsWritten, month*1.01+30*45, 1e-9)
	// A line of archive_trims and the mark for each (point, day).
	near(t, "deletes", part("retention").RowsWritten, month*1.01+30*2*4500, 1e-9)
	// A claim and a mark of 4,500 days and 45 late ones, and the log.
	near(t, "archive", part("etl archive").RowsWritten, 30*(2*4545+4), 1e-9)
	near(t, "its reads", part("etl archive").RowsRead, 30*(6_480_000*1.01+3*4545+400+4500*(14+10+35+5)), 1e-9)
	// Nine batches of 512 points, two pages each and two to begin with, three confirmations.
	near(t, "its requests", r.Nightly.Requests, 14+9+18+2+3, 0)
	near(t, "Class A", r.Nightly.ClassA, 4545+2, 0)
	near(t, "Class B", r.Nightly.ClassB, 4545+(4500*29.0/30+45)+4+2, 1e-9)
	// A look reads the manifest of each month that R2 holds by then.
	near(t, "Class B of status after a year", part("etl status").ClassB, 24*30*12, 1e-9)
	often, never := Default(), Default()
	often.StatusPerDay, never.StatusPerDay = 288, 0
	most, err := Compute(often, Cloudflare())
	if err != nil {
		t.Fatal(err)
	}
	least, err := Compute(never, Cloudflare())
	if err != nil {
		t.Fatal(err)
	}
	near(t, "Class B of a look each 5 minutes in year 10", most.Years[9].ClassB-least.Years[9].ClassB, 288*30*120, 1e-9)

	total := 0.0
	for _, l := range r.Lines {
		total += l.Dollars
		switch l.Name {
		case D1Writes:
			near(t, "writes", l.Dollars, (l.Usage-50e6)/1e6, 1e-9)
			near(t, "all writes", l.Full, l.Usage/1e6, 1e-9)
		case D1Storage:
			near(t, "storage", l.Dollars, (r.D1.Total/1e9-5)*0.75, 1e-9)
		case D1Reads, R2Storage, R2ClassA, R2ClassB:
			if l.Dollars != 0 || l.Full <= 0 {
				t.Errorf("%s: %g and %g", l.Name, l.Dollars, l.Full)
			}
		}
	}
	near(t, "the total", r.Dollars, total, 1e-12)
	near(t, "the total", r.Dollars, 349, 0.002)
	near(t, "a month in R2", Default().ColdPerMonth(), month*1.008+4500*640, 1e-9)
	if n := len(r.Years); n != 10 || r.Years[9].Bytes != 120*Default().ColdPerMonth() {
		t.Errorf("%+v", r.Years)
	}
	// 10 GB are included, what is beyond is billed by whole GB.
	near(t, "R2 after ten years", r.Years[9].Dollars, math.Ceil(r.Years[9].Bytes/1e9-10)*0.015, 1e-9)
}

func TestCeilings(t *testing.T) {
	hit := func(l Load) map[string]bool {
		t.Helper()
		r, err := Compute(l, Cloudflare())
		if err != nil {
			t.Fatal(err)
		}
		m := make(map[string]bool)
		for _, c := range r.Ceilings {
			if m[c.Name] = c.Hit; c.Text == "" {
				t.Errorf("%s says nothing", c.Name)
			}
		}
		return m
	}
	check := func(what string, got map[string]bool, want string) {
		t.Helper()
		var names []string
		for _, name := range []string{"D1, 10 GB", "the ledger", "D1's free plan", "included rows written", "included rows read",
			"API, 1,200 requests in 5 min", "R2's included storage", "R2's included Class A", "R2's included Class B"} {
			h, ok := got[name]
			if !ok {
				t.Errorf("no limit %s", name)
			}
			if h {
				names = append(names, name)
			}
		}
		if strings.Join(names, "; ") != want {
			t.Errorf("%s meets %q, want %q", what, names, want)
		}
	}
	check("the design", hit(Default()), "D1's free plan; included rows written; R2's included storage")
	small := Default()
	small.Points, small.SamplesPerDay = 20, 20*1440
	check("20 points", hit(small), "")
	large := Default()
	large.Points, large.SamplesPerDay, large.ReadsPerDay = 50_000, 50_000*1440, 1e9
	check("50,000 points", hit(large), "D1, 10 GB; the ledger; D1's free plan; included rows written; included rows read; API, 1,200 requests in 5 min; R2's included storage; R2's included Class A; R2's included Class B")
	old := Default()
	old.HistoryDays, old.ColdBytes = 3650, 30e9
	if !hit(old)["R2's included storage"] {
		t.Error("30 GB are beyond 10")
	}
}

// A further index is a write more for each row that comes and each that goes.
func TestIndex(t *testing.T) {
	base, err := Compute(Default(), Cloudflare())
	if err != nil {
		t.Fatal(err)
	}
	l := Default()
	l.Indexes = 1
	more, err := Compute(l, Cloudflare())
	if err != nil {
		t.Fatal(err)
	}
	near(t, "its price", more.Dollars-base.Dollars, 2*194.4+194.4e6*14/1e9*0.75, 1e-6)
	l = Default()
	l.Alarms = 0
	none, err := Compute(l, Cloudflare())
	if err != nil {
		t.Fatal(err)
	}
	near(t, "the price of the index of alarms", base.Dollars-none.Dollars, 2*1.944+1.944e6*15/1e9*0.75, 1e-6)
}

func TestBackfill(t *testing.T) {
	b, err := ComputeBackfill(Default(), Cloudflare(), 365, 12)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "rows written", b.RowsWritten, 2*4500*365+4, 1e-9)
	// 67 points of a month make 2,048 (point, day)s at most; 68 batches of 6 pages a month.
	near(t, "requests", b.Requests, 12*68*(1+6)+802, 0.01)
	near(t, "minutes", b.Minutes, (b.Requests-200)/4/60, 1e-9)
	near(t, "Class A", b.ClassA, 4500*12, 0.001)
	near(t, "bytes", b.Bytes, 4500*1440*365*1.008+4500*12*640, 1e-9)
	if _, err := ComputeBackfill(Default(), Cloudflare(), 0, 0); err == nil {
		t.Error("no days")
	}
}

func TestPrices(t *testing.T) {
	ps := Cloudflare()
	if err := ps.Read("# mine\ndate: 2030-01\n\nd1-writes: 2 # dear\nd1-writes.included: 0\n"); err != nil {
		t.Fatal(err)
	}
	if p := ps.Of(D1Writes); p.Dollars != 2 || p.Included != 0 || ps.Date != "2030-01" {
		t.Errorf("%+v %s", p, ps.Date)
	}
	if got := ps.Of(D1Writes).bill(3e6, true); got != 6 {
		t.Errorf("3 M rows cost %g", got)
	}
	if Cloudflare().Of(D1Writes).Dollars != 1 {
		t.Error("the table itself was changed")
	}
	if got := Cloudflare().Of(R2ClassA).bill(1_000_001, true); got != 4.5 {
		t.Errorf("an operation beyond a million costs %g, want a whole million", got)
	}
	for _, bad := range []string{"d1-writes", "d1-writes: x", "d1-writes: -1", "gold: 3", "gold.included: 3", "d1-reads: NaN", "d1-reads: Inf"} {
		if err := ps.Read(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, bad := range []func(*Load){
		func(l *Load) { l.Points = 0 }, func(l *Load) { l.SamplesPerDay = math.NaN() }, func(l *Load) { l.Alarms = 2 },
		func(l *Load) { l.Years = 0 }, func(l *Load) { l.Indexes = -1 }, func(l *Load) { l.Retention = 0 }, func(l *Load) { l.BytesPerRow = 0 },
		func(l *Load) { l.ReadsPerDay = math.Inf(1) }, func(l *Load) { l.ReadsPerDay = math.NaN() }, func(l *Load) { l.ReadsPerDay = -1 },
		func(l *Load) { l.StatusPerDay = math.Inf(1) }, func(l *Load) { l.StatusPerDay = math.NaN() }, func(l *Load) { l.StatusPerDay = -1 },
	} {
		l := Default()
		bad(&l)
		if _, err := Compute(l, Cloudflare()); err == nil {
			t.Errorf("%+v is taken", l)
		}
	}
}

func TestComma(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567.6: "1,234,568", -1000: "-1,000", 100000: "100,000"} {
		if got := Comma(v); got != want {
			t.Errorf("%g is %s, want %s", v, got, want)
		}
	}
}

// TestRowBytes fills the real schema as sensors do, minute by minute, and compares what the
// file grows by with what is told of a row, an index, a mark.
func TestRowBytes(t *testing.T) {
	c, err := sqlite.OpenConn(filepath.Join(t.TempDir(), "d1.sqlite"), sqlite.OpenCreate, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	run := func(script string) {
		t.Helper()
		if err := sqlitex.ExecuteScript(c, script, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := sqlitex.ExecuteTransient(c, "PRAGMA synchronous = OFF", nil); err != nil {
		t.Fatal(err)
	}
	for _, m := range sql.Migrations() {
		run(m.SQL)
	}
	size := func() (n float64) {
		t.Helper()
		if err := sqlitex.ExecuteTransient(c, "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()", &sqlitex.ExecOptions{
			ResultFunc: func(st *sqlite.Stmt) error { n = st.ColumnFloat(0); return nil }}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	// They write no pages where there are no marks, and take most of the time.
	run("DROP TRIGGER tr_timeseries_insert_unmarks; DROP TRIGGER tr_timeseries_update_unmarks; DROP TRIGGER tr_timeseries_retention")
	grew := func(what, script string, rows, beside, want, tolerance float64) float64 {
		t.Helper()
		before := size()
		run(script)
		got := (size()-before)/rows - beside
		t.Logf("%s: %.1f B, told %.1f", what, got, want)
		near(t, what, got, want, tolerance)
		return got
	}
	const points, minutes = 300, 200
	series := fmt.Sprintf("WITH RECURSIVE s(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM s WHERE i < %d), p(id) AS (SELECT 128 UNION ALL SELECT id + 1 FROM p WHERE id < %d)", minutes-1, 127+points)
	rows := func(from int64, flags int) string {
		return fmt.Sprintf("INSERT INTO timeseries (point_id, timestamp, value, flags) %s SELECT p.id, %d + s.i * 60000, abs(random() %% 1000000007) / 7.0, %d FROM s CROSS JOIN p", series, from, flags)
	}
	const n = points * minutes
	row := grew("a row", rows(1704067200000, 0), n, 0, RowBytes, 0.08)
	grew("a row in alarm", rows(1704067200000+minutes*60000, 1), n, row, alarmBytes, 0.25)
	grew("a row more of an index", "CREATE INDEX x ON timeseries (point_id, timestamp DESC)", 2*n, 0, indexBytes, 0.08)
	grew("a mark", "INSERT INTO archive_marks (point_id, day, run, done) "+series+" SELECT p.id, 19700 + s.i, '20240210T020000Z-ABCDEFGH', 1 FROM s CROSS JOIN p", n, 0, markBytes, 0.08)
	grew("a trim", "INSERT INTO archive_trims (point_id, day) "+series+" SELECT p.id, 19700 + s.i FROM s CROSS JOIN p", n, 0, trimBytes, 0.08)
}
