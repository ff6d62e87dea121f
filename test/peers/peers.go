// Package peers asks the programs that people use today, Spark with Delta Lake, delta-rs and DuckDB's delta extension,
// to read and change the tables that Cauce writes, and Cauce to go on from there.
package peers
