// Package config owns where settings come from: flag > environment > etl.yaml >
// default. A setting is a flag of the command; its environment variable is ETL_
// and its name in capitals, and its key in the file is its name.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"

	"etl/internal/fault"
)

// DefaultFile is read if it exists and no other file is named.
const DefaultFile = "etl.yaml"

// Setting is one effective value and where it came from.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // "flag", "default", "environment ETL_STORE", "etl.yaml:3" …
}

// EnvName is the environment variable of a setting.
func EnvName(setting string) string {
	return "ETL_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// Load gives every flag of flags that is named in settings and was not set on
// the command line its value from the environment or the file, and returns the
// effective values in the order of settings. known are all the names that the
// file may hold: one file serves every command. file is the file's path, ""
// for DefaultFile if there is one.
func Load(flags *pflag.FlagSet, settings, known []string, getenv func(string) string, file string) ([]Setting, error) {
	values, path, err := readFile(file, known)
	if err != nil {
		return nil, err
	}
	var out []Setting
	for _, name := range settings {
		f := flags.Lookup(name)
		if f == nil {
			continue
		}
		s := Setting{Name: name, Origin: "default"}
		env := EnvName(name)
		switch v, ok := values[name]; {
		case f.Changed:
			s.Origin = "flag --" + name
		case getenv(env) != "":
			s.Origin = "environment " + env
			err = flags.Set(name, getenv(env))
		case ok:
			s.Origin = path
			err = flags.Set(name, v)
		}
		if err != nil {
			return nil, fault.Errorf(fault.Usage, "%s: %s: %w", s.Origin, name, cmp.Or(errors.Unwrap(err), err))
		}
		s.Value = f.Value.String()
		out = append(out, s)
	}
	return out, nil
}

// readFile reads the settings of the file; a default file may be absent.
func readFile(file string, known []string) (map[string]string, string, error) {
	path := cmp.Or(file, DefaultFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && file == "" {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fault.Hint(fault.Errorf(fault.Usage, "config file: %w", err), "--config FILE names it; without, %s in the current folder is read if there is one", DefaultFile)
	}
	var raw map[string]any
	if err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&raw); err != nil && len(bytes.TrimSpace(data)) > 0 {
		return nil, "", fault.Errorf(fault.Usage, "%s: %w", path, err)
	}
	values := make(map[string]string, len(raw))
	for k, v := range raw {
		if !slices.Contains(known, k) {
			return nil, "", fault.Hint(fault.Errorf(fault.Usage, "%s: unknown setting %q", path, k), "known settings: %s", strings.Join(known, ", "))
		}
		switch v.(type) {
		case map[string]any, []any, nil:
			return nil, "", fault.Errorf(fault.Usage, "%s: %s: want one value", path, k)
		}
		values[k] = fmt.Sprint(v)
	}
	return values, path, nil
}

// URL splits a source or store URL like sqlite:path or file:dir into its scheme
// and the rest.
func URL(setting, url string) (scheme, rest string, err error) {
	scheme, rest, ok := strings.Cut(url, ":")
	if !ok || rest == "" {
		return "", "", fault.Errorf(fault.Usage, "--%s %q: want a scheme and a place, like %s", setting, url, map[string]string{"source": "sqlite:d1.sqlite", "store": "file:archive"}[setting])
	}
	return scheme, rest, nil
}
