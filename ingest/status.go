package ingest

import (
	"context"
	"errors"
	"iter"
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
	Epoch   int64        `json:"epoch"` // commits that read it, in all of its logs
	Files   int          `json:"files"`
	Streams []StreamPlan `json:"streams,omitempty"` // by log; the one that was read last comes last
	// Recent is what the newest log of a stream brought lately; nil: nothing.
	Recent *Throughput `json:"recent,omitempty"`
}

// Throughput is what the last commits of a stream read.
type Throughput struct {
	Records   int64     `json:"records"`
	Commits   int       `json:"commits"`
	Seconds   float64   `json:"seconds"`    // from the commit before them to the last of them
	PerSecond float64   `json:"per_second"` // Records / Seconds
	Last      time.Time `json:"last"`       // when the last of them was made
}

// Bounds of Throughput: how many commits are looked at, and how long a pause between two may be.
const (
	recentCommitsMax = 64
	recentPauseMax   = 5 * time.Minute
)

// recent follows the chain of progress files back from the last one. What the oldest of them read does not count: when
// it began to be read is not known.
func (p *progressLog) recent(ctx context.Context, s *progressState) (*Throughput, error) {
	var t *Throughput
	var newer *EpochFile
	for name := s.last; name != ""; name = newer.Previous {
		e := new(EpochFile)
		if err := p.readJSON(ctx, name, e); errors.Is(err, errNoProgress) {
			break // maintenance has tidied it away
		} else if err != nil {
			return nil, err
		}
		if e.TableID != s.tableID {
			break
		}
		if newer == nil {
			newer, t = e, &Throughput{Last: e.WrittenAt}
			continue
		}
		if newer.WrittenAt.Sub(e.WrittenAt) > recentPauseMax || t.Commits == recentCommitsMax {
			break
		}
		t.Commits++
		for _, r := range newer.Ranges {
			t.Records += r.Rows
		}
		if t.Seconds = t.Last.Sub(e.WrittenAt).Seconds(); t.Seconds > 0 {
			t.PerSecond = float64(t.Records) / t.Seconds
		}
		newer = e
	}
	return t, nil
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
					s.Epoch += x.Epoch
				}
				if n := len(s.Streams); n > 0 {
					log := l.progressLog(src.Name, s.Streams[n-1].Incarnation)
					p, err := log.load(ctx, snap)
					if err == nil {
						s.Recent, err = log.recent(ctx, p)
					}
					if err != nil {
						return nil, err
					}
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

// TableSize is what a table consists of.
type TableSize struct {
	Version           delta.Version
	Files             int
	Bytes             int64
	PartitionFilesMax int // files of the partition that has most
}

// Size tells what a table consists of; nil where nothing was written yet.
func (l *Lake) Size(ctx context.Context, table string) (*TableSize, error) {
	s, err := l.snapshot(ctx, table)
	if err != nil || s == nil {
		return nil, err
	}
	t := &TableSize{Version: s.Version()}
	by, files := s.TableInfo().PhysicalPartitionBy(), map[string]int{}
	for _, a := range s.Adds() {
		t.Files++
		t.Bytes += a.Size
		key := partitionKey(by, a)
		files[key]++
		t.PartitionFilesMax = max(t.PartitionFilesMax, files[key])
	}
	return t, nil
}

// partitionKey tells the partitions of a snapshot apart, by the names that their columns have in the log.
func partitionKey(by []string, a *delta.Add) string {
	key := ""
	for _, c := range by {
		if v := a.PartitionValues[c]; v != nil {
			key += "=" + *v
		}
		key += "\x00"
	}
	return key
}

func describe(t *TableStatus, s *delta.Snapshot) {
	t.Exists, t.Version, t.Time = true, s.Version(), s.Time()
	by := s.TableInfo().PhysicalPartitionBy()
	partitions := map[string]bool{}
	for _, a := range s.Adds() {
		t.Files++
		t.Bytes += a.Size
		partitions[partitionKey(by, a)] = true
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
	var out []QuarantineCount
	at := map[QuarantineCount]int{}
	for r, err := range l.openRows(ctx) {
		if err != nil {
			return nil, err
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

// openRows reads the open rows of quarantine, of which judgedColumns alone are set.
func (l *Lake) openRows(ctx context.Context) iter.Seq2[*QuarantineRow, error] {
	return func(yield func(*QuarantineRow, error) bool) {
		j := l.newJudge()
		for r, err := range l.quarantineRows(ctx, judgedColumns...) {
			if err == nil {
				err = j.judge(ctx, r)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if r.State == StateOpen && !yield(r, nil) {
				return
			}
		}
	}
}
