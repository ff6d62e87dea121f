package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/cauce-data/cauce/objstore"
)

// checkpointGroupRows are the rows of a row group of the checkpoints written here.
const checkpointGroupRows = 1 << 15

// checkpointShape is the form of a Parquet file of a checkpoint (PROTOCOL.md, "Checkpoint Schema").
type checkpointShape struct {
	schema    *arrow.Schema
	stats     bool             // add.stats, JSON (delta.checkpoint.writeStatsAsJson)
	parsed    arrow.DataType   // of add.stats_parsed (delta.checkpoint.writeStatsAsStruct); nil: none
	partition *partitionStruct // of add.partitionValues_parsed; nil: none
}

const (
	propStatsAsJSON   = "delta.checkpoint.writeStatsAsJson"
	propStatsAsStruct = "delta.checkpoint.writeStatsAsStruct"
)

// Kinds of checkpoint file.
const (
	classicFile  = iota // V1 spec: everything
	manifestFile        // V2 spec: everything but file actions, which are in sidecars
	sidecarFile         // V2 spec: file actions alone
)

// plainShape is the shape of a classic checkpoint with statistics as JSON, which is what tables have by default.
var plainShape = newCheckpointShape(classicFile, true, nil, nil)

// checkpointShape is the shape that the table's properties ask for.
func (s *Snapshot) checkpointShape(kind int) *checkpointShape {
	asJSON, asStruct := s.Config(propStatsAsJSON), on(s.metadata, propStatsAsStruct)
	var parsed arrow.DataType
	var partition *partitionStruct
	if asStruct && kind != manifestFile {
		parsed, partition = s.statsStruct(), s.partitionStruct()
	}
	if kind == classicFile && asJSON == "" && parsed == nil {
		return plainShape
	}
	return newCheckpointShape(kind, asJSON == "" || on(s.metadata, propStatsAsJSON), parsed, partition)
}

// newCheckpointShape makes the schema. Tombstones have neither stats nor tags, as the protocol asks.
func newCheckpointShape(kind int, stats bool, parsed arrow.DataType, partition *partitionStruct) *checkpointShape {
	str, i64, i32, boolean := arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Int32, arrow.FixedWidthTypes.Boolean
	opt := func(name string, t arrow.DataType) arrow.Field {
		return arrow.Field{Name: name, Type: t, Nullable: true}
	}
	strMap := arrow.MapOf(str, str)
	dv := arrow.StructOf(opt("storageType", str), opt("pathOrInlineDv", str), opt("offset", i32), opt("sizeInBytes", i32), opt("cardinality", i64))
	strList := arrow.ListOf(str)
	add := []arrow.Field{opt("path", str), opt("partitionValues", strMap), opt("size", i64), opt("modificationTime", i64),
		opt("dataChange", boolean), opt("tags", strMap), opt("deletionVector", dv), opt("baseRowId", i64),
		opt("defaultRowCommitVersion", i64), opt("clusteringProvider", str)}
	if stats {
		add = append(add, opt("stats", str))
	}
	if partition != nil {
		add = append(add, opt("partitionValues_parsed", partition.typ))
	}
	if parsed != nil {
		add = append(add, opt("stats_parsed", parsed))
	}
	files := []arrow.Field{
		opt("add", arrow.StructOf(add...)),
		opt("remove", arrow.StructOf(opt("path", str), opt("deletionTimestamp", i64), opt("dataChange", boolean),
			opt("extendedFileMetadata", boolean), opt("partitionValues", strMap), opt("size", i64), opt("deletionVector", dv),
			opt("baseRowId", i64), opt("defaultRowCommitVersion", i64))),
	}
	fields := files
	if kind != sidecarFile {
		fields = append([]arrow.Field{opt("txn", arrow.StructOf(opt("appId", str), opt("version", i64), opt("lastUpdated", i64)))}, files...)
		fields = append(fields,
			opt("metaData", arrow.StructOf(opt("id", str), opt("name", str), opt("description", str),
				opt("format", arrow.StructOf(opt("provider", str), opt("options", strMap))), opt("schemaString", str),
				opt("partitionColumns", strList), opt("configuration", strMap), opt("createdTime", i64))),
			opt("protocol", arrow.StructOf(opt("minReaderVersion", i32), opt("minWriterVersion", i32),
				opt("readerFeatures", strList), opt("writerFeatures", strList))),
			opt("domainMetadata", arrow.StructOf(opt("domain", str), opt("configuration", str), opt("removed", boolean))))
	}
	if kind == manifestFile {
		fields = append(fields,
			opt("checkpointMetadata", arrow.StructOf(opt("version", i64), opt("tags", strMap))),
			opt("sidecar", arrow.StructOf(opt("path", str), opt("sizeInBytes", i64), opt("modificationTime", i64), opt("tags", strMap))))
	}
	return &checkpointShape{schema: arrow.NewSchema(fields, nil), stats: stats, parsed: parsed, partition: partition}
}

