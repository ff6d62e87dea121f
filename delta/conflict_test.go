package delta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/cauce-data/cauce/objstore"
)

// TestConflicts runs the scripts of testdata/conflict: commands build transactions side by side, and the recorded
// answers are what each commit says.
//
//	table [serializable|write-serializable] [dv]     a new table with columns id, name and day (partition)
//	begin TX
//	add|remove|dv TX FILE [day] [min max]            dv replaces a file's deletion vector
//	read TX whole|files FILE…|day=…|id=…
//	txn|domain|metadata|protocol TX …
//	commit TX [blind] [nodata] [rebase]
//	files
func TestConflicts(t *testing.T) {
	datadriven.Walk(t, "testdata/conflict", func(t *testing.T, path string) {
		r := &conflictRunner{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out []string
			for _, line := range strings.Split(d.Input, "\n") {
				if f := strings.Fields(line); len(f) > 0 {
					if s := r.run(f); s != "" {
						out = append(out, s)
					}
				}
			}
			if len(out) == 0 {
				return "ok"
			}
			return strings.Join(out, "\n")
		})
	})
}

type conflictRunner struct {
	tab  *Table
	txs  map[string]*Tx
	seen int
}

func (r *conflictRunner) run(f []string) string {
	ctx := context.Background()
	x := (*Tx)(nil)
	if len(f) > 1 {
		x = r.txs[f[1]]
	}
	switch f[0] {
	case "table":
		config := map[string]string{}
		for _, o := range f[1:] {
			switch o {
			case "write-serializable":
				config["delta.isolationLevel"] = "WriteSerializable"
			case "dv":
				config["delta.enableDeletionVectors"] = "true"
			case "append-only":
				config["delta.appendOnly"] = "true"
			}
		}
		tab, err := Create(ctx, objstore.NewMemory(nil), "t", CreateOptions{Schema: testSchema(), PartitionBy: []string{"day"}, Config: config}, noSleep(Options{}))
		if err != nil {
			return err.Error()
		}
		r.tab, r.txs = tab, map[string]*Tx{}
	case "begin":
		s, err := r.tab.Snapshot(ctx)
		if err != nil {
			return err.Error()
		}
		for _, name := range f[1:] {
			r.txs[name] = r.tab.Begin(s)
		}
	case "add", "add-moved":
		day := "2024-08-20"
		if len(f) > 3 {
			day = f[3]
		}
		a := testAdd(f[2], "day", day)
		a.DataChange = f[0] == "add"
		if len(f) > 5 {
			a.Stats = fmt.Sprintf(`{"numRecords":2,"minValues":{"id":%s},"maxValues":{"id":%s},"nullCount":{"id":0}}`, f[4], f[5])
		}
		x.AddFile(a)
	case "remove", "remove-moved":
		a := x.Base().byPath()[f[2]]
		if a == nil {
			return "no file " + f[2]
		}
		x.RemoveFile(a.Tombstone(1<<60, f[0] == "remove"))
	case "dv":
		a := *x.Base().byPath()[f[2]]
		x.RemoveFile(a.Tombstone(1<<60, true))
		r.seen++
		a.DeletionVector = &DeletionVector{StorageType: "i", PathOrInlineDv: fmt.Sprint("v", r.seen), SizeInBytes: 1, Cardinality: 1}
		x.AddFile(&a)
	case "read":
		switch {
		case f[2] == "whole":
			x.ReadWhole()
		case f[2] == "files":
			x.ReadFiles(f[3:]...)
		case strings.HasPrefix(f[2], "day="):
			d, _ := parseDate(f[2][4:])
			x.ReadWhere(Compare{"day", "=", d})
		case strings.HasPrefix(f[2], "id="):
			x.ReadWhere(Compare{"id", "=", Number(f[2][3:])})
		}
	case "txn":
		var v int64
		fmt.Sscan(f[3], &v)
		x.SetTxn(Txn{AppID: f[2], Version: v})
	case "domain":
		x.SetDomain(DomainMetadata{Domain: f[2], Configuration: "{}"})
	case "metadata":
		m := x.Base().Metadata()
		m.Description = f[2]
		x.SetMetadata(m)
	case "protocol":
		x.SetProtocol(Protocol{MinReaderVersion: 1, MinWriterVersion: 7, WriterFeatures: []string{"appendOnly", "invariants", "domainMetadata"}})
	case "commit":
		var o CommitOptions
		for _, w := range f[2:] {
			switch w {
			case "blind":
				o.BlindAppend = true
			case "rebase":
				o.Rebase = func(_ context.Context, newer *Snapshot, winners []WinningCommit) error { return nil }
			case "rebase-refuses":
				o.Rebase = func(context.Context, *Snapshot, []WinningCommit) error { return errors.New("rebase refuses") }
			}
		}
		res, err := x.Commit(ctx, o)
		if err != nil {
			var c *ConflictError
			if errors.As(err, &c) {
				return fmt.Sprintf("%s: conflict: %v", f[1], err)
			}
			return fmt.Sprintf("%s: %s", f[1], strings.ReplaceAll(err.Error(), r.tab.String(), "table"))
		}
		return fmt.Sprintf("%s: version %d, %d lost, %s, blind=%v", f[1], res.Version, res.Lost, res.Info.IsolationLevel, *res.Info.IsBlindAppend)
	case "files":
		s, err := r.tab.Snapshot(ctx)
		if err != nil {
			return err.Error()
		}
		return strings.Join(paths(s), " ")
	default:
		return "unknown command " + f[0]
	}
	return ""
}

