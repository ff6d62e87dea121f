package duckdb

/*
#include <stdint.h>
#include <stdlib.h>

// Of the Arrow C data interface (https://arrow.apache.org/docs/format/CDataInterface.html) and C stream interface.
struct ArrowSchema {
	const char *format, *name, *metadata;
	int64_t flags, n_children;
	struct ArrowSchema **children, *dictionary;
	void (*release)(struct ArrowSchema *);
	void *private_data;
};
struct ArrowArray;
struct ArrowArrayStream {
	int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *);
	int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *);
	const char *(*get_last_error)(struct ArrowArrayStream *);
	void (*release)(struct ArrowArrayStream *);
	void *private_data;
};

// owned is a stream that gives what another one gives. The schema stays its own: it is lent to whoever asks, and freed with
// the stream.
struct owned {
	struct ArrowArrayStream stream, *inner;
	struct ArrowSchema schema;
	int known;
};

static void lent(struct ArrowSchema *s) { s->release = NULL; }

static int owned_schema(struct ArrowArrayStream *s, struct ArrowSchema *out) {
	struct owned *o = s->private_data;
	if (!o->known) {
		int rc = o->inner->get_schema(o->inner, &o->schema);
		if (rc != 0) return rc;
		o->known = 1;
	}
	*out = o->schema;
	out->release = lent;
	out->private_data = NULL;
	return 0;
}

static int owned_next(struct ArrowArrayStream *s, struct ArrowArray *out) {
	struct owned *o = s->private_data;
	return o->inner->get_next(o->inner, out);
}

static const char *owned_error(struct ArrowArrayStream *s) {
	struct owned *o = s->private_data;
	return o->inner->get_last_error(o->inner);
}

// Who made the inner stream releases it.
static void owned_release(struct ArrowArrayStream *s) { s->release = NULL; }

static void *owned_new(void *inner) {
	struct owned *o = calloc(1, sizeof(struct owned));
	if (o == NULL) abort();
	o->inner = inner;
	o->stream.get_schema = owned_schema;
	o->stream.get_next = owned_next;
	o->stream.get_last_error = owned_error;
	o->stream.release = owned_release;
	o->stream.private_data = o;
	return o;
}

static void owned_free(void *p) {
	struct owned *o = p;
	if (o->known && o->schema.release != NULL) o->schema.release(&o->schema);
	free(o);
}
*/
import "C"

import (
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/duckdb/duckdb-go/v2/arrowmapping"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// DuckDB asks a stream for its schema several times while it becomes a view, and releases none: 15 KB for each batch of records
// of a dozen fields, gigabytes a day for a stream with four batches a second. So DuckDB is lent the schema instead.
// The driver has no place for that but the variable through which it calls DuckDB.

// ownedStreams are the streams that DuckDB was given, by the name of their view.
var (
	ownedStreams sync.Map // string to unsafe.Pointer
	ownedSerial  atomic.Int64
)

// ownedName is a name for a view over a stream that no other view of the process has.
func ownedName(name string) string {
	return name + "_r" + strconv.FormatInt(ownedSerial.Add(1), 10)
}

func init() {
	scan := arrowmapping.ArrowScan
	arrowmapping.ArrowScan = func(conn mapping.Connection, view string, s arrowmapping.ArrowStream) mapping.State {
		o := C.owned_new(s.Ptr)
		state := scan(conn, view, arrowmapping.ArrowStream{Ptr: o})
		if state == mapping.StateError {
			C.owned_free(o)
		} else {
			ownedStreams.Store(view, o)
		}
		return state
	}
}

// freeOwned frees the stream of a view that is gone. The driver releases the stream inside it.
func freeOwned(view string) {
	if o, ok := ownedStreams.LoadAndDelete(view); ok {
		C.owned_free(o.(unsafe.Pointer))
	}
}
