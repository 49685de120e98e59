package manifests

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/sample"
	"etl/internal/utc"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file of testdata.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; a format must not change under its version:\n%s", name, got)
	}
	return want
}

func example() *Manifest {
	hash := func(c string) string { return strings.Repeat(c, 64) }
	full := Entry{ID: 1, Name: "Building 33 / AHU-1 \"supply\" °C", Path: key("building-33---ahu-1--supply---c"), Bytes: 26541,
		ETag: "0f343b0931126a20f133d67c2b018a3b", SHA256: hash("a"), RowsSHA256: hash("b"), Samples: 86403,
		First: new(at(0, 0)), Last: new(at(30, 86_399_999)), Days: sample.NewDayCounts(jan)}
	full.Days[0], full.Days[1], full.Days[2], full.Days[30] = 43200, 0, 43200, 3
	emptied := Entry{ID: 3, Name: "emptied", Path: key("emptied-p3"), Bytes: 711, ETag: "e", SHA256: hash("c"), RowsSHA256: hash("d"), Days: sample.NewDayCounts(jan)}
	emptied.Days[4] = 0
	silent := Entry{ID: 2, Name: "silent\n\ufffd", Days: make(sample.DayCounts, 31)}
	return newManifest(jan, "FZ3SYVH7ZJDJB7ITZ5KDYHJXAS", []Entry{full, silent, emptied})
}

func TestGolden(t *testing.T) {
	m := example()
	want := golden(t, "2024-01.json", Encode(m))
	got, err := Decode(jan, want)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("%+v, %v", got, err)
	}
	if lines := strings.Count(string(want), "\n{"); lines != 3 {
		t.Fatalf("%d lines of points", lines)
	}
}

