package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/objstore"
)

// checkpointBatchRows bounds the rows of a checkpoint that are held as Arrow data at a time.
const checkpointBatchRows = 8192

// checkpointGroupRows are the rows of a row group of the checkpoints written here.
const checkpointGroupRows = 1 << 15

// sidecar names a file of a V2 checkpoint that holds file actions (PROTOCOL.md, "Sidecar File Information").
type sidecar struct {
	Path        string
	SizeInBytes int64
}

// checkpointAction is one row of a checkpoint: exactly one member of wireAction or Sidecar is set.
type checkpointAction struct {
	wireAction
	Sidecar *sidecar
}

// readCheckpointFile yields the actions of one Parquet checkpoint file: classic, one part of several, V2 top level or
// sidecar (PROTOCOL.md, "Checkpoints"). Rows are streamed; each is called with actions that share no memory with the
// file. An error of each ends the reading and is returned as it is.
func readCheckpointFile(ctx context.Context, store objstore.Store, key string, each func(*checkpointAction) error) error {
	_, err := readCheckpointAdds(ctx, store, key, false, each)
	return err
}

// readCheckpointAdds is readCheckpointFile, but with columnar it reads the adds column by column into chunks where the
// file allows it; each is then called for the other actions only.
func readCheckpointAdds(ctx context.Context, store objstore.Store, key string, columnar bool, each func(*checkpointAction) error) (chunks []*fileChunk, err error) {
	// The Parquet library panics on some malformed files; foreign bytes must not take the process down.
	defer func() {
		if p := recover(); p != nil {
			err = &CorruptError{Key: key, Err: fmt.Errorf("checkpoint: %v", p)}
		}
	}()
	info, err := store.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	obj := newObjectReader(ctx, store, key, info.Size)
	corrupt := func(err error) error {
		if serr := obj.failed(); serr != nil { // the store failed, the bytes are not to blame
			return serr
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &CorruptError{Key: key, Err: err}
	}
	pf, err := file.NewParquetReader(obj)
	if err != nil {
		return nil, corrupt(err)
	}
	defer pf.Close()
	cols, err := checkpointColumns(pf)
	if err != nil {
		return nil, corrupt(err)
	}
	adds, ok := addColumns(pf)
	if !columnar || !ok {
		return nil, readCheckpointRows(ctx, pf, cols, nil, corrupt, each)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = &CorruptError{Key: key, Err: fmt.Errorf("checkpoint: %v", p)}
			}
		}()
		if chunks, err = readAddColumns(gctx, pf, adds); err != nil {
			return corrupt(err)
		}
		return nil
	})
	for rg := range pf.NumRowGroups() {
		if rest := otherColumns(pf, rg, cols); len(rest) > 0 {
			if err := readCheckpointRows(gctx, pf, rest, []int{rg}, corrupt, each); err != nil {
				return nil, errors.Join(err, g.Wait())
			}
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return chunks, nil
}

// otherColumns are the columns that do not belong to add and hold a value in the row group.
func otherColumns(pf *file.Reader, rowGroup int, cols []int) []int {
	meta, sc := pf.MetaData().RowGroup(rowGroup), pf.MetaData().Schema
	holds := map[string]bool{}
	for _, c := range cols {
		member := sc.Column(c).ColumnPath()[0]
		if member == "add" || holds[member] {
			continue
		}
		chunk, err := meta.ColumnChunk(c)
		if err != nil {
			holds[member] = true
			continue
		}
		st, err := chunk.Statistics()
		holds[member] = err != nil || st == nil || !st.HasNullCount() || st.NullCount() < chunk.NumValues()
	}
	var out []int
	for _, c := range cols {
		if holds[sc.Column(c).ColumnPath()[0]] {
			out = append(out, c)
		}
	}
	return out
}

// readCheckpointRows yields the actions in some columns and row groups (nil: all).
func readCheckpointRows(ctx context.Context, pf *file.Reader, cols, rowGroups []int, corrupt func(error) error, each func(*checkpointAction) error) error {
	fr, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: checkpointBatchRows}, memory.DefaultAllocator)
	if err != nil {
		return corrupt(err)
	}
	rr, err := fr.GetRecordReader(ctx, cols, rowGroups)
	if err != nil {
		return corrupt(err)
	}
	defer rr.Release()
	for rr.Next() {
		if err := eachCheckpointRow(rr.RecordBatch(), each); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err := rr.Err(); err != nil && !errors.Is(err, io.EOF) {
		return corrupt(err)
	}
	return nil
}

