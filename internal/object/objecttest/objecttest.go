// Package objecttest owns what tests of object stores share: the conformance
// suite that every backend and every decorator passes (Run), and a decorator
// that breaks chosen operations (Faults). It refuses to know any backend.
package objecttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
)

// Run tests the store that open returns against each sentence of the contract
// of object.Store. Each subtest calls open once and needs an empty store; open
// may skip. A Transient error of a store that paces writes of one key (R2: one
// a second) is repeated.
func Run(t *testing.T, open func(t *testing.T) object.Store) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, object.Store)
	}{
		{"get and put", testGetPut},
		{"sizes", testSizes},
		{"own memory", testOwnMemory},
		{"metadata", testMetadata},
		{"conditions", testConditions},
		{"create race", testCreateRace},
		{"increment race", testIncrementRace},
		{"whole versions", testWholeVersions},
		{"reads see writes", testReadsSeeWrites},
		{"list", testList},
		{"list of 1,100", testListMany},
		{"odd keys", testOddKeys},
		{"bad keys", testBadKeys},
		{"cancelled", testCancelled},
		{"delete", testDelete},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, open(t)) })
	}
}

// testDelete tests a store that can delete; of a decorator it is asked first
// whether the store below can.
func testDelete(t *testing.T, s object.Store) {
	err := object.Delete(t.Context(), s, "none")
	if fault.Is(err, fault.Invalid) {
		t.Skip("the store can not delete")
	}
	if err != nil {
		t.Fatalf("delete of what is not there: %v", err)
	}
	for range 2 {
		mustPut(t, s, "a/k", []byte("one"), object.PutOptions{IfAbsent: true})
		b := mustPut(t, s, "a/k2", []byte("two"), object.PutOptions{})
		if err := object.Delete(t.Context(), s, "a/k"); err != nil {
			t.Fatal(err)
		}
		wantAbsent(t, s, "a/k")
		wantObject(t, s, "a/k2", []byte("two"), b.ETag)
		if l := list(t, s, ""); len(l) != 1 || l[0].Key != "a/k2" {
			t.Fatalf("list after delete: %q", keysOf(l))
		}
	}
	if err := object.Delete(t.Context(), s, "a"); err != nil { // the beginning of a key
		t.Fatal(err)
	}
	for _, k := range []object.Key{"", "../x", "a//b"} {
		wantKind(t, fmt.Sprintf("delete %q", k), object.Delete(t.Context(), s, k), fault.Invalid)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := object.Delete(ctx, s, "a/k2"); !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled delete: %v", err)
	}
	if l := list(t, s, ""); len(l) != 1 {
		t.Fatalf("list: %q", keysOf(l))
	}
}

// put writes and repeats what a store says may pass by itself.
func put(t *testing.T, s object.Store, key object.Key, data []byte, o object.PutOptions) (object.Attrs, error) {
	t.Helper()
	for try := 0; ; try++ {
		a, err := s.Put(t.Context(), key, data, o)
		if !fault.Is(err, fault.Transient) || try == 9 {
			return a, err
		}
		time.Sleep(time.Duration(100+rand.IntN(1000)) * time.Millisecond)
	}
}

func mustPut(t *testing.T, s object.Store, key object.Key, data []byte, o object.PutOptions) object.Attrs {
	t.Helper()
	a, err := put(t, s, key, data, o)
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	if a.Key != key || a.Size != int64(len(data)) || a.ETag == "" || strings.Contains(a.ETag, `"`) {
		t.Fatalf("put %q of %d bytes returned %+v", key, len(data), a)
	}
	return a
}

// wantObject checks what Get says of key.
func wantObject(t *testing.T, s object.Store, key object.Key, data []byte, etag string) object.Attrs {
	t.Helper()
	got, a, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("get %q: %d bytes, want %d, or they differ", key, len(got), len(data))
	}
	if a.Key != key || a.Size != int64(len(data)) || a.ETag != etag || a.Modified.IsZero() {
		t.Fatalf("get %q: attributes %+v, want ETag %s and %d bytes", key, a, etag, len(data))
	}
	return a
}

