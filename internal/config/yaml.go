package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"etl/internal/fault"
)

// entry is one line of the settings file.
type entry struct{ value, at string }

// readFile reads the settings file; a default file may be absent. It warns of a
// file with secrets that others can read.
func (c *Config) readFile(file string, settings []Setting) (map[string]entry, error) {
	path := cmp.Or(file, DefaultFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && file == "" {
		return nil, nil
	}
	var data []byte
	var mode fs.FileMode
	if err == nil {
		defer f.Close()
		if st, serr := f.Stat(); serr == nil {
			mode = st.Mode()
		}
		data, err = io.ReadAll(f)
	}
	if err != nil {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "config file: %w", err), "--config FILE names it; without, %s in the current folder is read if there is one", DefaultFile)
	}
	written, err := parseYAML(path, data, settings)
	if err != nil {
		return nil, err
	}
	for _, s := range settings {
		if e, ok := written[s.Name]; ok && s.Secret && mode.Perm()&0o077 != 0 {
			c.Warnings = append(c.Warnings, fmt.Sprintf("%s holds the secret %s and others may read the file: chmod 600 %s", e.at, s.Name, path))
		}
	}
	return written, nil
}

// parseYAML takes one mapping of settings to single values. A value counts as it
// is written: a key id of digits is no number.
func parseYAML(path string, data []byte, settings []Setting) (map[string]entry, error) {
	bad := func(n ast.Node, format string, a ...any) error {
		line := 1
		if t := n.GetToken(); t != nil && t.Position != nil {
			line = t.Position.Line
		}
		return fault.Errorf(fault.Usage, "%s:%d: %w", path, line, fmt.Errorf(format, a...))
	}
	doc, err := parser.ParseBytes(bytes.TrimPrefix(data, []byte(bom)), 0)
	if err != nil {
		if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil && e.GetToken().Position != nil {
			return nil, fault.Errorf(fault.Usage, "%s:%d: %s", path, e.GetToken().Position.Line, e.GetMessage())
		}
		return nil, fault.Errorf(fault.Usage, "%s: %w", path, err)
	}
	values := make(map[string]entry)
	for i, d := range doc.Docs {
		if d.Body == nil || d.Body.Type() == ast.CommentType {
			continue
		}
		if i > 0 {
			return nil, bad(d.Body, "want one document")
		}
		m, ok := d.Body.(*ast.MappingNode)
		if !ok {
			return nil, bad(d.Body, "want lines like `store: file:archive`")
		}
		for _, pair := range m.Values {
			name, ok := scalar(pair.Key)
			if !ok || !slices.ContainsFunc(settings, func(s Setting) bool { return s.Name == name }) {
				return nil, fault.Hint(bad(pair.Key, "unknown setting %q", strings.TrimSpace(pair.Key.String())), "known settings: %s", strings.Join(names(settings), ", "))
			}
			value, ok := scalar(pair.Value)
			switch {
			case !ok:
				return nil, bad(pair.Key, "%s: want one value", name)
			case strings.TrimSpace(value) == "":
				return nil, bad(pair.Key, "%s: want a value", name)
			}
			values[name] = entry{value, fmt.Sprintf("%s:%d", path, pair.Key.GetToken().Position.Line)}
		}
	}
	return values, nil
}

// scalar is the text of a node that is one value, "" for none.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode: // a block of text
		return n.Value.Value, true
	case *ast.NullNode:
		return "", true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func names(settings []Setting) []string {
	var out []string
	for _, s := range settings {
		out = append(out, s.Name)
	}
	return out
}

// bom is the mark that some editors put before UTF-8.
const bom = "\uFEFF"
