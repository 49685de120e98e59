// Package timing records where the time of a command goes: how often each kind of
// work was done, how long it took in all, and how many bytes it moved.
//
// Times are sums over all workers that run at once, so together they may be more
// than the clock on the wall shows. A span counts what lies within it, too: a row
// of the source has the network below it. A nil Recorder records nothing, and
// costs a comparison.
package timing

import (
	"sync/atomic"
	"time"
)

// Kind is a kind of work.
type Kind int

const (
	SourceRead  Kind = iota // rows of the hot tier, without what is done with them
	SourceOther             // points, counts, the ledger, the log of runs
	Network                 // requests to Cloudflare's API, within the two above
	Parse                   // of their answers, also within
	Decode                  // month files
	Merge
	Encode
	Query // DuckDB, with what it waits for
	Get
	Put
	List
	Delete
	WaitRoom  // for room in memory, or for a writer
	WaitWork  // writers, for rows
	WaitRate  // for the rate of Cloudflare's API
	WaitPace  // for the next write of one key
	WaitRetry // before a request is sent again
	kinds
)

var names = [kinds]string{
	SourceRead: "source: rows", SourceOther: "source: points, counts, ledger", Network: "  of that, network", Parse: "  of that, parse",
	Decode: "decode month files", Merge: "merge", Encode: "encode month files", Query: "query (DuckDB)",
	Get: "store: GET", Put: "store: PUT", List: "store: LIST", Delete: "store: DELETE",
	WaitRoom: "waiting: room in memory", WaitWork: "waiting: writers for rows", WaitRate: "waiting: API rate", WaitPace: "waiting: writes of one key", WaitRetry: "waiting: before a retry",
}

var keys = [kinds]string{
	SourceRead: "source_rows", SourceOther: "source_other", Network: "source_network", Parse: "source_parse",
	Decode: "decode", Merge: "merge", Encode: "encode", Query: "query", Get: "get", Put: "put", List: "list", Delete: "delete",
	WaitRoom: "wait_room", WaitWork: "wait_work", WaitRate: "wait_rate", WaitPace: "wait_pace", WaitRetry: "wait_retry",
}

// String names the kind as the table does.
func (k Kind) String() string { return names[k] }

// Recorder adds up. All methods are safe for concurrent use, and do nothing on nil.
type Recorder struct {
	started time.Time
	spans   [kinds]struct{ calls, nanos, bytes atomic.Int64 }
}

// New begins to record.
func New() *Recorder { return &Recorder{started: time.Now()} }

// Start is the beginning of a span, for End.
func (r *Recorder) Start() time.Time {
	if r == nil {
		return time.Time{}
	}
	return time.Now()
}

// End adds the span that began at start.
func (r *Recorder) End(k Kind, start time.Time) {
	if r != nil {
		r.Add(k, time.Since(start), 0)
	}
}

// Add adds a span.
func (r *Recorder) Add(k Kind, took time.Duration, bytes int64) {
	if r == nil {
		return
	}
	s := &r.spans[k]
	s.calls.Add(1)
	s.nanos.Add(int64(took))
	if bytes != 0 {
		s.bytes.Add(bytes)
	}
}

// Span is what was recorded of one kind.
type Span struct {
	Kind    Kind    `json:"-"`
	Name    string  `json:"name"`
	Calls   int64   `json:"calls"`
	Seconds float64 `json:"seconds"` // of all workers
	Bytes   int64   `json:"bytes,omitempty"`
}

// Wall is how long has been recorded.
func (r *Recorder) Wall() time.Duration { return time.Since(r.started) }

// Spans are those of which there was any, in order of their kind.
func (r *Recorder) Spans() []Span {
	out := []Span{}
	for k := range kinds {
		s := &r.spans[k]
		if n := s.calls.Load(); n > 0 {
			out = append(out, Span{k, keys[k], n, time.Duration(s.nanos.Load()).Seconds(), s.bytes.Load()})
		}
	}
	return out
}