func wantAbsent(t *testing.T, s object.Store, key object.Key) {
	t.Helper()
	data, a, err := s.Get(t.Context(), key)
	if !fault.Is(err, fault.NotExist) || data != nil || a.ETag != "" {
		t.Fatalf("get absent %q: %d bytes, %+v, %v; want not-exist", key, len(data), a, err)
	}
}

func wantKind(t *testing.T, what string, err error, k fault.Kind) {
	t.Helper()
	if !fault.Is(err, k) {
		t.Fatalf("%s: error %v of kind %s, want kind %s", what, err, fault.KindOf(err), k)
	}
}

// list collects a listing and checks its order.
func list(t *testing.T, s object.Store, prefix string) []object.Attrs {
	t.Helper()
	var out []object.Attrs
	for a, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		if n := len(out); n > 0 && out[n-1].Key >= a.Key {
			t.Fatalf("list %q: %q comes after %q", prefix, a.Key, out[n-1].Key)
		}
		out = append(out, a)
	}
	return out
}

func keysOf(as []object.Attrs) []object.Key {
	keys := []object.Key{}
	for _, a := range as {
		keys = append(keys, a.Key)
	}
	return keys
}

func testGetPut(t *testing.T, s object.Store) {
	const key = "timeseries/2024/01/ahu-1-supply-temp.parquet"
	wantAbsent(t, s, key)
	wantAbsent(t, s, "timeseries/2024")
	a := mustPut(t, s, key, []byte("one"), object.PutOptions{Type: "application/json"})
	wantObject(t, s, key, []byte("one"), a.ETag)
	b := mustPut(t, s, key, []byte("two"), object.PutOptions{})
	if b.ETag == a.ETag {
		t.Fatalf("two versions have the ETag %s", a.ETag)
	}
	wantObject(t, s, key, []byte("two"), b.ETag)
	wantAbsent(t, s, "timeseries/2024") // a beginning of a key is no object
	wantAbsent(t, s, key+"/x")
	wantAbsent(t, s, key+"x")
	if _, _, err := s.Get(t.Context(), "no/such.json"); !strings.Contains(fmt.Sprint(err), "no/such.json") {
		t.Fatalf("error %q does not name its key", err)
	}
}

func testSizes(t *testing.T, s object.Store) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for _, size := range []int{0, 1, 4096, 5 << 20} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		key := object.Key(fmt.Sprintf("sizes/%d", size))
		a := mustPut(t, s, key, data, object.PutOptions{IfAbsent: true})
		wantObject(t, s, key, data, a.ETag)
	}
	// An empty object can be replaced by a condition on it, and can be made again.
	a := mustPut(t, s, "emptied", []byte("x"), object.PutOptions{})
	b := mustPut(t, s, "emptied", nil, object.PutOptions{IfMatch: a.ETag})
	wantObject(t, s, "emptied", nil, b.ETag)
}

func testOwnMemory(t *testing.T, s object.Store) {
	data := []byte("as written")
	a := mustPut(t, s, "k", data, object.PutOptions{})
	copy(data, "scribbled!")
	wantObject(t, s, "k", []byte("as written"), a.ETag)
	got, _, err := s.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	copy(got, "scribbled!")
	wantObject(t, s, "k", []byte("as written"), a.ETag)
}

