package pipeline

import (
	"context"
	"fmt"
	"iter"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/cauce-data/cauce/delta"
)

// Epoch collects the raw records of one epoch and turns them into the rows to merge. Not safe for concurrent use.
type Epoch interface {
	// AddFile reads one file. An error means that nothing of the file is part of the epoch.
	AddFile(ctx context.Context, f *RawFile) error
	// AddRecords reads messages. They must not change until Close: those that are refused are told as they came.
	AddRecords(ctx context.Context, recs []Record) error
	// Finish runs filter, fields, casts, transform and expect, and keeps of each key the row with the greatest
	// order (DESIGN D2). Nothing may be added afterwards.
	Finish(ctx context.Context) (*EpochResult, error)
	Close() error
}

// FileExpecter is an Epoch that wants to know beforehand what is coming, so that it can share the processors out.
type FileExpecter interface {
	// ExpectFiles tells the sizes, in bytes, of the files that AddFile is about to be called with, from at least as many
	// goroutines as there are processors. It is called before the first AddFile, or not at all.
	ExpectFiles(sizes []int64)
}

// TableRuler is an Epoch that takes rows that the table itself would refuse for bad ones, like those that break a rule of the plan.
type TableRuler interface {
	// KeepRules tells the rules of the table. It is called before Finish, or not at all.
	KeepRules(rules *delta.RowRules)
}

// EpochResult is what Finish found. Read = Rows.NumRows() + Lost + Filtered + Quarantined.
type EpochResult struct {
	// Rows are the winners in the table's schema, system columns included, unique by the key.
	Rows        delta.KeyedRows
	Read        int64
	Filtered    int64
	Quarantined int64
	Lost        int64            // rows with a key that another row of the epoch won
	Warned      map[string]int64 // rows that failed an expectation with on_fail: warn, by its name
	Warnings    []string         // for people: "historico.csv: the last record is not terminated"
	// PerFile counts records read by RawFile.Name.
	PerFile map[string]int64
	// Bad yields the quarantined records.
	Bad iter.Seq2[BadRow, error]
	// Refuse yields the records of some of Rows, by ordinal, as bad ones: those that the table does not take, for a
	// reason that no rule of the plan can know.
	Refuse func(ctx context.Context, rows *roaring64.Bitmap, why Refusal) iter.Seq2[BadRow, error]
	// Failed is set when an expectation with on_fail: fail failed; nothing may be committed (exit code 3).
	Failed *ExpectationError
}

// Refusal says why rows are refused.
type Refusal struct {
	Rule   string
	Column string                    // whose value the reason shows
	Reason func(value string) string // the value as text, "null" for none
}

// ExpectationError says that data broke a rule with on_fail: fail.
type ExpectationError struct {
	Rule  string
	Rows  int64
	First BadRow
}

func (e *ExpectationError) Error() string {
	return fmt.Sprintf("expectation %s (on_fail: fail) failed for %d rows; first: %s", e.Rule, e.Rows, e.First.Reason)
}
