package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// quarantineKey is the id of a quarantined row (DESIGN D9).
var quarantineKey = []string{"source", "origin", "position", "rule"}

// Bounds of one commit into the quarantine table; an epoch with more bad rows makes several.
const (
	quarantineRowsMax  = 100_000
	quarantineBytesMax = 64 << 20
)

// States of a quarantined row.
const (
	StateOpen     = "open"     // it counts, and nobody has dealt with it
	StateResolved = "resolved" // a retry brought the record into the table
	// StatePending: its epoch has not been committed. The run that wrote it is under way, or has ended before its
	// commit; then the next run covers its record again.
	StatePending = "pending"
	// StateSuperseded: another epoch covered its record and did not refuse it. The row vanishes with the next maintenance.
	StateSuperseded = "superseded"
)

// QuarantineRow is a record that did not fit.
type QuarantineRow struct {
	Table      string `json:"table"`
	Source     string `json:"source"`
	Origin     string `json:"origin"`
	Position   int64  `json:"position"`
	Generation int64  `json:"generation"`
	File       string `json:"file,omitempty"`
	Line       int64  `json:"line,omitempty"`
	Topic      string `json:"topic,omitempty"`
	Partition  int32  `json:"partition,omitempty"`
	Offset     int64  `json:"offset,omitempty"`
	Rule       string `json:"rule"`
	Reason     string `json:"reason"`
	// Raw is the record's text where it is at most pipeline.RawBytesMax long; of a longer one RawOffset and RawBytes
	// say where it stands in the (decompressed) file.
	Raw string `json:"raw"`
	// RawBinary is a stream's message where Raw cannot be exactly that: no UTF-8, or empty and no tombstone.
	RawBinary     []byte     `json:"raw_binary,omitzero"`
	Key           []byte     `json:"message_key,omitzero"`   // of a stream's message
	MessageTime   *time.Time `json:"message_time,omitempty"` // of a stream's message
	RawBytes      int64      `json:"raw_bytes"`
	RawOffset     int64      `json:"raw_offset"`
	Plan          string     `json:"plan"`
	Epoch         int64      `json:"epoch"`
	Progress      string     `json:"progress"`
	QuarantinedAt time.Time  `json:"quarantined_at"`
	ResolvedAt    *time.Time `json:"resolved_at,omitempty"`
	State         string     `json:"state"`
}

// MarshalJSON leaves out of a file's record what only a stream's has, and nothing of that: 0 is a partition and an offset. A
// message's time of which JSON has no text is left out, too.
func (r QuarantineRow) MarshalJSON() ([]byte, error) {
	type row QuarantineRow
	if r.MessageTime != nil && markTime(*r.MessageTime).IsZero() {
		r.MessageTime = nil
	}
	if r.Topic == "" {
		return json.Marshal(row(r))
	}
	return json.Marshal(struct {
		row
		Partition int32 `json:"partition"`
		Offset    int64 `json:"offset"`
	}{row(r), r.Partition, r.Offset})
}

// QuarantineFilter selects quarantined rows; the zero value selects every open one.
type QuarantineFilter struct {
	Source string
	Table  string
	Rule   string
	Origin string
	// All selects resolved, pending and superseded rows too.
	All   bool
	Limit int // 0: no limit
}

func (f QuarantineFilter) selects(r *QuarantineRow) bool {
	return (f.Source == "" || f.Source == r.Source) && (f.Table == "" || strings.EqualFold(f.Table, r.Table)) &&
		(f.Rule == "" || f.Rule == r.Rule) && (f.Origin == "" || f.Origin == r.Origin)
}

