// Package ingest is the lake's heart: it takes new files and stream records through a compiled plan into the Delta
// table, exactly once, and keeps what did not fit. It stands between connect (which delivers raw records), engine
// (which computes rows) and delta (which commits them), and names no implementation of either.
package ingest

import (
	"context"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// Engine runs compiled plans over raw records.
type Engine interface {
	// Delta gives the engine's parts for the delta library.
	Delta() delta.Engine
	// NewEpoch begins the computation of one epoch. ingestedAt fills the column ingested_at.
	NewEpoch(ctx context.Context, plan *pipeline.Plan, ingestedAt time.Time) (Epoch, error)
	// ReleaseMemory gives the system back what large work has left free in this process.
	ReleaseMemory()
}

// Epoch, EpochResult, ExpectationError, Position and GapError are pipeline's, where engines and sources can reach them.
type (
	Epoch            = pipeline.Epoch
	EpochResult      = pipeline.EpochResult
	ExpectationError = pipeline.ExpectationError
	Position         = pipeline.Position
	GapError         = pipeline.GapError
	Backlog          = pipeline.Backlog
)

// Source is a stream that can be read from any position that it still holds. Not safe for concurrent use.
type Source interface {
	// Incarnation names the physical log: another one has unrelated offsets (DESIGN D3).
	Incarnation(ctx context.Context) (string, error)
	// Seek starts reading after the given positions (partitions that are missing: from the earliest record). It
	// verifies that the log still has what follows, and that the message at each position still carries its time;
	// else a *GapError. It accepts every GapError's After as long as the log does not change again.
	Seek(ctx context.Context, after map[int32]Position) error
	// Ends gives the last offset that exists now in each partition (-1: empty).
	Ends(ctx context.Context) (map[int32]int64, error)
	// Fetch returns the next records in order per partition: as soon as rowsMax records or bytesMax bytes are there, or
	// as many as it pays to work on, or wait has passed, whichever is first; possibly none. Where the next ones are gone
	// it gives those before them with a *GapError, and Seek comes next.
	Fetch(ctx context.Context, rowsMax int, bytesMax int64, wait time.Duration) ([]pipeline.Record, error)
	// Drained tells, where Fetch has given nothing or little, whether nothing of what was there up to ends is left to come: a
	// log may end with entries that are no records. It is an error that the log cannot be asked.
	Drained(ctx context.Context, ends map[int32]int64) (bool, error)
	// Committed tells the source that everything up to these positions is in the table, so that it may free space.
	// It keeps the message at each position itself.
	Committed(ctx context.Context, pos map[int32]Position) error
	Close() error
}

// Lagging is implemented by a Source that can tell how far positions are behind the end of its log. It may be asked
// before Seek.
type Lagging interface {
	Backlog(ctx context.Context, after map[int32]Position) (Backlog, error)
}

// Prober is implemented by a Source that can tell, without reading, what Seek would say of positions. It may be asked before
// Seek.
type Prober interface {
	Probe(ctx context.Context, after map[int32]Position) error
}

// Queue is implemented by a Source whose server keeps each message until it is acknowledged, and may deliver it again, in
// any order (Google Pub/Sub). Its records have no offsets: Record.Offset is the time of publishing in µs, which several
// share, and Record.Origin names the message. So a position says only how far it has come, and Seek cannot go back: it
// makes Fetch give again what is not acknowledged. Ends gives nothing, and Committed does nothing. Drained tells whether the
// server has answered, and given nothing, for long enough.
type Queue interface {
	Source
	// Acknowledge says that the oldest n records that Fetch gave and that are not acknowledged are in the table.
	Acknowledge(ctx context.Context, n int) error
	// Release gives what is not acknowledged back to the server, for whoever reads there next. Seek begins anew.
	Release()
}

// Aging is implemented by a Source whose log forgets messages after a time. The position in the table is that of the last message,
// and grows old where none is published; Seek could not tell that from a stream that stood still.
type Aging interface {
	// Renewed gives the positions that take the place of those in the table, where these are so old that they should be renewed
	// while nothing waits.
	Renewed(ctx context.Context, after map[int32]Position) (map[int32]Position, error)
}

// Decoder makes JSON of the messages of a stream that carry another format. It is safe for concurrent use: quarantine may be retried
// while the stream runs.
type Decoder interface {
	// Decode fills Text of each record that it can decode, and Bad of each that nobody can. What it needs for that and
	// does not get, such as a schema, it waits for until ctx ends; an error is one that waiting does not mend.
	Decode(ctx context.Context, recs []pipeline.Record) error
}

// FileOpener makes a file of the store ready for reading according to its source's configuration (connect/csv).
type FileOpener interface {
	Open(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source) (*pipeline.RawFile, error)
}
