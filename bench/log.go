package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// log measures how package delta bears large logs: tables of many files, opened in a process of their own from one
// checkpoint, and a table of many commits. The data files themselves do not exist: nothing here reads them.
func (b *bench) log(files []int, commits int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Fprintln(b.out, "\n### Tables of many files\n\nEach figure is of a process of its own that opens the table from its checkpoint; milliseconds inside the process.")
	fmt.Fprintln(b.out, "Statistics of 6 columns, 30 partitions, some 430 bytes of log a file.")
	fmt.Fprintln(b.out, "\n| files | checkpoint MB | open, ms | peak MB after open | prune to 1 file, ms, first and again | append, ms | write checkpoint, ms | peak MB at the end |\n|---|---|---|---|---|---|---|---|")
	for _, n := range files {
		dir := filepath.Join(b.dir, fmt.Sprintf("log-%d", n))
		if err := manyFiles(dir, n); err != nil {
			return err
		}
		if err := b.logLine(self, dir, n); err != nil {
			return err
		}
	}
	fmt.Fprintln(b.out, "\n### A table of many commits\n\nMedian milliseconds of 100 appends of one file each, durable, and of single calls; a checkpoint stands every 1,000 commits.")
	fmt.Fprintln(b.out, "\n| commits | append | open in a new process | newest 20 of the history | version of a time | log cleanup of the first half |\n|---|---|---|---|---|---|")
	for _, n := range []int{100, commits / 10, commits} {
		dir := filepath.Join(b.dir, fmt.Sprintf("commits-%d", n))
		if err := manyCommits(dir, n); err != nil {
			return err
		}
		_, out, err := run(b.dir, self, "-child", "commits", "-dir", dir)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.out, "| %d | %s |\n", n, strings.TrimSpace(string(out)))
	}
	return nil
}

func (b *bench) logLine(self, dir string, n int) error {
	var opens []float64
	var peak float64
	for range b.tries {
		u, out, err := run(b.dir, self, "-child", "open", "-dir", dir)
		if err != nil {
			return err
		}
		ms, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		if err != nil {
			return err
		}
		opens, peak = append(opens, ms), max(peak, u.PeakMB)
	}
	checkpoints, err := filepath.Glob(filepath.Join(dir, "_delta_log", "*.checkpoint.parquet"))
	if err != nil || len(checkpoints) == 0 {
		return fmt.Errorf("%s has no checkpoint: %w", dir, err)
	}
	info, err := os.Stat(checkpoints[len(checkpoints)-1])
	if err != nil {
		return err
	}
	u, out, err := run(b.dir, self, "-child", "work", "-dir", dir)
	if err != nil {
		return err
	}
	s := spreadOf(opens)
	fmt.Fprintf(b.out, "| %d | %.0f | %.0f (%.0f–%.0f) | %.0f | %s | %.0f |\n", n, float64(info.Size())/1e6, s.Median, s.Min, s.Max, peak,
		strings.TrimSpace(string(out)), u.PeakMB)
	return nil
}

// child is the work of a process that is measured from outside.
func child(what, dir string) error {
	ctx := context.Background()
	store, err := objstore.NewLocal(dir)
	if err != nil {
		return err
	}
	start := time.Now()
	lap := func() float64 {
		ms := float64(time.Since(start).Microseconds()) / 1000
		start = time.Now()
		return ms
	}
	t, err := delta.Open(ctx, store, "", nil)
	if err != nil {
		return err
	}
	opened := lap()
	switch what {
	case "open":
		fmt.Println(opened)
	case "work":
		s, err := t.Snapshot(ctx)
		if err != nil {
			return err
		}
		where := delta.Compare{Column: "id", Op: "=", Value: int64(s.NumFiles() / 2 * 1000)}
		lap()
		n := len(s.Prune(where))
		first := lap()
		if n != 1 {
			return fmt.Errorf("%d files for one id", n)
		}
		s.Prune(where)
		again := lap()
		if err := appendOne(ctx, t, "later"); err != nil {
			return err
		}
		appended := lap()
		if _, err := t.Checkpoint(ctx); err != nil {
			return err
		}
		fmt.Printf("%.0f, %.1f | %.0f | %.0f\n", first, again, appended, lap())
	case "commits":
		var each []float64
		for i := range 100 {
			lap()
			if err := appendOne(ctx, t, fmt.Sprint("later-", i)); err != nil {
				return err
			}
			each = append(each, lap())
		}
		if c, err := t.History(ctx, 20); err != nil || len(c) != 20 {
			return fmt.Errorf("%d commits in the history: %w", len(c), err)
		}
		history := lap()
		if _, err := t.SnapshotAsOf(ctx, time.Now()); err != nil {
			return err
		}
		asOf := lap()
		r, err := t.CleanupLog(ctx, delta.CleanupOptions{Retention: 48 * time.Hour})
		if err != nil {
			return err
		}
		fmt.Printf("%.1f | %.0f | %.0f | %.0f | %.0f (%d objects)\n", spreadOf(each).Median, opened, history, asOf, lap(), len(r.Deleted))
	default:
		return fmt.Errorf("no such work: %s", what)
	}
	return nil
}

