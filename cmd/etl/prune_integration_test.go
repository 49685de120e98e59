//go:build integration

package main

import (
	"fmt"
	"maps"
	"testing"
	"time"
)

// TestIntegrationKillPruneAndRestore kills prune and restore -9 at random moments,
// while rows arrive. Whatever the moment, every sample is in one tier or the other;
// in the end all are archived, pruned, and restored.
func TestIntegrationKillPruneAndRestore(t *testing.T) {
	const points, wanted = 40, 30
	from, to := "2024-01-02", "2024-01-22"
	kills := 0
	for _, seed := range seeds(t, 3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := newPlace(t, seed, "2024-03-10T02:00:00Z")
			p.points(points)
			p.fill(from, to, 15*time.Minute)
			p.ok("backfill", "--from", from, "--to", to, "--quiet")
			truth := p.hot()
			everywhere := func() map[key]row {
				rows, _ := p.cold()
				maps.Copy(rows, p.hot())
				return rows
			}
			killed := 0
			for attempt := 0; killed < wanted/3 && attempt < 60; attempt++ {
				args := []string{"prune", "--yes"}
				if attempt%2 == 1 {
					args = []string{"restore", "--from", from, "--to", to, "--mark-old"}
				}
				cmd := p.command(append(args, "--quiet")...)
				cmd.Stdout, cmd.Stderr = nil, nil
				p.must(cmd.Start())
				delay := 50*time.Millisecond + time.Duration(p.rng.Int64N(int64(600*time.Millisecond)))
				timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
				if attempt%3 == 0 { // each gives one row to the truth
					p.exec("INSERT OR REPLACE INTO timeseries (point_id, timestamp, value) VALUES (?, ?, ?)", 1+p.rng.IntN(points), mustDay(from).Start()+p.rng.Int64N(20*86400_000), float64(attempt))
				}
				err := cmd.Wait()
				timer.Stop()
				if cmd.ProcessState.ExitCode() == -1 {
					killed++
				} else if err != nil {
					t.Fatalf("etl %v: %v", args, err)
				}
				got := everywhere()
				for k := range truth {
					if _, ok := got[k]; !ok {
						t.Fatalf("after a kill at %s of etl %v: lost %v", delay, args, k)
					}
				}
				truth = got
				if attempt%4 == 3 {
					p.ok("rearchive", "--from", from, "--to", to, "--quiet")
				}
			}
			p.ok("rearchive", "--from", from, "--to", to, "--quiet")
			cold, _ := p.cold()
			same(t, cold, truth)
			p.ok("prune", "--yes", "--quiet")
			if n := len(p.hot()); n > 0 {
				t.Errorf("%d rows are left", n)
			}
			p.ok("restore", "--from", from, "--to", to, "--quiet")
			same(t, p.hot(), truth)
			p.ok("verify", "--deep", "--quiet")
			kills += killed
			t.Logf("%d kills", killed)
		})
	}
	if kills < 20 && !t.Failed() {
		t.Errorf("only %d runs were killed before they ended", kills)
	}
}
