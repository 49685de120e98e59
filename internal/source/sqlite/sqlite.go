// Package sqlite owns the hot tier that is a SQLite file: an embedded database
// or the local D1 of wrangler. It reads on read-only connections and writes the
// ledger and the schema on one other, opened when it is first needed.
//
// It refuses tables in which a (point, timestamp) can occur twice, never
// changes the journal mode of a database that it did not create, and holds no
// read transaction while its caller works: each statement is read to its end,
// or reset after a batch and continued behind the last row. What one statement
// sees is a snapshot; two statements may see different ones. So a writer is
// never kept waiting (rollback journal), nor the write-ahead log from being
// reset, for longer than reading one batch takes.
//
// The process must not open the database file by other means than SQLite:
// closing any descriptor of it drops the POSIX locks that this package holds.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
)

// Options of a source. The zero value is usable.
type Options struct {
	// Readers is the number of reads that run at a time, 2 if zero. A callback
	// of Read holds one of them.
	Readers int
	// Create lets Migrate make the database file. Until it has, reading fails.
	Create bool
	// ReadOnly refuses whatever would write.
	ReadOnly bool
	// BusyTimeout is how long to wait for a lock that another connection holds,
	// 10 s if zero.
	BusyTimeout time.Duration
	// Now is the clock, time.Now if nil.
	Now func() time.Time
}

// Source is a SQLite file. It is a source.Source, Ledger, Migrator, Summarizer
// and Grouper; all methods are safe for concurrent use.
type Source struct {
	path    string
	o       Options
	readers chan *conn // idle reading connections, nil for one that is not open yet
	writer  chan *conn // the same for the one writing connection
	closing sync.Once
	closed  chan struct{}

	batchRows int   // smaller in tests
	chunkRows int64 // the same

	mu     sync.Mutex
	tables *source.Tables // what inspect found, nil until then
}

var (
	_ source.Source     = (*Source)(nil)
	_ source.Ledger     = (*Source)(nil)
	_ source.Migrator   = (*Source)(nil)
	_ source.Summarizer = (*Source)(nil)
	_ source.Grouper    = (*Source)(nil)
	_ source.Lister     = (*Source)(nil)
	_ source.Pruner     = (*Source)(nil)
	_ source.Restorer   = (*Source)(nil)
)

// conn is a connection, the batch that its reads fill, and what List found on it.
type conn struct {
	*sqlite.Conn
	batch  sample.Batch
	listed *listing
}

// Open returns the source at path, which must be a file, or absent with
// Options.Create. The file is opened, and found to be a database or not, by the
// first method that needs it.
func Open(path string, o Options) (*Source, error) {
	if o.Readers <= 0 {
		o.Readers = 2
	}
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 10 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Source{path: path, o: o, closed: make(chan struct{}), batchRows: batchRows, chunkRows: chunkRows,
		readers: make(chan *conn, o.Readers), writer: make(chan *conn, 1)}
	if err := s.stat(); err != nil && !(o.Create && errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	for range o.Readers {
		s.readers <- nil
	}
	s.writer <- nil
	return s, nil
}

// stat tells what is wrong with the file before SQLite does in fewer words.
func (s *Source) stat() error {
	info, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Hint(fault.Wrap(fault.Invalid, briefError{"open the source: there is no file " + s.path, fs.ErrNotExist}),
			"is the path right? `etl migrate --source sqlite:%s` makes a new, empty database there", s.path)
	case err != nil:
		return fault.Wrap(fault.Unavailable, fmt.Errorf("open the source: %w", err))
	case info.IsDir():
		return fault.Hint(fault.Errorf(fault.Invalid, "open the source: %s is a folder", s.path),
			"name the SQLite file, as in sqlite:%s/hot.db", s.path)
	}
	return nil
}

func (s *Source) migrateHint(err error) error {
	return fault.Hint(err, "run `etl migrate --source sqlite:%s`: it adds what is missing and loses no row", s.path)
}

// Close closes the connections after the methods that use them have returned.
// Methods called later fail.
func (s *Source) Close() error {
	var err error
	s.closing.Do(func() {
		close(s.closed)
		for range cap(s.readers) {
			if c := <-s.readers; c != nil {
				err = errors.Join(err, c.Close())
			}
		}
		if c := <-s.writer; c != nil {
			err = errors.Join(err, c.Close())
		}
	})
	return err
}

