package files

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/duckdb/duckdb-go/v2"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
)

// parquetPage is how many rows DuckDB returns at a time: it holds a result
// whole. It finds the row groups of a page by the numbers of their rows, so
// that pages cost no more than one scan.
const parquetPage = 128 << 10

// duck is the DuckDB that reads the Parquet files of an input, one after another.
type duck struct {
	db   *sql.DB
	conn *sql.Conn
}

// openDuck starts an instance of its own: what it holds is gone when the input
// is staged. Nothing is spilled, and no extension is fetched.
func openDuck(ctx context.Context, memory int64) (*duck, error) {
	connector, err := duckdb.NewConnector(fmt.Sprintf("?threads=2&memory_limit=%dMiB&temp_directory=&autoinstall_known_extensions=false&autoload_known_extensions=false&enable_external_file_cache=false",
		max(memory>>20, 128)), nil)
	if err != nil {
		return nil, fmt.Errorf("start DuckDB: %w", err)
	}
	d := &duck{db: sql.OpenDB(connector)}
	if d.conn, err = d.db.Conn(ctx); err == nil {
		_, err = d.conn.ExecContext(ctx, "SET TimeZone = 'UTC'")
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("start DuckDB: %w", err)
	}
	return d, nil
}

func (d *duck) close() {
	if d.conn != nil {
		_ = d.conn.Close()
	}
	_ = d.db.Close()
}

// table is a Parquet file.
type table struct {
	query string // of the rows from a number up to another one
	rows  int64
	size  int64 // bytes of the file
}

// table reads what columns a file has, and makes the query.
func (d *duck) table(ctx context.Context, path string, ignore []string) (*table, error) {
	// A name with * would be a pattern; there is no way to quote one.
	if strings.ContainsAny(path, "*?[") {
		return nil, fault.Errorf(fault.Usage, "the name of a Parquet file may not hold *, ? or [")
	}
	t := new(table)
	from := "read_parquet('" + strings.ReplaceAll(path, "'", "''") + "', binary_as_string = true, hive_partitioning = false, file_row_number = true)"
	if err := d.conn.QueryRowContext(ctx, "SELECT num_rows FROM parquet_file_metadata('"+strings.ReplaceAll(path, "'", "''")+"')").Scan(&t.rows); err != nil {
		return nil, parquetError(ctx, err)
	}
	described, err := d.conn.QueryContext(ctx, "SELECT column_name, column_type FROM (DESCRIBE SELECT * EXCLUDE (file_row_number) FROM "+from+")")
	if err != nil {
		return nil, parquetError(ctx, err)
	}
	defer described.Close()
	var names, types []string
	for described.Next() {
		var name, kind string
		if err := described.Scan(&name, &kind); err != nil {
			return nil, parquetError(ctx, err)
		}
		names, types = append(names, name), append(types, kind)
	}
	if err := described.Err(); err != nil {
		return nil, parquetError(ctx, err)
	}
	at, err := columnsOf(names, ignore)
	if err != nil {
		return nil, err
	}
	exprs := []string{"file_row_number"}
	for c, i := range at {
		if i < 0 {
			exprs = append(exprs, "NULL::VARCHAR")
			continue
		}
		expr, ok := expression(c, `"`+strings.ReplaceAll(names[i], `"`, `""`)+`"`, types[i])
		if !ok {
			return nil, fault.Hint(fault.Errorf(fault.Invalid, "the column %.60q is of type %.60s", names[i], types[i]), "point_name is text; timestamp an integer of milliseconds, a timestamp, or text; value a number or text; quality and flags are integers or text")
		}
		exprs = append(exprs, expr)
	}
	t.query = "SELECT " + strings.Join(exprs, ", ") + " FROM " + from + " WHERE file_row_number >= ? AND file_row_number < ?"
	return t, nil
}

// expression selects a column as BIGINT, DOUBLE or VARCHAR, without a loss.
func expression(column int, name, kind string) (string, bool) {
	text := kind == "VARCHAR" || strings.HasPrefix(kind, "ENUM(")
	switch kind {
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER":
		return name + "::BIGINT", column != colName
	case "UBIGINT":
		return name + "::VARCHAR", column != colName
	case "FLOAT", "DOUBLE":
		return name + "::DOUBLE", column == colValue
	case "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE":
		// Printed with as many digits as it has. One without a zone is UTC, as
		// Parquet's writers have it.
		if kind == "TIMESTAMP WITH TIME ZONE" {
			name = "(" + name + " AT TIME ZONE 'UTC')"
		}
		return "(" + name + "::VARCHAR || 'Z')", column == colTime
	}
	if strings.HasPrefix(kind, "DECIMAL(") {
		return name + "::VARCHAR", column == colValue
	}
	return name + "::VARCHAR", text
}

