package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"etl/internal/object"
	"etl/internal/object/s3"
	"etl/internal/utc"
)

const (
	// s3Delay is added to each request, as a bucket that is not next door does.
	s3Delay = 40 * time.Millisecond
	// s3Workers is how many write workers the etl has on a bucket by default.
	s3Workers = 32

	s3Region, s3Key, s3Secret = "us-east-1", "benchmark", "benchmark-secret"
)

// s3Merges merges a fleet's last day over S3, in turns with the operations alone.
type s3Merges struct {
	b      *bench
	d      dataset
	dir    string // in which each bucket is a folder
	server s3Answer
	stop   func() error
	runs   []cost
	alone  []time.Duration // the operations of a merge, a read and a write for each file
	files  int64
}

// mergesOverS3 starts the server and fills a bucket with the days before the
// last one. It returns nil if the server is not installed.
func (b *bench) mergesOverS3(ctx context.Context, d dataset, before utc.Days) (*s3Merges, error) {
	if _, err := os.Stat(b.versitygw); err != nil {
		b.say("no S3 server at %s (make servers installs it): the merge over S3 is skipped", b.versitygw)
		b.report.run("merge over S3: skipped, versitygw is not installed (make servers)")
		return nil, nil
	}
	m := &s3Merges{b: b, d: d, dir: b.fresh("buckets")}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if m.stop, err = b.serve(ctx, "s3", s3Options{b.versitygw, m.dir, s3Delay}, &m.server); err != nil {
		return nil, err
	}
	b.env = append(b.env, "AWS_ACCESS_KEY_ID="+s3Key, "AWS_SECRET_ACCESS_KEY="+s3Secret)
	if err := os.Mkdir(filepath.Join(m.dir, "held"), 0o755); err != nil {
		return nil, errors.Join(err, m.stop())
	}
	c, err := b.backfillDays(ctx, d.source(), before, m.store("held", m.server.Direct))
	if err != nil {
		return nil, errors.Join(err, m.stop())
	}
	b.report.run("etl backfill to S3 without delay, %d days: %s, CPU %s, peak %s", before.Len(), seconds(c.Wall), seconds(c.CPU), megabytes(c.RSS))
	return m, nil
}

func (m *s3Merges) store(bucket, url string) string {
	return fmt.Sprintf("s3://%s?endpoint=%s&region=%s", bucket, url, s3Region)
}

// bucket copies the filled bucket. The server never writes to a file again that
// is an object.
func (m *s3Merges) bucket(name string) (string, error) {
	return name, linkTree(filepath.Join(m.dir, "held"), filepath.Join(m.dir, name))
}

// run merges once, and does the operations alone once.
func (m *s3Merges) run(ctx context.Context, k int) error {
	name, err := m.bucket(fmt.Sprintf("alone-%d", k))
	if err != nil {
		return err
	}
	settle()
	var a operateAnswer
	if _, err := m.b.child(ctx, "operate", operateOptions{m.server.Delayed, name, s3Workers}, &a); err != nil {
		return err
	}
	m.alone, m.files = append(m.alone, a.Took), int64(a.Operations/2)
	m.b.report.run("reads and writes over S3 alone, run %d: %s, %s operations, %.0f/s, one by itself %.1f ms", k,
		seconds(a.Took), count(int64(a.Operations)), float64(a.Operations)/a.Took.Seconds(), a.One.Seconds()*1e3)

	if name, err = m.bucket(fmt.Sprintf("merged-%d", k)); err != nil {
		return err
	}
	c, err := m.b.archive(ctx, io.Discard, m.d, m.d.fleet.Days().To-1, m.d.source(), m.store(name, m.server.Delayed))
	if err != nil {
		return err
	}
	if _, err := check(filepath.Join(m.dir, name), m.d.rows(m.d.fleet.Days().Len())); err != nil {
		return err
	}
	m.runs = append(m.runs, c)
	m.b.report.run("etl archive to S3, month of %d days, %s points, run %d: %s, CPU %s, peak %s",
		m.d.fleet.Days().Len()-1, count(int64(m.d.fleet.Len())), k, seconds(c.Wall), seconds(c.CPU), megabytes(c.RSS))
	return nil
}

