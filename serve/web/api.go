package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/schedule"
	"github.com/cauce-data/cauce/serve"
)

// LagFunc asks how much of each stream waits; see Options.
type LagFunc func(ctx context.Context, s *ingest.Status) map[string]any

type server struct {
	o       Options
	logins  *serve.Tokens
	guesses *guesses
}

// Bounds of one answer.
const (
	rowsMax    = 200
	filesMax   = 2000
	commitsMax = 500
	logBytes   = 256 << 10
)

// badRequest is an error of the asker, shown with status 400.
type badRequest struct{ error }

func badf(format string, args ...any) error { return badRequest{fmt.Errorf(format, args...)} }

func (s *server) routes(mux *http.ServeMux) {
	get := func(pattern string, f func(ctx context.Context, r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), patience)
			defer cancel()
			v, err := f(ctx, r)
			var bad badRequest
			switch {
			case err == nil:
				answer(w, http.StatusOK, v)
			case errors.As(err, &bad):
				fail(w, http.StatusBadRequest, err.Error())
			case errors.Is(err, schedule.ErrBusy), errors.Is(err, schedule.ErrNotRetried):
				fail(w, http.StatusConflict, err.Error())
			case errors.Is(err, schedule.ErrNoRun), errors.Is(err, schedule.ErrNoTask), errors.Is(err, delta.ErrVersionNotFound):
				fail(w, http.StatusNotFound, err.Error())
			default:
				s.o.Log.Warn("web: "+r.URL.Path, "error", err)
				fail(w, http.StatusInternalServerError, err.Error())
			}
		})
	}
	get("GET /api/lake", s.lake)
	get("GET /api/status", s.status)
	get("GET /api/table/{name}", s.table)
	get("GET /api/table/{name}/history", s.history)
	get("GET /api/table/{name}/difference", s.difference)
	get("GET /api/table/{name}/rows", s.rows)
	get("GET /api/runs", s.runs)
	get("GET /api/runs/{id}", s.run)
	get("GET /api/runs/{id}/log", s.runLog)
	get("POST /api/runs/{id}/retry", s.retryRun)
	get("GET /api/quarantine", s.quarantine)
	get("POST /api/quarantine/retry", s.retry)
	get("GET /api/gaps", s.gaps)
}

// lake is what the lake file says: the flow from sources through transformations into tables.
func (s *server) lake(context.Context, *http.Request) (any, error) {
	type mapping struct {
		Column string `json:"column"`
		SQL    string `json:"sql"`
	}
	type source struct {
		Name     string    `json:"name"`
		Table    string    `json:"table"`
		Kind     string    `json:"kind"`
		From     string    `json:"from"` // patterns of files, or the topic
		Filter   string    `json:"filter,omitempty"`
		Fields   []mapping `json:"fields"`
		Delete   string    `json:"delete,omitempty"`
		Rank     int32     `json:"rank"`
		Producer string    `json:"producer,omitempty"`
	}
	type step struct {
		Set   []mapping `json:"set,omitempty"`
		Where string    `json:"where,omitempty"`
	}
	type expectation struct {
		Name   string `json:"name"`
		Check  string `json:"check"`
		OnFail string `json:"on_fail"`
	}
	type table struct {
		Name        string        `json:"name"`
		Comment     string        `json:"comment,omitempty"`
		Key         []string      `json:"key"`
		Sequence    []string      `json:"sequence"`
		PartitionBy []string      `json:"partition_by"`
		ClusterBy   []string      `json:"cluster_by"`
		Transform   []step        `json:"transform"`
		Expect      []expectation `json:"expect"`
		Ledger      bool          `json:"ledger"`
	}
	mappings := func(in []pipeline.Mapping) []mapping {
		out := make([]mapping, len(in))
		for i, m := range in {
			out[i] = mapping(m)
		}
		return out
	}
	l := s.o.Lake
	out := struct {
		File    string    `json:"file"`
		Storage string    `json:"storage"`
		Version string    `json:"version"`
		Trigger string    `json:"trigger"`
		Tables  []*table  `json:"tables"`
		Sources []*source `json:"sources"`
		Doors   []Door    `json:"doors"`
	}{File: l.File, Storage: l.Storage, Version: s.o.Version, Trigger: l.Stream.Trigger.String(), Tables: []*table{}, Sources: []*source{}, Doors: s.o.Doors}
	for _, t := range l.Tables {
		x := &table{Name: t.Name, Comment: t.Comment, Key: list(t.Key), Sequence: list(t.Sequence), PartitionBy: list(t.PartitionBy), ClusterBy: list(t.ClusterBy),
			Transform: []step{}, Expect: []expectation{}, Ledger: t.Ledger != nil}
		for _, st := range t.Transform {
			x.Transform = append(x.Transform, step{mappings(st.Set), st.Where})
		}
		for _, e := range t.Expect {
			x.Expect = append(x.Expect, expectation(e))
		}
		out.Tables = append(out.Tables, x)
	}
	for _, src := range l.Sources {
		x := &source{Name: src.Name, Table: l.Table(src.Table).Name, Kind: src.Kind, From: cmp.Or(src.Topic, strings.Join(src.Location, ", ")), Filter: src.Filter,
			Fields: mappings(src.Fields), Delete: src.Delete, Rank: src.Rank}
		if src.Produce != nil {
			x.Producer = src.Produce.Kind
		}
		out.Sources = append(out.Sources, x)
	}
	return out, nil
}

