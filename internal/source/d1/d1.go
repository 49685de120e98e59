// Package d1 owns the hot tier that is a D1 database, reached over Cloudflare's
// REST interface: day slices in pages, points, the ledger, the schema.
//
// A statement is a snapshot; two statements are not, and there are no
// transactions but a batch. So whatever must happen as one is one statement or
// one batch, and a read that needs more than one page continues behind the last
// row (keyset). Statements go alone or as a batch, never several in one string.
//
// D1 passes values through JavaScript and JSON. What that loses:
//
//   - 5.0 arrives as 5: a number tells nothing of its storage class;
//   - integers beyond 2^53 lose digits, ±Infinity arrives as null, text that is
//     not UTF-8 with U+FFFD in it, a BLOB as an array of numbers;
//   - -0.0 arrives as 0. Only a column that is not declared REAL can hold it.
//
// So a statement selects what JSON does not carry exactly as a literal, a
// string that names the storage class (literal.go). It refuses to take anything
// else for a value of the database.
package d1

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/fault"
	"etl/internal/source"
)

// Options of a source. The zero value is usable.
type Options struct {
	// ReadOnly refuses whatever would write.
	ReadOnly bool
	// Now replaces the clock of D1, for demonstrations and tests.
	Now func() time.Time
}

// Source is a D1 database. All methods are safe for concurrent use.
type Source struct {
	db      *cloudflare.Database
	o       Options
	pages   *pages
	buffers sync.Pool // of *page
	closed  atomic.Bool

	tables atomic.Pointer[source.Tables] // what inspected found, nil until then
	tokens tokens                        // of claims
	clock  clock
	sizes  sizes // smaller in tests
}

// Open returns the source in db. It sends nothing.
func Open(db *cloudflare.Database, o Options) *Source {
	return &Source{db: db, o: o, pages: newPages(), sizes: newSizes()}
}

// Close ends the use of the source: methods called later fail.
func (s *Source) Close() error {
	s.closed.Store(true)
	return nil
}

// Usage implements source.Meter. Rows are counted of the answers that were read
// to their end.
func (s *Source) Usage() source.Usage { return source.Usage(s.db.Usage()) }

// begin is where every method that sends something starts.
func (s *Source) begin(ctx context.Context, doing string, a cloudflare.Access) error {
	switch {
	case s.closed.Load():
		return fmt.Errorf("%s: the source is closed", doing)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case a != cloudflare.Read && s.o.ReadOnly:
		return fault.Errorf(fault.Unavailable, "%s: the source was opened read-only", doing)
	}
	return nil
}

// query sends statements, several as one batch, and returns the answer of each.
// It is for answers that are small. doing says what for, in errors.
func (s *Source) query(ctx context.Context, doing string, a cloudflare.Access, stmts []cloudflare.Statement) ([]answer, error) {
	if err := s.begin(ctx, doing, a); err != nil {
		return nil, err
	}
	var answers []answer
	err := s.db.Raw(ctx, a, stmts, func(r io.Reader) (err error) {
		answers, err = readAnswers(r, len(stmts))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	for _, a := range answers {
		s.db.Billed(a.rowsRead, a.rowsWritten)
	}
	return answers, nil
}
