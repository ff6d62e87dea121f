package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// PlanOptions narrow a dry run as BatchOptions narrow a run.
type PlanOptions struct {
	Sources   []string
	Reprocess bool
	FileGlob  string
	Since     time.Time
}

// PlanReport says what a run would read and change.
type PlanReport struct {
	Tables   []TablePlan  `json:"tables"`
	Sources  []SourcePlan `json:"sources"`
	Warnings []string     `json:"warnings"`
}

// TablePlan says what a run would do to a table before it writes rows.
type TablePlan struct {
	Name       string        `json:"name"`
	Path       string        `json:"path"`
	Exists     bool          `json:"exists"`
	Version    delta.Version `json:"version"` // -1 where it does not exist
	AddColumns []string      `json:"add_columns,omitempty"`
	Problem    string        `json:"problem,omitempty"` // a run would refuse the table
}

// SourcePlan says what a run would read of a source.
type SourcePlan struct {
	Name  string `json:"name"`
	Table string `json:"table"`
	Kind  string `json:"kind"`
	Epoch int64  `json:"epoch"` // last one in the table, of a stream in the log that was read last; 0 for none
	// Files that a run would read, with the reason; for sources of files.
	Files      []FilePlan `json:"files,omitempty"`
	FilesKnown int        `json:"files_known"`
	BytesToDo  int64      `json:"bytes_to_read"`
	// Streams lists where the table stands in each log that it has read, the last one last; for streams.
	Streams []StreamPlan `json:"streams,omitempty"`
}

// FilePlan is one file that a run would look at.
type FilePlan struct {
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"` // new | copy | reissued | reprocess
}

// StreamPlan is where the table stands in one incarnation of a stream.
type StreamPlan struct {
	Incarnation string         `json:"incarnation"`
	Epoch       int64          `json:"epoch"`
	Positions   []PositionMark `json:"positions"`
	Gaps        []GapMark      `json:"gaps,omitempty"`
}

// Plan says what a run would read and change. It writes nothing; files whose name, size or time is new are hashed,
// so that copies are told from new content.
func (l *Lake) Plan(ctx context.Context, o PlanOptions) (*PlanReport, error) {
	r := &PlanReport{Tables: []TablePlan{}, Sources: []SourcePlan{}, Warnings: []string{}}
	for _, w := range l.lake.Warnings {
		r.Warnings = append(r.Warnings, w.String())
	}
	snaps := map[string]*delta.Snapshot{}
	for _, t := range l.lake.Tables {
		if len(o.Sources) > 0 && !slices.ContainsFunc(l.lake.Sources, func(s *pipeline.Source) bool { return s.Table == t.Name && slices.Contains(o.Sources, s.Name) }) {
			continue // a run of these sources does not open it
		}
		p := TablePlan{Name: t.Name, Path: t.Location, Version: -1}
		s, err := l.snapshot(ctx, t.Name)
		if err != nil {
			return nil, err
		}
		if s != nil {
			snaps[t.Name] = s
			p.Exists, p.Version = true, s.Version()
			add, err := l.catalog.Difference(t.Name, s)
			if err != nil {
				p.Problem = err.Error()
			}
			for _, f := range add {
				p.AddColumns = append(p.AddColumns, f.Name+" "+f.Type.String())
			}
		}
		r.Tables = append(r.Tables, p)
	}
	for _, src := range l.lake.Sources {
		if len(o.Sources) > 0 && !slices.Contains(o.Sources, src.Name) {
			continue
		}
		p := SourcePlan{Name: src.Name, Table: src.Table, Kind: src.Kind}
		snap := snaps[l.lake.Table(src.Table).Name]
		if src.Streaming() {
			if snap != nil {
				var err error
				if p.Streams, err = l.streams(ctx, src.Name, snap); err != nil {
					return nil, err
				}
				if n := len(p.Streams); n > 0 {
					p.Epoch = p.Streams[n-1].Epoch
				}
			}
			r.Sources = append(r.Sources, p)
			continue
		}
		plan, err := l.lake.Plan(src.Name)
		if err != nil {
			return nil, err
		}
		b := &batchRun{
			l: l, source: src, plan: plan, log: l.progressLog(src.Name, FilesIncarnation), state: newState(), report: &BatchReport{},
			opts: BatchOptions{Reprocess: o.Reprocess, FileGlob: o.FileGlob, Since: o.Since},
			done: map[string]bool{}, known: map[string]bool{},
		}
		if snap != nil {
			if b.state, err = b.log.load(ctx, snap); err != nil {
				return nil, err
			}
		}
		p.Epoch = b.state.epoch
		files, err := b.discover(ctx)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			fp, err := b.foresee(ctx, f)
			if errors.Is(err, objstore.ErrNotFound) {
				err = errors.New("it cannot be read: a link that leads nowhere, or gone since it was listed")
			}
			if err != nil {
				r.Warnings = append(r.Warnings, fmt.Sprintf("%s: %v", f.Key, err))
				continue
			}
			if fp.Reason == "copy" {
				b.known[f.Key] = true
			} else {
				p.BytesToDo += f.Size
			}
			p.Files = append(p.Files, fp)
		}
		p.FilesKnown = len(b.known)
		r.Warnings = append(r.Warnings, b.report.Warnings...)
		r.Sources = append(r.Sources, p)
	}
	for _, n := range o.Sources {
		if l.lake.Source(n) == nil {
			return nil, &UsageError{fmt.Sprintf("source %s: the lake file has none of that name; it has %s", n, l.sourceNames())}
		}
	}
	return r, nil
}

