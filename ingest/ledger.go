package ingest

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// LedgerEngine is an Engine that can tell which ids of a table's ledger are there. The ledger is no second book beside
// the table: it is read from the rows whenever somebody asks, so no crash can part the two and no commit waits for it.
type LedgerEngine interface {
	// Ledger gives what a snapshot holds from a day on ("": all), by series and day, and as ranges of consecutive ids.
	Ledger(ctx context.Context, t *pipeline.Table, s *delta.Snapshot, since string) ([]pipeline.LedgerDay, []pipeline.LedgerRange, error)
}

// GapsOptions narrow what Gaps looks at. The zero value looks at everything.
type GapsOptions struct {
	Table  string // "": every table with a ledger
	Series string // "": every series
	Since  string // a day such as 2024-08-20: what lies before is left out, but not a hole that ends on it; "": nothing is
}

// GapsReport says what is missing, and of what it can be said that nothing is.
type GapsReport struct {
	Tables []TableLedger `json:"tables"`
	Days   []DayLedger   `json:"days"` // by table, day and series
	Holes  []Hole        `json:"holes"`
	// Offsets are the ranges of streams that were lost before they were read, and that somebody allowed to be lost.
	Offsets []OffsetGap `json:"offsets"`
	// Missing is the number of ids that are missing and not known to be missing at the source too.
	Missing int64 `json:"missing"`
}

// TableLedger is one table of a GapsReport.
type TableLedger struct {
	Table   string        `json:"table"`
	Version delta.Version `json:"version"` // -1 where nothing has been written yet
	// Ledger is false for a table whose ids nobody declared consecutive: nothing can be said of it.
	Ledger bool `json:"ledger"`
	// Quarantined are the open records in quarantine: ids that seem to be missing may be there.
	Quarantined int64 `json:"quarantined"`
}

// States of a DayLedger.
const (
	DayComplete   = "complete"
	DayIncomplete = "incomplete"      // ids are missing that the source has, or may have
	DaySoFar      = "complete so far" // today, or the last day of a series whose last id came in a stream, or has records behind it that are in quarantine
	// DayFrom: the first day of a series whose first id came in a stream, which may have begun in the middle of the day, or has
	// records before it that are in quarantine.
	DayFrom = "complete from its first id on"
)

// DayLedger is the statement about one series on one day.
type DayLedger struct {
	Table    string `json:"table"`
	Series   string `json:"series"`
	Day      string `json:"day"`
	State    string `json:"state"`
	Rows     int64  `json:"rows"`
	From     int64  `json:"from"`
	To       int64  `json:"to"`
	Files    int64  `json:"files"`    // rows that stand under a file
	Streams  int64  `json:"streams"`  // rows that came in a stream
	Repaired int64  `json:"repaired"` // rows that a repair fetched
	Missing  int64  `json:"missing"`  // ids that are missing, the source's own aside
	// Absent are ids that the source itself does not have.
	Absent int64 `json:"absent"`
	// Doubled are rows whose id another row of the series and day has too.
	Doubled int64 `json:"doubled"`
	// Statement says it for people.
	Statement string `json:"statement"`
}

// Whose a hole is.
const (
	OwnerOurs   = "ours"   // the source has the ids, or nobody has asked it yet
	OwnerSource = "source" // the source itself does not have them
)

// Hole is a range of ids that the table does not have although it has ids on both sides.
type Hole struct {
	Table  string `json:"table"`
	Series string `json:"series"`
	From   int64  `json:"from"` // both ends inclusive
	To     int64  `json:"to"`
	IDs    int64  `json:"ids"`
	// FromDay and ToDay are the days of the rows before and after the hole.
	FromDay string `json:"from_day"`
	ToDay   string `json:"to_day"`
	Owner   string `json:"owner"`
	Why     string `json:"why"`

	tail bool // what may have come behind the last id; To is only a bound
}

// OffsetGap is a lost range of a stream's offsets.
type OffsetGap struct {
	Source string `json:"source"`
	GapMark
}

// AskedMark is a range of ids of which a source said that it does not have them.
type AskedMark struct {
	Series string    `json:"series"`
	From   int64     `json:"from"` // both ends inclusive
	To     int64     `json:"to"`
	At     time.Time `json:"at"`
	Of     string    `json:"of"` // who was asked
}