func testMetadata(t *testing.T, s object.Store) {
	meta := map[string]string{"pointId": "7", "pointName": "AHU-1/Supply Temp", "sampleCount": "43200"}
	a := mustPut(t, s, "k", []byte("x"), object.PutOptions{Meta: meta})
	if got := wantObject(t, s, "k", []byte("x"), a.ETag); got.Meta != nil {
		// The names travel as HTTP headers, which know no case.
		fold := func(m map[string]string) map[string]string {
			out := map[string]string{}
			for k, v := range m {
				out[strings.ToLower(k)] = v
			}
			return out
		}
		if !maps.Equal(fold(got.Meta), fold(meta)) {
			t.Fatalf("metadata %v, want %v", got.Meta, meta)
		}
	}
	if l := list(t, s, "k"); len(l) != 1 || l[0].Meta != nil {
		t.Fatalf("list shows %+v, want no metadata", l)
	}
	a = mustPut(t, s, "k", []byte("y"), object.PutOptions{IfMatch: a.ETag})
	if got := wantObject(t, s, "k", []byte("y"), a.ETag); len(got.Meta) != 0 {
		t.Fatalf("metadata of the version before: %v", got.Meta)
	}
}

func testConditions(t *testing.T, s object.Store) {
	_, err := put(t, s, "a/k", []byte("x"), object.PutOptions{IfMatch: "0123456789abcdef0123456789abcdef"})
	wantKind(t, "IfMatch on an absent key", err, fault.Conflict)
	wantAbsent(t, s, "a/k")

	a := mustPut(t, s, "a/k", []byte("one"), object.PutOptions{IfAbsent: true})
	_, err = put(t, s, "a/k", []byte("x"), object.PutOptions{IfAbsent: true})
	wantKind(t, "IfAbsent on a present key", err, fault.Conflict)
	wantObject(t, s, "a/k", []byte("one"), a.ETag)

	b := mustPut(t, s, "a/k", []byte("two"), object.PutOptions{IfMatch: a.ETag})
	_, err = put(t, s, "a/k", []byte("x"), object.PutOptions{IfMatch: a.ETag})
	wantKind(t, "IfMatch on an older version", err, fault.Conflict)
	wantObject(t, s, "a/k", []byte("two"), b.ETag)

	_, err = put(t, s, "a/k", []byte("x"), object.PutOptions{IfMatch: b.ETag, IfAbsent: true})
	wantKind(t, "IfMatch with IfAbsent", err, fault.Invalid)
	_, err = put(t, s, "a/new", []byte("x"), object.PutOptions{IfMatch: b.ETag, IfAbsent: true})
	wantKind(t, "IfMatch with IfAbsent", err, fault.Invalid)
	wantAbsent(t, s, "a/new")
	wantObject(t, s, "a/k", []byte("two"), b.ETag)

	// The ETags of Get and List are those that conditions take.
	c := mustPut(t, s, "a/k", []byte("three"), object.PutOptions{IfMatch: wantObject(t, s, "a/k", []byte("two"), b.ETag).ETag})
	l := list(t, s, "a/k")
	if len(l) != 1 || l[0].ETag != c.ETag {
		t.Fatalf("list shows %+v, want ETag %s", l, c.ETag)
	}
	mustPut(t, s, "a/k", []byte("four"), object.PutOptions{IfMatch: l[0].ETag})
	// Other keys are no part of a condition.
	mustPut(t, s, "a/other", []byte("four"), object.PutOptions{IfAbsent: true})
}

const racers = 20

