package monthfile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
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

	"pgregory.net/rapid"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/utc"
)

var update = flag.Bool("update", false, "write the golden file anew")

var march = utc.MonthOf(2024, 3)

// oddValues survive bit for bit, or are NULL.
var oddValues = []float64{0, math.Copysign(0, -1), 1, -1, math.Inf(1), math.Inf(-1), 5e-324, -2.2250738585072e-308,
	math.MaxFloat64, 0.1, 1e-9, 12345678.12345678, sample.Null}

// oddSeries are n samples with everything that a series may have.
func oddSeries(n int) (Meta, sample.Series) {
	r := rand.New(rand.NewPCG(7, 8))
	var s sample.Series
	ts := march.First().Start()
	for i := range n {
		s.Append(ts, oddValues[(i*7+i/5)%len(oddValues)], uint8(i*i), uint16(i*977))
		ts += 1 + r.Int64N(1000)*r.Int64N(1000)
	}
	return metaOf(-5, "Gebäude 1/\"AHU\"\\\t<a&b>", march, &s), s
}

func encode(t testing.TB, o Options, m Meta, s *sample.Series) ([]byte, Info) {
	t.Helper()
	data, info, err := NewEncoder(o).Encode(nil, m, s)
	if err != nil {
		t.Fatal(err)
	}
	return data, info
}

// mustRoundTrip encodes, decodes and inspects, and returns the file.
func mustRoundTrip(t rapid.TB, e *Encoder, d *Decoder, m Meta, s *sample.Series) []byte {
	t.Helper()
	head := []byte("before")
	data, info, err := e.Encode(head, m, s)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(data, head) {
		t.Fatal("Encode changed what was in dst")
	}
	data = data[len(head):]
	if info.RowsSHA256 != s.RowsSHA256() || info.Samples != int64(s.Len()) || !reflect.DeepEqual(info.Meta, m) {
		t.Fatalf("Encode says %+v", info)
	}
	if got, err := Inspect(data); err != nil || !reflect.DeepEqual(got, info) {
		t.Fatalf("Inspect: %+v, %v, want %+v", got, err, info)
	}
	var back sample.Series
	back.Append(1, 2, 3, 4) // Decode replaces
	if got, err := d.Decode(data, &back); err != nil || !reflect.DeepEqual(got, info) {
		t.Fatalf("Decode: %+v, %v, want %+v", got, err, info)
	}
	if !back.Equal(s) {
		t.Fatalf("%v\ndecodes as\n%v", s, back)
	}
	if got, err := d.DecodeTrusted(data, &back); err != nil || !reflect.DeepEqual(got, info) || !back.Equal(s) {
		t.Fatalf("DecodeTrusted: %+v, %v, want %+v", got, err, info)
	}
	return data
}

func TestRoundTripProperty(t *testing.T) {
	e := [...]*Encoder{NewEncoder(Options{}), NewEncoder(Options{Codec: Snappy})}
	d := NewDecoder()
	rapid.Check(t, func(t *rapid.T) {
		m := utc.Month(rapid.IntRange(0, 8030*12/10).Draw(t, "month"))
		start, end := m.First().Start(), m.Days().To.Start()
		value := rapid.OneOf(
			rapid.SampledFrom(oddValues),
			rapid.Map(rapid.Uint64(), func(b uint64) float64 {
				if v := math.Float64frombits(b); v == v {
					return v
				}
				return sample.Null
			}),
			rapid.Map(rapid.IntRange(-300, 300), func(i int) float64 { return float64(i) / 10 }))
		if rapid.Bool().Draw(t, "constant") {
			value = rapid.Just(value.Draw(t, "value"))
		}
		step := rapid.Int64Range(1, 1<<rapid.IntRange(0, 26).Draw(t, "step bits")).Draw(t, "step")
		jitter := rapid.SampledFrom([]int64{0, 0, 1000, 1e6}).Draw(t, "jitter")
		q, f := rapid.Uint8(), rapid.Uint16()
		if rapid.Bool().Draw(t, "good") {
			q, f = rapid.Just(uint8(192)), rapid.Just(uint16(0))
		}
		var s sample.Series
		ts := start + rapid.Int64Range(0, end-start-1).Draw(t, "first")/2
		for range rapid.IntRange(0, 200).Draw(t, "samples") {
			if ts >= end {
				break
			}
			s.Append(ts, value.Draw(t, "value"), q.Draw(t, "quality"), f.Draw(t, "flags"))
			ts += step + rapid.Int64Range(0, jitter).Draw(t, "jitter")
		}
		meta := metaOf(rapid.Int32().Draw(t, "id"), rapid.String().Draw(t, "name"), m, &s)
		mustRoundTrip(t, e[rapid.IntRange(0, 1).Draw(t, "codec")], d, meta, &s)
	})
}