func list(in []string) []string {
	if in == nil {
		return []string{}
	}
	return in
}

// status is where the tables and sources stand.
func (s *server) status(ctx context.Context, _ *http.Request) (any, error) {
	st, err := s.o.Ingest.Status(ctx)
	if err != nil {
		return nil, err
	}
	out := struct {
		*ingest.Status
		Lags map[string]any `json:"lags"`
		Now  time.Time      `json:"now"`
	}{Status: st, Lags: map[string]any{}, Now: time.Now().UTC()}
	if s.o.Lags != nil {
		out.Lags = s.o.Lags(ctx, st)
	}
	return out, nil
}

// open opens the table that a request names, at the version that its query names or at the newest; a nil snapshot is a
// table to which nothing has been written.
func (s *server) open(ctx context.Context, r *http.Request) (*delta.Table, *delta.Snapshot, error) {
	name := r.PathValue("name")
	known := s.o.Ingest.Catalog().Names()
	if !slices.Contains(known, name) {
		return nil, nil, badf("the lake has no table %q; it has %s", name, strings.Join(known, ", "))
	}
	t, err := s.o.Ingest.Catalog().Open(ctx, name)
	if errors.Is(err, delta.ErrNotATable) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	v, err := number(r, "version", -1)
	if err != nil {
		return nil, nil, err
	}
	var snap *delta.Snapshot
	if v >= 0 {
		snap, err = t.SnapshotAt(ctx, delta.Version(v))
	} else {
		snap, err = t.Snapshot(ctx)
	}
	return t, snap, err
}

// number reads a number of the query.
func number(r *http.Request, name string, def int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, badf("%s=%q: it must be a number, 0 or more", name, text)
	}
	return n, nil
}

type column struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Nullable bool   `json:"nullable"`
	Comment  string `json:"comment,omitempty"`
}

type partition struct {
	Values  map[string]*string `json:"values"`
	Files   int                `json:"files"`
	Bytes   int64              `json:"bytes"`
	Rows    int64              `json:"rows"` // -1: some file has no statistics
	Deleted int64              `json:"deleted"`
}

type file struct {
	Path     string             `json:"path"`
	Values   map[string]*string `json:"values"`
	Bytes    int64              `json:"bytes"`
	Rows     int64              `json:"rows"`
	Deleted  int64              `json:"deleted"`
	Modified time.Time          `json:"modified"`
}

// liveRows are the rows of a file that are not deleted; -1 where the log does not say.
func liveRows(a *delta.Add) (rows, deleted int64) {
	if a.DeletionVector != nil {
		deleted = a.DeletionVector.Cardinality
	}
	stats, err := delta.ParseStats(a.Stats)
	if err != nil || a.Stats == "" {
		return -1, deleted
	}
	return stats.NumRecords - deleted, deleted
}

