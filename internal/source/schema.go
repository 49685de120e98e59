package source

import (
	"fmt"
	"slices"
	"strings"

	"etl/internal/fault"
	"etl/sql"
)

// Column is a column of a table as PRAGMA table_info tells it.
type Column struct {
	Name     string // in lower case
	Type     string // as declared, in upper case
	NotNull  bool   // declared so, or part of the key of a table without rowid
	Required bool   // an INSERT must name it
	Key      int    // place in the primary key from 1, 0 if it is not in it
}

// Columns are the columns of a table, none if it does not exist.
type Columns []Column

// Names are the names of the columns.
func (cs Columns) Names() []string {
	names := make([]string, len(cs))
	for i, c := range cs {
		names[i] = c.Name
	}
	return names
}

// Require refuses a table that does not exist or lacks a column.
func (cs Columns) Require(table string, want ...string) error {
	if len(cs) == 0 {
		return fault.Errorf(fault.Invalid, "there is no table %s", table)
	}
	for _, w := range want {
		if !slices.Contains(cs.Names(), w) {
			return fault.Errorf(fault.Invalid, "%s has no column %s", table, w)
		}
	}
	return nil
}

// Tables is what the tables that are read look like.
type Tables struct {
	Points  []string // columns, in lower case
	NullKey bool     // point_id or timestamp may be NULL, as in a table with a rowid
}

// FitToRead returns an Invalid error unless points and timeseries have what
// reading needs; unique says whether timeseries has a unique key on (point_id, timestamp).
func FitToRead(points, series Columns, unique bool) (*Tables, error) {
	if err := points.Require("points", "id", "name"); err != nil {
		return nil, err
	}
	if err := series.Require("timeseries", "point_id", "timestamp", "value", "quality", "flags"); err != nil {
		return nil, err
	}
	if err := checkKeyTypes(series); err != nil {
		return nil, err
	}
	if !unique {
		return nil, fault.Errorf(fault.Invalid, "timeseries has no unique key on (point_id, timestamp): a sample could be there twice")
	}
	t := &Tables{Points: points.Names()}
	for _, c := range series {
		t.NullKey = t.NullKey || (!c.NotNull && (c.Name == "point_id" || c.Name == "timestamp"))
	}
	return t, nil
}

// FitToAdopt refuses one of sql.AdoptedTables that adding columns and a key does
// not make fit. A table that does not exist is fit: the migrations make it.
func FitToAdopt(table string, cols Columns) error {
	if len(cols) == 0 {
		return nil
	}
	switch table {
	case "points":
		return cols.Require(table, "id", "name")
	case "timeseries":
		if err := cols.Require(table, "point_id", "timestamp"); err != nil {
			return err
		}
		return checkKeyTypes(cols)
	case "archive_state":
		// A log whose rows need what a run does not have.
		for _, c := range cols {
			if c.Required && !slices.Contains(sql.Columns(table), c.Name) {
				return fault.Hint(fault.Errorf(fault.Invalid, "archive_state needs a value for %s, which runs do not have", c.Name), "%s", renameLog)
			}
		}
	}
	return nil
}

// renameLog makes way for a log of runs, and keeps the lines of the older one.
const renameLog = "ALTER TABLE archive_state RENAME TO archive_state_before"

// LogInTheWay is the error of an archive_state that does not take the line of a
// run, nil if err is about something else.
func LogInTheWay(err error) error {
	text := err.Error()
	if !strings.Contains(text, "constraint failed: archive_state.") && !strings.Contains(text, "CHECK constraint failed") {
		return nil
	}
	return fault.Hint(fault.Wrap(fault.Invalid, fmt.Errorf("archive_state does not take the line of a run: %w", err)), "%s", renameLog)
}

// checkKeyTypes refuses keys that are declared as text or as reals: SQLite
// would compare text with text, and ranges of days would silently be empty.
func checkKeyTypes(series Columns) error {
	for _, c := range series {
		if c.Name != "point_id" && c.Name != "timestamp" {
			continue
		}
		has := func(parts ...string) bool {
			return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(c.Type, p) })
		}
		// The rules of column affinity, https://www.sqlite.org/datatype3.html#determination_of_column_affinity.
		if !has("INT") && has("CHAR", "CLOB", "TEXT", "REAL", "FLOA", "DOUB") {
			return fault.Errorf(fault.Invalid, "timeseries.%s is declared %s, want INTEGER", c.Name, c.Type)
		}
	}
	return nil
}

// FindTwice is the query for a sample that is there twice: how often, point_id and timestamp.
const FindTwice = `SELECT count(*), point_id, timestamp FROM timeseries
	WHERE point_id IS NOT NULL AND timestamp IS NOT NULL GROUP BY 2, 3 HAVING count(*) > 1 LIMIT 1`

// MakeUnique gives timeseries the key that forbids it.
const MakeUnique = "CREATE UNIQUE INDEX timeseries_point_timestamp ON timeseries (point_id, timestamp)"

// Twice is the error of samples that are there twice: which of them is right is
// for a person to say. which names one, as in "2 rows of point 5 at 7".
func Twice(which string) error {
	return fault.Hint(fault.Errorf(fault.Invalid, "timeseries has %s, and no key that forbids it", which),
		"keep one row of each: DELETE FROM timeseries WHERE rowid NOT IN (SELECT max(rowid) FROM timeseries GROUP BY point_id, timestamp)")
}

// NoLedger is the error of a ledger that is not whole.
func NoLedger() error {
	return fault.Errorf(fault.Invalid, "the ledger is missing, or one of its tables or triggers is")
}

// NoGroup is the error of a name that no group has, where the known ones are these.
func NoGroup(known []string) error {
	if len(known) == 0 {
		return fault.Hint(fault.Errorf(fault.NotExist, "there is no such group: point_groups is empty"),
			"INSERT INTO point_groups (name, point_id) VALUES (…)")
	}
	return fault.Errorf(fault.NotExist, "there is no such group; the groups are %s", strings.Join(known, ", "))
}

// BadPointID is the error of a row of points that no sample can be of.
func BadPointID(name string, id any) error {
	return fault.Errorf(fault.Invalid, "point %q has the id %v, want a 32-bit integer", name, id)
}

// IDTwice is the error of two rows of points with one id.
func IDTwice(id int32) error {
	return fault.Hint(fault.Errorf(fault.Invalid, "points has the id %d twice", id), "make points.id the primary key")
}

// OrphanName is the name of a point that only timeseries knows.
func OrphanName(id int32) string { return fmt.Sprintf("point-%d", id) }
