//go:build unix

package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"etl/internal/object"
)

// BenchmarkStore measures one operation on an object of 40 KB, the size of a
// month file, with 32 workers: "client" without a network, which is what the
// store itself costs, "loopback" with one and with a server in this process,
// whose work is part of the figures.
func BenchmarkStore(b *testing.B) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 40<<10/16)
	etag := fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum(body)))
	serve := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("ETag", etag)
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.Write(body)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(serve))
	b.Cleanup(srv.Close)
	meta := map[string]string{"pointId": "7", "pointName": "AHU-1/Supply Temp", "startTimestamp": "1704067200000", "endTimestamp": "1706745540000", "sampleCount": "43200"}
	ops := []struct {
		name string
		do   func(s *Store, key object.Key) error
	}{
		{"get", func(s *Store, key object.Key) error {
			_, _, err := s.Get(context.Background(), key)
			return err
		}},
		{"put", func(s *Store, key object.Key) error {
			_, err := s.Put(context.Background(), key, body, object.PutOptions{IfMatch: "0123456789abcdef0123456789abcdef", Meta: meta})
			return err
		}},
	}
	for _, net := range []string{"client", "loopback"} {
		s := open(b, options(srv.URL))
		if net == "client" {
			s = newStore(options(srv.URL), roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.Body != nil {
					io.Copy(io.Discard, r.Body)
				}
				res := &http.Response{StatusCode: 200, Header: http.Header{"Etag": {etag}}, Body: http.NoBody, Request: r}
				if r.Method == http.MethodGet {
					res.Header.Set("Content-Length", strconv.Itoa(len(body)))
					res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				}
				return res, nil
			}))
		}
		for _, op := range ops {
			b.Run(op.name+"/"+net, func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				b.SetParallelism(16)
				var n atomic.Int64
				before := cpuTime(b)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := op.do(s, object.Key(fmt.Sprintf("timeseries/2024/01/p%d.parquet", n.Add(1)))); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
				b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
}

// cpuTime is what this process has used of all its cores.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
