//go:build !duckdb_arrow

package duckdb

// The Arrow door of DuckDB's Go driver exists only under this build tag; without it the compiler stops here, with a
// name that says what to do, instead of somewhere inside.
var _ = build_with_tags_duckdb_arrow
