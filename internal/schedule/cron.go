package schedule

import (
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"etl/internal/fault"
)

// Cron says when nights are due, in UTC: no hour is skipped or comes twice.
type Cron struct {
	text string
	spec *cron.SpecSchedule
}

// String is the expression as it was given.
func (c Cron) String() string { return c.text }

// parser takes what Kubernetes takes, and seconds before it where there are six fields.
var parser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// ParseCron parses minute, hour, day of the month, month, day of the week (six
// fields begin with seconds), or @hourly, @daily, @weekly, @monthly. A zone is
// refused, and so is @every, whose nights would depend on when it was started.
func ParseCron(text string) (Cron, error) {
	wrong := func(why string) error {
		return fault.Hint(fault.Errorf(fault.Usage, "%q: %s", text, why), `five fields, in UTC: minute hour day month weekday (six begin with the second); "0 2 * * *" is every night at 02:00`)
	}
	text = strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(text, "TZ=") || strings.HasPrefix(text, "CRON_TZ="):
		return Cron{}, wrong("the days of the archive are UTC days, and so are its nights")
	case strings.HasPrefix(text, "@every"):
		return Cron{}, wrong("@every has no times of its own")
	}
	s, err := parser.Parse(text)
	if err != nil {
		return Cron{}, wrong(err.Error())
	}
	spec, ok := s.(*cron.SpecSchedule)
	if !ok {
		return Cron{}, wrong("it has no times of its own")
	}
	spec.Location = time.UTC
	c := Cron{text, spec}
	if c.Next(time.Unix(0, 0)).IsZero() {
		return Cron{}, wrong("there is no such day")
	}
	return c, nil
}

// Next is the first due time after t, the zero time if there is none within five years.
func (c Cron) Next(t time.Time) time.Time { return c.spec.Next(t.UTC()) }

// Last is the latest due time that is not after t, the zero time if there is
// none within eight years (29 February is up to eight years away).
func (c Cron) Last(t time.Time) time.Time {
	t = t.UTC()
	const most = 8 * 366 * 24 * time.Hour
	for back := time.Minute; ; back *= 4 {
		back = min(back, most)
		due := c.Next(t.Add(-back))
		if due.IsZero() || due.After(t) {
			if back == most {
				return time.Time{}
			}
			continue
		}
		// At most four times as many lie in the window as in the one before it,
		// which held none: few are passed over.
		for next := c.Next(due); !next.IsZero() && !next.After(t); next = c.Next(due) {
			due = next
		}
		return due
	}
}
