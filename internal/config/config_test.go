package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"pgregory.net/rapid"

	"etl/internal/fault"
)

var testSettings = []Setting{
	{Name: "source"}, {Name: "store"}, {Name: "wrangler"}, {Name: "env", Env: []string{"CLOUDFLARE_ENV"}}, {Name: "d1-binding"}, {Name: "r2-binding"}, {Name: "local"},
	{Name: "account-id", Env: []string{"CLOUDFLARE_ACCOUNT_ID"}}, {Name: "api-token", Env: []string{"CLOUDFLARE_API_TOKEN", "CF_TOKEN"}, Secret: true}, {Name: "no-state"}, {Name: "elsewhere"},
}

// testFlags are the flags of a command that has all settings but "elsewhere".
func testFlags() *pflag.FlagSet {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, s := range testSettings {
		switch s.Name {
		case "local", "no-state":
			f.Bool(s.Name, false, "")
		case "elsewhere":
		default:
			f.String(s.Name, "", "")
		}
	}
	return f
}

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for _, p := range pairs {
			if k, v, _ := strings.Cut(p, "="); k == name {
				return v
			}
		}
		return ""
	}
}

// write makes a file of its own folder and returns its path.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPrecedence compares Load with the order of the origins, for every setting
// on its own: a stronger origin hides all weaker ones.
func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		var args, vars []string
		var file strings.Builder
		want := map[string]string{}   // values
		origin := map[string]string{} // of them
		line := 0
		for i, s := range testSettings {
			if s.Name == "elsewhere" || slices.Contains([]string{"wrangler", "env", "d1-binding", "r2-binding", "local"}, s.Name) {
				continue
			}
			boolean := s.Name == "no-state"
			value := func(where string) string {
				if boolean {
					return rapid.SampledFrom([]string{"true", "false"}).Draw(t, s.Name+where)
				}
				return fmt.Sprintf("%s-%s-%d", s.Name, where, i)
			}
			want[s.Name], origin[s.Name] = "", "default"
			if boolean {
				want[s.Name] = "false"
			}
			if rapid.Bool().Draw(t, s.Name+" in the file") {
				v := value("file")
				line++
				fmt.Fprintf(&file, "%s: %s\n", s.Name, v)
				want[s.Name], origin[s.Name] = v, fmt.Sprintf("%s:%d", filepath.Join(dir, "etl.yaml"), line)
			}
			for _, name := range slices.Backward(s.Variables()) {
				if rapid.Bool().Draw(t, name) {
					v := value(name)
					vars = append(vars, name+"="+v)
					want[s.Name], origin[s.Name] = v, "environment "+name
				}
			}
			if rapid.Bool().Draw(t, "--"+s.Name) {
				v := value("flag")
				args = append(args, "--"+s.Name+"="+v)
				want[s.Name], origin[s.Name] = v, "flag --"+s.Name
			}
		}
		path := filepath.Join(dir, "etl.yaml")
		if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		f := testFlags()
		if err := f.Parse(args); err != nil {
			t.Fatal(err)
		}
		c, err := Load(f, testSettings, env(vars...), path)
		if err != nil {
			t.Fatal(err)
		}
		for name, w := range want {
			got := c.Value(name)
			shown := w
			if name == "api-token" {
				shown = Redact(w)
			}
			if f.Lookup(name).Value.String() != w || got.Value != shown || got.Origin != origin[name] {
				t.Fatalf("%s is %q (%s), shown as %q, want %q (%s)", name, f.Lookup(name).Value, got.Origin, got.Value, w, origin[name])
			}
		}
	})
}

