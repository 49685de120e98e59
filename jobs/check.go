package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

// checkItem is a month file that this run wrote, as the committed manifest
// describes it, and the slices that depend on it.
type checkItem struct {
	entry  *manifests.Entry
	slices []source.Slice
}

// check reads back the files of a commit: size, SHA-256 and the number of
// samples on each day, counted from the rows, must be those of the manifest. It
// returns the slices whose files are right; the others are failures.
func (m *monthRun) check(ctx context.Context, items []checkItem) ([]source.Slice, error) {
	var mu sync.Mutex
	var ok []source.Slice
	g, gctx := errgroup.WithContext(ctx)
	parts := slices.Collect(slices.Chunk(items, max(1, len(items)/m.opts.WriteWorkers)))
	g.SetLimit(m.opts.WriteWorkers)
	for _, part := range parts {
		g.Go(func() error {
			dec := monthfile.NewDecoder().Timed(m.env.Timing)
			var rows sample.Series
			for _, it := range part {
				if gctx.Err() != nil {
					return gctx.Err()
				}
				if m.dead() != nil {
					return nil // what is not checked is not confirmed, and is done again
				}
				err := checkFile(gctx, m.env.Store, dec, &rows, m.mp.Month, it.entry)
				if gctx.Err() != nil {
					return gctx.Err()
				}
				if err != nil {
					f := failure(fmt.Errorf("check after writing: %w", err))
					f.Month, f.PointID, f.Point, f.Path = m.mp.Month.String(), it.entry.ID, it.entry.Name, string(it.entry.Path)
					m.fail(f)
					m.failedWrite(err)
					continue
				}
				mu.Lock()
				ok = append(ok, it.slices...)
				mu.Unlock()
			}
			return nil
		})
	}
	err := g.Wait()
	m.mu.Lock()
	m.engine.report.FilesChecked += int64(len(items))
	m.mu.Unlock()
	return ok, err
}

// checkFile reads one file back. A whole and valid newer version of the same
// point and month is right too: another run merged into ours, conditionally on
// it, and its own commit follows.
func checkFile(ctx context.Context, store object.Store, dec *monthfile.Decoder, rows *sample.Series, month utc.Month, e *manifests.Entry) error {
	data, _, err := store.Get(ctx, e.Path)
	if fault.Is(err, fault.NotExist) {
		return missing(e.Path, month)
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	if hex.EncodeToString(sum[:]) != e.SHA256 {
		info, err := dec.Decode(data, rows)
		if err == nil && (info.PointID != e.ID || info.Month != month) {
			err = fault.Errorf(fault.Corrupt, "%s: it now holds point %d, %s", e.Path, info.PointID, info.Month)
		}
		if err != nil {
			return fault.Hint(fault.Errorf(fault.Corrupt, "%s: %w", e.Path, err), "%s", remedy(month))
		}
		return nil
	}
	if int64(len(data)) != e.Bytes {
		return fault.Errorf(fault.Corrupt, "%s: %d bytes, the manifest says %d", e.Path, len(data), e.Bytes)
	}
	if _, err := dec.DecodeTrusted(data, rows); err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	counts := sample.NewDayCounts(month)
	for i, n := range e.Days {
		if n == 0 {
			counts[i] = 0
		}
	}
	if !sample.CountDays(counts, month, rows.TS) || !slices.Equal(counts, e.Days) {
		return fault.Errorf(fault.Corrupt, "%s: the days hold %v samples, the manifest says %v", e.Path, counts, e.Days)
	}
	return nil
}