// table is one version of a table: its schema, partitions and files.
func (s *server) table(ctx context.Context, r *http.Request) (any, error) {
	type answer struct {
		Name       string            `json:"name"`
		Exists     bool              `json:"exists"`
		Version    delta.Version     `json:"version"`
		Time       time.Time         `json:"time"`
		Rows       int64             `json:"rows"`
		Files      int               `json:"files"`
		Bytes      int64             `json:"bytes"`
		Columns    []column          `json:"columns"`
		PartBy     []string          `json:"partition_by"`
		Properties map[string]string `json:"properties"`
		Features   []string          `json:"features"`
		Partitions []*partition      `json:"partitions"`
		List       []file            `json:"list"` // files, largest first, at most filesMax
	}
	out := answer{Name: r.PathValue("name"), Version: -1, Columns: []column{}, PartBy: []string{}, Partitions: []*partition{}, List: []file{}, Features: []string{}}
	_, snap, err := s.open(ctx, r)
	if err != nil || snap == nil {
		return out, err
	}
	meta, protocol := snap.Metadata(), snap.Protocol()
	out.Exists, out.Version, out.Time, out.Files, out.Bytes = true, snap.Version(), snap.Time().UTC(), snap.NumFiles(), snap.Bytes()
	out.PartBy, out.Properties = list(meta.PartitionColumns), meta.Configuration
	features := append(slices.Clone(protocol.ReaderFeatures), protocol.WriterFeatures...)
	slices.Sort(features)
	out.Features = list(slices.Compact(features))
	for _, f := range snap.Schema().Fields {
		out.Columns = append(out.Columns, column{f.Name, f.Type.String(), f.Nullable, f.Comment()})
	}
	parts := map[string]*partition{}
	for _, a := range snap.Adds() {
		rows, deleted := liveRows(a)
		values := partitionValues(snap, a)
		key := partitionKey(out.PartBy, values)
		p := parts[key]
		if p == nil {
			p = &partition{Values: values}
			parts[key] = p
			out.Partitions = append(out.Partitions, p)
		}
		p.Files++
		p.Bytes += a.Size
		p.Deleted += deleted
		add(&p.Rows, rows)
		add(&out.Rows, rows)
		out.List = append(out.List, file{a.Path, values, a.Size, rows, deleted, time.UnixMilli(a.ModificationTime).UTC()})
	}
	slices.SortFunc(out.Partitions, func(a, b *partition) int {
		return strings.Compare(partitionKey(out.PartBy, a.Values), partitionKey(out.PartBy, b.Values))
	})
	slices.SortFunc(out.List, func(a, b file) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Path, b.Path)) })
	out.List = out.List[:min(len(out.List), filesMax)]
	return out, nil
}

// add adds a count that may be unknown.
func add(sum *int64, n int64) {
	if *sum < 0 || n < 0 {
		*sum = -1
		return
	}
	*sum += n
}

// partitionValues are a file's by the names of the columns; the log has them by those that the columns have in files.
func partitionValues(s *delta.Snapshot, a *delta.Add) map[string]*string {
	out := map[string]*string{}
	physical := s.TableInfo().PhysicalPartitionBy()
	for i, c := range s.PartitionBy() {
		out[c] = a.PartitionValues[physical[i]]
	}
	return out
}

func partitionKey(columns []string, values map[string]*string) string {
	var b strings.Builder
	for _, c := range columns {
		if v := values[c]; v != nil {
			b.WriteString(*v)
		}
		b.WriteByte(0)
	}
	return b.String()
}

type commit struct {
	Version    delta.Version     `json:"version"`
	Time       time.Time         `json:"time"`
	Operation  string            `json:"operation"`
	Parameters map[string]string `json:"parameters,omitempty"`
	Metrics    map[string]string `json:"metrics,omitempty"`
	Engine     string            `json:"engine,omitempty"`
	Source     string            `json:"source,omitempty"` // of Cauce's own commits
	Added      int               `json:"files_added"`
	Removed    int               `json:"files_removed"`
}

// history is what happened to a table, newest first.
func (s *server) history(ctx context.Context, r *http.Request) (any, error) {
	out := struct {
		Commits []commit `json:"commits"`
	}{Commits: []commit{}}
	n, err := number(r, "limit", 100)
	if err != nil {
		return nil, err
	}
	t, snap, err := s.open(ctx, r)
	if err != nil || snap == nil {
		return out, err
	}
	commits, err := t.History(ctx, int(min(n, commitsMax)))
	if err != nil {
		return nil, err
	}
	for _, c := range commits {
		x := commit{Version: c.Version, Time: c.Time.UTC(), Operation: c.Info.Operation, Parameters: c.Info.OperationParameters,
			Metrics: c.Info.OperationMetrics, Engine: c.Info.EngineInfo, Added: c.FilesAdded, Removed: c.FilesRemoved}
		for _, txn := range c.Txns {
			if id, ok := strings.CutPrefix(txn.AppID, "cauce/1/"); ok {
				x.Source, _, _ = strings.Cut(id, "/")
			}
		}
		out.Commits = append(out.Commits, x)
	}
	return out, nil
}