// writeCheckpointFile writes one Parquet file of a checkpoint, whole or not at all, and returns the number of actions and
// the bytes written.
func writeCheckpointFile(ctx context.Context, store objstore.Store, key string, shape *checkpointShape, actions iter.Seq[*checkpointAction]) (rows, size int64, err error) {
	pr, pw := io.Pipe()
	put := make(chan error, 1)
	go func() {
		err := store.Put(ctx, key, pr, objstore.PutOptions{})
		pr.CloseWithError(errors.Join(errors.New("checkpoint not stored"), err)) // unblocks the writer when Put gave up
		put <- err
	}()
	count := &countingWriter{w: pw}
	rows, err = encodeCheckpoint(count, shape, actions)
	pw.CloseWithError(err) // nil: end of file
	if perr := <-put; perr != nil {
		return 0, 0, fmt.Errorf("checkpoint %s: %w", key, perr)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("checkpoint %s: %w", key, err)
	}
	return rows, count.n, nil
}

func encodeCheckpoint(w io.Writer, shape *checkpointShape, actions iter.Seq[*checkpointAction]) (rows int64, err error) {
	props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy), parquet.WithDictionaryDefault(true),
		// Bounded in memory when written, and read by several processors.
		parquet.WithMaxRowGroupLength(checkpointGroupRows))
	pw, err := pqarrow.NewFileWriter(shape.schema, w, props, pqarrow.NewArrowWriterProperties())
	if err != nil {
		return 0, err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, shape.schema)
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
		shape.append(b, a)
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

// append appends one row; members that the action does not have become null.
func (c *checkpointShape) append(b *array.RecordBuilder, a *checkpointAction) {
	for i, f := range c.schema.Fields() {
		s := b.Field(i).(*array.StructBuilder)
		present := false
		switch f.Name {
		case "txn":
			present = a.Txn != nil
		case "add":
			present = a.Add != nil
		case "remove":
			present = a.Remove != nil
		case "metaData":
			present = a.Metadata != nil
		case "protocol":
			present = a.Protocol != nil
		case "domainMetadata":
			present = a.DomainMetadata != nil
		case "checkpointMetadata":
			present = a.CheckpointMetadata != nil
		case "sidecar":
			present = a.Sidecar != nil
		}
		if !present {
			s.AppendNull()
			continue
		}
		s.Append(true)
		switch f.Name {
		case "txn":
			appendText(s, 0, a.Txn.AppID)
			appendInt(s, 1, &a.Txn.Version)
			appendInt(s, 2, a.Txn.LastUpdated)
		case "add":
			c.appendAdd(s, a.Add)
		case "remove":
			appendRemove(s, a.Remove)
		case "metaData":
			appendMetadata(s, a.Metadata)
		case "protocol":
			p := a.Protocol
			s.FieldBuilder(0).(*array.Int32Builder).Append(int32(p.MinReaderVersion))
			s.FieldBuilder(1).(*array.Int32Builder).Append(int32(p.MinWriterVersion))
			appendList(s, 2, p.ReaderFeatures, p.MinReaderVersion >= 3)
			appendList(s, 3, p.WriterFeatures, p.MinWriterVersion >= 7)
		case "domainMetadata":
			appendText(s, 0, a.DomainMetadata.Domain)
			appendText(s, 1, a.DomainMetadata.Configuration)
			s.FieldBuilder(2).(*array.BooleanBuilder).Append(a.DomainMetadata.Removed)
		case "checkpointMetadata":
			v := int64(a.CheckpointMetadata.Version)
			appendInt(s, 0, &v)
			appendMap(s, 1, pointers(a.CheckpointMetadata.Tags), false)
		case "sidecar":
			appendText(s, 0, a.Sidecar.Path)
			appendInt(s, 1, &a.Sidecar.SizeInBytes)
			appendInt(s, 2, &a.Sidecar.ModificationTime)
			appendMap(s, 3, nil, false)
		}
	}
}

func (c *checkpointShape) appendAdd(s *array.StructBuilder, f *Add) {
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
	next := 10
	if c.stats {
		appendTextOrNull(s, next, f.Stats)
		next++
	}
	if c.partition != nil {
		c.partition.append(s.FieldBuilder(next).(*array.StructBuilder), f.PartitionValues)
		next++
	}
	if c.parsed != nil {
		appendParsedStats(s.FieldBuilder(next).(*array.StructBuilder), f.Stats)
	}
}

func appendRemove(s *array.StructBuilder, f *Remove) {
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

func appendMetadata(s *array.StructBuilder, m *Metadata) {
	appendText(s, 0, m.ID)
	for i, v := range []struct {
		text  string
		there bool
	}{{m.Name, m.named}, {m.Description, m.described}} {
		if v.there {
			appendText(s, i+1, v.text)
		} else {
			appendTextOrNull(s, i+1, v.text)
		}
	}
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

// pointers is a map with values that may be null; nil stays nil.
func pointers(m map[string]string) map[string]*string {
	if m == nil {
		return nil
	}
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
