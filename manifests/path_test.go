package manifests

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"etl/internal/object"
	"etl/internal/sample"
)

func TestSlug(t *testing.T) {
	for name, want := range map[string]string{
		"":                                       "",
		"Zone Temp":                              "zone-temp",
		"AHU-1/SAT °C":                           "ahu-1-sat--c",
		"Überdruck":                              "-berdruck",
		"a_b.c":                                  "a-b-c",
		"\u212a":                                 "-", // the Kelvin sign is no ASCII letter
		"\xff\xfe":                               "--",
		"../x":                                   "---x",
		"日本":                                     "--",
		strings.Repeat("x", 151):                 strings.Repeat("x", 150),
		strings.Repeat("é", 200):                 strings.Repeat("-", 150),
		strings.Repeat("y", 149) + "\U0001F600z": strings.Repeat("y", 149) + "-",
	} {
		if got := Slug(name); got != want || Slug(Clean(name)) != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestPaths(t *testing.T) {
	table := []sample.Point{
		{ID: 7, Name: "a b"}, {ID: 3, Name: "A-B"}, {ID: 9, Name: "a-b-p7"}, {ID: 11, Name: ""}, {ID: 12, Name: "point-11"},
		{ID: 13, Name: "new"}, {ID: 14, Name: "gone"}, {ID: 15, Name: "c"},
	}
	man := newManifest(jan, "c", []Entry{
		{ID: 2, Path: key("gone")}, {ID: 13, Path: key("old")}, {ID: 15}, {ID: 99, Path: key("a-b-p7-3")},
	})
	n := NewNamer(jan, table, man)
	for i, want := range map[int][]string{
		0: {"a-b-p7-2", "a-b-p7-4"}, // a-b is point 3's, a-b-p7 is point 9's, a-b-p7-3 is a file
		1: {"a-b", "a-b-p3", "a-b-p3-2"},
		2: {"a-b-p7", "a-b-p7-p9"},
		3: {"point-11", "point-11-p11"},
		4: {"point-11-p12"},
		5: {"old"},
		6: {"gone-p14"},
		7: {"c"},
	} {
		got := slices.Collect(n.Paths(table[i]))
		for k, w := range want {
			if k >= len(got) || got[k] != key(w) {
				t.Errorf("%+v: %q, want %q", table[i], got[:min(4, len(got))], want)
				break
			}
		}
		if fixed := i == 5; fixed != (len(got) == 1) || len(got) > maxPaths {
			t.Errorf("%+v: %d paths", table[i], len(got))
		}
	}
}

// Whatever the names and the manifest, no two points are ever given one path,
// every path is one that a manifest accepts, and neither the order of the table
// nor the other points asked about play a part.
func TestPathsNeverMeet(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	parts := []string{"a", "A", "b", " ", "-", "-p1", "-p2", "-2", "-3", "-p1-2", "é", "\xff", "point-1", "point-2", strings.Repeat("x", 149)}
	name := func() (s string) {
		for range rnd.IntN(4) {
			s += parts[rnd.IntN(len(parts))]
		}
		return s
	}
	for range 2000 {
		var table []sample.Point
		for id := range int32(1 + rnd.IntN(12)) {
			table = append(table, sample.Point{ID: id - 2, Name: name()})
		}
		var entries []Entry
		files := map[object.Key]bool{}
		for id := range int32(15) { // of the table, renamed since, and of points that are gone
			k := key(slugOf(id-2, name()))
			if rnd.IntN(4) == 0 {
				k = ""
			}
			if !files[k] && rnd.IntN(2) == 0 {
				entries, files[k] = append(entries, Entry{ID: id - 2, Path: k}), k != ""
			}
		}
		man := newManifest(jan, "c", entries)
		n := NewNamer(jan, table, man)
		owner := map[object.Key]int32{}
		for i := range entries {
			owner[entries[i].Path] = entries[i].ID
		}
		shuffled := slices.Clone(table)
		rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		other := NewNamer(jan, shuffled, man)
		for _, p := range table {
			got := slices.Collect(n.Paths(p))
			if !slices.Equal(got, slices.Collect(other.Paths(p))) || len(got) == 0 {
				t.Fatalf("%+v: %q depends on the order", p, got)
			}
			for _, k := range got {
				if id, taken := owner[k]; taken && id != p.ID {
					t.Fatalf("%q for %d and %d\n%+v\n%+v", k, id, p.ID, table, entries)
				}
				owner[k] = p.ID
				if err := k.Check(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func FuzzSlug(f *testing.F) {
	f.Add("Zone Temp °C")
	f.Add("\xff\x00")
	f.Fuzz(func(t *testing.T, name string) {
		s := Slug(name)
		if s != Slug(Clean(name)) || len(s) != min(150, len([]rune(name))) || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Fatalf("%q: %q", name, s)
		}
	})
}

func BenchmarkNamer(b *testing.B) {
	man := big(10_000)
	table := make([]sample.Point, len(man.Points))
	for i, e := range man.Points {
		table[i] = sample.Point{ID: e.ID + 5000, Name: fmt.Sprint(e.Name, i)}
	}
	for b.Loop() {
		n := NewNamer(jan, table, man)
		for _, p := range table {
			for range n.Paths(p) {
				break
			}
		}
	}
}
