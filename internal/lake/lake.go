// Package lake answers SQL over the hot and the cold tier together with an
// embedded DuckDB, reading only what a query can touch.
//
// A query goes one way:
//
//	text → statement (gate.go: one SELECT, nothing that reaches outside)
//	     → scans     (select.go: which points and times each scan can touch,
//	                  read off the optimized plan; over-approximated, never under)
//	     → files     (catalog.go: the month files of the manifests; cache.go:
//	                  verified local copies of them)
//	     → hot rows  (hot.go: what only the hot tier holds, as Arrow)
//	     → answer    (run.go: the same statement over views of both)
//
// Terms: the catalog is what the manifests say, one row for each month file. A
// region is a set of samples known only by a point and a span of time: a month
// file, or days that the hot tier answers for. A scan is one reference of a
// statement to a table of the lake, with the condition on regions that it puts.
//
// DuckDB never sees the store, the source or a file that can change: it reads
// hash-named, read-only local files and tables in memory, in a sandbox that can
// not be left and a configuration that can not be changed.
package lake
