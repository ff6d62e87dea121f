package ingest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/connect/csv"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// tradesLake has a table that a source of files and a stream feed, deletes included, and one without a key.
const tradesLake = `
version: 1
storage: file:./data
tables:
  trades:
    columns:
      id: {type: STRING, not_null: true}
      price: DECIMAL(18,4)
      note: STRING
      event_time: TIMESTAMP
      ingested_at: TIMESTAMP
      event_date: DATE
    key: [id]
    sequence: [event_time]
    partition_by: [event_date]
    transform: [{set: {event_date: to_date(event_time)}}, {where: "note <> 'drop'"}]
    expect:
      - {name: price_positive, check: "price > 0", on_fail: quarantine}
      - {name: cheap, check: "price < 1000", on_fail: warn}
  lines:
    columns: {text: STRING, n: LONG}
    key: []
sources:
  history:
    table: trades
    kind: files
    location: ["raw/batch/trades_*.csv*"]
    format: csv
    fields: {id: id, price: price, note: note, event_time: to_event_time(time)}
    rank: 0
  live:
    table: trades
    kind: embedded
    topic: trades
    format: json
    filter: "e = 'trade'"
    fields: {id: s, price: p, note: n, event_time: to_event_time(T)}
    rank: 1
  text:
    table: lines
    kind: files
    location: ["raw/batch/lines_*.csv"]
    format: csv
    fields: {text: text, n: n}
    on_reissue: replace
stream: {trigger: 1s}
`

var shared struct {
	once   sync.Once
	engine *duckdb.Engine
	parser *duckdb.Parser
	err    error
}

// engine is one DuckDB for all tests of the package: starting one costs more than most tests.
func engine(t testing.TB) *duckdb.Engine {
	t.Helper()
	shared.once.Do(func() {
		shared.engine, shared.err = duckdb.Open(duckdb.Options{MemoryLimit: "1GB", Threads: 2})
		if shared.err == nil {
			shared.parser, shared.err = duckdb.NewParser()
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.engine
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.engine != nil {
		_ = shared.engine.Close()
	}
	if shared.parser != nil {
		_ = shared.parser.Close()
	}
	os.Exit(code)
}

// storeEngine computes epochs with DuckDB and moves the table's bytes with delta's own parts, so that every one of
// them passes through the store.
type storeEngine struct{ *duckdb.Engine }

func (storeEngine) Delta() delta.Engine { return delta.Engine{} }

// world is a lake under test and what it needs.
type world struct {
	t     testing.TB
	dir   string
	lake  *pipeline.Lake
	store objstore.Store
	clock *clock
	cfg   ingest.Config
	*ingest.Lake
}

// clock only moves when it is told to, or by a step at each reading.
type clock struct {
	mu  sync.Mutex
	at  time.Time
	run time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(c.run)
	return c.at
}

// start is the time at which every test begins.
var start = time.Date(2024, 8, 20, 12, 0, 0, 0, time.UTC)

func newWorld(t testing.TB, yaml string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), clock: &clock{at: start, run: time.Millisecond}}
	w.store = objstore.NewMemory(w.clock.now)
	w.load(yaml)
	return w
}

// load takes a lake file, as an edited one is taken by the next run.
func (w *world) load(yaml string) {
	w.t.Helper()
	e := engine(w.t)
	file := filepath.Join(w.dir, "lake.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o644); err != nil {
		w.t.Fatal(err)
	}
	lake, err := pipeline.Load(file, pipeline.LoadOptions{Parser: shared.parser})
	if err != nil {
		w.t.Fatal(err)
	}
	w.lake = lake
	w.cfg = ingest.Config{
		Lake: lake, Store: w.store, Engine: storeEngine{e}, Opener: csv.NewOpener(csv.Options{TempDir: w.dir}), Clock: w.clock.now,
	}
	w.reopen()
}

// reopen is a new process on the same lake.
func (w *world) reopen() {
	w.t.Helper()
	var err error
	w.cfg.Store = w.store
	if w.Lake, err = ingest.New(w.cfg); err != nil {
		w.t.Fatal(err)
	}
}

// put writes a file of history with a modification time that lies the given number of minutes after the start.
func (w *world) put(name string, minute int, lines ...string) {
	w.t.Helper()
	text := strings.Join(lines, "\n") + "\n"
	if strings.HasSuffix(name, ".gz") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(text))
		_ = z.Close()
		text = b.String()
	}
	w.putRaw("raw/batch/"+name, minute, text)
}

func (w *world) putRaw(key string, minute int, text string) {
	w.t.Helper()
	err := w.store.Put(context.Background(), key, strings.NewReader(text), objstore.PutOptions{ModTime: start.Add(time.Duration(minute) * time.Minute)})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) batch(o ingest.BatchOptions) *ingest.BatchReport {
	w.t.Helper()
	r, err := w.RunBatch(context.Background(), o)
	if err != nil {
		w.t.Fatalf("batch: %v", err)
	}
	checkCounts(w.t, r.Counts)
	return r
}

func checkCounts(t testing.TB, c ingest.Counts) {
	t.Helper()
	if sum := c.RowsInserted + c.RowsUpdated + c.RowsUnchanged + c.RowsQuarantined + c.RowsFiltered + c.RowsDeleted; sum != c.RowsRead {
		t.Errorf("counts do not add up to rows_read: %+v", c)
	}
}

// row is a row as text, by column.
type row map[string]string

