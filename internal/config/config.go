// Package config owns where settings come from: flag > environment > etl.yaml >
// wrangler file > default. A setting is a flag of the command, except for
// secrets, which a list of processes would show; its environment variable is
// ETL_ and its name in capitals, and its key in the file is its name. A wrangler
// file (wrangler.jsonc, wrangler.toml) gives the source, the store and the account
// by a Worker's own bindings.
//
// It also owns the form of the URLs of sources and stores (place.go). It opens
// nothing but these files, and refuses what it does not know: keys, parameters,
// names, empty values.
package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"etl/internal/fault"
	"etl/internal/secret"
)

// DefaultFile is read if it exists and no other file is named.
const DefaultFile = "etl.yaml"

// Setting declares a setting.
type Setting struct {
	Name string
	// Env are environment variables that count after the setting's own, the
	// first that is set wins. They are what other tools call the same thing.
	Env []string
	// Secret is never a flag of the command line, and is shown redacted.
	Secret bool
}

// Variables are the environment variables of the setting, its own first.
func (s Setting) Variables() []string {
	own := "ETL_" + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	return append([]string{own}, s.Env...)
}

// The settings that a wrangler file gives, and those that say which part of it.
const (
	sourceName    = "source"
	storeName     = "store"
	accountName   = "account-id"
	wranglerName  = "wrangler"
	envName       = "env"
	d1BindingName = "d1-binding"
	r2BindingName = "r2-binding"
	localName     = "local"
)

// Value is the effective value of a setting.
type Value struct {
	Name      string   `json:"name"`
	Value     string   `json:"value"`  // a secret's is redacted
	Origin    string   `json:"origin"` // "flag --store", "environment ETL_STORE", "etl.yaml:3", "wrangler.jsonc: d1_databases[0]", "default" …
	Variables []string `json:"environment"`
	// Problem says why a wrangler file that was named gives no value: of kind
	// NotExist if it has none, of kind Usage if it has to be mended or a
	// choice is to be made. It matters only to who needs the value.
	Problem error `json:"-"`
}

// Config is what Load found.
type Config struct {
	Values   []Value // in the order of the settings
	Warnings []string
}

// Value returns the value of a setting that the command has, else the zero value.
func (c *Config) Value(name string) Value {
	for _, v := range c.Values {
		if v.Name == name {
			return v
		}
	}
	return Value{}
}

// Shown are the values as people may see them: a URL without the password that
// somebody has written into it, and no secret in the place of something else.
func (c *Config) Shown(secrets *secret.Set) []Value {
	shown := slices.Clone(c.Values)
	for i, v := range shown {
		if v.Origin != "default" {
			shown[i].Value = secrets.Clean(v.Value)
		}
	}
	return shown
}

// Secrets are the values of all secrets that the environment and the file set,
// whether a command asks for them or not: what no message may hold. Of a file that
// can not be read there are none.
func Secrets(settings []Setting, getenv func(string) string, file string) []string {
	written, _ := (&Config{}).readFile(file, settings)
	var all []string
	for _, s := range settings {
		if !s.Secret {
			continue
		}
		for _, name := range s.Variables() {
			all = append(all, strings.TrimSpace(getenv(name)))
		}
		all = append(all, written[s.Name].value)
	}
	return all
}

// layer is how strong the origin of a value is.
type layer int

const (
	byDefault layer = iota
	byWrangler
	byFile
	byForeignEnv // a variable that other tools read too
	byEnv
	byFlag
)

