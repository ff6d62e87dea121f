package ingest

import (
	"time"

	"github.com/cauce-data/cauce/delta"
)

// Counts say what became of records: RowsRead = RowsInserted + RowsUpdated + RowsUnchanged + RowsQuarantined +
// RowsFiltered + RowsDeleted.
type Counts struct {
	RowsRead     int64 `json:"rows_read"`
	RowsInserted int64 `json:"rows_inserted"`
	RowsUpdated  int64 `json:"rows_updated"`
	// RowsUnchanged counts rows that the table had already, and rows that lost against a newer one.
	RowsUnchanged   int64 `json:"rows_unchanged"`
	RowsQuarantined int64 `json:"rows_quarantined"`
	RowsFiltered    int64 `json:"rows_filtered"`
	RowsDeleted     int64 `json:"rows_deleted"`
	// RowsRemoved counts stored rows that a reprocessed or replaced file took out of the table; they are no part of RowsRead.
	RowsRemoved int64 `json:"rows_removed"`
}

func (c *Counts) add(o Counts) {
	c.RowsRead += o.RowsRead
	c.RowsInserted += o.RowsInserted
	c.RowsUpdated += o.RowsUpdated
	c.RowsUnchanged += o.RowsUnchanged
	c.RowsQuarantined += o.RowsQuarantined
	c.RowsFiltered += o.RowsFiltered
	c.RowsDeleted += o.RowsDeleted
	c.RowsRemoved += o.RowsRemoved
}

// countEpoch adds up what an engine and a merge did with an epoch.
func countEpoch(r *EpochResult, m *delta.MergeResult) Counts {
	return Counts{
		RowsRead:        r.Read,
		RowsInserted:    m.Inserted,
		RowsUpdated:     m.Updated,
		RowsUnchanged:   m.Unchanged + m.Lost + r.Lost,
		RowsQuarantined: r.Quarantined + m.Late,
		RowsFiltered:    r.Filtered,
		RowsDeleted:     m.Deleted,
		RowsRemoved:     m.Removed,
	}
}

// BatchReport says what a batch run did.
type BatchReport struct {
	FilesRead    int `json:"files_read"`
	FilesSkipped int `json:"files_skipped"` // known already, under this or another name
	Counts
	// Version is that of the run's last commit, or, where it committed nothing, of the table as it was; of several tables
	// the greatest (each table's own stands in Tables).
	Version delta.Version           `json:"version"`
	Seconds float64                 `json:"seconds"`
	Epochs  int                     `json:"epochs"`
	Tables  map[string]*TableReport `json:"tables"`
	// Warned counts rows that failed an expectation with on_fail: warn, by "table.expectation".
	Warned   map[string]int64 `json:"warned,omitempty"`
	Warnings []string         `json:"warnings"`
	// FailedFiles could not be read as a whole. They stay unread and are reported by every run (exit code 1).
	FailedFiles []FailedFile `json:"failed_files"`
}

// TableReport is the part of a BatchReport that concerns one table.
type TableReport struct {
	FilesRead    int `json:"files_read"`
	FilesSkipped int `json:"files_skipped"`
	Counts
	Version delta.Version `json:"version"`
}

// FailedFile is a file that could not be read.
type FailedFile struct {
	Source string `json:"source"`
	File   string `json:"file"`
	Error  string `json:"error"`
}

// EpochReport says what one commit of a source did.
type EpochReport struct {
	Source      string        `json:"source"`
	Table       string        `json:"table"`
	Incarnation string        `json:"incarnation"`
	Kind        string        `json:"kind"`
	Epoch       int64         `json:"epoch"`
	Version     delta.Version `json:"version"`
	Counts
	Files        int              `json:"files,omitempty"`
	FilesAdded   int              `json:"files_added"`
	FilesRemoved int              `json:"files_removed"`
	BytesAdded   int64            `json:"bytes_added"`
	Rebases      int              `json:"rebases"`
	Warned       map[string]int64 `json:"warned,omitempty"`
	Warnings     []string         `json:"warnings,omitempty"`
	Rules        map[string]int64 `json:"rules,omitempty"` // quarantined rows by the rule that they broke
	// Phases says how long each phase took, in seconds: fetch (of a stream, waiting included), read, compute, archive,
	// queue (a batch that was computed ahead waits for the one before), progress,
	// quarantine, locate (finding and deciding between stored rows), write, commit (with what rebasing costs),
	// confirm, acknowledge.
	Phases  map[string]float64 `json:"phases"`
	Seconds float64            `json:"seconds"`
}

// StreamReport says what one micro-batch did.
type StreamReport struct {
	EpochReport
	Ranges    []RangeMark    `json:"ranges"`
	Positions []PositionMark `json:"positions"`
	Gaps      []GapMark      `json:"gaps,omitempty"`
}

// Phases of a merge, as EpochReport.Phases names them.
const (
	phaseLocate = "locate"
	phaseWrite  = "write"
	phaseCommit = "commit"
)

// phases measures the phases of an epoch.
type phases struct {
	clock func() time.Time
	start time.Time
	last  time.Time
	took  map[string]float64
}

func (l *Lake) startPhases() *phases {
	now := l.clock()
	return &phases{clock: l.clock, start: now, last: now, took: map[string]float64{}}
}

// done ends the current phase under the given name; the next one begins.
func (p *phases) done(name string) {
	now := p.clock()
	p.took[name] += now.Sub(p.last).Seconds()
	p.last = now
}

func (p *phases) seconds() float64 { return p.clock().Sub(p.start).Seconds() }