// rows reads a table with delta's own reader, sorted by text.
func (w *world) rows(table string, columns ...string) []string {
	w.t.Helper()
	var out []string
	for _, r := range w.scan(table) {
		var parts []string
		for _, c := range columns {
			parts = append(parts, r[c])
		}
		out = append(out, strings.Join(parts, " "))
	}
	slices.Sort(out)
	return out
}

func (w *world) scan(table string) []row {
	w.t.Helper()
	ctx := context.Background()
	t, err := w.Catalog().Open(ctx, table)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := t.Snapshot(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []row
	for b, err := range t.Scan(ctx, s, delta.ScanOptions{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			r := row{}
			for c, f := range b.Schema().Fields() {
				if col := b.Column(c); col.IsNull(i) {
					r[f.Name] = "-"
				} else {
					r[f.Name] = valueText(col, i)
				}
			}
			out = append(out, r)
		}
	}
	return out
}

func valueText(a interface{ ValueStr(int) string }, i int) string {
	if s, ok := a.(*array.String); ok {
		return strings.Clone(s.Value(i)) // an engine's memory does not stay
	}
	return a.ValueStr(i)
}

func (w *world) hash(table string) string {
	w.t.Helper()
	ctx := context.Background()
	t, err := w.Catalog().Open(ctx, table)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := t.Snapshot(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := delta.LogicalHash(ctx, t, s, "ingested_at")
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func (w *world) version(table string) delta.Version {
	w.t.Helper()
	t, err := w.Catalog().Open(context.Background(), table)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := t.Snapshot(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Version()
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

// topic is a stream in memory. Offsets are those that it is given.
type topic struct {
	mu          sync.Mutex
	name        string
	incarnation string
	records     []pipeline.Record
	first       int64 // offsets below are gone
	committed   map[int32]ingest.Position
	away        int // how many more questions find its servers away
}

func newTopic(name string) *topic { return &topic{name: name, incarnation: "one", first: 1} }

// publish appends one message.
func (p *topic) publish(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := int64(len(p.records)) + 1
	p.records = append(p.records, pipeline.Record{
		Topic: p.name, Offset: n, Time: start.Add(time.Duration(n) * time.Second), Value: []byte(fmt.Sprintf(format, args...)),
	})
}

// reader is one consumer of a topic.
type reader struct {
	*topic
	next int64
	at   ingest.Position // as Seek was told
	// most bounds what one Fetch returns; 0: no bound.
	most int
}

func (p *topic) reader() *reader { return &reader{topic: p, next: 1} }

func (r *reader) Incarnation(context.Context) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away > 0 {
		r.away--
		return "", fmt.Errorf("topic %s: %w", r.name, pipeline.Unavailable("nobody answers"))
	}
	return r.incarnation, nil
}

func (r *reader) Seek(_ context.Context, after map[int32]ingest.Position) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = 1
	p, known := after[0]
	if r.at = p; known {
		r.next = p.Offset + 1
	}
	if r.next < r.first && known {
		p = ingest.Position{Offset: r.first - 1, Renewals: p.Renewals}
		return &ingest.GapError{Source: "live", Topic: r.name, From: r.next, To: r.first - 1, Reason: "the log no longer has them", After: &p}
	}
	r.next = max(r.next, r.first)
	return nil
}

func (r *reader) Ends(context.Context) (map[int32]int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.records) == 0 {
		return map[int32]int64{0: -1}, nil
	}
	return map[int32]int64{0: int64(len(r.records))}, nil
}

func (r *reader) Fetch(ctx context.Context, rowsMax int, bytesMax int64, wait time.Duration) ([]pipeline.Record, error) {
	if r.most > 0 {
		rowsMax = min(rowsMax, r.most)
	}
	deadline := time.Now().Add(wait)
	for {
		r.mu.Lock()
		var out []pipeline.Record
		var size int64
		for r.next <= int64(len(r.records)) && len(out) < rowsMax && size < bytesMax {
			rec := r.records[r.next-1]
			rec.Origin = pipeline.Origin("mem", r.incarnation, r.name, 0, r.at)
			out = append(out, rec)
			size += int64(len(rec.Value))
			r.next++
		}
		r.mu.Unlock()
		if len(out) > 0 || time.Now().After(deadline) {
			return out, ctx.Err()
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (r *reader) Committed(_ context.Context, pos map[int32]ingest.Position) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.committed = maps.Clone(pos)
	return nil
}

func (r *reader) Drained(context.Context, map[int32]int64) (bool, error) { return false, nil }

func (r *reader) Close() error { return nil }

// stream reads what a topic holds, and returns the reports.
func (w *world) stream(in ingest.Source, o ingest.StreamOptions) ([]ingest.StreamReport, error) {
	var out []ingest.StreamReport
	o.AvailableNow, o.NoMaintenance = true, true
	if o.Source == "" {
		o.Source = "live"
	}
	o.OnEpoch = func(r ingest.StreamReport) { out = append(out, r) }
	err := w.RunStream(context.Background(), in, o)
	for _, r := range out {
		checkCounts(w.t, r.Counts)
	}
	return out, err
}

func memory(now func() time.Time) objstore.Store { return objstore.NewMemory(now) }

func putAt(mod time.Time) objstore.PutOptions { return objstore.PutOptions{ModTime: mod} }

// timeText is a time in ms since the epoch as the files of the tests write it.
func timeText(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05Z") }
