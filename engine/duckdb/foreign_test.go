package duckdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// foreign is a file of one row in one column, as another writer makes it.
type foreign struct {
	column schema.Node
	write  func(file.ColumnChunkWriter) error // the row
	stats  string                             // JSON; "": none
}

// foreignTable makes a table of such files with one column.
func foreignTable(t *testing.T, column string, typ delta.Type, files ...foreign) *delta.Snapshot {
	t.Helper()
	dir := t.TempDir()
	store, err := objstore.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	tab, err := delta.Create(t.Context(), store, "t", delta.CreateOptions{Schema: &delta.Schema{Fields: []delta.Field{{Name: column, Type: typ, Nullable: true}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	log := ""
	for i, f := range files {
		name := fmt.Sprintf("%d.parquet", i)
		path := filepath.Join(dir, "t", name)
		f.put(t, path)
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		stats := ""
		if f.stats != "" {
			stats = fmt.Sprintf(`,"stats":%q`, f.stats)
		}
		log += fmt.Sprintf(`{"add":{"path":%q,"partitionValues":{},"size":%d,"modificationTime":1,"dataChange":true%s}}`+"\n", name, st.Size(), stats)
	}
	if err := os.WriteFile(filepath.Join(dir, "t", "_delta_log", "00000000000000000001.json"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	snap, err := tab.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func (f foreign) put(t *testing.T, path string) {
	t.Helper()
	root, err := schema.NewGroupNode("schema", parquet.Repetitions.Required, schema.FieldList{f.column}, -1)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := file.NewParquetWriter(out, root)
	rows, err := w.AppendRowGroupChecked()
	if err != nil {
		t.Fatal(err)
	}
	c, err := rows.NextColumn()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.write(c), c.Close(), rows.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
}

// Times are the same in every zone of a session, however writers have encoded them.
func TestForeignTimes(t *testing.T) {
	e := testEngine(t)
	at := time.Date(2024, 7, 1, 12, 30, 0, 0, time.UTC)
	int64s := func(utc bool, unit schema.TimeUnitType, v int64) foreign {
		n, err := schema.NewPrimitiveNodeLogical("ts", parquet.Repetitions.Optional, schema.NewTimestampLogicalType(utc, unit), parquet.Types.Int64, -1, -1)
		if err != nil {
			t.Fatal(err)
		}
		return foreign{column: n, write: func(c file.ColumnChunkWriter) error {
			_, err := c.(*file.Int64ColumnChunkWriter).WriteBatch([]int64{v}, []int16{1}, nil)
			return err
		}}
	}
	encodings := map[string]foreign{
		"utc": int64s(true, schema.TimeUnitMicros, at.UnixMicro()), "wall": int64s(false, schema.TimeUnitMicros, at.UnixMicro()),
		"utcnanos": int64s(true, schema.TimeUnitNanos, at.UnixNano()),
		"int96": {column: schema.NewInt96Node("ts", parquet.Repetitions.Optional, -1), write: func(c file.ColumnChunkWriter) error {
			v := parquet.NewInt96([3]uint32{})
			v.SetNanoSeconds(at.UnixNano() % 86_400e9)
			binary.LittleEndian.PutUint32(v[8:], uint32(at.Unix()/86_400)+2440588) // its Julian day
			_, err := c.(*file.Int96ColumnChunkWriter).WriteBatch([]parquet.Int96{v}, []int16{1}, nil)
			return err
		}},
	}
	for typ, text := range map[delta.Type]string{delta.Timestamp: "2024-07-01T12:30:00.000Z", delta.TimestampNTZ: "2024-07-01T12:30:00.000"} {
		for _, kinds := range [][]string{{"utc"}, {"wall"}, {"int96"}, {"utc", "wall"}, {"wall", "utc"}, {"utc", "int96"}, {"int96", "utc"}, {"wall", "int96"}, {"int96", "wall"}, {"utc", "utcnanos"}} {
			for _, stats := range []string{fmt.Sprintf(`{"numRecords":1,"minValues":{"ts":%[1]q},"maxValues":{"ts":%[1]q},"nullCount":{"ts":0}}`, text), ""} {
				var files []foreign
				for _, k := range kinds {
					f := encodings[k]
					f.stats = stats
					files = append(files, f)
				}
				snap := foreignTable(t, "ts", typ, files...)
				got, _ := shippedColumn(t, e, "SELECT epoch_us(ts) FROM t", "America/New_York", seen{"t": {Snapshot: snap}})
				want := strings.TrimSpace(strings.Repeat(fmt.Sprint(at.UnixMicro())+" ", len(kinds)))
				if got != want {
					t.Errorf("%v %v, statistics %s: %s; want %s", typ, kinds, stats, got, want)
				}
			}
		}
	}
}

// Texts and bytes are the same whether or not a file marks them as text, and whatever the file before it does.
func TestTextWithoutAMark(t *testing.T) {
	e := testEngine(t)
	text, err := schema.NewPrimitiveNodeLogical("s", parquet.Repetitions.Optional, schema.StringLogicalType{}, parquet.Types.ByteArray, -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	columns := map[bool]schema.Node{true: text, false: schema.NewByteArrayNode("s", parquet.Repetitions.Optional, -1)}
	for _, typ := range []delta.Type{delta.String, delta.Binary} {
		for _, marked := range [][]bool{{true, false}, {false, true}, {true, true}, {false, false}} {
			var files []foreign
			for _, m := range marked {
				files = append(files, foreign{column: columns[m], stats: `{"numRecords":1,"nullCount":{"s":0}}`, write: func(c file.ColumnChunkWriter) error {
					_, err := c.(*file.ByteArrayColumnChunkWriter).WriteBatch([]parquet.ByteArray{parquet.ByteArray(`ñ\x41`)}, []int16{1}, nil)
					return err
				}})
			}
			got, _ := firstColumn(t, e, "SELECT hex(s) FROM t", QueryTable{Name: "t", Snapshot: foreignTable(t, "s", typ, files...)})
			if want := fmt.Sprintf("%[1]X %[1]X", `ñ\x41`); strings.Join(got, " ") != want {
				t.Errorf("%s, marked %v: %v, not %s", typ, marked, got, want)
			}
		}
	}
}
