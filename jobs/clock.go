package jobs

import (
	"context"
	"time"

	"etl/internal/fault"
	"etl/internal/source"
	"etl/internal/utc"
)

// Rules of time, with the spec's defaults.
const (
	// HotWindow is how far back archive looks for days that are not archived,
	// and late rows; D1 holds about 30 days.
	HotWindow = 35
	// Grace is how long after its end a day is taken to be complete.
	Grace = time.Hour
	// Retention is the age at which the retention trigger may have deleted
	// rows: --replace refuses older days.
	Retention = 30 * 24 * time.Hour
)

// clock is the earlier of the source's clock and the runner's: neither alone
// can make a day look complete.
func clock(source, runner time.Time) time.Time {
	if source.Before(runner) {
		return source
	}
	return runner
}

// firstIncomplete is the first day that is not yet archivable at now: every
// day before it ended at least grace ago.
func firstIncomplete(now time.Time, grace time.Duration) utc.Day {
	return utc.DayOfTime(now.Add(-grace))
}

// checkRange refuses a range that holds a day which is not archivable yet, or
// that lies outside the plausible time of samples.
func checkRange(r utc.Days, now time.Time, grace time.Duration) error {
	if r.Empty() {
		return fault.Hint(fault.Errorf(fault.Usage, "the range is empty: --from %s is not before --to %s", r.From, r.To),
			"--to is exclusive: --from 2024-01-05 --to 2024-01-06 is one day")
	}
	if r.From < source.Earliest {
		return fault.Errorf(fault.Usage, "the range begins on %s: samples before %s can not be archived", r.From, source.Earliest)
	}
	if end := firstIncomplete(now, grace); r.To > end {
		return fault.Hint(fault.Errorf(fault.Usage, "the range ends with %s, but the last complete day is %s", r.To-1, end-1),
			"a day is complete %g h after its end, UTC, by the source's clock and this machine's; use --to %s or earlier (--to is exclusive)", grace.Hours(), end)
	}
	return nil
}

// Complete is the default range of archive: from the beginning of the hot
// window to the first day that is not complete.
func Complete(ctx context.Context, env Env, o ArchiveOptions) (from, end utc.Day, err error) {
	info, err := env.Source.Info(ctx)
	if err != nil {
		return 0, 0, err
	}
	o.defaults()
	now := clock(info.Now, env.Now())
	return hotDays(now, o).From, firstIncomplete(now, o.Grace), nil
}

// CheckRange refuses o.Days where PlanArchive would, for a caller that has much
// to do before it can plan.
func CheckRange(ctx context.Context, env Env, o ArchiveOptions) error {
	info, err := env.Source.Info(ctx)
	if err != nil {
		return err
	}
	o.defaults()
	return checkRange(o.Days, clock(info.Now, env.Now()), o.Grace)
}

func hotDays(now time.Time, o ArchiveOptions) utc.Days {
	return utc.Days{From: max(source.Earliest, utc.DayOfTime(now)-utc.Day(o.HotWindow)), To: firstIncomplete(now, o.Grace)}
}
