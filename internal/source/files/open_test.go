package files

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/source/sqlite"
	"etl/internal/utc"
)

const header3 = "point_name,timestamp,value\n"

func TestRefusedFiles(t *testing.T) {
	whole := gz(header3 + strings.Repeat("a,1704412800000,1.5\n", 10_000))
	packed := zst(header3 + strings.Repeat("a,1704412800000,1.5\n", 10_000))
	for name, c := range map[string]struct {
		text string
		kind fault.Kind
		says string
	}{
		"empty":             {"", fault.Invalid, "it is empty"},
		"only empty lines":  {"\n\n", fault.Invalid, "it is empty"},
		"no header":         {"a,1704412800000,1.5\n", fault.Invalid, `unknown column "a"`},
		"a column too many": {"point_name,timestamp,value,site\n", fault.Invalid, `unknown column "site"`},
		"misspelt":          {"point_name,timestamp,value,qualty\n", fault.Invalid, `unknown column "qualty"`},
		"semicolons":        {"point_name;timestamp;value\n", fault.Invalid, "unknown column"},
		"no value":          {"point_name,timestamp\n", fault.Invalid, "no column value"},
		"two times":         {"point_name,timestamp,timestamp_ms,value\n", fault.Invalid, "there twice"},
		"bad header":        {"point_name,\"time\"stamp,value\n", fault.Invalid, "line 1"},
		"UTF-16":            {"\xff\xfep\x00o\x00", fault.Invalid, "unknown column"},
		"gzip cut off":      {whole[:len(whole)-20], fault.Corrupt, "behind line"},
		"gzip damaged":      {whole[:len(whole)-8] + "\x00\x00\x00\x00" + whole[len(whole)-4:], fault.Corrupt, "checksum"},
		"gzip, header only": {"\x1f\x8b", fault.Corrupt, "EOF"},
		"zstd cut off":      {packed[:len(packed)-5], fault.Corrupt, "behind line"},
		"no Parquet":        {"PAR1 is how it begins", fault.Corrupt, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, work := t.TempDir(), t.TempDir()
			good, path := filepath.Join(dir, "a.csv"), filepath.Join(dir, "b.csv")
			must(t, os.WriteFile(good, []byte(header3+"a,1704412800000,1.5\n"), 0o600))
			must(t, os.WriteFile(path, []byte(c.text), 0o600))
			src := authority(t)
			_, err := Open(t.Context(), src, []string{good, path}, Options{Unknown: Create, Dir: work})
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v of kind %s, want %s with %q", err, fault.KindOf(err), c.kind, c.says)
			}
			empty(t, work)
			if points, _, err := src.Points(t.Context()); err != nil || len(points) > 0 {
				t.Errorf("points were made: %v, %v", points, err)
			}
		})
	}
}

