package delta_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
)

// pricesSchema is the table of the examples.
var pricesSchema = &delta.Schema{Fields: []delta.Field{
	{Name: "symbol", Type: delta.String},
	{Name: "price", Type: delta.Double, Nullable: true},
	{Name: "seen", Type: delta.Long, Nullable: true},
}}

type price struct {
	symbol string
	price  float64
	seen   int64
}

func pricesRows(prices ...price) *delta.MemoryRows {
	schema := pricesSchema.Arrow()
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for _, p := range prices {
		b.Field(0).(*array.StringBuilder).Append(p.symbol)
		b.Field(1).(*array.Float64Builder).Append(p.price)
		b.Field(2).(*array.Int64Builder).Append(p.seen)
	}
	batch := b.NewRecordBatch()
	defer batch.Release()
	return delta.NewRows(schema, batch)
}

// pricesTable is a new table with two rows, in memory; objstore.NewLocal gives a store on disk.
func pricesTable(ctx context.Context) *delta.Table {
	table, err := delta.Create(ctx, objstore.NewMemory(nil), "prices", delta.CreateOptions{Schema: pricesSchema}, nil)
	if err != nil {
		panic(err)
	}
	if _, err := table.Append(ctx, pricesRows(price{"BTC", 60000, 1}, price{"ETH", 2500, 1}), delta.AppendOptions{}); err != nil {
		panic(err)
	}
	return table
}

func printPrices(ctx context.Context, table *delta.Table, s *delta.Snapshot) {
	for b, err := range table.Scan(ctx, s, delta.ScanOptions{}) {
		if err != nil {
			panic(err)
		}
		for i := range int(b.NumRows()) {
			fmt.Println(b.Column(0).(*array.String).Value(i), b.Column(1).(*array.Float64).Value(i))
		}
	}
}

