package lake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/object/dir"
	"etl/internal/object/objecttest"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/manifests"
)

// ramStore is a store in memory that takes its time.
type ramStore struct {
	latency time.Duration

	mu      sync.Mutex
	objects map[object.Key]storedObject
	n       int
	odd     string // begins each ETag
	gets    map[object.Key]int
	live    map[object.Key]int // gets under way
	twice   bool               // two gets of one month file at once
}

type storedObject struct {
	data []byte
	etag string
}

func newRAM() *ramStore {
	return &ramStore{objects: map[object.Key]storedObject{}, gets: map[object.Key]int{}, live: map[object.Key]int{}}
}

func (m *ramStore) Get(ctx context.Context, key object.Key) ([]byte, object.Attrs, error) {
	m.mu.Lock()
	m.gets[key]++
	m.live[key]++
	m.twice = m.twice || m.live[key] > 1 && strings.HasPrefix(string(key), "timeseries/")
	o, ok := m.objects[key]
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.live[key]--
		m.mu.Unlock()
	}()
	if m.latency > 0 {
		t := time.NewTimer(m.latency)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, object.Attrs{}, err
	}
	if !ok {
		return nil, object.Attrs{}, fault.Errorf(fault.NotExist, "get %s: none", key)
	}
	return bytes.Clone(o.data), object.Attrs{Key: key, Size: int64(len(o.data)), ETag: o.etag}, nil
}

func (m *ramStore) Put(ctx context.Context, key object.Key, data []byte, _ object.PutOptions) (object.Attrs, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	o := storedObject{bytes.Clone(data), m.odd + strconv.Itoa(m.n)}
	m.objects[key] = o
	return object.Attrs{Key: key, Size: int64(len(data)), ETag: o.etag}, nil
}

func (m *ramStore) List(ctx context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	return func(yield func(object.Attrs, error) bool) {
		m.mu.Lock()
		objects := maps.Clone(m.objects)
		m.mu.Unlock()
		for _, k := range slices.Sorted(maps.Keys(objects)) {
			if strings.HasPrefix(string(k), prefix) && !yield(object.Attrs{Key: k, Size: int64(len(objects[k].data)), ETag: objects[k].etag}, nil) {
				return
			}
		}
	}
}

func (m *ramStore) count(prefix string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, c := range m.gets {
		if strings.HasPrefix(string(k), prefix) {
			n += c
		}
	}
	return n
}

// unlinkable is a directory store from which nothing can be linked: it is on
// another file system than the cache.
type unlinkable struct {
	object.Linker
	tries atomic.Int64
}

func (u *unlinkable) Link(_ context.Context, keys []object.Key, _ []string) []error {
	u.tries.Add(1)
	var errs []error
	for _, key := range keys {
		errs = append(errs, fault.Errorf(fault.Invalid, "link %s: %w", key, object.ErrNoLink))
	}
	return errs
}

// kinds are the stores that each test of fetching goes through.
var kinds = map[string]func(t testing.TB) object.Store{
	"memory":     func(testing.TB) object.Store { return newRAM() },
	"directory":  func(t testing.TB) object.Store { return openDir(t) },
	"unlinkable": func(t testing.TB) object.Store { return &unlinkable{Linker: openDir(t)} },
}

func openDir(t testing.TB) *dir.Store {
	t.Helper()
	s, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func eachKind(t *testing.T, test func(t *testing.T, store object.Store)) {
	for name, open := range kinds {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

const january = utc.Month(54 * 12) // 2024-01

func keyOf(m utc.Month, point int32) object.Key {
	return object.Key(fmt.Sprintf("%spoint-%d.parquet", manifests.DirOf(m), point))
}

// monthFile is a month file of n samples that no other seed has.
func monthFile(t testing.TB, m utc.Month, point int32, n int, seed uint64) ([]byte, monthfile.Info) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, uint64(point)))
	var s sample.Series
	days := sample.NewDayCounts(m)
	step := int64(m.Len()) * utc.DayMillis / int64(n+1)
	for i := range n {
		s.Append(m.First().Start()+int64(i)*step, r.Float64(), 192, 0)
	}
	sample.CountDays(days, m, s.TS)
	if n == 0 {
		days[0] = 0
	}
	data, info, err := monthfile.NewEncoder(monthfile.Options{}).Encode(nil, monthfile.Meta{PointID: point, PointName: fmt.Sprint("point ", point), Month: m, Days: days}, &s)
	if err != nil {
		t.Fatal(err)
	}
	return data, info
}

