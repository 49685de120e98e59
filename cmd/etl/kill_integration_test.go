//go:build integration

package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var thorough = flag.Bool("thorough", false, "kill more, and let more processes race")

// killer kills etl -9 at random moments of what a command usually takes here.
type killer struct {
	*place
	usual map[string]time.Duration // by command
	kills int
	ended bool // the last one before it was killed
}

// kill starts a command, kills it, and reports what became of it. One that ended
// before has to have ended well.
func (k *killer) kill(args ...string) (what string) {
	k.t.Helper()
	usual, ok := k.usual[args[0]]
	if !ok {
		usual = 600 * time.Millisecond
	}
	cmd := k.command(append(args, "--quiet")...)
	start := time.Now()
	k.must(cmd.Start())
	delay := 10*time.Millisecond + time.Duration(k.rng.Int64N(int64(usual)))
	timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	timer.Stop()
	what = fmt.Sprintf("a kill at %s of etl %s", delay, strings.Join(args, " "))
	k.ended = cmd.ProcessState.ExitCode() != -1
	switch {
	case !k.ended:
		k.kills++
		if delay > usual*9/10 {
			k.usual[args[0]] = usual * 5 / 4 // it takes longer than was thought
		}
	case err != nil:
		k.t.Fatalf("etl %v: %v", args, err)
	default:
		k.usual[args[0]] = (3*usual + time.Since(start)) / 4
	}
	return what
}

// TestIntegrationKill kills etl -9 at random moments of each job that writes.
// Whatever the moment, what is left reads correctly, the ledger claims no more
// than is safe, no sample is lost, and the next run completes it.
func TestIntegrationKill(t *testing.T) {
	wanted := 14 // of each job
	if *thorough {
		wanted = 46
	}
	for _, job := range []struct {
		name string
		do   func(k *killer, attempt int) (end func())
	}{
		{"archive", killArchive()},
		{"prune", killBoth("prune", "--yes")},
		{"restore", killBoth("restore", "--from", "2024-01-02", "--to", "2024-01-22", "--mark-old")},
		{"repair", killRepair()},
		{"replicate", killReplicate()},
	} {
		t.Run(job.name, func(t *testing.T) {
			kills := 0
			for _, seed := range seeds(t, 2) {
				k := &killer{usual: make(map[string]time.Duration)}
				end := func() {}
				for attempt := 0; k.kills < wanted/2 && attempt < 6*wanted; attempt++ {
					if attempt == 0 {
						k.place = newPlace(t, seed, "2024-02-10T02:00:00Z")
					}
					end = job.do(k, attempt)
				}
				end()
				kills += k.kills
			}
			t.Logf("reliability: kill -9 of %s: %d kills at random moments", job.name, kills)
			if kills < wanted*3/4 && !t.Failed() {
				t.Errorf("only %d runs were killed before they ended", kills)
			}
		})
	}
}

// killArchive kills archive, backfill and rearchive, of an empty archive or of
// one to which late rows came.
func killArchive() func(k *killer, attempt int) func() {
	const points = 40
	from, to := "2024-01-12", "2024-02-10"
	return func(k *killer, attempt int) func() {
		if attempt == 0 {
			k.points(points)
			k.fill(from, to, 15*time.Minute)
		}
		args := [][]string{{"archive"}, {"rearchive", "--from", from, "--to", to}, {"backfill", "--from", from, "--to", to}}
		if attempt%4 == 0 { // begin anew, so that there is much to do
			k.must(os.RemoveAll(filepath.Join(k.dir, "r2")))
			k.exec("DELETE FROM archive_marks")
		} else {
			k.late(k.conn, k.rng, 2000, points, from, to)
			args = args[:2]
		}
		what := k.kill(args[k.rng.IntN(len(args))]...)
		k.safe()
		if r := k.etl("verify", "--deep", "--quiet"); r.code != 0 && !r.empty() {
			k.t.Fatalf("after %s: %s", what, r)
		}
		if attempt%4 == 3 {
			k.settled(from, to, points)
		}
		return func() { k.settled(from, to, points) }
	}
}

// empty reports whether a command found that there is no cold tier yet.
func (r finished) empty() bool {
	return strings.Contains(r.stdout, "nothing was ever archived") || strings.Contains(r.stderr, "there is no folder")
}

