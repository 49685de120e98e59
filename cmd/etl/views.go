package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/internal/config"
	"etl/internal/fault"
	"etl/internal/object/s3"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/jobs"
	"etl/manifests"
)

func (a *app) views() *cobra.Command {
	var (
		p   places
		s   span
		sel jobs.Points
	)
	cmd := &cobra.Command{
		Use:   "views",
		Short: "Print SQL by which any DuckDB reads the cold tier: the same views, without etl",
		Long: `views prints SQL for a DuckDB of your own (the shell, Python, a notebook, a BI
tool): samples, latest, points, timeseries, v_latest_values, archive_files and
archive_days, as etl query has them. The month files are listed one by one as the
manifests name them, so nothing is globbed, and rows of days that are not archived
do not count. Rows that only the hot tier holds are not in them.

It is as of now: print it again after the next archive. Narrow it to the months
and points that you need, since DuckDB opens the footer of each file.`,
		Example: `  etl views --month 2024-02 > views.sql && duckdb -init views.sql
  etl views --from 2024-01-15 --to 2024-02-15 --points 'Building1.*'
  etl views --store r2://archive --last 90d --group ahu-1`,
	}
	p.addSource(cmd)
	p.addStore(cmd)
	s.add(cmd)
	addPoints(cmd, &sel)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if a.json {
			return fault.Errorf(fault.Usage, "views prints SQL: there is no --json")
		}
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		if sel.Group == "" {
			p.source, p.noSource = "", true // only groups need it
		}
		env, done, err := p.open(cmd.Context(), a, access{store: needed})
		if err != nil {
			return err
		}
		defer done()
		days, err := s.filter(env)
		if err != nil {
			return err
		}
		where, err := p.location()
		if err != nil {
			return err
		}
		v, err := loadViews(cmd.Context(), env, days, sel)
		if err != nil {
			return err
		}
		if err := v.check(where); err != nil {
			return err
		}
		w := bufio.NewWriter(a.stdout)
		v.print(w, where, p.clock()().UTC().Format("2006-01-02 15:04 UTC"))
		return w.Flush()
	}
	return cmd
}

// location is where a DuckDB of its own finds the objects of a store.
type location struct {
	name   string // of the store, for a comment
	prefix string // before each key, escaped as a file name
	local  bool   // patterns in names can be escaped
	secret string // SQL that gives it access, "" if none is needed
}

func (p *places) location() (location, error) {
	u, err := config.ParseStore(p.store)
	if err != nil {
		return location{}, err
	}
	if u.Kind == "file" {
		dir, err := filepath.Abs(u.Path)
		return location{name: p.store, local: true, prefix: globEscaper.Replace(filepath.ToSlash(dir)) + "/"}, err
	}
	if strings.ContainsAny(u.Prefix, "*?[") {
		return location{}, fault.Errorf(fault.Usage, "%s: DuckDB takes *, ? and [ in the names of objects for patterns", p.store)
	}
	l := location{name: p.store, prefix: u.Kind + "://" + u.Bucket + "/"}
	if u.Prefix != "" {
		l.prefix += u.Prefix + "/"
	}
	scope := quoteSQL(u.Kind + "://" + u.Bucket)
	const keys = "  KEY_ID 'ACCESS_KEY_ID', SECRET 'SECRET_ACCESS_KEY',  -- your own: reading is enough"
	switch {
	case u.Kind == "r2" && u.Endpoint == "" && u.Jurisdiction == "":
		l.secret = fmt.Sprintf("CREATE OR REPLACE SECRET etl (TYPE r2,\n%s\n  ACCOUNT_ID %s, SCOPE %s);", keys, quoteSQL(cmp.Or(p.account, "ACCOUNT_ID")), scope)
		return l, nil
	case u.Kind == "r2": // TYPE r2 knows only the common address
		l.prefix = "s3://" + strings.TrimPrefix(l.prefix, "r2://")
		scope = quoteSQL("s3://" + u.Bucket)
		u.Region = "auto"
		if u.Endpoint == "" {
			u.Endpoint = "https://ACCOUNT_ID." + u.Jurisdiction + ".r2.cloudflarestorage.com"
			if p.account != "" {
				if u.Endpoint, err = s3.R2Endpoint(p.account, u.Jurisdiction); err != nil {
					return location{}, fault.Wrap(fault.Usage, err)
				}
			}
		}
	}
	var more []string
	if region := cmp.Or(u.Region, p.region); region != "" {
		more = append(more, "REGION "+quoteSQL(region))
	}
	if u.Endpoint != "" {
		e, err := url.Parse(u.Endpoint)
		if err != nil {
			return location{}, fault.Wrap(fault.Usage, err)
		}
		more = append(more, "ENDPOINT "+quoteSQL(e.Host+strings.TrimSuffix(e.Path, "/")), fmt.Sprintf("USE_SSL %t", e.Scheme == "https"))
	}
	style := "vhost"
	if u.PathStyle {
		style = "path"
	}
	more = append(more, "URL_STYLE "+quoteSQL(style), "SCOPE "+scope)
	l.secret = fmt.Sprintf("CREATE OR REPLACE SECRET etl (TYPE s3,\n%s\n  %s);", keys, strings.Join(more, ", "))
	return l, nil
}

