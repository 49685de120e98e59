package dir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"etl/internal/fault"
	"etl/internal/object"
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

func TestFullDisk(t *testing.T) {
	for _, options := range []string{"size=512k", "nr_inodes=80"} {
		t.Run(options, func(t *testing.T) {
			s, err := Open(tmpfs(t, options))
			if err != nil {
				t.Fatal(err)
			}
			a := mustPut(t, s, "first", "kept")
			written := []string{"first"}
			var full error
			data := bytes.Repeat([]byte("x"), 10_000)
			for i := 0; full == nil && i < 1000; i++ {
				k := object.Key(fmt.Sprintf("d%d/k", i))
				if _, full = s.Put(t.Context(), k, data, object.PutOptions{IfAbsent: true}); full == nil {
					written = append(written, string(k))
				}
			}
			wantFault(t, full, fault.Unavailable, "no space left")
			if !strings.Contains(fault.HintOf(full), s.path) || !strings.Contains(fault.HintOf(full), "run the command again") {
				t.Fatalf("hint %q", fault.HintOf(full))
			}
			if got := temps(t, s); len(got) != 0 {
				t.Fatalf("temporary files left: %q", got)
			}
			if strings.HasPrefix(options, "size") {
				_, err = s.Put(t.Context(), "first", bytes.Repeat(data, 100), object.PutOptions{IfMatch: a.ETag})
				wantFault(t, err, fault.Unavailable, "no space left")
			}
			wantGet(t, s, "first", "kept")
			slices.Sort(written)
			if got := keys(t, s, ""); !slices.Equal(got, written) {
				t.Fatalf("list shows %q, want %q", got, written)
			}
			// With space again it goes on.
			for i := range 10 {
				if err := os.RemoveAll(filepath.Join(s.path, fmt.Sprintf("d%d", i))); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Put(t.Context(), "first", data, object.PutOptions{IfMatch: a.ETag}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestReadOnly(t *testing.T) {
	for _, used := range []bool{false, true} {
		path := tmpfs(t, "size=512k")
		if err := os.MkdirAll(filepath.Join(path, "d"), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "d/k"), []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
		if used {
			s, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			mustPut(t, s, "d/other", "y")
		}
		if err := syscall.Mount("", path, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		wantGet(t, s, "d/k", "x")
		if got := keys(t, s, "d/k"); !slices.Equal(got, []string{"d/k"}) {
			t.Fatalf("list shows %q", got)
		}
		before := descriptors(t)
		for _, k := range []object.Key{"d/k", "d/new", "new/folder/k"} {
			_, err := s.Put(t.Context(), k, []byte("y"), object.PutOptions{})
			wantFault(t, err, fault.Unavailable, "read-only")
			if !strings.Contains(fault.HintOf(err), "mount") {
				t.Fatalf("hint %q", fault.HintOf(err))
			}
		}
		if after := descriptors(t); after > before {
			t.Fatalf("%d files are open, %d were before", after, before)
		}
		_, err = Open(filepath.Join(path, "new"))
		wantFault(t, err, fault.Unavailable, "read-only")
	}
}

// TestCoarseTimes runs on a file system that keeps whole seconds only: ext4
// with inodes too small for nanoseconds.
func TestCoarseTimes(t *testing.T) {
	image, path := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-I", "128", "-F", image).CombinedOutput(); err != nil {
		t.Skipf("needs mkfs.ext4: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, path).CombinedOutput(); err != nil {
		t.Skipf("needs the right to mount a loop device: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", path).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) // before the unmount
	a := mustPut(t, s, "k", "same size")
	if a.Modified.Nanosecond() != 0 {
		t.Fatalf("the file system keeps %s: this test tests nothing", a.Modified)
	}
	for range 5 {
		b, err := s.Put(t.Context(), "k", []byte("same size"), object.PutOptions{IfMatch: a.ETag})
		if err != nil {
			t.Fatal(err)
		}
		if !b.Modified.After(a.Modified) || wantGet(t, s, "k", "same size").ETag != b.ETag {
			t.Fatalf("version %+v follows %+v", b, a)
		}
		_, err = s.Put(t.Context(), "k", nil, object.PutOptions{IfMatch: a.ETag})
		wantFault(t, err, fault.Conflict, a.ETag)
		a = b
	}
}

func TestLinkAcrossFileSystems(t *testing.T) {
	s := open(t)
	mustPut(t, s, "k", "x")
	if err := s.Link(t.Context(), []object.Key{"k"}, []string{tmpfs(t, "size=512k") + "/k"})[0]; !errors.Is(err, object.ErrNoLink) || !errors.Is(err, syscall.EXDEV) {
		t.Fatal(err)
	}
}
