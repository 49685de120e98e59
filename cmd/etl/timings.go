package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"etl/internal/source"
	"etl/internal/timing"
)

// timings is where the time of a command went.
type timings struct {
	Wall   float64 `json:"wall_seconds"`
	User   float64 `json:"cpu_user_seconds"`
	System float64 `json:"cpu_system_seconds"`
	// Spans are sums over all workers that ran at once: together they may be
	// more than Wall.
	Spans    []timing.Span `json:"spans"`
	Repeated int64         `json:"requests_repeated"`
	Billed   *source.Usage `json:"billed,omitempty"`
}

func (a *app) takeTimings() timings {
	t := timings{Wall: a.rec.Wall().Seconds(), Spans: a.rec.Spans(), Repeated: a.retries.Load()}
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		t.User, t.System = time.Duration(u.Utime.Nano()).Seconds(), time.Duration(u.Stime.Nano()).Seconds()
	}
	if a.billed != nil {
		t.Billed = new(a.billed())
	}
	return t
}

// withTimings is result as JSON, with the field timings where it is an object.
func (a *app) withTimings(result any) (any, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(result); err != nil {
		return nil, err
	}
	object, ok := bytes.CutSuffix(bytes.TrimSpace(b.Bytes()), []byte("}"))
	if !ok {
		return json.RawMessage(b.Bytes()), nil // a list: the table is printed
	}
	t, err := json.Marshal(a.takeTimings())
	if err != nil {
		return nil, err
	}
	a.told = true
	if len(object) > 1 {
		object = append(object, ',')
	}
	return json.RawMessage(fmt.Appendf(object, `"timings":%s}`, t)), nil
}

// printTimings prints the table at the end of a command, unless JSON had it.
func (a *app) printTimings() {
	if a.rec == nil || a.told {
		return
	}
	t := a.takeTimings()
	short := func(s float64) time.Duration {
		d := time.Duration(s * float64(time.Second))
		return d.Round(max(time.Microsecond, d/1000).Truncate(time.Microsecond))
	}
	tab := newTable("where the time went", "calls>", "time>", "mean>", "bytes>")
	for _, s := range t.Spans {
		moved := ""
		if s.Bytes > 0 {
			moved = humanize.IBytes(uint64(s.Bytes))
		}
		tab.row(s.Kind, comma(s.Calls), short(s.Seconds), short(s.Seconds/float64(s.Calls)), moved)
	}
	fmt.Fprintln(a.stderr)
	if len(t.Spans) > 0 {
		tab.print(a.stderr)
	}
	fmt.Fprintf(a.stderr, "on the clock %s; CPU %s, and %s in the system. Times above are sums over all workers that ran at once.\n", seconds(t.Wall), seconds(t.User), seconds(t.System))
	if t.Repeated > 0 {
		fmt.Fprintf(a.stderr, "%s requests were sent again\n", comma(t.Repeated))
	}
	printBilled(a.stderr, t.Billed)
}
