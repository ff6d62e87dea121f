package ingest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"path"
	"slices"
	"time"

	"github.com/cauce-data/cauce/pipeline"
)

// repairIncarnation is the incarnation under which what a repair fetched is committed: its epochs stand apart from those
// of a running stream.
const repairIncarnation = "repair"

// repairRowsMax bounds what one commit of a repair covers.
const repairRowsMax = 20_000

// archiveDaysMax bounds the archives that one repair of a hole fetches.
const archiveDaysMax = 366

// archiveAgain is how long an archive that was read is not fetched again where it is remembered.
const archiveAgain = time.Hour

// ErrNoArchive is returned (wrapped) by a Fetcher that has no archive of a day.
var ErrNoArchive = errors.New("there is no archive of that day")

// ErrNotFetchable is returned (wrapped) by a Fetcher for a series that its exchange does not know.
var ErrNotFetchable = errors.New("the source does not know the series")

// RepairRecord is a record that a source still has, in the form in which its stream carries it.
type RepairRecord struct {
	ID    int64
	Time  time.Time
	Value []byte
}

// Fetcher asks an outside system for records by their ids.
type Fetcher interface {
	// Name says who is asked; it becomes part of _origin.
	Name() string
	// Fetch yields the records that exist with ids from..to, ascending.
	Fetch(ctx context.Context, symbol string, from, to int64) iter.Seq2[RepairRecord, error]
	// Archive downloads the file of one day, such as 2024-08-20, into a folder, verified, and gives its path.
	Archive(ctx context.Context, symbol, day, dir string) (string, error)
}

// RepairOptions say what is repaired. Source and Fetcher must be set.
type RepairOptions struct {
	Source  string
	Fetcher Fetcher
	GapsOptions
	// All asks also for what files say that the source does not have.
	All bool
	// Archive fetches every hole from archives, whatever its size.
	Archive bool
	// Tail asks also for what the source has behind the last id of each series: what a stream lost last leaves no hole
	// before the next row comes.
	Tail bool
	// TempDir is where archives are kept until they have landed.
	TempDir string
	// Before are holes that were there when somebody looked before: only ids in them are fetched, because what is missing
	// at the moving end of a stream is mostly under way. nil: every hole is.
	Before []Hole
	// Had is when archives were read last, by symbol and day, for those who repair all the time: one is not fetched again
	// within an hour, as it would say the same. nil: nothing is remembered.
	Had     map[string]time.Time
	OnEpoch func(EpochReport) // nil: nobody listens
}

// RepairReport says what a repair did.
type RepairReport struct {
	Source  string `json:"source"`
	Holes   int    `json:"holes"`   // that were asked for
	Fetched int64  `json:"fetched"` // records that came in answer
	// Absent are ids of which the source said that it does not have them; the table remembers that.
	Absent   int64    `json:"absent"`
	Archives []string `json:"archives"` // that landed
	Counts
	Epochs   int      `json:"epochs"`
	Warnings []string `json:"warnings"`
}

// Repair fetches what the ledger of a source's table lacks. What comes runs through the source's plan as its stream does,
// with the origin "rest:<who>:<series>/0" and the id as position, so fetching it twice changes nothing. What the source
// says it does not have is written down with the same commit.
func (l *Lake) Repair(ctx context.Context, o RepairOptions) (*RepairReport, error) {
	r := &RepairReport{Source: o.Source, Archives: []string{}, Warnings: []string{}}
	src := l.lake.Source(o.Source)
	if src == nil || src.Repair == nil {
		return r, &UsageError{fmt.Sprintf("source %s has no repair block, nor a producer that implies one", o.Source)}
	}
	t := l.lake.Table(src.Table)
	if t.Ledger == nil {
		return r, &UsageError{fmt.Sprintf("table %s has no ledger: nothing tells which of its ids are missing; see ledger in docs/lake-file.md", t.Name)}
	}
	o.Table = t.Name
	wanted := func() ([]Hole, error) {
		g, err := l.Gaps(ctx, o.GapsOptions)
		if err != nil {
			return nil, err
		}
		return slices.DeleteFunc(g.Holes, func(h Hole) bool {
			_, mine := src.Repair.Symbol(h.Series)
			return !mine || h.Owner != OwnerOurs && !o.All
		}), nil
	}
	holes, err := wanted()
	if err != nil {
		return r, err
	}
	if o.Before != nil {
		holes = within(holes, o.Before)
	}
	r.Holes = len(holes)
	landed, err := l.repairByArchive(ctx, src, holes, o, r)
	if err != nil {
		return r, fmt.Errorf("source %s: %w", src.Name, err)
	}
	if landed {
		if holes, err = wanted(); err != nil {
			return r, err
		}
	}
	if o.Tail {
		g, err := l.Gaps(ctx, o.GapsOptions)
		if err != nil {
			return r, err
		}
		last := map[string]int64{}
		for _, d := range g.Days {
			last[d.Series] = max(last[d.Series], d.To)
		}
		for _, series := range slices.Sorted(maps.Keys(last)) {
			n := min(src.Repair.IDsMax, math.MaxInt64-1-last[series]) // the id behind a hole is asked for too
			if _, mine := src.Repair.Symbol(series); mine && n > 0 {
				holes = append(holes, Hole{Table: t.Name, Series: series, From: last[series] + 1, To: last[series] + n, IDs: n, tail: true})
			}
		}
	}
	if err := l.repairByID(ctx, src, holes, o, r); err != nil {
		return r, fmt.Errorf("source %s: %w", src.Name, err)
	}
	return r, nil
}