// TestRoundTripSizes meets every number of pages and row groups.
func TestRoundTripSizes(t *testing.T) {
	e, d := NewEncoder(Options{}), NewDecoder()
	r := rand.New(rand.NewPCG(9, 10))
	for _, n := range []int{1, 2, 3, 8, 9, 127, 128, 129, 1000, pageRows, pageRows + 1, 3*pageRows + 5, groupRows, groupRows + 1, 2*groupRows + 7} {
		var s sample.Series
		for i := range n {
			v := float64(r.IntN(1000)) / 10
			if i/1000%3 == 0 {
				v = sample.Null
			}
			s.Append(march.First().Start()+int64(i)*1000, v, 192, uint16(i/300_000))
		}
		m := metaOf(1, "p", march, &s)
		data := mustRoundTrip(t, e, d, m, &s)
		info, err := Inspect(data)
		if want := (n + groupRows - 1) / groupRows; err != nil || info.RowGroups != want {
			t.Errorf("%d rows: %d row groups, want %d", n, info.RowGroups, want)
		}
	}
}

func TestEveryEncodingIsChosen(t *testing.T) {
	e, d := NewEncoder(Options{}), NewDecoder()
	got := map[Encoding]int{}
	for _, kind := range kindNames {
		for _, n := range []int{3, 1440, 43200} {
			m, s := kindSeries(kind, n)
			info, err := Inspect(mustRoundTrip(t, e, d, m, &s))
			if err != nil {
				t.Fatal(err)
			}
			got[info.ValueEncoding]++
		}
	}
	for _, enc := range []Encoding{Plain, Dictionary, ByteStreamSplit} {
		if got[enc] == 0 {
			t.Errorf("%v was never the smallest: %v", enc, got)
		}
	}
}

