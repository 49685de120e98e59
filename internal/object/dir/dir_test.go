//go:build linux || darwin

package dir

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/objecttest"
)

// A child process increments the object "counter" of the store childStore,
// childTimes times, and prints a line for each increment that returned.
const (
	childStore = "ETL_DIR_TEST_STORE"
	childTimes = "ETL_DIR_TEST_TIMES"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childStore); path != "" {
		if err := child(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(path string) error {
	s, err := Open(path)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(os.Getenv(childTimes))
	if err != nil {
		return err
	}
	for range n {
		if _, err := objecttest.Increment(context.Background(), s, "counter"); err != nil {
			return err
		}
		fmt.Println("acknowledged")
	}
	return nil
}

func open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustPut(t testing.TB, s *Store, key object.Key, data string) object.Attrs {
	t.Helper()
	a, err := s.Put(context.Background(), key, []byte(data), object.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func wantGet(t *testing.T, s *Store, key object.Key, want string) object.Attrs {
	t.Helper()
	data, a, err := s.Get(t.Context(), key)
	if err != nil || string(data) != want {
		t.Fatalf("get %s: %q, %v; want %q", key, data, err, want)
	}
	return a
}

func wantFault(t *testing.T, err error, k fault.Kind, text string) {
	t.Helper()
	if !fault.Is(err, k) || !strings.Contains(err.Error(), text) {
		t.Fatalf("error %v of kind %s, want kind %s with %q in it", err, fault.KindOf(err), k, text)
	}
	if k == fault.Unavailable && fault.HintOf(err) == "" {
		t.Fatalf("error %v has no hint", err)
	}
}

func keys(t *testing.T, s *Store, prefix string) []string {
	t.Helper()
	out := []string{}
	for a, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(a.Key))
	}
	return out
}

// temps lists what lies in the folder of temporary files.
func temps(t *testing.T, s *Store) []string {
	t.Helper()
	es, err := os.ReadDir(filepath.Join(s.path, tempDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

func TestConformance(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return open(t) })
}

func TestConformanceOfTwoStores(t *testing.T) {
	// Two stores over one directory, taken in turns, know no more of each
	// other than two processes do.
	objecttest.Run(t, func(t *testing.T) object.Store {
		a := open(t)
		b, err := Open(a.path)
		if err != nil {
			t.Fatal(err)
		}
		return &turns{stores: [2]*Store{a, b}}
	})
}

type turns struct {
	stores [2]*Store
	n      atomic.Int64
}

func (s *turns) next() *Store { return s.stores[s.n.Add(1)%2] }

func (s *turns) Get(ctx context.Context, k object.Key) ([]byte, object.Attrs, error) {
	return s.next().Get(ctx, k)
}

func (s *turns) Put(ctx context.Context, k object.Key, b []byte, o object.PutOptions) (object.Attrs, error) {
	return s.next().Put(ctx, k, b, o)
}

func (s *turns) List(ctx context.Context, p string) iter.Seq2[object.Attrs, error] {
	return s.next().List(ctx, p)
}

func TestOpen(t *testing.T) {
	base := t.TempDir()
	deep := filepath.Join(base, "a", "b", "c")
	s, err := Open(deep)
	if err != nil {
		t.Fatal(err)
	}
	if es, err := os.ReadDir(deep); err != nil || len(es) != 0 {
		t.Fatalf("Open wrote into the directory: %v, %v", es, err)
	}
	if got := keys(t, s, ""); len(got) != 0 {
		t.Fatal(got)
	}
	mustPut(t, s, "k", "x")
	if again, err := Open(deep); err != nil {
		t.Fatal(err)
	} else {
		wantGet(t, again, "k", "x")
	}

	_, err = Open("")
	wantFault(t, err, fault.Invalid, "no directory")
	_, err = Open(filepath.Join(deep, "k"))
	wantFault(t, err, fault.Invalid, "not a directory")
	_, err = Open(filepath.Join(deep, "k", "below"))
	wantFault(t, err, fault.Invalid, "not a directory")

	// The directory itself may be a link: that is the user's choice.
	link := filepath.Join(base, "link")
	if err := os.Symlink(deep, link); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(link); err != nil {
		t.Fatal(err)
	} else {
		wantGet(t, s, "k", "x")
	}
	if s, err := Open(filepath.Join(link, "new", "store")); err != nil {
		t.Fatal(err)
	} else {
		mustPut(t, s, "k", "y")
	}
}

func TestClose(t *testing.T) {
	s := open(t)
	mustPut(t, s, "d/k", "x")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, get := s.Get(t.Context(), "d/k")
	_, put := s.Put(t.Context(), "d/k", nil, object.PutOptions{})
	var list error
	for _, list = range s.List(t.Context(), "") {
	}
	for what, err := range map[string]error{"get": get, "put": put, "list": list} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}

// descriptors counts the open files of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	runtime.GC() // closes those of the stores that a test left open
	es, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}

// TestDescriptors ends each operation in each of its ways, the failures of a
// write apart, which TestFaultAtEveryStep counts.
func TestDescriptors(t *testing.T) {
	s := open(t)
	a := mustPut(t, s, "a/b/k", "x")
	mustPut(t, s, "a/c/k", "x")
	for name, target := range map[string]string{"link": "a", "a/link": "b/k"} {
		if err := os.Symlink(target, filepath.Join(s.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	long := object.Key("a/" + strings.Repeat("n", 256))
	before := descriptors(t)
	for range 20 {
		for _, k := range []object.Key{"a/b/k", "a", "a/b", "a/b/k/l", "a/b/none", "none/k", "link", "link/b/k", "a/link", long, long + "/k", ".etl/x"} {
			s.Get(t.Context(), k)
			s.Put(t.Context(), k, nil, object.PutOptions{IfMatch: "1-1"})
			if k != "a/b/none" && k != "none/k" {
				s.Put(t.Context(), k, nil, object.PutOptions{})
			}
			keys(t, s, string(k))
			keys(t, s, string(k)+"/")
		}
		for range s.List(t.Context(), "") {
			break
		}
		ctx, cancel := context.WithCancel(t.Context())
		for range s.List(ctx, "") {
			cancel()
		}
		cancel()
	}
	if after := descriptors(t); after > before {
		t.Fatalf("%d files are open, %d were before", after, before)
	}
	if b := wantGet(t, s, "a/b/k", ""); b.ETag == a.ETag {
		t.Fatal("nothing was written: this test tests nothing")
	}
}

func TestMovedFolder(t *testing.T) {
	// A folder in use is moved away; then a link to it, then a new one takes its place.
	s := open(t)
	mustPut(t, s, "a/b/k", "old")
	at := func(name string) string { return filepath.Join(s.path, name) }
	if err := os.Rename(at("a"), at("moved")); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Get(t.Context(), "a/b/k")
	wantFault(t, err, fault.NotExist, "get a/b/k")
	if err := os.Symlink("moved", at("a")); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Get(t.Context(), "a/b/k")
	wantFault(t, err, fault.Invalid, "a is a symbolic link")
	_, err = s.Put(t.Context(), "a/b/k", nil, object.PutOptions{})
	wantFault(t, err, fault.Invalid, "a is a symbolic link")
	if err := os.Remove(at("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "a/b/k", []byte("new"), object.PutOptions{IfAbsent: true}); err != nil {
		t.Fatal(err)
	}
	wantGet(t, s, "a/b/k", "new")
	wantGet(t, s, "moved/b/k", "old")

	// The locks exclude another process also after .etl was moved and made anew.
	if err := os.Rename(at(".etl"), at("away")); err != nil {
		t.Fatal(err)
	}
	other, err := Open(s.path)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, other, "a/b/k", "newer")
	unlock, err := s.lock(t.Context(), "a/b/k")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err = other.Put(ctx, "a/b/k", nil, object.PutOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("put under a held lock: %v", err)
	}
}

func TestReservedKeys(t *testing.T) {
	s := open(t)
	mustPut(t, s, "x/.etl", "fine")
	mustPut(t, s, ".etl2", "fine")
	for _, k := range []object.Key{".etl", ".etl/tmp/x", ".etl/locks/00", ".ETL/x", ".Etl"} {
		_, err := s.Put(t.Context(), k, nil, object.PutOptions{})
		wantFault(t, err, fault.Invalid, "reserved")
		_, _, err = s.Get(t.Context(), k)
		wantFault(t, err, fault.Invalid, "reserved")
		if got := keys(t, s, string(k)+"/"); len(got) != 0 {
			t.Fatalf("list %s/ shows %q", k, got)
		}
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{".etl2", "x/.etl"}) {
		t.Fatalf("list shows %q", got)
	}
}

func TestKeyIsFolder(t *testing.T) {
	s := open(t)
	mustPut(t, s, "a/b/c", "x")
	for _, o := range []object.PutOptions{{}, {IfAbsent: true}, {IfMatch: "1-1"}} {
		for _, k := range []object.Key{"a", "a/b"} {
			_, err := s.Put(t.Context(), k, []byte("y"), o)
			wantFault(t, err, fault.Invalid, "is a folder")
		}
	}
	for _, k := range []object.Key{"a/b/c/d", "a/b/c/d/e"} {
		_, err := s.Put(t.Context(), k, []byte("y"), object.PutOptions{})
		wantFault(t, err, fault.Invalid, "a/b/c is an object")
	}
	_, _, err := s.Get(t.Context(), "a/b")
	wantFault(t, err, fault.NotExist, "get a/b")
	_, _, err = s.Get(t.Context(), "a/b/c/d")
	wantFault(t, err, fault.NotExist, "get a/b/c/d")
	wantGet(t, s, "a/b/c", "x")
	if got := temps(t, s); len(got) != 0 {
		t.Fatalf("temporary files left: %q", got)
	}
}

func TestLongSegment(t *testing.T) {
	s := open(t)
	fits := object.Key("d/" + strings.Repeat("n", 255))
	mustPut(t, s, fits, "x")
	wantGet(t, s, fits, "x")
	for _, k := range []object.Key{fits + "n", fits + "n/x"} {
		_, err := s.Put(t.Context(), k, nil, object.PutOptions{})
		wantFault(t, err, fault.Invalid, "longer than the file system")
		_, _, err = s.Get(t.Context(), k)
		wantFault(t, err, fault.Invalid, "longer than the file system")
	}
	if got := keys(t, s, string(fits)+"n"); len(got) != 0 {
		t.Fatal(got)
	}
}

// TestNothingOutside shows that neither links nor special files lead a read, a
// write or a listing anywhere.
func TestNothingOutside(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t)
	mustPut(t, s, "real/k", "x")
	mustPut(t, s, "n", "x")
	in := func(name string) string { return filepath.Join(s.path, name) }
	for name, target := range map[string]string{
		"file": secret, "folder": outside, "dangling": filepath.Join(outside, "new"),
		"inner": "n", "alias": "real", "real/up": "..", "real/file": secret,
	} {
		if err := os.Symlink(target, in(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(in("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, k := range []object.Key{
		"file", "folder", "folder/secret", "folder/new", "dangling", "inner", "alias", "alias/k", "alias/new",
		"real/up", "real/up/n", "real/file", "pipe",
	} {
		_, _, err := s.Get(t.Context(), k)
		wantFault(t, err, fault.Invalid, "not an object")
		for _, o := range []object.PutOptions{{}, {IfAbsent: true}, {IfMatch: "1-1"}} {
			_, err = s.Put(t.Context(), k, []byte("y"), o)
			wantFault(t, err, fault.Invalid, "not an object")
		}
	}
	for prefix, want := range map[string][]string{
		"": {"n", "real/k"}, "alias/": {}, "folder/": {}, "folder/s": {}, "real/up/": {}, "real/": {"real/k"}, "../": {}, "pipe": {},
	} {
		if got := keys(t, s, prefix); !slices.Equal(got, want) {
			t.Fatalf("list %q shows %q, want %q", prefix, got, want)
		}
	}
	if es, err := os.ReadDir(outside); err != nil || len(es) != 1 {
		t.Fatalf("something was written outside: %v, %v", es, err)
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "secret" {
		t.Fatalf("the file outside holds %q, %v", b, err)
	}
}

func TestListSkipsInvalidNames(t *testing.T) {
	s := open(t)
	mustPut(t, s, "ok", "x")
	for _, name := range []string{`back\slash`, "bad\xffutf8"} {
		if err := os.WriteFile(filepath.Join(s.path, name), nil, 0o600); err != nil {
			t.Logf("%q: %v", name, err) // macOS refuses bad UTF-8
		}
	}
	if err := os.MkdirAll(filepath.Join(s.path, "empty", "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"ok"}) {
		t.Fatalf("list shows %q", got)
	}
}

func TestListMatchesModel(t *testing.T) {
	segment := rapid.StringOfN(rapid.RuneFrom([]rune("ab-./0é ")), 1, 3, -1)
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t)
		model := map[string]bool{}
		for range rapid.IntRange(0, 12).Draw(rt, "n") {
			k := object.Key(strings.Join(rapid.SliceOfN(segment, 1, 3).Draw(rt, "key"), "/"))
			_, err := s.Put(t.Context(), k, nil, object.PutOptions{})
			switch {
			case err == nil:
				model[string(k)] = true
			case !fault.Is(err, fault.Invalid): // a bad key, or a folder of others
				rt.Fatal(err)
			}
		}
		prefix := rapid.StringOfN(rapid.RuneFrom([]rune("ab-./0é")), 0, 4, -1).Draw(rt, "prefix")
		want := []string{}
		for _, k := range slices.Sorted(maps.Keys(model)) {
			if strings.HasPrefix(k, prefix) {
				want = append(want, k)
			}
		}
		if got := keys(t, s, prefix); !slices.Equal(got, want) {
			rt.Fatalf("list %q:\n got %q\nwant %q", prefix, got, want)
		}
	})
}

func TestETagsNeverRepeat(t *testing.T) {
	s := open(t)
	seen := map[string]bool{}
	see := func(a object.Attrs) {
		t.Helper()
		if seen[a.ETag] {
			t.Fatalf("ETag %s came twice", a.ETag)
		}
		seen[a.ETag] = true
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				a := mustPut(t, s, "d/k", "same size") // the same bytes each time
				mu.Lock()
				see(a)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	// A file from the future, as a clock set back leaves it, is followed by a later one.
	future := time.Now().Add(48 * time.Hour).Round(time.Hour)
	if err := os.Chtimes(filepath.Join(s.path, "d/k"), time.Time{}, future); err != nil {
		t.Fatal(err)
	}
	a := wantGet(t, s, "d/k", "same size")
	if !a.Modified.Equal(future) || a.ETag != fmt.Sprintf("%x-9", future.UnixNano()) {
		t.Fatalf("attributes %+v, want the time %s in nanoseconds", a, future)
	}
	for range 3 {
		b, err := s.Put(t.Context(), "d/k", []byte("same size"), object.PutOptions{IfMatch: a.ETag})
		if err != nil {
			t.Fatal(err)
		}
		if b.Modified.Sub(a.Modified) != 1 {
			t.Fatalf("version of %s follows one of %s, want 1 ns later", b.Modified, a.Modified)
		}
		see(b)
		a = b
	}
}

func TestOvertakenWriterGetsLaterTime(t *testing.T) {
	// The first writer, its file synced, is overtaken by one from the future.
	s := open(t)
	other, err := Open(s.path)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "k", "0")
	var over object.Attrs
	s.hook = func(op, _ string) error {
		if op == "lock" && over.ETag == "" {
			over = mustPut(t, other, "k", "1")
			at := time.Now().Add(time.Hour)
			if err := os.Chtimes(filepath.Join(s.path, "k"), time.Time{}, at); err != nil {
				t.Fatal(err)
			}
			over = wantGet(t, other, "k", "1")
		}
		return nil
	}
	a := mustPut(t, s, "k", "2")
	if a.Modified.Sub(over.Modified) != 1 || wantGet(t, s, "k", "2").ETag != a.ETag {
		t.Fatalf("version of %s follows one of %s, want 1 ns later", a.Modified, over.Modified)
	}
}

// TestTrace is the golden trace of the I/O of a write: nothing is renamed
// before its bytes are synced, and Put returns after the folder was.
func TestTrace(t *testing.T) {
	s := open(t)
	var got []string
	s.hook = func(op, name string) error {
		got = append(got, op+" "+name)
		return nil
	}
	check := func(what string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Fatalf("%s:\n got %q\nwant %q", what, got, want)
		}
		got = nil
	}
	a := mustPut(t, s, "a/b/k", "x")
	check("first write into new folders",
		"mkdir a", "fsync .", "mkdir a/b", "fsync a", "mkdir .etl/tmp", "mkdir .etl/locks",
		"create .etl/tmp", "write .etl/tmp", "fsync .etl/tmp", "lock .etl/locks", "rename a/b/k", "fsync a/b")
	if _, err := s.Put(t.Context(), "a/b/k", []byte("y"), object.PutOptions{IfMatch: a.ETag}); err != nil {
		t.Fatal(err)
	}
	check("conditional write",
		"create .etl/tmp", "write .etl/tmp", "fsync .etl/tmp", "lock .etl/locks", "rename a/b/k", "fsync a/b")
	_, err := s.Put(t.Context(), "a/b/k", []byte("z"), object.PutOptions{IfMatch: a.ETag})
	wantFault(t, err, fault.Conflict, "is version")
	check("condition that fails at once")
	wantGet(t, s, "a/b/k", "y")
	keys(t, s, "")
	check("reads")

	// Another store over the directory can not know that the folders are durable.
	other, err := Open(s.path)
	if err != nil {
		t.Fatal(err)
	}
	other.hook = s.hook
	mustPut(t, other, "a/b/l", "x")
	check("first write of another process",
		"fsync .", "fsync a", "mkdir .etl/tmp", "mkdir .etl/locks",
		"create .etl/tmp", "write .etl/tmp", "fsync .etl/tmp", "lock .etl/locks", "rename a/b/l", "fsync a/b")
}

// TestFaultAtEveryStep breaks each step of a write with each errno and checks
// the kind, the object, and that no temporary file stays.
func TestFaultAtEveryStep(t *testing.T) {
	kinds := map[syscall.Errno]fault.Kind{
		syscall.ENOSPC: fault.Unavailable, syscall.EDQUOT: fault.Unavailable, syscall.EROFS: fault.Unavailable,
		syscall.EACCES: fault.Unavailable, syscall.EPERM: fault.Unavailable, syscall.EIO: fault.Unavailable,
		syscall.EFBIG: fault.Unavailable, syscall.ENOLCK: fault.Unavailable,
		syscall.EMFILE: fault.Transient, syscall.ESTALE: fault.Transient, syscall.ENOMEM: fault.Transient,
	}
	const steps = 12 // of the first write, see TestTrace
	before := descriptors(t)
	for no, kind := range kinds {
		for n := 1; n <= steps; n++ {
			s, err := Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			i, broken := 0, ""
			s.hook = func(op, name string) error {
				if i++; i == n {
					broken = op + " " + name
					return &fs.PathError{Op: op, Path: name, Err: no}
				}
				return nil
			}
			_, err = s.Put(t.Context(), "a/b/k", []byte("x"), object.PutOptions{IfAbsent: true})
			want := kind
			switch {
			case broken == "fsync a/b",
				broken == "rename a/b/k" && (no == syscall.EIO || no == syscall.ESTALE):
				want = fault.Unknown
			}
			if broken == "" || !fault.Is(err, want) || !errors.Is(err, no) {
				t.Fatalf("step %d (%s) fails with %v: error %v of kind %s, want %s", n, broken, no, err, fault.KindOf(err), want)
			}
			if kind == fault.Unavailable && fault.HintOf(err) == "" {
				t.Fatalf("%v has no hint", err)
			}
			_, _, err = s.Get(t.Context(), "a/b/k")
			if broken == "fsync a/b" {
				if err != nil {
					t.Fatal(err)
				}
				s.Close()
				continue
			}
			wantFault(t, err, fault.NotExist, "")
			if got := temps(t, s); len(got) != 0 && want != fault.Unknown {
				t.Fatalf("step %s: temporary files left: %q", broken, got)
			}
			// Once the fault is mended the same store goes on.
			mustPut(t, s, "a/b/k", "y")
			wantGet(t, s, "a/b/k", "y")
			s.Close()
		}
	}
	if after := descriptors(t); after > before {
		t.Fatalf("%d files are open, %d were before", after, before)
	}
}

func TestRemovedFolders(t *testing.T) {
	// Somebody cleans up under a running process.
	s := open(t)
	mustPut(t, s, "a/b/k", "x")
	for _, d := range []string{"a", ".etl", ".etl/tmp", ".etl/locks"} {
		if err := os.RemoveAll(filepath.Join(s.path, d)); err != nil {
			t.Fatal(err)
		}
		mustPut(t, s, "a/b/k", d)
		wantGet(t, s, "a/b/k", d)
	}
	s.hook = func(op, _ string) error {
		if op == "rename" {
			return os.RemoveAll(filepath.Join(s.path, "a"))
		}
		return nil
	}
	_, err := s.Put(t.Context(), "a/b/k", nil, object.PutOptions{})
	wantFault(t, err, fault.Transient, "put a/b/k")
}

func TestCancelledAtEveryStep(t *testing.T) {
	// Until the rename a cancelled write leaves nothing; from it on it is done.
	for n := 1; n <= 12; n++ {
		s := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		i, at := 0, ""
		s.hook = func(op, name string) error {
			if i++; i == n {
				at = op
				cancel()
			}
			return nil
		}
		_, err := s.Put(ctx, "a/b/k", []byte("x"), object.PutOptions{IfAbsent: true})
		if n >= 11 { // rename, and the sync of the folder: see TestTrace
			if err != nil {
				t.Fatalf("cancelled at step %d, %s: %v", n, at, err)
			}
			wantGet(t, s, "a/b/k", "x")
			continue
		}
		if at == "" || !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at step %d, %s: %v", n, at, err)
		}
		if got := append(keys(t, s, ""), temps(t, s)...); len(got) != 0 {
			t.Fatalf("cancelled at step %d, %s: %q are left", n, at, got)
		}
	}
}

func TestLockWaitEndsWithContext(t *testing.T) {
	s := open(t)
	other, err := Open(s.path)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "k", "x")
	unlock, err := s.lock(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	for _, waits := range []*Store{s, other} { // in this process, in another
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := waits.Put(ctx, "k", []byte("y"), object.PutOptions{})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("put under a held lock: %v", err)
		}
	}
	wantGet(t, s, "k", "x")
	if got := temps(t, s); len(got) != 0 {
		t.Fatalf("temporary files left: %q", got)
	}
	unlock()
	mustPut(t, other, "k", "z")
	wantGet(t, s, "k", "z")
}

func TestSweep(t *testing.T) {
	s := open(t)
	if err := s.prepare(false); err != nil {
		t.Fatal(err)
	}
	leave := func(name string, age time.Duration) *os.File {
		t.Helper()
		f, err := os.Create(filepath.Join(s.path, tempDir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		at := time.Now().Add(-age)
		if err := os.Chtimes(f.Name(), at, at); err != nil {
			t.Fatal(err)
		}
		return f
	}
	leave("dead", 2*time.Minute)
	leave("dead-future", -2*time.Minute)
	leave("young", 10*time.Second)
	if err := flock(int(leave("alive", 3*time.Hour).Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	next, err := Open(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if got := temps(t, s); len(got) != 4 {
		t.Fatalf("Open swept: %q stay", got)
	}
	mustPut(t, next, "k", "x")
	if got := temps(t, s); !slices.Equal(got, []string{"alive", "young"}) {
		t.Fatalf("after the first Put %q stay, want the locked and the young one", got)
	}
}

// startChild starts a process that increments the counter of s n times.
func startChild(t *testing.T, s *Store, n int) (cmd *exec.Cmd, acknowledged *atomic.Int64, wait func() error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), childStore+"="+s.path, childTimes+"="+strconv.Itoa(n))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged = new(atomic.Int64)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			acknowledged.Add(1)
		}
	}()
	return cmd, acknowledged, func() error {
		<-read
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%w: %s", err, &stderr)
		}
		return nil
	}
}

func counter(t *testing.T, s *Store) int64 {
	t.Helper()
	data, _, err := s.Get(t.Context(), "counter")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(string(data), 10, 64)
	if err != nil {
		t.Fatalf("the counter holds %q", data)
	}
	return n
}

func TestProcessesIncrement(t *testing.T) {
	const children, each = 4, 50
	s := open(t)
	var waits []func() error
	for range children {
		_, _, wait := startChild(t, s, each)
		waits = append(waits, wait)
	}
	for _, wait := range waits {
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
	if n := counter(t, s); n != children*each {
		t.Fatalf("counter is %d after %d increments", n, children*each)
	}
	if got := temps(t, s); len(got) != 0 {
		t.Fatalf("temporary files left: %q", got)
	}
}

func TestProcessesKilled(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	s := open(t)
	mustPut(t, s, "counter", "0")
	const kills = 12
	total := int64(0)
	for range kills / 3 {
		// Three children that are killed at random, one that ends by itself.
		var waits []func() error
		var acks []*atomic.Int64
		for i := range 4 {
			n := 1_000_000
			if i == 3 {
				n = 20
			}
			cmd, ack, wait := startChild(t, s, n)
			acks, waits = append(acks, ack), append(waits, wait)
			if i < 3 {
				after := time.Duration(20+r.IntN(150)) * time.Millisecond
				time.AfterFunc(after, func() { cmd.Process.Kill() })
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i, wait := range waits {
				if err := wait(); i == 3 && err != nil {
					t.Error(err)
				}
			}
		}()
		for ended := false; !ended; {
			counter(t, s) // always there, always whole
			select {
			case <-done:
				ended = true
			default:
			}
		}
		for _, a := range acks {
			total += a.Load()
		}
	}
	n := counter(t, s)
	t.Logf("%d acknowledged, counter %d, %d temporary files of the dead", total, n, len(temps(t, s)))
	if n < total || n > total+kills {
		t.Fatalf("counter is %d after %d acknowledged increments and %d kills", n, total, kills)
	}
	// The locks of the dead are free, and their files are swept once old enough.
	mustPut(t, s, "counter", "0")
	for _, name := range temps(t, s) {
		at := time.Now().Add(-2 * sweepAge)
		if err := os.Chtimes(filepath.Join(s.path, tempDir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	next, err := Open(s.path)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, next, "counter", "1")
	if got := temps(t, s); len(got) != 0 {
		t.Fatalf("temporary files left: %q", got)
	}
}

// cpu reports the processor time of this process, user and system, per
// operation of the benchmark that it runs in; call the result at its end.
func cpu(b *testing.B) (report func()) {
	b.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	from := used()
	return func() { b.ReportMetric(float64(used()-from)/1e3/float64(b.N), "cpu-µs/op") }
}

// Sizes of a month file: a setpoint, a month of one-minute samples.
var sizes = []int{6 << 10, 100 << 10}

func BenchmarkPut(b *testing.B) {
	for _, size := range sizes {
		data := make([]byte, size)
		for _, workers := range []int{1, 4, 16} {
			b.Run(fmt.Sprintf("KB=%d/workers=%d", size>>10, workers), func(b *testing.B) {
				s := open(b)
				mustPut(b, s, "timeseries/2024/01/warm", "")
				var next atomic.Int64
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				b.ResetTimer()
				report := cpu(b)
				var wg sync.WaitGroup
				for range workers {
					wg.Go(func() {
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							k := object.Key(fmt.Sprintf("timeseries/2024/01/p%d.parquet", i%4500))
							if _, err := s.Put(context.Background(), k, data, object.PutOptions{}); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				report()
			})
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("KB=%d", size>>10), func(b *testing.B) {
			s := open(b)
			mustPut(b, s, "timeseries/2024/01/p.parquet", strings.Repeat("x", size))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			report := cpu(b)
			for b.Loop() {
				if _, _, err := s.Get(b.Context(), "timeseries/2024/01/p.parquet"); err != nil {
					b.Fatal(err)
				}
			}
			report()
		})
	}
}

func BenchmarkList(b *testing.B) {
	s := open(b)
	folder := filepath.Join(s.path, "timeseries/2024/01")
	if err := os.MkdirAll(folder, 0o777); err != nil {
		b.Fatal(err)
	}
	for i := range 4500 {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("p%d.parquet", i)), nil, 0o666); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		n := 0
		for _, err := range s.List(b.Context(), "timeseries/2024/01/") {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 4500 {
			b.Fatal(n)
		}
	}
}

// TestLink: a link shows the version that was linked, whatever becomes of the key.
func TestLink(t *testing.T) {
	s := open(t)
	a := mustPut(t, s, "a/b/k", "one")
	mustPut(t, s, "a/c/k", "other")
	to := filepath.Join(filepath.Dir(s.path), "linked")
	if err := os.Mkdir(to, 0o777); err != nil {
		t.Fatal(err)
	}
	path := func(i int) string { return filepath.Join(to, strconv.Itoa(i)) }
	link := func(key object.Key, i int) error { return s.Link(t.Context(), []object.Key{key}, []string{path(i)})[0] }
	if err := link("a/b/k", 1); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Lstat(path(1)); err != nil || !fi.ModTime().Equal(a.Modified) {
		t.Fatalf("%v, %v, want that of %+v", fi, err, a)
	}
	mustPut(t, s, "a/b/k", "second")
	if err := os.Symlink("k", filepath.Join(s.path, "a/b/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b", filepath.Join(s.path, "a/to")); err != nil {
		t.Fatal(err)
	}
	keys := []object.Key{"a/b/k", "a/b/none", "none/k", "a/b", "a/c/k", "a/b/k/l", "../x", ".etl/x", "a/to/k", "a/b/k"}
	kinds := []fault.Kind{-1, fault.NotExist, fault.NotExist, fault.NotExist, -1, fault.NotExist, fault.Invalid, fault.Invalid, fault.Invalid, -1}
	var tos []string
	for i := range keys {
		tos = append(tos, path(10+i))
	}
	before := descriptors(t)
	for i, err := range s.Link(t.Context(), keys, tos) {
		if (err == nil) != (kinds[i] < 0) || err != nil && (!fault.Is(err, kinds[i]) || errors.Is(err, object.ErrNoLink) || !strings.Contains(err.Error(), string(keys[i]))) {
			t.Errorf("%s: %v", keys[i], err)
		}
		if _, serr := os.Lstat(tos[i]); (serr == nil) != (err == nil) {
			t.Errorf("%s: a failed link is left, or one is not there: %v", keys[i], serr)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d open files, %d before", after, before)
	}
	for i, want := range map[int]string{1: "one", 10: "second", 14: "other", 19: "second"} {
		if got, err := os.ReadFile(path(i)); err != nil || string(got) != want {
			t.Fatalf("%d: %q, %v", i, got, err)
		}
	}
	wantGet(t, s, "a/b/k", "second")
	for _, to := range []string{path(1), filepath.Join(to, "none", "x")} {
		if err := s.Link(t.Context(), []object.Key{"a/b/k"}, []string{to})[0]; !errors.Is(err, object.ErrNoLink) || !fault.Is(err, fault.Invalid) {
			t.Errorf("link to %s: %v", to, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Link(ctx, []object.Key{"a/b/k"}, []string{path(5)})[0]; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