// race runs f in 20 goroutines at once and waits for them.
func race(f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range racers {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

func testCreateRace(t *testing.T, s object.Store) {
	var mu sync.Mutex
	winner, winners := -1, 0
	race(func(i int) {
		_, err := put(t, s, "race/one", fmt.Appendf(nil, "writer %d", i), object.PutOptions{IfAbsent: true})
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			winner = i
			winners++
		case !fault.Is(err, fault.Conflict):
			t.Errorf("writer %d: %v", i, err)
		}
	})
	if winners != 1 {
		t.Fatalf("%d of %d writers created the object, want 1", winners, racers)
	}
	got, _, err := s.Get(t.Context(), "race/one")
	if err != nil || string(got) != fmt.Sprintf("writer %d", winner) {
		t.Fatalf("the object holds %q, %v; writer %d won", got, err, winner)
	}
}

// Increment adds one to the decimal number in the object at key, which it
// creates, by compare-and-swap, until it succeeds. lost says how many of its
// writes had an unknown outcome, at most that many more than one may count.
func Increment(ctx context.Context, s object.Store, key object.Key) (lost int, err error) {
	for {
		n := 0
		o := object.PutOptions{IfAbsent: true}
		switch data, a, err := s.Get(ctx, key); {
		case err == nil:
			if n, err = strconv.Atoi(string(data)); err != nil {
				return lost, err
			}
			o = object.PutOptions{IfMatch: a.ETag}
		case fault.Is(err, fault.Transient):
			time.Sleep(time.Duration(100+rand.IntN(1000)) * time.Millisecond)
			continue
		case !fault.Is(err, fault.NotExist):
			return lost, err
		}
		_, err := s.Put(ctx, key, strconv.AppendInt(nil, int64(n+1), 10), o)
		switch {
		case err == nil:
			return lost, nil
		case fault.Is(err, fault.Unknown):
			lost++
		case fault.Is(err, fault.Transient):
			time.Sleep(time.Duration(100+rand.IntN(1000)) * time.Millisecond)
		case !fault.Is(err, fault.Conflict):
			return lost, err
		}
	}
}

func testIncrementRace(t *testing.T, s object.Store) {
	const each = 2
	var mu sync.Mutex
	lost := 0
	race(func(i int) {
		for range each {
			l, err := Increment(t.Context(), s, "race/counter")
			if err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
			mu.Lock()
			lost += l
			mu.Unlock()
		}
	})
	data, _, err := s.Get(t.Context(), "race/counter")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.Atoi(string(data)); err != nil || n < racers*each || n > racers*each+lost {
		t.Fatalf("counter is %q after %d increments, %d more of unknown outcome", data, racers*each, lost)
	}
}

func testWholeVersions(t *testing.T, s object.Store) {
	// Version i is 1,000 × (i mod 7 + 1) + i bytes of value i: a mixture of two shows.
	version := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1000*(i%7+1)+i) }
	const versions = 12
	mustPut(t, s, "v/k", version(0), object.PutOptions{})
	var mu sync.Mutex
	etags := map[string]byte{}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := byte(0)
			for {
				data, a, err := s.Get(t.Context(), "v/k")
				if fault.Is(err, fault.Transient) {
					continue // the service answered with parts of two versions
				}
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				if len(data) == 0 || a.Size != int64(len(data)) || !bytes.Equal(data, version(int(data[0]))) {
					t.Errorf("get returned no whole version: %d bytes, attributes %+v", len(data), a)
					return
				}
				if data[0] < last {
					t.Errorf("version %d was read after version %d", data[0], last)
				}
				last = data[0]
				mu.Lock()
				if v, ok := etags[a.ETag]; ok && v != last {
					t.Errorf("ETag %s names versions %d and %d", a.ETag, v, last)
				}
				etags[a.ETag] = last
				mu.Unlock()
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := 1; i <= versions; i++ {
		a := mustPut(t, s, "v/k", version(i), object.PutOptions{})
		mu.Lock()
		if v, ok := etags[a.ETag]; ok && v != byte(i) {
			t.Errorf("put of version %d returned the ETag of version %d", i, v)
		}
		etags[a.ETag] = byte(i)
		mu.Unlock()
	}
	close(done)
	wg.Wait()
}

func testReadsSeeWrites(t *testing.T, s object.Store) {
	race(func(i int) {
		key := object.Key(fmt.Sprintf("see/%02d/k", i))
		a, err := put(t, s, key, []byte(key), object.PutOptions{IfAbsent: true})
		if err != nil {
			t.Error(err)
			return
		}
		if data, b, err := s.Get(t.Context(), key); err != nil || string(data) != string(key) || b.ETag != a.ETag {
			t.Errorf("get after put: %q, %+v, %v", data, b, err)
		}
		seen := false
		for b, err := range s.List(t.Context(), "see/") {
			if err != nil {
				t.Error(err)
			}
			seen = seen || b.Key == key && b.ETag == a.ETag
		}
		if !seen {
			t.Errorf("list after put does not show %s, version %s", key, a.ETag)
		}
	})
}

