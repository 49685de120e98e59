// Package source is the contract of the hot tier: reading points and day slices,
// and, where the source can be written, the ledger that says which archived
// (point, day)s have not changed since. Backends live below it (source/sqlite).
//
// A backend classifies its errors (package fault) and never retries by itself.
package source

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"etl/internal/sample"
	"etl/internal/utc"
)

// Query selects whole days of some points.
type Query struct {
	Points []int32  // ascending, no id twice
	Days   utc.Days // one contiguous range
}

// Stats is what reading cost.
type Stats struct {
	Rows     int64 // rows that the source delivered, rejects included
	Requests int64 // statements or HTTP requests
}

// Add sums two costs.
func (s Stats) Add(o Stats) Stats { return Stats{s.Rows + o.Rows, s.Requests + o.Requests} }

// Source reads the hot tier. All methods are safe for concurrent use.
type Source interface {
	// Points lists every point, ascending by id: the rows of the points table
	// and the ids that only timeseries holds (Orphan), found by skip-scan.
	// Rows that no point could hold (an id that is no 32-bit integer) are
	// returned as rejects, at most MaxStrays of them.
	Points(context.Context) ([]sample.Point, []sample.Reject, error)

	// Read calls f with batches of the selected rows, ordered by (point,
	// timestamp) over the whole call; a timestamp comes once. Rows that no
	// sample can hold are in Batch.Rejects of a batch that is not later than
	// the first sample of the next point. A batch is valid until f returns;
	// an error from f ends the read and is returned.
	//
	// A point's slices were read to their end once a sample of a later point
	// was delivered, and all of them were when Read returns nil. There is no
	// snapshot: a row written during the call may or may not be seen. Nothing
	// else is missed: a row committed before the call and not changed during
	// it is delivered.
	Read(ctx context.Context, q Query, f func(*sample.Batch) error) (Stats, error)

	// Count is the number of rows that Read would deliver of each point, for
	// estimates; points without rows are left out. It reads as many rows.
	Count(ctx context.Context, q Query) (map[int32]int64, error)

	// Strays returns rows of the given points that no day of window holds
	// (timestamps before or after it, or that are no integer), at most
	// MaxStrays in all; it costs one or two seeks per point.
	Strays(ctx context.Context, points []int32, window utc.Days) ([]sample.Reject, error)

	// Info identifies the source and tells its clock.
	Info(context.Context) (Info, error)

	Close() error
}

// Earliest is the first day that samples may lie in: a timestamp before it is
// taken for seconds stored as milliseconds, or worse.
const Earliest utc.Day = 10957 // 2000-01-01

// Window is the range of days that samples may lie in: from Earliest to now and a day.
func Window(now time.Time) utc.Days { return utc.Days{From: Earliest, To: utc.DayOfTime(now) + 2} }

// MaxStrays bounds the rejects that Points and Strays return in one call.
const MaxStrays = 10_000

// Info is what a source says of itself.
type Info struct {
	// ID was made once for this database by migrate; "" if it has none.
	ID  string
	Now time.Time
	// Ledger says whether the tables of the ledger exist.
	Ledger bool
}

// Slice is one (point, day).
type Slice struct {
	Point int32
	Day   utc.Day
}

// State of a mark in the ledger.
type State int8

const (
	// Claimed: a run is archiving the slice, or died doing so.
	Claimed State = 0
	// Marked: archived, and no row of it was inserted or updated since.
	Marked State = 1
	// Trimmed: marked, and its rows have left the hot tier since.
	Trimmed State = 2
)

// Mark is one entry of the ledger. A slice that has none is unmarked.
type Mark struct {
	Slice
	Run   string
	State State
}