// checkpointMembers are the top-level columns of a checkpoint that state is read from.
var checkpointMembers = map[string]bool{
	"txn": true, "add": true, "remove": true, "metaData": true, "protocol": true, "domainMetadata": true, "sidecar": true,
}

// checkpointColumns lists the leaf columns to read: those of the known actions, without what only repeats other
// columns in another form (add.partitionValues_parsed; add.stats_parsed where add.stats is there).
func checkpointColumns(pf *file.Reader) ([]int, error) {
	sc := pf.MetaData().Schema
	hasStats := false
	for i := range sc.NumColumns() {
		if p := sc.Column(i).ColumnPath(); len(p) == 2 && p[0] == "add" && p[1] == "stats" {
			hasStats = true
		}
	}
	var cols []int
	for i := range sc.NumColumns() {
		p := sc.Column(i).ColumnPath()
		switch {
		case len(p) < 2 || !checkpointMembers[p[0]]:
		case p[0] == "add" && p[1] == "partitionValues_parsed":
		case p[0] == "add" && p[1] == "stats_parsed" && hasStats:
		case p[0] == "remove" && (p[1] == "stats" || p[1] == "tags"):
		default:
			cols = append(cols, i)
		}
	}
	if len(cols) == 0 {
		return nil, errors.New("no column of a checkpoint")
	}
	return cols, nil
}

// eachCheckpointRow turns the rows of a batch into actions.
func eachCheckpointRow(rec arrow.RecordBatch, each func(*checkpointAction) error) error {
	col := func(name string) structColumn {
		for i, f := range rec.Schema().Fields() {
			if f.Name == name {
				s, _ := rec.Column(i).(*array.Struct)
				if s != nil && s.NullN() == s.Len() {
					return structColumn{}
				}
				return newStructColumn(s)
			}
		}
		return structColumn{}
	}
	txn, add, remove, meta := col("txn"), col("add"), col("remove"), col("metaData")
	protocol, domain, side := col("protocol"), col("domainMetadata"), col("sidecar")
	addDV, removeDV, format := add.structColumn("deletionVector"), remove.structColumn("deletionVector"), meta.structColumn("format")
	for i := range int(rec.NumRows()) {
		var a checkpointAction
		switch {
		case add.valid(i):
			stats := add.str("stats", i)
			if stats == "" {
				stats = parsedStats(add.fields["stats_parsed"], i)
			}
			a.Add = &Add{
				Path: add.str("path", i), PartitionValues: add.strMap("partitionValues", i), Size: add.int("size", i),
				ModificationTime: add.int("modificationTime", i), DataChange: false, Stats: stats, Tags: add.strMap("tags", i),
				DeletionVector: addDV.vector(i), BaseRowID: add.intPtr("baseRowId", i),
				DefaultRowCommitVersion: add.intPtr("defaultRowCommitVersion", i), ClusteringProvider: add.strPtr("clusteringProvider", i),
			}
			if a.Add.Path == "" {
				return &CorruptError{Err: errors.New("checkpoint: add without a path")}
			}
			if a.Add.PartitionValues == nil {
				a.Add.PartitionValues = map[string]*string{}
			}
		case remove.valid(i):
			a.Remove = &Remove{
				Path: remove.str("path", i), DeletionTimestamp: remove.int("deletionTimestamp", i), DataChange: false,
				ExtendedFileMetadata: remove.bool("extendedFileMetadata", i), PartitionValues: remove.strMap("partitionValues", i),
				Size: remove.intPtr("size", i), DeletionVector: removeDV.vector(i), BaseRowID: remove.intPtr("baseRowId", i),
				DefaultRowCommitVersion: remove.intPtr("defaultRowCommitVersion", i),
			}
			if a.Remove.Path == "" {
				return &CorruptError{Err: errors.New("checkpoint: remove without a path")}
			}
		case txn.valid(i):
			a.Txn = &Txn{AppID: txn.str("appId", i), Version: txn.int("version", i), LastUpdated: txn.intPtr("lastUpdated", i)}
		case meta.valid(i):
			a.Metadata = &Metadata{
				ID: meta.str("id", i), Name: meta.str("name", i), Description: meta.str("description", i),
				Format:       Format{Provider: format.str("provider", i), Options: flatten(format.strMap("options", i))},
				SchemaString: meta.str("schemaString", i), PartitionColumns: meta.strList("partitionColumns", i),
				Configuration: flatten(meta.strMap("configuration", i)), CreatedTime: meta.intPtr("createdTime", i),
			}
		case protocol.valid(i):
			a.Protocol = &Protocol{
				MinReaderVersion: int(protocol.int("minReaderVersion", i)), MinWriterVersion: int(protocol.int("minWriterVersion", i)),
				ReaderFeatures: protocol.strList("readerFeatures", i), WriterFeatures: protocol.strList("writerFeatures", i),
			}
		case domain.valid(i):
			a.DomainMetadata = &DomainMetadata{Domain: domain.str("domain", i), Configuration: domain.str("configuration", i), Removed: domain.bool("removed", i)}
		case side.valid(i):
			a.Sidecar = &sidecar{Path: side.str("path", i), SizeInBytes: side.int("sizeInBytes", i)}
		default: // an action this reader does not know, or checkpointMetadata
			continue
		}
		if err := each(&a); err != nil {
			return err
		}
	}
	return nil
}

