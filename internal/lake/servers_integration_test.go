//go:build integration

package lake

import (
	"crypto/x509"
	"os"
	"testing"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/object/s3"
	"etl/internal/source/d1"
	"etl/internal/testserver"
)

// TestIntegrationLakeModel plays the histories of TestLakeModel on Cloudflare's
// own runtime, over TLS: D1 over REST, and R2, or another S3 server, as the store.
func TestIntegrationLakeModel(t *testing.T) {
	for _, name := range []string{"miniflare", "versitygw"} {
		t.Run(name, func(t *testing.T) {
			playHistories(t, 2, func(t testing.TB) *world {
				cf := testserver.Miniflare(t, testserver.Options{TLS: true})
				b := cf.R2
				if name == "versitygw" {
					b = *testserver.Versitygw(t, testserver.Options{TLS: true})
				}
				w := &world{t: t, db: cf.SQLitePath}
				client, err := cloudflare.New(cf.Account, cf.Token, cloudflare.Options{URL: cf.URL, HTTP: testserver.Client(t, cf.CAFile), Rate: 10_000, Burst: 10_000})
				w.must(err)
				o := s3.Options{Endpoint: b.URL, Region: b.Region, Bucket: b.Bucket, AccessKey: b.AccessKey, Secret: b.Secret, PathStyle: true, RootCAs: x509.NewCertPool()}
				pem, err := os.ReadFile(b.CAFile)
				w.must(err)
				if !o.RootCAs.AppendCertsFromPEM(pem) {
					t.Fatalf("%s holds no certificate", b.CAFile)
				}
				store, err := s3.Open(o)
				w.must(err)
				w.build(d1.Open(client.Database(cf.DatabaseID), d1.Options{Now: func() time.Time { return w.now }}),
					object.Retry(object.Pace(store, 20*time.Millisecond), fault.Policy{}))
				return w
			})
		})
	}
}
