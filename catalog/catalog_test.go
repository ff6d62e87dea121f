package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

func lake(change func(*pipeline.Table)) *pipeline.Lake {
	t := &pipeline.Table{
		Name: "trades", Location: "processed/trades", Key: []string{"id"}, PartitionBy: []string{"day"}, DeletionVectors: true,
		Columns: []pipeline.Column{
			{Name: "id", Type: delta.Primitive("string"), NotNull: true},
			{Name: "price", Type: delta.Decimal{P: 18, S: 8}},
			{Name: "day", Type: delta.Primitive("date")},
		},
	}
	if change != nil {
		change(t)
	}
	return &pipeline.Lake{Tables: []*pipeline.Table{t}}
}

func TestEnsure(t *testing.T) {
	ctx := context.Background()
	store := objstore.NewMemory(nil)
	c := New(lake(nil), store, nil)
	if _, err := c.Open(ctx, "trades"); !errors.Is(err, delta.ErrNotATable) {
		t.Fatalf("a table that nobody made: %v", err)
	}
	if _, err := c.Open(ctx, "trade"); !errors.Is(err, ErrNoTable) || !strings.Contains(err.Error(), "trades") {
		t.Errorf("an unknown name: %v", err)
	}
	tab, err := c.Ensure(ctx, "TRADES")
	if err != nil {
		t.Fatal(err)
	}
	s, err := tab.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if s.Version() != 0 || !s.DeletionVectors() || len(s.PartitionBy()) != 1 {
		t.Errorf("version %d, partitioned by %v", s.Version(), s.PartitionBy())
	}
	if _, err := c.Ensure(ctx, Quarantine); err != nil {
		t.Error(err)
	}
	bigger := func(t *pipeline.Table) {
		t.Columns = append(t.Columns, pipeline.Column{Name: "venue", Type: delta.Primitive("string")})
	}
	for name, test := range map[string]struct {
		change func(*pipeline.Table)
		want   string // "" where it fits
	}{
		"the same":     {nil, ""},
		"other type":   {func(t *pipeline.Table) { t.Columns[1].Type = delta.Primitive("double") }, "price"},
		"partitioning": {func(t *pipeline.Table) { t.PartitionBy = nil }, "partition"},
		"new column":   {bigger, "evolve: add_columns"},
		"null allowed": {func(t *pipeline.Table) { t.Columns[0].NotNull = false }, "id"},
		"new not null": {func(t *pipeline.Table) {
			bigger(t)
			t.Columns[3].NotNull, t.Evolve = true, pipeline.EvolveAddColumns
		}, "venue"},
	} {
		_, err := New(lake(test.change), store, nil).Ensure(ctx, "trades")
		var schema *SchemaError
		if test.want == "" && err != nil || test.want != "" && (!errors.As(err, &schema) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	grown := New(lake(func(t *pipeline.Table) { bigger(t); t.Evolve = pipeline.EvolveAddColumns; t.Deletes = true }), store, nil)
	for range 2 { // the second time there is nothing to add
		if tab, err = grown.Ensure(ctx, "trades"); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = tab.Snapshot(ctx); err != nil || s.Version() != 1 {
		t.Fatalf("version %d, %v", s.Version(), err)
	}
	for _, col := range []string{"venue", pipeline.ColumnDeleted} {
		if _, ok := s.Schema().Field(col); !ok {
			t.Errorf("column %s was not added", col)
		}
	}
}

// Columns that are added to a table whose columns are mapped are mapped as well, and the protocol knows their types.
func TestEnsureAddsColumnsAsTheTableNeedsThem(t *testing.T) {
	ctx := context.Background()
	for _, mode := range []string{"name", "id"} {
		t.Run(mode, func(t *testing.T) {
			store := objstore.NewMemory(nil)
			had := lake(nil).Tables[0]
			if _, err := delta.Create(ctx, store, had.Location, delta.CreateOptions{
				Schema: had.DeltaSchema(), PartitionBy: had.PartitionBy, Config: map[string]string{"delta.columnMapping.mode": mode},
			}, nil); err != nil {
				t.Fatal(err)
			}
			tab, err := New(lake(func(t *pipeline.Table) {
				t.Columns = append(t.Columns, pipeline.Column{Name: "venue", Type: delta.String, Comment: "where"}, pipeline.Column{Name: "wall", Type: delta.TimestampNTZ})
				t.Evolve = pipeline.EvolveAddColumns
			}), store, nil).Ensure(ctx, "trades")
			if err != nil {
				t.Fatal(err)
			}
			s, err := tab.Snapshot(ctx)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, f := range s.Schema().Fields {
				id := fmt.Sprint(f.Metadata["delta.columnMapping.id"])
				if f.Metadata["delta.columnMapping.physicalName"] == nil || seen[id] {
					t.Errorf("column %s is mapped as %v", f.Name, f.Metadata)
				}
				seen[id] = true
			}
			if f, _ := s.Schema().Field("venue"); f.Comment() != "where" {
				t.Errorf("the comment of column %s is %q", f.Name, f.Comment())
			}
			if p := s.Protocol(); !slices.Contains(p.Features(), "timestampNtz") {
				t.Errorf("the protocol has %v", p.Features())
			}
			schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.BinaryTypes.String}, {Name: "venue", Type: arrow.BinaryTypes.String}}, nil)
			b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
			defer b.Release()
			b.Field(0).(*array.StringBuilder).Append("a")
			b.Field(1).(*array.StringBuilder).Append("here")
			rows := delta.NewRows(schema, b.NewRecordBatch())
			defer rows.Close()
			if _, err := tab.Append(ctx, rows, delta.AppendOptions{}); err != nil {
				t.Fatal(err)
			}
			if s, err = tab.Snapshot(ctx); err != nil {
				t.Fatal(err)
			}
			for b, err := range tab.Scan(ctx, s, delta.ScanOptions{Columns: []string{"venue"}}) {
				if err != nil {
					t.Fatal(err)
				}
				if got := b.Column(0).ValueStr(0); got != "here" {
					t.Errorf("read %s of what was written", got)
				}
			}
		})
	}
}