// structColumn gives the fields of a struct array by name; the zero value has no valid row.
type structColumn struct {
	arr    *array.Struct
	fields map[string]arrow.Array
}

func newStructColumn(s *array.Struct) structColumn {
	c := structColumn{arr: s, fields: map[string]arrow.Array{}}
	if s != nil {
		for i, f := range s.DataType().(*arrow.StructType).Fields() {
			c.fields[f.Name] = s.Field(i)
		}
	}
	return c
}

func (c structColumn) structColumn(name string) structColumn {
	s, _ := c.fields[name].(*array.Struct)
	return newStructColumn(s)
}

// valid reports whether row i holds a value. A writer may give every member of a row a struct whose required field
// (path, id …) is null instead of a null struct; such a struct holds nothing either.
func (c structColumn) valid(i int) bool {
	if c.arr == nil || c.arr.IsNull(i) {
		return false
	}
	for _, f := range c.fields {
		if f.IsValid(i) {
			return true
		}
	}
	return false
}

func (c structColumn) strPtr(name string, i int) *string {
	f := c.fields[name]
	if f == nil || f.IsNull(i) {
		return nil
	}
	s, ok := textAt(f, i)
	if !ok {
		return nil
	}
	return &s
}

func (c structColumn) str(name string, i int) string {
	if p := c.strPtr(name, i); p != nil {
		return *p
	}
	return ""
}

func (c structColumn) intPtr(name string, i int) *int64 {
	f := c.fields[name]
	if f == nil || f.IsNull(i) {
		return nil
	}
	var v int64
	switch f := f.(type) {
	case *array.Int64:
		v = f.Value(i)
	case *array.Int32:
		v = int64(f.Value(i))
	default:
		return nil
	}
	return &v
}

func (c structColumn) int(name string, i int) int64 {
	if p := c.intPtr(name, i); p != nil {
		return *p
	}
	return 0
}

func (c structColumn) bool(name string, i int) bool {
	f, ok := c.fields[name].(*array.Boolean)
	return ok && f.IsValid(i) && f.Value(i)
}

