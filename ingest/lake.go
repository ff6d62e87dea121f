package ingest

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest/index"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// conflictTriesMax bounds how often an epoch that lost against another run of the same source is planned again.
const conflictTriesMax = 20

// ErrConflict is returned (wrapped) when a run lost against other writers more often than it may (exit code 5).
var ErrConflict = errors.New("other writers kept winning")

// Config is what a lake needs to run. Lake, Store and Engine must be set; Opener too where sources are files.
type Config struct {
	Lake   *pipeline.Lake
	Store  objstore.Store // the lake's root
	Engine Engine
	Opener FileOpener
	// Decoders are those of the streams that need one, by source.
	Decoders map[string]Decoder
	// IndexDir is the local folder of the index of keys; "": it is kept in memory.
	IndexDir string
	// EngineInfo stands in every commit; "" for the library's default.
	EngineInfo string
	Log        *slog.Logger     // nil: nothing is logged
	Clock      func() time.Time // nil: time.Now
	// Hook is called as each phase of a run begins, for tests that stop a process there: "reading", "located",
	// "files-written", "before-commit", "after-commit", "checkpoint", "optimize", "vacuum", "idle". nil: nobody listens.
	Hook func(phase string)
	// Observe is told what is done; the zero value listens to nothing.
	Observe Observer
}

// Lake runs the sources of one lake file into its tables. It is safe for concurrent use, and any number of processes
// may have one for the same root.
type Lake struct {
	lake    *pipeline.Lake
	store   objstore.Store
	engine  Engine
	opener  FileOpener
	decode  map[string]Decoder
	catalog *catalog.Catalog
	index   *index.Index
	log     *slog.Logger
	clock   func() time.Time
	hook    func(string)
	observe Observer

	gaveWay *giveWay // of compactions
}

// New returns a lake that is ready to run. It does no I/O.
func New(c Config) (*Lake, error) {
	switch {
	case c.Lake == nil:
		return nil, errors.New("ingest: no lake file")
	case c.Store == nil:
		return nil, errors.New("ingest: no store")
	case c.Engine == nil:
		return nil, errors.New("ingest: no engine")
	}
	l := &Lake{lake: c.Lake, store: c.Store, engine: c.Engine, opener: c.Opener, decode: c.Decoders, log: c.Log, clock: c.Clock, hook: c.Hook, observe: c.Observe, gaveWay: &giveWay{}}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.clock == nil {
		l.clock = time.Now
	}
	if l.hook == nil {
		l.hook = func(string) {}
	}
	eng, pure := c.Engine.Delta(), delta.PureGo()
	if eng.Locator == nil || eng.Reader == nil {
		eng.Locator, eng.Reader = pure.Locator, pure.Reader
	}
	// A stream looks keys up in the same files again and again.
	l.index = index.New(eng.Locator, eng.Reader, index.Options{
		Dir: c.IndexDir, BytesMax: c.Lake.Index.MemoryBytes, DiskBytesMax: c.Lake.Index.DiskBytes, Log: l.log,
	})
	eng.Locator = l.index
	l.catalog = catalog.New(c.Lake, c.Store, &delta.Options{Engine: eng, Clock: c.Clock, EngineInfo: c.EngineInfo, ChecksumEvery: checksumEvery})
	return l, nil
}

// checksumEvery leaves most commits of a stream with a short trigger without version checksum, which saves a file each.
const checksumEvery = 10 * time.Second

// WithLog is the same lake, logging elsewhere.
func (l *Lake) WithLog(log *slog.Logger) *Lake {
	other := *l
	other.log = log
	return &other
}

// Catalog gives the lake's tables.
func (l *Lake) Catalog() *catalog.Catalog { return l.catalog }

// decoded decodes records that came from a stream, where its source needs that.
func (l *Lake) decoded(ctx context.Context, src *pipeline.Source, recs []pipeline.Record) error {
	if d := l.decode[src.Name]; d != nil && len(recs) > 0 {
		return d.Decode(ctx, recs)
	}
	return nil
}

// now is the time as the lake stores it.
func (l *Lake) now() time.Time { return l.clock().UTC().Truncate(time.Microsecond) }

// ExitCode is the process exit code that stands for an error of this package (DESIGN 4); 0 for nil.
func ExitCode(err error) int {
	var (
		diag   pipeline.Diagnostics
		schema *catalog.SchemaError
		expect *ExpectationError
		gap    *GapError
		lost   *delta.ConflictError
		use    *UsageError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &expect):
		return 3
	case errors.As(err, &gap):
		return 4
	case errors.As(err, &lost), errors.Is(err, ErrConflict), errors.Is(err, delta.ErrTooManyTries):
		return 5
	case errors.Is(err, objstore.ErrDenied), errors.Is(err, objstore.ErrNoBucket): // to ask again does not help
		return 2
	case errors.As(err, &diag), errors.As(err, &schema), errors.As(err, &use), errors.Is(err, catalog.ErrNoTable):
		return 2
	}
	return 1
}

// UsageError says that what was asked for does not fit the lake file (exit code 2).
type UsageError struct{ Msg string }

func (e *UsageError) Error() string { return e.Msg }

// superseded tells whether a commit failed because the epoch is already in the table: another run of the same source
// won it (DESIGN D5 d).
func superseded(err error) bool {
	if errors.Is(err, delta.ErrTxnApplied) {
		return true
	}
	var c *delta.ConflictError
	return errors.As(err, &c) && c.Kind == delta.ConcurrentTransaction
}