// within cuts holes down to the ids that were missing before too.
func within(holes, before []Hole) []Hole {
	var out []Hole
	for _, h := range holes {
		for _, b := range before {
			if b.Series != h.Series || b.Table != h.Table || b.To < h.From || b.From > h.To {
				continue
			}
			x := h
			x.From, x.To = max(h.From, b.From), min(h.To, b.To)
			x.IDs = x.To - x.From + 1
			out = append(out, x)
		}
	}
	return out
}

// repairByArchive lands the archives of the days of great holes and reads them.
func (l *Lake) repairByArchive(ctx context.Context, src *pipeline.Source, holes []Hole, o RepairOptions, r *RepairReport) (landed bool, err error) {
	type want struct{ symbol, day string }
	tried := map[want]bool{}
	var paths []string
	var read []want
	for _, h := range holes {
		if !o.Archive && h.IDs <= src.Repair.IDsMax {
			continue
		}
		symbol, _ := src.Repair.Symbol(h.Series)
		first, err := time.Parse(time.DateOnly, h.FromDay)
		n := daysBetween(h.FromDay, h.ToDay)
		if err != nil || n < 0 || n > archiveDaysMax {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s ids %d to %d: the hole spans more than %d days; land the monthly archives with cauce land", h.Series, h.From, h.To, archiveDaysMax))
			continue
		}
		for i := range n + 1 {
			w := want{symbol, first.AddDate(0, 0, i).Format(time.DateOnly)}
			if tried[w] {
				continue
			}
			tried[w] = true
			if had, ok := o.Had[w.symbol+" "+w.day]; ok && l.clock().Sub(had) < archiveAgain {
				r.Warnings = append(r.Warnings, fmt.Sprintf("%s %s: its archive was read at %s and did not fill the hole", w.symbol, w.day, had.UTC().Format(time.RFC3339)))
				continue
			}
			p, err := o.Fetcher.Archive(ctx, w.symbol, w.day, o.TempDir)
			if errors.Is(err, ErrNoArchive) {
				r.Warnings = append(r.Warnings, fmt.Sprintf("%s %s: %v", w.symbol, w.day, err))
				continue
			}
			if err != nil {
				return false, err
			}
			paths, read = append(paths, p), append(read, w)
		}
	}
	if len(paths) == 0 {
		return false, nil
	}
	dir := LandingPath
	if src.Repair.Market == pipeline.RepairUM { // spot has archives of the same names
		dir = path.Join(LandingPath, pipeline.RepairUM)
	}
	land, err := l.Land(ctx, paths, LandOptions{Dir: dir})
	if err != nil {
		return false, err
	}
	r.Warnings = append(r.Warnings, land.Warnings...)
	for _, f := range land.Files {
		r.Archives = append(r.Archives, f.Key)
	}
	b, err := l.RunBatch(ctx, BatchOptions{OnEpoch: o.OnEpoch})
	if b != nil {
		r.add(b.sum())
		r.Epochs += b.Epochs
		for _, f := range b.FailedFiles {
			r.Warnings = append(r.Warnings, f.File+": "+f.Error)
		}
	}
	if err == nil && o.Had != nil {
		for _, w := range read {
			o.Had[w.symbol+" "+w.day] = l.clock()
		}
	}
	return true, err
}

