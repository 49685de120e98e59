package lake

import (
	"context"
	"fmt"
	"strings"
)

// schema makes what DuckDB holds itself: schema lake for the tables that are
// filled from Go, and the views over them that never change.
const schema = `
CREATE SCHEMA lake;
CREATE TABLE lake.points (point_id INTEGER, point_name VARCHAR, id INTEGER, name VARCHAR,
	site VARCHAR, system VARCHAR, equipment VARCHAR, unit VARCHAR, interval_ms BIGINT,
	min_value DOUBLE, max_value DOUBLE, created_at BIGINT, retired_at BIGINT);
CREATE TABLE lake.groups (name VARCHAR, point_id INTEGER);
CREATE TABLE lake.catalog (month VARCHAR, point_id INTEGER, point_name VARCHAR, file BOOLEAN,
	bytes BIGINT, samples BIGINT, last BIGINT, archived UINTEGER, t_min TIMESTAMP, t_max TIMESTAMP);
CREATE VIEW points AS SELECT * EXCLUDE (point_name) FROM lake.points; -- so that samples JOIN points USING (point_id) has one point_name
CREATE VIEW point_groups AS SELECT * FROM lake.groups;
`

// scratch are the tables of schema lake that one query fills.
var scratch = map[string]string{
	"selected":  "month VARCHAR, point_id INTEGER, bytes BIGINT, archived UINTEGER",
	"spans":     "n INTEGER, point_id INTEGER, t_min TIMESTAMP, t_max TIMESTAMP",
	"cold_days": "point_id INTEGER, day INTEGER",
	"hot":       "point_id INTEGER, ts TIMESTAMP, value DOUBLE, quality INTEGER, flags INTEGER",
	"latest":    "point_id INTEGER, ts TIMESTAMP, value DOUBLE, quality INTEGER, flags INTEGER, tier VARCHAR",
	"runs": "run VARCHAR, command VARCHAR, status VARCHAR, started_at BIGINT, heartbeat_at BIGINT, archived_at BIGINT, " +
		"first_day VARCHAR, last_day VARCHAR, records_archived BIGINT, files_written BIGINT, bytes_written BIGINT, error VARCHAR",
}

// aliases are the views by which the SQL of D1 runs here too. They look their
// table up by its name whenever they are used, so they need no replacing.
const aliases = `
CREATE VIEW timeseries AS SELECT point_id, timestamp, value, quality, flags FROM samples;
CREATE VIEW v_latest_values AS SELECT point_id, timestamp, value, quality, flags FROM latest;
`

// stubbed are the views that stand for stubs while a statement is planned.
var stubbed = []string{"samples", "latest", "archive_files", "archive_days", "archive_state"}

// use notes that a table of scratch is going to be filled, or a view of stubbed
// to be replaced, so that pretend undoes it.
func (l *Lake) use(names ...string) {
	for _, n := range names {
		l.used[n] = true
	}
}

// pretend lets the views stand for the stubs, and lets go of the rows of the
// last query: statements can be planned and must not be run. It replaces only
// what was used, for each of these statements takes as long as a plan.
func (l *Lake) pretend(ctx context.Context) error {
	var b strings.Builder
	for name := range l.used {
		if table, ok := strings.CutPrefix(name, "lake."); ok {
			fmt.Fprintf(&b, "CREATE OR REPLACE TABLE %s (%s);\n", name, scratch[table])
		} else {
			fmt.Fprintf(&b, "CREATE OR REPLACE VIEW %s AS SELECT * FROM %s_stub();\n", name, name)
		}
	}
	if b.Len() == 0 {
		return nil
	}
	if err := l.exec(ctx, b.String()); err != nil {
		return err
	}
	clear(l.used)
	return nil
}

// list is paths as a list of SQL.
func list(paths []string) string {
	q := make([]string, len(paths))
	for i, p := range paths {
		q[i] = quote(p)
	}
	return "[" + strings.Join(q, ",") + "]"
}