// Ledger is what a writable source offers beside Source (a type assertion
// finds it). All methods are safe for concurrent use, between processes too.
type Ledger interface {
	// Marks calls f with the marks of the points on the days, in order of
	// (point, day).
	Marks(ctx context.Context, points []int32, days utc.Days, f func(Mark)) error

	// Pruned calls f with the slices of the points on the days whose rows have
	// left the hot tier at some time, whatever became of their marks.
	Pruned(ctx context.Context, points []int32, days utc.Days, f func(Slice)) error

	// Claim records, atomically and before it returns, that run is archiving
	// the slices, taking over whatever mark they had. A row that arrives later
	// removes the claim.
	Claim(ctx context.Context, run string, slices []Slice) error

	// Confirm marks those of the slices that run still claims and returns how
	// many those were.
	Confirm(ctx context.Context, run string, slices []Slice) (int, error)

	// Revoke deletes those marks of the slices that are Marked and returns how
	// many those were. Claims and what is Trimmed stay. Doing it again, even much
	// later, costs no more than archiving a slice once more.
	Revoke(ctx context.Context, slices []Slice) (int, error)

	Journal
}

// Cut is a slice to take out of the hot tier, as it was when it was compared with
// the cold tier.
type Cut struct {
	Slice
	Run  string // of its mark, which was Marked
	Rows int64  // that the hot tier held of the slice, rejects included
}

// SortCuts are cuts in order of (point, day), each slice once: the first of it.
func SortCuts(cuts []Cut) []Cut {
	cuts = slices.Clone(cuts)
	slices.SortStableFunc(cuts, func(a, b Cut) int {
		return cmp.Or(cmp.Compare(a.Point, b.Point), cmp.Compare(a.Day, b.Day))
	})
	return slices.CompactFunc(cuts, func(a, b Cut) bool { return a.Slice == b.Slice })
}

// Pruner takes archived slices out of the hot tier (a type assertion finds it).
type Pruner interface {
	// Prune deletes the rows of the cuts whose mark is still Marked by Run and
	// whose rows still number Rows; the others are left alone, and so is a cut of
	// no rows; of a slice that is there twice the first counts. Each cut is all or nothing, and with its rows deleted it is recorded
	// as trimmed (Pruned tells it, the mark is Trimmed) in the same transaction,
	// which holds a chunk of cuts. Nothing is unmarked by it.
	//
	// It returns the slices that it cut, in order of (point, day), and how many rows
	// they had; with an error, what is known to have been cut before it. After
	// a reply that was lost these are the slices that are found Trimmed by Run, with
	// no rows left. Whatever is still on its way then may be done at any later
	// time: it is conditional on Run and Rows like the rest.
	Prune(ctx context.Context, cuts []Cut) (cut []Slice, rows int64, err error)
}

// Restorer writes into the hot tier what was read of it before (a type assertion
// finds it).
type Restorer interface {
	// RestorePoints makes sure that each point exists with its id, name and
	// description, as far as the table has columns for it. One that exists is left
	// as it is. An id that has another name, or a name that has another id, in the
	// table or among the points, is an Invalid error that names both, and nothing
	// is written. Orphan is ignored.
	RestorePoints(ctx context.Context, points []sample.Point) error

	// Restore writes the samples of a batch, which may be in any order; its rejects
	// are passed over. Values are written bit for bit, but for -0, of which SQLite
	// makes 0. Where a row exists keep lets it stay; else it is replaced, unless it
	// is equal already. The triggers fire as for every writer: the mark of a day
	// goes of which a row was inserted or replaced.
	//
	// It is done in parts, each at once; after an error some may have been done.
	// Doing it again changes nothing.
	Restore(ctx context.Context, b *sample.Batch, keep bool) error

	// Correct replaces each row that still is, bit for bit, the sample of a batch
	// by the sample at the same place of another one, of the same point and time:
	// what else stands there, because someone has written it since, stays. Triggers,
	// parts and repetition are as at Restore.
	Correct(ctx context.Context, from, to *sample.Batch) error
}

// Journal keeps the log of runs, archive_state. It is only a log, never a gate.
type Journal interface {
	// Log records the state of a run and the time as its heartbeat: the first
	// call with a Run.ID inserts it, later ones update it, whatever has become
	// of the line meanwhile.
	Log(context.Context, Run) error

	// CloseCrashed sets the status of the runs that are running and whose last
	// heartbeat is longer ago than silent, by the source's clock, to crashed, and
	// returns their IDs. Such a run, should it still be alive, sets its own line
	// again when it ends.
	CloseCrashed(ctx context.Context, silent time.Duration) ([]string, error)
}

