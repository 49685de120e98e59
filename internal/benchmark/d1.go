package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fleet"
	"etl/internal/sample"
	"etl/internal/utc"
)

// fromD1 archives the fleet's first day from a D1 that sends pages as fast as it
// can, in turns with the same day from the database file, and with a client that
// does nothing but download the pages.
func (b *bench) fromD1(ctx context.Context, d dataset) (err error) {
	b.say("one day of %d points from D1, %d runs", d.fleet.Len(), dayRuns)
	day, rows := d.fleet.Days().From, d.rows(1)
	var server d1Answer
	stop, err := b.serve(ctx, "d1", d1Options{d.path, d.fleet.Options(), day}, &server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	b.env = append(b.env, "CLOUDFLARE_ACCOUNT_ID="+cloudflaretest.Account, "CLOUDFLARE_API_TOKEN="+cloudflaretest.Token, "CLOUDFLARE_API_BASE_URL="+server.URL)

	var remote, local []cost
	var floor []time.Duration
	type bill struct {
		Requests    int64
		RowsRead    int64 `json:"rows_read"`
		RowsWritten int64 `json:"rows_written"`
	}
	var most bill
	for k := range dayRuns {
		var a downloadAnswer
		if _, err := b.child(ctx, "download", downloadOptions{server.URL, d.fleet.Len(), day}, &a); err != nil {
			return err
		}
		floor = append(floor, a.Took)
		b.report.run("download alone, run %d: %s, %s, %d requests", k+1, seconds(a.Took), megabytes(a.Bytes), a.Requests)

		var want string
		for _, from := range []string{"SQLite", "D1"} {
			source := d.source()
			if from == "D1" {
				source = "d1://" + cloudflaretest.Database
			}
			var out bytes.Buffer
			store := b.fresh("store")
			c, err := b.archive(ctx, &out, d, day, source, "file:"+store)
			if err != nil {
				return err
			}
			t, err := check(store, rows)
			if err != nil {
				return err
			}
			line := fmt.Sprintf("etl archive from %s, %s points, run %d: %s, CPU %s, peak %s", from, count(int64(d.fleet.Len())), k+1, seconds(c.Wall), seconds(c.CPU), megabytes(c.RSS))
			if from == "SQLite" {
				want, local = t.rows, append(local, c)
				b.report.run("%s", line)
				continue
			}
			remote = append(remote, c)
			if t.rows != want {
				return fmt.Errorf("store %s holds other rows than the one that was filled from %s", store, d.path)
			}
			var r struct{ Billed bill }
			if err := json.Unmarshal(out.Bytes(), &r); err != nil {
				return fmt.Errorf("what etl archive printed: %w", err)
			}
			most = bill{max(most.Requests, r.Billed.Requests), max(most.RowsRead, r.Billed.RowsRead), max(most.RowsWritten, r.Billed.RowsWritten)}
			b.report.run("%s, %d requests, %s rows read, %s rows written", line, r.Billed.Requests, count(r.Billed.RowsRead), count(r.Billed.RowsWritten))
		}
	}
	m, base := medianCost(remote), medianCost(local)
	speed := float64(rows) / m.Wall.Seconds()
	b.report.add(figure{
		what: fmt.Sprintf("one day from D1, %s points (%s rows), fresh month", count(int64(d.fleet.Len())), millions(rows)),
		etl:  seconds(m.Wall) + ", " + rate(rows, m.Wall), baseline: fmt.Sprintf("%s from SQLite; %s to download", seconds(base.Wall), seconds(median(floor))),
		ratio: fmt.Sprintf("%.2f×", m.Wall.Seconds()/base.Wall.Seconds()), target: "≥ 2 M rows/s", met: speed >= 2e6,
	})
	b.report.most("– its peak memory", m.RSS, 512<<20)
	b.report.add(figure{
		what: fmt.Sprintf("– its requests (%s rows read, %s written)", count(most.RowsRead), count(most.RowsWritten)),
		etl:  count(most.Requests), target: "< 200", met: most.Requests < 200,
	})
	return nil
}

// d1Options name the database that a D1 is, and the day of its fleet of which it
// has the rows prepared.
type d1Options struct {
	Path  string
	Fleet fleet.Options
	Day   utc.Day
}

type d1Answer struct{ URL string }

// serveD1 is D1's interface over the database. What reads rows of the day is
// answered with bytes that were made before, all else by SQLite.
func serveD1(_ context.Context, o d1Options) (d1Answer, func() error, error) {
	f, err := fleet.New(o.Fleet)
	if err != nil {
		return d1Answer{}, nil, err
	}
	p := preparePages(f, o.Day)
	s, err := cloudflaretest.New(o.Path, cloudflaretest.Options{})
	if err != nil {
		return d1Answer{}, nil, err
	}
	s.On(func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
		// A read in another form than is known here must not go to SQLite: that
		// would be right, and slow.
		if len(r.SQL) != 1 || !strings.HasPrefix(r.SQL[0], "SELECT p,") {
			return nil
		}
		q, err := parseRead(r.SQL[0])
		if err == nil && (q.from != o.Day.Start() || q.to != o.Day.End()) {
			err = errors.New("another day than the one prepared")
		}
		if err != nil {
			return cloudflaretest.Fails(400, 7500, err.Error())
		}
		return &cloudflaretest.Fault{Stream: func(w io.Writer) error { return p.write(w, q) }}
	})
	return d1Answer{s.URL}, s.Close, nil
}

