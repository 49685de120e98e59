package lake

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/manifests"
)

// loadCatalog lists the manifests and loads all of them. The months are those
// that could be loaded.
func loadCatalog(ctx context.Context, p *Pins, s object.Store, name string) (*Catalog, error) {
	c, err := p.Catalog(ctx, s, name)
	if err == nil {
		c.Months, err = c.Load(ctx, math.MinInt64, math.MaxInt64)
	}
	return c, err
}

func mustCatalog(t testing.TB, p *Pins, s object.Store) *Catalog {
	t.Helper()
	c, err := loadCatalog(t.Context(), p, s, "file:/store")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCatalogOfEmptyStore(t *testing.T) {
	eachKind(t, func(t *testing.T, s object.Store) {
		c := mustCatalog(t, pinned(t, openCache(t, t.TempDir(), large)), s)
		if len(c.Months) != 0 || len(c.Bad) != 0 || len(c.Points) != 0 || c.PointsErr != nil || c.Version == "" {
			t.Fatalf("%+v", c)
		}
	})
}

// TestCatalogIsCached: a manifest and points.json are loaded once for each
// version, by whatever session, and the listing is all that is asked for.
func TestCatalogIsCached(t *testing.T) {
	s := objecttest.NewFaults(newRAM())
	putMonth(t, s, january, 3)
	putMonth(t, s, january+2, 4)
	for _, k := range []object.Key{"_manifests/2024-13.json", "_manifests/2024-02.json.bak", "_manifests/x/2024-02.json", "_manifests/2024-2.json", "_manifests2/2024-02.json"} {
		if _, err := s.Put(t.Context(), k, []byte("x"), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	points := []sample.Point{{ID: 1, Name: "one", Site: new("hall")}, {ID: 2, Name: "two"}}
	if _, err := manifests.Register(t.Context(), s, "src", points, false); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := pinned(t, openCache(t, dir, large))
	trace := func(p *Pins) (*Catalog, []string) {
		s.Reset()
		c := mustCatalog(t, p, s)
		tr := s.Trace()
		slices.Sort(tr)
		if len(c.Points) != 2 || *c.Points[0].Site != "hall" || c.PointsErr != nil || len(c.Bad) != 0 {
			t.Fatalf("%+v", c)
		}
		var ms []utc.Month
		for _, m := range c.Months {
			ms = append(ms, m.Month)
			if filepath.Dir(m.Path) != p.Dir() {
				t.Fatalf("%s is not in the session's folder", m.Path)
			}
			if fi, err := os.Stat(m.Path); err != nil || fi.Mode() != 0o444 {
				t.Fatalf("%v, %v", fi, err)
			}
		}
		if !slices.Equal(ms, []utc.Month{january, january + 2}) {
			t.Fatalf("months %v", ms)
		}
		return c, tr
	}
	want := []string{"get _manifests/2024-01.json", "get _manifests/2024-03.json", "get _manifests/points.json", "list _manifests/"}
	first, tr := trace(p)
	if !slices.Equal(tr, want) {
		t.Fatalf("%q", tr)
	}
	q := pinned(t, openCache(t, dir, large))
	for _, p := range []*Pins{p, q, q} {
		c, tr := trace(p)
		if c.Version != first.Version || !slices.Equal(tr, want[3:]) {
			t.Fatalf("%q", tr)
		}
	}
	// Another store of another name has nothing to do with it.
	if _, err := loadCatalog(t.Context(), q, s, "other"); err != nil {
		t.Fatal(err)
	}
	if tr := s.Trace(); len(tr) != 5 {
		t.Fatalf("%q", tr)
	}
	putMonth(t, s, january, 3)
	c, tr := trace(q)
	if c.Version == first.Version || !slices.Equal(tr, []string{want[0], want[3]}) {
		t.Fatalf("%q", tr)
	}
	if c.Months[0].Path == first.Months[0].Path || c.Months[0].ETag == first.Months[0].ETag || c.Months[1].ETag != first.Months[1].ETag {
		t.Fatalf("%+v", c.Months)
	}
	u, err := q.cache.Usage()
	if err != nil || u.Manifests != 7 || u.Files != 0 || u.Bytes == 0 {
		t.Fatalf("%+v, %v", u, err)
	}
	wantSound(t, q.cache)
	if _, err := q.cache.Clear(); err != nil {
		t.Fatal(err)
	}
	for _, m := range append(first.Months, c.Months...) {
		if _, err := os.Stat(m.Path); err != nil {
			t.Error(err)
		}
	}
}

func TestCatalogOfBadManifests(t *testing.T) {
	eachKind(t, func(t *testing.T, s object.Store) {
		putMonth(t, s, january, 3)
		putMonth(t, s, january+1, 3)
		for k, text := range map[object.Key]string{"_manifests/2024-03.json": "{", "_manifests/2024-04.json": `{"format":"etl-manifest","version":2}`, manifests.PointsKey: "{"} {
			if _, err := s.Put(t.Context(), k, []byte(text), object.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		c := openCache(t, t.TempDir(), large)
		for range 2 {
			cat := mustCatalog(t, pinned(t, c), s)
			if len(cat.Months) != 2 || len(cat.Bad) != 2 || !fault.Is(cat.Bad[january+2], fault.Corrupt) || !fault.Is(cat.Bad[january+3], fault.Invalid) {
				t.Fatalf("%+v", cat)
			}
			if !fault.Is(cat.PointsErr, fault.Corrupt) || len(cat.Points) != 0 {
				t.Fatal(cat.PointsErr)
			}
		}
		wantSound(t, c)
	})
}

// TestCatalogWhileWritten: a manifest that is replaced between the listing and
// its load is known by the version that was loaded.
func TestCatalogWhileWritten(t *testing.T) {
	s := objecttest.NewFaults(newRAM())
	putMonth(t, s, january, 3)
	p := pinned(t, openCache(t, t.TempDir(), large))
	s.Reset()
	s.Inject(objecttest.First(1, objecttest.On("get", manifests.KeyOf(january))), objecttest.Before(func() { putMonth(t, s, january, 5) }))
	first := mustCatalog(t, p, s)
	s.Reset()
	second := mustCatalog(t, p, s)
	if s.Count() != 1 || first.Version == second.Version {
		t.Errorf("%q: what was loaded is loaded again, or the versions are the same", s.Trace())
	}
	if first.Months[0].ETag != second.Months[0].ETag || first.Months[0].Path != second.Months[0].Path {
		t.Errorf("%+v, then %+v", first.Months, second.Months)
	}
	// One that goes away meanwhile is no month.
	ram := newRAM()
	gone := objecttest.NewFaults(ram)
	putMonth(t, gone, january, 3)
	gone.Inject(objecttest.On("get", ""), objecttest.Fail(fault.NotExist))
	if c, err := loadCatalog(t.Context(), p, gone, "gone"); err != nil || len(c.Months) != 0 {
		t.Fatal(c, err)
	}
}

// TestDamagedCatalog: a file that something wrote to is never answered from.
func TestDamagedCatalog(t *testing.T) {
	for _, how := range damages {
		t.Run(how, func(t *testing.T) {
			s := newRAM()
			putMonth(t, s, january, 3)
			if _, err := manifests.Register(t.Context(), s, "src", []sample.Point{{ID: 1, Name: "one"}}, false); err != nil {
				t.Fatal(err)
			}
			c := openCache(t, t.TempDir(), large)
			p := pinned(t, c)
			good, err := os.ReadFile(mustCatalog(t, p, s).Months[0].Path)
			if err != nil {
				t.Fatal(err)
			}
			es, err := os.ReadDir(filepath.Join(c.dir, catalogDir))
			if err != nil || len(es) != 2 {
				t.Fatal(es, err)
			}
			for _, e := range es {
				damage(t, filepath.Join(c.dir, catalogDir, e.Name()), how)
			}
			for _, p := range []*Pins{pinned(t, c), p} {
				cat := mustCatalog(t, p, s)
				if b, err := os.ReadFile(cat.Months[0].Path); err != nil || string(b) != string(good) || len(cat.Points) != 1 {
					t.Fatalf("%+v: %d bytes, %v", cat, len(b), err)
				}
			}
			if n := s.count("_manifests/"); n < 4 {
				t.Errorf("%d gets", n)
			}
			wantSound(t, c)
		})
	}
}

// TestOldCatalogsGo: parsed manifests are part of what is bounded.
func TestOldCatalogsGo(t *testing.T) {
	s := newRAM()
	c := openCache(t, t.TempDir(), 30_000)
	p := pinned(t, c)
	for range 20 {
		putMonth(t, s, january, 5)
		mustCatalog(t, p, s)
		wantSound(t, c)
	}
	if u, err := c.Usage(); err != nil || u.Manifests < 2 || u.Manifests > 15 {
		t.Fatalf("%+v, %v", u, err)
	}
	none := pinned(t, openCache(t, t.TempDir(), 0))
	if cat := mustCatalog(t, none, s); len(cat.Months) != 1 {
		t.Fatalf("%+v", cat)
	}
}

// FuzzCatalogNames: whatever a store calls itself and its versions, the cache
// makes files of its own kind of name, in its own folders, and tells two apart.
func FuzzCatalogNames(f *testing.F) {
	f.Add("file:/x", "1-a", "file:/y", "1-a")
	f.Add("a", "b c", "a b", "c")
	f.Add("", "../../../etc/passwd", "\x00", "\n\"")
	f.Add("\xff", "%s%d", "é", strings.Repeat("x", 5000))
	name := regexp.MustCompile(`^[0-9a-f]{32}-[0-9a-f]+-[0-9a-f]{8}\.(parquet|json)$`)
	f.Fuzz(func(t *testing.T, store, etag, store2, etag2 string) {
		key := manifests.KeyOf(january)
		a, b := catalogID(store, key, etag), catalogID(store2, key, etag2)
		if (a == b) != (store == store2 && etag == etag2) {
			t.Fatalf("%q %q and %q %q have the ids %s and %s", store, etag, store2, etag2, a, b)
		}
		n := catalogName(a, parquetExt, []byte(etag))
		if id, ok := parseCatalogName(n); !ok || id != a || !name.MatchString(n) {
			t.Fatalf("%q is read as %q, %v", n, id, ok)
		}
		if _, ok := parseCatalogName(etag); ok && !name.MatchString(etag) {
			t.Fatalf("%q is taken for a name of the catalog's", etag)
		}
	})
}

func TestOddETags(t *testing.T) {
	s := newRAM()
	s.odd = "../../\x00%s\n\"\\"
	dir := t.TempDir()
	c := openCache(t, filepath.Join(dir, "cache"), large)
	data, info := monthFile(t, january, 1, 20, 0)
	s.Put(t.Context(), keyOf(january, 1), data, object.PutOptions{})
	e := manifests.Entry{ID: 1, Name: "../\x01\u202e%s", Path: keyOf(january, 1), Bytes: int64(len(data)), ETag: "../x%s\\", SHA256: shaOf(data),
		RowsSHA256: info.RowsSHA256, Samples: info.Samples, First: &info.First, Last: &info.Last, Days: info.Days}
	putManifest(t, s, january, []manifests.Entry{e})
	p := pinned(t, c)
	cat, err := loadCatalog(t.Context(), p, s, s.odd)
	if err != nil || len(cat.Months) != 1 {
		t.Fatal(cat, err)
	}
	mustFetch(t, p, s, filesOf(january, []manifests.Entry{e}))
	wantSound(t, c)
	if es, err := os.ReadDir(dir); err != nil || len(es) != 1 {
		t.Fatal(es, err)
	}
}

// manifestOf makes up a manifest of so many points, as big as a real one.
func manifestOf(m utc.Month, n int, r *rand.Rand) *manifests.Manifest {
	man := &manifests.Manifest{Format: manifests.Format, Version: manifests.FormatVersion, Commit: "c", Month: m}
	hash := func() string {
		var b [32]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return fmt.Sprintf("%x", b)
	}
	for i := range n {
		days := sample.NewDayCounts(m)
		for d := range days {
			switch {
			case r.IntN(50) > 0:
				days[d] = 1440
			case r.IntN(2) > 0:
				days[d] = 0
			}
		}
		e := manifests.Entry{ID: int32(i + 1), Name: fmt.Sprintf("Building%d.AHU%d.SupplyTemp%d", i%7, i%40, i), Days: days, Samples: days.Samples()}
		if e.Samples > 0 {
			first, last := int64(0), int64(0)
			for d, n := range days {
				if n > 0 {
					if first == 0 {
						first = (m.First() + utc.Day(d)).Start()
					}
					last = (m.First() + utc.Day(d)).End() - 60_000
				}
			}
			e.Path, e.Bytes = keyOf(m, e.ID), 50_000+int64(r.IntN(150_000))
			e.ETag, e.SHA256, e.RowsSHA256, e.First, e.Last = hash()[:32], hash(), hash(), &first, &last
		} else if days.Archived() == 0 {
			e.Days[0] = 0
		}
		man.Points = append(man.Points, e)
		man.Totals.Points++
		if e.Path != "" {
			man.Totals.Files++
		}
		man.Totals.Samples += e.Samples
		man.Totals.Bytes += e.Bytes
	}
	return man
}

func TestEncodeCatalogFreesItsMemory(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	for _, n := range []int{0, 1, 100} {
		if _, err := encodeCatalog(mem, manifestOf(january, n, rand.New(rand.NewPCG(1, 2)))); err != nil {
			t.Fatal(err)
		}
	}
}

// putYears stores 35 manifests of 4,500 points.
func putYears(tb testing.TB) (object.Store, []*manifests.Manifest) {
	tb.Helper()
	s := newRAM()
	r := rand.New(rand.NewPCG(1, 1))
	var all []*manifests.Manifest
	for i := range 35 {
		m := manifestOf(january+utc.Month(i), 4500, r)
		if _, err := s.Put(context.Background(), manifests.KeyOf(m.Month), manifests.Encode(m), object.PutOptions{}); err != nil {
			tb.Fatal(err)
		}
		all = append(all, m)
	}
	return s, all
}

// BenchmarkCatalog is of 35 months of 4,500 points.
func BenchmarkCatalog(b *testing.B) {
	s, all := putYears(b)
	c := openCache(b, b.TempDir(), large)
	first := pinned(b, c)
	cat := mustCatalog(b, first, s)
	if len(cat.Months) != len(all) || len(cat.Bad) != 0 {
		b.Fatalf("%+v", cat.Bad)
	}
	u, err := c.Usage()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("same session", func(b *testing.B) {
		start, stop := cpu(b)
		for range b.N {
			start()
			mustCatalog(b, first, s)
			stop()
		}
	})
	b.Run("new session", func(b *testing.B) {
		start, stop := cpu(b)
		for range b.N {
			p := pinned(b, c)
			start()
			mustCatalog(b, p, s)
			stop()
			p.Close()
		}
		b.ReportMetric(float64(u.Bytes)/1e6, "MB")
	})
	b.Run("encode one", func(b *testing.B) {
		start, stop := cpu(b)
		for range b.N {
			start()
			if _, err := encodeCatalog(memory.DefaultAllocator, all[0]); err != nil {
				b.Fatal(err)
			}
			stop()
		}
	})
}