// Run is one line of the log archive_state.
type Run struct {
	ID       string // unique
	Command  string // archive, backfill, rearchive, restore, prune, repair, verify, schedule
	Status   string // running, done, partial, failed, interrupted; crashed is set by others
	Started  time.Time
	Finished time.Time // zero while running
	// Heartbeat is when the run last wrote its line. Runs sets it; Log takes the
	// time itself.
	Heartbeat time.Time
	Days      utc.Days
	Records   int64 // samples read from the source
	Files     int64 // month files written
	Bytes     int64 // bytes of month files written
	Error     string
}

// Migrator applies the schema in sql/d1 (a type assertion finds it).
type Migrator interface {
	// Pending lists the names of the migrations that were not applied, in order.
	Pending(context.Context) ([]string, error)
	// Migrate applies them, each atomically with its line in d1_migrations, and
	// returns the names of those that it applied.
	Migrate(context.Context) ([]string, error)
}

// Grouper names sets of points (a type assertion finds it).
type Grouper interface {
	// Group lists the ids of a group of point_groups, ascending; an unknown
	// group is a NotExist error that names the known ones.
	Group(ctx context.Context, name string) ([]int32, error)
	// Groups calls f for each member of each group, in order of (name, point). A
	// source without the table has no groups.
	Groups(ctx context.Context, f func(name string, point int32)) error
}

// Lister lists the points for those who ask again and again (a type assertion finds it).
type Lister interface {
	// List is Points, but for each gap between the ids of the points table it takes
	// one seek, and one more for each orphan in it; Points takes one for each id,
	// and seeks are billed. It need not see rows whose id is a fraction between
	// two neighbouring ids: the jobs, which record rejects, call Points. What it
	// returns is shared and must not be changed.
	List(context.Context) ([]sample.Point, []sample.Reject, error)
}

// Gap is the ids between two others, both exclusive.
type Gap struct{ After, Before int64 }

// Gaps are those of the ids of the points, which are ascending, within the ids
// that a point can have.
func Gaps(points []sample.Point) []Gap {
	var gaps []Gap
	after := int64(math.MinInt32) - 1
	for _, p := range points {
		if id := int64(p.ID); id > after+1 {
			gaps = append(gaps, Gap{after, id})
		}
		after = int64(p.ID)
	}
	if after < math.MaxInt32 {
		gaps = append(gaps, Gap{after, math.MaxInt32 + 1})
	}
	return gaps
}

// Latester finds newest samples (a type assertion finds it).
type Latester interface {
	// Latest calls f with batches of the newest sample of each of the points,
	// ascending, that lies in days: a descending seek per point, never a scan.
	// Rows that no sample can hold are passed over, points without samples left
	// out. A batch is valid until f returns.
	Latest(ctx context.Context, points []int32, days utc.Days, f func(*sample.Batch) error) error
}

// Oldester finds oldest samples (a type assertion finds it).
type Oldester interface {
	// Oldest is Latester.Latest for the oldest sample of each point: one seek per point.
	Oldest(ctx context.Context, points []int32, days utc.Days, f func(*sample.Batch) error) error
}

// HoldsSample is an SQL condition: a row of timeseries is one that a sample can
// hold. Read rejects exactly the others.
const HoldsSample = "typeof(timestamp) = 'integer'" +
	" AND (value IS NULL OR typeof(value) = 'real' OR (typeof(value) = 'integer' AND value BETWEEN -9007199254740992 AND 9007199254740992))" +
	" AND typeof(quality) = 'integer' AND quality BETWEEN 0 AND 255" +
	" AND typeof(flags) = 'integer' AND flags BETWEEN 0 AND 65535"

// Historian reads the log of runs (a type assertion finds it).
type Historian interface {
	// Runs lists the newest lines of archive_state, MaxRuns at most, by their
	// start and then their ID. A source without the table has none.
	Runs(context.Context) ([]Run, error)
}