// pages are the rows of a day of a steady fleet as D1 writes them.
type pages struct {
	start  int64
	points map[int32]*rowsOfPoint
}

type rowsOfPoint struct {
	text []byte   // [1,1711929600000,21.4,192,0],[1,…
	ends []uint32 // where each row ends
}

// every is how many ms the rows of a steady fleet are apart.
const every = 60_000

func preparePages(f *fleet.Fleet, day utc.Day) *pages {
	p := &pages{day.Start(), make(map[int32]*rowsOfPoint)}
	var s sample.Series
	var text []byte
	for i, point := range f.Points() {
		s.Reset()
		f.Series(i, utc.Days{From: day, To: day + 1}, &s)
		text = text[:0]
		r := &rowsOfPoint{ends: make([]uint32, s.Len())}
		for k, ts := range s.TS {
			if k > 0 {
				text = append(text, ',')
			}
			text = append(text, '[')
			text = append(strconv.AppendInt(text, int64(point.ID), 10), ',')
			text = append(strconv.AppendInt(text, ts, 10), ',')
			if v := s.Value[k]; v == v {
				text = strconv.AppendFloat(text, v, 'f', -1, 64)
			} else {
				text = append(text, "null"...)
			}
			text = fmt.Appendf(text, ",%d,%d]", s.Quality[k], s.Flags[k])
			r.ends[k] = uint32(len(text))
		}
		r.text = slices.Clone(text)
		p.points[point.ID] = r
	}
	return p
}

// read is what a statement of the source asks for: the rows of the first point
// after a time, those of all others from the start of the range, limit in all.
type read struct {
	from, to int64
	inside   bool // there is a point that was read up to after
	after    int64
	points   []int32
	limit    int
}

var reads = regexp.MustCompile(`^SELECT p,.* FROM \(` +
	`(?:SELECT [a-z_, ]* FROM timeseries WHERE point_id = (-?\d+) AND timestamp > (\d+) AND timestamp < (\d+)(?: UNION ALL )?)?` +
	`(?:SELECT [a-z_, ]* FROM timeseries WHERE point_id IN \(([-0-9,]+)\) AND timestamp >= (\d+) AND timestamp < (\d+))?` +
	` ORDER BY 1,2 LIMIT (\d+)\)$`)

