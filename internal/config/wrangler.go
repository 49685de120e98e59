package config

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/tailscale/hujson"

	"etl/internal/fault"
)

// Wrangler is the part of a wrangler file that says where a Worker's databases
// and buckets are: wrangler.jsonc, wrangler.json or wrangler.toml.
//
// https://developers.cloudflare.com/workers/wrangler/configuration/
type Wrangler struct {
	path string
	top  wranglerEnv
	envs map[string]wranglerEnv
}

// wranglerEnv is what stands at the top level or below env.NAME. Bindings are not
// inherited by an environment, the account is.
type wranglerEnv struct {
	AccountID string       `json:"account_id" toml:"account_id"`
	D1        []d1Database `json:"d1_databases" toml:"d1_databases"`
	R2        []r2Bucket   `json:"r2_buckets" toml:"r2_buckets"`
}

type d1Database struct {
	Binding   string `json:"binding" toml:"binding"`
	Name      string `json:"database_name" toml:"database_name"`
	ID        string `json:"database_id" toml:"database_id"`
	PreviewID string `json:"preview_database_id" toml:"preview_database_id"`
}

type r2Bucket struct {
	Binding      string `json:"binding" toml:"binding"`
	Name         string `json:"bucket_name" toml:"bucket_name"`
	Jurisdiction string `json:"jurisdiction" toml:"jurisdiction"`
}

// Pick chooses within a wrangler file.
type Pick struct {
	Env    string // an environment, "" for the top level
	D1, R2 string // names of bindings, "" where there is one only
	Local  bool   // the source is wrangler's local state, not the database itself
}

// ReadWrangler reads a wrangler file. Errors are of kind Usage and name the
// file and the position.
func ReadWrangler(path string) (*Wrangler, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "wrangler file: %w", err), "--wrangler names a wrangler.jsonc, wrangler.json or wrangler.toml")
	}
	return parseWrangler(path, data)
}

func parseWrangler(path string, data []byte) (*Wrangler, error) {
	var f struct {
		wranglerEnv
		Env map[string]wranglerEnv `json:"env" toml:"env"`
	}
	data = bytes.TrimPrefix(data, []byte(bom))
	var err error
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".json", ".jsonc":
		err = decodeJSONC(data, &f)
	case ".toml":
		err = toml.Unmarshal(data, &f)
		if e, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, column := e.Position()
			err = fmt.Errorf("line %d, column %d: %s", line, column, strings.TrimPrefix(e.Error(), "toml: "))
		}
	default:
		return nil, fault.Errorf(fault.Usage, "wrangler file %s: want a name that ends in .jsonc, .json or .toml", path)
	}
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "%s: %w", path, err)
	}
	return &Wrangler{path: path, top: f.wranglerEnv, envs: f.Env}, nil
}

// decodeJSONC decodes JSON with comments and trailing commas.
func decodeJSONC(data []byte, to any) error {
	v, err := hujson.Parse(data)
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "hujson: "))
	}
	v.Standardize() // comments become blanks, so that offsets stay
	plain := v.Pack()
	err = json.Unmarshal(plain, to)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		before := plain[:min(max(e.Offset, 0), int64(len(plain)))]
		line, column := 1+bytes.Count(before, []byte("\n")), len(before)-bytes.LastIndexByte(before, '\n')-1
		return fmt.Errorf("line %d, column %d: %s: got a JSON %s", line, column, cmp.Or(strings.TrimPrefix(e.Field, "wranglerEnv."), "the file"), e.Value)
	}
	return err
}

// CheckEnv returns a Usage error unless there is such an environment.
func (w *Wrangler) CheckEnv(env string) error {
	if _, ok := w.envs[env]; ok || env == "" {
		return nil
	}
	hint := "it has no environments: leave --env out"
	if len(w.envs) > 0 {
		hint = "it has: " + strings.Join(w.envNames(func(wranglerEnv) bool { return true }), ", ")
	}
	return fault.Hint(fault.Errorf(fault.Usage, "%s has no environment %q", w.path, env), "%s", hint)
}

