package d1

import (
	"path/filepath"
	"testing"

	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/source/sourcetest"
	"etl/internal/utc"
	"etl/sql"
)

const d0 = utc.Day(19727) // 2024-01-05

var oneDay = utc.Days{From: d0, To: d0 + 1}

// serve serves a new database, on which a script was run, and opens it as a source.
func serve(t testing.TB, script string, o Options) (*cloudflaretest.Server, *Source) {
	t.Helper()
	srv := cloudflaretest.Start(t, filepath.Join(t.TempDir(), "hot.db"), cloudflaretest.Options{})
	srv.Exec(t, script)
	return srv, reopen(t, srv, o)
}

// reopen opens the database of a server once more.
func reopen(t testing.TB, srv *cloudflaretest.Server, o Options) *Source {
	t.Helper()
	s := Open(srv.Client(t).Database(cloudflaretest.Database), o)
	t.Cleanup(func() { s.Close() })
	return s
}

// schema is the migrations as one script, without their book.
func schema() string {
	script := ""
	for _, m := range sql.Migrations() {
		script += m.SQL + "\n"
	}
	return script
}

// migrated serves a database to which Migrate was applied.
func migrated(t testing.TB) (*cloudflaretest.Server, *Source) {
	t.Helper()
	srv, s := serve(t, "", Options{})
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return srv, s
}

func TestConformance(t *testing.T) {
	tests := []struct {
		name  string
		sizes sizes
	}{
		{"as it is", newSizes()},
		{"small pages", sizes{points: 3, ids: 3, named: 5, marks: 3, slices: 7, restore: 7, prune: 5}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
				srv, s := migrated(t)
				s.sizes = tt.sizes
				return sourcetest.Harness{Source: s, Exec: srv.Exec, ManyRows: 2_160}
			})
		})
	}
}
