package duckdb

import "testing"

func TestAllocatorTakesWhatItIsTold(t *testing.T) {
	if !limitArenas(arenas) {
		t.Error("the C library refuses how many arenas it may make")
	}
	if !keepPages(pagesKept) {
		t.Error("jemalloc refuses how long it keeps pages: are the names of its settings others now?")
	}
}
