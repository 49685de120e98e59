package jobs

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/manifests"
)

// Points chooses points by name. The zero value chooses all.
type Points struct {
	// Globs are patterns of names: * is any text, ? any one character. A point
	// is chosen if one of them matches its whole name.
	Globs []string
	// Group is the name of a group in point_groups; with Globs, both must hold.
	Group string
}

// All reports whether every point is chosen.
func (p Points) All() bool { return len(p.Globs) == 0 && p.Group == "" }

// glob compiles a pattern; only * and ? are special.
func glob(pattern string) *regexp.Regexp {
	q := regexp.QuoteMeta(pattern)
	q = strings.ReplaceAll(strings.ReplaceAll(q, `\*`, `.*`), `\?`, `.`)
	return regexp.MustCompile(`(?s)^` + q + `$`)
}

// Matcher returns what reports whether one of the globs matches a name, or
// there are none.
func (p Points) Matcher() func(name string) bool {
	var res []*regexp.Regexp
	for _, g := range p.Globs {
		res = append(res, glob(g))
	}
	return func(name string) bool {
		return len(res) == 0 || slices.ContainsFunc(res, func(re *regexp.Regexp) bool { return re.MatchString(name) })
	}
}

// Known is the Usage error of a choice of which neither the catalog of the cold tier,
// nor Env.Source where there is one, knows a point. Jobs that go by the names in
// manifests, where a point may have one that it has no more, call it when no manifest
// named a chosen point. Group is not looked at.
func (p Points) Known(ctx context.Context, env Env) error {
	if len(p.Globs) == 0 {
		return nil
	}
	names := make(map[int32]string)
	catalog, _, err := manifests.LoadPoints(ctx, env.Store)
	switch {
	case err == nil:
		for _, pt := range catalog.Points {
			names[pt.ID] = pt.Name
		}
	case !fault.Is(err, fault.Corrupt) && !fault.Is(err, fault.Invalid): // what is damaged names none
		return err
	}
	if env.Source != nil {
		all, _, err := env.Source.Points(ctx)
		if err != nil {
			return err
		}
		for _, pt := range all {
			if pt.Name != "" {
				names[pt.ID] = pt.Name
			}
		}
	}
	var all []sample.Point
	for id, name := range names {
		all = append(all, sample.Point{ID: id, Name: name})
	}
	_, err = Points{Globs: p.Globs}.filter(ctx, nil, all)
	return err
}

// filter returns the chosen ones of all points, in their order. Choosing none
// is a Usage error.
func (p Points) filter(ctx context.Context, src source.Source, all []sample.Point) ([]sample.Point, error) {
	if p.All() {
		return all, nil
	}
	var group map[int32]bool
	if p.Group != "" {
		g, ok := src.(source.Grouper)
		if !ok {
			return nil, fault.Errorf(fault.Usage, "--group %s: this source has no groups", p.Group)
		}
		ids, err := g.Group(ctx, p.Group)
		if fault.Is(err, fault.NotExist) {
			return nil, fault.Wrap(fault.Usage, err)
		}
		if err != nil {
			return nil, err
		}
		group = make(map[int32]bool, len(ids))
		for _, id := range ids {
			group[id] = true
		}
	}
	match := p.Matcher()
	var chosen []sample.Point
	for _, pt := range all {
		if match(pt.Name) && (group == nil || group[pt.ID]) {
			chosen = append(chosen, pt)
		}
	}
	if len(chosen) == 0 {
		var what []string
		for _, g := range p.Globs {
			what = append(what, fmt.Sprintf("--points %q", g))
		}
		if p.Group != "" {
			what = append(what, fmt.Sprintf("--group %q", p.Group))
		}
		return nil, fault.Hint(fault.Errorf(fault.Usage, "%s: no point of %d matches", strings.Join(what, " "), len(all)),
			"`etl points` lists the names; * stands for any text, and the whole name must match")
	}
	return chosen, nil
}