// random is a valid manifest.
func random(rnd *rand.Rand, month utc.Month, n int) *Manifest {
	hash := func() string {
		return fmt.Sprintf("%016x%016x%016x%016x", rnd.Uint64(), rnd.Uint64(), rnd.Uint64(), rnd.Uint64())
	}
	entries := make([]Entry, 0, n)
	id := int32(math.MinInt32)
	if rnd.IntN(2) == 0 {
		id = 0
	}
	for i := range n {
		id += 1 + rnd.Int32N(3)
		e := Entry{ID: id, Name: fmt.Sprintf("Site %d/é\x00\u2028<&>%d", rnd.IntN(9), i), Days: sample.NewDayCounts(month)}
		for d := range e.Days {
			switch rnd.IntN(4) {
			case 0:
				e.Days[d] = rnd.Int32N(86400)
			case 1:
				e.Days[d] = 0
			}
		}
		e.Samples = e.Days.Samples()
		for d, k := range e.Days {
			if day := month.First() + utc.Day(d); k > 0 {
				if e.First == nil {
					e.First = new(day.Start() + rnd.Int64N(1000))
				}
				e.Last = new(day.End() - 1 - rnd.Int64N(1000))
			}
		}
		if e.Samples > 0 || e.Days.Archived() == 0 || rnd.IntN(2) == 0 {
			e.Path, e.Bytes, e.ETag = object.Key(fmt.Sprintf("%ss%d.parquet", DirOf(month), i)), 1+rnd.Int64N(1<<20), hash()[:32]
			e.SHA256, e.RowsSHA256 = hash(), hash()
		}
		entries = append(entries, e)
	}
	return newManifest(month, hash()[:26], entries)
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("manifest.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("manifest.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, data []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

func TestRoundTripAndSchema(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := schema(t)
	for i := range 200 {
		m := random(rnd, utc.Month(rnd.IntN(12*400)), rnd.IntN(12))
		if i == 0 {
			m = example()
		}
		data := Encode(m)
		got, err := Decode(m.Month, data)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("%s\n%v", data, err)
		}
		if err := validate(t, s, data); err != nil {
			t.Fatalf("%s\n%v", data, err)
		}
		// The struct's own JSON says the same.
		data, err = json.MarshalIndent(m, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decode(m.Month, data); err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("%s\n%v", data, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	s := schema(t)
	for _, c := range []struct {
		from, to string // replaced in the example
		want     string
		schema   bool // the schema sees it too
	}{
		{`etl-manifest`, `etl-points`, `format is "etl-points"`, true},
		{`"version":1`, `"version":0`, "no version 0", true},
		{`"version":1`, `"version":"1"`, "cannot unmarshal", true},
		{`"month":"2024-01"`, `"month":"2024-02"`, "it is of month 2024-02", false},
		{`"month":"2024-01"`, `"month":"2024-1"`, "is not a month", true},
		{`"commit":"FZ3SYVH7ZJDJB7ITZ5KDYHJXAS"`, `"commit":""`, "no commit id", true},
		{`"points":[`, `"point":[`, "no list of points", true},
		{`"samples":86403,"bytes"`, `"samples":86402,"bytes"`, "totals are", false},
		{`{"id":2,`, `{"id":1,`, "point 1 follows point 1", false},
		{`{"id":3,`, `{"id":-3,`, "point -3 follows point 2", false},
		{`{"id":3,`, `{"id":3000000000,`, "cannot unmarshal", true},
		{`[43200,0,43200,`, `[43200,0,`, "30 days, 2024-01 has 31", false},
		{`[43200,0,43200,`, `[43200,0,-1,`, "day 3: ", true},
		{`[43200,0,43200,`, `[43200,0,43201,`, "86403 samples but the days make 86404", false},
		{`"first":1704067200000`, `"first":null`, "first and last must be null", false},
		{`"first":1704067200000`, `"first":1704067199999`, "are not on the first and last day", false},
		{`"last":1706745599999`, `"last":1706745600000`, "are not on the first and last day", false},
		{`"path":"timeseries/2024/01/emptied-p3.parquet"`, `"path":"timeseries/2024/01/building-33---ahu-1--supply---c.parquet"`, "points 1 and 3 share", false},
		{`timeseries/2024/01/emptied-p3`, `timeseries/2024/02/emptied-p3`, "is not timeseries/2024/01/<name>.parquet", false},
		{`timeseries/2024/01/emptied-p3`, `timeseries/2024/01/../../../etc`, "segment", false},
		{`timeseries/2024/01/emptied-p3.parquet`, `timeseries/2024/01/emptied-p3.csv`, "is not timeseries/2024/01/<name>.parquet", true},
		{`timeseries/2024/01/emptied-p3.parquet`, `timeseries/2024/01/.parquet`, "is not timeseries/2024/01/<name>.parquet", true},
		{`timeseries/2024/01/emptied-p3.parquet`, `timeseries/2024/01/a\\b.parquet`, "backslash", true},
		{`timeseries/2024/01/emptied-p3.parquet`, ``, "no path, but facts of a file", true},
		{`"bytes":711,`, `"bytes":0,`, "a file of 0 bytes", true},
		{`"bytes":711,`, `"bytes":9000000000000000000,`, "a file of 9000000000000000000 bytes", false},
		{`"etag":"e"`, `"etag":"\"e\""`, "etag", true},
		{`"etag":"e"`, `"etag":""`, "etag", true},
		{`cccc",`, `ccc",`, "sha256", true},
		{`dddd",`, `dddD",`, "rows_sha256", true},
		{`[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]`, `[` + strings.Repeat("null,", 30) + `null]`, "neither a file nor an archived day", false},
	} {
		data := strings.Replace(string(Encode(example())), c.from, c.to, 1)
		if data == string(Encode(example())) {
			t.Fatalf("%s is not in the example", c.from)
		}
		_, err := Decode(jan, []byte(data))
		if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "_manifests/2024-01.json") ||
			!strings.Contains(fault.HintOf(err), "etl repair --month 2024-01") {
			t.Errorf("%s → %s: %v", c.from, c.to, err)
		}
		if seen := validate(t, s, []byte(data)) != nil; seen != c.schema {
			t.Errorf("%s → %s: the schema refuses it: %v", c.from, c.to, seen)
		}
	}
	for _, data := range []string{"", "null", "[]", "{}", "{", string(Encode(example())) + "x"} {
		if _, err := Decode(jan, []byte(data)); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%q: %v", data, err)
		}
	}
}

func TestDecodeVersions(t *testing.T) {
	for _, data := range []string{
		strings.Replace(string(Encode(example())), `"version":1`, `"version":2`, 1),
		`{"format":"etl-manifest","version":2,"month":7,"points":"elsewhere"}`,
	} {
		_, err := Decode(jan, []byte(data))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "refused: version 2, this etl reads version 1") || !strings.Contains(fault.HintOf(err), "upgrade") {
			t.Error(err)
		}
	}
	later := strings.Replace(string(Encode(example())), `{"id":1,`, `{"colour":["red"],"id":1,`, 1)
	if m, err := Decode(jan, []byte(later)); err != nil || !reflect.DeepEqual(m, example()) {
		t.Error("an unknown field was not ignored:", err)
	}
}

func TestLoadAndMonths(t *testing.T) {
	f := newFake()
	m, v, err := Load(t.Context(), f, jan)
	if err != nil || v != "" || len(m.Points) != 0 || m.Month != jan || m.Entry(1) != nil {
		t.Fatal(m, v, err)
	}
	for _, k := range []object.Key{KeyOf(jan), KeyOf(jan - 1), PointsKey, "_manifests/2024-1.json", "_manifests/2024-13.json", "_manifests/2024-03.json.bak",
		"_manifests/old/2024-02.json", "_manifests/2024-04", "_manifests2/2024-05.json"} {
		f.objects[k] = version{Encode(example()), "x"}
	}
	if got, err := Months(t.Context(), f); err != nil || !slices.Equal(got, []utc.Month{jan - 1, jan}) {
		t.Fatal(got, err)
	}
	if m, v, err := Load(t.Context(), f, jan); err != nil || v != "x" || !reflect.DeepEqual(m, example()) {
		t.Fatal(m, v, err)
	}
	if _, _, err := Load(t.Context(), f, jan-1); !fault.Is(err, fault.Corrupt) {
		t.Fatal(err)
	}
	f.before = func(string, object.Key) error { return errLost }
	if _, _, err := Load(t.Context(), f, jan); !fault.Is(err, fault.Unknown) {
		t.Fatal(err)
	}
	if _, err := Months(t.Context(), f); !fault.Is(err, fault.Unknown) {
		t.Fatal(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(example()))
	f.Add(Encode(newManifest(jan, "c", []Entry{})))
	f.Add([]byte(`{"format":"etl-manifest","version":2}`))
	f.Add([]byte(`{"format":"etl-manifest","version":1,"commit":"\ud800","month":"2024-01","totals":{"points":1},"points":[{"ID":1,"days":[0]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(jan, data)
		if err != nil {
			return
		}
		again, err := Decode(jan, Encode(m))
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v\n%+v\n%v", m, again, err)
		}
	})
}

// big is a manifest as a site with n points has it.
func big(n int) *Manifest {
	m := random(rand.New(rand.NewPCG(1, 1)), jan, n)
	for i := range m.Points {
		e := &m.Points[i]
		e.ID, e.Name = int32(i+1), fmt.Sprintf("Campus West/Building 33/AHU-%d/Supply Air Temperature", i)
		e.Path = object.Key(DirOf(jan) + Slug(e.Name) + ".parquet")
		for d := range e.Days {
			e.Days[d] = 17280
		}
		e.Samples, e.First, e.Last = e.Days.Samples(), new(at(0, 0)), new(at(30, 0))
		e.Bytes, e.ETag = 400_000, e.RowsSHA256[:32]
		if e.SHA256 == "" {
			e.SHA256, e.RowsSHA256, e.ETag = strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 32)
		}
	}
	return newManifest(jan, m.Commit, m.Points)
}

func BenchmarkLoad(b *testing.B) {
	f := newFake()
	data := Encode(big(10_000))
	f.objects[KeyOf(jan)] = version{data, "x"}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Load(b.Context(), f, jan); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	m := big(10_000)
	b.SetBytes(int64(len(Encode(m))))
	b.ReportAllocs()
	for b.Loop() {
		Encode(m)
	}
}

// LoadTotals says what Load says, of own and of other layouts, damaged or not.
func TestLoadTotals(t *testing.T) {
	month, err := utc.ParseMonth("2024-01")
	if err != nil {
		t.Fatal(err)
	}
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := LoadTotals(t.Context(), store, month); err != nil || got != (Totals{}) {
		t.Errorf("of no manifest: %+v, %v", got, err)
	}
	days := sample.NewDayCounts(month)
	days[3] = 0
	days[4] = 0
	m := newManifest(month, "c", []Entry{{ID: 1, Name: `a",` + "\n" + `"points":[`, Days: days}, {ID: 2, Name: "b", Days: days}})
	own := Encode(m)
	quick := 0
	check := func(what string, data []byte) {
		t.Helper()
		if _, err := store.Put(t.Context(), KeyOf(month), data, object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		full, _, wantErr := Load(t.Context(), store, month)
		got, err := LoadTotals(t.Context(), store, month)
		if (err == nil) != (wantErr == nil) || fault.KindOf(err) != fault.KindOf(wantErr) || err == nil && got != full.Totals {
			t.Errorf("%s: %+v, %v; Load says %v", what, got, err, wantErr)
		}
		if _, ok := head(month, data); ok {
			quick++
		}
	}
	check("own layout", own)
	if quick != 1 {
		t.Error("the own layout is decoded in full")
	}
	var other bytes.Buffer
	if err := json.Indent(&other, own, "", "  "); err != nil {
		t.Fatal(err)
	}
	check("another layout", other.Bytes())
	check("another month's", bytes.Replace(own, []byte("2024-01"), []byte("2024-02"), 1))
	for i := range own { // each byte, changed and cut off
		damaged := slices.Clone(own)
		damaged[i] ^= 1
		check(fmt.Sprintf("byte %d changed", i), damaged)
		if i%16 == 0 {
			check(fmt.Sprintf("%d bytes", i), own[:i])
		}
	}
	check("nothing", nil)
}