func parseRead(sql string) (q read, err error) {
	m := reads.FindStringSubmatch(sql)
	if m == nil {
		return q, fmt.Errorf("the benchmark's D1 does not know this read: %.200s … %.200s", sql, sql[max(0, len(sql)-200):])
	}
	var errs []error
	number := func(text string, bits int) int64 {
		n, err := strconv.ParseInt(text, 10, bits)
		errs = append(errs, err)
		return n
	}
	q.limit = int(number(m[7], 32))
	if q.inside = m[1] != ""; q.inside {
		q.points = append(q.points, int32(number(m[1], 32)))
		q.after, q.to = number(m[2], 64), number(m[3], 64)
		q.from = q.after - q.after%utc.DayMillis
	}
	if m[4] != "" {
		for id := range strings.SplitSeq(m[4], ",") {
			q.points = append(q.points, int32(number(id, 32)))
		}
		q.from, q.to = number(m[5], 64), number(m[6], 64)
	}
	if !slices.IsSorted(q.points) {
		errs = append(errs, errors.New("the points are not in order"))
	}
	return q, errors.Join(errs...)
}

// write writes the answer to q.
func (p *pages) write(w io.Writer, q read) error {
	if _, err := io.WriteString(w, `{"result":[{"results":{"columns":["p","ts","val","qual","flag"],"rows":[`); err != nil {
		return err
	}
	sent := 0
	for i, id := range q.points {
		r := p.points[id]
		if r == nil || sent == q.limit {
			continue
		}
		first, start := 0, 0
		if q.inside && i == 0 {
			first = min(len(r.ends), int((q.after-p.start)/every)+1)
			if first > 0 {
				start = int(r.ends[first-1]) + 1 // behind the comma
			}
		}
		n := min(len(r.ends)-first, q.limit-sent)
		if n == 0 {
			continue
		}
		if sent > 0 {
			if _, err := w.Write([]byte{','}); err != nil {
				return err
			}
		}
		if _, err := w.Write(r.text[start:r.ends[first+n-1]]); err != nil {
			return err
		}
		sent += n
	}
	_, err := fmt.Fprintf(w, `]},"success":true,"meta":{"served_by":"benchmark","duration":1,"changes":0,"last_row_id":0,"rows_read":%d,"rows_written":0}}],"errors":[],"messages":[],"success":true}`, sent)
	return err
}

// downloadOptions name a D1, and the day to download of points 1 to Points.
type downloadOptions struct {
	URL    string
	Points int
	Day    utc.Day
}

type downloadAnswer struct {
	Took     time.Duration
	Bytes    int64
	Requests int
}

// downloadPoints is how many points' rows make about as many bytes as a page of
// the etl has.
const downloadPoints = 400

func download(ctx context.Context, o downloadOptions, _ io.Writer) (a downloadAnswer, err error) {
	start := time.Now()
	for first := 1; first <= o.Points; first += downloadPoints {
		var ids []byte
		for id := first; id < first+downloadPoints && id <= o.Points; id++ {
			ids = append(strconv.AppendInt(ids, int64(id), 10), ',')
		}
		body, err := json.Marshal(map[string]string{"sql": fmt.Sprintf(
			"SELECT p,ts,val,qual,flag FROM (SELECT point_id p FROM timeseries WHERE point_id IN (%s) AND timestamp >= %d AND timestamp < %d ORDER BY 1,2 LIMIT 1000000)",
			bytes.TrimSuffix(ids, []byte{','}), o.Day.Start(), o.Day.End())})
		if err != nil {
			return a, err
		}
		req, err := http.NewRequestWithContext(ctx, "POST", o.URL+"/accounts/"+cloudflaretest.Account+"/d1/database/"+cloudflaretest.Database+"/raw", bytes.NewReader(body))
		if err != nil {
			return a, err
		}
		req.Header.Set("Authorization", "Bearer "+cloudflaretest.Token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return a, err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return a, err
		}
		if resp.StatusCode != http.StatusOK {
			return a, fmt.Errorf("download: status %s", resp.Status)
		}
		a.Bytes += n
		a.Requests++
	}
	a.Took = time.Since(start)
	return a, nil
}