func ExampleOpen() {
	ctx := context.Background()
	store := pricesTable(ctx).Store()

	table, err := delta.Open(ctx, store, "prices", nil)
	if err != nil {
		panic(err)
	}
	s, err := table.Snapshot(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println("version", s.Version(), "files", s.NumFiles())

	_, err = delta.Open(ctx, store, "nothing", nil)
	fmt.Println(errors.Is(err, delta.ErrNotATable))
	// Output:
	// version 1 files 1
	// true
}

func ExampleTable_Scan() {
	ctx := context.Background()
	table := pricesTable(ctx)
	s, err := table.Snapshot(ctx)
	if err != nil {
		panic(err)
	}
	var rows int64
	for b, err := range table.Scan(ctx, s, delta.ScanOptions{
		Columns: []string{"symbol"},
		Where:   delta.Compare{Column: "seen", Op: ">", Value: int64(5)}, // leaves out files that hold no such row
	}) {
		if err != nil {
			panic(err)
		}
		rows += b.NumRows()
	}
	fmt.Println(rows, "rows in the files that may hold such a row")
	// Output: 0 rows in the files that may hold such a row
}

func ExampleTable_Append() {
	ctx := context.Background()
	table := pricesTable(ctx)
	// With a Txn a repetition does nothing.
	o := delta.AppendOptions{Txn: &delta.Txn{AppID: "loader", Version: 1}}
	for range 2 {
		res, err := table.Append(ctx, pricesRows(price{"SOL", 150, 1}), o)
		if errors.Is(err, delta.ErrTxnApplied) {
			fmt.Println("it is in the table already")
			continue
		}
		if err != nil {
			panic(err)
		}
		fmt.Println("version", res.Version, "rows", res.Rows)
	}
	// Output:
	// version 2 rows 1
	// it is in the table already
}

func ExampleTable_Merge() {
	ctx := context.Background()
	table := pricesTable(ctx)
	// BTC comes late: what is stored is newer. ETH is newer, SOL is new.
	res, err := table.Merge(ctx, pricesRows(price{"BTC", 1, 0}, price{"ETH", 2600, 2}, price{"SOL", 150, 2}), delta.MergeOptions{
		Key:   []string{"symbol"},
		Order: []delta.OrderTerm{{Column: "seen"}},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println("inserted", res.Inserted, "updated", res.Updated, "lost", res.Lost)
	// Output: inserted 1 updated 1 lost 1
}

func ExampleTable_Optimize() {
	ctx := context.Background()
	table := pricesTable(ctx)
	if _, err := table.Append(ctx, pricesRows(price{"SOL", 150, 1}), delta.AppendOptions{}); err != nil {
		panic(err)
	}
	res, err := table.Optimize(ctx, delta.OptimizeOptions{})
	if err != nil {
		panic(err)
	}
	fmt.Println(res.FilesRemoved, "files became", res.FilesAdded)
	// Output: 2 files became 1
}

func ExampleTable_SnapshotAt() {
	ctx := context.Background()
	table := pricesTable(ctx)
	if _, err := table.Overwrite(ctx, pricesRows(price{"BTC", 0, 9}), delta.OverwriteOptions{}); err != nil {
		panic(err)
	}
	before, err := table.SnapshotAt(ctx, 1)
	if err != nil {
		panic(err)
	}
	printPrices(ctx, table, before)

	_, err = table.SnapshotAt(ctx, 7)
	var v *delta.VersionError
	if errors.As(err, &v) {
		fmt.Println("versions", v.Earliest, "to", v.Latest)
	}
	// Output:
	// BTC 60000
	// ETH 2500
	// versions 0 to 2
}

// Who plans file actions says what was read; the commit fails when another writer changed just that.
func ExampleTx_Commit() {
	ctx := context.Background()
	table := pricesTable(ctx)
	s, err := table.Snapshot(ctx)
	if err != nil {
		panic(err)
	}
	tx := table.Begin(s)
	tx.ReadWhole()
	tx.SetTxn(delta.Txn{AppID: "report", Version: 1})

	// Meanwhile another writer appends.
	if _, err := table.Append(ctx, pricesRows(price{"SOL", 150, 1}), delta.AppendOptions{}); err != nil {
		panic(err)
	}

	_, err = tx.Commit(ctx, delta.CommitOptions{Operation: "WRITE"})
	var c *delta.ConflictError
	if errors.Is(err, delta.ErrConcurrentAppend) && errors.As(err, &c) {
		fmt.Println("version", c.Version, "added files that were to be read: plan again")
	}
	// Output: version 2 added files that were to be read: plan again
}

func ExampleSchema() {
	s, err := delta.SchemaFromArrow(arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}, nil))
	if err != nil {
		panic(err)
	}
	fmt.Println(s.JSON())
	// Output: {"type":"struct","fields":[{"name":"id","type":"long","nullable":false,"metadata":{}}]}
}

// SQL's UPDATE and DELETE take conditions as trees, here price > 50000 and symbol LIKE 'E%'.
func ExampleTable_Update() {
	ctx := context.Background()
	table := pricesTable(ctx)
	dear := expr.Call{Func: ">", Args: []expr.Expr{expr.Col("price"), expr.Lit(50000.0)}}

	updated, err := table.Update(ctx, delta.UpdateOptions{Where: dear, Set: []delta.Assignment{
		{Column: "price", Value: expr.Call{Func: "+", Args: []expr.Expr{expr.Col("price"), expr.Lit(0.5)}}},
	}})
	if err != nil {
		panic(err)
	}
	deleted, err := table.DeleteWhere(ctx, expr.Call{Func: "like", Args: []expr.Expr{expr.Col("symbol"), expr.Lit("E%")}}, delta.ChangeOptions{})
	if err != nil {
		panic(err)
	}
	fmt.Println(updated.Updated, "updated,", deleted.Deleted, "deleted")
	s, err := table.Snapshot(ctx)
	if err != nil {
		panic(err)
	}
	printPrices(ctx, table, s)
	// Output:
	// 1 updated, 1 deleted
	// BTC 60000.5
}

// SQL's MERGE: of the clauses of a kind the first whose condition is true acts.
func ExampleTable_MergeInto() {
	ctx := context.Background()
	table := pricesTable(ctx)
	source := pricesRows(price{"BTC", 0, 2}, price{"ETH", 2600, 2}, price{"XRP", 0.5, 2})
	defer source.Close()

	res, err := table.MergeInto(ctx, source, delta.MergeIntoOptions{
		On: expr.Eq(expr.Col("target", "symbol"), expr.Col("source", "symbol")),
		Clauses: []delta.MergeClause{
			{Kind: delta.WhenMatched, Condition: expr.Eq(expr.Col("source", "price"), expr.Lit(0.0)), Delete: true},
			{Kind: delta.WhenMatched, All: true},
			{Kind: delta.WhenNotMatched, All: true},
		},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(res.Inserted, "inserted,", res.Updated, "updated,", res.Deleted, "deleted")
	s, err := table.Snapshot(ctx)
	if err != nil {
		panic(err)
	}
	printPrices(ctx, table, s)
	// Output:
	// 1 inserted, 1 updated, 1 deleted
	// ETH 2600
	// XRP 0.5
}

// Rows keep their ids while they are changed and moved.
func ExampleTable_EnableRowTracking() {
	ctx := context.Background()
	table := pricesTable(ctx)
	if _, err := table.EnableRowTracking(ctx); err != nil {
		panic(err)
	}
	show := func() {
		s, err := table.Snapshot(ctx)
		if err != nil {
			panic(err)
		}
		for b, err := range table.Scan(ctx, s, delta.ScanOptions{Columns: []string{"symbol"}, RowTracking: true}) {
			if err != nil {
				panic(err)
			}
			for i := range int(b.NumRows()) {
				fmt.Println(b.Column(0).ValueStr(i), "id", b.Column(1).ValueStr(i), "of version", b.Column(2).ValueStr(i))
			}
		}
	}
	show()
	_, err := table.Update(ctx, delta.UpdateOptions{
		Where: expr.Eq(expr.Col("symbol"), expr.Lit("ETH")),
		Set:   []delta.Assignment{{Column: "price", Value: expr.Lit(2600.0)}},
	})
	if err != nil {
		panic(err)
	}
	show()
	// Output:
	// BTC id 0 of version 3
	// ETH id 1 of version 3
	// ETH id 1 of version 5
	// BTC id 0 of version 3
}

// A domain of one's own keeps a text in the table's log.
func ExampleTable_SetDomain() {
	ctx := context.Background()
	table := pricesTable(ctx)
	if _, err := table.SetDomain(ctx, "com.example.prices", `{"checked": "2024-08-20"}`); err != nil {
		panic(err)
	}
	_, err := table.SetDomain(ctx, "delta.clustering", "{}")
	fmt.Println(errors.Is(err, delta.ErrDomain))
	s, err := table.Snapshot(ctx)
	if err != nil {
		panic(err)
	}
	d, ok := s.Domain("com.example.prices")
	fmt.Println(ok, d.Configuration)
	// Output:
	// true
	// true {"checked": "2024-08-20"}
}

// What a table says of itself is known without reading its list of files.
func ExampleReadHead() {
	ctx := context.Background()
	store := pricesTable(ctx).Store()

	head, err := delta.ReadHead(ctx, store, "prices", nil)
	if err != nil {
		panic(err)
	}
	fmt.Println("version", head.Version, "files", head.NumFiles, "columns", head.Schema.Names())
	// Output: version 1 files 1 columns [symbol price seen]
}

// A V2 checkpoint lists the files in sidecars.
func ExampleTable_CheckpointAs() {
	ctx := context.Background()
	table, err := delta.Create(ctx, objstore.NewMemory(nil), "prices", delta.CreateOptions{
		Schema: pricesSchema, Config: map[string]string{"delta.checkpointPolicy": "v2"},
	}, nil)
	if err != nil {
		panic(err)
	}
	version, err := table.CheckpointAs(ctx, delta.CheckpointOptions{Format: "parquet"})
	if err != nil {
		panic(err)
	}
	fmt.Println("checkpoint of version", version)
	// Output: checkpoint of version 0
}

// The change feed says what each version did to the rows, updates with the row before and after.
func ExampleTable_Changes() {
	ctx := context.Background()
	table := pricesTable(ctx)
	if _, err := table.SetProperties(ctx, map[string]string{"delta.enableChangeDataFeed": "true"}, delta.AlterOptions{}); err != nil {
		panic(err)
	}
	updated, err := table.Update(ctx, delta.UpdateOptions{
		Where: expr.Eq(expr.Col("symbol"), expr.Lit("ETH")),
		Set:   []delta.Assignment{{Column: "price", Value: expr.Lit(2600.0)}},
	})
	if err != nil {
		panic(err)
	}
	feed, err := table.Changes(ctx, delta.ChangesOptions{From: updated.Version, To: -1})
	if err != nil {
		panic(err)
	}
	kind := feed.Schema.Index(delta.ChangeTypeColumn)
	for b, err := range feed.Batches(ctx) {
		if err != nil {
			panic(err)
		}
		for i := range int(b.NumRows()) {
			fmt.Println(b.Column(kind).ValueStr(i), b.Column(0).ValueStr(i), b.Column(1).ValueStr(i))
		}
	}
	// Unordered output:
	// update_preimage ETH 2500
	// update_postimage ETH 2600
}

// A restore is a commit like any other: nothing is lost, and it can be undone.
func ExampleTable_Restore() {
	ctx := context.Background()
	table := pricesTable(ctx)
	if _, err := table.DeleteWhere(ctx, nil, delta.ChangeOptions{}); err != nil {
		panic(err)
	}
	res, err := table.Restore(ctx, 1, delta.RestoreOptions{})
	if err != nil {
		panic(err)
	}
	fmt.Println("version", res.Version, "has the rows of version 1")
	s, err := table.Snapshot(ctx)
	if err != nil {
		panic(err)
	}
	printPrices(ctx, table, s)
	// Output:
	// version 3 has the rows of version 1
	// BTC 60000
	// ETH 2500
}

// Files that no version within the retention needs are deleted; a dry run lists them.
func ExampleTable_Vacuum() {
	ctx := context.Background()
	table := pricesTable(ctx)
	if _, err := table.Overwrite(ctx, pricesRows(price{"BTC", 61000, 2}), delta.OverwriteOptions{}); err != nil {
		panic(err)
	}
	young, err := table.Vacuum(ctx, delta.VacuumOptions{DryRun: true})
	if err != nil {
		panic(err)
	}
	_, err = table.Vacuum(ctx, delta.VacuumOptions{Retention: time.Hour, DryRun: true})
	fmt.Println(len(young.Deleted), "files are older than a week; an hour is", errors.Is(err, delta.ErrRetention))
	all, err := table.Vacuum(ctx, delta.VacuumOptions{Force: true, DryRun: true})
	if err != nil {
		panic(err)
	}
	fmt.Println(len(all.Deleted), "file would go at once")
	// Output:
	// 0 files are older than a week; an hour is true
	// 1 file would go at once
}

// What cannot be changed is refused under the name that Spark has for it.
func ExampleTable_AddColumns() {
	ctx := context.Background()
	table := pricesTable(ctx)
	_, err := table.AddColumns(ctx, []delta.NewColumn{{Path: []string{"venue"}, Type: delta.String, Comment: "where it was seen"}}, delta.AlterOptions{})
	if err != nil {
		panic(err)
	}
	s, err := table.Snapshot(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Schema().Names())

	_, err = table.RenameColumn(ctx, []string{"venue"}, "exchange", delta.AlterOptions{})
	var refused *delta.AlterError
	fmt.Println(errors.As(err, &refused), errors.Is(err, delta.ErrAlter))
	// Output:
	// [symbol price seen venue]
	// true true
}