func testList(t *testing.T, s object.Store) {
	if l := list(t, s, ""); len(l) != 0 {
		t.Fatalf("the store is not empty: %v", keysOf(l))
	}
	// "-" and "." sort before "/", "0" after it, at every level.
	keys := []object.Key{
		"a-b", "a.b", "a/b-c", "a/b.c", "a/b/-", "a/b/c", "a/b/d/e", "a/b0", "a/c", "a0b", "a0/b", "ab",
		"A", "Z/z", "_manifests/2024-01.json", "_manifests/points.json", "é", "éa/b", "~", " ", "b/ /c",
		"timeseries/2024/01/x.parquet", "timeseries/2024/01-/x", "timeseries/2024/1/x",
	} // no key is the folder of another: a directory can not hold both
	etags := map[object.Key]string{}
	sizes := map[object.Key]int64{}
	for _, i := range rand.Perm(len(keys)) {
		a := mustPut(t, s, keys[i], bytes.Repeat([]byte{'x'}, i), object.PutOptions{})
		etags[keys[i]], sizes[keys[i]] = a.ETag, int64(i)
	}
	slices.Sort(keys)
	prefixes := []string{"", "/", "//", "a//", "..", "../", ".", "./", "a/../a", "a/./b", "zz", "no/such/folder/", "\\", "\x00", "\xff", strings.Repeat("x", 2000), strings.Repeat("x", 300) + "/"}
	for _, k := range keys {
		for i := range len(k) {
			prefixes = append(prefixes, string(k[:i+1]), string(k[:i+1])+"/")
		}
	}
	slices.Sort(prefixes)
	for _, prefix := range slices.Compact(prefixes) {
		want := []object.Key{}
		for _, k := range keys {
			if strings.HasPrefix(string(k), prefix) {
				want = append(want, k)
			}
		}
		got := list(t, s, prefix)
		if !slices.Equal(keysOf(got), want) {
			t.Fatalf("list %q:\n got %q\nwant %q", prefix, keysOf(got), want)
		}
		for _, a := range got {
			if a.ETag != etags[a.Key] || a.Size != sizes[a.Key] || a.Modified.IsZero() || a.Meta != nil {
				t.Fatalf("list %q: %+v, want ETag %s and %d bytes", prefix, a, etags[a.Key], sizes[a.Key])
			}
		}
	}
	// A caller may stop early and may range again.
	seq := s.List(t.Context(), "a")
	for range 2 {
		n := 0
		for a, err := range seq {
			if err != nil || a.Key != []object.Key{"a-b", "a.b"}[n] {
				t.Fatalf("object %d is %q, %v", n, a.Key, err)
			}
			if n++; n == 2 {
				break
			}
		}
	}
}

