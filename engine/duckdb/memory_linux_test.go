package duckdb

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// A stream runs for ever: whatever a micro-batch takes in memory it gives back, inside DuckDB and Arrow too, where no
// profile of Go's sees it.
func TestMicroBatchesKeepNoMemory(t *testing.T) {
	testscale.NotAtShort(t, "thousands of micro-batches, until what each of them keeps would be seen")
	e, plan := testEngine(t), testPlan(t, "live")
	// What is freed leaves the process at once here: how many pages the allocator happens to hold is no memory that is kept.
	keepPages(0)
	t.Cleanup(func() { keepPages(pagesKept) })
	store, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	table := delta.TableInfo{Store: store, Path: "t", Schema: plan.Table.DeltaSchema(), PartitionBy: []string{"day"}}
	for _, c := range []struct {
		what  string
		n     int
		table *delta.TableInfo
		most  int64 // bytes that each may keep
	}{
		// As many as were seen are 1000; with a schema that nobody frees they are 2400 at least.
		{"records", testscale.Count(t, "memory-epochs"), nil, 1700},
		// Shapes of files take 5 KB each, until they are forgotten together.
		{"files", testscale.Count(t, "memory-epochs") / 5, &table, 40 << 10},
	} {
		var before int64
		for i := range c.n {
			if i == c.n/2 { // what is made once has been made
				before = resident(t)
			}
			if err := microBatch(e, plan, c.table, i); err != nil {
				t.Fatal(err)
			}
		}
		each := (resident(t) - before) / int64(c.n-c.n/2)
		t.Logf("%d micro-batches of %s kept %d bytes each", c.n-c.n/2, c.what, each)
		if each > c.most {
			t.Errorf("%d micro-batches of %s kept %d bytes each", c.n-c.n/2, c.what, each)
		}
	}
}

// microBatch loads fifty records and, if there is a table, writes them to a file of their own and reads that.
func microBatch(e *Engine, plan *pipeline.Plan, table *delta.TableInfo, number int) (err error) {
	ctx := context.Background()
	x, err := e.NewEpoch(ctx, plan, epochTime)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := x.Close(); err == nil {
			err = cerr
		}
	}()
	recs := make([]pipeline.Record, 50)
	for i := range recs {
		at := number*len(recs) + i
		recs[i] = pipeline.Record{Topic: "t", Offset: int64(at + 1), Origin: "embedded:u:t/0",
			Value: fmt.Appendf(nil, `{"e":"x","id":"a%d","N":12,"T":1724112000123,"t":"other","data":{"p":"1.50"}}`, at)}
	}
	if err := x.AddRecords(ctx, recs); err != nil {
		return err
	}
	res, err := x.Finish(ctx)
	if err != nil || table == nil {
		return err
	}
	written, err := e.Delta().FileWriter.Write(ctx, *table, delta.WriteRequest{Rows: res.Rows})
	if err != nil {
		return err
	}
	var rows int64
	for _, w := range written {
		f := delta.File{Add: &delta.Add{Path: w.Path, PartitionValues: w.PartitionValues, Size: w.Size, Stats: w.Stats.JSON()}, Key: w.Key}
		for b, err := range e.Delta().Reader.Read(ctx, *table, []delta.File{f}, delta.ReadOptions{}) {
			if err != nil {
				return err
			}
			rows += b.NumRows()
		}
	}
	if rows != int64(len(recs)) {
		return fmt.Errorf("%d of %d rows came back", rows, len(recs))
	}
	return nil
}

// resident is the memory of this process that is no file's, in bytes, after what can be given back was given back.
func resident(t *testing.T) int64 {
	t.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("RssAnon:"))
	line, _, _ := bytes.Cut(rest, []byte(" kB"))
	kb, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
	if err != nil {
		t.Fatalf("RssAnon: %v", err)
	}
	return kb << 10
}

// What statements leave between things that stay is given back when it is asked for; the C library keeps it for ever.
func TestReleaseMemory(t *testing.T) {
	e := testEngine(t)
	keepPages(0)
	t.Cleanup(func() { keepPages(pagesKept) })
	c, err := e.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Statements of a thousand columns that wait to be run; all but the last, which lies behind them in memory, are dropped.
	text := "SELECT " + strings.Repeat("$1 + 1, ", 1000) + "0"
	var waiting []*sql.Stmt
	for range 200 {
		s, err := c.PrepareContext(t.Context(), text) //nolint:sqlclosecheck // below
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, s)
	}
	before := resident(t)
	last := waiting[len(waiting)-1]
	defer last.Close()
	for _, s := range waiting[:len(waiting)-1] {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	kept := resident(t)
	e.ReleaseMemory()
	released := resident(t)
	t.Logf("with the statements %d MB, without them %d, released %d", before>>20, kept>>20, released>>20)
	if released > kept/2 {
		t.Errorf("of %d MB that are free %d were released", kept>>20, (kept-released)>>20)
	}
}