// difference says which files, rows and properties two versions of a table do not have in common.
func (s *server) difference(ctx context.Context, r *http.Request) (any, error) {
	from, err := number(r, "from", -1)
	if err != nil {
		return nil, err
	}
	to, err := number(r, "to", -1)
	if err != nil {
		return nil, err
	}
	if from < 0 || to < 0 {
		return nil, badf("a difference needs from and to, two versions")
	}
	t, snap, err := s.open(ctx, r)
	if err != nil {
		return nil, err
	}
	if snap == nil {
		return nil, badf("nothing has been written to the table yet")
	}
	a, err := t.SnapshotAt(ctx, delta.Version(from))
	if err != nil {
		return nil, err
	}
	b, err := t.SnapshotAt(ctx, delta.Version(to))
	if err != nil {
		return nil, err
	}
	out := struct {
		From       delta.Version     `json:"from"`
		To         delta.Version     `json:"to"`
		RowsFrom   int64             `json:"rows_from"`
		RowsTo     int64             `json:"rows_to"`
		Added      []file            `json:"added"`
		Removed    []file            `json:"removed"`
		Marked     []file            `json:"marked"` // files with another deletion vector, as they are at the later version
		Columns    []string          `json:"columns"`
		Properties map[string]string `json:"properties"`
	}{From: a.Version(), To: b.Version(), Added: []file{}, Removed: []file{}, Marked: []file{}, Columns: []string{}, Properties: map[string]string{}}
	before, rows := filesOf(a)
	out.RowsFrom = rows
	after, rows := filesOf(b)
	out.RowsTo = rows
	for _, path := range slices.Sorted(maps.Keys(after)) {
		switch old, ok := before[path]; {
		case !ok:
			out.Added = append(out.Added, after[path])
		case old.Deleted != after[path].Deleted:
			out.Marked = append(out.Marked, after[path])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[path]; !ok {
			out.Removed = append(out.Removed, before[path])
		}
	}
	out.Columns = columnChanges(a.Schema(), b.Schema())
	old, now := a.Metadata().Configuration, b.Metadata().Configuration
	for k, v := range now {
		if old[k] != v {
			out.Properties[k] = v
		}
	}
	for k := range old {
		if _, ok := now[k]; !ok {
			out.Properties[k] = ""
		}
	}
	return out, nil
}

func filesOf(s *delta.Snapshot) (map[string]file, int64) {
	out := map[string]file{}
	var sum int64
	for _, a := range s.Adds() {
		rows, deleted := liveRows(a)
		add(&sum, rows)
		out[a.Path] = file{a.Path, partitionValues(s, a), a.Size, rows, deleted, time.UnixMilli(a.ModificationTime).UTC()}
	}
	return out, sum
}

// columnChanges says in words how the columns of two versions differ.
func columnChanges(a, b *delta.Schema) []string {
	out := []string{}
	for _, f := range b.Fields {
		switch old, ok := a.Field(f.Name); {
		case !ok:
			out = append(out, "+ "+f.Name+" "+f.Type.String())
		case old.Type.String() != f.Type.String():
			out = append(out, f.Name+": "+old.Type.String()+" → "+f.Type.String())
		}
	}
	for _, f := range a.Fields {
		if _, ok := b.Field(f.Name); !ok {
			out = append(out, "− "+f.Name+" "+f.Type.String())
		}
	}
	return out
}

// rows are some rows of a version, of its newest files first; deleted keys are left out.
func (s *server) rows(ctx context.Context, r *http.Request) (any, error) {
	limit, err := number(r, "limit", 50)
	if err != nil {
		return nil, err
	}
	limit = min(limit, rowsMax)
	out := struct {
		Version delta.Version `json:"version"`
		Columns []string      `json:"columns"`
		Rows    [][]*string   `json:"rows"`
	}{Version: -1, Columns: []string{}, Rows: [][]*string{}}
	t, snap, err := s.open(ctx, r)
	if err != nil || snap == nil {
		return out, err
	}
	out.Version = snap.Version()
	hidden := -1
	for i, f := range snap.Schema().Fields {
		if out.Columns = append(out.Columns, f.Name); f.Name == pipeline.ColumnDeleted {
			hidden = i
		}
	}
	for b, err := range t.Scan(ctx, snap, delta.ScanOptions{}) {
		if err != nil {
			return nil, err
		}
		for i := range int(b.NumRows()) {
			row := make([]*string, b.NumCols())
			for k, c := range b.Columns() {
				if c.IsValid(i) {
					v := strings.Clone(c.ValueStr(i)) // the batch goes when the next one comes
					row[k] = &v
				}
			}
			if hidden >= 0 && row[hidden] != nil && *row[hidden] == "true" {
				continue
			}
			if out.Rows = append(out.Rows, row); int64(len(out.Rows)) >= limit {
				return out, nil
			}
		}
	}
	return out, nil
}

// runs is the history of batch and maintenance, newest first.
func (s *server) runs(_ context.Context, r *http.Request) (any, error) {
	n, err := number(r, "limit", 100)
	if err != nil {
		return nil, err
	}
	runs, err := schedule.List(s.o.RunsDir, int(min(n, commitsMax)))
	if runs == nil {
		runs = []schedule.Run{}
	}
	return struct {
		Runs []schedule.Run `json:"runs"`
	}{runs}, err
}

func (s *server) run(_ context.Context, r *http.Request) (any, error) {
	return schedule.Load(s.o.RunsDir, r.PathValue("id"))
}

// runLog is what a run logged, from a byte on, and how it stands. A page that follows it asks for what comes next.
func (s *server) runLog(_ context.Context, r *http.Request) (any, error) {
	from, err := number(r, "from", 0)
	if err != nil {
		return nil, err
	}
	// The status is read first: what a run has logged before it ended is then in the text.
	run, err := schedule.Load(s.o.RunsDir, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	text, begin, next, err := schedule.LogSince(s.o.RunsDir, run, from, logBytes)
	if err != nil {
		return nil, err
	}
	return struct {
		Status schedule.Status `json:"status"`
		Begin  int64           `json:"begin"` // the byte of the log at which the text begins
		Next   int64           `json:"next"`  // the byte to ask from next
		Text   string          `json:"text"`
	}{run.Status, begin, next, string(text)}, nil
}

// retryRun tries a run once more that did not succeed.
func (s *server) retryRun(_ context.Context, r *http.Request) (any, error) {
	run, err := schedule.Load(s.o.RunsDir, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if s.o.Retry == nil {
		return nil, badf("this process runs no tasks")
	}
	if err := s.o.Retry(run); err != nil {
		return nil, err
	}
	return schedule.Load(s.o.RunsDir, run.ID)
}

func filter(r *http.Request) ingest.QuarantineFilter {
	q := r.URL.Query()
	return ingest.QuarantineFilter{Table: q.Get("table"), Source: q.Get("source"), Rule: q.Get("rule"), Origin: q.Get("origin")}
}

// quarantine is what did not fit.
func (s *server) quarantine(ctx context.Context, r *http.Request) (any, error) {
	f := filter(r)
	f.All, f.Limit = r.URL.Query().Get("all") == "true", rowsMax
	rows, err := s.o.Ingest.QuarantineShow(ctx, f)
	if rows == nil {
		rows = []ingest.QuarantineRow{}
	}
	return struct {
		Rows []ingest.QuarantineRow `json:"rows"`
		Max  int                    `json:"max"`
	}{rows, rowsMax}, err
}

// retry runs records in quarantine through the lake file once more.
func (s *server) retry(ctx context.Context, r *http.Request) (any, error) {
	return s.o.Ingest.QuarantineRetry(ctx, filter(r), false)
}

// gaps says which days are complete.
func (s *server) gaps(ctx context.Context, r *http.Request) (any, error) {
	q := r.URL.Query()
	return s.o.Ingest.Gaps(ctx, ingest.GapsOptions{Table: q.Get("table"), Series: q.Get("series"), Since: q.Get("since")})
}
