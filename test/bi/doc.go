// Package bi holds the tests of `cauce serve`: real clients of PostgreSQL, hostile statements and hostile clients, against
// the real binary over a table that is being written.
package bi
