package lake
import ("context";"database/sql")
type statement struct { SQL string; Tables []string }
func parse(ctx context.Context, conn *sql.Conn, text string, params map[string]string) (*statement, error) {
 return &statement{SQL:text, Tables: []string{"samples","latest","x"}},nil }