// coldSQL selects what the month files hold. clean ones count whole. Of mixed
// ones only the days in lake.cold_days count, and of their rows those that the
// hot tier does not have: there, by timestamp, it wins. It is "" without files.
//
// make_timestamp of microseconds is ten times as fast as the cast of a
// TIMESTAMP WITH TIME ZONE, which asks the calendar of the time zone.
func coldSQL(clean, mixed []string) string {
	const columns = "SELECT point_id, make_timestamp(epoch_us(timestamp)) AS ts, value, quality, flags FROM read_parquet("
	var parts []string
	if len(clean) > 0 {
		parts = append(parts, columns+list(clean)+")")
	}
	if len(mixed) > 0 {
		parts = append(parts, "SELECT c.* FROM ("+columns+list(mixed)+")) c"+
			" SEMI JOIN lake.cold_days d ON c.point_id = d.point_id AND epoch_ms(c.ts) // 86400000 = d.day"+
			" ANTI JOIN lake.hot h ON c.point_id = h.point_id AND c.ts = h.ts")
	}
	return strings.Join(parts, "\nUNION ALL\n")
}

// samplesView is the view samples over the local copies of month files and
// lake.hot. The name of a point is looked up only where the statement asks for it.
func samplesView(cold string, hot, named bool) string {
	const columns = ", ts, epoch_ms(ts) AS timestamp, value, quality, flags, tier FROM "
	var parts []string
	if cold != "" {
		parts = append(parts, "SELECT point_id, ts, value, quality, flags, 'cold' AS tier FROM ("+cold+")")
	}
	if hot || cold == "" {
		parts = append(parts, "SELECT point_id, ts, value, quality, flags, 'hot' AS tier FROM lake.hot")
	}
	rows := "(" + strings.Join(parts, "\nUNION ALL\n") + ")"
	if !named {
		return "CREATE OR REPLACE VIEW samples AS SELECT point_id, NULL::VARCHAR AS point_name" + columns + rows
	}
	return "CREATE OR REPLACE VIEW samples AS SELECT point_id, point_name" + columns + rows +
		" JOIN (SELECT point_id, point_name FROM lake.points) USING (point_id)"
}

const latestView = `CREATE OR REPLACE VIEW latest AS SELECT point_id, point_name, ts, epoch_ms(ts) AS timestamp, value, quality, flags, tier
FROM lake.latest JOIN (SELECT point_id, point_name FROM lake.points) USING (point_id)`

const stateView = "CREATE OR REPLACE VIEW archive_state AS SELECT * FROM lake.runs"

// catalogColumns is an empty relation of the columns of a catalog month that the
// views below use, for a cold tier without months.
const catalogColumns = `(SELECT NULL::VARCHAR AS month, NULL::INTEGER AS point_id, NULL::VARCHAR AS name, NULL::VARCHAR AS path,
	NULL::BIGINT AS bytes, NULL::VARCHAR AS etag, NULL::VARCHAR AS sha256, NULL::VARCHAR AS rows_sha256, NULL::BIGINT AS samples,
	NULL::BIGINT AS first, NULL::BIGINT AS last, NULL::INTEGER[] AS days WHERE false)`

// archiveViews are archive_files and archive_days over the catalog's months.
func archiveViews(months []string) string {
	from := catalogColumns
	if len(months) > 0 {
		from = "read_parquet(" + list(months) + ")"
	}
	const name = "coalesce(p.point_name, m.name) AS point_name"
	return "CREATE OR REPLACE VIEW archive_files AS SELECT m.month, m.point_id, " + name + `, m.path, m.bytes, m.etag, m.sha256, m.rows_sha256,
	m.samples, epoch_ms(m.first) AS first_ts, epoch_ms(m.last) AS last_ts
FROM ` + from + ` m LEFT JOIN lake.points p ON m.point_id = p.point_id WHERE m.path <> '';
CREATE OR REPLACE VIEW archive_days AS SELECT point_id, point_name, (start + CAST(i - 1 AS INTEGER)) AS day, samples FROM (
	SELECT m.point_id, ` + name + `, CAST(m.month || '-01' AS DATE) AS start, unnest(m.days) AS samples, generate_subscripts(m.days, 1) AS i
	FROM ` + from + ` m LEFT JOIN lake.points p ON m.point_id = p.point_id);
`
}
