package files

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"etl/internal/fault"
	"etl/internal/sample"
)

func randomRow(r *rand.Rand) row {
	return row{key: 1 + r.Uint64()>>r.IntN(60), ts: r.Int64() >> r.IntN(60), seq: r.Uint64() >> r.IntN(60), bits: r.Uint64(),
		quality: uint8(r.Uint32()), flags: uint16(r.Uint32()), kind: kind(r.IntN(3))}
}

// TestRows has sorted runs survive a file, and the sorter and the merge agree
// with sorting all rows at once.
func TestRows(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var rows []row
		for i := range r.IntN(2000) {
			x := randomRow(r)
			if i > 0 && r.IntN(3) > 0 { // of a block that is there, and often of a time
				y := rows[r.IntN(i)]
				if x.key = y.key; r.IntN(2) == 0 {
					x.ts = y.ts
				}
			}
			x.key = min(x.key, 1<<40) &^ 0xffff_f000 // few points
			x.key = max(x.key, 1)
			x.seq = x.seq&^0xfff | uint64(i) // no line is there twice
			rows = append(rows, x)
		}
		file, err := newScratch(t.TempDir())
		must(t, err)
		defer file.close()
		s := spill{file: file}
		var by sorter
		all := rows
		for len(rows) > 0 && r.IntN(4) > 0 {
			n := 1 + r.IntN(len(rows))
			must(t, s.add(by.sort(rows[:n])))
			rows = rows[n:]
		}
		var got []row
		must(t, merge(t.Context(), s.runs(by.sort(rows), 1<<20), func(r *row) error { got = append(got, *r); return nil }))
		want := slices.Clone(all)
		slices.SortFunc(want, func(a, b row) int { return compareRows(&a, &b) })
		if !slices.Equal(got, want) {
			t.Fatalf("%d rows in %d runs came back as %d others", len(want), len(s.ends)+1, len(got))
		}
	}
}

// FuzzRow reads rows from any bytes without a panic, and back what was written.
func FuzzRow(f *testing.F) {
	f.Add([]byte{}, uint64(1))
	f.Add(appendRow(nil, &row{key: 5, ts: -1, seq: 1 << 63, flags: 65535}, &row{}), uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		var r row
		for {
			n, err := r.next(b)
			if err != nil {
				break
			}
			b = b[n:]
		}
		rnd := rand.New(rand.NewPCG(seed, 1))
		prev, x := randomRow(rnd), randomRow(rnd)
		text := appendRow(nil, &x, &prev)
		got := prev
		if n, err := got.next(text); err != nil || n != len(text) || n > maxRowLen || got != x {
			t.Fatalf("%+v behind %+v came back as %+v, %d of %d bytes, %v", x, prev, got, n, len(text), err)
		}
		for i := range text {
			if _, err := new(row).next(text[:i]); !errors.Is(err, errShort) {
				t.Fatalf("%d of %d bytes are a row: %v", i, len(text), err)
			}
		}
	})
}

// TestDiskErrors has the disk refuse what is written, at each place.
func TestDiskErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600))
	f, err := os.Open(path) // for reading only
	must(t, err)
	defer f.Close()
	closed, err := os.Open(path)
	must(t, err)
	closed.Close()
	rows := []row{{key: 1}, {key: 2}}
	s := spill{file: scratch{f}}
	bad := spill{file: scratch{closed}, ends: []int64{100}}
	for name, err := range map[string]error{
		"spill":   s.add(rows),
		"rejects": second((&rejectFile{file: scratch{f}}).add(new(sample.Reject))),
		"read":    second((&rejectFile{file: scratch{closed}}).get(0)),
		"merge":   merge(t.Context(), bad.runs(nil, 1<<20), func(*row) error { return nil }),
		"settle":  second(settle(t.Context(), filepath.Join(path, "no-folder"), nil, &Summary{})),
	} {
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.HintOf(err), "--work-dir") {
			t.Errorf("%s: %v of kind %s, hint %q", name, err, fault.KindOf(err), fault.HintOf(err))
		}
	}
}

func second[T any](_ T, err error) error { return err }
