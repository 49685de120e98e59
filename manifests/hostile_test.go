package manifests

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"etl/internal/fault"
	"etl/internal/sample"
)

// TestHostile: a manifest from a store that somebody else can write is refused
// where it could lead anywhere else than to the month's own files, and costs little
// more than its bytes.
func TestHostile(t *testing.T) {
	m := example()
	m.Points = m.Points[:1]
	m.Totals = total(m.Points)
	good := string(body(m)) + "\n}"
	if _, err := Decode(jan, []byte(good)); err != nil {
		t.Fatal(err)
	}
	path := string(m.Points[0].Path)
	with := func(from, to string) string {
		t.Helper()
		s := strings.Replace(good, from, to, 1)
		if s == good {
			t.Fatalf("%s is not in the manifest", from)
		}
		return s
	}
	cases := map[string]string{
		"deep nesting":          strings.Repeat("[", 1_000_000),
		"deep nesting, closed":  with(`"commit":`, `"x":`+strings.Repeat(`{"a":`, 200_000)+"1"+strings.Repeat("}", 200_000)+`,"commit":`),
		"deep days":             with(`"days":[`, `"days":[`+strings.Repeat("[", 100_000)),
		"many days":             with(`"days":[`, `"days":[`+strings.Repeat("0,", 1_000_000)),
		"a count beyond 32 bit": with(`"days":[43200`, `"days":[4294967296`),
		"a huge number":         with(`"days":[43200`, `"days":[1e400`),
		"huge digits":           with(`"bytes":`, `"bytes":`+strings.Repeat("9", 1_000_000)),
		"negative bytes":        with(`"bytes":`, `"bytes":-`),
		"totals beyond all":     with(`"totals":{"points":1`, `"totals":{"points":9223372036854775807`),
		"the point twice":       strings.TrimSuffix(good, "\n]\n}") + ",\n" + string(m.Points[0].appendJSON(nil)) + "\n]\n}",
		"a control in the etag": with(`"etag":"`, `"etag":"\u001b`),
		"an endless etag":       with(`"etag":"`, `"etag":"`+strings.Repeat("e", 2000)),
	}
	for _, p := range []string{"../../../etc/passwd", "/etc/passwd", "//etc/passwd", "timeseries/2024/01/../../../x.parquet", "timeseries/2024/01/./x.parquet", "timeseries/2024/01//x.parquet",
		"s3://other/timeseries/2024/01/x.parquet", "r2://other/x.parquet", "https://example.com/timeseries/2024/01/x.parquet", "file:///etc/x.parquet", "timeseries/2024/02/x.parquet",
		"timeseries/2024/01/x.parquet\x00", "timeseries/2024/01/x\x1b[2J.parquet", "timeseries/2024/01/x\n.parquet", "timeseries/2024/01/x\u009b2J.parquet", `timeseries\2024\01\x.parquet`, "C:/x.parquet",
		"_manifests/2024-01.json", "_manifests/points.json", "timeseries/2024/01/x.parquet/", "timeseries/2024/01/x.PARQUET", " timeseries/2024/01/x.parquet", "timeseries/2024/1/x.parquet",
		"timeseries/2024/01/" + strings.Repeat("x", 2000) + ".parquet", strings.Repeat("../", 300) + "x.parquet"} {
		cases[fmt.Sprintf("path %.40q", p)] = with(`"path":"`+path+`"`, `"path":`+string(sample.AppendJSONString(nil, p)))
	}
	for name, text := range cases {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(jan, []byte(text))
		runtime.ReadMemStats(&after)
		if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "_manifests/2024-01.json") || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (len(err.Error()) > 1000 || strings.ContainsFunc(err.Error(), control)) {
			t.Errorf("%s: an error of %d bytes: %.300q", name, len(err.Error()), err)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > uint64(20*len(text)+1<<20) {
			t.Errorf("%s: %d bytes allocated for %d", name, grown, len(text))
		}
	}
	t.Logf("reliability: hostile manifests: %d manifests, each refused", len(cases))

	// A name is only a name, however long; so is an odd one of a file.
	for _, text := range []string{with(`"name":"`, `"name":"\u001b[2J'; DROP VIEW samples; --`+strings.Repeat("n", 1<<20)), with(path, "timeseries/2024/01/'; DROP VIEW samples; -- *.parquet")} {
		if _, err := Decode(jan, []byte(text)); err != nil {
			t.Errorf("%v", err)
		}
	}
}

// TestHostilePoints: the same for the catalog of points.
func TestHostilePoints(t *testing.T) {
	for name, text := range map[string]string{
		"deep":          `{"format":"etl-points","version":1,"points":` + strings.Repeat("[", 1_000_000),
		"twice":         `{"format":"etl-points","version":1,"points":[{"id":1,"name":"a"},{"id":1,"name":"b"}]}`,
		"wide id":       `{"format":"etl-points","version":1,"points":[{"id":4294967297,"name":"a"}]}`,
		"no number":     `{"format":"etl-points","version":1,"points":[{"id":1,"name":"a","min_value":1e999}]}`,
		"wide interval": `{"format":"etl-points","version":1,"points":[{"id":1,"name":"a","interval_ms":9223372036854775808}]}`,
		"null":          `{"format":"etl-points","version":1,"points":null}`,
		"checksum":      `{"format":"etl-points","version":1,"points":[],"checksum":"00"}`,
	} {
		if _, err := DecodePoints([]byte(text)); !fault.Is(err, fault.Corrupt) || len(err.Error()) > 1000 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestChecksum: what the sums do not see, the checksum does; what says the same in
// another layout passes, and so does what has none.
func TestChecksum(t *testing.T) {
	data := string(Encode(example()))
	for from, to := range map[string]string{`"name":"`: `"name":"x`, `"etag":"e"`: `"etag":"f"`, `"first":1704067200000`: `"first":1704067200001`, `{"id":3,`: `{"id":4,`, `"commit":"F`: `"commit":"G`} {
		bad := strings.Replace(data, from, to, 1)
		if _, err := Decode(jan, []byte(bad)); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("%s → %s: %v", from, to, err)
		}
	}
	for name, other := range map[string]string{
		"spaces": strings.ReplaceAll(data, `,"`, `, "`), "one line": strings.ReplaceAll(data, "\n", ""), "none": data[:strings.Index(data, ",\n\"checksum\"")] + "}",
		"empty": strings.Replace(data, data[strings.Index(data, `"checksum":"`):], `"checksum":""}`, 1), "first": `{"checksum":"` + data[len(data)-68:len(data)-4] + `",` + data[1:strings.Index(data, ",\n\"checksum\"")] + "}",
	} {
		if m, err := Decode(jan, []byte(other)); err != nil || !m.Entry(1).Equal(example().Entry(1)) || m.Checksum != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	points := &Catalog{Format: PointsFormat, Version: PointsVersion, SourceID: "s"}
	text, err := EncodePoints(points)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodePoints(bytes.Replace(text, []byte(`"source_id":"s"`), []byte(`"source_id":"t"`), 1)); !fault.Is(err, fault.Corrupt) {
		t.Errorf("another source: %v", err)
	}
}
