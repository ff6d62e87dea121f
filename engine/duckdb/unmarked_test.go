package duckdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// Texts and bytes are the same whether or not a file marks them as text, and whatever the file before it does.
func TestTextWithoutAMark(t *testing.T) {
	ctx := context.Background()
	e := testEngine(t)
	for _, typ := range []delta.Type{delta.String, delta.Binary} {
		for _, marked := range [][]bool{{true, false}, {false, true}, {true, true}, {false, false}} {
			dir := t.TempDir()
			store, err := objstore.NewLocal(dir)
			if err != nil {
				t.Fatal(err)
			}
			tab, err := delta.Create(ctx, store, "t", delta.CreateOptions{Schema: &delta.Schema{Fields: []delta.Field{{Name: "s", Type: typ, Nullable: true}}}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			log := ""
			for i, m := range marked {
				n := schema.Node(schema.NewByteArrayNode("s", parquet.Repetitions.Optional, -1))
				if m {
					n, err = schema.NewPrimitiveNodeLogical("s", parquet.Repetitions.Optional, schema.StringLogicalType{}, parquet.Types.ByteArray, -1, -1)
				}
				root, rerr := schema.NewGroupNode("schema", parquet.Repetitions.Required, schema.FieldList{n}, -1)
				name := fmt.Sprintf("%d.parquet", i)
				f, ferr := os.Create(filepath.Join(dir, "t", name))
				if err := errors.Join(err, rerr, ferr); err != nil {
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
				_, err = c.(*file.ByteArrayColumnChunkWriter).WriteBatch([]parquet.ByteArray{parquet.ByteArray(`ñ\x41`)}, []int16{1}, nil)
				if err := errors.Join(err, c.Close(), rg.Close(), w.Close()); err != nil {
					t.Fatal(err)
				}
				st, err := os.Stat(filepath.Join(dir, "t", name))
				if err != nil {
					t.Fatal(err)
				}
				log += fmt.Sprintf(`{"add":{"path":%q,"partitionValues":{},"size":%d,"modificationTime":1,"dataChange":true,"stats":"{\"numRecords\":1,\"nullCount\":{\"s\":0}}"}}`+"\n", name, st.Size())
			}
			if err := os.WriteFile(filepath.Join(dir, "t", "_delta_log", "00000000000000000001.json"), []byte(log), 0o600); err != nil {
				t.Fatal(err)
			}
			snap, err := tab.Snapshot(ctx)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := firstColumn(t, e, "SELECT hex(s) FROM t", QueryTable{Name: "t", Snapshot: snap})
			if want := fmt.Sprintf("%[1]X %[1]X", `ñ\x41`); strings.Join(got, " ") != want {
				t.Errorf("%s, marked %v: %v, not %s", typ, marked, got, want)
			}
		}
	}
}
