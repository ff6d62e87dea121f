package duckdb

import "testing"

func TestAllocatorTakesWhatItIsTold(t *testing.T) {
	if !keepPages(pagesKept) {
		t.Error("jemalloc refuses how long it keeps pages: are the names of its settings others now?")
	}
}
