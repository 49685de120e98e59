package fleet

import (
	"context"
	"fmt"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// WriteRename gives the point its new name in the points table of the database at path.
func WriteRename(ctx context.Context, path string, r Rename) (err error) {
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		return fmt.Errorf("rename point %d in %s: %w", r.Point, path, err)
	}
	defer conn.Close()
	conn.SetInterrupt(ctx.Done())
	return sqlitex.Execute(conn, "UPDATE points SET name = ? WHERE id = ?", &sqlitex.ExecOptions{Args: []any{r.New, r.Point}})
}