func parquetError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if e := new(duckdb.Error); errors.As(err, &e) && e.Type == duckdb.ErrorTypeOutOfMemory {
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "give it more --memory: a row group must fit into half of it")
	}
	return fault.Wrap(fault.Corrupt, err)
}

// readParquet stages a Parquet file.
func (s *stager) readParquet(ctx context.Context, t *table) error {
	before := s.bytes.Load()
	for from := int64(0); from < t.rows; from += parquetPage {
		to := min(t.rows, from+parquetPage)
		if err := s.parquetRows(ctx, t, from, to); err != nil {
			return err
		}
		s.bytes.Store(before + int64(float64(t.size)*float64(to)/float64(t.rows)))
		s.report(false)
	}
	return nil
}

// parquetRows stages the rows of a file from a number up to another one.
func (s *stager) parquetRows(ctx context.Context, t *table, from, to int64) error {
	return s.duck.conn.Raw(func(c any) error {
		rows, err := c.(driver.QueryerContext).QueryContext(ctx, t.query, []driver.NamedValue{{Ordinal: 1, Value: from}, {Ordinal: 2, Value: to}})
		if err != nil {
			return parquetError(ctx, err)
		}
		defer rows.Close()
		vals := make([]driver.Value, 1+columns)
		for want := from; ; want++ {
			err := rows.Next(vals)
			switch {
			case err != nil && want == to:
				return nil
			case err != nil:
				return parquetError(ctx, fmt.Errorf("row %d: %w", want+1, err))
			case vals[0] != want:
				return fault.Errorf(fault.Corrupt, "row %v came where row %d is due", vals[0], want)
			}
			if err := s.parquetRow(want+1, vals[1:]); err != nil {
				return err
			}
		}
	})
}

func (s *stager) parquetRow(number int64, v []driver.Value) error {
	s.progress.Rows++
	name, _ := v[colName].(string)
	rej := sample.Reject{Timestamp: sample.Cell{V: v[colTime]}, Value: sample.Cell{V: v[colValue]}}
	var whyTime, whyValue string
	ts, ok := v[colTime].(int64)
	if text, _ := v[colTime].(string); !ok {
		if ts, whyTime = parseTime([]byte(text)); whyTime == "" {
			rej.Timestamp.V = ts
		}
	}
	var value float64
	switch x := v[colValue].(type) {
	case nil:
		value = sample.Null
	case float64:
		value = x
	case int64:
		if value = float64(x); !source.Exact(x) {
			whyValue = whyInteger
		}
	case string:
		if value, whyValue = parseValue([]byte(x)); whyValue == "" {
			rej.Value = cellOf(value, nil, true)
		}
	}
	quality, okQuality := parquetSmall(v[colQuality], common, math.MaxUint8)
	flags, okFlags := parquetSmall(v[colFlags], 0, math.MaxUint16)
	if whyTime == "" && whyValue == "" && okQuality && okFlags {
		return s.add(number, []byte(name), ts, value, uint8(quality), uint16(flags))
	}
	rej.Quality.V, rej.Flags.V = v[colQuality], v[colFlags]
	for _, c := range []*sample.Cell{&rej.Timestamp, &rej.Value, &rej.Quality, &rej.Flags} {
		if text, ok := c.V.(string); ok {
			c.V = excerpt([]byte(text))
		}
	}
	if okQuality {
		rej.Quality.V = quality
	}
	if okFlags {
		rej.Flags.V = flags
	}
	return s.bad(number, []byte(name), rej, whyTime, whyValue)
}

// parquetSmall is quality or flags, which are the default where they are NULL.
func parquetSmall(v driver.Value, byDefault, most int64) (int64, bool) {
	switch v := v.(type) {
	case nil:
		return byDefault, true
	case int64:
		return v, v >= 0 && v <= most
	case string:
		return parseSmall([]byte(v), byDefault, most)
	}
	return 0, false
}