// MaxRuns bounds what Runs returns: a year has some 400 nightly runs.
const MaxRuns = 10_000

// Registrar makes points (a type assertion finds it): the points table is the
// one authority for ids.
type Registrar interface {
	// CreatePoints makes sure that a point of each name exists and returns the
	// ids by name. Names that exist already keep their ids; calling it again
	// changes nothing.
	CreatePoints(ctx context.Context, names []string) (map[string]int32, error)
}

// Partial is a source that knows only what was given to it, such as files of
// history (a type assertion finds it): that it holds no rows of a day does not
// say that there were none.
type Partial interface {
	// Held calls f with the slices of the points on the days that hold rows,
	// rejects included, in order of (point, day).
	Held(ctx context.Context, points []int32, days utc.Days, f func(Slice)) error
	// Span is the range of all days that hold rows; empty if none do.
	Span(context.Context) (utc.Days, error)
}

// Usage is what a source was asked for since it was opened, as it is billed.
type Usage struct {
	Requests    int64 `json:"requests"`     // attempts that were sent, repeated ones included
	Retries     int64 `json:"retries"`      // the repeated ones among them
	RowsRead    int64 `json:"rows_read"`    // rows scanned, as D1 counts them
	RowsWritten int64 `json:"rows_written"` // rows and index entries written
}

// Meter is a source whose use is billed (a type assertion finds it).
type Meter interface{ Usage() Usage }

// TimeTraveler can be restored to a moment of the past (a type assertion finds it).
type TimeTraveler interface {
	// Bookmark names this moment, for a restore by the provider's tools.
	Bookmark(context.Context) (string, error)
}

// Summary is what the hot tier holds of one point.
type Summary struct {
	First, Last int64 // Unix milliseconds of the first and last row; Rows = 0 leaves them 0
	Rows        int64 // NotCounted where counting would be billed
}

// NotCounted is Summary.Rows where there are rows that were not counted.
const NotCounted = -1

// Summarizer tells what the hot tier holds of points (a type assertion finds it).
type Summarizer interface {
	// Summaries calls f for each given point, ascending.
	Summaries(ctx context.Context, points []int32, f func(id int32, s Summary)) error
}

// Gauger measures the hot tier by seeks, never by a scan (a type assertion finds it).
type Gauger interface {
	// Size is how many bytes the database takes, tables that are not fit to be
	// read included.
	Size(context.Context) (int64, error)

	// Marked calls f for each point that has marks on the days, at most MaxBits of
	// them, ascending: bit i is set if the i-th day is Marked or Trimmed. It costs a
	// row for each mark.
	Marked(ctx context.Context, points []int32, days utc.Days, f func(id int32, days uint64)) error

	// Newest calls f for each of the points, ascending, that has a sample in [from, to), in
	// milliseconds, with the time of the newest: a seek for each. Latester.Latest knows
	// whole days only, which do not end at the clock.
	Newest(ctx context.Context, points []int32, from, to int64, f func(id int32, ts int64)) error

	// Quality looks at the reading in force of each point at perPoint instants
	// (QualityInstant), 1 to MaxInstants, of [from, to), in milliseconds: the newest row
	// from then back to from. It calls f for each point, ascending, with how many of
	// them there are, and how many have a quality below 192. It costs a seek for each.
	Quality(ctx context.Context, points []int32, from, to int64, perPoint int, f func(id int32, looked, bad int)) error
}

const (
	// MaxBits is how many days Marked takes: as many bits as an INTEGER has that is not
	// negative.
	MaxBits = 63
	// MaxInstants is how many instants Quality looks at: D1's answers have 100 columns
	// at most.
	MaxInstants = 96
)

// QualityInstant is the k-th of n instants in [from, to) at which Quality looks at a
// point: one in each n-th part, at a place in it that differs from point to point, so
// that together they cover the span evenly. 40503 is odd and near 65536 times the golden
// ratio, which spreads ids that follow each other.
func QualityInstant(id int32, k, n int, from, to int64) int64 {
	step := (to - from) / int64(n)
	return from + int64(k)*step + (int64(id)*40503&65535)*step>>16
}
