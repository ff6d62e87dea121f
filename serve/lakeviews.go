package serve

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/schedule"
)

// changesBytesMax bounds the change feed of one statement, which goes through a file.
const changesBytesMax = 8 << 30

var (
	textType = arrow.BinaryTypes.String
	longType = arrow.PrimitiveTypes.Int64
	timeType = &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
)

func newBatch(fields []arrow.Field) *array.RecordBuilder {
	return array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
}

// lakeView is what the lake tells of itself under a name of the schema lake.
type lakeView struct {
	comment string
	fields  []arrow.Field
	// rows calls add with a value for each field: string, int64, time.Time or nil.
	rows func(ctx context.Context, s *Session, add func(values ...any)) error
}

// systemViews are the views of the schema lake; quarantine is a table beside them.
var systemViews = map[string]*lakeView{
	"versions": {
		"the commits of each table, newest first",
		fieldsOf("table", textType, "version", longType, "committed_at", timeType, "operation", textType, "files_added", longType, "files_removed", longType, "engine", textType, "parameters", textType),
		versionRows,
	},
	"files": {
		"the live data files of each table",
		fieldsOf("table", textType, "version", longType, "path", textType, "partition", textType, "bytes", longType, "rows", longType, "deleted_rows", longType, "modified_at", timeType),
		fileRows,
	},
	"partitions": {
		"each table's partitions: files, bytes, rows",
		fieldsOf("table", textType, "version", longType, "partition", textType, "files", longType, "bytes", longType, "rows", longType, "deleted_rows", longType),
		partitionRows,
	},
	"runs": {
		"the runs of tasks, newest first",
		fieldsOf("id", textType, "task", textType, "trigger", textType, "status", textType, "started_at", timeType, "ended_at", timeType, "attempts", longType, "error", textType),
		runRows,
	},
	"gaps": {
		"ranges of ids that tables with a ledger lack",
		fieldsOf("table", textType, "series", textType, "from_id", longType, "to_id", longType, "ids", longType, "from_day", textType, "to_day", textType, "owner", textType, "why", textType),
		gapRows,
	},
}

// lakeViews gives the relations of the schema lake by name.
var lakeViews = map[string]func(ctx context.Context, s *Session) (duckdb.Relation, error){}

func init() {
	for name, v := range systemViews {
		lakeViews[name] = v.relation
	}
	lakeViews[catalog.Quarantine] = func(ctx context.Context, s *Session) (duckdb.Relation, error) {
		t, ok := s.b.table(s.Role, catalog.Quarantine)
		if !ok {
			return duckdb.Relation{}, errorf(CodePermission, "permission denied for table %s", catalog.Quarantine)
		}
		snap, err := s.snapshot(ctx, t.name)
		if notWritten(err) {
			return emptyRelation(arrowOf(s.b.declared(t))), nil
		}
		return duckdb.Relation{Snapshot: snap, Columns: t.columns}, err
	}
}

func fieldsOf(pairs ...any) []arrow.Field {
	var out []arrow.Field
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, arrow.Field{Name: pairs[i].(string), Type: pairs[i+1].(arrow.DataType), Nullable: true})
	}
	return out
}

func (v *lakeView) relation(ctx context.Context, s *Session) (duckdb.Relation, error) {
	b := newBatch(v.fields)
	defer b.Release()
	err := v.rows(ctx, s, func(values ...any) {
		for i, value := range values {
			appendValue(b.Field(i), value)
		}
	})
	if err != nil {
		return duckdb.Relation{}, err
	}
	rec := b.NewRecordBatch()
	return duckdb.Relation{Schema: rec.Schema(), Rows: []arrow.RecordBatch{rec}}, nil
}

// appendValue appends a string, int64, time.Time or nil to a column of its type.
func appendValue(to array.Builder, value any) {
	switch f := to.(type) {
	case *array.StringBuilder:
		if t, ok := value.(string); ok {
			f.Append(t)
			return
		}
	case *array.Int64Builder:
		if n, ok := value.(int64); ok {
			f.Append(n)
			return
		}
	case *array.Int32Builder:
		if n, ok := value.(int64); ok {
			f.Append(int32(n)) //nolint:gosec // a process id or a port
			return
		}
	case *array.TimestampBuilder:
		if t, ok := value.(time.Time); ok && !t.IsZero() {
			f.Append(arrow.Timestamp(t.UnixMicro()))
			return
		}
	}
	to.AppendNull()
}