// Load gives each of settings that is in flags and was not set on the command
// line its value from the environment or a file. settings are all that there
// are: one file serves every command. flags holds secrets too, which are no flags
// of the command line. file is the file's path, "" for DefaultFile if there is one.
// Every error is of kind Usage and names the place to mend.
func Load(flags *pflag.FlagSet, settings []Setting, getenv func(string) string, file string) (*Config, error) {
	c := &Config{}
	written, err := c.readFile(file, settings)
	if err != nil {
		return nil, err
	}
	layers := make(map[string]layer)
	for _, s := range settings {
		f := flags.Lookup(s.Name)
		if f == nil {
			continue
		}
		v := Value{Name: s.Name, Origin: "default", Variables: s.Variables()}
		set := func(text string, l layer) error {
			layers[s.Name] = l
			if err := setFlag(f, strings.TrimSpace(text)); err != nil {
				return fault.Errorf(fault.Usage, "%s: %s: %w", v.Origin, s.Name, err)
			}
			return nil
		}
		if f.Changed {
			v.Origin, layers[s.Name] = "flag --"+s.Name, byFlag
			if f.Value.String() == "" {
				return nil, fault.Errorf(fault.Usage, "flag --%s: want a value", s.Name)
			}
		} else if i := slices.IndexFunc(v.Variables, func(name string) bool { return getenv(name) != "" }); i >= 0 {
			v.Origin = "environment " + v.Variables[i]
			l := byEnv
			if i > 0 {
				l = byForeignEnv
			}
			err = set(getenv(v.Variables[i]), l)
		} else if e, ok := written[s.Name]; ok {
			v.Origin = e.at
			err = set(e.value, byFile)
		}
		if err != nil {
			return nil, err
		}
		v.Value = f.Value.String()
		if s.Secret {
			v.Value = Redact(v.Value)
		}
		c.Values = append(c.Values, v)
	}
	if err := c.fromWrangler(flags, layers); err != nil {
		return nil, err
	}
	return c, nil
}

// setFlag sets a flag and says of a boolean what it wants.
func setFlag(f *pflag.Flag, text string) error {
	if text == "" {
		return errors.New("want a value")
	}
	err := f.Value.Set(text)
	if err != nil && f.Value.Type() == "bool" {
		return fmt.Errorf("want true or false, got %q", text)
	}
	return err
}

// fromWrangler gives what no stronger origin has set from the wrangler file.
func (c *Config) fromWrangler(flags *pflag.FlagSet, layers map[string]layer) error {
	path := c.Value(wranglerName).Value
	pick := Pick{Env: c.Value(envName).Value, D1: c.Value(d1BindingName).Value, R2: c.Value(r2BindingName).Value}
	pick.Local, _ = strconv.ParseBool(c.Value(localName).Value)

	// A choice that nothing comes of is a mistake: most likely another place is
	// worked on than the one that was meant.
	for _, choice := range []struct {
		name, of string // of: the one setting that it chooses, if it is only one
		made     bool
	}{{envName, "", pick.Env != ""}, {d1BindingName, sourceName, pick.D1 != ""}, {r2BindingName, storeName, pick.R2 != ""}, {localName, sourceName, pick.Local}} {
		switch l := layers[choice.name]; {
		case !choice.made || l == byForeignEnv:
		case path == "":
			return fault.Hint(fault.Errorf(fault.Usage, "%s (%s) chooses within a wrangler file, and none is named", choice.name, c.Value(choice.name).Origin),
				"give --wrangler wrangler.jsonc, or set ETL_WRANGLER")
		case choice.of != "" && layers[choice.of] > byDefault && layers[choice.of] <= l:
			return fault.Hint(fault.Errorf(fault.Usage, "%s (%s) chooses the %s of %s, but it is set already (%s)", choice.name, c.Value(choice.name).Origin, choice.of, path, c.Value(choice.of).Origin),
				"a %s that is set comes before the wrangler file: give one of both", choice.of)
		}
	}
	if path == "" {
		return nil
	}
	w, err := ReadWrangler(path)
	if err != nil {
		return err
	}
	if err := w.CheckEnv(pick.Env); err != nil {
		return err
	}
	for i := range c.Values {
		v := &c.Values[i]
		get, ok := map[string]func(Pick) (string, string, error){sourceName: w.Source, storeName: w.Store, accountName: w.Account}[v.Name]
		if !ok || layers[v.Name] > byDefault {
			continue
		}
		f := flags.Lookup(v.Name)
		text, at, err := get(pick)
		switch {
		case err != nil:
			v.Problem = err
		case text != "":
			if err := setFlag(f, text); err != nil {
				return fault.Errorf(fault.Usage, "%s: %w", at, err)
			}
			v.Value, v.Origin = f.Value.String(), at
		}
	}
	return nil
}

// Redact shows that a secret is set, and of a long one its last four characters.
func Redact(secret string) string {
	switch {
	case secret == "":
		return ""
	case len(secret) < 24: // four characters of less would tell too much
		return "set"
	}
	return "set, ends in …" + secret[len(secret)-4:]
}
