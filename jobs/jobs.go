// Package jobs owns what the commands do: one file per job, each a plan (pure
// and printable) and then its run. archive, backfill and rearchive share one
// engine and differ only in which (point, day)s they select.
//
// The data flows one way: source → batches → merge → month file → store →
// manifest → ledger. A job knows no SQL, Parquet, HTTP or JSON format; it
// reports what happens as typed events and leaves words and exit codes to the
// command.
package jobs

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/source"
	"etl/internal/timing"
	"etl/internal/utc"
)

// Env is what every job works on.
type Env struct {
	Source source.Source
	// Ledger is the source's ledger, nil where it may not or can not be
	// written: late rows are then found only by reading again, and nothing may
	// leave the hot tier.
	Ledger source.Ledger
	// Journal keeps the log of runs, nil for none. It is the ledger's, unless
	// what is archived comes from elsewhere, such as files.
	Journal source.Journal
	Store   object.Store
	// Now is the runner's clock.
	Now func() time.Time
	// Stop, once closed, lets what is in flight finish and be committed and
	// starts nothing more. It may be nil.
	Stop <-chan struct{}
	// Notify receives the events of the job, one at a time. It may be nil.
	Notify func(Event)
	// Timing records where the time goes, nil for not at all.
	Timing *timing.Recorder
}

func (e *Env) notify(ev Event) {
	if e.Notify != nil {
		e.Notify(ev)
	}
}

// Billed is what the source was asked for so far, nil where nobody bills it.
func (e *Env) Billed() *source.Usage {
	m, ok := e.Source.(source.Meter)
	if !ok {
		return nil
	}
	return new(m.Usage())
}

func (e *Env) stopped() bool {
	select {
	case <-e.Stop:
		return true
	default:
		return false
	}
}

// Event is something that happened in a job: one of the types below.
type Event interface{ event() }

// Progress is sent when a batch was extracted and when a point was written.
type Progress struct {
	Month               utc.Month
	SlicesDone          int64 // (point, day)s read, merged and stored
	SlicesTotal         int64
	Rows, Files, Bytes  int64
	PointsDone          int64
	PointsTotal         int64
	MonthsDone, NMonths int
}

// MonthCommitted is sent when a month's manifest was committed.
type MonthCommitted struct {
	Month  utc.Month
	Points int // points whose entries are now committed
}

// PointFailed is sent for each point of a month that could not be archived.
type PointFailed struct{ Failure }

// Rejected is sent when rows of a slice could not be stored.
type Rejected struct {
	Month  string // 2024-01, or "undated"
	Point  string
	Rows   int
	Reason string // of the first of them
	Key    object.Key
}

// Warning is anything else that a person should know.
type Warning struct{ Text string }

// Bookmarked is sent before a job changes what the hot tier holds, where that has
// Time Travel: the bookmark is the way back.
type Bookmarked struct{ Bookmark string }

func (Bookmarked) event()     {}
func (Progress) event()       {}
func (MonthCommitted) event() {}
func (PointFailed) event()    {}
func (Rejected) event()       {}
func (Warning) event()        {}

// Failure is one thing that a job could not do.
type Failure struct {
	Month   string `json:"month,omitempty"`
	PointID int32  `json:"point_id,omitempty"`
	Point   string `json:"point,omitempty"`
	Path    string `json:"path,omitempty"`
	Kind    string `json:"kind"`
	Error   string `json:"error"`
	Hint    string `json:"hint,omitempty"`

	err error
}

func failure(err error) Failure {
	return Failure{Kind: fault.KindOf(err).String(), Error: err.Error(), Hint: fault.HintOf(err), err: err}
}

// Err is the error behind the failure.
func (f Failure) Err() error { return f.err }

// MonthReport is what a job did to one month.
type MonthReport struct {
	Month          utc.Month `json:"month"`
	FirstDay       utc.Day   `json:"first_day"`
	LastDay        utc.Day   `json:"last_day"`
	Points         int       `json:"points"`
	Slices         int64     `json:"point_days"`
	SamplesRead    int64     `json:"samples_read"`
	FilesWritten   int64     `json:"files_written"`
	BytesWritten   int64     `json:"bytes_written"`
	SamplesWritten int64     `json:"samples_in_files"`
}

// Report is what an archiving job did.
type Report struct {
	Command string `json:"command"`
	Run     string `json:"run"`

	SamplesRead     int64 `json:"samples_read"`
	SamplesAdded    int64 `json:"samples_added"`
	SamplesReplaced int64 `json:"samples_replaced"`
	SamplesRemoved  int64 `json:"samples_removed"`
	SamplesRejected int64 `json:"samples_rejected"`
	PointDays       int64 `json:"point_days"` // (point, day)s read to their end
	PointDaysMarked int64 `json:"point_days_marked"`

	FilesWritten   int64 `json:"files_written"`
	FilesUnchanged int64 `json:"files_unchanged"` // points whose file was right already, or that need none
	FilesChecked   int64 `json:"files_checked"`
	BytesWritten   int64 `json:"bytes_written"`
	// BytesPerSample is over the files written, which hold whole months.
	BytesPerSample float64 `json:"bytes_per_sample"`
	Elapsed        float64 `json:"elapsed_seconds"`

	Months      []MonthReport `json:"months"`
	Failed      []Failure     `json:"failed"`
	Warnings    []string      `json:"warnings"`
	Interrupted bool          `json:"interrupted"`
	// Billed is what the source was asked for since it was opened, planning
	// included, where that is billed.
	Billed *source.Usage `json:"billed,omitempty"`
	// Stopped says why the job did not try the rest: it could not have succeeded.
	Stopped string `json:"stopped,omitempty"`

	samplesInFiles int64
}

// ExitCode is the worst of what happened: 130 > 4 > 1 > 5 > 3 > 0. With strict,
// rejected rows are findings.
func (r *Report) ExitCode(strict bool) int {
	code := fault.ExitOK
	for _, f := range r.Failed {
		c := fault.ExitFindings // a point failed, the others did not
		switch fault.KindOf(f.err) {
		case fault.Corrupt:
			c = fault.ExitCorrupt
		case fault.Transient, fault.Conflict, fault.Unknown:
			c = fault.ExitTransient
		case fault.Unavailable, fault.Internal, fault.Invalid:
			c = fault.ExitError
		}
		code = fault.Worse(code, c)
	}
	if strict && r.SamplesRejected > 0 {
		code = fault.Worse(code, fault.ExitFindings)
	}
	if r.Interrupted {
		code = fault.Worse(code, fault.ExitInterrupted)
	}
	return code
}

// Status is the word for archive_state.
func (r *Report) Status() string {
	switch {
	case r.Interrupted:
		return "interrupted"
	case len(r.Failed) == 0:
		return "done"
	case r.FilesWritten > 0 || r.PointDaysMarked > 0:
		return "partial"
	}
	return "failed"
}

func (r *Report) finish(start, end time.Time) {
	r.Elapsed = end.Sub(start).Seconds()
	if r.samplesInFiles > 0 {
		r.BytesPerSample = float64(r.BytesWritten) / float64(r.samplesInFiles)
	}
	slices.SortFunc(r.Failed, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(a.Month, b.Month), cmp.Compare(a.PointID, b.PointID))
	})
}

var errStopped = errors.New("stopped on request")
