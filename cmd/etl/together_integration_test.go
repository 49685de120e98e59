//go:build integration

package main

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"etl/internal/fault"
)

// TestIntegrationTogether lets processes of different jobs work on the same tiers
// at once, while rows arrive and verify looks on. Verify raises no alarm; every
// sample can be read after each round; and a quiet run of each job settles it.
func TestIntegrationTogether(t *testing.T) {
	const points = 16
	from, to := "2024-01-12", "2024-02-10"
	whole := []string{"--from", from, "--to", to}
	archive, rearchive := []string{"archive"}, append([]string{"rearchive"}, whole...)
	prune := []string{"prune", "--yes", "--older-than", "5d"}
	restore := append([]string{"restore"}, whole...)
	repair := []string{"repair", "--replica", "file:copy"}
	replicate := []string{"replicate", "--to", "file:copy"}
	crews := map[string][][]string{
		"archive+archive":   {archive, archive, rearchive},
		"archive+prune":     {archive, prune, prune},
		"archive+restore":   {rearchive, restore},
		"archive+repair":    {rearchive, repair, archive},
		"archive+replicate": {archive, replicate, rearchive},
		"prune+replicate":   {prune, replicate, archive},
		"repair+replicate":  {repair, replicate},
		"four of them":      {archive, prune, repair, replicate},
	}
	rounds := 1
	if *thorough {
		rounds = 3
	}
	processes, verified := 0, 0
	seed := seeds(t, 1)[0]
	for i, name := range slices.Sorted(maps.Keys(crews)) {
		if !*thorough && uint64(i)%2 != seed%2 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, seed, "2024-02-10T02:00:00Z")
			p.points(points)
			p.fill(from, to, 30*time.Minute)
			truth := p.hot()
			p.ok("archive", "--quiet")
			p.ok("replicate", "--to", "file:copy", "--quiet")
			for round := range rounds {
				if strings.Contains(name, "restore") {
					p.ok(append(slices.Clone(rearchive), "--quiet")...)
					p.ok(append(slices.Clone(prune), "--quiet")...)
				}
				if strings.HasSuffix(name, "+repair") || strings.HasPrefix(name, "repair+") { // the hot tier has all of these
					month := filepath.Join(p.dir, "r2", "timeseries", "2024", "01")
					names, err := os.ReadDir(month)
					p.must(err)
					for _, n := range names[:3] {
						p.must(os.Truncate(filepath.Join(month, n.Name()), 100))
					}
				}
				damaged := strings.Contains(name, "repair") && name != "four of them"
				crew := crews[name]
				results := make([]finished, len(crew))
				var wg sync.WaitGroup
				for i, args := range crew {
					wg.Go(func() { results[i] = p.etl(append(slices.Clone(args), "--quiet")...) })
				}
				stop := make(chan struct{})
				var beside sync.WaitGroup
				c, rng := p.open(), rand.New(rand.NewPCG(seed, uint64(round)+3))
				beside.Go(func() {
					for {
						maps.Copy(truth, p.late(c, rng, 50, points, from, to))
						select {
						case <-stop:
							return
						case <-time.After(time.Duration(rng.IntN(30)) * time.Millisecond):
						}
					}
				})
				beside.Go(func() {
					for i := 0; !damaged; i++ {
						args := [][]string{{"verify", "--quiet"}, append([]string{"verify", "--deep", "--against-source", "--quiet"}, whole...)}[i%2]
						if r := p.etl(args...); r.code != 0 {
							t.Errorf("a false alarm: %s", r)
						}
						verified++
						select {
						case <-stop:
							return
						default:
						}
					}
				})
				wg.Wait()
				close(stop)
				beside.Wait()
				processes += len(crew)
				for _, r := range results {
					switch {
					case r.code == fault.ExitOK || r.code == fault.ExitTransient: // it may give up on what others keep replacing
					case damaged && r.code == fault.ExitCorrupt: // it met the file before it was mended
					case r.args[0] == "replicate" && r.code == fault.ExitFindings: // files were newer than the manifest
					default:
						t.Error(r)
					}
				}
				if damaged {
					p.ok("repair", "--replica", "file:copy", "--quiet")
				}
				same(t, everywhere(p), truth)
			}
			p.ok(append(slices.Clone(rearchive), "--quiet")...)
			same(t, coldOf(p), truth)
			p.ok("replicate", "--to", "file:copy", "--quiet")
			for _, store := range []string{"file:r2", "file:copy"} {
				p.ok(append([]string{"verify", "--deep", "--against-source", "--quiet", "--store", store}, whole...)...)
			}
			p.ok("prune", "--yes", "--older-than", "1d", "--quiet")
			p.ok(append(slices.Clone(restore), "--quiet")...)
			same(t, p.hot(), truth)
		})
	}
	t.Logf("reliability: processes at once: %d processes of archive, prune, restore, repair and replicate, two to four at a time (%s), with rows arriving", processes, strings.Join(slices.Sorted(maps.Keys(crews)), ", "))
	t.Logf("reliability: verify beside processes: %d verifications beside them, none of which raised an alarm", verified)
	if verified < processes/4 {
		t.Errorf("only %d verifications", verified)
	}
}