func (c structColumn) strMap(name string, i int) map[string]*string {
	f, ok := c.fields[name].(*array.Map)
	if !ok || f.IsNull(i) {
		return nil
	}
	from, to := f.ValueOffsets(i)
	m := make(map[string]*string, to-from)
	for j := int(from); j < int(to); j++ {
		k, ok := textAt(f.Keys(), j)
		if !ok {
			continue
		}
		if f.Items().IsNull(j) {
			m[k] = nil
		} else if v, ok := textAt(f.Items(), j); ok {
			m[k] = &v
		}
	}
	return m
}

func (c structColumn) strList(name string, i int) []string {
	f, ok := c.fields[name].(*array.List)
	if !ok || f.IsNull(i) {
		return nil
	}
	from, to := f.ValueOffsets(i)
	out := make([]string, 0, to-from)
	for j := int(from); j < int(to); j++ {
		if s, ok := textAt(f.ListValues(), j); ok {
			out = append(out, s)
		}
	}
	return out
}

func (c structColumn) vector(i int) *DeletionVector {
	if !c.valid(i) {
		return nil
	}
	dv := &DeletionVector{
		StorageType: c.str("storageType", i), PathOrInlineDv: c.str("pathOrInlineDv", i),
		SizeInBytes: int32(c.int("sizeInBytes", i)), Cardinality: c.int("cardinality", i),
	}
	if o := c.intPtr("offset", i); o != nil {
		v := int32(*o)
		dv.Offset = &v
	}
	return dv
}

// textAt copies the text at i: the array's memory is freed with its batch.
func textAt(a arrow.Array, i int) (string, bool) {
	if a.IsNull(i) {
		return "", false
	}
	switch a := a.(type) {
	case *array.String:
		return string([]byte(a.Value(i))), true
	case *array.Binary:
		return string(a.Value(i)), true
	case *array.LargeString:
		return string([]byte(a.Value(i))), true
	}
	return "", false
}

func flatten(m map[string]*string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		if v != nil {
			out[k] = *v
		}
	}
	return out
}

// parsedStats gives the JSON form of add.stats_parsed, which a writer may store instead of add.stats
// (PROTOCOL.md, "Checkpoint Schema"; delta.checkpoint.writeStatsAsJson).
func parsedStats(a arrow.Array, i int) string {
	if a == nil || a.IsNull(i) {
		return ""
	}
	v := statsValue(a, i)
	b, err := json.Marshal(v)
	if err != nil {
		return "" // statistics are optional: none is right, wrong is not
	}
	return string(b)
}

// statsValue is the value at i in the form that statistics have in JSON; nil where there is none.
func statsValue(a arrow.Array, i int) any {
	if a.IsNull(i) {
		return nil
	}
	switch a := a.(type) {
	case *array.Struct:
		m := map[string]any{}
		for j, f := range a.DataType().(*arrow.StructType).Fields() {
			if v := statsValue(a.Field(j), i); v != nil {
				m[f.Name] = v
			}
		}
		return m
	case *array.Boolean:
		return a.Value(i)
	case *array.Int8:
		return int64(a.Value(i))
	case *array.Int16:
		return int64(a.Value(i))
	case *array.Int32:
		return int64(a.Value(i))
	case *array.Int64:
		return a.Value(i)
	case *array.Float32:
		return finite(float64(a.Value(i)), 32)
	case *array.Float64:
		return finite(a.Value(i), 64)
	case *array.String:
		return a.Value(i)
	case *array.Date32:
		return a.Value(i).ToTime().Format(time.DateOnly)
	case *array.Timestamp:
		t := a.DataType().(*arrow.TimestampType)
		tm := a.Value(i).ToTime(t.Unit)
		if t.TimeZone == "" {
			return tm.Format("2006-01-02T15:04:05.000000")
		}
		return tm.UTC().Format("2006-01-02T15:04:05.000000Z")
	case *array.Decimal128:
		d := a.DataType().(*arrow.Decimal128Type)
		return json.Number(decimal128.Num(a.Value(i)).ToString(d.Scale))
	}
	return nil
}

