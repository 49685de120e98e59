package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"etl/internal/fault"
)

const (
	idA, idB = "11111111-2222-3333-4444-555555555555", "21111111-2222-3333-4444-555555555555"

	wranglerJSONC = `{
  // comments, and commas at the end
  "name": "worker", /* both kinds */
  "account_id": "0123456789abcdef0123456789abcdef",
  "d1_databases": [
    {"binding": "DB", "database_name": "history", "database_id": "11111111-2222-3333-4444-555555555555", "migrations_dir": "sql"},
  ],
  "r2_buckets": [
    {"binding": "COLD", "bucket_name": "archive", "jurisdiction": "eu"},
    {"binding": "OTHER", "bucket_name": "pictures"},
  ],
  "env": {
    "production": {
      "account_id": "fedcba9876543210fedcba9876543210",
      "d1_databases": [
        {"binding": "DB", "database_name": "history-prod", "database_id": "21111111-2222-3333-4444-555555555555"},
        {"binding": "LOG"}
      ],
    },
    "staging": {"r2_buckets": [{"binding": "COLD"}]},
    "odd": {"d1_databases": [{"binding": "DB", "database_id": "history"}], "r2_buckets": [{"binding": "COLD", "bucket_name": "No Name"}]},
  },
}
`
	wranglerTOML = `# the same in TOML
name = "worker"
account_id = "0123456789abcdef0123456789abcdef"

[[d1_databases]]
binding = "DB"
database_name = "history"
database_id = "11111111-2222-3333-4444-555555555555"
migrations_dir = "sql"

[[r2_buckets]]
binding = "COLD"
bucket_name = "archive"
jurisdiction = "eu"

[[r2_buckets]]
binding = "OTHER"
bucket_name = "pictures"

[env.production]
account_id = "fedcba9876543210fedcba9876543210"
d1_databases = [
  { binding = "DB", database_name = "history-prod", database_id = "21111111-2222-3333-4444-555555555555" },
  { binding = "LOG" },
]

[[env.staging.r2_buckets]]
binding = "COLD"

[env.odd]
d1_databases = [{ binding = "DB", database_id = "history" }]
r2_buckets = [{ binding = "COLD", bucket_name = "No Name" }]
`
)