func (b *BatchReport) sum() Counts {
	var c Counts
	for _, t := range b.Tables {
		c.add(t.Counts)
	}
	return c
}

// repairByID fetches holes id by id and commits what comes in pieces of bounded size.
func (l *Lake) repairByID(ctx context.Context, src *pipeline.Source, holes []Hole, o RepairOptions, r *RepairReport) error {
	var recs []pipeline.Record
	var asked []AskedMark
	flush := func() error {
		if len(recs)+len(asked) == 0 {
			return nil
		}
		err := l.commitRepair(ctx, src, recs, asked, o, r)
		recs, asked = nil, nil
		return err
	}
	for _, h := range holes {
		if h.IDs > src.Repair.IDsMax {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s ids %d to %d: %s ids are too many to be fetched one by one (repair.ids_max)", h.Series, h.From, h.To, grouped(h.IDs)))
			continue
		}
		symbol, _ := src.Repair.Symbol(h.Series)
		// The neighbours are asked for too: a source that gives both has what lies between, or never had it.
		next, sure, known := h.From, false, true
		absent := func(to int64) {
			if sure && next <= to {
				asked = addAsked(asked, AskedMark{Series: h.Series, From: next, To: to, At: l.now(), Of: o.Fetcher.Name()})
				r.Absent += to - next + 1
			}
		}
		for rec, err := range o.Fetcher.Fetch(ctx, symbol, h.From-1, h.To+1) {
			if errors.Is(err, ErrNotFetchable) {
				r.Warnings = append(r.Warnings, fmt.Sprintf("%s: %v", h.Series, err))
				known = false
				break
			}
			if err != nil {
				return errors.Join(err, flush()) // what has come is worth keeping
			}
			switch {
			case rec.ID < h.From:
				sure = rec.ID == h.From-1
				continue
			case rec.ID > h.To:
				absent(h.To)
				next = h.To + 1
				continue
			}
			absent(rec.ID - 1)
			next = rec.ID + 1
			r.Fetched++
			recs = append(recs, pipeline.Record{
				Topic: h.Series, Offset: rec.ID, Time: rec.Time, Key: []byte(symbol), Value: rec.Value,
				Origin: "rest:" + o.Fetcher.Name() + ":" + h.Series + "/0",
			})
			if len(recs) >= repairRowsMax {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		if known && !h.tail && (next <= h.To || !sure) {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s ids %d to %d: %s no longer shows the ids around them, so nothing is known of what did not come", h.Series, h.From, h.To, o.Fetcher.Name()))
		}
	}
	return flush()
}

func (l *Lake) commitRepair(ctx context.Context, src *pipeline.Source, recs []pipeline.Record, asked []AskedMark, o RepairOptions, r *RepairReport) (err error) {
	plan, err := l.lake.Plan(src.Name)
	if err != nil {
		return err
	}
	t, err := l.catalog.Ensure(ctx, src.Table)
	if err != nil {
		return err
	}
	ph := l.startPhases()
	c := &epochCommit{source: src, plan: plan, table: t, log: l.progressLog(src.Name, repairIncarnation), at: l.now(), quarantine: true}
	if len(recs) > 0 {
		ep, at, err := l.newEpoch(ctx, plan)
		if err != nil {
			return err
		}
		defer ep.Close()
		c.at = at
		if err := ep.AddRecords(ctx, recs); err != nil {
			return err
		}
		if c.result, err = l.finish(ctx, ep, t); err != nil {
			return err
		}
		if c.result.Failed != nil {
			return c.result.Failed
		}
	}
	ph.done("compute")
	for lost := 0; ; lost++ {
		snap, err := t.Snapshot(ctx)
		if err != nil {
			return err
		}
		if c.state, err = c.log.load(ctx, snap); err != nil {
			return err
		}
		c.cover = &EpochFile{Kind: KindRepair, Asked: asked}
		rep, err := l.commitEpoch(ctx, c, ph)
		if err != nil && superseded(err) && lost < conflictTriesMax {
			continue // another repair was faster; what both have is the same
		}
		if err != nil {
			return err
		}
		r.add(rep.Counts)
		r.Epochs++
		l.observe.epoch(rep)
		if o.OnEpoch != nil {
			o.OnEpoch(*rep)
		}
		return nil
	}
}