// putQuarantine writes the bad rows of an epoch, naming its progress file, and gives the number of commits and that of
// rows by rule.
func (l *Lake) putQuarantine(ctx context.Context, c *epochCommit, progress string) (commits int64, rules map[string]int64, err error) {
	t, err := l.catalog.Ensure(ctx, catalog.Quarantine)
	if err != nil {
		return 0, nil, err
	}
	w := l.newQuarantineWriter(t)
	defer w.release()
	rules = map[string]int64{}
	for bad, err := range c.result.Bad {
		if err != nil {
			return w.commits, nil, err
		}
		rules[bad.Rule]++
		row := c.row(bad, progress)
		if err := w.add(ctx, row); err != nil {
			return w.commits, nil, err
		}
	}
	return w.commits, rules, w.flush(ctx)
}

func (c *epochCommit) row(b pipeline.BadRow, progress string) *QuarantineRow {
	r := &QuarantineRow{
		Table: c.plan.Table.Name, Source: c.source.Name, Origin: b.Origin, Position: b.Position, Generation: b.Generation,
		File: b.File, Line: b.Line, Topic: b.Topic, Partition: b.Partition, Offset: b.Offset,
		Rule: b.Rule, Reason: b.Reason, Raw: b.Raw, RawBinary: b.RawBinary, Key: b.Key, RawBytes: b.RawBytes, RawOffset: b.RawOffset,
		Plan: c.plan.Hash, Epoch: c.cover.Epoch, Progress: c.log.key(progress), QuarantinedAt: c.at,
	}
	if !b.Time.IsZero() {
		r.MessageTime = &b.Time
	}
	if max := pipeline.RawBytesMax; len(r.Raw) > max {
		r.Raw = strings.ToValidUTF8(r.Raw[:max], "")
	}
	return r
}

// quarantineWriter merges rows into the quarantine table, and removes others, in bounded pieces.
type quarantineWriter struct {
	l       *Lake
	table   *delta.Table
	schema  *arrow.Schema
	build   *array.RecordBuilder
	seen    map[quarantineID]bool // ids of the current piece; the last row of an id would be as good as the first
	bytes   int
	gone    *array.RecordBuilder // ids of the rows that the current piece removes
	goneN   int
	commits int64
}