func finite(f float64, bits int) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return json.Number(strconv.FormatFloat(f, 'g', -1, bits))
}

// checkpointArrowSchema is the schema of the classic checkpoints written here (PROTOCOL.md, "Checkpoint Schema").
// Tombstones have neither stats nor tags, as the protocol asks.
var checkpointArrowSchema = func() *arrow.Schema {
	str, i64, i32, boolean := arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Int32, arrow.FixedWidthTypes.Boolean
	opt := func(name string, t arrow.DataType) arrow.Field {
		return arrow.Field{Name: name, Type: t, Nullable: true}
	}
	strMap := arrow.MapOf(str, str)
	dv := arrow.StructOf(opt("storageType", str), opt("pathOrInlineDv", str), opt("offset", i32), opt("sizeInBytes", i32), opt("cardinality", i64))
	strList := arrow.ListOf(str)
	return arrow.NewSchema([]arrow.Field{
		opt("txn", arrow.StructOf(opt("appId", str), opt("version", i64), opt("lastUpdated", i64))),
		opt("add", arrow.StructOf(opt("path", str), opt("partitionValues", strMap), opt("size", i64), opt("modificationTime", i64),
			opt("dataChange", boolean), opt("tags", strMap), opt("deletionVector", dv), opt("baseRowId", i64),
			opt("defaultRowCommitVersion", i64), opt("clusteringProvider", str), opt("stats", str))),
		opt("remove", arrow.StructOf(opt("path", str), opt("deletionTimestamp", i64), opt("dataChange", boolean),
			opt("extendedFileMetadata", boolean), opt("partitionValues", strMap), opt("size", i64), opt("deletionVector", dv),
			opt("baseRowId", i64), opt("defaultRowCommitVersion", i64))),
		opt("metaData", arrow.StructOf(opt("id", str), opt("name", str), opt("description", str),
			opt("format", arrow.StructOf(opt("provider", str), opt("options", strMap))), opt("schemaString", str),
			opt("partitionColumns", strList), opt("configuration", strMap), opt("createdTime", i64))),
		opt("protocol", arrow.StructOf(opt("minReaderVersion", i32), opt("minWriterVersion", i32),
			opt("readerFeatures", strList), opt("writerFeatures", strList))),
		opt("domainMetadata", arrow.StructOf(opt("domain", str), opt("configuration", str), opt("removed", boolean))),
	}, nil)
}()

// writeCheckpointFile writes a classic checkpoint of one part, whole or not at all, and returns the number of
// actions and the bytes written.
func writeCheckpointFile(ctx context.Context, store objstore.Store, key string, actions iter.Seq[*checkpointAction]) (rows, size int64, err error) {
	pr, pw := io.Pipe()
	put := make(chan error, 1)
	go func() {
		err := store.Put(ctx, key, pr, objstore.PutOptions{})
		pr.CloseWithError(errors.Join(errors.New("checkpoint not stored"), err)) // unblocks the writer when Put gave up
		put <- err
	}()
	count := &countingWriter{w: pw}
	rows, err = encodeCheckpoint(count, actions)
	pw.CloseWithError(err) // nil: end of file
	if perr := <-put; perr != nil {
		return 0, 0, fmt.Errorf("checkpoint %s: %w", key, perr)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("checkpoint %s: %w", key, err)
	}
	return rows, count.n, nil
}

func encodeCheckpoint(w io.Writer, actions iter.Seq[*checkpointAction]) (rows int64, err error) {
	props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy), parquet.WithDictionaryDefault(true),
		// Bounded in memory when written, and read by several processors.
		parquet.WithMaxRowGroupLength(checkpointGroupRows))
	pw, err := pqarrow.NewFileWriter(checkpointArrowSchema, w, props, pqarrow.NewArrowWriterProperties())
	if err != nil {
		return 0, err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, checkpointArrowSchema)
	defer b.Release()
	pending := 0
	flush := func() error {
		if pending == 0 {
			return nil
		}
		rec := b.NewRecordBatch()
		defer rec.Release()
		pending = 0
		return pw.WriteBuffered(rec)
	}
	for a := range actions {
		appendCheckpointRow(b, a)
		rows++
		if pending++; pending == checkpointBatchRows {
			if err = flush(); err != nil {
				break
			}
		}
	}
	if err == nil {
		err = flush()
	}
	// Close writes the footer; w is a pipe or buffer that the caller closes.
	return rows, errors.Join(err, pw.Close())
}

