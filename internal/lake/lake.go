// Package lake answers SQL over the hot and the cold tier together with an
// embedded DuckDB, reading only what a query can touch.
//
// A query goes one way:
//
//	text → statement (gate.go: one SELECT, nothing that reaches outside)
//	     → scans     (select.go: which points and times each scan can touch,
//	                  read off the optimized plan; over-approximated, never under)
//	     → files     (catalog.go: the month files of the manifests; cache.go:
//	                  verified local copies of them)
//	     → hot rows  (hot.go: what only the hot tier holds, as Arrow)
//	     → answer    (run.go: the same statement over views of both)
//
// Terms: the catalog is what the manifests say, one row for each month file. A
// region is a set of samples known only by a point and a span of time: a month
// file, or days that the hot tier answers for. A scan is one reference of a
// statement to a table of the lake, with the condition on regions that it puts.
//
// DuckDB never sees the store, the source or a file that can change: it reads
// hash-named, read-only local files and tables in memory, in a sandbox that can
// not be left and a configuration that can not be changed.
package lake

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/duckdb/duckdb-go/v2"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
)

// Tier says which tiers answer.
type Tier int

const (
	// Both: for each (point, day) the one that the spec names.
	Both Tier = iota
	// Hot: the hot tier alone, archived days too.
	Hot
	// Cold: the cold tier alone.
	Cold
)

// ParseTier reads the name of a tier.
func ParseTier(s string) (Tier, error) {
	switch s {
	case "both":
		return Both, nil
	case "hot":
		return Hot, nil
	case "cold":
		return Cold, nil
	}
	return Both, fault.Errorf(fault.Usage, "want both, hot or cold, got %q", s)
}

// String is the name that ParseTier reads.
func (t Tier) String() string { return [...]string{"both", "hot", "cold"}[t] }

// Options are what a Lake works on. Cache is needed, and a Store or a Source;
// the zero values of the others mean the defaults.
type Options struct {
	Store object.Store
	// StoreName identifies the store among all that share the cache: its URL.
	StoreName string
	Source    source.Source // nil: the cold tier alone
	Ledger    source.Ledger // nil: nothing is marked, and archived days of the hot window are read from both tiers
	Cache     *Cache

	Memory         int64 // bytes that DuckDB may hold before it spills into the cache folder: 1 GiB
	Threads        int   // the cores
	FetchWorkers   int   // objects at once: 32
	ExtractWorkers int   // queries to the source at once: 1

	MaxBytes   int64 // bytes to fetch for one query before it is refused, 0 for no limit
	MaxHotRows int64 // rows to extract from the source likewise

	HotWindow int // days back in which a day that is archived may still change in the hot tier: 35

	Now    func() time.Time
	Notify func(Event) // may be nil; one call at a time
}

// Event is something that happens while a query is prepared: one of the types below.
type Event interface{ event() }

// FetchProgress counts the month files that are local now, of those that a query needs.
type FetchProgress struct {
	Files, NFiles int
	Bytes, NBytes int64
}

// ExtractProgress counts the rows that came from the hot tier, of about NRows.
type ExtractProgress struct{ Rows, NRows int64 }

// Warning is something that a person should know.
type Warning struct{ Text string }

func (FetchProgress) event()   {}
func (ExtractProgress) event() {}
func (Warning) event()         {}

// Lake is a session: one DuckDB with the views of both tiers in it. Its methods
// may be called one at a time; a lock sees to it.
type Lake struct {
	o    Options
	mu   sync.Mutex
	pins *Pins
	db   *sql.DB
	conn *sql.Conn

	telling sync.Mutex     // held while Notify is called
	behind  sync.WaitGroup // what goes on behind an answer: see run and unlock
	spoilt  error          // what failed behind the last one, guarded by mu

	learnt
	before    learnt           // what was learnt when the query's transaction began
	open      bool             // that is open
	strangers bool             // a manifest has a point that is not in lake.points: see loadMonths
	met       map[metFile]File // month files that earlier queries have read of the catalog
	used      map[string]bool  // what pretend has to undo: see use
	files     int              // named pipes made
	warned    bool             // see warn
	recalled  bool             // see recall
	asked     atomic.Bool      // see blank
	noted     *learnt          // what the memo says, as far as this session wrote it
}