func TestTooManyTries(t *testing.T) {
	ctx := context.Background()
	tab, _ := faultTable(t, CreateOptions{}, nil)
	other := reopen(t, tab)
	now := time.Now()
	opts := noSleep(Options{MaxTries: 7, Clock: func() time.Time { return now }})
	mine, err := Open(ctx, tab.Store(), "t", opts)
	if err != nil {
		t.Fatal(err)
	}
	n, total := 0, 0
	race := func(phase string) {
		if phase == "before-commit" {
			n, total = n+1, total+1
			appendFile(t, other, fmt.Sprint("winner", total))
		}
	}
	x := mine.Begin(mustSnapshot(t, mine))
	x.AddFile(testAdd("f"))
	if _, err := x.Commit(ctx, CommitOptions{Hook: race}); !errors.Is(err, ErrTooManyTries) || n != 7 {
		t.Fatal(n, err)
	}
	// The time bound.
	n = 0
	x = mine.Begin(mustSnapshot(t, mine))
	x.AddFile(testAdd("f"))
	if _, err := x.Commit(ctx, CommitOptions{Hook: func(p string) { race(p); now = now.Add(25 * time.Second) }}); !errors.Is(err, ErrTooManyTries) || n != 3 {
		t.Fatal(n, err)
	}
	if _, err := x.Commit(ctx, CommitOptions{}); err == nil {
		t.Fatal("a transaction was committed twice")
	}
}

// TestRebaseReplacesFiles: after a lost race the callback sees the newer table and may plan anew.
func TestRebaseReplacesFiles(t *testing.T) {
	ctx := context.Background()
	tab, _ := faultTable(t, CreateOptions{}, nil)
	appendFile(t, tab, "old")
	s := mustSnapshot(t, tab)
	x := tab.Begin(s)
	x.RemoveFile(s.byPath()["old"].Tombstone(1<<60, true))
	x.AddFile(testAdd("new1"))
	win := tab.Begin(s)
	win.RemoveFile(s.byPath()["old"].Tombstone(1<<60, true))
	win.AddFile(testAdd("other"))
	if _, err := win.Commit(ctx, CommitOptions{Operation: "MERGE"}); err != nil {
		t.Fatal(err)
	}
	appendFile(t, tab, "more")
	calls := 0
	res, err := x.Commit(ctx, CommitOptions{MetricsFunc: func() map[string]string { return map[string]string{"calls": fmt.Sprint(calls)} },
		Rebase: func(_ context.Context, newer *Snapshot, winners []WinningCommit) error {
			calls++
			if newer.Version() != 3 || len(winners) != 2 || winners[0].Info.Operation != "MERGE" || len(winners[0].Adds) != 1 {
				t.Errorf("newer %d, winners %+v", newer.Version(), winners)
			}
			x.ResetFiles()
			x.RemoveFile(newer.byPath()["other"].Tombstone(1<<60, true))
			x.AddFile(testAdd("new2"))
			return nil
		}})
	if err != nil || res.Version != 4 || calls != 1 || res.Info.OperationMetrics["calls"] != "1" {
		t.Fatal(res, err, calls)
	}
	if got := fmt.Sprint(paths(mustSnapshot(t, reopen(t, tab)))); got != "[more new2]" {
		t.Fatal(got)
	}
}