// putFile stores a month file and returns its entry.
func putFile(t testing.TB, s object.Store, m utc.Month, point int32, n int, seed uint64) manifests.Entry {
	t.Helper()
	data, info := monthFile(t, m, point, n, seed)
	a, err := s.Put(t.Context(), keyOf(m, point), data, object.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := manifests.NewEntry(a.Key, data, a.ETag, manifests.Facts{Point: point, Name: info.PointName, Month: m, Days: info.Days,
		Samples: info.Samples, First: info.First, Last: info.Last, RowsSHA256: info.RowsSHA256})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func putManifest(t testing.TB, s object.Store, m utc.Month, entries []manifests.Entry) {
	t.Helper()
	man := &manifests.Manifest{Format: manifests.Format, Version: manifests.FormatVersion, Commit: fmt.Sprint(rand.Uint64()), Month: m, Points: entries}
	for i := range entries {
		man.Totals.Points++
		if entries[i].Path != "" {
			man.Totals.Files++
		}
		man.Totals.Samples += entries[i].Samples
		man.Totals.Bytes += entries[i].Bytes
	}
	if _, err := manifests.Decode(m, manifests.Encode(man)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), manifests.KeyOf(m), manifests.Encode(man), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// putMonth stores n month files and their manifest.
func putMonth(t testing.TB, s object.Store, m utc.Month, n int) []File {
	t.Helper()
	var entries []manifests.Entry
	for i := range n {
		entries = append(entries, putFile(t, s, m, int32(i+1), 20+i%7, 0))
	}
	putManifest(t, s, m, entries)
	return filesOf(m, entries)
}

func filesOf(m utc.Month, entries []manifests.Entry) []File {
	var fs []File
	for _, e := range entries {
		fs = append(fs, File{m, e.ID, e.Path, e.Bytes, e.ETag, e.SHA256, e.RowsSHA256})
	}
	return fs
}

func openCache(t testing.TB, dir string, size int64) *Cache {
	t.Helper()
	c, err := OpenCache(dir, size)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pinned(t testing.TB, c *Cache) *Pins {
	t.Helper()
	p, err := c.Pin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

const large = 1 << 30

func shaOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// wantLocal checks that the paths show what the files' hashes promise.
func wantLocal(t testing.TB, p *Pins, files []File, got []Local) {
	t.Helper()
	if len(got) != len(files) {
		t.Fatalf("%d paths for %d files", len(got), len(files))
	}
	for i, l := range got {
		data, err := os.ReadFile(l.Path)
		if err != nil || shaOf(data) != files[i].SHA256 || l.Pending || filepath.Dir(l.Path) != p.Dir() {
			t.Fatalf("file %d, %s: %+v: %d bytes, %v", i, files[i].Key, l, len(data), err)
		}
	}
}

func mustFetch(t testing.TB, p *Pins, s object.Store, files []File) []Local {
	t.Helper()
	got, err := p.Fetch(t.Context(), s, files, 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantLocal(t, p, files, got)
	return got
}

// wantSound checks all that a cache promises of its folder while nobody uses it.
func wantSound(t testing.TB, c *Cache) {
	t.Helper()
	all, err := c.scan()
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for _, e := range all {
		sum += e.bytes + overhead
		path := filepath.Join(c.dir, e.dir, e.name)
		switch e.dir {
		case filesDir:
			data, err := os.ReadFile(path)
			if err != nil || shaOf(data)+parquetExt != e.name {
				t.Errorf("%s has another hash: %v", path, err)
			}
			if fi, err := os.Lstat(path); err != nil || fi.Mode() != 0o444 || !fi.ModTime().Equal(verifiedTime) {
				t.Errorf("%s: %v, %v", path, fi, err)
			}
		case catalogDir:
			data, err := os.ReadFile(path)
			if err != nil || catalogName(e.name[:32], filepath.Ext(e.name), data) != e.name {
				t.Errorf("%s has another checksum: %v", path, err)
			}
		}
	}
	if err := c.locked(func(tot *total) error {
		if n, ok := tot.read(); !ok || n < sum || sum > c.size {
			t.Errorf("the cache counts %d (%v), its entries make %d, of %d", n, ok, sum, c.size)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filesDir, verifiedDir, catalogDir} {
		es, err := os.ReadDir(filepath.Join(c.dir, d))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			if !slices.ContainsFunc(all, func(a entry) bool { return a.dir == d && a.name == e.Name() }) {
				t.Errorf("%s/%s is none of the cache's", d, e.Name())
			}
		}
	}
}

// wantNoPins checks that the folders of all sessions are gone.
func wantNoPins(t testing.TB, c *Cache) {
	t.Helper()
	if es, err := os.ReadDir(filepath.Join(c.dir, pinsDir)); err != nil || len(es) != 0 {
		t.Errorf("sessions left: %v, %v", es, err)
	}
}

func TestFetch(t *testing.T) {
	eachKind(t, func(t *testing.T, s object.Store) {
		files := putMonth(t, s, january, 30)
		var before []object.Attrs
		for a := range s.List(t.Context(), "") {
			before = append(before, a)
		}
		bytes := int64(0)
		for _, f := range files {
			bytes += f.Bytes
		}
		c := openCache(t, t.TempDir(), large)
		p := pinned(t, c)
		if n, b := p.Missing(files); n != 30 || b != bytes {
			t.Fatalf("missing %d files, %d bytes; want 30, %d", n, b, bytes)
		}
		// In whatever order, and each as often as one likes.
		r := rand.New(rand.NewPCG(1, 1))
		var wish []File
		for range 100 {
			wish = append(wish, files[r.IntN(20)])
		}
		wish = append(wish, files...)
		told, toldBytes := 0, int64(0)
		got, err := p.Fetch(t.Context(), s, wish, 5, func(n int, b int64) {
			if n != told+1 || b <= toldBytes {
				t.Errorf("told of %d files, %d bytes after %d, %d", n, b, told, toldBytes)
			}
			told, toldBytes = n, b
		})
		if err != nil || told != 30 || toldBytes != bytes {
			t.Fatalf("%d files, %d bytes; %v", told, toldBytes, err)
		}
		wantLocal(t, p, wish, got)
		if n, b := p.Missing(wish); n != 0 || b != 0 {
			t.Fatalf("missing %d files, %d bytes of what was fetched", n, b)
		}
		never := func(int, int64) { t.Error("something was fetched again") }
		for _, q := range []*Pins{p, pinned(t, c), pinned(t, openCache(t, c.root, large))} {
			got, err := q.Fetch(t.Context(), s, wish, 5, never)
			if err != nil {
				t.Fatal(err)
			}
			wantLocal(t, q, wish, got)
		}
		if m, ok := s.(*ramStore); ok && m.count("timeseries/") != 30 {
			t.Errorf("%d gets of 30 files", m.count("timeseries/"))
		}
		if got, err := p.Fetch(t.Context(), s, nil, 5, nil); err != nil || len(got) != 0 {
			t.Fatal(got, err)
		}
		wantSound(t, c)
		u, err := c.Usage()
		want := CacheUsage{Files: 30, Bytes: bytes, Limit: large}
		if _, ok := s.(*dir.Store); ok {
			want = CacheUsage{Links: 30, Limit: large}
		}
		if err != nil || u != want {
			t.Errorf("usage %+v, want %+v; %v", u, want, err)
		}
		var after []object.Attrs
		for a := range s.List(t.Context(), "") {
			after = append(after, a)
		}
		if len(before) != len(after) {
			t.Fatal("the store changed")
		}
		for i := range before {
			if before[i].ETag != after[i].ETag {
				t.Errorf("%s is another version than before", before[i].Key)
			}
		}
		if d, ok := s.(*dir.Store); ok {
			got := mustFetch(t, p, d, files)
			if fi, err := os.Lstat(got[0].Path); err != nil || fi.Mode()&0o200 == 0 {
				t.Errorf("the mode of an object changed: %v, %v", fi, err)
			}
		}
	})
}

func TestPinsOutliveTheCache(t *testing.T) {
	eachKind(t, func(t *testing.T, s object.Store) {
		files := putMonth(t, s, january, 10)
		c := openCache(t, t.TempDir(), large)
		p := pinned(t, c)
		got := mustFetch(t, p, s, files)
		u, err := openCache(t, c.root, large).Clear()
		if err != nil || u.Files+u.Links != 10 {
			t.Fatalf("cleared %+v, %v", u, err)
		}
		// The store moves on as well.
		putFile(t, s, january, 1, 50, 99)
		wantLocal(t, p, files, got)
		if u, err := c.Usage(); err != nil || u != (CacheUsage{Limit: large}) {
			t.Fatalf("%+v, %v", u, err)
		}
		wantSound(t, c)
		q := pinned(t, c)
		mustFetch(t, q, s, files[1:])
		for _, p := range []*Pins{p, q, q} {
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
		}
		wantNoPins(t, c)
	})
}

func TestPending(t *testing.T) {
	eachKind(t, func(t *testing.T, s object.Store) {
		files := putMonth(t, s, january, 3)
		data, _ := monthFile(t, january, 2, 33, 7)
		if _, err := s.Put(t.Context(), files[1].Key, data, object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		c := openCache(t, t.TempDir(), large)
		p := pinned(t, c)
		var all []Local
		for range 3 {
			got, err := p.Fetch(t.Context(), s, append(files, files...), 4, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, l := range got {
				if l.Pending != (i%3 == 1) {
					t.Fatalf("file %d: %+v", i, l)
				}
			}
			all = append(all, got[1])
		}
		for _, l := range all {
			if b, err := os.ReadFile(l.Path); err != nil || !bytes.Equal(b, data) {
				t.Fatal("not the object that is there")
			}
		}
		wantSound(t, c)
		// Once the manifest names it, it is at hand; the old version is stale.
		e := putFile(t, s, january, 2, 33, 7)
		entries := []manifests.Entry{putFile(t, s, january, 1, 20, 0), e, putFile(t, s, january, 3, 22, 0)}
		putManifest(t, s, january, entries)
		if _, ok := s.(*dir.Store); !ok {
			if n, _ := p.Missing(filesOf(january, entries)); n != 0 {
				t.Errorf("%d files missing", n)
			}
		}
		mustFetch(t, p, s, filesOf(january, entries))
		if _, err := p.Fetch(t.Context(), s, files, 4, nil); !errors.Is(err, errStale) {
			t.Errorf("error %v, want stale", err)
		}
		wantSound(t, c)
	})
}

// TestNotTheFile: whatever else lies where the manifest says is named, with the
// command to run, and never answered from.
func TestNotTheFile(t *testing.T) {
	eachKind(t, func(t *testing.T, s object.Store) {
		other, _ := monthFile(t, january, 9, 30, 0)
		later, _ := monthFile(t, january+1, 1, 30, 0)
		good, _ := monthFile(t, january, 1, 200, 5)
		torn := bytes.Clone(good)
		torn[len(torn)/3] ^= 1
		version := bytes.Replace(good, []byte(`{"v":1,`), []byte(`{"v":2,`), 1)
		if bytes.Equal(version, good) {
			t.Fatal("no version in the footer")
		}
		for name, data := range map[string][]byte{"another point's": other, "another month's": later, "damaged": torn, "cut off": good[:len(good)/2],
			"empty": {}, "foreign": []byte("PAR1 and more"), "of a later version": version} {
			t.Run(name, func(t *testing.T) {
				files := putMonth(t, s, january, 2)
				if _, err := s.Put(t.Context(), files[0].Key, data, object.PutOptions{}); err != nil {
					t.Fatal(err)
				}
				c := openCache(t, t.TempDir(), large)
				p := pinned(t, c)
				for range 2 {
					got, err := p.Fetch(t.Context(), s, files, 4, nil)
					if got != nil || !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), string(files[0].Key)) || !strings.Contains(fault.HintOf(err), "etl verify --deep --month 2024-01") {
						t.Fatalf("%v, %v, hint %q", got, err, fault.HintOf(err))
					}
				}
				mustFetch(t, p, s, files[1:])
				wantSound(t, c)
				// Mended, it is fetched.
				putMonth(t, s, january, 2)
				mustFetch(t, p, s, files)
			})
		}
		t.Run("missing", func(t *testing.T) {
			files := putMonth(t, s, january, 2)
			entries := []manifests.Entry{putFile(t, s, january, 1, 20, 0)}
			e := entries[0]
			e.ID, e.Path = 5, keyOf(january, 5)
			putManifest(t, s, january, append(entries, e))
			files = append(files[:1], filesOf(january, []manifests.Entry{e})...)
			files[1].SHA256 = strings.Repeat("ab", 32)
			p := pinned(t, openCache(t, t.TempDir(), large))
			if _, err := p.Fetch(t.Context(), s, files, 4, nil); !errors.Is(err, errStale) {
				t.Fatalf("another hash than the manifest's: %v", err)
			}
			e.SHA256 = files[1].SHA256
			putManifest(t, s, january, append(entries, e))
			if _, err := p.Fetch(t.Context(), s, files, 4, nil); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "missing") {
				t.Fatal(err)
			}
			putManifest(t, s, january, entries)
			if _, err := p.Fetch(t.Context(), s, files, 4, nil); !errors.Is(err, errStale) {
				t.Fatalf("an entry that has gone: %v", err)
			}
		})
		t.Run("manifest lost", func(t *testing.T) {
			files := putMonth(t, s, january, 2)
			s.Put(t.Context(), files[0].Key, good, object.PutOptions{})
			s.Put(t.Context(), manifests.KeyOf(january), []byte("{}"), object.PutOptions{})
			p := pinned(t, openCache(t, t.TempDir(), large))
			if _, err := p.Fetch(t.Context(), s, files, 4, nil); !errors.Is(err, errStale) {
				t.Fatal(err)
			}
		})
	})
}

func TestBadRequests(t *testing.T) {
	s := newRAM()
	files := putMonth(t, s, january, 1)
	dir := t.TempDir()
	p := pinned(t, openCache(t, dir, large))
	for _, sha := range []string{"", "../../x", strings.Repeat("A", 64), "/" + strings.Repeat("a", 63)} {
		f := files[0]
		f.SHA256 = sha
		if _, err := p.Fetch(t.Context(), s, []File{f}, 1, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("sha256 %q: %v", sha, err)
		}
		p.Missing([]File{f})
	}
	f := files[0]
	f.Key = "../x"
	if _, err := p.Fetch(t.Context(), s, []File{f}, 1, nil); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if _, err := OpenCache("", 5); !fault.Is(err, fault.Usage) {
		t.Error(err)
	}
	if _, err := OpenCache(dir, -1); !fault.Is(err, fault.Usage) {
		t.Error(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCache(file, 5); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), file) || !strings.Contains(fault.HintOf(err), "--cache DIR") {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
}

// damage changes a file in place, as a program that is none of etl's would.
func damage(t *testing.T, path string, how string) {
	t.Helper()
	os.Chmod(path, 0o644)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	switch how {
	case "a bit":
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt([]byte{b[len(b)/2] ^ 1}, int64(len(b)/2))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	case "the end":
		if err := os.Truncate(path, int64(len(b)-1)); err != nil {
			t.Fatal(err)
		}
	case "all":
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	case "another file":
		os.Remove(path)
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), len(b)), 0o444); err != nil {
			t.Fatal(err)
		}
	case "a link":
		os.Remove(path)
		if err := os.Symlink("/dev/null", path); err != nil {
			t.Fatal(err)
		}
	}
}

var damages = []string{"a bit", "the end", "all", "another file", "a link"}

// TestDamagedCopy: a copy that something wrote to is fetched again, in the
// session that has it pinned and in others.
func TestDamagedCopy(t *testing.T) {
	for _, how := range damages {
		t.Run(how, func(t *testing.T) {
			s := newRAM()
			files := putMonth(t, s, january, 3)
			c := openCache(t, t.TempDir(), large)
			p := pinned(t, c)
			mustFetch(t, p, s, files)
			damage(t, c.file(files[1].SHA256), how)
			mustFetch(t, pinned(t, c), s, files)
			mustFetch(t, p, s, files)
			if n := s.count(string(files[1].Key)); n < 2 || n > 3 {
				t.Errorf("fetched %d times", n)
			}
			if n := s.count("timeseries/") - s.count(string(files[1].Key)); n != 2 {
				t.Errorf("%d gets of the other two files", n)
			}
			wantSound(t, c)
		})
	}
}

// TestCopiedCache: a cache that was copied by something that keeps no times is
// verified, not fetched again.
func TestCopiedCache(t *testing.T) {
	s := newRAM()
	files := putMonth(t, s, january, 3)
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	mustFetch(t, pinned(t, openCache(t, from, large)), s, files)
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	c := openCache(t, to, large)
	for range 2 {
		mustFetch(t, pinned(t, c), s, files)
	}
	if n := s.count("timeseries/"); n != 3 {
		t.Errorf("%d gets", n)
	}
	for _, f := range files {
		if st, err := lstat(c.file(f.SHA256)); err != nil || !st.sound(f.Bytes) {
			t.Errorf("%+v, %v", st, err)
		}
	}
}

// TestDamagedObject: an object of a directory store that something wrote to in
// place is noticed at the next use, in the session that has it pinned too.
func TestDamagedObject(t *testing.T) {
	for _, how := range damages[:3] {
		t.Run(how, func(t *testing.T) {
			root := t.TempDir()
			s, err := dir.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			files := putMonth(t, s, january, 3)
			c := openCache(t, t.TempDir(), large)
			p := pinned(t, c)
			mustFetch(t, p, s, files)
			path := filepath.Join(root, filepath.FromSlash(string(files[1].Key)))
			was, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damage(t, path, how)
			for _, p := range []*Pins{p, pinned(t, c)} {
				if _, err := p.Fetch(t.Context(), s, files, 4, nil); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), string(files[1].Key)) {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(path, was, 0o644); err != nil {
				t.Fatal(err)
			}
			mustFetch(t, p, s, files)
			wantSound(t, c)
			// A record that names another file, or nonsense, counts for nothing.
			record := c.verified(files[0].SHA256)
			for _, text := range []string{"x", "0-0-0-0", files[2].SHA256} {
				os.Remove(record)
				if err := os.Symlink(text, record); err != nil {
					t.Fatal(err)
				}
				n := 0
				got, err := pinned(t, c).Fetch(t.Context(), s, files[:1], 1, func(int, int64) { n++ })
				if err != nil || n != 1 || len(got) != 1 {
					t.Fatalf("%q: verified %d times; %v", text, n, err)
				}
			}
		})
	}
}

func TestUnlinkable(t *testing.T) {
	s := &unlinkable{Linker: openDir(t)}
	files := putMonth(t, s, january, 50)
	p := pinned(t, openCache(t, t.TempDir(), large))
	mustFetch(t, p, s, files)
	if n := s.tries.Load(); n < 1 || n > 4 {
		t.Errorf("tried %d times to link, with 4 workers", n)
	}
}

// TestFaults breaks each operation on the store in turn: the error is the
// store's, the cache stays sound and what is fetched next is right.
func TestFaults(t *testing.T) {
	for name, act := range map[string]objecttest.Action{
		"transient": objecttest.Fail(fault.Transient), "unavailable": objecttest.Fail(fault.Unavailable), "lost": objecttest.LoseReply(),
	} {
		t.Run(name, func(t *testing.T) {
			s := objecttest.NewFaults(newRAM())
			files := putMonth(t, s, january, 4)
			putMonth(t, s, january+1, 2)
			data, _ := monthFile(t, january, 3, 40, 7) // one is pending
			if _, err := s.Put(t.Context(), files[2].Key, data, object.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := manifests.Register(t.Context(), s, "src", []sample.Point{{ID: 1, Name: "point 1"}}, false); err != nil {
				t.Fatal(err)
			}
			run := func(p *Pins) error {
				c, err := loadCatalog(t.Context(), p, s, "x")
				if err != nil {
					return err
				}
				if len(c.Months) != 2 || len(c.Points) != 1 || len(c.Bad) != 0 || c.PointsErr != nil {
					t.Fatalf("%+v", c)
				}
				got, err := p.Fetch(t.Context(), s, files, 3, nil)
				if err != nil {
					return err
				}
				if !got[2].Pending {
					t.Fatalf("%+v", got)
				}
				wantLocal(t, p, files[:2], got[:2])
				return nil
			}
			s.Reset()
			if err := run(pinned(t, openCache(t, t.TempDir(), large))); err != nil {
				t.Fatal(err)
			}
			ops := s.Count()
			if ops < 9 { // the list, 2 manifests, points, 4 files, the manifest again
				t.Fatalf("%d operations", ops)
			}
			for n := 1; n <= ops; n++ {
				s.Reset()
				s.Inject(objecttest.At(n), act)
				c := openCache(t, t.TempDir(), large)
				p := pinned(t, c)
				if err := run(p); !fault.Is(err, fault.Transient) && !fault.Is(err, fault.Unavailable) || len(s.Fired()) != 1 {
					t.Fatalf("fault at %d of %d: %v, fired %v", n, ops, err, s.Fired())
				}
				wantSound(t, c)
				s.Reset()
				for _, p := range []*Pins{p, pinned(t, c)} {
					if err := run(p); err != nil {
						t.Fatalf("after a fault at %d: %v", n, err)
					}
				}
				wantSound(t, c)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	eachKind(t, func(t *testing.T, s object.Store) {
		files := putMonth(t, s, january, 20)
		if m, ok := s.(*ramStore); ok {
			m.latency = 5 * time.Millisecond
		}
		c := openCache(t, t.TempDir(), large)
		p := pinned(t, c)
		for n := range 8 {
			ctx, cancel := context.WithCancel(t.Context())
			if n == 0 {
				cancel()
			}
			_, err := p.Fetch(ctx, s, files, 2, func(files int, _ int64) {
				if files >= n/4+1 {
					cancel()
				}
			})
			if n < 4 && !errors.Is(err, context.Canceled) {
				t.Fatalf("cancelled after %d: %v", n, err)
			}
			cancel()
			wantSound(t, c)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := loadCatalog(ctx, p, s, "x"); !errors.Is(err, context.Canceled) {
			if _, ok := s.(*ramStore); !ok {
				t.Fatal(err)
			}
		}
		mustFetch(t, p, s, files)
		wantSound(t, c)
	})
}

// TestLRU compares the cache with a model of it.
func TestLRU(t *testing.T) {
	s := newRAM()
	var files []File
	var entries []manifests.Entry
	for i := range 12 {
		entries = append(entries, putFile(t, s, january, int32(i+1), []int{1, 30, 100, 300}[i%4], 0))
	}
	putManifest(t, s, january, entries)
	files = filesOf(january, entries)
	total := int64(0)
	for _, f := range files {
		total += f.Bytes + overhead
	}
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		size := rapid.Int64Range(0, total*5/4).Draw(rt, "size")
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		open := func() (*Cache, *Pins) {
			c := openCache(t, dir, size)
			c.now = func() time.Time { return now }
			return c, pinned(t, c)
		}
		c, p := open()
		used := map[string]time.Time{}
		cost := map[string]int64{}
		sum := int64(0)
		var session map[string]bool
		evict := func(most int64) {
			for sum > most {
				var oldest string
				for sha, at := range used {
					if oldest == "" || at.Before(used[oldest]) {
						oldest = sha
					}
				}
				sum -= cost[oldest]
				delete(used, oldest)
			}
		}
		session = map[string]bool{}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			now = now.Add(touchStep + time.Second)
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0: // a new session, perhaps of another size
				size = rapid.Int64Range(0, total*5/4).Draw(rt, "size")
				if err := p.Close(); err != nil {
					rt.Fatal(err)
				}
				c, p = open()
				session = map[string]bool{}
				evict(size)
				continue
			}
			f := files[rapid.IntRange(0, len(files)-1).Draw(rt, "file")]
			mustFetch(t, p, s, []File{f})
			_, there := used[f.SHA256]
			f.Bytes += overhead
			switch {
			case there:
				used[f.SHA256] = now
			case session[f.SHA256]: // evicted, and pinned all the same
			case f.Bytes <= size:
				if sum > size-f.Bytes {
					evict(min(size-f.Bytes, size/10*9))
				}
				used[f.SHA256], cost[f.SHA256] = now, f.Bytes
				sum += f.Bytes
			}
			session[f.SHA256] = true
			all, err := c.scan()
			if err != nil {
				rt.Fatal(err)
			}
			got, actual := []string{}, int64(0)
			for _, e := range all {
				got = append(got, strings.TrimSuffix(e.name, parquetExt))
				actual += e.bytes + overhead
			}
			slices.Sort(got)
			if want := slices.Sorted(maps.Keys(used)); !slices.Equal(got, want) || actual != sum || actual > size {
				rt.Fatalf("the cache of %d bytes holds %d in %d files, want %d in %d:\n%v\n%v", size, actual, len(got), sum, len(want), got, want)
			}
		}
		p.Close()
	})
}

// TestLinksAreEvicted: what is known of a directory store is bounded too.
func TestLinksAreEvicted(t *testing.T) {
	s := openDir(t)
	files := putMonth(t, s, january, 40)
	c := openCache(t, t.TempDir(), 10*overhead)
	p := pinned(t, c)
	for i := range files {
		mustFetch(t, p, s, files[i:i+1])
		if u, err := c.Usage(); err != nil || u.Links > 10 || u.Links < min(i+1, 9) {
			t.Fatalf("after %d: %+v, %v", i+1, u, err)
		}
	}
	mustFetch(t, p, s, files)
	wantSound(t, c)
}

func TestTotalIsCountedAnew(t *testing.T) {
	s := newRAM()
	files := putMonth(t, s, january, 6)
	for _, text := range []string{"", "x", "-5\n", strings.Repeat("9", 40), "9223372036854775807"} {
		c := openCache(t, t.TempDir(), large)
		mustFetch(t, pinned(t, c), s, files[:3])
		if err := os.WriteFile(filepath.Join(c.dir, totalName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		mustFetch(t, pinned(t, c), s, files)
		wantSound(t, c)
		if u, err := c.Usage(); err != nil || u.Files != 6 {
			t.Fatalf("%q: %+v, %v", text, u, err)
		}
	}
}

// TestForeignFiles: a folder that holds other things keeps them.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, 2000)
	foreign := []string{"notes.txt", "v1/files/notes.parquet", "v1/files/" + strings.Repeat("a", 64), "v1/verified/x", "v1/catalog/x.parquet", "v1/catalog/" + strings.Repeat("a", 32) + "-1-zz.parquet"}
	for _, f := range foreign {
		if err := os.WriteFile(filepath.Join(dir, f), make([]byte, 5000), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	s := newRAM()
	files := putMonth(t, s, january, 5)
	p := pinned(t, c)
	mustFetch(t, p, s, files)
	if _, err := c.Clear(); err != nil {
		t.Fatal(err)
	}
	for _, f := range foreign {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			t.Error(err)
		}
	}
}

// TestGoroutines: many goroutines in two sessions want the same files; none is
// fetched by two at once, and most once.
func TestGoroutines(t *testing.T) {
	for _, size := range []int64{large, 20_000, 0} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := newRAM()
			s.latency = time.Millisecond
			files := putMonth(t, s, january, 40)
			c := openCache(t, t.TempDir(), size)
			sessions := []*Pins{pinned(t, c), pinned(t, c)}
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			var wg sync.WaitGroup
			for g := range 8 {
				r := rand.New(rand.NewPCG(seed, uint64(g)))
				p := sessions[g%2]
				wg.Go(func() {
					for range 5 {
						var wish []File
						for range 20 {
							wish = append(wish, files[r.IntN(len(files))])
						}
						got, err := p.Fetch(t.Context(), s, wish, 4, nil)
						if err != nil {
							t.Error(err)
							return
						}
						for i, l := range got {
							if b, err := os.ReadFile(l.Path); err != nil || shaOf(b) != wish[i].SHA256 {
								t.Errorf("%s: %v", l.Path, err)
							}
						}
						p.Missing(wish)
					}
				})
			}
			wg.Wait()
			if s.twice {
				t.Error("a file was fetched by two at once")
			}
			most := len(files)
			if size < large {
				most *= 2 // each session has its own
			}
			if n := s.count("timeseries/"); n > most {
				t.Errorf("%d gets of %d files", n, len(files))
			}
			wantSound(t, c)
		})
	}
}

// The environment of a child process: the folder of the store and of the cache,
// the cache's size and a seed.
const childEnv = "ETL_LAKE_TEST_CHILD"

// TestCacheChild is no test: TestProcesses runs it in processes of its own.
func TestCacheChild(t *testing.T) {
	args := strings.Split(os.Getenv(childEnv), "\n")
	if len(args) != 5 {
		t.Skip("only as a child process")
	}
	size, _ := strconv.ParseInt(args[2], 10, 64)
	seed, _ := strconv.ParseUint(args[3], 10, 64)
	d, err := dir.Open(args[0])
	if err != nil {
		t.Fatal(err)
	}
	var s object.Store = d
	if args[4] == "copies" {
		s = &unlinkable{Linker: d}
	}
	r := rand.New(rand.NewPCG(seed, 0))
	c := openCache(t, args[1], size)
	for session := 0; session < 6; session++ {
		p, err := c.Pin()
		if err != nil {
			t.Fatal(err)
		}
		cat, err := loadCatalog(t.Context(), p, s, "store")
		if err != nil || len(cat.Months) != 1 {
			t.Fatal(cat, err)
		}
		m, _, err := manifests.Load(t.Context(), s, january)
		if err != nil {
			t.Fatal(err)
		}
		files := filesOf(january, m.Points)
		type promise struct {
			file  File
			local Local
		}
		var promised []promise
		for range 4 {
			var wish []File
			for range 30 {
				wish = append(wish, files[r.IntN(len(files))])
			}
			got, err := p.Fetch(t.Context(), s, wish, 4, nil)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println("fetched")
			for i := range got {
				promised = append(promised, promise{wish[i], got[i]})
			}
			for _, pr := range promised {
				if b, err := os.ReadFile(pr.local.Path); err != nil || shaOf(b) != pr.file.SHA256 || pr.local.Pending {
					t.Fatalf("%s: %v", pr.local.Path, err)
				}
			}
			if _, err := os.Stat(cat.Months[0].Path); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func child(t *testing.T, store, cache string, size int64, seed uint64, kind string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCacheChild$")
	cmd.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{store, cache, fmt.Sprint(size), fmt.Sprint(seed), kind}, "\n"))
	return cmd
}

// TestProcesses: processes fetch, evict and read at once; some are killed in
// the middle. The others notice nothing, and the cache is sound afterwards.
func TestProcesses(t *testing.T) {
	for _, kind := range []string{"copies", "links"} {
		for _, size := range []int64{large, 40_000, 12_000} {
			t.Run(fmt.Sprint(kind, " ", size), func(t *testing.T) {
				seed := rand.Uint64()
				t.Logf("seed %d", seed)
				store, cache := t.TempDir(), t.TempDir()
				s, err := dir.Open(store)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				files := putMonth(t, s, january, 60)
				var killed, whole []*exec.Cmd
				var outs []*bytes.Buffer
				for i := range 5 {
					cmd := child(t, store, cache, size, seed+uint64(i), kind)
					if i < 3 {
						out := &bytes.Buffer{}
						cmd.Stdout, cmd.Stderr = out, out
						whole, outs = append(whole, cmd), append(outs, out)
						if err := cmd.Start(); err != nil {
							t.Fatal(err)
						}
						continue
					}
					// Killed after its first lines: it has pins, and is fetching more.
					out, err := cmd.StdoutPipe()
					if err == nil {
						err = cmd.Start()
					}
					if err != nil {
						t.Fatal(err)
					}
					killed = append(killed, cmd)
					b := make([]byte, 1)
					for lines := 0; lines <= i-3; {
						if _, err := out.Read(b); err != nil {
							t.Fatal(err)
						}
						if b[0] == '\n' {
							lines++
						}
					}
					time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
				for _, cmd := range killed {
					cmd.Wait()
				}
				for i, cmd := range whole {
					if err := cmd.Wait(); err != nil {
						t.Errorf("%v: %s", err, outs[i])
					}
				}
				c := openCache(t, cache, size)
				wantSound(t, c)
				p := pinned(t, c) // sweeps
				mustFetch(t, p, s, files)
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
				wantNoPins(t, c)
				wantSound(t, c)
			})
		}
	}
}

// TestSweep: sessions that live keep their folder, whatever sweeps.
func TestSweep(t *testing.T) {
	c := openCache(t, t.TempDir(), large)
	p := pinned(t, c)
	dead := filepath.Join(c.dir, pinsDir, "dead")
	orphan := filepath.Join(c.dir, pinsDir, "orphan")
	for _, d := range []string{dead, orphan} {
		if err := os.MkdirAll(filepath.Join(d, "below"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dead+lockExt, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	q := pinned(t, openCache(t, c.root, large))
	for path, want := range map[string]bool{p.Dir(): true, q.Dir(): true, dead: false, dead + lockExt: false, orphan: false} {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) == want {
			t.Errorf("%s: %v, want it there: %v", path, err, want)
		}
	}
	// Sessions that come and go at once never lose theirs.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				p, err := c.Pin()
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(p.Dir(), "x"), nil, 0o600); err != nil {
					t.Error(err)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestFolderRemoved: a cache that is removed under a session says so.
func TestFolderRemoved(t *testing.T) {
	s := newRAM()
	files := putMonth(t, s, january, 2)
	c := openCache(t, t.TempDir(), large)
	p := pinned(t, c)
	if err := os.RemoveAll(c.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Fetch(t.Context(), s, files, 1, nil); !fault.Is(err, fault.Transient) || !strings.Contains(err.Error(), c.root) {
		t.Fatal(err)
	}
}

func benchmarkFetch(b *testing.B, s object.Store) {
	var entries []manifests.Entry
	for i := range 4500 {
		entries = append(entries, putFile(b, s, january, int32(i+1), 20, 0))
	}
	files := filesOf(january, entries)
	c := openCache(b, b.TempDir(), large)
	first := pinned(b, c)
	if _, err := first.Fetch(b.Context(), s, files, 32, nil); err != nil {
		b.Fatal(err)
	}
	fetch := func(b *testing.B, p *Pins) {
		got, err := p.Fetch(b.Context(), s, files, 32, func(int, int64) { b.Error("not warm") })
		if err != nil || len(got) != len(files) {
			b.Fatal(err)
		}
	}
	b.Run("same session", func(b *testing.B) {
		start, stop := cpu(b)
		for range b.N {
			start()
			fetch(b, first)
			stop()
		}
	})
	b.Run("new session", func(b *testing.B) {
		start, stop := cpu(b)
		for range b.N {
			p := pinned(b, c)
			start()
			fetch(b, p)
			stop()
			p.Close()
		}
	})
	b.Run("close", func(b *testing.B) {
		start, stop := cpu(b)
		for range b.N {
			p := pinned(b, c)
			fetch(b, p)
			start()
			p.Close()
			stop()
		}
	})
	b.Run("missing", func(b *testing.B) {
		p := pinned(b, c)
		start, stop := cpu(b)
		for range b.N {
			start()
			if n, _ := p.Missing(files); n != 0 {
				b.Fatal(n)
			}
			stop()
		}
	})
	b.Run("cold", func(b *testing.B) {
		start, stop := cpu(b)
		for range b.N {
			p := pinned(b, openCache(b, b.TempDir(), large))
			start()
			if _, err := p.Fetch(b.Context(), s, files, 32, nil); err != nil {
				b.Fatal(err)
			}
			stop()
		}
	})
}

// cpu reports the processor time of an operation beside the time on the clock,
// which on a busy machine says little.
func cpu(b *testing.B) (start func(), stop func()) {
	now := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var at, sum time.Duration
	n := 0
	start = func() { at = now(); b.StartTimer() }
	stop = func() {
		b.StopTimer()
		sum += now() - at
		n++
		b.ReportMetric(float64(sum.Microseconds())/1000/float64(n), "cpu-ms/op")
	}
	return start, stop
}

func BenchmarkFetchLinks(b *testing.B)  { benchmarkFetch(b, openDir(b)) }
func BenchmarkFetchCopies(b *testing.B) { benchmarkFetch(b, newRAM()) }

// BenchmarkFetchSlow is bound by a store with 40 ms of latency: 4,500 files at
// 32 a time take it 5.63 s.
func BenchmarkFetchSlow(b *testing.B) {
	s := newRAM()
	var entries []manifests.Entry
	for i := range 4500 {
		entries = append(entries, putFile(b, s, january, int32(i+1), 20, 0))
	}
	files := filesOf(january, entries)
	s.latency = 40 * time.Millisecond
	for b.Loop() {
		p := pinned(b, openCache(b, b.TempDir(), large))
		if _, err := p.Fetch(b.Context(), s, files, 32, nil); err != nil {
			b.Fatal(err)
		}
	}
}