// foresee says what a run would do with a file.
func (b *batchRun) foresee(ctx context.Context, f objstore.Info) (FilePlan, error) {
	p := FilePlan{File: f.Key, Bytes: f.Size, Reason: "new"}
	if err := nameable(f.Key); err != nil {
		return p, err
	}
	sum, err := hashObject(ctx, b.l.store, f.Key)
	if err != nil {
		return p, err
	}
	m, before := b.state.files[f.Key]
	_, known := b.state.contents[sum]
	switch {
	case b.opts.Reprocess && (known || before):
		p.Reason = "reprocess"
	case before && m.SHA256 != sum:
		p.Reason = "reissued"
	case known:
		p.Reason = "copy"
	}
	return p, nil
}

// snapshot gives the newest snapshot of a table; nil where it does not exist yet.
func (l *Lake) snapshot(ctx context.Context, name string) (*delta.Snapshot, error) {
	t, err := l.catalog.Open(ctx, name)
	if errors.Is(err, delta.ErrNotATable) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return t.Snapshot(ctx)
}

// streams reads the progress of every incarnation of a source that the table knows; the one that was read last comes last.
func (l *Lake) streams(ctx context.Context, source string, snap *delta.Snapshot) ([]StreamPlan, error) {
	var out []StreamPlan
	prefix := "cauce/1/" + source + "/"
	txns := snap.Txns()
	last := func(app string) int64 {
		if t := txns[app].LastUpdated; t != nil {
			return *t
		}
		return 0 // a writer that does not say
	}
	apps := slices.SortedFunc(maps.Keys(txns), func(a, b string) int {
		return cmp.Or(cmp.Compare(last(a), last(b)), cmp.Compare(a, b))
	})
	for _, app := range apps {
		inc, ok := strings.CutPrefix(app, prefix)
		if !ok || inc == FilesIncarnation || inc == retryIncarnation || inc == repairIncarnation {
			continue
		}
		s, err := l.progressLog(source, inc).load(ctx, snap)
		if err != nil {
			return nil, err
		}
		out = append(out, StreamPlan{Incarnation: inc, Epoch: txns[app].Version, Positions: positionMarks(s.positions), Gaps: s.gaps})
	}
	return out, nil
}