// Gaps reads the ledgers.
func (l *Lake) Gaps(ctx context.Context, o GapsOptions) (*GapsReport, error) {
	r := &GapsReport{Tables: []TableLedger{}, Days: []DayLedger{}, Holes: []Hole{}, Offsets: []OffsetGap{}}
	if o.Table != "" && l.lake.Table(o.Table) == nil {
		_, err := l.catalog.Path(o.Table)
		return nil, err
	}
	if o.Since != "" {
		if _, err := time.Parse(time.DateOnly, o.Since); err != nil {
			return nil, &UsageError{fmt.Sprintf("%q is no day; write it as 2024-08-20", o.Since)}
		}
	}
	quarantined, waits := map[string]int64{}, map[string]positions{}
	for q, err := range l.openRows(ctx) {
		if err != nil {
			return nil, err
		}
		quarantined[q.Table]++
		p, ok := waits[q.Origin]
		if !ok {
			p.first = q.Position
		}
		waits[q.Origin] = positions{min(p.first, q.Position), max(p.last, q.Position)}
	}
	for _, t := range l.lake.Tables {
		if o.Table != "" && !strings.EqualFold(o.Table, t.Name) {
			continue
		}
		tl := TableLedger{Table: t.Name, Version: -1, Ledger: t.Ledger != nil, Quarantined: quarantined[t.Name]}
		snap, err := l.snapshot(ctx, t.Name)
		if err != nil {
			return nil, err
		}
		if snap != nil {
			tl.Version = snap.Version()
			asked, err := l.askedMarks(ctx, t, snap, r)
			if err != nil {
				return nil, err
			}
			if t.Ledger != nil {
				if err := l.tableGaps(ctx, t, snap, o, asked, waits, r); err != nil {
					return nil, fmt.Errorf("table %s: %w", t.Name, err)
				}
			}
		}
		r.Tables = append(r.Tables, tl)
	}
	return r, nil
}

// askedMarks reads from the progress of a table's sources what they said they do not have, and adds lost offsets to r.
func (l *Lake) askedMarks(ctx context.Context, t *pipeline.Table, snap *delta.Snapshot, r *GapsReport) ([]AskedMark, error) {
	var asked []AskedMark
	for _, src := range l.lake.Sources {
		if src.Table != t.Name || !src.Streaming() {
			continue
		}
		streams, err := l.streams(ctx, src.Name, snap)
		if err != nil {
			return nil, err
		}
		for _, s := range streams {
			for _, g := range s.Gaps {
				r.Offsets = append(r.Offsets, OffsetGap{Source: src.Name, GapMark: g})
			}
		}
		p, err := l.progressLog(src.Name, repairIncarnation).load(ctx, snap)
		if err != nil {
			return nil, err
		}
		asked = append(asked, p.asked...)
	}
	return asked, nil
}

// positions are the first and the last open record that an origin has in quarantine.
type positions struct{ first, last int64 }

