package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/duckdb/duckdb-go/v2"
	"golang.org/x/sync/errgroup"

	"etl/internal/fleet"
	"etl/internal/sample"
	"etl/internal/utc"
)

// childArg is the first argument of this program's children: what follows is
// the child's name and its options as JSON; the answer goes to stdout as JSON.
const childArg = "child"

func child(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) != 2 {
		return fmt.Errorf("child: want a name and options, got %q", args)
	}
	in := []byte(args[1])
	stop := func() error { return nil }
	answer, err := func() (answer any, err error) {
		switch args[0] {
		case "d1":
			answer, stop, err = decodeThenServe(ctx, in, serveD1)
			return answer, err
		case "s3":
			answer, stop, err = decodeThenServe(ctx, in, serveS3)
			return answer, err
		case "download":
			return decodeThen(ctx, in, stderr, download)
		case "operate":
			return decodeThen(ctx, in, stderr, operate)
		case "load":
			return decodeThen(ctx, in, stderr, load)
		case "copy":
			return decodeThen(ctx, in, stderr, copyDay)
		case "set":
			return decodeThen(ctx, in, stderr, loadSet)
		case "lake":
			return decodeThen(ctx, in, stderr, makeLake)
		case "query":
			return decodeThen(ctx, in, stderr, query)
		case "bare":
			return decodeThen(ctx, in, stderr, bare)
		case "pull":
			return decodeThen(ctx, in, stderr, pull)
		case "plans":
			return decodeThen(ctx, in, stderr, plans)
		case "audited":
			return decodeThen(ctx, in, stderr, makeAudited)
		case "audit":
			return decodeThen(ctx, in, stderr, audit)
		}
		return nil, errors.New("no such child")
	}()
	if err != nil {
		return fmt.Errorf("child %s: %w", args[0], err)
	}
	return errors.Join(json.NewEncoder(stdout).Encode(answer), stop())
}

func decodeThen[In, Out any](ctx context.Context, in []byte, stderr io.Writer, f func(context.Context, In, io.Writer) (Out, error)) (any, error) {
	var o In
	if err := json.Unmarshal(in, &o); err != nil {
		return nil, err
	}
	return f(ctx, o, stderr)
}

// decodeThenServe starts a server. stop waits until nobody needs it: until
// standard input ends or ctx does.
func decodeThenServe[In, Out any](ctx context.Context, in []byte, start func(context.Context, In) (Out, func() error, error)) (answer any, stop func() error, err error) {
	none := func() error { return nil }
	var o In
	if err := json.Unmarshal(in, &o); err != nil {
		return nil, none, err
	}
	answer, end, err := start(ctx, o)
	if err != nil {
		return nil, none, err
	}
	return answer, func() error {
		gone := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			close(gone)
		}()
		select {
		case <-gone:
		case <-ctx.Done():
		}
		return end()
	}, nil
}

// loadOptions name a migrated database and the fleet to fill it with.
type loadOptions struct {
	Path  string
	Fleet fleet.Options
}

type loadAnswer struct{ Rows int64 }

func load(ctx context.Context, o loadOptions, stderr io.Writer) (loadAnswer, error) {
	f, err := fleet.New(o.Fleet)
	if err != nil {
		return loadAnswer{}, err
	}
	total := int64(f.Len()) * int64(f.Days().Len()) * 1440
	fmt.Fprintf(stderr, "building %s: %d points, %d days, %.1f M rows\n", filepath.Base(o.Path), f.Len(), f.Days().Len(), float64(total)/1e6)
	start := time.Now()
	n, err := f.WriteSQLite(ctx, o.Path, f.Days(), fleet.WriteOptions{Bulk: true})
	if err == nil {
		fmt.Fprintf(stderr, "  %.0f s, %.2f M rows/s\n", time.Since(start).Seconds(), float64(n)/time.Since(start).Seconds()/1e6)
	}
	return loadAnswer{n}, err
}