// killBoth kills prune or restore while rows arrive; the other one runs to its end
// in between, so that there is something to do. Whatever the moment, every sample
// is in one tier or the other.
func killBoth(args ...string) func(k *killer, attempt int) func() {
	const points = 40
	from, to := "2024-01-02", "2024-01-22"
	prune, restore := []string{"prune", "--yes", "--quiet"}, []string{"restore", "--from", from, "--to", to, "--mark-old", "--quiet"}
	var truth map[key]row
	return func(k *killer, attempt int) func() {
		if attempt == 0 {
			k.now = "2024-03-10T02:00:00Z"
			k.points(points)
			k.fill(from, to, 15*time.Minute)
			k.ok("backfill", "--from", from, "--to", to, "--quiet")
			truth = k.hot()
		}
		if attempt%2 == 0 || k.ended {
			if args[0] == "prune" {
				k.ok(restore...)
			} else {
				k.ok(prune...)
			}
		}
		done := make(chan struct{})
		if attempt%3 == 0 { // each gives one row to the truth
			p, ts, c := 1+k.rng.IntN(points), mustDay(from).Start()+k.rng.Int64N(20*86400_000), k.open()
			go func() {
				defer close(done)
				time.Sleep(60 * time.Millisecond)
				k.insert(c, int32(p), ts, float64(attempt))
			}()
			truth[key{int32(p), ts}] = row{bitsOf(float64(attempt)), 192, 0}
		} else {
			close(done)
		}
		what := k.kill(args...)
		<-done
		got := everywhere(k.place)
		for x, r := range truth {
			if got[x] != r {
				k.t.Fatalf("after %s: point %d at %d is %v, want %v", what, x.point, x.ts, got[x], r)
			}
		}
		if attempt%4 == 3 {
			k.ok("rearchive", "--from", from, "--to", to, "--quiet")
		}
		return func() {
			k.ok("rearchive", "--from", from, "--to", to, "--quiet")
			same(k.t, coldOf(k.place), truth)
			k.ok(prune...)
			if n := len(k.hot()); n > 0 {
				k.t.Errorf("%d rows are left", n)
			}
			k.ok(restore...)
			same(k.t, k.hot(), truth)
			k.ok("verify", "--deep", "--against-source", "--from", from, "--to", to, "--quiet")
		}
	}
}

// everywhere is what either tier holds: where both have a row, the hot one.
func everywhere(p *place) map[key]row {
	rows := coldOf(p)
	maps.Copy(rows, p.hot())
	return rows
}

// killRepair kills repair over a cold tier that lost files, a manifest or whole
// months, of which the hot tier has a part and a replica the rest.
func killRepair() func(k *killer, attempt int) func() {
	const points = 40
	from, to := "2024-01-12", "2024-02-10"
	var truth map[key]row
	args := []string{"repair", "--replica", "file:copy"}
	return func(k *killer, attempt int) func() {
		if attempt == 0 {
			k.points(points)
			k.fill(from, to, 15*time.Minute)
			truth = k.hot()
			k.ok("archive", "--quiet")
			k.ok("replicate", "--to", "file:copy", "--quiet")
			k.ok("prune", "--yes", "--older-than", "15d", "--quiet")
		}
		month := filepath.Join(k.dir, "r2", "timeseries", "2024", "01")
		switch attempt % 4 {
		case 0:
			k.must(os.RemoveAll(month))
		case 1:
			k.must(os.WriteFile(filepath.Join(k.dir, "r2", "_manifests", "2024-01.json"), []byte("{"), 0o644))
		default:
			names, err := os.ReadDir(month)
			k.must(err)
			for i, n := range names {
				if i%2 == attempt%2 {
					k.must(os.Truncate(filepath.Join(month, n.Name()), int64(k.rng.IntN(300))))
				}
			}
		}
		what := k.kill(args...)
		if r := k.ok(append(args, "--json", "--quiet")...); !strings.Contains(r.stdout, `"lost":[]`) && !strings.Contains(r.stdout, `"lost": []`) {
			k.t.Fatalf("after %s: %s", what, r)
		}
		k.ok("verify", "--deep", "--quiet")
		same(k.t, coldOf(k.place), truth)
		return func() {
			k.ok("archive", "--quiet")
			same(k.t, everywhere(k.place), truth)
			k.ok("verify", "--deep", "--against-source", "--quiet")
		}
	}
}

// killReplicate kills replicate into a place that is empty, or an older copy.
func killReplicate() func(k *killer, attempt int) func() {
	const points = 40
	from, to := "2024-01-12", "2024-02-10"
	args := []string{"replicate", "--to", "file:copy"}
	return func(k *killer, attempt int) func() {
		if attempt == 0 {
			k.points(points)
			k.fill(from, to, 15*time.Minute)
			k.ok("archive", "--quiet")
		}
		if attempt%2 == 0 {
			k.must(os.RemoveAll(filepath.Join(k.dir, "copy")))
		} else {
			k.late(k.conn, k.rng, 500, points, from, to)
			k.ok("archive", "--quiet")
		}
		what := k.kill(args...)
		if r := k.etl("verify", "--deep", "--store", "file:copy", "--quiet"); r.code != 0 && !r.empty() {
			k.t.Fatalf("after %s: %s", what, r)
		}
		if attempt%3 == 2 {
			k.ok(append(args, "--quiet")...)
		}
		return func() {
			k.ok(append(args, "--quiet")...)
			k.ok("verify", "--deep", "--store", "file:copy", "--quiet")
			k.must(os.RemoveAll(filepath.Join(k.dir, "r2")))
			k.must(os.Rename(filepath.Join(k.dir, "copy"), filepath.Join(k.dir, "r2")))
			same(k.t, coldOf(k.place), k.hot())
		}
	}
}
