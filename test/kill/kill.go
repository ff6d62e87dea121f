// Package kill takes the real program away in the middle of its work, with SIGKILL, by chance and in every phase, and
// demands that no row is lost or doubled, that no file is leaked, and that the next run simply goes on.
package kill
