package duckdb

/*
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sys/types.h>

// Of jemalloc, which DuckDB has inside on some systems (https://jemalloc.net/jemalloc.3.html, mallctl); where it has not, the
// address is null.
__attribute__((weak)) int duckdb_je_mallctl(const char *, void *, size_t *, void *, size_t);

static int keep_pages(ssize_t ms) {
	if (duckdb_je_mallctl == NULL) return 0;
	int rc = 0;
	const char *defaults[] = {"arenas.dirty_decay_ms", "arenas.muzzy_decay_ms"};
	for (int i = 0; i < 2; i++) rc |= duckdb_je_mallctl(defaults[i], NULL, NULL, &ms, sizeof ms);
	unsigned arenas = 0;
	size_t size = sizeof arenas;
	rc |= duckdb_je_mallctl("arenas.narenas", &arenas, &size, NULL, 0);
	for (unsigned i = 0; i < arenas; i++) { // those that are in use already; others refuse
		const char *forms[] = {"arena.%u.dirty_decay_ms", "arena.%u.muzzy_decay_ms"};
		for (int k = 0; k < 2; k++) {
			char name[64];
			snprintf(name, sizeof name, forms[k], i);
			duckdb_je_mallctl(name, NULL, NULL, &ms, sizeof ms);
		}
	}
	return rc;
}

static void trim(void) {
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}

#ifdef __GLIBC__
// How many heaps the C library makes for threads that allocate at the same time; of itself it makes eight for each processor, and
// each keeps pages that hold a little: 44 MB for the 9 that were in use after a hundred micro-batches of 15,000 rows, 16 MB with one.
// A drain takes the same CPU: what is large has jemalloc. It is said before Go's threads start, each of which would make one.
__attribute__((constructor)) static void limit_arenas(void) { mallopt(M_ARENA_MAX, 2); }
#endif
*/
import "C"

import (
	"runtime/debug"
	"time"
)

// pagesKept is how long DuckDB's allocator keeps memory that was freed before the system gets it back: longer than a full
// micro-batch takes, so that the next one need not have the same pages cleared and mapped again, which is a twentieth of its
// work, and short enough that a process which has done its work is small soon.
const pagesKept = 3 * time.Second

// keepPages tells the allocator how long it keeps what is freed, if it is one that can be told; 0: not at all. False: it refused.
func keepPages(d time.Duration) bool { return C.keep_pages(C.ssize_t(d.Milliseconds())) == 0 }

// ReleaseMemory gives the system back what large work, such as packing files, has left free in this process: in Go's heap,
// and in the C library's, where DuckDB keeps everything but the buffers of its rows. The latter returns of itself only what
// lies behind the last thing in use (malloc_trim(3)), so that each large piece of work between small ones that last would
// leave it larger.
func (e *Engine) ReleaseMemory() {
	debug.FreeOSMemory()
	C.trim()
}