// TestSmallestEncoding compares the choice, on a sample for long files, with
// what trying everything would choose.
func TestSmallestEncoding(t *testing.T) {
	files := []pointMonth{}
	for _, kind := range kindNames {
		m, s := kindSeries(kind, 43200)
		files = append(files, pointMonth{m, s})
	}
	for _, set := range realSets {
		if _, err := os.Stat(filepath.Join(dataDir, set+".csv.gz")); err == nil {
			files = append(files, loadSet(t, set)...)
		}
	}
	e := NewEncoder(Options{})
	var chosen, best int64
	for _, f := range files {
		data, _, err := e.Encode(nil, f.meta, &f.series)
		if err != nil {
			t.Fatal(err)
		}
		_, groups, err := parseFooter(data, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range groups {
			chosen += groups[i].cols[colValue].size
		}
		e.tryAll = true
		data, _, err = e.Encode(nil, f.meta, &f.series)
		e.tryAll = false
		if err != nil {
			t.Fatal(err)
		}
		if _, groups, err = parseFooter(data, nil); err != nil {
			t.Fatal(err)
		}
		for i := range groups {
			best += groups[i].cols[colValue].size
		}
	}
	t.Logf("%d files: value chunks of %d bytes, %d if all candidates are tried in full", len(files), chosen, best)
	if float64(chosen) > 1.002*float64(best) {
		t.Errorf("sampling costs more than 0.2 %%")
	}
}

// TestSameBytes checks that an Encoder's history does not show.
func TestSameBytes(t *testing.T) {
	var files []pointMonth
	for _, kind := range kindNames {
		for _, n := range []int{0, 5, 1440, 20000} {
			m, s := kindSeries(kind, n)
			files = append(files, pointMonth{m, s})
		}
	}
	m, s := oddSeries(3000)
	files = append(files, pointMonth{m, s})
	for _, o := range []Options{{}, {Codec: Snappy}} {
		want := make([][]byte, len(files))
		for i, f := range files {
			want[i], _ = encode(t, o, f.meta, &f.series)
		}
		e := NewEncoder(o)
		r := rand.New(rand.NewPCG(11, 12))
		for range 100 {
			i := r.IntN(len(files))
			got, _, err := e.Encode(nil, files[i].meta, &files[i].series)
			if err != nil || !bytes.Equal(got, want[i]) {
				t.Fatalf("file %d: other bytes than from a new Encoder (%v)", i, err)
			}
		}
	}
}

func TestNameNotUTF8(t *testing.T) {
	m, s := oddSeries(3)
	m.PointName = "a\xff\xfe/\xc3\xa4"
	_, info := encode(t, Options{}, m, &s)
	if info.PointName != "a\ufffd\ufffd/ä" {
		t.Errorf("name %q", info.PointName)
	}
	mustRoundTrip(t, NewEncoder(Options{}), NewDecoder(), info.Meta, &s)
}

func TestEncodeRefuses(t *testing.T) {
	start := march.First().Start()
	good := func() (Meta, sample.Series) {
		var s sample.Series
		s.Append(start, 1, 192, 0)
		s.Append(start+1, 1, 192, 0)
		return metaOf(1, "p", march, &s), s
	}
	for name, change := range map[string]func(*Meta, *sample.Series){
		"order":          func(m *Meta, s *sample.Series) { s.TS[1] = start - 0; s.TS[0] = start + 1 },
		"twice":          func(m *Meta, s *sample.Series) { s.TS[1] = start },
		"before":         func(m *Meta, s *sample.Series) { s.TS[0] = start - 1 },
		"after":          func(m *Meta, s *sample.Series) { s.TS[1] = march.Days().To.Start() },
		"columns":        func(m *Meta, s *sample.Series) { s.Flags = s.Flags[:1] },
		"count":          func(m *Meta, s *sample.Series) { m.Days[0] = 3 },
		"not archived":   func(m *Meta, s *sample.Series) { m.Days[0] = sample.NotArchived },
		"count of none":  func(m *Meta, s *sample.Series) { m.Days[4] = 1 },
		"negative count": func(m *Meta, s *sample.Series) { m.Days[4] = -2 },
		"days":           func(m *Meta, s *sample.Series) { m.Days = m.Days[:30] },
		"month":          func(m *Meta, s *sample.Series) { m.Month, *s = -12, sample.Series{} },
	} {
		m, s := good()
		change(&m, &s)
		dst := []byte("kept")
		got, _, err := NewEncoder(Options{}).Encode(dst, m, &s)
		if !fault.Is(err, fault.Invalid) || string(got) != "kept" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// resign replaces the footer of a file, for which facts gives the facts.
func resign(data []byte, facts string) []byte {
	groups := []group{}
	_, groups, err := parseFooter(data, groups)
	if err != nil {
		panic(err)
	}
	rows := int64(0)
	for _, g := range groups {
		rows += g.rows
	}
	start := len(data) - 8 - int(binary.LittleEndian.Uint32(data[len(data)-8:]))
	w := tWriter{b: slices.Clone(data[:start])}
	writeFooter(&w, groups, rows, []byte(facts))
	out := binary.LittleEndian.AppendUint32(w.b, uint32(len(w.b)-start))
	return append(out, magic...)
}

func TestFacts(t *testing.T) {
	m, s := oddSeries(10)
	data, info := encode(t, Options{}, m, &s)
	facts := string(appendFacts(nil, &m, info.RowsSHA256))
	if !json.Valid([]byte(facts)) {
		t.Fatalf("not JSON: %s", facts)
	}
	change := func(from, to string) []byte {
		t.Helper()
		if !strings.Contains(facts, from) {
			t.Fatalf("%s lacks %s", facts, from)
		}
		return resign(data, strings.Replace(facts, from, to, 1))
	}
	var back sample.Series
	d := NewDecoder()

	got, err := d.Decode(change(`{"v":1`, `{"later":[1,{"x":null}],"v":1`), &back)
	if err != nil || !reflect.DeepEqual(got, info) || !back.Equal(&s) {
		t.Errorf("unknown facts: %+v, %v", got, err)
	}

	_, err = Inspect(resign(data, `{"v":2,"new":{}}`))
	v, ok := errors.AsType[*VersionError](err)
	if !ok || v.Version != 2 || !fault.Is(err, fault.Invalid) || err.Error() != "format version 2, this etl reads version 1" || fault.HintOf(err) == "" {
		t.Errorf("version 2: %v", err)
	}

	for name, bad := range map[string][]byte{
		"no version":   change(`"v":1,`, ``),
		"version 0":    change(`"v":1`, `"v":0`),
		"version -1":   change(`"v":1`, `"v":-1`),
		"no json":      resign(data, "month file"),
		"array":        resign(data, "[]"),
		"no id":        change(`"id":`, `"nid":`),
		"other id":     change(`"id":-5`, `"id":-6`),
		"wide id":      change(`"id":-5`, `"id":5000000000`),
		"no month":     change(`"month":"2024-03"`, `"month":null`),
		"odd month":    change(`2024-03`, `2024-13`),
		"other month":  change(`2024-03`, `2024-05`),
		"short month":  change(`2024-03`, `2024-02`),
		"no hash":      change(`rows_sha256`, `rows_sha255`),
		"other hash":   change(info.RowsSHA256, strings.Repeat("0", 64)),
		"upper case":   change(info.RowsSHA256, strings.Repeat("A", 64)),
		"days":         change(`"days":[10`, `"days":[11`),
		"null day":     change(`"days":[10`, `"days":[null`),
		"long run":     change(`[null,30]`, `[null,31]`),
		"huge run":     change(`[null,30]`, `[null,9223372036854775807]`),
		"short run":    change(`[null,30]`, `[null,29]`),
		"no run":       change(`[null,30]`, `[null,0]`),
		"open run":     change(`[null,30]`, `[null,null]`),
		"single":       change(`[null,30]`, `[null]`),
		"negative":     change(`[null,30]`, `[-1,30]`),
		"wide count":   change(`[null,30]`, `[4294967296,30]`),
		"not a number": change(`[null,30]`, `["0",30]`),
	} {
		if _, err := d.Decode(bad, &back); !fault.Is(err, fault.Corrupt) || back.Len() != 0 {
			t.Errorf("%s: %v, %d rows", name, err, back.Len())
		}
	}
}

func TestDayRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := utc.Month(rapid.IntRange(600, 700).Draw(t, "month"))
		days := rapid.SliceOfN(rapid.SampledFrom([]int32{sample.NotArchived, 0, 7, 1440, math.MaxInt32}), m.Len(), m.Len()).Draw(t, "days")
		if rapid.Bool().Draw(t, "runs") {
			slices.Sort(days)
		}
		meta := Meta{1, "p", m, days}
		facts := appendFacts(nil, &meta, strings.Repeat("a", 64))
		plain, _ := meta.Days.MarshalJSON()
		if over := len(facts) - len(`{"v":1,"id":1,"name":"p","month":"2020-01","days":,"rows_sha256":""}`) - 64; over > len(plain) {
			t.Fatalf("%s takes more than %s", facts, plain)
		}
		if got, _, err := parseFacts(facts); err != nil || !reflect.DeepEqual(got, meta) {
			t.Fatalf("%s: %+v, %v", facts, got, err)
		}
	})
}