// emptyRelation has columns and no rows: what the lake tells of itself before anything happened.
func emptyRelation(schema *arrow.Schema) duckdb.Relation {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	return duckdb.Relation{Schema: schema, Rows: []arrow.RecordBatch{b.NewRecordBatch()}}
}

// notWritten tells whether an error says that nothing has been written to a table yet.
func notWritten(err error) bool {
	var own *Error
	return errors.As(err, &own) && own.Code == CodeTable
}

// eachTable calls f for each table that the session sees and that exists.
func eachTable(ctx context.Context, s *Session, f func(t table, snap *delta.Snapshot) error) error {
	for _, t := range s.b.tables(s.Role) {
		snap, err := s.snapshot(ctx, t.name)
		if notWritten(err) {
			continue
		}
		if err == nil {
			err = f(t, snap)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func versionRows(ctx context.Context, s *Session, add func(...any)) error {
	return eachTable(ctx, s, func(t table, snap *delta.Snapshot) error {
		d, err := s.b.o.Ingest.Catalog().Open(ctx, t.name)
		if err != nil {
			return err
		}
		commits, err := d.History(ctx, 0)
		if err != nil {
			return err
		}
		for _, c := range commits {
			if c.Version > snap.Version() {
				continue // later than the transaction's moment
			}
			var parameters any
			if t.columns == nil { // conditions of statements stand there
				text, err := json.Marshal(c.Info.OperationParameters)
				if err != nil {
					return err
				}
				parameters = string(text)
			}
			add(t.name, int64(c.Version), c.Time, c.Info.Operation, int64(c.FilesAdded), int64(c.FilesRemoved), c.Info.EngineInfo, parameters)
		}
		return nil
	})
}

// partitionText writes a file's partition as its folder would be named.
func partitionText(snap *delta.Snapshot, a *delta.Add) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(a.PartitionValues)) {
		v := "null"
		if p := a.PartitionValues[k]; p != nil {
			v = *p
		}
		name := k
		for _, f := range snap.Schema().Fields {
			if phys, _ := f.Metadata["delta.columnMapping.physicalName"].(string); phys == k {
				name = f.Name
			}
		}
		parts = append(parts, name+"="+v)
	}
	return strings.Join(parts, "/")
}

// fileCounts are the numbers of rows that statistics and deletion vectors tell; nil where they do not.
func fileCounts(a *delta.Add) (rows any, deleted int64) {
	var st struct {
		NumRecords *int64 `json:"numRecords"`
	}
	if a.DeletionVector != nil {
		deleted = a.DeletionVector.Cardinality
	}
	if err := json.Unmarshal([]byte(a.Stats), &st); err == nil && st.NumRecords != nil {
		return *st.NumRecords - deleted, deleted
	}
	return nil, deleted
}

// showsFolders tells whether a role may see the names of a table's partitions: values stand in them, and counts of rows.
func (t *table) showsFolders(snap *delta.Snapshot) bool {
	if t.columns == nil {
		return true
	}
	for _, name := range snap.Metadata().PartitionColumns {
		if !slices.ContainsFunc(t.columns, func(c string) bool { return strings.EqualFold(c, name) }) {
			return false
		}
	}
	return true
}

func fileRows(ctx context.Context, s *Session, add func(...any)) error {
	return eachTable(ctx, s, func(t table, snap *delta.Snapshot) error {
		if !t.showsFolders(snap) {
			return nil
		}
		for _, a := range snap.Adds() {
			rows, deleted := fileCounts(a)
			add(t.name, int64(snap.Version()), a.Path, partitionText(snap, a), a.Size, rows, deleted, time.UnixMilli(a.ModificationTime))
		}
		return nil
	})
}

func partitionRows(ctx context.Context, s *Session, add func(...any)) error {
	type sums struct {
		files, bytes, rows, deleted int64
		unknown                     bool
	}
	return eachTable(ctx, s, func(t table, snap *delta.Snapshot) error {
		if !t.showsFolders(snap) {
			return nil
		}
		parts := map[string]*sums{}
		for _, a := range snap.Adds() {
			name := partitionText(snap, a)
			p := parts[name]
			if p == nil {
				p = &sums{}
				parts[name] = p
			}
			rows, deleted := fileCounts(a)
			n, known := rows.(int64)
			p.files, p.bytes, p.rows, p.deleted, p.unknown = p.files+1, p.bytes+a.Size, p.rows+n, p.deleted+deleted, p.unknown || !known
		}
		for _, name := range slices.Sorted(maps.Keys(parts)) {
			p := parts[name]
			var rows any = p.rows
			if p.unknown {
				rows = nil
			}
			add(t.name, int64(snap.Version()), name, p.files, p.bytes, rows, p.deleted)
		}
		return nil
	})
}

// wholeLake refuses roles that see only some tables what is about all of them.
func wholeLake(s *Session, view string) error {
	if !s.Role.Whole() {
		return errorf(CodePermission, "permission denied for view lake.%s: it is for roles that see every table", view)
	}
	return nil
}

func runRows(_ context.Context, s *Session, add func(...any)) error {
	if err := wholeLake(s, "runs"); err != nil || s.b.o.RunsDir == "" {
		return err
	}
	runs, err := schedule.List(s.b.o.RunsDir, 0)
	if err != nil {
		return err
	}
	for _, r := range runs {
		var failure any
		if r.Error != "" {
			failure = r.Error
		}
		add(r.ID, r.Task, r.Trigger, string(r.Status), r.Started, r.Ended, int64(len(r.Attempts)), failure)
	}
	return nil
}

func gapRows(ctx context.Context, s *Session, add func(...any)) error {
	if err := wholeLake(s, "gaps"); err != nil {
		return err
	}
	report, err := s.b.o.Ingest.Gaps(ctx, ingest.GapsOptions{})
	if err != nil {
		return err
	}
	slices.SortFunc(report.Holes, func(a, b ingest.Hole) int {
		return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Series, b.Series), cmp.Compare(a.From, b.From))
	})
	for _, h := range report.Holes {
		add(h.Table, h.Series, h.From, h.To, h.IDs, h.FromDay, h.ToDay, h.Owner, h.Why)
	}
	return nil
}