// appendCheckpointRow appends one row; members that the action does not have become null.
func appendCheckpointRow(b *array.RecordBuilder, a *checkpointAction) {
	member := func(i int, present bool) *array.StructBuilder {
		s := b.Field(i).(*array.StructBuilder)
		if !present {
			s.AppendNull()
			return nil
		}
		s.Append(true)
		return s
	}
	if s := member(0, a.Txn != nil); s != nil {
		appendText(s, 0, a.Txn.AppID)
		appendInt(s, 1, &a.Txn.Version)
		appendInt(s, 2, a.Txn.LastUpdated)
	}
	if s := member(1, a.Add != nil); s != nil {
		f := a.Add
		appendText(s, 0, f.Path)
		appendMap(s, 1, f.PartitionValues, true)
		appendInt(s, 2, &f.Size)
		appendInt(s, 3, &f.ModificationTime)
		s.FieldBuilder(4).(*array.BooleanBuilder).Append(false)
		appendMap(s, 5, f.Tags, false)
		appendVector(s, 6, f.DeletionVector)
		appendInt(s, 7, f.BaseRowID)
		appendInt(s, 8, f.DefaultRowCommitVersion)
		appendTextPtr(s, 9, f.ClusteringProvider)
		if f.Stats == "" {
			s.FieldBuilder(10).AppendNull()
		} else {
			appendText(s, 10, f.Stats)
		}
	}
	if s := member(2, a.Remove != nil); s != nil {
		f := a.Remove
		appendText(s, 0, f.Path)
		appendInt(s, 1, &f.DeletionTimestamp)
		s.FieldBuilder(2).(*array.BooleanBuilder).Append(false)
		s.FieldBuilder(3).(*array.BooleanBuilder).Append(f.ExtendedFileMetadata)
		appendMap(s, 4, f.PartitionValues, false)
		appendInt(s, 5, f.Size)
		appendVector(s, 6, f.DeletionVector)
		appendInt(s, 7, f.BaseRowID)
		appendInt(s, 8, f.DefaultRowCommitVersion)
	}
	if s := member(3, a.Metadata != nil); s != nil {
		m := a.Metadata
		appendText(s, 0, m.ID)
		appendTextOrNull(s, 1, m.Name)
		appendTextOrNull(s, 2, m.Description)
		f := s.FieldBuilder(3).(*array.StructBuilder)
		f.Append(true)
		provider := m.Format.Provider
		if provider == "" {
			provider = "parquet"
		}
		appendText(f, 0, provider)
		appendMap(f, 1, pointers(m.Format.Options), true)
		appendText(s, 4, m.SchemaString)
		appendList(s, 5, m.PartitionColumns, true)
		appendMap(s, 6, pointers(m.Configuration), true)
		appendInt(s, 7, m.CreatedTime)
	}
	if s := member(4, a.Protocol != nil); s != nil {
		p := a.Protocol
		s.FieldBuilder(0).(*array.Int32Builder).Append(int32(p.MinReaderVersion))
		s.FieldBuilder(1).(*array.Int32Builder).Append(int32(p.MinWriterVersion))
		appendList(s, 2, p.ReaderFeatures, p.MinReaderVersion >= 3)
		appendList(s, 3, p.WriterFeatures, p.MinWriterVersion >= 7)
	}
	if s := member(5, a.DomainMetadata != nil); s != nil {
		d := a.DomainMetadata
		appendText(s, 0, d.Domain)
		appendText(s, 1, d.Configuration)
		s.FieldBuilder(2).(*array.BooleanBuilder).Append(d.Removed)
	}
}

