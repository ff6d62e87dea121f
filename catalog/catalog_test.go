package catalog

import (
	"context"
	"errors"
	"strings"
	"testing"

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
