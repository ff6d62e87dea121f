// Command library shows package delta in a Go program of one's own: it makes a table in a folder, upserts into it, and
// prints what is in it. It needs no cgo.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

var schema = &delta.Schema{Fields: []delta.Field{
	{Name: "city", Type: delta.String},
	{Name: "degrees", Type: delta.Double, Nullable: true},
	{Name: "measured", Type: delta.Long, Nullable: true},
}}

type reading struct {
	city     string
	degrees  float64
	measured int64
}

func rows(readings ...reading) delta.Rows {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema.Arrow())
	defer b.Release()
	for _, r := range readings {
		b.Field(0).(*array.StringBuilder).Append(r.city)
		b.Field(1).(*array.Float64Builder).Append(r.degrees)
		b.Field(2).(*array.Int64Builder).Append(r.measured)
	}
	return delta.NewRows(schema.Arrow(), b.NewRecordBatch())
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: library FOLDER")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, folder string) error {
	store, err := objstore.NewLocal(folder)
	if err != nil {
		return err
	}
	table, err := delta.Create(ctx, store, "weather", delta.CreateOptions{Schema: schema, IfNotExists: true}, nil)
	if err != nil {
		return err
	}
	latest := delta.MergeOptions{Key: []string{"city"}, Order: []delta.OrderTerm{{Column: "measured"}}}
	for _, batch := range [][]reading{
		{{"Quito", 14, 1}, {"Lima", 19, 1}},
		{{"Lima", 21, 3}, {"Quito", 99, 0}}, // Quito's comes late and loses
	} {
		res, err := table.Merge(ctx, rows(batch...), latest)
		if err != nil {
			return err
		}
		fmt.Printf("version %d: %d inserted, %d updated, %d lost\n", res.Version, res.Inserted, res.Updated, res.Lost)
	}
	s, err := table.Snapshot(ctx)
	if err != nil {
		return err
	}
	for b, err := range table.Scan(ctx, s, delta.ScanOptions{}) {
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			fmt.Println(b.Column(0).(*array.String).Value(i), b.Column(1).(*array.Float64).Value(i))
		}
	}
	return nil
}