// samplesTable is the baseline's table: what a month file holds.
const samplesTable = `(point_id INTEGER, timestamp TIMESTAMP, value DOUBLE, quality INTEGER, flags INTEGER)`

// openDuck opens an empty database in memory and the connection to use it by.
func openDuck(ctx context.Context) (*sql.DB, *sql.Conn, error) {
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return nil, nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, conn, nil
}

// quote writes a string as SQL does.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// fill makes the table and appends what series yields.
func fill(ctx context.Context, conn *sql.Conn, table string, series func(yield func(int32, *sample.Series) error) error) error {
	if _, err := conn.ExecContext(ctx, `CREATE TABLE `+table+samplesTable); err != nil {
		return err
	}
	return conn.Raw(func(dc any) error {
		a, err := duckdb.NewAppenderFromConn(dc.(driver.Conn), "", table)
		if err != nil {
			return err
		}
		err = series(func(id int32, s *sample.Series) error {
			for k, ts := range s.TS {
				var v driver.Value
				if s.Value[k] == s.Value[k] {
					v = s.Value[k]
				}
				if err := a.AppendRow(id, time.UnixMilli(ts).UTC(), v, int32(s.Quality[k]), int32(s.Flags[k])); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
		return errors.Join(err, a.Close())
	})
}

// copyOptions name a day of a fleet and the folder that it is written to.
type copyOptions struct {
	Fleet fleet.Options
	Day   utc.Day
	Dir   string
}

type copyAnswer struct {
	Copy, Sync time.Duration // the statement alone; fsync of the files
	CPU        time.Duration // user and system, of both
	Files      int
	Bytes      int64
	Threads    int
	Version    string
}

// copyDay is baseline A: the rows are in memory before the clock starts.
func copyDay(ctx context.Context, o copyOptions, _ io.Writer) (a copyAnswer, err error) {
	f, err := fleet.New(o.Fleet)
	if err != nil {
		return a, err
	}
	db, conn, err := openDuck(ctx)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, conn.Close(), db.Close()) }()
	err = fill(ctx, conn, "t", func(yield func(int32, *sample.Series) error) error {
		var s sample.Series
		for i, p := range f.Points() {
			s.Reset()
			f.Series(i, utc.Days{From: o.Day, To: o.Day + 1}, &s)
			if err := yield(p.ID, &s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return a, err
	}
	err = conn.QueryRowContext(ctx, `SELECT version(), current_setting('threads')`).Scan(&a.Version, &a.Threads)
	if err != nil {
		return a, err
	}
	settle()
	before := cpu()
	start := time.Now()
	_, err = conn.ExecContext(ctx, `COPY t TO `+quote(o.Dir)+` (FORMAT parquet, PARTITION_BY (point_id), COMPRESSION zstd, PARQUET_VERSION V2)`)
	if err != nil {
		return a, err
	}
	a.Copy = time.Since(start)
	start = time.Now()
	if a.Files, a.Bytes, err = syncFiles(o.Dir); err != nil {
		return a, err
	}
	a.Sync, a.CPU = time.Since(start), cpu()-before
	return a, nil
}

// syncFiles makes every file below dir durable, four at a time, as the etl
// writes to a directory.
func syncFiles(dir string) (files int, size int64, err error) {
	var g errgroup.Group
	g.SetLimit(4)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files++
		size += info.Size()
		g.Go(func() error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			return errors.Join(f.Sync(), f.Close())
		})
		return nil
	})
	return files, size, errors.Join(err, g.Wait())
}

// cpu is the user and system time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// setOptions name a real data set, the migrated database to load it into, and a
// folder to write DuckDB's files to.
type setOptions struct {
	CSV, Path, Dir string
}

type setAnswer struct {
	Rows  int64    // distinct (point, timestamp)s
	Days  utc.Days // that hold them
	Files int      // point-months
	Bytes int64    // of DuckDB's files
}

// loadSet loads a CSV of point_name, timestamp_ms, value into the database, and
// writes it with DuckDB, one file per point and month.
func loadSet(ctx context.Context, o setOptions, _ io.Writer) (a setAnswer, err error) {
	names, series, err := readSet(o.CSV)
	if err != nil {
		return a, err
	}
	points := make([]sample.Point, len(names))
	a.Days = utc.Days{From: utc.DayOf(series[0].TS[0]), To: 0}
	for i := range series {
		ts := series[i].TS
		points[i] = sample.Point{ID: int32(i + 1), Name: names[i]}
		a.Days.From, a.Days.To = min(a.Days.From, utc.DayOf(ts[0])), max(a.Days.To, utc.DayOf(ts[len(ts)-1])+1)
	}
	a.Rows, err = fleet.Write(ctx, o.Path, points, func(yield func(int32, *sample.Series) bool) {
		for i := range series {
			if !yield(points[i].ID, &series[i]) {
				return
			}
		}
	}, fleet.WriteOptions{})
	if err != nil {
		return a, err
	}

	db, conn, err := openDuck(ctx)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, conn.Close(), db.Close()) }()
	err = fill(ctx, conn, "t", func(yield func(int32, *sample.Series) error) error {
		for i := range series {
			if err := yield(points[i].ID, &series[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return a, err
	}
	for i := range series {
		for _, m := range a.Days.Months() {
			from, _ := slices.BinarySearch(series[i].TS, m.Days().From.Start())
			to, _ := slices.BinarySearch(series[i].TS, m.Days().To.Start())
			if from == to {
				continue
			}
			path := filepath.Join(o.Dir, fmt.Sprintf("%d-%s.parquet", points[i].ID, m))
			_, err = conn.ExecContext(ctx, fmt.Sprintf(`COPY (SELECT * FROM t WHERE point_id = %d AND timestamp >= epoch_ms(%d) AND timestamp < epoch_ms(%d) ORDER BY timestamp)
				TO %s (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION V2)`, points[i].ID, m.Days().From.Start(), m.Days().To.Start(), quote(path)))
			if err != nil {
				return a, err
			}
			info, err := os.Stat(path)
			if err != nil {
				return a, err
			}
			a.Files++
			a.Bytes += info.Size()
		}
	}
	return a, nil
}

// readSet reads a set's points, in order of appearance, and their samples: of a
// timestamp that comes more than once, the last one; an empty value is NULL.
func readSet(path string) (names []string, series []sample.Series, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			err = fmt.Errorf("read %s: %w", path, err)
		}
	}()
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return nil, nil, err
	}
	r := csv.NewReader(z)
	r.ReuseRecord, r.FieldsPerRecord = true, 3
	index := map[string]int{}
	var values []map[int64]float64
	for header := true; ; header = false {
		rec, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if header {
			continue
		}
		i, ok := index[rec[0]]
		if !ok {
			i = len(names)
			names, values = append(names, string([]byte(rec[0]))), append(values, map[int64]float64{})
			index[names[i]] = i
		}
		ts, err := strconv.ParseInt(rec[1], 10, 64)
		if err != nil {
			return nil, nil, err
		}
		v := sample.Null
		if rec[2] != "" {
			if v, err = strconv.ParseFloat(rec[2], 64); err != nil {
				return nil, nil, err
			}
		}
		values[i][ts] = v
	}
	if len(names) == 0 {
		return nil, nil, errors.New("it has no rows")
	}
	series = make([]sample.Series, len(names))
	for i, byTS := range values {
		for ts := range byTS {
			series[i].TS = append(series[i].TS, ts)
		}
		slices.Sort(series[i].TS)
		for _, ts := range series[i].TS {
			series[i].Value = append(series[i].Value, byTS[ts])
			series[i].Quality, series[i].Flags = append(series[i].Quality, fleet.Good), append(series[i].Flags, 0)
		}
	}
	return names, series, nil
}
