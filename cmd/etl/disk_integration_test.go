//go:build integration

package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"etl/internal/fault"
)

// mount puts a file system of its own at a path, below what is there.
func mount(t *testing.T, at, options string) {
	t.Helper()
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", at).CombinedOutput(); err != nil {
		t.Skipf("mounting a file system needs root: %v %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", at).Run() })
}

func remount(t *testing.T, at, options string) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "remount,"+options, at).CombinedOutput(); err != nil {
		t.Skipf("remount: %v %s", err, out)
	}
}

// TestIntegrationDisks: every job that writes, on a disk that is full, may not be
// written, or becomes so in the middle, be it that of the store, of its copy or
// of the database. The error says so and what to do, with exit code 1; nothing is
// half written; the next run completes it.
func TestIntegrationDisks(t *testing.T) {
	const points, from, to = 40, "2024-01-20", "2024-02-04"
	runs := 0
	// fresh is a place that was archived, with each of its parts on a disk of its own.
	fresh := func(t *testing.T) (p *place, r2, copy, disk string) {
		p = newPlace(t, 1, "2024-02-10T02:00:00Z")
		r2, copy, disk = filepath.Join(p.dir, "r2"), filepath.Join(p.dir, "copy"), filepath.Join(p.dir, "disk")
		mount(t, r2, "size=64m")
		mount(t, copy, "size=64m")
		mount(t, disk, "size=64m")
		p.points(points)
		p.fill(from, to, 15*time.Minute)
		p.exec("UPDATE timeseries SET value = random() / 1e9") // noise: 8 bytes a sample
		p.ok("archive", "--quiet", "--hot-window", "60d")
		p.exec("PRAGMA wal_checkpoint(TRUNCATE)")
		return p, r2, copy, disk
	}
	cp := func(t *testing.T, from, to string) {
		t.Helper()
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	// onDisk moves the database to the disk; the connection of the sensors stays with the old file.
	onDisk := func(t *testing.T, p *place, disk string) {
		t.Helper()
		p.must(p.conn.Close())
		cp(t, filepath.Join(p.dir, "d1.sqlite"), disk+"/d1.sqlite")
		p.file = filepath.Join(disk, "d1.sqlite")
		p.env = append(p.env, "ETL_SOURCE=sqlite:"+p.file)
		p.conn = p.open()
	}
	// broken wants the error of a disk, and of nothing else.
	broken := func(t *testing.T, r finished, want ...string) {
		t.Helper()
		runs++
		said := r.stderr + r.stdout
		ok := false
		for _, w := range want {
			ok = ok || strings.Contains(said, w)
		}
		if r.code != fault.ExitError || !ok || strings.Contains(said, "internal") {
			t.Fatalf("want %q with exit code 1: %s", want, r)
		}
	}
	const full, readonly = "no space left on device", "read-only file system"
	fill := func(t *testing.T, at string) (empty func()) {
		t.Helper()
		name := filepath.Join(at, "filler")
		_ = exec.Command("dd", "if=/dev/zero", "of="+name, "bs=4k").Run() // ends when the disk is full
		return func() {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	damage := func(t *testing.T, p *place, r2 string) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(r2, "timeseries/2024/0*/*.parquet"))
		p.must(err)
		for _, f := range files[:len(files)/2] {
			p.must(os.WriteFile(f, []byte("PAR1"), 0o644))
		}
	}

	// unwritable does something while the disk is read-only. The connection of the
	// sensors would hold it up.
	unwritable := func(t *testing.T, p *place, disk string, f func()) {
		t.Helper()
		holds := strings.HasPrefix(p.file, disk)
		if holds {
			p.must(p.conn.Close())
		}
		remount(t, disk, "ro")
		f()
		remount(t, disk, "rw")
		if holds {
			p.conn = p.open()
		}
	}

	// spoilt has a job fail on a disk, in both ways, and then succeed.
	spoilt := func(t *testing.T, p *place, disk string, args []string, fulls []string) {
		t.Helper()
		empty := fill(t, disk)
		broken(t, p.etl(args...), fulls...)
		empty()
		unwritable(t, p, disk, func() {
			broken(t, p.etl(args...), readonly, "readonly database", "unable to open database file")
		})
		p.ok(args...)
	}

	t.Run("replicate", func(t *testing.T) {
		p, _, copy, _ := fresh(t)
		remount(t, copy, "size=200k") // full in the middle
		broken(t, p.etl("replicate", "--to", "file:copy", "--quiet"), full)
		remount(t, copy, "size=64m")
		spoilt(t, p, copy, []string{"replicate", "--to", "file:copy", "--quiet"}, []string{full})
		p.ok("verify", "--deep", "--store", "file:copy", "--quiet")
	})
	t.Run("repair", func(t *testing.T) {
		p, r2, _, _ := fresh(t)
		truth := p.hot()
		damage(t, p, r2)
		spoilt(t, p, r2, []string{"repair", "--quiet"}, []string{full})
		if rows, _ := p.cold(); !maps.Equal(rows, truth) {
			t.Error("after the repair the archive is not what the source holds")
		}
		p.ok("verify", "--deep", "--against-source", "--quiet", "--from", from)
	})
	t.Run("prune", func(t *testing.T) {
		p, _, _, disk := fresh(t)
		truth := p.hot()
		onDisk(t, p, disk)
		args := []string{"prune", "--yes", "--older-than", "10d", "--quiet"}
		empty := fill(t, disk)
		broken(t, p.etl(args...), "database or disk is full", "is the disk that holds", full)
		if !maps.Equal(p.hot(), truth) {
			t.Error("rows are gone")
		}
		empty()
		unwritable(t, p, disk, func() {
			broken(t, p.etl(args...), readonly, "readonly database", "unable to open database file")
		})
		p.ok(args...)
		rows, _ := p.cold()
		if left := p.hot(); len(left) >= len(truth) {
			t.Errorf("%d rows are left of %d", len(left), len(truth))
		}
		if !maps.Equal(rows, truth) {
			t.Error("the archive is not what the source held")
		}
	})
	t.Run("restore", func(t *testing.T) {
		p, _, _, disk := fresh(t)
		truth := p.hot()
		p.exec("DELETE FROM timeseries")
		p.exec("VACUUM")
		onDisk(t, p, disk)
		args := []string{"restore", "--from", from, "--to", to, "--quiet"}
		spoilt(t, p, disk, args, []string{"database or disk is full", "is the disk that holds", full})
		if !maps.Equal(p.hot(), truth) {
			t.Error("what was restored is not what was there")
		}
		// Into a file of its own.
		out := filepath.Join(disk, "slice.sqlite")
		args = []string{"restore", "--from", from, "--to", to, "--quiet", "--to-file", out}
		empty := fill(t, disk)
		broken(t, p.etl(args...), "database or disk is full", "is the disk that holds", full)
		empty()
		if _, err := os.Stat(out); err == nil {
			t.Error("half a file is left")
		}
		p.ok(args...)
	})
	t.Run("archive", func(t *testing.T) {
		p, _, _, disk := fresh(t)
		onDisk(t, p, disk)
		p.late(p.conn, p.rng, 100, points, from, to)
		p.exec("PRAGMA wal_checkpoint(TRUNCATE)")
		spoilt(t, p, disk, []string{"archive", "--quiet", "--hot-window", "60d"}, []string{"database or disk is full", "is the disk that holds", full})
		p.ok("verify", "--deep", "--against-source", "--quiet", "--from", from)
	})
	t.Run("migrate", func(t *testing.T) {
		p, _, _, disk := fresh(t)
		p.env = append(p.env, "ETL_SOURCE=sqlite:"+filepath.Join(disk, "new.sqlite"))
		spoilt(t, p, disk, []string{"migrate"}, []string{"database or disk is full", "is the disk that holds", full})
	})
	t.Logf("reliability: full and read-only disks: %d runs", runs)
}