// with calls f with a connection of pool, opening it if need be, and classifies
// the error of f, to which it adds what was being done.
func (s *Source) with(ctx context.Context, pool chan *conn, doing string, f func(*conn) error) error {
	var c *conn
	select {
	case <-s.closed:
		return fmt.Errorf("%s: the source is closed", doing)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case c = <-pool:
	}
	defer func() { pool <- c }()
	if err := ctx.Err(); err != nil { // select chooses at random
		return fmt.Errorf("%s: %w", doing, err)
	}
	if c == nil {
		// SQLite would wait for no one and say "unable to open database file".
		if err := s.stat(); err != nil && !(pool == s.writer && s.o.Create && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
		flags := sqlite.OpenReadOnly
		if pool == s.writer {
			flags = sqlite.OpenReadWrite
			if s.o.Create {
				flags |= sqlite.OpenCreate
			}
		}
		raw, err := sqlite.OpenConn(s.path, flags)
		if err != nil {
			return s.classify(ctx, fmt.Errorf("%s: %w", doing, s.brief(err)))
		}
		raw.SetBusyTimeout(s.o.BusyTimeout)
		c = &conn{Conn: raw}
	}
	c.SetInterrupt(ctx.Done())
	err := f(c)
	c.SetInterrupt(nil) // also resets what an error left open
	var mine callbackError
	if errors.As(err, &mine) {
		return mine.error
	}
	if err != nil {
		return s.classify(ctx, fmt.Errorf("%s: %w", doing, s.brief(err)))
	}
	return nil
}

// callbackError carries the error of a caller's function through with untouched.
type callbackError struct{ error }

// read calls f with a reading connection on which the tables have been found
// fit to be read.
func (s *Source) read(ctx context.Context, doing string, f func(*conn, *source.Tables) error) error {
	return s.with(ctx, s.readers, doing, func(c *conn) error {
		t, err := s.inspected(c)
		if err != nil {
			return err
		}
		return f(c, t)
	})
}

// write calls f in an immediate transaction, which is committed if f returns nil.
func (s *Source) write(ctx context.Context, doing string, f func(*conn) error) error {
	if s.o.ReadOnly {
		return fault.Errorf(fault.Unavailable, "%s: the source was opened read-only", doing)
	}
	return s.with(ctx, s.writer, doing, func(c *conn) error { return transaction(c, func() error { return f(c) }) })
}

func transaction(c *conn, f func() error) error { return within(c, "BEGIN IMMEDIATE", f) }

// seeks calls f, which makes many small reads, in a transaction that reads: each by
// itself would lock the file and unlock it, which takes as long as the read.
func seeks(c *conn, f func() error) error { return within(c, "BEGIN", f) }

func within(c *conn, begin string, f func() error) (err error) {
	if err := exec(c, begin); err != nil {
		return err
	}
	if err = f(); err == nil {
		err = exec(c, "COMMIT")
	}
	if err != nil && !c.AutocommitEnabled() { // some errors roll back by themselves
		done := c.SetInterrupt(nil) // or a cancelled context would keep the transaction open
		err = errors.Join(err, exec(c, "ROLLBACK"))
		c.SetInterrupt(done)
	}
	return err
}

// brief leaves the text of the statement out of an error that is not about the
// statement but about the file, and names the file instead.
func (s *Source) brief(err error) error {
	switch code := sqlite.ErrCode(err).ToPrimary(); code {
	case sqlite.ResultBusy, sqlite.ResultLocked, sqlite.ResultNotADB, sqlite.ResultCorrupt, sqlite.ResultFull,
		sqlite.ResultReadOnly, sqlite.ResultPerm, sqlite.ResultAuth, sqlite.ResultCantOpen, sqlite.ResultIOErr:
		return briefError{s.path + ": " + code.Message(), err}
	}
	return err
}

type briefError struct {
	text string
	error
}

func (b briefError) Error() string { return b.text }
func (b briefError) Unwrap() error { return b.error }

// classify gives an error of SQLite its kind, once.
func (s *Source) classify(ctx context.Context, err error) error {
	if fault.KindOf(err) != fault.Internal {
		return err
	}
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultInterrupt:
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return err
	case sqlite.ResultBusy, sqlite.ResultLocked:
		return fault.Hint(fault.Wrap(fault.Transient, err), "another program holds a lock on %s: run again when it is done", s.path)
	case sqlite.ResultNotADB:
		return fault.Hint(fault.Wrap(fault.Invalid, err), "%s is not a SQLite database, or it is encrypted", s.path)
	case sqlite.ResultCorrupt:
		return fault.Hint(fault.Wrap(fault.Corrupt, err), "sqlite3 %s .recover shows what can be saved", s.path)
	case sqlite.ResultFull:
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "the disk that holds %s is full", s.path)
	case sqlite.ResultIOErr: // also of a full disk, where the files beside one in WAL mode have no room
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "is the disk that holds %s full, or failing? Its folder must be writable for a database in WAL mode", s.path)
	case sqlite.ResultReadOnly, sqlite.ResultPerm, sqlite.ResultAuth, sqlite.ResultCantOpen:
		return fault.Hint(fault.Wrap(fault.Unavailable, err),
			"%s and its folder must be readable, and writable for the ledger and for a database in WAL mode", s.path)
	}
	return err
}