func testListMany(t *testing.T, s object.Store) {
	const n = 1100 // more than the 1,000 keys of a page of S3
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := w; i < n; i += 16 {
				if _, err := put(t, s, object.Key(fmt.Sprintf("many/%04d", i)), []byte("x"), object.PutOptions{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	l := list(t, s, "many/")
	if len(l) != n || l[0].Key != "many/0000" || l[n-1].Key != "many/1099" {
		t.Fatalf("list shows %d objects, want %d", len(l), n)
	}
	if l := list(t, s, "many/10"); len(l) != 100 {
		t.Fatalf("list shows %d objects that begin with many/10, want 100", len(l))
	}
}

func testOddKeys(t *testing.T, s object.Store) {
	keys := []object.Key{
		"a b/c d", " lead", "trail ", "per%cent/%2F%2e", "plus+minus", "q?x=1&y=2", "hash#1", "it's", `say "hi"`,
		"ünïcödé/温度", "emoji/🌡️.parquet", "colon:x", "star*[a-z]?", "...", "..a/b..", ".hidden/.x", "~user", "$HOME/`x`",
		"semi;co,lon=@!", "<tag>&amp;", "|pipe^", "{brace}", "-rf", object.Key(strings.Repeat("long", 50)),
		object.Key(strings.Repeat("deep/", 100) + "x"),
	}
	etags := map[object.Key]string{}
	// A store may refuse these: the last one has 1,024 bytes, without the
	// prefix that some put before it.
	for _, k := range []object.Key{"tab\tnew\nline", object.Key(strings.Repeat(strings.Repeat("s", 200)+"/", 5) + "1234567890123456789")} {
		a, err := put(t, s, k, []byte(k), object.PutOptions{IfAbsent: true})
		if fault.Is(err, fault.Invalid) {
			continue
		}
		if err != nil {
			t.Fatalf("put %q: %v", k, err)
		}
		keys, etags[k] = append(keys, k), a.ETag
	}
	for _, k := range keys {
		if _, done := etags[k]; !done {
			etags[k] = mustPut(t, s, k, []byte(k), object.PutOptions{IfAbsent: true}).ETag
		}
	}
	for _, k := range keys {
		wantObject(t, s, k, []byte(k), etags[k])
		_, err := put(t, s, k, nil, object.PutOptions{IfAbsent: true})
		wantKind(t, fmt.Sprintf("put %q again", k), err, fault.Conflict)
		if l := list(t, s, string(k)); len(l) != 1 || l[0].Key != k {
			t.Fatalf("list %q: %q", k, keysOf(l))
		}
	}
	if got, want := keysOf(list(t, s, "")), slices.Sorted(slices.Values(keys)); !slices.Equal(got, want) {
		t.Fatalf("list:\n got %q\nwant %q", got, want)
	}
}

func testBadKeys(t *testing.T, s object.Store) {
	for _, k := range []object.Key{
		"", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "a/..", "../a", "a/../b", "a/./b", "../../etc/passwd",
		"a\x00b", `a\b`, `..\a`, "a\xffb", object.Key(strings.Repeat("a/", 512) + "b"),
	} {
		_, err := s.Put(t.Context(), k, []byte("x"), object.PutOptions{})
		wantKind(t, fmt.Sprintf("put %q", k), err, fault.Invalid)
		_, _, err = s.Get(t.Context(), k)
		wantKind(t, fmt.Sprintf("get %q", k), err, fault.Invalid)
	}
	if l := list(t, s, ""); len(l) != 0 {
		t.Fatalf("bad keys made objects: %q", keysOf(l))
	}
}

func testCancelled(t *testing.T, s object.Store) {
	a := mustPut(t, s, "there", []byte("x"), object.PutOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, "new", []byte("x"), object.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("put: %v", err)
	}
	if _, err := s.Put(ctx, "there", []byte("yy"), object.PutOptions{IfMatch: a.ETag}); !errors.Is(err, context.Canceled) {
		t.Fatalf("put: %v", err)
	}
	if _, _, err := s.Get(ctx, "there"); !errors.Is(err, context.Canceled) {
		t.Fatalf("get: %v", err)
	}
	n := 0
	for _, err := range s.List(ctx, "") {
		if n++; !errors.Is(err, context.Canceled) {
			t.Fatalf("list: %v", err)
		}
	}
	if n != 1 {
		t.Fatalf("a cancelled list yields %d results, want one error", n)
	}
	wantAbsent(t, s, "new")
	wantObject(t, s, "there", []byte("x"), a.ETag)

	// Cancelled while listing, it ends with the error.
	mustPut(t, s, "there2", nil, object.PutOptions{})
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range s.List(ctx, "") {
		cancel()
		last = err
	}
	if last != nil && !errors.Is(last, context.Canceled) {
		t.Fatalf("list ended with %v", last)
	}
}