// learnt is what the tables of DuckDB hold that outlive a query.
type learnt struct {
	catalog *Catalog             // nil until a statement needs it
	loaded  map[utc.Month]string // the ETags of the months in lake.catalog
	points  []sample.Point       // what lake.points holds, without the strangers
	heard   []sample.Point       // those of them that the source has, as it told them
	groups  []member             // what lake.groups holds
}

// Open starts a session. Nothing is asked of the store or the source before a
// query needs it.
func Open(ctx context.Context, o Options) (*Lake, error) {
	if o.Cache == nil || (o.Store == nil && o.Source == nil) {
		return nil, errors.New("lake: neither a store nor a source, or no cache")
	}
	o.Memory = cmp.Or(o.Memory, 1<<30)
	o.Threads = cmp.Or(o.Threads, runtime.NumCPU())
	o.FetchWorkers = cmp.Or(o.FetchWorkers, 32)
	o.ExtractWorkers = cmp.Or(o.ExtractWorkers, 1)
	o.HotWindow = cmp.Or(o.HotWindow, 35)
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Lake{o: o, learnt: learnt{loaded: map[utc.Month]string{}}, used: map[string]bool{}, met: map[metFile]File{}}
	var err error
	if l.pins, err = o.Cache.Pin(); err != nil {
		return nil, err
	}
	connector, err := duckdb.NewConnector("", nil)
	if err == nil {
		l.db = sql.OpenDB(connector)
		l.conn, err = l.db.Conn(ctx)
	}
	if err == nil {
		err = l.setUp(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start DuckDB: %w", err), l.Close())
	}
	return l, nil
}

// Close ends the session and removes its folder.
func (l *Lake) Close() error {
	l.behind.Wait()
	var errs []error
	if l.conn != nil {
		errs = append(errs, l.conn.Close())
	}
	if l.db != nil {
		errs = append(errs, l.db.Close())
	}
	return errors.Join(append(errs, l.pins.Close())...)
}

// disabledOptimizers are the rules of DuckDB 1.5.6 that are left out:
//
//   - column_lifetime, with which some plans of joins can not be serialized;
//   - join_filter_pushdown, which pushes the filter of a join below a LIMIT and
//     gives wrong rows (duckdb/duckdb#22963);
//   - top_n_window_elimination, which fails on a LATERAL subquery with a LIMIT
//     over a view with a SEMI JOIN in it.
const disabledOptimizers = "column_lifetime,join_filter_pushdown,top_n_window_elimination"

// setUp configures the instance, locks it into its sandbox, and makes the
// tables and views.
func (l *Lake) setUp(ctx context.Context) error {
	if err := registerStubs(l.conn); err != nil {
		return err
	}
	dir := quote(l.pins.Dir())
	for _, s := range []string{
		"SET GLOBAL TimeZone = 'UTC'", // of every connection
		"SET Calendar = 'gregorian'",
		"SET disabled_optimizers = " + quote(disabledOptimizers),
		fmt.Sprintf("SET threads = %d", l.o.Threads),
		fmt.Sprintf("SET memory_limit = '%d B'", l.o.Memory),
		"SET temp_directory = " + dir,
		// Files never change: they are named by their hashes.
		"SET parquet_metadata_cache = true",
		"SET validate_external_file_cache = 'NO_VALIDATION'",
		"SET autoinstall_known_extensions = false",
		"SET autoload_known_extensions = false",
		"SET allowed_directories = [" + dir + "]",
		"SET enable_external_access = false",
		schema,
	} {
		if err := l.exec(ctx, s); err != nil {
			return err
		}
	}
	for table := range scratch {
		l.use("lake." + table)
	}
	l.use(stubbed...)
	if err := l.pretend(ctx); err != nil {
		return err
	}
	return l.exec(ctx, aliases+"SET lock_configuration = true")
}

func (l *Lake) exec(ctx context.Context, text string) error {
	_, err := l.conn.ExecContext(ctx, text)
	return err
}

func (l *Lake) notify(e Event) {
	if l.o.Notify != nil {
		l.telling.Lock()
		defer l.telling.Unlock()
		l.o.Notify(e)
	}
}