func TestLoadErrors(t *testing.T) {
	for _, c := range []struct{ name, yaml, args, env, want, hint string }{
		{"unknown setting", "store: file:a\nmemroy: 1\n", "", "", `etl.yaml:2: unknown setting "memroy"`, "known settings: source, store, wrangler,"},
		{"unknown setting, nested", "store: file:a\na:\n  b: 1\n", "", "", `etl.yaml:2: unknown setting "a"`, ""},
		{"list", "\nsource: [a, b]\n", "", "", "etl.yaml:2: source: want one value", ""},
		{"mapping", "source:\n  a: b\n", "", "", "etl.yaml:1: source: want one value", ""},
		{"nothing", "store: file:a\nsource:\n", "", "", "etl.yaml:2: source: want a value", ""},
		{"null", "source: null\n", "", "", "etl.yaml:1: source: want a value", ""},
		{"empty", "source: ''\n", "", "", "etl.yaml:1: source: want a value", ""},
		{"blank", "source: '  '\n", "", "", "etl.yaml:1: source: want a value", ""},
		{"twice", "source: a:b\nsource: c:d\n", "", "", "etl.yaml:2: ", ""},
		{"syntax", "source: a\nstore: [file\n", "", "", "etl.yaml:2: ", ""},
		{"a list", "- source\n", "", "", "etl.yaml:1: want lines like", ""},
		{"a word", "source\n", "", "", "etl.yaml:1: want lines like", ""},
		{"two documents", "source: a:b\n---\nstore: c:d\n", "", "", "etl.yaml:3: want one document", ""},
		{"type in the file", "source: a:b\nno-state: perhaps\n", "", "", `etl.yaml:2: no-state: want true or false, got "perhaps"`, ""},
		{"type in the environment", "", "", "ETL_NO_STATE=2", `environment ETL_NO_STATE: no-state: want true or false, got "2"`, ""},
		{"blank in the environment", "", "", "ETL_SOURCE=  ", "environment ETL_SOURCE: source: want a value", ""},
		{"empty flag", "source: a:b\n", "--source=", "", "flag --source: want a value", ""},
		{"wrangler is not there", "", "--wrangler=nowhere.jsonc", "", "wrangler file: open nowhere.jsonc", "--wrangler names"},
		{"env without a file", "", "--env=x", "", "env (flag --env) chooses within a wrangler file, and none is named", "--wrangler wrangler.jsonc"},
		{"binding without a file", "d1-binding: DB\n", "", "", "etl.yaml:1) chooses within a wrangler file", ""},
		{"local without a file", "", "", "ETL_LOCAL=true", "local (environment ETL_LOCAL) chooses within a wrangler file", ""},
		{"local and a source", "", "--local --wrangler=w.toml --source=sqlite:x", "", "local (flag --local) chooses the source of w.toml, but it is set already (flag --source)", "give one of both"},
		{"local and a weaker source", "", "--local --wrangler=w.toml", "ETL_SOURCE=sqlite:x", "but it is set already (environment ETL_SOURCE)", ""},
		{"binding and a store", "", "--r2-binding=A --wrangler=w.toml", "ETL_STORE=file:x", "r2-binding (flag --r2-binding) chooses the store of w.toml", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := testFlags()
			if err := f.Parse(strings.Fields(c.args)); err != nil {
				t.Fatal(err)
			}
			_, err := Load(f, testSettings, env(c.env), write(t, "etl.yaml", c.yaml))
			if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), c.want) || !strings.Contains(fault.HintOf(err), c.hint) {
				t.Errorf("%v of kind %s, hint %q; want %q, hint %q", err, fault.KindOf(err), fault.HintOf(err), c.want, c.hint)
			}
		})
	}
}

// TestWritten: a value counts as it is written, whatever YAML takes it for.
func TestWritten(t *testing.T) {
	for _, text := range []string{"0123e4", "007", "0x1f", "1_000", "1e400", "true", ".5", "2024-02-20T02:00:00Z", "sqlite:d1 2.sqlite", "12:30", "on", "-"} {
		c, err := Load(testFlags(), testSettings, env(), write(t, "etl.yaml", "# a comment\n\nsource: "+text+" # another\n"))
		if text == "-" { // the beginning of a list
			if !fault.Is(err, fault.Usage) {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if err != nil || c.Value("source").Value != text {
			t.Errorf("%q becomes %q, %v", text, c.Value("source").Value, err)
		}
	}
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "\uFEFF# with a mark\n"} {
		if _, err := Load(testFlags(), testSettings, env(), write(t, "etl.yaml", text)); err != nil {
			t.Errorf("file %q: %v", text, err)
		}
	}
	// A file that was named has to be there, the default one need not.
	t.Chdir(t.TempDir())
	if _, err := Load(testFlags(), testSettings, env(), ""); err != nil {
		t.Error(err)
	}
	if _, err := Load(testFlags(), testSettings, env(), "other.yaml"); !fault.Is(err, fault.Usage) {
		t.Error(err)
	}
	if err := os.WriteFile(DefaultFile, []byte("elsewhere: yes\nstore: file:x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(testFlags(), testSettings, env(), ""); err != nil || c.Value("store").Origin != "etl.yaml:2" || c.Value("elsewhere").Name != "" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestSecrets(t *testing.T) {
	const token = "abcdefghijklmnopqrstuvwxyz0123456789wxyz"
	path := write(t, "etl.yaml", "store: file:x\napi-token: "+token+"\n")
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true, 0o644: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		f := testFlags()
		c, err := Load(f, testSettings, env(), path)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(c.Warnings) == 1; got != warned || warned && !strings.Contains(c.Warnings[0], path+":2 holds the secret api-token") {
			t.Errorf("mode %o: warnings %q", mode, c.Warnings)
		}
		v := c.Value("api-token")
		if v.Value != "set, ends in …wxyz" || f.Lookup("api-token").Value.String() != token || strings.Contains(fmt.Sprint(c), token) {
			t.Errorf("the token is shown as %+v", v)
		}
	}
	for secret, want := range map[string]string{"": "", "x": "set", strings.Repeat("s", 23): "set"} {
		if got := Redact(secret); got != want {
			t.Errorf("%q is shown as %q", secret, got)
		}
	}
}

func FuzzYAML(f *testing.F) {
	for _, s := range []string{"source: a\n", "a: [", "? x\n: y\n", "<<: *a", "&a source: *a", "source: |\n  x\n", "---\n---\n", "source: !!binary aa", "\t", "{source: x}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := parseYAML("f.yaml", data, testSettings)
		if err != nil {
			if !fault.Is(err, fault.Usage) || !strings.HasPrefix(err.Error(), "f.yaml:") {
				t.Fatalf("%v", err)
			}
			return
		}
		for name, e := range values {
			if !slices.Contains(names(testSettings), name) || strings.TrimSpace(e.value) == "" {
				t.Fatalf("%q is %+v", name, e)
			}
		}
	})
}