// globEscaper keeps DuckDB from taking a part of a path for a pattern.
var globEscaper = strings.NewReplacer("*", "[*]", "?", "[?]", "[", "[[]")

func quoteSQL(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// coldViews is what the views of a DuckDB of its own are made of.
type coldViews struct {
	months []*manifests.Manifest
	groups []fileGroup
	latest []fileGroup // of each point, the last one that holds samples
	files  int
	bytes  int64
}

// fileGroup is month files of which the same days count.
type fileGroup struct {
	runs  []utc.Days // nil if all days of the month do
	paths []string
}

// loadViews chooses the month files by the manifests.
func loadViews(ctx context.Context, env jobs.Env, days utc.Days, sel jobs.Points) (*coldViews, error) {
	v := &coldViews{}
	match := sel.Matcher()
	var ids []int32 // nil for all
	if sel.Group != "" {
		var err error
		if ids, err = env.Source.(source.Grouper).Group(ctx, sel.Group); err != nil {
			return nil, err
		}
		ids = append([]int32{}, ids...) // an empty group is not all
	}
	catalog, _, err := manifests.LoadPoints(ctx, env.Store)
	if err != nil {
		return nil, err
	}
	names := make(map[int32]string) // a point may have had another name when its file was written
	for _, p := range catalog.Points {
		names[p.ID] = p.Name
	}
	months, err := manifests.Months(ctx, env.Store)
	if err != nil {
		return nil, err
	}
	type chosen struct {
		month utc.Month
		set   utc.Set
		path  string
	}
	var all []chosen
	last := make(map[int32]chosen)
	for _, month := range months {
		if days != (utc.Days{}) && days.Intersect(month.Days()).Empty() {
			continue
		}
		m, _, err := manifests.Load(ctx, env.Store, month)
		if err != nil {
			return nil, err
		}
		v.months = append(v.months, m)
		for _, e := range m.Points {
			if ids != nil && !slices.Contains(ids, e.ID) || !match(cmp.Or(names[e.ID], e.Name)) || e.Path == "" {
				continue
			}
			set, samples := e.Days.Archived(), 0
			for i := range month.Len() {
				if days != (utc.Days{}) && !days.Contains(month.First()+utc.Day(i)) {
					set &^= 1 << i
				} else {
					samples += max(0, int(e.Days[i]))
				}
			}
			if set == 0 {
				continue
			}
			c := chosen{month, set, string(e.Path)}
			all = append(all, c)
			if samples > 0 {
				last[e.ID] = c // months ascend
			}
			v.files++
			v.bytes += e.Bytes
		}
	}
	if len(all) == 0 {
		if err := sel.Known(ctx, env); err != nil {
			return nil, err
		}
	}
	group := func(cs []chosen) (groups []fileGroup) {
		at := make(map[chosen]int)
		for _, c := range cs {
			key := chosen{month: c.month, set: c.set}
			i, ok := at[key]
			if !ok {
				i = len(groups)
				at[key] = i
				g := fileGroup{}
				if c.set.Len() < c.month.Len() {
					g.runs = c.set.Runs(c.month)
				}
				groups = append(groups, g)
			}
			groups[i].paths = append(groups[i].paths, c.path)
		}
		return groups
	}
	v.groups = group(all)
	var latest []chosen
	for _, id := range slices.Sorted(maps.Keys(last)) {
		latest = append(latest, last[id])
	}
	v.latest = group(latest)
	return v, nil
}

// check refuses what DuckDB would take for a pattern of the names of objects: it
// would read others, and there is no way to say that it is none.
func (v *coldViews) check(where location) error {
	for _, g := range v.groups {
		for _, path := range g.paths {
			if !where.local && strings.ContainsAny(path, "*?[") {
				return fault.Hint(fault.Errorf(fault.Invalid, "%s: DuckDB takes *, ? and [ in the names of objects for patterns", path),
					"`etl query` reads it; or leave that point out with --points")
			}
		}
	}
	return nil
}

// print writes the SQL.
func (v *coldViews) print(w io.Writer, where location, now string) {
	// A comment ends with its line, so a name in one must not hold a line break.
	fmt.Fprintf(w, "-- The cold tier %s as of %s: %s month files, %s.\n", printableLine(where.name), now, comma(int64(v.files)), humanize.IBytes(uint64(v.bytes)))
	fmt.Fprintln(w, `-- Made by etl views from the manifests; run it again after the next archive. Rows
-- that only the hot tier (D1) holds, point_groups and archive_state are not in it:
-- etl query has them all. Times are UTC: ts is a TIMESTAMP without a zone.
-- Commits:`)
	for _, m := range v.months {
		fmt.Fprintf(w, "--   %s %s\n", m.Month, printableLine(m.Commit))
	}
	if where.secret != "" {
		fmt.Fprintf(w, "\nINSTALL httpfs;\nLOAD httpfs;\n%s\n", where.secret)
	}
	object := func(key string) string {
		if where.local {
			key = globEscaper.Replace(key)
		}
		return quoteSQL(where.prefix + key)
	}
	list := func(keys []string) string {
		quoted := make([]string, len(keys))
		for i, k := range keys {
			quoted[i] = object(k)
		}
		return "[\n  " + strings.Join(quoted, ",\n  ") + "]"
	}

	fmt.Fprintf(w, `
CREATE OR REPLACE VIEW points AS
SELECT id AS point_id, id, name, site, system, equipment, unit, interval_ms, min_value, max_value, created_at, retired_at
FROM (SELECT unnest(points, recursive := true) FROM read_json(%s, format = 'unstructured', maximum_object_size = 1073741824,
  columns = {points: 'STRUCT(id INTEGER, name VARCHAR, site VARCHAR, system VARCHAR, equipment VARCHAR, unit VARCHAR, interval_ms BIGINT, min_value DOUBLE, max_value DOUBLE, created_at BIGINT, retired_at BIGINT)[]'}));
`, object(string(manifests.PointsKey)))

	var keys []string
	for _, m := range v.months {
		keys = append(keys, string(manifests.KeyOf(m.Month)))
	}
	entries := `(SELECT NULL::VARCHAR AS month, NULL::STRUCT(id INTEGER, name VARCHAR, path VARCHAR, bytes BIGINT, etag VARCHAR, sha256 VARCHAR, rows_sha256 VARCHAR, samples BIGINT, "first" BIGINT, "last" BIGINT, days INTEGER[]) AS e WHERE false)`
	if len(keys) > 0 {
		entries = `(SELECT month, unnest(points) AS e FROM read_json(` + list(keys) + `, format = 'unstructured', maximum_object_size = 1073741824,
  columns = {month: 'VARCHAR', points: 'STRUCT(id INTEGER, name VARCHAR, path VARCHAR, bytes BIGINT, etag VARCHAR, sha256 VARCHAR, rows_sha256 VARCHAR, samples BIGINT, "first" BIGINT, "last" BIGINT, days INTEGER[])[]'}))`
	}
	fmt.Fprintf(w, `
CREATE OR REPLACE VIEW archive_files AS
SELECT m.month, m.e.id AS point_id, coalesce(p.name, m.e.name) AS point_name, m.e.path AS path, m.e.bytes AS bytes, m.e.etag AS etag, m.e.sha256 AS sha256,
  m.e.rows_sha256 AS rows_sha256, m.e.samples AS samples, epoch_ms(m.e."first") AS first_ts, epoch_ms(m.e."last") AS last_ts
FROM %[1]s m LEFT JOIN points p ON p.point_id = m.e.id
WHERE m.e.path <> '';

CREATE OR REPLACE VIEW archive_days AS
SELECT d.point_id, coalesce(p.name, d.name) AS point_name, d.start + CAST(d.i - 1 AS INTEGER) AS day, d.samples
FROM (SELECT e.id AS point_id, e.name AS name, CAST(month || '-01' AS DATE) AS start, unnest(e.days) AS samples, generate_subscripts(e.days, 1) AS i
  FROM %[1]s) d
LEFT JOIN points p ON p.point_id = d.point_id;
`, entries)

	rows := func(groups []fileGroup) string {
		const columns = "SELECT point_id, timestamp, value, quality, flags FROM "
		var b strings.Builder
		if len(groups) == 0 {
			b.WriteString("SELECT NULL::INTEGER AS point_id, NULL::TIMESTAMPTZ AS timestamp, NULL::DOUBLE AS value, NULL::INTEGER AS quality, NULL::INTEGER AS flags WHERE false")
		}
		for i, g := range groups {
			if i > 0 {
				b.WriteString("\nUNION ALL\n")
			}
			b.WriteString(columns + "read_parquet(" + list(g.paths) + ")")
			for j, r := range g.runs {
				word := "WHERE"
				if j > 0 {
					word = "   OR"
				}
				fmt.Fprintf(&b, "\n%s (timestamp >= TIMESTAMPTZ '%s 00:00:00+00' AND timestamp < TIMESTAMPTZ '%s 00:00:00+00')", word, r.From, r.To)
			}
		}
		return b.String()
	}
	const head = "SELECT r.point_id, p.name AS point_name, make_timestamp(epoch_us(r.timestamp)) AS ts, epoch_ms(r.timestamp) AS timestamp, r.value, r.quality, r.flags, 'cold' AS tier"
	fmt.Fprintf(w, "\nCREATE OR REPLACE VIEW samples AS\n%s\nFROM (\n%s\n) r LEFT JOIN points p ON p.point_id = r.point_id;\n", head, rows(v.groups))
	fmt.Fprintf(w, "\n-- The last file of each point is enough.\nCREATE OR REPLACE VIEW latest AS\n%s\nFROM (\n%s\n) r LEFT JOIN points p ON p.point_id = r.point_id\nQUALIFY row_number() OVER (PARTITION BY r.point_id ORDER BY r.timestamp DESC) = 1;\n", head, rows(v.latest))
	fmt.Fprint(w, `
CREATE OR REPLACE VIEW timeseries AS SELECT point_id, timestamp, value, quality, flags FROM samples;
CREATE OR REPLACE VIEW v_latest_values AS SELECT point_id, timestamp, value, quality, flags FROM latest;
`)
}
