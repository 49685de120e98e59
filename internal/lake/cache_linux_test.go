package lake

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"etl/internal/fault"
	"etl/internal/object/dir"
	"etl/internal/utc"
	"etl/manifests"
)

// tmpfs mounts a file system in memory, or skips the test.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, options); err != nil {
		t.Skipf("needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}

// wantUnavailable checks that the error names the folder and what to do.
func wantUnavailable(t *testing.T, err error, folder string, hints ...string) {
	t.Helper()
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), folder) {
		t.Fatalf("error %v of kind %s, want one that names %s", err, fault.KindOf(err), folder)
	}
	for _, h := range append(hints, folder, "--cache DIR") {
		if !strings.Contains(fault.HintOf(err), h) {
			t.Fatalf("hint %q of %v lacks %q", fault.HintOf(err), err, h)
		}
	}
}

func TestFullDisk(t *testing.T) {
	s := newRAM()
	var entries []manifests.Entry
	for i := range 30 {
		entries = append(entries, putFile(t, s, january, int32(i+1), 5000, 0))
	}
	putManifest(t, s, january, entries)
	files := filesOf(january, entries)
	for _, options := range []string{"size=512k", "nr_inodes=30"} {
		t.Run(options, func(t *testing.T) {
			folder := tmpfs(t, options)
			c := openCache(t, folder, large)
			p := pinned(t, c)
			mustFetch(t, p, s, files[:3])
			_, err := p.Fetch(t.Context(), s, files, 4, nil)
			wantUnavailable(t, err, folder, "--cache-size")
			wantSound(t, c)
			mustFetch(t, p, s, files[:3])
			for range 40 { // until the manifests do not fit either
				putMonth(t, s, january+1, 20)
				if _, err = loadCatalog(t.Context(), p, s, "x"); err != nil {
					break
				}
			}
			wantUnavailable(t, err, folder, "--cache-size")
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			wantSound(t, c)
			if _, err := c.Clear(); err != nil {
				t.Fatal(err)
			}
			mustFetch(t, pinned(t, c), s, files[:3])
			wantSound(t, c)
		})
	}
}

func TestReadOnlyFolder(t *testing.T) {
	s := newRAM()
	files := putMonth(t, s, january, 3)
	folder := tmpfs(t, "size=1m")
	c := openCache(t, folder, large)
	p := pinned(t, c)
	mustFetch(t, p, s, files[:1])
	if err := syscall.Mount("", folder, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skip(err)
	}
	_, err := OpenCache(folder, large)
	wantUnavailable(t, err, folder, "writable")
	_, err = OpenCache(filepath.Join(folder, "below"), large)
	wantUnavailable(t, err, folder, "writable")
	_, err = p.Fetch(t.Context(), s, files, 1, nil)
	wantUnavailable(t, err, folder, "writable")
	_, err = c.Pin()
	wantUnavailable(t, err, folder, "writable")
	_, err = c.Clear()
	wantUnavailable(t, err, folder, "writable")
	mustFetch(t, p, s, files[:1]) // what is pinned needs no writing
	if err := syscall.Mount("", folder, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	mustFetch(t, p, s, files)
	wantSound(t, c)
}

func TestUnwritableFolder(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o555); err != nil {
		t.Fatal(err)
	}
	_, err := OpenCache(folder, large)
	wantUnavailable(t, err, folder, "writable")
}

// TestAcrossFileSystems: a directory store on another file system is copied from.
func TestAcrossFileSystems(t *testing.T) {
	s, err := dir.Open(tmpfs(t, "size=4m"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	files := putMonth(t, s, january, 20)
	c := openCache(t, t.TempDir(), large)
	for range 2 {
		p := pinned(t, c)
		got := mustFetch(t, p, s, files)
		for _, l := range got {
			if fi, err := os.Stat(l.Path); err != nil || fi.Mode() != 0o444 {
				t.Fatalf("%v, %v", fi, err)
			}
		}
	}
	u, err := c.Usage()
	if err != nil || u.Files != 20 || u.Links != 0 {
		t.Fatalf("%+v, %v", u, err)
	}
	wantSound(t, c)
}

// TestKindOfObject: what is no file in a directory store is named, not read.
func TestKindOfObject(t *testing.T) {
	root := t.TempDir()
	s, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	files := putMonth(t, s, january, 4)
	path := func(i int) string { return filepath.Join(root, filepath.FromSlash(string(files[i].Key))) }
	for i := range 3 {
		if err := os.Remove(path(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(path(3), path(0)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path(1), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path(2), 0o777); err != nil {
		t.Fatal(err)
	}
	p := pinned(t, openCache(t, t.TempDir(), large))
	for i, want := range []fault.Kind{fault.Invalid, fault.Invalid, fault.Corrupt} {
		_, err := p.Fetch(t.Context(), s, files[i:i+1], 1, nil)
		if !fault.Is(err, want) || !strings.Contains(fmt.Sprint(err), string(files[i].Key)) {
			t.Errorf("%d: %v, want kind %s", i, err, want)
		}
	}
	mustFetch(t, p, s, files[3:])
	wantSound(t, p.cache)
}

// TestUnreadableObject: a month file that may not be read is the store's, not the cache's.
func TestUnreadableObject(t *testing.T) {
	folder := t.TempDir()
	s, err := dir.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	e := putFile(t, s, january, 1, 100, 0)
	putManifest(t, s, january, []manifests.Entry{e})
	root := t.TempDir()
	p := pinned(t, openCache(t, root, large))
	object := filepath.Join(folder, string(e.Path))
	if err := os.Chmod(object, 0); err != nil {
		t.Fatal(err)
	}
	file := filesOf(january, []manifests.Entry{e})[0]
	f := &fetch{pins: p, cache: p.cache, store: s, linker: s, manifests: map[utc.Month]*manifests.Manifest{}}
	done := make(chan error, 1)
	go func() {
		if os.Geteuid() == 0 { // whom no mode keeps out: a thread, which ends with the goroutine, becomes somebody else
			const nobody = 65534
			runtime.LockOSThread()
			err := filepath.WalkDir(filepath.Dir(folder), func(path string, _ os.DirEntry, err error) error {
				if err == nil {
					err = os.Lchown(path, nobody, nobody)
				}
				return err
			})
			if err == nil {
				err = unix.Setfsuid(nobody)
			}
			if err != nil {
				done <- err
				return
			}
		}
		_, err := f.one(t.Context(), &file)
		done <- err
	}()
	err = <-done
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), string(e.Path)) || strings.Contains(err.Error(), "cache") || !strings.Contains(fault.HintOf(err), folder) {
		t.Fatalf("%v of kind %s (%s)", err, fault.KindOf(err), fault.HintOf(err))
	}
}