func appendText(s *array.StructBuilder, i int, v string) {
	s.FieldBuilder(i).(*array.StringBuilder).Append(v)
}

func appendTextOrNull(s *array.StructBuilder, i int, v string) {
	if v == "" {
		s.FieldBuilder(i).AppendNull()
		return
	}
	appendText(s, i, v)
}

func appendTextPtr(s *array.StructBuilder, i int, v *string) {
	if v == nil {
		s.FieldBuilder(i).AppendNull()
		return
	}
	appendText(s, i, *v)
}

func appendInt(s *array.StructBuilder, i int, v *int64) {
	b := s.FieldBuilder(i).(*array.Int64Builder)
	if v == nil {
		b.AppendNull()
		return
	}
	b.Append(*v)
}

// appendMap appends a map; a nil one becomes null unless the field is required.
func appendMap(s *array.StructBuilder, i int, m map[string]*string, required bool) {
	b := s.FieldBuilder(i).(*array.MapBuilder)
	if m == nil && !required {
		b.AppendNull()
		return
	}
	b.Append(true)
	keys, items := b.KeyBuilder().(*array.StringBuilder), b.ItemBuilder().(*array.StringBuilder)
	for k, v := range m {
		keys.Append(k)
		if v == nil {
			items.AppendNull()
		} else {
			items.Append(*v)
		}
	}
}

func appendList(s *array.StructBuilder, i int, l []string, present bool) {
	b := s.FieldBuilder(i).(*array.ListBuilder)
	if !present {
		b.AppendNull()
		return
	}
	b.Append(true)
	v := b.ValueBuilder().(*array.StringBuilder)
	for _, e := range l {
		v.Append(e)
	}
}

func appendVector(s *array.StructBuilder, i int, dv *DeletionVector) {
	b := s.FieldBuilder(i).(*array.StructBuilder)
	if dv == nil {
		b.AppendNull()
		return
	}
	b.Append(true)
	appendText(b, 0, dv.StorageType)
	appendText(b, 1, dv.PathOrInlineDv)
	if dv.Offset == nil {
		b.FieldBuilder(2).AppendNull()
	} else {
		b.FieldBuilder(2).(*array.Int32Builder).Append(*dv.Offset)
	}
	b.FieldBuilder(3).(*array.Int32Builder).Append(dv.SizeInBytes)
	appendInt(b, 4, &dv.Cardinality)
}

func pointers(m map[string]string) map[string]*string {
	out := make(map[string]*string, len(m))
	for k, v := range m {
		out[k] = &v
	}
	return out
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// objectReader reads an object of a known size at random, as the Parquet library wants it. It remembers the first
// error of the store, which is not a fault of the bytes.
type objectReader struct {
	ctx   context.Context // of one reading; the Parquet library passes none
	store objstore.Store
	key   string
	size  int64
	pos   int64

	mu  sync.Mutex
	err error
}

// failed gives the first error of the store.
func (r *objectReader) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func newObjectReader(ctx context.Context, store objstore.Store, key string, size int64) *objectReader {
	return &objectReader{ctx: ctx, store: store, key: key, size: size}
}

// ReadAt reads len(p) bytes at off; fewer only at the end of the object, with io.EOF.
func (r *objectReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: negative offset %d", r.key, off)
	}
	if off >= r.size {
		return 0, io.EOF
	}
	want := min(int64(len(p)), r.size-off)
	b, err := r.store.GetRange(r.ctx, r.key, off, want)
	if err != nil {
		r.mu.Lock()
		if r.err == nil {
			r.err = err
		}
		r.mu.Unlock()
		return 0, err
	}
	n := copy(p, b)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Read reads on from the current position.
func (r *objectReader) Read(p []byte) (int, error) {
	n, err := r.ReadAt(p, r.pos)
	r.pos += int64(n)
	return n, err
}

// Seek moves the current position.
func (r *objectReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("%s: seek to %d", r.key, offset)
	}
	r.pos = offset
	return offset, nil
}
