package manifests

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"etl/internal/fault"
	"etl/internal/object/dir"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
)

func reject(point int64, ts any, value any) sample.Reject {
	return sample.Reject{PointID: sample.Cell{V: point}, Timestamp: sample.Cell{V: ts}, Value: sample.Cell{V: value},
		Quality: sample.Cell{V: int64(192)}, Flags: sample.Cell{V: int64(0)}, Reason: "because"}
}

// Rejects are kept verbatim; recording them again, in other portions or after a
// lost reply, adds nothing.
func TestRejectsOnceAndVerbatim(t *testing.T) {
	root := t.TempDir()
	d, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	store := objecttest.NewFaults(d)
	const noon = int64(1_704_456_000_000) // 2024-01-05 12:00
	rows := []sample.Reject{
		reject(1, noon, "text 🔥"), reject(1, noon+1, []byte{0, 255}), reject(1, noon+86_400_000, "\xff"),
		reject(2, noon, int64(math.MaxInt64)), reject(2, float64(noon)+0.5, math.Inf(1)),
	}
	store.Inject(objecttest.First(1, objecttest.On("put", "")), objecttest.LoseReply())
	if _, err := PutRejects(t.Context(), store, "2024-01", rows); err != nil {
		t.Fatal(err)
	}
	if len(store.Fired()) != 1 {
		t.Fatal("no reply was lost")
	}
	for _, portion := range [][]sample.Reject{rows[:2], rows[2:3], rows[3:]} {
		if _, err := PutRejects(t.Context(), store, "2024-01", portion); err != nil {
			t.Fatal(err)
		}
	}
	var got []sample.Reject
	files := 0
	for f, err := range Rejects(t.Context(), store) {
		if err != nil || f.Month != "2024-01" {
			t.Fatalf("%s, month %s: %v", f.Key, f.Month, err)
		}
		files++
		got = append(got, f.Rows...)
	}
	if files != 3 { // one per point and day
		t.Errorf("%d files, want 3", files)
	}
	if len(got) != len(rows) {
		t.Fatalf("%d rows, want %d", len(got), len(rows))
	}
	for _, want := range rows {
		found := false
		for _, g := range got {
			found = found || reflect.DeepEqual(g, want)
		}
		if !found {
			t.Errorf("%+v was not read back", want)
		}
	}
}

// A damaged file is named, and the others are still listed.
func TestDamagedRejects(t *testing.T) {
	root := t.TempDir()
	d, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	key, err := PutRejects(t.Context(), d, Undated, []sample.Reject{reject(1, int64(-5), 1.5)})
	if err != nil || !strings.HasPrefix(string(key), "_rejects/undated/") {
		t.Fatalf("%s: %v", key, err)
	}
	if err := os.WriteFile(filepath.Join(root, "_rejects", "undated", "bad.jsonl"), []byte("{\"point_id\":1}\nnot JSON\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	good, bad := 0, 0
	for f, err := range Rejects(t.Context(), d) {
		if err == nil {
			good += len(f.Rows)
			continue
		}
		bad++
		if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "bad.jsonl: line 2") {
			t.Errorf("the damaged file: %v", err)
		}
	}
	if good != 1 || bad != 1 {
		t.Errorf("%d good rows, %d damaged files; want 1 and 1", good, bad)
	}
}

func FuzzParseRejects(f *testing.F) {
	f.Add([]byte(`{"point_id":1,"timestamp":{"real":"Infinity"},"value":{"blob_hex":"00ff"},"quality":null,"flags":5.0,"reason":"x"}` + "\n"))
	f.Add([]byte("{}\n\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := parseRejects(data)
		if err != nil && !fault.Is(err, fault.Corrupt) && !strings.Contains(err.Error(), "token too long") {
			t.Errorf("%v", err)
		}
		if len(rows) > len(data) {
			t.Errorf("%d rows from %d bytes", len(rows), len(data))
		}
	})
}