func TestCellsOfRejects(t *testing.T) {
	paths := folder(t, map[string]string{"h.csv": "point_name,timestamp,value,quality,flags\n" +
		"a,1704412800000,1.5,,\n" + // empty: the defaults
		"a,1704412800001,n/a,999,1\n" +
		"a,1704412800002,1.5,good,70000\n" +
		"a,1704412800002,2,1,1\n" + // beside the bad one
		"a,1704412800,1.5,192,0\n" +
		"a,soon,,192,0\n" +
		"new,2024-01-05 00:00:00,1,192,0\n" +
		"new,1,1\n" +
		"\xff,1704412800000,1,192,0\n" +
		strings.Repeat("é", 600) + ",1704412800000," + strings.Repeat("9é", 900) + ",1,1\n" +
		"a,1704412800000,1.25,1,1\n"})
	s := open(t, authority(t, "z", "a"), paths, Options{Unknown: Create})
	points, rejects, err := s.Points(t.Context())
	must(t, err)
	strays, err := s.Strays(t.Context(), []int32{1, 2, 3}, all)
	must(t, err)
	_, err = s.Read(t.Context(), source.Query{Points: []int32{1, 2, 3}, Days: all}, func(b *sample.Batch) error {
		rejects = append(rejects, b.Rejects...)
		return nil
	})
	must(t, err)
	if len(points) != 3 || points[2].Name != "new" {
		t.Fatalf("points: %+v", points)
	}
	var got []string
	for _, r := range append(rejects, strays...) {
		text, err := json.Marshal(r)
		must(t, err)
		got = append(got, strings.ReplaceAll(string(text), filepath.Dir(paths[0])+"/", ""))
	}
	long := strings.Repeat("9é", 333) + "9…" // 1,000 bytes
	want := []string{
		`{"point_id":null,"timestamp":null,"value":"new,1,1","quality":null,"flags":null,"reason":"h.csv:9: 3 fields, want 5"}`,
		`{"point_id":{"text_hex":"ff"},"timestamp":1704412800000,"value":1.0,"quality":192,"flags":0,"reason":"h.csv:10: point_name is no UTF-8"}`,
		`{"point_id":"` + strings.Repeat("é", 500) + `…","timestamp":1704412800000,"value":"` + long + `","quality":1,"flags":1,"reason":"h.csv:11: value is no number; point_name has more than 1024 bytes"}`,
		`{"point_id":2,"timestamp":1704412800000,"value":1.5,"quality":192,"flags":0,"reason":"h.csv:2: superseded by h.csv:12"}`,
		`{"point_id":2,"timestamp":1704412800001,"value":"n/a","quality":"999","flags":1,"reason":"h.csv:3: value is no number; quality is no integer from 0 to 255"}`,
		`{"point_id":2,"timestamp":1704412800002,"value":1.5,"quality":"good","flags":"70000","reason":"h.csv:4: quality is no integer from 0 to 255; flags is no integer from 0 to 65535"}`,
		`{"point_id":2,"timestamp":1704412800,"value":1.5,"quality":192,"flags":0,"reason":"h.csv:6: timestamp 1704412800 is before 2000-01-01, and looks like seconds"}`,
		`{"point_id":2,"timestamp":"soon","value":null,"quality":192,"flags":0,"reason":"h.csv:7: timestamp is neither milliseconds nor like 2024-01-05T12:00:00Z"}`,
		`{"point_id":3,"timestamp":"2024-01-05 00:00:00","value":1.0,"quality":192,"flags":0,"reason":"h.csv:8: timestamp has no zone"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("rejects:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if none, err := s.Strays(t.Context(), []int32{1}, all); err != nil || len(none) > 0 {
		t.Errorf("strays of another point: %v, %v", none, err)
	}
}

func TestRejectsAreBounded(t *testing.T) {
	paths := folder(t, map[string]string{"h.csv": header3 + strings.Repeat("bad\n", source.MaxStrays) + "a,1704412800000,1\n" + strings.Repeat("a,1,1\n", 7)})
	s := open(t, authority(t), paths, Options{Unknown: Create})
	rows, reasons := contents(t, s)
	if sum := s.Summary(); len(rows) != 1 || len(reasons) != source.MaxStrays || sum.Bad != source.MaxStrays+7 || sum.Unrecorded != 7 || len(sum.Warnings()) != 1 {
		t.Errorf("%d rows, %d rejects, %+v", len(rows), len(reasons), sum)
	}
}

func TestUnknownNames(t *testing.T) {
	paths := folder(t, map[string]string{"h.csv": header3 + "b,1704412800000,1\nknown,1704412800000,1\na,1704412800000,1\nx.other,1704412800000,1\n"})
	match := func(name string) bool { return !strings.HasPrefix(name, "x.") }
	src := authority(t, "gone", "known")
	names := func(s source.Source) (names []string) {
		points, _, err := s.Points(t.Context())
		must(t, err)
		for _, p := range points {
			names = append(names, p.Name)
		}
		return names
	}

	if _, err := Open(t.Context(), src, paths, Options{Match: match}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `["a" "b"]`) || fault.HintOf(err) == "" {
		t.Errorf("refused: %v", err)
	}
	s := open(t, src, paths, Options{Unknown: Provisional, Match: match})
	if got := names(s); !slices.Equal(got, []string{"gone", "known", "a", "b"}) || s.points[2].ID != math.MaxInt32-1 || s.points[3].ID != math.MaxInt32 {
		t.Errorf("provisional: %v, %v", got, s.points)
	}
	if got := names(src); len(got) != 2 {
		t.Errorf("a plan made points: %v", got)
	}
	for range 2 {
		s = open(t, src, paths, Options{Unknown: Create, Match: match})
		if got := names(s); !slices.Equal(got, []string{"gone", "known", "a", "b"}) || !slices.Equal(got, names(src)) {
			t.Errorf("created: %v", got)
		}
		if rows, _ := contents(t, s); len(rows) != 3 || rows[0].point != "known" || rows[1].point != "a" || s.Summary().Skipped != 1 {
			t.Errorf("%v, %+v", rows, s.Summary())
		}
	}
	if got := s.Summary().Created; len(got) != 0 {
		t.Errorf("created again: %v", got)
	}
	ro, err := sqlite.Open(filepath.Join(t.TempDir(), "none"), sqlite.Options{Create: true, ReadOnly: true})
	must(t, err)
	defer ro.Close()
	if _, err := Open(t.Context(), ro, paths, Options{Unknown: Create}); err == nil {
		t.Error("a source that can not be read was taken for an authority")
	}
}

// readOnly is an authority that can make no points.
type readOnly struct{ source.Source }

func TestAuthorityWithoutRegistrar(t *testing.T) {
	paths := folder(t, map[string]string{"h.csv": header3 + "b,1704412800000,1\n"})
	if _, err := Open(t.Context(), readOnly{authority(t)}, paths, Options{Unknown: Create}); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	s := open(t, readOnly{authority(t, "b")}, paths, Options{Unknown: Create})
	if _, err := s.Group(t.Context(), "g"); !fault.Is(err, fault.Usage) {
		t.Errorf("group: %v", err)
	}
	info, err := s.Info(t.Context())
	if err != nil || info.ID == "" || info.Ledger || !info.Now.Equal(now) {
		t.Errorf("info: %+v, %v", info, err)
	}
}

// TestCancel ends staging at any moment; nothing is left, and no point is made.
func TestCancel(t *testing.T) {
	text := header3 + strings.Repeat("a,1704412800000,1.5\n", 300_000)
	paths := folder(t, map[string]string{"a.csv": text, "b.csv.gz": gz(text)})
	src := authority(t)
	for at := range 4 {
		work := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		_, err := Open(ctx, src, paths, Options{Unknown: Create, Dir: work, Memory: 1 << 20, Progress: func(Progress) {
			if calls++; calls == at {
				cancel()
			}
		}})
		if at == 0 {
			cancel()
		}
		if err != nil && !errors.Is(err, context.Canceled) || ctx.Err() != nil && at > 0 && err == nil {
			t.Errorf("cancelled at report %d: %v", at, err)
		}
		cancel()
		empty(t, work)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, src, paths, Options{Unknown: Create, Dir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	s := open(t, src, paths, Options{Unknown: Create})
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	stop := errors.New("stop")
	if _, err := s.Read(ctx, source.Query{Points: []int32{1}, Days: all}, func(*sample.Batch) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the callback's error: %v", err)
	}
	cancel()
	if _, err := s.Read(ctx, source.Query{Points: []int32{1}, Days: all}, func(*sample.Batch) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled reading: %v", err)
	}
}

func TestWorkFolder(t *testing.T) {
	paths := folder(t, map[string]string{"a.csv": header3 + "a,1704412800000,1\n"})
	_, err := Open(t.Context(), authority(t), paths, Options{Unknown: Create, Dir: filepath.Join(t.TempDir(), "absent")})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.HintOf(err), "--work-dir") {
		t.Errorf("%v", err)
	}
}

func TestExpand(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"b.csv", "a.csv", "[x].csv", "c.gz"} {
		must(t, os.WriteFile(filepath.Join(dir, n), nil, 0o600))
	}
	must(t, os.Mkdir(filepath.Join(dir, "d.csv.d"), 0o700))
	for _, c := range []struct {
		patterns, want string
	}{
		{"*.csv", "[x].csv a.csv b.csv"}, {"b.csv *.csv", "b.csv [x].csv a.csv"}, {"[x].csv", "[x].csv"}, {"[bc].*", "b.csv c.gz"}, {"./a.csv a.csv", "a.csv"},
		{"*.parquet", ""}, {"", ""}, {"*", ""}, {"[", ""},
	} {
		var patterns []string
		for _, p := range strings.Fields(c.patterns) {
			patterns = append(patterns, dir+"/"+p)
		}
		if c.patterns == "" {
			patterns = []string{""}
		}
		got, err := Expand(patterns)
		for i := range got {
			got[i] = filepath.Base(got[i])
		}
		if strings.Join(got, " ") != c.want || (err != nil) != (c.want == "") || err != nil && !fault.Is(err, fault.Usage) {
			t.Errorf("%s: %v, %v; want %s", c.patterns, got, err, c.want)
		}
	}
}

// TestParquetTypes reads each type that a column may have, and refuses the others.
func TestParquetTypes(t *testing.T) {
	const day = 1704412800000
	type result struct {
		bits    float64
		ts      int64
		quality uint8
		reason  string
	}
	src := authority(t)
	for _, c := range []struct {
		types string // of point_name, timestamp, value, quality
		row   string // as SQL
		want  result
	}{
		{"VARCHAR, BIGINT, DOUBLE, INTEGER", "'a', 1704412800000, 0.1, 7", result{.1, day, 7, ""}},
		{"VARCHAR, UBIGINT, FLOAT, UTINYINT", "'a', 1704412800000, 0.1, 7", result{float64(float32(.1)), day, 7, ""}},
		{"ENUM('a'), UINTEGER, BIGINT, SMALLINT", "'a', 1704412800, 5, NULL", result{reason: "looks like seconds"}},
		{"BLOB, TIMESTAMP, DECIMAL(18,4), VARCHAR", "'a', '2024-01-05', 0.1, '8'", result{.1, day, 8, ""}},
		{"VARCHAR, TIMESTAMPTZ, UBIGINT, VARCHAR", "'a', '2024-01-05 01:00:00.5+01', 5, NULL", result{5, day + 500, 192, ""}},
		{"VARCHAR, TIMESTAMP_MS, SMALLINT, BIGINT", "'a', '2024-01-05 00:00:00.007', 5, 0", result{5, day + 7, 0, ""}},
		{"VARCHAR, TIMESTAMP_S, VARCHAR, BIGINT", "'a', '2024-01-05 00:00:09', '-inf', 0", result{math.Inf(-1), day + 9000, 0, ""}},
		{"VARCHAR, TIMESTAMP_NS, DOUBLE, BIGINT", "'a', '2024-01-05 00:00:00.001', 'inf', 0", result{math.Inf(1), day + 1, 0, ""}},
		{"VARCHAR, VARCHAR, DOUBLE, BIGINT", "'a', '2024-01-05T00:00:00Z', 'nan', 0", result{sample.Null, day, 0, ""}},
		{"VARCHAR, VARCHAR, DOUBLE, BIGINT", "'a', '1704412800000', NULL, 0", result{sample.Null, day, 0, ""}},

		{"VARCHAR, TIMESTAMP, DOUBLE, BIGINT", "'a', '2024-01-05 00:00:00.000001', 1, 0", result{reason: "finer than a millisecond"}},
		{"VARCHAR, TIMESTAMP, DOUBLE, BIGINT", "'a', 'infinity', 1, 0", result{reason: "neither milliseconds"}},
		{"VARCHAR, TIMESTAMP, DOUBLE, BIGINT", "'a', NULL, 1, 0", result{reason: "timestamp is empty"}},
		{"VARCHAR, BIGINT, DOUBLE, BIGINT", "'a', 1704412800, 1, 0", result{reason: "looks like seconds"}},
		{"VARCHAR, BIGINT, DOUBLE, BIGINT", "NULL, 1704412800000, 1, 0", result{reason: "point_name is empty"}},
		{"VARCHAR, BIGINT, BIGINT, BIGINT", "'a', 1704412800000, 9007199254740993, 0", result{reason: "beyond 2^53"}},
		{"VARCHAR, BIGINT, UBIGINT, BIGINT", "'a', 1704412800000, 18446744073709551615, 0", result{reason: "beyond 2^53"}},
		{"VARCHAR, BIGINT, VARCHAR, BIGINT", "'a', 1704412800000, 'x', 256", result{reason: "value is no number; quality is no integer"}},
		{"BIGINT, BIGINT, DOUBLE, BIGINT", "1, 2, 3, 4", result{reason: "ERROR"}},
		{"VARCHAR, DOUBLE, DOUBLE, BIGINT", "'a', 2, 3, 4", result{reason: "ERROR"}},
		{"VARCHAR, DATE, DOUBLE, BIGINT", "'a', '2024-01-05', 3, 4", result{reason: "ERROR"}},
		{"VARCHAR, BIGINT, BOOLEAN, BIGINT", "'a', 2, true, 4", result{reason: "ERROR"}},
		{"VARCHAR, BIGINT, DOUBLE[], BIGINT", "'a', 2, [1], 4", result{reason: "ERROR"}},
		{"VARCHAR, BIGINT, DOUBLE, DOUBLE", "'a', 2, 3, 4", result{reason: "ERROR"}},
	} {
		t.Run(c.types+" "+c.row, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "it's.parquet")
			types := strings.Split(strings.ReplaceAll(c.types, "(18,4)", "(18;4)"), ", ")
			columns := "point_name " + types[0] + ", Timestamp " + types[1] + ", value " + types[2] + ", quality " + types[3]
			duckDB(t, "CREATE TABLE t ("+strings.ReplaceAll(columns, ";", ",")+")", "INSERT INTO t VALUES ("+c.row+")", "COPY t TO '"+strings.ReplaceAll(path, "'", "''")+"' (FORMAT parquet)")
			s, err := Open(t.Context(), src, []string{path}, Options{Unknown: Provisional, Dir: t.TempDir()})
			if c.want.reason == "ERROR" {
				if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "is of type") || fault.HintOf(err) == "" {
					t.Errorf("%v, want the type refused", err)
				}
				return
			}
			must(t, err)
			defer s.Close()
			rows, reasons := contents(t, s)
			if c.want.reason != "" {
				if len(rows) != 0 || len(reasons) != 1 || !strings.HasPrefix(reasons[0], path+": row 1: ") || !strings.Contains(reasons[0], c.want.reason) {
					t.Errorf("%v, rejects %q; want %q", rows, reasons, c.want.reason)
				}
				return
			}
			if want := (sampleRow{"a", c.want.ts, bitsOf(c.want.bits), c.want.quality, 0}); len(reasons) != 0 || !slices.Equal(rows, []sampleRow{want}) {
				t.Errorf("%v, rejects %q; want %v", rows, reasons, want)
			}
		})
	}
}

// TestDaysNotOver stages rows of today and tomorrow, but none that are later.
func TestDaysNotOver(t *testing.T) {
	paths := folder(t, map[string]string{"a.csv": header3 + "a,2024-02-11T23:59:59.999Z,1\na,2024-02-12T00:00:00Z,1\na,2000-01-01T00:00:00Z,1\na,1999-12-31T23:59:59Z,1\n"})
	s := open(t, authority(t), paths, Options{Unknown: Create})
	span, err := s.Span(t.Context())
	rows, reasons := contents(t, s)
	if must(t, err); span != (utc.Days{From: firstDay, To: utc.DayOfTime(now) + 2}) || len(rows) != 2 || len(reasons) != 2 {
		t.Errorf("span %s, rows %v, rejects %q", span, rows, reasons)
	}
	s = open(t, authority(t), folder(t, map[string]string{"a.csv": header3}), Options{})
	if span, err := s.Span(t.Context()); err != nil || !span.Empty() {
		t.Errorf("the span of nothing is %s, %v", span, err)
	}
}
