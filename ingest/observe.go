package ingest

import (
	"time"

	"github.com/cauce-data/cauce/delta"
)

// Observer is told what a lake does, for metrics. A field that is nil has no listener. The functions are called from
// several goroutines and must not block.
type Observer struct {
	// Epoch is called after each commit of a source, whatever its kind; for a stream, after the source was told of it.
	Epoch func(EpochReport)
	// Quarantined is called after each commit to quarantine, whatever is the reason.
	Quarantined func(delta.MergeResult)
	// Positions is called where a stream begins to read and after each of its commits: with where the table stands.
	Positions func(source string, pos []PositionMark)
	// Superseded is called where an epoch was given up because another run of its source had committed it.
	Superseded func(source string)
	// Maintained is called after each table that maintenance has looked at; err is nil where it did its work.
	Maintained func(table string, m TableMaintenance, took time.Duration, err error)
}

func (o *Observer) epoch(r *EpochReport) {
	if o.Epoch != nil {
		o.Epoch(*r)
	}
}

func (o *Observer) quarantined(m *delta.MergeResult) {
	if o.Quarantined != nil && m.Committed {
		o.Quarantined(*m)
	}
}

func (o *Observer) positions(source string, pos []PositionMark) {
	if o.Positions != nil {
		o.Positions(source, pos)
	}
}

func (o *Observer) superseded(source string) {
	if o.Superseded != nil {
		o.Superseded(source)
	}
}

func (o *Observer) maintained(table string, m *TableMaintenance, took time.Duration, err error) {
	if o.Maintained != nil {
		o.Maintained(table, *m, took, err)
	}
}