// TestWrangler asks both formats of the same file for the same things.
func TestWrangler(t *testing.T) {
	type ask struct {
		name      string
		pick      Pick
		of        string // source, store or account
		want, at  string
		err, hint string
		kind      fault.Kind
	}
	asks := []ask{
		{name: "top", of: "source", want: "d1://" + idA, at: "d1_databases[0]"},
		{name: "top, by name", pick: Pick{D1: "DB"}, of: "source", want: "d1://" + idA, at: "d1_databases[0]"},
		{name: "env", pick: Pick{Env: "production", D1: "DB"}, of: "source", want: "d1://" + idB, at: "d1_databases[0] (env production)"},
		{name: "several", pick: Pick{Env: "production"}, of: "source", err: "d1_databases (env production): which of the 2?",
			hint: "choose with --d1-binding DB (history-prod) or --d1-binding LOG (no name)", kind: fault.Usage},
		{name: "not there", pick: Pick{Env: "production", D1: "COLD"}, of: "source", err: `d1_databases (env production): none has the binding "COLD"`,
			hint: "there are --d1-binding DB (history-prod), --d1-binding LOG (no name)", kind: fault.Usage},
		{name: "no id yet", pick: Pick{Env: "production", D1: "LOG"}, of: "source", err: "d1_databases[1] (env production) (binding LOG) has no database_id",
			hint: "`wrangler d1 info LOG` shows the id", kind: fault.Usage},
		{name: "not inherited", pick: Pick{Env: "staging"}, of: "source", err: "has no d1_databases in env.staging: environments inherit no bindings", kind: fault.NotExist},
		{name: "a name for an id", pick: Pick{Env: "odd"}, of: "source", err: `d1_databases[0] (env odd): database_id "history" is no D1 database id`, hint: "UUID", kind: fault.Usage},
		{name: "bucket", pick: Pick{R2: "COLD"}, of: "store", want: "r2://archive?jurisdiction=eu", at: "r2_buckets[0]"},
		{name: "another", pick: Pick{R2: "OTHER"}, of: "store", want: "r2://pictures", at: "r2_buckets[1]"},
		{name: "several buckets", of: "store", err: "r2_buckets: which of the 2?", hint: "--r2-binding COLD (archive) or --r2-binding OTHER (pictures)", kind: fault.Usage},
		{name: "no bucket", pick: Pick{Env: "production"}, of: "store", err: "has no r2_buckets in env.production", kind: fault.NotExist},
		{name: "no name yet", pick: Pick{Env: "staging"}, of: "store", err: "r2_buckets[0] (env staging) (binding COLD) has no bucket_name", kind: fault.Usage},
		{name: "a wrong name", pick: Pick{Env: "odd"}, of: "store", err: "is no name of a bucket", kind: fault.Usage},
		{name: "local state of a bucket", pick: Pick{R2: "COLD", Local: true}, of: "store", err: "speaks no S3", hint: "--store file:DIR", kind: fault.NotExist},
		{name: "account", of: "account", want: "0123456789abcdef0123456789abcdef", at: "account_id"},
		{name: "account of an env", pick: Pick{Env: "production"}, of: "account", want: "fedcba9876543210fedcba9876543210", at: "account_id (env production)"},
		{name: "account, inherited", pick: Pick{Env: "staging"}, of: "account", want: "0123456789abcdef0123456789abcdef", at: "account_id"},
	}
	for file, text := range map[string]string{"wrangler.jsonc": wranglerJSONC, "wrangler.json": "\uFEFF" + wranglerJSONC, "wrangler.toml": wranglerTOML} {
		path := write(t, file, text)
		w, err := ReadWrangler(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range asks {
			t.Run(file+"/"+a.name, func(t *testing.T) {
				got, at, err := map[string]func(Pick) (string, string, error){"source": w.Source, "store": w.Store, "account": w.Account}[a.of](a.pick)
				switch {
				case a.err == "" && (err != nil || got != a.want || at != path+": "+a.at):
					t.Errorf("%q at %q, %v; want %q at %q", got, at, err, a.want, a.at)
				case a.err != "" && (!fault.Is(err, a.kind) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), a.err) || !strings.Contains(fault.HintOf(err), a.hint)):
					t.Errorf("%q, %v (%s), hint %q; want %q, hint %q", got, err, fault.KindOf(err), fault.HintOf(err), a.err, a.hint)
				}
			})
		}
		if err := w.CheckEnv("prod"); !fault.Is(err, fault.Usage) || fault.HintOf(err) != "it has: odd, production, staging" {
			t.Errorf("%v, hint %q", err, fault.HintOf(err))
		}
	}
}

func TestWranglerErrors(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"w.jsonc", "{\n  \"name\": \"x\",\n  oops\n}", "line 3, column 3"},
		{"w.jsonc", "", "line 1, column 1"},
		{"w.jsonc", "[1]", "line 1, column"},
		{"w.jsonc", "{\n // é\n \"d1_databases\": \"DB\"}", "line 3, column 21: d1_databases: got a JSON string"},
		{"w.json", "{\n\"d1_databases\": [\n{\"binding\": 1}]}", "line 3, column 13: d1_databases.binding: got a JSON number"},
		{"w.jsonc", "{\"env\": [1]}", "line 1, column"},
		{"w.toml", "name = \"x\"\n[d1_databases\n", "line 2, column"},
		{"w.toml", "name = \"x\"\nd1_databases = \"DB\"\n", "line 2, column 16"},
		{"w.toml", "[[d1_databases]]\nbinding = 1\n", "line 2, column 11"},
		{"w.yaml", "name: x", "want a name that ends in .jsonc, .json or .toml"},
	} {
		path := write(t, c.file, c.text)
		if _, err := ReadWrangler(path); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q: %v, want %q", c.file, c.text, err, c.want)
		}
	}
}