// goneSchema has the columns of quarantineKey.
var goneSchema = arrow.NewSchema([]arrow.Field{
	{Name: "source", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "origin", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "position", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	{Name: "rule", Type: arrow.BinaryTypes.String, Nullable: true},
}, nil)

func (l *Lake) newQuarantineWriter(t *delta.Table) *quarantineWriter {
	s := catalog.QuarantineSchema().Arrow()
	return &quarantineWriter{
		l: l, table: t, schema: s, build: array.NewRecordBuilder(memory.DefaultAllocator, s), seen: map[quarantineID]bool{},
		gone: array.NewRecordBuilder(memory.DefaultAllocator, goneSchema),
	}
}

func (w *quarantineWriter) release() {
	w.build.Release()
	w.gone.Release()
}

// quarantineID is a row's id.
type quarantineID struct {
	source, origin string
	position       int64
	rule           string
}

func (r *QuarantineRow) id() quarantineID {
	return quarantineID{source: r.Source, origin: r.Origin, position: r.Position, rule: r.Rule}
}

// remove removes rows, in the commit of the row that is added next.
func (w *quarantineWriter) remove(ids ...quarantineID) {
	for _, id := range ids {
		w.gone.Field(0).(*array.StringBuilder).Append(id.source)
		w.gone.Field(1).(*array.StringBuilder).Append(id.origin)
		w.gone.Field(2).(*array.Int64Builder).Append(id.position)
		w.gone.Field(3).(*array.StringBuilder).Append(id.rule)
	}
	w.goneN += len(ids)
}

func (w *quarantineWriter) add(ctx context.Context, r *QuarantineRow) error {
	id := r.id()
	if w.seen[id] {
		return nil
	}
	w.seen[id] = true
	w.bytes += len(r.Raw) + len(r.RawBinary) + len(r.Reason) + 200
	isFile := r.Topic == ""
	for i, v := range []any{
		r.Table, r.Source, r.Origin, r.Position, r.Generation, opt(r.File, isFile), opt(r.Line, isFile),
		opt(r.Topic, !isFile), opt(r.Partition, !isFile), opt(r.Offset, !isFile),
		r.Rule, r.Reason, r.Raw, r.RawBytes, opt(r.RawOffset, isFile), r.Plan, r.Epoch, r.Progress, &r.QuarantinedAt, r.ResolvedAt,
		r.RawBinary, r.Key, r.MessageTime,
	} {
		switch b := w.build.Field(i).(type) {
		case *array.StringBuilder:
			if v == nil {
				b.AppendNull()
			} else {
				b.Append(strings.ToValidUTF8(v.(string), "\uFFFD"))
			}
		case *array.Int64Builder:
			if v == nil {
				b.AppendNull()
			} else {
				b.Append(v.(int64))
			}
		case *array.Int32Builder:
			if v == nil {
				b.AppendNull()
			} else {
				b.Append(v.(int32))
			}
		case *array.BinaryBuilder:
			if bytes := v.([]byte); bytes == nil {
				b.AppendNull()
			} else {
				b.Append(bytes)
			}
		case *array.TimestampBuilder:
			if at := v.(*time.Time); at == nil {
				b.AppendNull()
			} else {
				b.Append(arrow.Timestamp(at.UnixMicro()))
			}
		default:
			return fmt.Errorf("BUG: quarantine column %s has type %T", w.schema.Field(i).Name, b)
		}
	}
	if len(w.seen) >= quarantineRowsMax || w.bytes >= quarantineBytesMax {
		return w.flush(ctx)
	}
	return nil
}

// opt gives nil, which is stored as null, for what does not apply.
func opt[T any](v T, applies bool) any {
	if applies {
		return v
	}
	return nil
}

func (w *quarantineWriter) flush(ctx context.Context) error {
	if len(w.seen) == 0 && w.goneN == 0 {
		return nil
	}
	rows, gone := memoryRows(w.schema, w.build), memoryRows(goneSchema, w.gone)
	defer rows.Close()
	defer gone.Close()
	o := delta.MergeOptions{Key: quarantineKey}
	if w.goneN > 0 {
		o.Replace = &delta.Replace{Columns: quarantineKey, Rows: gone}
	}
	if len(w.seen) == 0 {
		o.Operation = "DELETE"
	}
	clear(w.seen)
	w.bytes, w.goneN = 0, 0
	m, err := w.table.Merge(ctx, rows, o)
	if err == nil {
		w.commits++
		w.l.observe.quarantined(m)
	}
	return err
}

// incarnationOf reads the incarnation out of a progress folder.
func incarnationOf(dir string) (string, bool) {
	s, err := url.PathUnescape(path.Base(strings.TrimSuffix(dir, "/")))
	return s, err == nil && strings.HasPrefix(dir, ProgressPath+"/")
}

// quarantineTable is a version of the quarantine table.
type quarantineTable struct {
	table *delta.Table
	snap  *delta.Snapshot // nil: there is none
}

func (l *Lake) openQuarantine(ctx context.Context) (*quarantineTable, error) {
	t, err := l.catalog.Open(ctx, catalog.Quarantine)
	if errors.Is(err, delta.ErrNotATable) {
		return &quarantineTable{}, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := t.Snapshot(ctx)
	return &quarantineTable{table: t, snap: s}, err
}

// quarantineRows reads the quarantine table; nothing where it does not exist. State is not set.
func (l *Lake) quarantineRows(ctx context.Context, columns ...string) iter.Seq2[*QuarantineRow, error] {
	return func(yield func(*QuarantineRow, error) bool) {
		q, err := l.openQuarantine(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		q.rows(ctx, delta.ScanOptions{Columns: columns}, nil)(yield)
	}
}

// rows reads the rows whose id is wanted; nil: all. State is not set.
func (q *quarantineTable) rows(ctx context.Context, o delta.ScanOptions, wanted func(quarantineID) bool) iter.Seq2[*QuarantineRow, error] {
	return func(yield func(*QuarantineRow, error) bool) {
		if q.snap == nil {
			return
		}
		for b, err := range q.table.Scan(ctx, q.snap, o) {
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range int(b.NumRows()) {
				r := new(QuarantineRow)
				set := func(key bool) {
					for c, f := range b.Schema().Fields() {
						if slices.Contains(quarantineKey, f.Name) == key {
							r.set(f.Name, b.Column(c), i)
						}
					}
				}
				set(true)
				if wanted != nil && !wanted(r.id()) {
					continue // before its text is copied
				}
				set(false)
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// set takes one value of a stored row.
func (r *QuarantineRow) set(column string, a arrow.Array, i int) {
	if a.IsNull(i) {
		return
	}
	switch a := a.(type) {
	case *array.String:
		v := strings.Clone(a.Value(i))
		switch column {
		case "table":
			r.Table = v
		case "source":
			r.Source = v
		case "origin":
			r.Origin = v
		case "file":
			r.File = v
		case "topic":
			r.Topic = v
		case "rule":
			r.Rule = v
		case "reason":
			r.Reason = v
		case "raw":
			r.Raw = v
		case "plan":
			r.Plan = v
		case "progress":
			r.Progress = v
		}
	case *array.Int64:
		v := a.Value(i)
		switch column {
		case "position":
			r.Position = v
		case "generation":
			r.Generation = v
		case "line":
			r.Line = v
		case "offset":
			r.Offset = v
		case "raw_bytes":
			r.RawBytes = v
		case "raw_offset":
			r.RawOffset = v
		case "epoch":
			r.Epoch = v
		}
	case *array.Binary:
		v := append([]byte{}, a.Value(i)...) // what is empty is not null: not nil
		switch column {
		case "raw_binary":
			r.RawBinary = v
		case "message_key":
			r.Key = v
		}
	case *array.Int32:
		if column == "partition" {
			r.Partition = a.Value(i)
		}
	case *array.Timestamp:
		at := a.Value(i).ToTime(arrow.Microsecond)
		switch column {
		case "quarantined_at":
			r.QuarantinedAt = at
		case "resolved_at":
			r.ResolvedAt = &at
		case "message_time":
			r.MessageTime = &at
		}
	}
}

// heldRow is a row of quarantine without its text: those of a whole table fit into memory.
type heldRow struct {
	quarantineID
	place string // its file or topic
	at    int64  // when it was quarantined, in µs since the epoch
	bytes int64  // about those of its text
	state string
}

// heldColumns are what it takes to judge a row, and to know its place and size.
var heldColumns = append(slices.Clone(judgedColumns), "file", "raw_bytes", "quarantined_at")

// held lists the rows that a filter selects, but for its limit, and gives the version of the table that has them.
func (l *Lake) held(ctx context.Context, f QuarantineFilter) (*quarantineTable, []heldRow, error) {
	q, err := l.openQuarantine(ctx)
	if err != nil {
		return nil, nil, err
	}
	j := l.newJudge()
	texts := map[string]string{}
	shared := func(s string) string { // most rows repeat those of others
		if _, ok := texts[s]; !ok {
			texts[s] = s
		}
		return texts[s]
	}
	var out []heldRow
	for r, err := range q.rows(ctx, delta.ScanOptions{Columns: heldColumns}, nil) {
		if err != nil {
			return nil, nil, err
		}
		if !f.selects(r) {
			continue
		}
		if err := j.judge(ctx, r); err != nil {
			return nil, nil, err
		}
		if !f.All && r.State != StateOpen {
			continue
		}
		out = append(out, heldRow{
			quarantineID: quarantineID{source: shared(r.Source), origin: shared(r.Origin), position: r.Position, rule: shared(r.Rule)},
			place:        shared(r.File + r.Topic), at: r.QuarantinedAt.UnixMicro(), bytes: min(r.RawBytes, int64(pipeline.RawBytesMax)) + 200, state: r.State,
		})
	}
	return q, out, nil
}

// fetch reads rows whole, in the order in which they are given.
func (q *quarantineTable) fetch(ctx context.Context, held []heldRow) ([]QuarantineRow, error) {
	if len(held) == 0 {
		return nil, nil
	}
	at := make(map[quarantineID]int, len(held))
	from, to := held[0], held[0]
	for i, h := range held {
		at[h.quarantineID] = i
		from.origin, to.origin = min(from.origin, h.origin), max(to.origin, h.origin)
		from.at, to.at = min(from.at, h.at), max(to.at, h.at)
	}
	where := delta.And(
		delta.Compare{Column: "origin", Op: ">=", Value: from.origin}, delta.Compare{Column: "origin", Op: "<=", Value: to.origin},
		delta.Compare{Column: "quarantined_at", Op: ">=", Value: time.UnixMicro(from.at).UTC()}, delta.Compare{Column: "quarantined_at", Op: "<=", Value: time.UnixMicro(to.at).UTC()},
	)
	out := make([]QuarantineRow, len(held))
	wanted := func(id quarantineID) bool { _, ok := at[id]; return ok }
	for r, err := range q.rows(ctx, delta.ScanOptions{Where: where}, wanted) {
		if err != nil {
			return nil, err
		}
		i := at[r.id()]
		r.State = held[i].state
		out[i] = *r
	}
	return out, nil
}

// QuarantineShow lists quarantined rows, in the order in which they were found.
func (l *Lake) QuarantineShow(ctx context.Context, f QuarantineFilter) ([]QuarantineRow, error) {
	q, held, err := l.held(ctx, f)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(held, func(a, b heldRow) int {
		return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.place, b.place), cmp.Compare(a.position, b.position))
	})
	if f.Limit > 0 && len(held) > f.Limit {
		held = held[:f.Limit]
	}
	return q.fetch(ctx, held)
}

// judge decides which quarantined rows count.
type judge struct {
	l      *Lake
	states map[string]*judged // by progress folder
	won    map[string]bool    // by progress file
}

type judged struct {
	log   *progressLog
	snap  *delta.Snapshot
	state *progressState
	cover map[int64]*EpochFile // winners that have been looked at
}

func (l *Lake) newJudge() *judge {
	return &judge{l: l, states: map[string]*judged{}, won: map[string]bool{}}
}

// judge sets the row's state. The rule is about content, not about who wrote last, because two runs that read the same
// record write the same row and overwrite each other's: a row counts if its progress file won, or if whichever epoch
// covered its record last had the same plan, since that one refused the record too.
func (j *judge) judge(ctx context.Context, r *QuarantineRow) error {
	if r.ResolvedAt != nil {
		r.State = StateResolved
		return nil
	}
	r.State = StateOpen
	dir, file := path.Split(r.Progress)
	s, err := j.progress(ctx, r, dir)
	if err != nil {
		return err
	}
	if s == nil {
		return nil // of a source that the lake file no longer has: nothing can be said against the row
	}
	if r.Topic == "" {
		m, covered := s.state.origins[r.Origin]
		_, replaced := s.state.replaced[r.Origin]
		switch {
		case covered && (m.File == file || m.Plan == r.Plan):
		case covered && r.Epoch < m.Epoch, replaced:
			r.State = StateSuperseded
		default:
			won, err := j.hasWon(ctx, s, r, file)
			if err != nil {
				return err
			}
			if !won {
				r.State = StatePending
				if covered {
					r.State = StateSuperseded
				}
			}
		}
		return nil
	}
	won, err := j.hasWon(ctx, s, r, file)
	if err != nil || won {
		return err
	}
	if p, ok := s.state.positions[r.Partition]; !ok || p.Offset < r.Offset {
		r.State = StatePending
		return nil
	}
	e, err := j.covering(ctx, s, r)
	if err != nil {
		return err
	}
	if e != nil && e.Plan != r.Plan {
		r.State = StateSuperseded
	}
	return nil
}

// progress gives the state of the progress folder that a row names; nil if its table is no longer the lake's.
func (j *judge) progress(ctx context.Context, r *QuarantineRow, dir string) (*judged, error) {
	if s, ok := j.states[dir]; ok {
		return s, nil
	}
	j.states[dir] = nil
	if j.l.lake.Table(r.Table) == nil {
		return nil, nil
	}
	t, err := j.l.catalog.Open(ctx, r.Table)
	if errors.Is(err, delta.ErrNotATable) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	incarnation, ok := incarnationOf(dir)
	if !ok {
		return nil, nil
	}
	s := &judged{log: j.l.progressLog(r.Source, incarnation), cover: map[int64]*EpochFile{}}
	if s.snap, err = t.Snapshot(ctx); err != nil {
		return nil, err
	}
	if s.state, err = s.log.load(ctx, s.snap); err != nil {
		return nil, err
	}
	j.states[dir] = s
	return s, nil
}

func (j *judge) hasWon(ctx context.Context, s *judged, r *QuarantineRow, file string) (bool, error) {
	if won, ok := j.won[r.Progress]; ok {
		return won, nil
	}
	if r.Epoch > s.state.epoch {
		return false, nil
	}
	name, err := s.log.winner(ctx, s.snap, r.Epoch)
	if err != nil {
		return false, err
	}
	j.won[r.Progress] = name == file
	return name == file, nil
}

// covering finds the winner that covered the offset of a stream's row; nil if it is not found within a bound.
func (j *judge) covering(ctx context.Context, s *judged, r *QuarantineRow) (*EpochFile, error) {
	const epochsMax = 1000
	for n := r.Epoch; n <= s.state.epoch && n < r.Epoch+epochsMax; n++ {
		e, ok := s.cover[n]
		if !ok {
			name, err := s.log.winner(ctx, s.snap, n)
			if err != nil {
				return nil, err
			}
			if name != "" {
				e = new(EpochFile)
				if err := s.log.readJSON(ctx, name, e); errors.Is(err, errNoProgress) {
					e = nil
				} else if err != nil {
					return nil, err
				}
			}
			s.cover[n] = e
		}
		if e == nil {
			continue
		}
		for _, g := range e.Ranges {
			if g.Partition == r.Partition && g.From <= r.Offset && r.Offset <= g.To {
				return e, nil
			}
		}
	}
	return nil, nil
}

// judgedColumns are what it takes to judge a row.
var judgedColumns = []string{"table", "source", "origin", "position", "topic", "partition", "offset", "rule", "plan", "epoch", "progress", "resolved_at"}

// purgeQuarantine deletes the superseded rows of a source: of the given origins, or of all where none are given.
func (l *Lake) purgeQuarantine(ctx context.Context, source string, origins []string) error {
	j := l.newJudge()
	var gone []quarantineID
	for r, err := range l.quarantineRows(ctx, judgedColumns...) {
		if err != nil {
			return err
		}
		if r.Source != source || (origins != nil && !slices.Contains(origins, r.Origin)) {
			continue
		}
		if err := j.judge(ctx, r); err != nil {
			return err
		}
		if r.State == StateSuperseded {
			gone = append(gone, r.id())
		}
	}
	return l.deleteQuarantine(ctx, gone)
}

// deleteQuarantine removes rows by their id.
func (l *Lake) deleteQuarantine(ctx context.Context, gone []quarantineID) error {
	if len(gone) == 0 {
		return nil
	}
	t, err := l.catalog.Open(ctx, catalog.Quarantine)
	if err != nil {
		return err
	}
	w := l.newQuarantineWriter(t)
	defer w.release()
	w.remove(gone...)
	return w.flush(ctx)
}