func appendOne(ctx context.Context, t *delta.Table, name string) error {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return err
	}
	x := t.Begin(s)
	x.AddFile(logFile(name, s.NumFiles()))
	_, err = x.Commit(ctx, delta.CommitOptions{Operation: "WRITE", BlindAppend: true})
	return err
}

func logFile(name string, i int) *delta.Add {
	day := time.Date(2024, 8, 1+i%30, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
	lo, hi := i*1000, i*1000+999
	at := func(n int) string {
		return time.UnixMicro(1722470400000000 + int64(n)*1000).UTC().Format("2006-01-02T15:04:05.000000Z")
	}
	return &delta.Add{
		Path:            fmt.Sprintf("day=%s/part-%s-%08d-1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9.c000.snappy.parquet", day, name, i),
		PartitionValues: map[string]*string{"day": &day}, Size: 1 << 20, ModificationTime: 1722470400000 + int64(i), DataChange: true,
		Stats: fmt.Sprintf(`{"numRecords":1000,"minValues":{"id":%d,"symbol":"ADAUSDT","price":%d.25000000,"quantity":0.00100000,"at":%q,"note":"a"},`+
			`"maxValues":{"id":%d,"symbol":"XRPUSDT","price":%d.75000000,"quantity":99.50000000,"at":%q,"note":"zzzz"},`+
			`"nullCount":{"id":0,"symbol":0,"price":0,"quantity":0,"at":0,"note":%d}}`, lo, i%70000, at(lo), hi, i%70000+1, at(hi), i%1000),
	}
}

func createLog(dir string) (*delta.Table, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	store, err := objstore.NewLocal(dir)
	if err != nil {
		return nil, err
	}
	col := func(name string, t delta.Type) delta.Field { return delta.Field{Name: name, Type: t, Nullable: true} }
	return delta.Create(context.Background(), store, "", delta.CreateOptions{
		Schema: &delta.Schema{Fields: []delta.Field{
			col("id", delta.Long), col("symbol", delta.String), col("price", delta.Decimal{P: 18, S: 8}),
			col("quantity", delta.Decimal{P: 18, S: 8}), col("at", delta.Timestamp), col("note", delta.String), col("day", delta.Date),
		}},
		PartitionBy: []string{"day"},
		Config:      map[string]string{"delta.checkpointInterval": "1000000"},
	}, nil)
}

// manyFiles makes a table of n files with a checkpoint, new each time.
func manyFiles(dir string, n int) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	t, err := createLog(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for i := 0; i < n; {
		s, err := t.Snapshot(ctx)
		if err != nil {
			return err
		}
		x := t.Begin(s)
		for range min(50_000, n-i) {
			x.AddFile(logFile("first", i))
			i++
		}
		if _, err := x.Commit(ctx, delta.CommitOptions{Operation: "WRITE", BlindAppend: true}); err != nil {
			return err
		}
	}
	_, err = t.Checkpoint(ctx)
	return err
}

// manyCommits makes a log of n commits of one file each, written as another writer would have: without this library's
// help, and with times of its own, one every five minutes.
func manyCommits(dir string, n int) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if _, err := createLog(dir); err != nil {
		return err
	}
	first := time.Now().Add(-time.Duration(n) * 5 * time.Minute)
	name := func(v int) string { return filepath.Join(dir, "_delta_log", fmt.Sprintf("%020d.json", v)) }
	if err := os.Chtimes(name(0), first, first); err != nil {
		return err
	}
	var t *delta.Table
	for v := 1; v < n; v++ {
		at := first.Add(time.Duration(v) * 5 * time.Minute)
		add, err := json.Marshal(map[string]any{"add": logFile("c", v)})
		if err != nil {
			return err
		}
		line := fmt.Sprintf(`{"commitInfo":{"timestamp":%d,"operation":"WRITE","operationParameters":{},"isBlindAppend":true}}`, at.UnixMilli())
		if err := os.WriteFile(name(v), slices.Concat([]byte(line), []byte("\n"), bytes.TrimSpace(add), []byte("\n")), 0o644); err != nil {
			return err
		}
		if err := os.Chtimes(name(v), at, at); err != nil {
			return err
		}
		if v%1000 == 0 || v == n/2 {
			if t == nil {
				store, err := objstore.NewLocal(dir)
				if err != nil {
					return err
				}
				if t, err = delta.Open(context.Background(), store, "", nil); err != nil {
					return err
				}
			}
			if _, err := t.Checkpoint(context.Background()); err != nil {
				return err
			}
		}
	}
	return nil
}