// TestLoadWrangler: what is set elsewhere comes first, and what the file can
// not give is a problem of those only that need it.
func TestLoadWrangler(t *testing.T) {
	path := write(t, "wrangler.jsonc", wranglerJSONC)
	for _, c := range []struct {
		name, args, env string
		source, store   string
		account         string
		problem         string // of source or store
		kind            fault.Kind
	}{
		{"all", "--r2-binding COLD", "", "d1://" + idA, "r2://archive?jurisdiction=eu", "0123456789abcdef0123456789abcdef", "", 0},
		{"several buckets", "", "", "d1://" + idA, "", "0123456789abcdef0123456789abcdef", "store", fault.Usage},
		{"a store that is set", "", "ETL_STORE=file:x", "d1://" + idA, "file:x", "0123456789abcdef0123456789abcdef", "", 0},
		{"no bucket", "--env production --d1-binding DB", "", "d1://" + idB, "", "fedcba9876543210fedcba9876543210", "store", fault.NotExist},
		{"the environment of other tools", "--store file:x", "CLOUDFLARE_ENV=staging", "", "file:x", "0123456789abcdef0123456789abcdef", "source", fault.NotExist},
		{"an account that is set", "--store file:x", "CLOUDFLARE_ACCOUNT_ID=a", "d1://" + idA, "file:x", "a", "", 0},
		{"local that is off", "--local=false --store file:x", "", "d1://" + idA, "file:x", "0123456789abcdef0123456789abcdef", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := testFlags()
			if err := f.Parse(append(strings.Fields(c.args), "--wrangler", path)); err != nil {
				t.Fatal(err)
			}
			got, err := Load(f, testSettings, env(c.env), write(t, "etl.yaml", ""))
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{"source": c.source, "store": c.store, "account-id": c.account} {
				if v := got.Value(name); v.Value != want || f.Lookup(name).Value.String() != want {
					t.Errorf("%s is %+v, want %q", name, v, want)
				}
				if p := got.Value(name).Problem; (p != nil) != (name == c.problem) || p != nil && !fault.Is(p, c.kind) {
					t.Errorf("%s: problem %v (%s)", name, p, fault.KindOf(p))
				}
			}
		})
	}
	f := testFlags()
	if err := f.Parse([]string{"--wrangler", path, "--env", "prod"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(f, testSettings, env(), write(t, "etl.yaml", "")); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), `no environment "prod"`) {
		t.Error(err)
	}
	// CLOUDFLARE_ENV alone, set for other tools, asks for no wrangler file.
	if _, err := Load(testFlags(), testSettings, env("CLOUDFLARE_ENV=x"), write(t, "etl.yaml", "")); err != nil {
		t.Error(err)
	}
}