// report gives the figures, beside those of the same merge in a directory.
func (m *s3Merges) report(local cost) {
	c, alone := medianCost(m.runs), median(m.alone)
	m.b.report.ratio(fmt.Sprintf("%s files of a month merged over S3 that takes %d ms more", count(m.files), s3Delay.Milliseconds()),
		seconds(c.Wall), fmt.Sprintf("%s (%s reads and writes at %.0f/s) + %s (file:)", seconds(alone), count(2*m.files), float64(2*m.files)/alone.Seconds(), seconds(local.Wall)),
		c.Wall.Seconds()/(alone+local.Wall).Seconds(), 1.5)
	m.b.report.most("– its peak memory", c.RSS, 512<<20)
}

// s3Options name the server's program, the folder that has its buckets, and
// what to add to each request.
type s3Options struct {
	Program, Dir string
	Delay        time.Duration
}

// s3Answer has the URLs of the server, without the delay and with it.
type s3Answer struct{ Direct, Delayed string }

// serveS3 is versitygw behind a proxy. The proxy delays each piece of a request
// from when it came, so the pieces of one wait at the same time, and so do
// requests of several connections.
func serveS3(ctx context.Context, o s3Options) (a s3Answer, stop func() error, err error) {
	// It does not tell a port that the system chose, so one that was free a
	// moment ago is given to it.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return a, nil, err
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.CommandContext(ctx, o.Program, "--port", addr, "--access", s3Key, "--secret", s3Secret, "--region", s3Region, "--keep-alive", "--quiet", "posix", o.Dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return a, nil, err
	}
	end := func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // of how it ends nothing depends
		return nil
	}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + addr)
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Since(start) > time.Minute || ctx.Err() != nil {
			return a, nil, errors.Join(fmt.Errorf("start %s: %w", filepath.Base(o.Program), err), end(), errors.New(said.String()))
		}
	}
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "delay", "127.0.0.1:0", addr)
	if err := p.Start(); err != nil {
		return a, nil, errors.Join(err, end())
	}
	stop = func() error { p.Stop(); return end() }
	if _, err := p.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"type":"latency","stream":"upstream","attributes":{"latency":%d}}`, o.Delay.Milliseconds()))); err != nil {
		return a, nil, errors.Join(err, stop())
	}
	return s3Answer{"http://" + addr, "http://" + p.Listen}, stop, nil
}

// operateOptions name a bucket with month files.
type operateOptions struct {
	URL, Bucket string
	Workers     int
}

type operateAnswer struct {
	Took       time.Duration
	Operations int
	One        time.Duration // a single read, while nothing else goes on
}

// operate reads each month file of a bucket and writes it again, on condition
// that it is the one that was read.
func operate(ctx context.Context, o operateOptions, _ io.Writer) (a operateAnswer, err error) {
	s, err := s3.Open(s3.Options{Endpoint: o.URL, Region: s3Region, Bucket: o.Bucket, AccessKey: s3Key, Secret: s3Secret, PathStyle: true})
	if err != nil {
		return a, err
	}
	var keys []object.Key
	for f, err := range s.List(ctx, "timeseries/") {
		if err != nil {
			return a, err
		}
		keys = append(keys, f.Key)
	}
	if len(keys) == 0 {
		return a, fmt.Errorf("bucket %s has no month files", o.Bucket)
	}
	start := time.Now()
	if _, _, err := s.Get(ctx, keys[0]); err != nil {
		return a, err
	}
	a.One = time.Since(start)

	start = time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(o.Workers)
	for _, key := range keys {
		g.Go(func() error {
			data, attrs, err := s.Get(gctx, key)
			if err == nil {
				_, err = s.Put(gctx, key, data, object.PutOptions{IfMatch: attrs.ETag, Meta: attrs.Meta})
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return a, err
	}
	a.Took, a.Operations = time.Since(start), 2*len(keys)
	return a, nil
}
