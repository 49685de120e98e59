//go:build integration

package lake

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"etl/internal/utc"
	"etl/jobs"
)

// realGaps are the gaps that an independent program found in real data.
type realGaps struct {
	Point    string  `json:"point"`
	Median   float64 `json:"median_interval_ms"`
	Samples  int64   `json:"n_samples"`
	Distinct int64   `json:"n_distinct_ts"`
	Longest  int64   `json:"longest_gap_ms"`
	Missing  int64   `json:"missing_total"`
	First    int64   `json:"first_ms"`
	Last     int64   `json:"last_ms"`
	Gaps     []struct {
		After   int64 `json:"after_ms"`
		Before  int64 `json:"before_ms"`
		Missing int64 `json:"missing_estimate"`
	} `json:"gaps"`
}

// TestAuditRealSets: the gaps of the real data sets are exactly those that an
// independent program found, split over both tiers.
func TestAuditRealSets(t *testing.T) {
	const sets = "../../../shared/data"
	paths, err := filepath.Glob(filepath.Join(sets, "*.csv.gz"))
	if err != nil || len(paths) == 0 {
		t.Skipf("there are no real data sets in %s", sets)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(strings.TrimSuffix(path, ".csv.gz") + ".gaps.json")
			if err != nil {
				t.Fatal(err)
			}
			var want []realGaps
			if err := json.Unmarshal(data, &want); err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			first, last := w.loadSet(path)
			w.now = (last + 1).Time().Add(12 * time.Hour)
			w.archive(first, first+(last-first)*4/5)
			r, err := jobs.Audit(t.Context(), w.auditEnv(), w.lake, jobs.AuditOptions{Days: utc.Days{From: first, To: last + 1}})
			w.must(err)
			slices.SortFunc(want, func(a, b realGaps) int { return cmp.Compare(a.Point, b.Point) })
			points := slices.Clone(r.Points)
			slices.SortFunc(points, func(a, b jobs.AuditPoint) int { return cmp.Compare(a.Name, b.Name) })
			if len(points) != len(want) {
				t.Fatalf("%d points, want %d", len(points), len(want))
			}
			gaps := 0
			for i, p := range points {
				x := want[i]
				if p.Name != x.Point || !p.Measured || float64(*p.Interval) != x.Median || p.Present != x.Distinct || *p.First != x.First || *p.Last != x.Last {
					t.Fatalf("%+v, want %s: median %g, %d distinct, %d to %d", p, x.Point, x.Median, x.Distinct, x.First, x.Last)
				}
				var got, found []string
				longest, missing := int64(0), int64(0)
				for _, g := range r.Gaps {
					if g.PointID != p.ID || g.Kind != "inner" {
						continue
					}
					got = append(got, fmt.Sprint(*g.After, *g.Before, *g.Missing))
					longest, missing = max(longest, g.Length), missing+*g.Missing
				}
				for _, g := range x.Gaps {
					found = append(found, fmt.Sprint(g.After, g.Before, g.Missing))
				}
				if !slices.Equal(got, found) || longest != x.Longest || missing != x.Missing {
					t.Errorf("%s: %d gaps, want %d; longest %d, want %d; missing %d, want %d", p.Name, len(got), len(found), longest, x.Longest, missing, x.Missing)
				}
				gaps += len(got)
			}
			t.Logf("%d points, %d readings, %d gaps", len(points), r.Coverage.Present, gaps)
		})
	}
}
