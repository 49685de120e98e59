//go:build integration

package d1

import (
	"context"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/cloudflare"
	"etl/internal/source/sourcetest"
	"etl/internal/testserver"
)

// TestIntegrationConformance runs the suite against Cloudflare's own runtime. What
// the suite does beside the source it does in the file of the database.
func TestIntegrationConformance(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tls   bool
		sizes sizes
	}{
		{"http", false, newSizes()},
		{"TLS, small pages", true, sizes{points: 3, ids: 3, named: 5, marks: 3, slices: 7, restore: 7, prune: 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
				cf := testserver.Miniflare(t, testserver.Options{TLS: tt.tls})
				client, err := cloudflare.New(cf.Account, cf.Token, cloudflare.Options{URL: cf.URL, HTTP: testserver.Client(t, cf.CAFile), Rate: 10_000, Burst: 10_000})
				if err != nil {
					t.Fatal(err)
				}
				s := Open(client.Database(cf.DatabaseID), Options{})
				t.Cleanup(func() { s.Close() })
				if _, err := s.Migrate(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.sizes = tt.sizes
				file, err := sqlitex.NewPool(cf.SQLitePath, sqlitex.PoolOptions{Flags: sqlite.OpenReadWrite, PoolSize: 1, PrepareConn: func(c *sqlite.Conn) error {
					c.SetBusyTimeout(10 * time.Second)
					return nil
				}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { file.Close() })
				return sourcetest.Harness{Source: s, ManyRows: 2_160, Exec: func(t testing.TB, script string) {
					t.Helper()
					// Not the context of the test, which has ended when it cleans up.
					c, err := file.Take(context.Background())
					if err != nil {
						t.Error(err)
						return
					}
					defer file.Put(c)
					if err := sqlitex.ExecuteScript(c, script, nil); err != nil {
						t.Errorf("%v in\n%s", err, script)
					}
				}}
			})
		})
	}
}