func TestForeign(t *testing.T) {
	m, s := oddSeries(10)
	data, _ := encode(t, Options{}, m, &s)
	other := bytes.Replace(data, []byte("\x03etl"), []byte("\x03elt"), 1)
	for name, f := range map[string][]byte{"text": []byte("point,timestamp"), "encrypted": append([]byte("PARE"), data[4:]...), "other Parquet": other} {
		if _, err := Inspect(f); !errors.Is(err, ErrForeign) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, f := range map[string][]byte{"empty": nil, "two bytes": []byte("PA"), "magic": []byte(magic + magic), "no footer": append([]byte(magic+"\x00\x00\x00\x00"), magic...)} {
		if _, err := Inspect(f); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTruncated cuts a file at every length.
func TestTruncated(t *testing.T) {
	m, s := oddSeries(60)
	data, _ := encode(t, Options{}, m, &s)
	d := NewDecoder()
	var back sample.Series
	for n := range data {
		if _, err := d.Decode(data[:n], &back); !fault.Is(err, fault.Corrupt) || back.Len() != 0 {
			t.Fatalf("%d bytes of %d: %v, %d rows", n, len(data), err, back.Len())
		}
	}
}

// TestFlippedBytes changes every byte of files, one at a time, in several ways.
// Whatever is still decoded must be the same rows, and the same facts but for
// the name and the days without samples, which nothing else in the file knows.
func TestFlippedBytes(t *testing.T) {
	mo, so := oddSeries(40)
	mk, sk := kindSeries("temperature", 300)
	mn, sn := kindSeries("noise", 50)
	d := NewDecoder()
	var back sample.Series
	for i, f := range []struct {
		o Options
		m Meta
		s sample.Series
	}{{Options{}, mo, so}, {Options{}, mk, sk}, {Options{Codec: Snappy}, mk, sk}, {Options{}, mn, sn}} {
		data, info := encode(t, f.o, f.m, &f.s)
		accepted := 0
		for at := range data {
			for _, flip := range []byte{0x01, 0x10, 0x80, 0xff} {
				bad := slices.Clone(data)
				bad[at] ^= flip
				Inspect(bad)
				if _, err := d.DecodeTrusted(bad, &back); err != nil && back.Len() != 0 {
					t.Fatalf("file %d: byte %d ^ %#x: an error and %d rows", i, at, flip, back.Len())
				}
				got, err := d.Decode(bad, &back)
				if err != nil {
					if k := fault.KindOf(err); k != fault.Corrupt && k != fault.Invalid {
						t.Fatalf("file %d: byte %d ^ %#x: %v is %v", i, at, flip, err, k)
					}
					continue
				}
				accepted++
				if !back.Equal(&f.s) || got.PointID != info.PointID || got.Month != info.Month || got.RowsSHA256 != info.RowsSHA256 ||
					got.Samples != info.Samples || got.First != info.First || got.Last != info.Last {
					t.Fatalf("file %d: byte %d ^ %#x: other rows or facts were accepted: %+v", i, at, flip, got)
				}
			}
		}
		t.Logf("file %d: %d of %d changes accepted, with the same rows", i, accepted, 4*len(data))
	}
}

// TestLies encodes files that say other than what they hold.
func TestLies(t *testing.T) {
	base := func() (Meta, sample.Series) {
		var s sample.Series
		for i := range 50 {
			s.Append(march.First().Start()+int64(i)*60_000, float64(i%7), 192, uint16(i%3))
		}
		return metaOf(1, "p", march, &s), s
	}
	for name, lie := range map[string]func(*Meta, *sample.Series){
		"order":     func(m *Meta, s *sample.Series) { s.TS[3], s.TS[4] = s.TS[4], s.TS[3] },
		"twice":     func(m *Meta, s *sample.Series) { s.TS[3] = s.TS[4] },
		"month":     func(m *Meta, s *sample.Series) { s.TS[0] -= 86_400_000 },
		"day count": func(m *Meta, s *sample.Series) { m.Days[0]-- },
		"day":       func(m *Meta, s *sample.Series) { m.Days[0], m.Days[1] = sample.NotArchived, 50 },
	} {
		m, s := base()
		lie(&m, &s)
		data, _ := NewEncoder(Options{}).encode(nil, m, &s, s.RowsSHA256())
		var back sample.Series
		for _, decode := range []func([]byte, *sample.Series) (Info, error){NewDecoder().Decode, NewDecoder().DecodeTrusted} {
			if _, err := decode(data, &back); !fault.Is(err, fault.Corrupt) || back.Len() != 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	m, s := base()
	data, _ := NewEncoder(Options{}).encode(nil, m, &s, strings.Repeat("0", 64))
	if _, err := NewDecoder().Decode(data, &s); !fault.Is(err, fault.Corrupt) {
		t.Errorf("hash: %v", err)
	}
}

// TestHugeClaims decodes small files that claim to hold very much.
func TestHugeClaims(t *testing.T) {
	m, s := kindSeries("onoff", 1000)
	data, _ := encode(t, Options{}, m, &s)
	_, groups, err := parseFooter(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	facts := appendFacts(nil, &m, s.RowsSHA256())
	claim := func(change func(groups []group) []group, rows int64, facts []byte) []byte {
		start := len(data) - 8 - int(binary.LittleEndian.Uint32(data[len(data)-8:]))
		w := tWriter{b: slices.Clone(data[:start])}
		writeFooter(&w, change(slices.Clone(groups)), rows, facts)
		return append(binary.LittleEndian.AppendUint32(w.b, uint32(len(w.b)-start)), magic...)
	}
	rows := func(n int64) func([]group) []group {
		return func(g []group) []group {
			g[0].rows = n
			for col := range g[0].cols {
				g[0].cols[col].rows = n
			}
			return g
		}
	}
	many := m
	many.Days = slices.Clone(m.Days)
	many.Days[0] = maxGroupRows
	huge := m
	huge.Days = slices.Clone(m.Days)
	for i := range huge.Days {
		huge.Days[i] = math.MaxInt32
	}
	for name, f := range map[string][]byte{
		"rows of a group": claim(rows(1<<40), 1<<40, facts),
		"a full group":    claim(rows(maxGroupRows), maxGroupRows, appendFacts(nil, &many, s.RowsSHA256())),
		"days":            claim(rows(1000), 1000, appendFacts(nil, &huge, s.RowsSHA256())),
		"many groups": claim(func(g []group) []group {
			for range 5000 {
				next := g[len(g)-1]
				next.cols[colTime].stats.min += 60_000_000
				next.cols[colTime].stats.max += 60_000_000
				g = append(g, next)
			}
			return g
		}, 5_001_000, facts),
	} {
		var back sample.Series
		if _, err := NewDecoder().DecodeTrusted(f, &back); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if cap(back.TS) > 2*maxGroupRows {
			t.Errorf("%s: room for %d rows", name, cap(back.TS))
		}
	}
}

func TestFewAllocations(t *testing.T) {
	m, s := kindSeries("temperature", 1440)
	e, d := NewEncoder(Options{}), NewDecoder()
	var buf []byte
	var back sample.Series
	if n := testing.AllocsPerRun(20, func() { buf, _, _ = e.Encode(buf[:0], m, &s) }); n > 15 {
		t.Errorf("Encode allocates %v times", n)
	}
	if n := testing.AllocsPerRun(20, func() { d.Decode(buf, &back) }); n > 45 {
		t.Errorf("Decode allocates %v times", n)
	}
}

// goldenRow is one row of the golden file, with the value's bits where JSON has no number for it.
type goldenRow struct {
	TS      int64  `json:"ts"`
	Value   string `json:"value"` // hex of the bits, or null
	Quality uint8  `json:"quality"`
	Flags   uint16 `json:"flags"`
}

// TestGolden decodes a file of format version 1 that was written once; later
// builds must read it for ever, and write it until Writer changes.
func TestGolden(t *testing.T) {
	m, s := oddSeries(100)
	var want []goldenRow
	for i := range s.TS {
		v := "null"
		if s.Value[i] == s.Value[i] {
			v = fmt.Sprintf("%016x", math.Float64bits(s.Value[i]))
		}
		want = append(want, goldenRow{s.TS[i], v, s.Quality[i], s.Flags[i]})
	}
	if *update {
		data, _ := encode(t, Options{}, m, &s)
		rows, err := json.MarshalIndent(want, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile("testdata/v1.parquet", data, 0o644), os.WriteFile("testdata/v1.json", append(rows, '\n'), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile("testdata/v1.parquet")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []goldenRow
	if err := json.Unmarshal(text, &rows); err != nil || !slices.Equal(rows, want) {
		t.Fatalf("the expected rows have changed (%v)", err)
	}
	var back sample.Series
	info, err := NewDecoder().Decode(data, &back)
	if err != nil || !back.Equal(&s) || !reflect.DeepEqual(info.Meta, m) {
		t.Fatalf("%+v, %v", info, err)
	}
	if info.CreatedBy == Writer {
		if now, _ := encode(t, Options{}, m, &s); !bytes.Equal(now, data) {
			t.Errorf("%q writes other bytes than it did: give Writer a new number, or run with -update if none was released", Writer)
		}
	}
}

func FuzzDecode(f *testing.F) {
	seed := func(o Options, m Meta, s sample.Series) {
		data, _ := encode(f, o, m, &s)
		f.Add(data)
		for _, at := range []int{5, len(data) / 2, len(data) - 300, len(data) - 20} {
			bad := slices.Clone(data)
			bad[at]++
			f.Add(bad)
		}
	}
	for _, kind := range kindNames {
		m, s := kindSeries(kind, 30)
		seed(Options{}, m, s)
	}
	m, s := oddSeries(20)
	seed(Options{}, m, s)
	seed(Options{Codec: Snappy}, m, s)
	m, s = oddSeries(0)
	seed(Options{}, m, s)
	d := NewDecoder()
	f.Fuzz(func(t *testing.T, data []byte) {
		var s sample.Series
		if _, err := d.DecodeTrusted(data, &s); err != nil && fault.KindOf(err) == fault.Internal {
			t.Fatalf("unclassified: %v", err)
		}
		info, err := d.Decode(data, &s)
		if err != nil {
			return
		}
		if info.RowsSHA256 != s.RowsSHA256() || info.Samples != int64(s.Len()) || checkDays(&info.Meta, s.TS) != "" {
			t.Fatalf("accepted %+v with other rows", info)
		}
		// What is decoded can be encoded again, and is then the same.
		mustRoundTrip(t, NewEncoder(Options{}), d, info.Meta, &s)
	})
}
