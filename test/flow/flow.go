// Package flow follows rows through the whole program: what lies where on disk, which files a query opens, and that a
// row keeps its identity when it moves, is packed or is sorted.
package flow
