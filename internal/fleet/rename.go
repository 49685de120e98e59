package fleet

import (
	"context"
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite/sqlitex"

	"etl/internal/fault"
)

// WriteRename gives a point its new name; one that has not the old name is an error.
func WriteRename(ctx context.Context, path string, r Rename) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("rename point %d to %q in %s: %w", r.Point, r.New, path, err)
		}
	}()
	conn, err := open(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	err = sqlitex.Execute(conn, `UPDATE points SET name = ? WHERE id = ? AND name = ?`, &sqlitex.ExecOptions{Args: []any{r.New, r.Point, r.Old}})
	if err == nil && conn.Changes() == 0 {
		err = fault.Errorf(fault.NotExist, "no point of that id is called %q", r.Old)
	}
	return err
}
