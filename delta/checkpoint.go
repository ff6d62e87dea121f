package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/objstore"
)

// checkpointBatchRows bounds the rows of a checkpoint that are held as Arrow data at a time.
const checkpointBatchRows = 8192

// sidecar names a file of a V2 checkpoint that holds file actions (PROTOCOL.md, "Sidecar File Information").
type sidecar struct {
	Path             string `json:"path"`
	SizeInBytes      int64  `json:"sizeInBytes"`
	ModificationTime int64  `json:"modificationTime"` // ms since the epoch
}

// checkpointMetadata says that a checkpoint follows the V2 spec (PROTOCOL.md, "Checkpoint Metadata").
type checkpointMetadata struct {
	Version Version           `json:"version"`
	Tags    map[string]string `json:"tags,omitempty"`
}

// checkpointAction is one row of a checkpoint: exactly one member, of wireAction or of its own, is set.
type checkpointAction struct {
	wireAction
	Sidecar            *sidecar            `json:"sidecar,omitempty"`
	CheckpointMetadata *checkpointMetadata `json:"checkpointMetadata,omitempty"`
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
				ID:           meta.str("id", i),
				Format:       Format{Provider: format.str("provider", i), Options: flatten(format.strMap("options", i))},
				SchemaString: meta.str("schemaString", i), PartitionColumns: meta.strList("partitionColumns", i),
				CreatedTime: meta.intPtr("createdTime", i),
			}
			a.Metadata.setNames(meta.strPtr("name", i), meta.strPtr("description", i))
			a.Metadata.setConfiguration(meta.strMap("configuration", i))
			if a.Metadata.Configuration == nil {
				a.Metadata.Configuration = map[string]string{}
			}
		case protocol.valid(i):
			a.Protocol = &Protocol{
				MinReaderVersion: int(protocol.int("minReaderVersion", i)), MinWriterVersion: int(protocol.int("minWriterVersion", i)),
				ReaderFeatures: protocol.strList("readerFeatures", i), WriterFeatures: protocol.strList("writerFeatures", i),
			}
		case domain.valid(i):
			a.DomainMetadata = &DomainMetadata{Domain: domain.str("domain", i), Configuration: domain.str("configuration", i), Removed: domain.bool("removed", i)}
		case side.valid(i):
			a.Sidecar = &sidecar{Path: side.str("path", i), SizeInBytes: side.int("sizeInBytes", i), ModificationTime: side.int("modificationTime", i)}
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

// objectReader reads an object of a known size at random, as the Parquet library wants it. It remembers the first
// error of the store, which is not a fault of the bytes.
type objectReader struct {
	ctx   context.Context // of one reading; the Parquet library passes none
	store objstore.Store
	key   string
	size  int64
	pos   int64

	mu    sync.Mutex
	err   error
	pages map[int64][]byte // by number; nil: the store is local, where a small read costs little
}

// A store of another machine is read in pages: the Parquet library asks for a few bytes at a time, and each request
// costs a round trip and money. pagesMax bounds what is kept.
const (
	pageBytes = 1 << 20
	pagesMax  = 16
)

// page gives a page of the object.
func (r *objectReader) page(n int64) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b, ok := r.pages[n]; ok {
		return b, nil
	}
	b, err := r.store.GetRange(r.ctx, r.key, n*pageBytes, min(pageBytes, r.size-n*pageBytes))
	if err != nil {
		return nil, err
	}
	for k := range r.pages {
		if len(r.pages) < pagesMax {
			break
		}
		delete(r.pages, k)
	}
	r.pages[n] = b
	return b, nil
}

// read reads n bytes at off, all of which lie in the object.
func (r *objectReader) read(off, n int64) ([]byte, error) {
	if r.pages == nil || n >= pageBytes {
		return r.store.GetRange(r.ctx, r.key, off, n)
	}
	out := make([]byte, 0, n)
	for int64(len(out)) < n {
		at := off + int64(len(out))
		b, err := r.page(at / pageBytes)
		if err != nil {
			return nil, err
		}
		in := at % pageBytes
		if in >= int64(len(b)) {
			break
		}
		out = append(out, b[in:min(int64(len(b)), in+n-int64(len(out)))]...)
	}
	return out, nil
}

// failed gives the first error of the store.
func (r *objectReader) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func newObjectReader(ctx context.Context, store objstore.Store, key string, size int64) *objectReader {
	r := &objectReader{ctx: ctx, store: store, key: key, size: size}
	if _, local := store.(objstore.LocalPather); !local {
		r.pages = map[int64][]byte{}
	}
	return r
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
	b, err := r.read(off, want)
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
