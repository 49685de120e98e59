//go:build !duckdb_arrow

package lake

// DuckDB exchanges rows with Go as Arrow, which its module has behind a build
// tag. Without the tag this line is the error that says what to do.
const _ = use_make_build_and_make_test_or_pass_the_go_command__tags_duckdb_arrow
