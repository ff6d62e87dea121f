package ingest

import (
	"context"
	"time"

	"github.com/cauce-data/cauce/delta"
)

// Status says how the lake stands, from its tables alone.
type Status struct {
	Tables     []TableStatus     `json:"tables"`
	Sources    []SourceStatus    `json:"sources"`
	Quarantine []QuarantineCount `json:"quarantine"`
}

// TableStatus is one table.
type TableStatus struct {
	Name       string        `json:"name"`
	Path       string        `json:"path"`
	Exists     bool          `json:"exists"`
	Version    delta.Version `json:"version"`
	Time       time.Time     `json:"time"` // of the version
	Rows       int64         `json:"rows"` // -1 where a file has no statistics; tombstones of deleted keys included
	Files      int           `json:"files"`
	Bytes      int64         `json:"bytes"`
	Partitions int           `json:"partitions"`
}

// SourceStatus is what the table has of one source.
type SourceStatus struct {
	Name    string       `json:"name"`
	Table   string       `json:"table"`
	Kind    string       `json:"kind"`
	Epoch   int64        `json:"epoch"`
	Files   int          `json:"files"`
	Streams []StreamPlan `json:"streams,omitempty"`
}

// QuarantineCount counts open quarantined rows.
type QuarantineCount struct {
	Table  string `json:"table"`
	Source string `json:"source"`
	Rule   string `json:"rule"`
	Rows   int64  `json:"rows"`
}

// Status describes tables, sources and quarantine.
func (l *Lake) Status(ctx context.Context) (*Status, error) {
	st := &Status{Tables: []TableStatus{}, Sources: []SourceStatus{}, Quarantine: []QuarantineCount{}}
	snaps := map[string]*delta.Snapshot{}
	for _, name := range l.catalog.Names() {
		path, err := l.catalog.Path(name)
		if err != nil {
			return nil, err
		}
		t := TableStatus{Name: name, Path: path, Version: -1}
		s, err := l.snapshot(ctx, name)
		if err != nil {
			return nil, err
		}
		if s != nil {
			snaps[name] = s
			describe(&t, s)
		}
		st.Tables = append(st.Tables, t)
	}
	for _, src := range l.lake.Sources {
		s := SourceStatus{Name: src.Name, Table: src.Table, Kind: src.Kind}
		if snap := snaps[l.lake.Table(src.Table).Name]; snap != nil {
			if src.Streaming() {
				var err error
				if s.Streams, err = l.streams(ctx, src.Name, snap); err != nil {
					return nil, err
				}
				for _, x := range s.Streams {
					s.Epoch = max(s.Epoch, x.Epoch)
				}
			} else {
				p, err := l.progressLog(src.Name, FilesIncarnation).load(ctx, snap)
				if err != nil {
					return nil, err
				}
				s.Epoch, s.Files = p.epoch, len(p.origins)
			}
		}
		st.Sources = append(st.Sources, s)
	}
	counts, err := l.quarantineCounts(ctx)
	st.Quarantine = append(st.Quarantine, counts...)
	return st, err
}

func describe(t *TableStatus, s *delta.Snapshot) {
	t.Exists, t.Version, t.Time = true, s.Version(), s.Time()
	by := s.PartitionBy()
	partitions := map[string]bool{}
	for _, a := range s.Adds() {
		t.Files++
		t.Bytes += a.Size
		key := ""
		for _, c := range by {
			if v := a.PartitionValues[c]; v != nil {
				key += "=" + *v
			}
			key += "\x00"
		}
		partitions[key] = true
		st, err := delta.ParseStats(a.Stats)
		if err != nil || st == nil || a.Stats == "" {
			t.Rows = -1
		}
		if t.Rows < 0 {
			continue
		}
		t.Rows += st.NumRecords
		if a.DeletionVector != nil {
			t.Rows -= a.DeletionVector.Cardinality
		}
	}
	if len(by) > 0 {
		t.Partitions = len(partitions)
	}
}

// quarantineCounts counts the open rows by table, source and rule.
func (l *Lake) quarantineCounts(ctx context.Context) ([]QuarantineCount, error) {
	j := l.newJudge()
	var out []QuarantineCount
	at := map[QuarantineCount]int{}
	for r, err := range l.quarantineRows(ctx, judgedColumns...) {
		if err != nil {
			return nil, err
		}
		if err := j.judge(ctx, r); err != nil {
			return nil, err
		}
		if r.State != StateOpen {
			continue
		}
		c := QuarantineCount{Table: r.Table, Source: r.Source, Rule: r.Rule}
		i, ok := at[c]
		if !ok {
			i = len(out)
			at[c] = i
			out = append(out, c)
		}
		out[i].Rows++
	}
	return out, nil
}