// TestStateFile: the names of files that `wrangler d1 execute --local` made of
// these ids (wrangler 4.86.0 and 4.164.0).
func TestStateFile(t *testing.T) {
	for id, want := range map[string]string{
		idA:       "f023adf8de81e80d62670e09f086149af129cccda34c51f26517069258c53e8c.sqlite",
		idB:       "7f547e9b82de81bfcb6f048e980ef0f4f51ce1cac82fa7b619076c137db63b70.sqlite",
		"prev-id": "50aa4d1dd387989b097293da3015aecbd1b58b2b645cdf2db9d7385dcd88041f.sqlite", // a preview_database_id
		"DBN":     "c22b541d9f60574cf8c055b3b2375d2f4004d6cc5ef1384348157953ce657c04.sqlite", // a binding without any id
	} {
		if got := stateFile(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}

func TestLocal(t *testing.T) {
	one := `{"d1_databases": [{"binding": "DB", "database_name": "history", "database_id": "` + idA + `"}]}`
	preview := `{"d1_databases": [{"binding": "DB", "database_id": "` + idA + `", "preview_database_id": "prev-id"}]}`
	binding := `{"d1_databases": [{"binding": "DBN"}]}`
	two := `{"d1_databases": [{"binding": "DB", "database_id": "` + idA + `"}], "env": {"x": {"d1_databases": [{"binding": "DB", "database_id": "` + idB + `"}]}}}`
	for _, c := range []struct {
		name, wrangler string
		files          []string
		want, err      string
		hint           string
	}{
		{"by id", one, []string{stateFile(idA), stateFile(idB)}, stateFile(idA), "", ""},
		{"by preview id", preview, []string{stateFile(idA), stateFile("prev-id")}, stateFile("prev-id"), "", ""},
		{"by binding", binding, []string{stateFile("DBN"), "metadata.sqlite"}, stateFile("DBN"), "", ""},
		{"the only one", one, []string{"abc.sqlite", "abc.sqlite-wal", "metadata.sqlite"}, "abc.sqlite", "", ""},
		{"the only file, but of which?", two, []string{stateFile(idB)}, "", "has no local state: there is no", "give the right one: --source sqlite:"},
		{"several", one, []string{"a.sqlite", "b.sqlite"}, "", "has no local state: there is no", "a.sqlite or --source sqlite:"},
		{"nothing", one, []string{"metadata.sqlite"}, "", "has no local state in", "`wrangler d1 execute history --local"},
		{"no folder", one, nil, "", "has no local state in", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, "wrangler.json", c.wrangler)
			dir := filepath.Join(filepath.Dir(path), ".wrangler", "state", "v3", "d1", "miniflare-D1DatabaseObject")
			for _, name := range c.files {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			w, err := ReadWrangler(path)
			if err != nil {
				t.Fatal(err)
			}
			got, at, err := w.Source(Pick{Local: true})
			if c.err != "" {
				if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), c.err) || !strings.Contains(fault.HintOf(err), c.hint) {
					t.Errorf("%v, hint %q", err, fault.HintOf(err))
				}
			} else if err != nil || got != "sqlite:"+filepath.Join(dir, c.want) || at != path+": d1_databases[0], local state" {
				t.Errorf("%q at %q, %v", got, at, err)
			}
		})
	}
}

func FuzzWrangler(f *testing.F) {
	f.Add([]byte(wranglerJSONC), false, "production", "DB")
	f.Add([]byte(wranglerTOML), true, "odd", "")
	f.Add([]byte(`{"env": {"": {}, "x": null}, "d1_databases": [null]}`), false, "x", "")
	f.Add([]byte("env.x.d1_databases = [{}]\n[env]\n"), true, "x", "")
	f.Fuzz(func(t *testing.T, data []byte, isTOML bool, env, binding string) {
		path := "no-folder/w.jsonc"
		if isTOML {
			path = "no-folder/w.toml"
		}
		w, err := parseWrangler(path, data)
		if err != nil {
			if !fault.Is(err, fault.Usage) {
				t.Fatal(err)
			}
			return
		}
		for _, p := range []Pick{{}, {Env: env}, {Env: env, D1: binding, R2: binding}, {Local: true}} {
			if err := w.CheckEnv(p.Env); err != nil {
				continue
			}
			if url, _, err := w.Source(p); err == nil {
				if _, err := ParseSource(url); err != nil {
					t.Fatalf("source %q: %v", url, err)
				}
			} else if !fault.Is(err, fault.Usage) && !fault.Is(err, fault.NotExist) {
				t.Fatal(err)
			}
			if url, _, err := w.Store(p); err == nil {
				if _, err := ParseStore(url); err != nil {
					t.Fatalf("store %q: %v", url, err)
				}
			} else if !fault.Is(err, fault.Usage) && !fault.Is(err, fault.NotExist) {
				t.Fatal(err)
			}
			if _, _, err := w.Account(p); err != nil {
				t.Fatal(err)
			}
		}
	})
}