// tableGaps reads the ledger of one table. waits has the open records of quarantine, by origin.
func (l *Lake) tableGaps(ctx context.Context, t *pipeline.Table, snap *delta.Snapshot, o GapsOptions, asked []AskedMark, waits map[string]positions, r *GapsReport) error {
	engine, ok := l.engine.(LedgerEngine)
	if !ok {
		return fmt.Errorf("BUG: the engine %T reads no ledger", l.engine)
	}
	days, ranges, err := ledgerSince(ctx, engine, t, snap, o)
	if err != nil {
		return err
	}
	holes := holesOf(t.Name, ranges, asked)
	days = slices.DeleteFunc(days, func(d pipeline.LedgerDay) bool { return d.Day < o.Since })
	holes = slices.DeleteFunc(holes, func(h Hole) bool { return max(h.FromDay, h.ToDay) < o.Since })
	type key struct{ series, day string }
	missing, absent, torn := map[key]int64{}, map[key]int64{}, map[key]bool{}
	for _, h := range holes {
		if h.Owner == OwnerSource {
			absent[key{h.Series, h.FromDay}] += h.IDs
			continue
		}
		r.Missing += min(h.IDs, math.MaxInt64-r.Missing) // of many series
		missing[key{h.Series, h.FromDay}] += h.IDs
		torn[key{h.Series, h.FromDay}], torn[key{h.Series, h.ToDay}] = true, true
	}
	r.Holes = append(r.Holes, holes...)
	// Where a day begins and ends is told by an id before or behind it, or by the file that its own first or last one stands in.
	first, last := map[string]pipeline.LedgerRange{}, map[string]pipeline.LedgerRange{}
	for _, g := range ranges {
		if l, ok := last[g.Series]; !ok || g.To > l.To {
			last[g.Series] = g
		}
		if f, ok := first[g.Series]; !ok || g.From < f.From {
			first[g.Series] = g
		}
	}
	inFile := func(p pipeline.LedgerPlace) bool { return strings.HasPrefix(p.Origin, "f:") }
	// What waits before or behind it may be more of the day.
	endsFile := func(p pipeline.LedgerPlace) bool { return inFile(p) && waits[p.Origin].last <= p.Position }
	beginsFile := func(p pipeline.LedgerPlace) bool {
		w, some := waits[p.Origin]
		return inFile(p) && (!some || w.first >= p.Position)
	}
	openBegin, openEnd := map[key]bool{}, map[key]bool{}
	for series, g := range last {
		openEnd[key{series, g.Day}] = !slices.ContainsFunc(g.ToPlaces, endsFile)
	}
	for series, g := range first { // ids count from 0 or from 1
		openBegin[key{series, g.Day}] = g.From > 1 && !slices.ContainsFunc(g.FromPlaces, beginsFile)
	}
	today := l.now().In(t.Timezone).Format(time.DateOnly)
	for _, d := range days {
		k := key{d.Series, d.Day}
		s := DayLedger{
			Table: t.Name, Series: d.Series, Day: d.Day, State: DayComplete, Rows: d.Rows, From: d.From, To: d.To,
			Files: d.Files, Repaired: d.Repaired, Streams: d.Rows - d.Files - d.Repaired,
			Missing: missing[k], Absent: absent[k], Doubled: d.Rows - d.IDs,
		}
		switch {
		case torn[k]:
			s.State = DayIncomplete
		case d.Day >= today, openEnd[k]:
			s.State = DaySoFar
		case openBegin[k]:
			s.State = DayFrom
		}
		s.Statement = s.say(t.Ledger.Unit)
		r.Days = append(r.Days, s)
	}
	return nil
}

// ledgerSince is the ledger from a day on, or from before it: whether a day has its first ids is told by the last ones that its
// series has before it. As a rule those are of the day before.
func ledgerSince(ctx context.Context, engine LedgerEngine, t *pipeline.Table, snap *delta.Snapshot, o GapsOptions) ([]pipeline.LedgerDay, []pipeline.LedgerRange, error) {
	sinces := []string{""}
	if first, err := time.Parse(time.DateOnly, o.Since); err == nil {
		sinces = []string{first.AddDate(0, 0, -1).Format(time.DateOnly), first.AddDate(0, 0, -31).Format(time.DateOnly), ""}
	}
	for ; ; sinces = sinces[1:] {
		days, ranges, err := engine.Ledger(ctx, t, snap, sinces[0])
		if err != nil {
			return nil, nil, err
		}
		if o.Series != "" {
			days = slices.DeleteFunc(days, func(d pipeline.LedgerDay) bool { return d.Series != o.Series })
			ranges = slices.DeleteFunc(ranges, func(g pipeline.LedgerRange) bool { return g.Series != o.Series })
		}
		before := map[string]bool{}
		for _, d := range days {
			if d.Day < o.Since {
				before[d.Series] = true
			}
		}
		if len(sinces) == 1 || !slices.ContainsFunc(days, func(d pipeline.LedgerDay) bool { return !before[d.Series] }) {
			return days, ranges, nil
		}
	}
}

// say puts a statement into words: 2024-08-20 BTCUSDT: complete, 1,203,441 trades, ids 1 to 1203441.
func (d *DayLedger) say(unit string) string {
	day := d.Day
	if day == "" {
		day = "without a day"
	}
	s := fmt.Sprintf("%s %s: %s, %s %s, ids %d..%d", day, d.Series, d.State, grouped(d.Rows), unit, d.From, d.To)
	switch {
	case d.Missing > 0:
		s += fmt.Sprintf(", %s missing", grouped(d.Missing))
	case d.State == DayIncomplete:
		s += ", some missing before the first"
	}
	if d.Repaired > 0 {
		s += fmt.Sprintf(", %s repaired", grouped(d.Repaired))
	}
	if d.Absent > 0 {
		s += fmt.Sprintf(", %s ids that the source itself lacks", grouped(d.Absent))
	}
	if d.Doubled > 0 {
		s += fmt.Sprintf(", %s rows with an id that another has too", grouped(d.Doubled))
	}
	return s
}