// inFeed tells whether a column of the table's change feed may be seen: those that it adds may, and the table's own as ever.
func (t *table) inFeed(name string) bool {
	return t.columns == nil || slices.Contains([]string{delta.ChangeTypeColumn, delta.CommitVersionColumn, delta.CommitTimestampColumn}, name) ||
		slices.ContainsFunc(t.columns, func(c string) bool { return strings.EqualFold(c, name) })
}

// changes is the change feed of a table as a relation; without read only its columns.
func (s *Session) changes(ctx context.Context, t table, o delta.ChangesOptions, read bool) (duckdb.Relation, error) {
	d, err := s.b.o.Ingest.Catalog().Open(ctx, t.name)
	if err != nil {
		return duckdb.Relation{}, s.b.notYet(t.name, err)
	}
	if snap, err := s.snapshot(ctx, t.name); err != nil {
		return duckdb.Relation{}, err
	} else if o.To < 0 || o.To > snap.Version() {
		o.To = snap.Version()
	}
	feed, err := d.Changes(ctx, o)
	if err != nil {
		return duckdb.Relation{}, changesError(t, err)
	}
	var keep []int
	var fields []arrow.Field
	for i, f := range feed.Schema.Arrow().Fields() {
		if t.inFeed(f.Name) {
			keep = append(keep, i)
			fields = append(fields, f)
		}
	}
	rel := duckdb.Relation{Schema: arrow.NewSchema(fields, nil)}
	if !read {
		return rel, nil
	}
	// The form of nested columns is as the reader has it, so the schema of a batch is made of its columns.
	narrow := func(b arrow.RecordBatch) (arrow.RecordBatch, uint64) {
		own, columns, bytes := slices.Clone(fields), make([]arrow.Array, len(keep)), uint64(0)
		for i, at := range keep {
			columns[i] = b.Column(at)
			own[i].Type = columns[i].DataType()
			bytes += columns[i].Data().SizeInBytes()
		}
		return array.NewRecordBatch(arrow.NewSchema(own, nil), columns, b.NumRows()), bytes
	}
	rel.Stream = func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
		return func(yield func(arrow.RecordBatch, error) bool) {
			var sum uint64
			for b, err := range feed.Batches(ctx) {
				if err != nil {
					yield(nil, changesError(t, err))
					return
				}
				out, bytes := narrow(b)
				if sum += bytes; sum > changesBytesMax {
					out.Release()
					yield(nil, errorf(CodeLimit, "table_changes: more than %d GiB of changes; ask for fewer versions", changesBytesMax>>30))
					return
				}
				more := yield(out, nil)
				out.Release()
				if !more {
					return
				}
			}
		}
	}
	return rel, nil
}

func changesError(t table, err error) error {
	e := &Error{Code: CodeInvalidParameter, Message: fmt.Sprintf("table_changes of %s: %v", t.name, err)}
	if errors.Is(err, delta.ErrNoChangeData) {
		e.Hint = "the table's property delta.enableChangeDataFeed makes commits record their changes"
	}
	return e
}