// envNames are the names of the environments that match, sorted.
func (w *Wrangler) envNames(match func(wranglerEnv) bool) []string {
	var names []string
	for name, e := range w.envs {
		if match(e) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (w *Wrangler) env(name string) wranglerEnv {
	if name == "" {
		return w.top
	}
	return w.envs[name]
}

// Account is the account id, "" if the file does not say it, and where it stands.
func (w *Wrangler) Account(p Pick) (id, at string, err error) {
	if id := w.env(p.Env).AccountID; id != "" && p.Env != "" {
		return id, w.at("account_id", p.Env), nil
	}
	return w.top.AccountID, w.at("account_id", ""), nil
}

// Source is the URL of the D1 database that p picks, and where it stands. An
// error is of kind NotExist if there is none.
func (w *Wrangler) Source(p Pick) (url, at string, err error) {
	e := w.env(p.Env)
	i, err := w.choose(p.Env, choice{
		list: "d1_databases", flag: "--d1-binding", binding: p.D1,
		names:  bindings(e.D1, func(d d1Database) (string, string) { return d.Binding, d.Name }),
		others: func(o wranglerEnv) bool { return len(o.D1) > 0 },
	})
	if err != nil {
		return "", "", err
	}
	d := e.D1[i]
	at = w.at(fmt.Sprintf("d1_databases[%d]", i), p.Env)
	if p.Local {
		file, err := w.localD1(d, at)
		return "sqlite:" + file, at + ", local state", err
	}
	if d.ID == "" {
		return "", "", fault.Hint(fault.Errorf(fault.Usage, "%s (binding %s) has no database_id: wrangler makes the database at the first deploy", at, d.Binding),
			"`wrangler d1 info %s` shows the id; write it there as database_id, or give --source d1://ID", cmp.Or(d.Name, d.Binding))
	}
	if !uuid.MatchString(d.ID) {
		return "", "", fault.Hint(fault.Errorf(fault.Usage, "%s: database_id %q is no D1 database id", at, d.ID), "%s", idHint(cmp.Or(d.Name, d.Binding)))
	}
	return "d1://" + d.ID, at, nil
}

// Store is the URL of the R2 bucket that p picks, and where it stands. An error
// is of kind NotExist if there is none.
func (w *Wrangler) Store(p Pick) (place, at string, err error) {
	e := w.env(p.Env)
	i, err := w.choose(p.Env, choice{
		list: "r2_buckets", flag: "--r2-binding", binding: p.R2,
		names:  bindings(e.R2, func(b r2Bucket) (string, string) { return b.Binding, b.Name }),
		others: func(o wranglerEnv) bool { return len(o.R2) > 0 },
	})
	if err != nil {
		return "", "", err
	}
	b := e.R2[i]
	at = w.at(fmt.Sprintf("r2_buckets[%d]", i), p.Env)
	if p.Local {
		return "", "", fault.Hint(fault.Errorf(fault.NotExist, "%s: wrangler's local state of R2 speaks no S3", at),
			"--local is for the source only: give --store file:DIR (or another store) with it")
	}
	if b.Name == "" {
		return "", "", fault.Hint(fault.Errorf(fault.Usage, "%s (binding %s) has no bucket_name: wrangler makes the bucket at the first deploy", at, b.Binding),
			"`wrangler r2 bucket list` shows it; write it there as bucket_name, or give --store r2://BUCKET")
	}
	place = "r2://" + b.Name
	if b.Jurisdiction != "" {
		place += "?jurisdiction=" + url.QueryEscape(b.Jurisdiction)
	}
	if _, err := ParseStore(place); err != nil {
		return "", "", fault.Errorf(fault.Usage, "%s: %w", at, err)
	}
	return place, at, nil
}

// at says where something stands: "wrangler.jsonc: d1_databases[0] (env production)".
func (w *Wrangler) at(what, env string) string {
	if env != "" {
		return fmt.Sprintf("%s: %s (env %s)", w.path, what, env)
	}
	return fmt.Sprintf("%s: %s", w.path, what)
}

// named is a binding and the name of what it is bound to.
type named struct{ binding, name string }

func bindings[T any](list []T, of func(T) (string, string)) []named {
	var out []named
	for _, x := range list {
		binding, name := of(x)
		out = append(out, named{binding, name})
	}
	return out
}

// choice is the choice of one binding of a kind.
type choice struct {
	list, flag string
	binding    string // the one that is asked for, "" for the only one
	names      []named
	others     func(wranglerEnv) bool // whether an environment has bindings of the kind
}

func (w *Wrangler) choose(env string, c choice) (int, error) {
	if len(c.names) == 0 {
		err := fault.Errorf(fault.NotExist, "%s has no %s", w.path, c.list)
		if env != "" {
			err = fault.Errorf(fault.NotExist, "%s has no %s in env.%s: environments inherit no bindings", w.path, c.list, env)
		} else if envs := w.envNames(c.others); len(envs) > 0 {
			return 0, fault.Hint(fault.Errorf(fault.NotExist, "%s has no %s at its top level", w.path, c.list),
				"its environments have: --env %s", strings.Join(envs, " or --env "))
		}
		return 0, fault.Hint(err, "bind one there, or give --source and --store")
	}
	var list []string
	for i, n := range c.names {
		if c.binding != "" && n.binding == c.binding {
			return i, nil
		}
		list = append(list, fmt.Sprintf("%s %s (%s)", c.flag, n.binding, cmp.Or(n.name, "no name")))
	}
	switch {
	case c.binding != "":
		return 0, fault.Hint(fault.Errorf(fault.Usage, "%s: none has the binding %q", w.at(c.list, env), c.binding), "there are %s", strings.Join(list, ", "))
	case len(list) > 1:
		return 0, fault.Hint(fault.Errorf(fault.Usage, "%s: which of the %d?", w.at(c.list, env), len(list)), "choose with %s", strings.Join(list, " or "))
	}
	return 0, nil
}

// localState is where wrangler keeps local D1 databases, beside its file.
const localState = ".wrangler/state/v3/d1/miniflare-D1DatabaseObject"

// localD1 is the SQLite file of wrangler's local state of a database.
func (w *Wrangler) localD1(d d1Database, at string) (string, error) {
	dir := filepath.Join(filepath.Dir(w.path), filepath.FromSlash(localState))
	file := filepath.Join(dir, stateFile(cmp.Or(d.PreviewID, d.ID, d.Binding)))
	_, err := os.Stat(file)
	if err == nil {
		return file, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fault.Errorf(fault.Usage, "%s: %w", at, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fault.Errorf(fault.Usage, "%s: %w", at, err)
	}
	var found []string
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".sqlite") && name != "metadata.sqlite" {
			found = append(found, filepath.Join(dir, name))
		}
	}
	declared := len(w.top.D1)
	for _, e := range w.envs {
		declared += len(e.D1)
	}
	switch {
	case len(found) == 1 && declared == 1:
		// The only database and the only file: it is the one, should the rule
		// of the names be another one in that version of wrangler.
		return found[0], nil
	case len(found) == 0:
		return "", fault.Hint(fault.Errorf(fault.Usage, "%s has no local state in %s", at, dir),
			"`wrangler dev`, or `wrangler d1 execute %s --local --command 'SELECT 1'` in that folder, makes it", cmp.Or(d.Name, d.Binding))
	}
	return "", fault.Hint(fault.Errorf(fault.Usage, "%s has no local state: there is no %s", at, file),
		"there are other databases, give the right one: --source sqlite:%s", strings.Join(found, " or --source sqlite:"))
}

// stateFile is the name of the file of a local database: workerd's id of a
// Durable Object of that name, as miniflare computes it
// (durableObjectNamespaceIdFromName; wrangler 4.86 and 4.164, miniflare 4).
func stateFile(database string) string {
	key := sha256.Sum256([]byte("miniflare-D1DatabaseObject"))
	mac := func(data []byte) []byte {
		h := hmac.New(sha256.New, key[:])
		h.Write(data)
		return h.Sum(nil)[:16]
	}
	id := mac([]byte(database))
	return hex.EncodeToString(append(id, mac(id)...)) + ".sqlite"
}

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// idHint says where the id of a database is found.
func idHint(name string) string {
	return fmt.Sprintf("it is a UUID: `wrangler d1 info %s` shows it, and so does the dashboard", name)
}
