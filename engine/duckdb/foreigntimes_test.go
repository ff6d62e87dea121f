package duckdb

import (
	"context"
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

// Times are the same in every zone of a session, however writers have encoded them.
func TestForeignTimes(t *testing.T) {
	ctx := context.Background()
	e := testEngine(t)
	at := time.Date(2024, 7, 1, 12, 30, 0, 0, time.UTC)
	write := func(path, kind string) {
		var n schema.Node
		var err error
		switch kind {
		case "int96":
			n = schema.NewInt96Node("ts", parquet.Repetitions.Optional, -1)
		case "utc":
			n, err = schema.NewPrimitiveNodeLogical("ts", parquet.Repetitions.Optional, schema.NewTimestampLogicalType(true, schema.TimeUnitMicros), parquet.Types.Int64, -1, -1)
		case "wall":
			n, err = schema.NewPrimitiveNodeLogical("ts", parquet.Repetitions.Optional, schema.NewTimestampLogicalType(false, schema.TimeUnitMicros), parquet.Types.Int64, -1, -1)
		case "utcnanos":
			n, err = schema.NewPrimitiveNodeLogical("ts", parquet.Repetitions.Optional, schema.NewTimestampLogicalType(true, schema.TimeUnitNanos), parquet.Types.Int64, -1, -1)
		}
		if err != nil {
			t.Fatal(err)
		}
		root, err := schema.NewGroupNode("schema", parquet.Repetitions.Required, schema.FieldList{n}, -1)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		w := file.NewParquetWriter(f, root)
		rg, err := w.AppendRowGroupChecked()
		if err != nil {
			t.Fatal(err)
		}
		c, err := rg.NextColumn()
		if err != nil {
			t.Fatal(err)
		}
		switch c := c.(type) {
		case *file.Int64ColumnChunkWriter:
			v := at.UnixMicro()
			if kind == "utcnanos" {
				v = at.UnixNano()
			}
			_, err = c.WriteBatch([]int64{v}, []int16{1}, nil)
		case *file.Int96ColumnChunkWriter:
			v := parquet.NewInt96([3]uint32{})
			v.SetNanoSeconds(at.UnixNano() % 86_400e9)
			binary.LittleEndian.PutUint32(v[8:], uint32(at.Unix()/86_400)+2440588)
			_, err = c.WriteBatch([]parquet.Int96{v}, []int16{1}, nil)
		}
		if err := errors.Join(err, c.Close(), rg.Close(), w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, typ := range []delta.Type{delta.Timestamp, delta.TimestampNTZ} {
		for _, kinds := range [][]string{{"utc"}, {"wall"}, {"int96"}, {"utc", "wall"}, {"wall", "utc"}, {"utc", "int96"}, {"int96", "utc"}, {"wall", "int96"}, {"int96", "wall"}, {"utc", "utcnanos"}} {
			for _, stats := range []bool{true, false} {
				dir := t.TempDir()
				store, err := objstore.NewLocal(dir)
				if err != nil {
					t.Fatal(err)
				}
				tab, err := delta.Create(ctx, store, "t", delta.CreateOptions{Schema: &delta.Schema{Fields: []delta.Field{{Name: "ts", Type: typ, Nullable: true}}}}, nil)
				if err != nil {
					t.Fatal(err)
				}
				log := ""
				for i, k := range kinds {
					name := fmt.Sprintf("%d-%s.parquet", i, k)
					write(filepath.Join(dir, "t", name), k)
					st, err := os.Stat(filepath.Join(dir, "t", name))
					if err != nil {
						t.Fatal(err)
					}
					s := ""
					if stats {
						text := at.Format("2006-01-02T15:04:05.000")
						if typ == delta.Timestamp {
							text += "Z"
						}
						s = fmt.Sprintf(`,"stats":"{\"numRecords\":1,\"minValues\":{\"ts\":\"%[1]s\"},\"maxValues\":{\"ts\":\"%[1]s\"},\"nullCount\":{\"ts\":0}}"`, text)
					}
					log += fmt.Sprintf(`{"add":{"path":%q,"partitionValues":{},"size":%d,"modificationTime":1,"dataChange":true%s}}`+"\n", name, st.Size(), s)
				}
				if err := os.WriteFile(filepath.Join(dir, "t", "_delta_log", "00000000000000000001.json"), []byte(log), 0o600); err != nil {
					t.Fatal(err)
				}
				snap, err := tab.Snapshot(ctx)
				if err != nil {
					t.Fatal(err)
				}
				sh, err := e.Ship(ctx, "SELECT epoch_us(ts) FROM t", "America/New_York", seen{"t": {Snapshot: snap}})
				if err != nil {
					t.Errorf("%v %v: %v", typ, kinds, err)
					continue
				}
				w, err := e.NewSession(ctx)
				if err != nil {
					t.Fatal(err)
				}
				err = w.SetTimeZone(ctx, "America/New_York")
				err = errors.Join(err, w.Begin(ctx, sh.Steps))
				var got []string
				if err == nil {
					rows, qerr := w.Query(ctx, sh.SQL)
					if err = qerr; err == nil {
						for rows.Next() {
							for i := range int(rows.RecordBatch().NumRows()) {
								got = append(got, rows.RecordBatch().Column(0).ValueStr(i))
							}
						}
						err = rows.Err()
						rows.Release()
					}
				}
				one := fmt.Sprint(at.UnixMicro())
				want := strings.TrimSpace(strings.Repeat(one+" ", len(kinds)))
				if err != nil || strings.Join(got, " ") != want {
					t.Errorf("%v %v stats %t: %s, %v; want %s", typ, kinds, stats, strings.Join(got, " "), err, want)
				}
				if err := errors.Join(w.End(), w.Close(), sh.Close()); err != nil {
					t.Error(err)
				}
			}
		}
	}
}
