package s3

import (
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/objecttest"
)

// memory is the backend of gofakes3, corrected: that one hands the metadata of
// an object on to the next version of it.
type memory struct {
	*s3mem.Backend
	meta sync.Map // by name of the object
}

func (m *memory) PutObject(bucket, name string, meta map[string]string, r io.Reader, size int64, c *gofakes3.PutConditions) (gofakes3.PutObjectResult, error) {
	own := maps.Clone(meta)
	res, err := m.Backend.PutObject(bucket, name, meta, r, size, c)
	if err == nil {
		m.meta.Store(name, own)
	}
	return res, err
}

func (m *memory) GetObject(bucket, name string, r *gofakes3.ObjectRangeRequest) (*gofakes3.Object, error) {
	o, err := m.Backend.GetObject(bucket, name, r)
	if meta, ok := m.meta.Load(name); ok && err == nil {
		o.Metadata = meta.(map[string]string)
	}
	return o, err
}

// fake is an S3 service in this process, with the bucket "archive". It checks
// conditions and MD5 sums, but no signature and no x-amz-content-sha256, nor does
// it speak TLS: what hides there is for the integration tests.
func fake(t testing.TB) *httptest.Server {
	t.Helper()
	backend := &memory{Backend: s3mem.New()}
	if err := backend.CreateBucket("archive"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(gofakes3.New(backend, gofakes3.WithTimeSkewLimit(0)).Server())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // it writes some headers twice
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

// options reach the bucket "archive" of a service for tests.
func options(endpoint string) Options {
	return Options{Endpoint: endpoint, Region: "auto", Bucket: "archive", PathStyle: true, AccessKey: "key", Secret: "s3cr3t"}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Options().HTTPClient.(interface{ CloseIdleConnections() }).CloseIdleConnections)
	return s
}

func TestConformance(t *testing.T) {
	for _, prefix := range []string{"", "some where/é"} {
		t.Run("prefix="+prefix, func(t *testing.T) {
			objecttest.Run(t, func(t *testing.T) object.Store {
				o := options(fake(t).URL)
				o.Prefix = prefix
				return open(t, o)
			})
		})
	}
}

// limited is a service that takes one write of a key per interval, as R2 does.
func limited(t *testing.T, interval time.Duration) (url string, refused *atomic.Int64) {
	service := fake(t).Config.Handler
	refused = new(atomic.Int64)
	var mu sync.Mutex
	last := map[string]time.Time{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			service.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last[r.URL.Path]) < interval {
			refused.Add(1)
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, "<Error><Code>TooManyRequests</Code><Message>Reduce your concurrent request rate for the same object.</Message></Error>")
			return
		}
		res := httptest.NewRecorder()
		service.ServeHTTP(res, r)
		if res.Code == http.StatusOK {
			last[r.URL.Path] = time.Now()
		}
		maps.Copy(w.Header(), res.Header())
		w.WriteHeader(res.Code)
		w.Write(res.Body.Bytes())
	}))
	t.Cleanup(srv.Close)
	return srv.URL, refused
}

// TestRaceOnRateLimit has 20 writers increment one object, in one process,
// whose pace keeps all refusals away, and in 20, whose retries get over them.
// Without an unknown outcome the count is exact.
func TestRaceOnRateLimit(t *testing.T) {
	const writers, each = 20, 2
	for _, processes := range []int{1, writers} {
		url, refused := limited(t, 20*time.Millisecond)
		stores := make([]object.Store, processes)
		for i := range stores {
			stores[i] = object.Retry(object.Pace(open(t, options(url)), 20*time.Millisecond), fault.Policy{Base: 50 * time.Millisecond, Attempts: 1000})
		}
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				for range each {
					if lost, err := objecttest.Increment(t.Context(), stores[i%processes], "n"); lost != 0 || err != nil {
						t.Errorf("increment: %d lost, %v", lost, err)
					}
				}
			})
		}
		wg.Wait()
		data, _, err := stores[0].Get(t.Context(), "n")
		if err != nil || string(data) != fmt.Sprint(writers*each) {
			t.Errorf("%d processes: %q, %v; want %d", processes, data, err, writers*each)
		}
		t.Logf("%d processes: %d writes refused", processes, refused.Load())
		if (processes == 1) != (refused.Load() == 0) {
			t.Errorf("%d processes: %d writes refused", processes, refused.Load())
		}
	}
}