// grouped writes a number with commas between thousands.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// holesOf finds what lies between the ranges of each series, and says whose it is. Ranges of different days may
// interleave: a row's time does not always grow with its id.
func holesOf(table string, ranges []pipeline.LedgerRange, asked []AskedMark) []Hole {
	slices.SortFunc(ranges, func(a, b pipeline.LedgerRange) int {
		return cmp.Or(strings.Compare(a.Series, b.Series), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	var out []Hole
	for i := 0; i < len(ranges); {
		last := ranges[i] // the range with the greatest end so far
		for i++; i < len(ranges) && ranges[i].Series == last.Series; i++ {
			next := ranges[i]
			if next.From-1 > last.To { // no id is negative
				out = append(out, split(Hole{Table: table, Series: last.Series, From: last.To + 1, To: next.From - 1, FromDay: last.Day, ToDay: next.Day}, last, next, asked)...)
			}
			if next.To > last.To {
				last = next
			}
		}
	}
	return out
}

// besideInFile finds a file that has an id before a hole and one behind it, and at which records; best is one where they follow each
// other. file is "" if there is none.
func besideInFile(before, after []pipeline.LedgerPlace) (file string, at, to int64) {
	for _, b := range before {
		for _, a := range after {
			if b.Origin != a.Origin || !strings.HasPrefix(b.Origin, "f:") || file != "" && a.Position != b.Position+1 {
				continue
			}
			if file, at, to = b.Origin, b.Position, a.Position; to == at+1 {
				return file, at, to
			}
		}
	}
	return file, at, to
}

// split cuts a hole by what the source said that it does not have.
func split(h Hole, before, after pipeline.LedgerRange, asked []AskedMark) []Hole {
	h.Owner, h.Why = OwnerOurs, "nobody has asked the source yet"
	file, left, right := besideInFile(before.ToPlaces, after.FromPlaces)
	switch {
	case file != "" && right == left+1:
		h.Owner = OwnerSource
		h.Why = fmt.Sprintf("the file %s has nothing between its records %d and %d", file, left, right)
	case file != "":
		h.Why = fmt.Sprintf("the file %s has other records between its records %d and %d; quarantine may hold them", file, left, right)
	case daysBetween(h.FromDay, h.ToDay) > 1:
		h.Why = fmt.Sprintf("nothing between %s and %s has been loaded", h.FromDay, h.ToDay)
	}
	var marks []AskedMark
	for _, m := range asked {
		if m.Series == h.Series && m.From <= h.To && m.To >= h.From {
			m.From, m.To = max(m.From, h.From), min(m.To, h.To)
			marks = append(marks, m)
		}
	}
	slices.SortFunc(marks, func(a, b AskedMark) int { return cmp.Compare(a.From, b.From) })
	var out []Hole
	add := func(from, to int64, owner, why string) {
		if from <= to {
			x := h
			x.From, x.To, x.IDs, x.Owner, x.Why = from, to, to-from+1, owner, why
			out = append(out, x)
		}
	}
	at := h.From
	for _, m := range marks {
		if m.To < at {
			continue
		}
		add(at, m.From-1, h.Owner, h.Why)
		add(max(at, m.From), m.To, OwnerSource, fmt.Sprintf("%s does not have them, it said at %s", m.Of, m.At.UTC().Format(time.RFC3339)))
		at = m.To + 1
	}
	add(at, h.To, h.Owner, h.Why)
	return out
}

// daysBetween is how many days b lies after a; 0 where one of them is no day.
func daysBetween(a, b string) int {
	x, err := time.Parse(time.DateOnly, a)
	if err != nil {
		return 0
	}
	y, err := time.Parse(time.DateOnly, b)
	if err != nil {
		return 0
	}
	return int(y.Sub(x).Hours() / 24)
}

// addAsked takes one more mark into an ascending list, joined with those of its series that it touches.
func addAsked(marks []AskedMark, m AskedMark) []AskedMark {
	for _, o := range marks {
		if o.Series == m.Series && o.From <= m.From && o.To >= m.To {
			return marks
		}
	}
	if n := len(marks); n > 0 && marks[n-1].Series == m.Series && marks[n-1].Of == m.Of && marks[n-1].To+1 == m.From {
		marks[n-1].To, marks[n-1].At = m.To, m.At
		return marks
	}
	return append(marks, m)
}
