package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

// logs is a log of several partitions in memory. Its offsets may expire, be lost and be used again.
type logs struct {
	parts  map[int32]*logPart
	latest bool // where the table knows nothing
	away   bool // no server answers: nothing comes

	at      map[int32]ingest.Position
	started map[int32]ingest.Position
	seeks   int
}

type logPart struct {
	first   int64
	records []pipeline.Record // the first has offset 0
	holes   []int64           // offsets that are gone from the middle
	markers int64             // entries at the end that are no records
}

func (p *logPart) end() int64 { return int64(len(p.records)) + p.markers }

func newLogs(partitions int32) *logs {
	l := &logs{parts: map[int32]*logPart{}}
	for p := range partitions {
		l.parts[p] = &logPart{}
	}
	return l
}

func (l *logs) publish(p int32, ids ...string) {
	for _, id := range ids {
		n := int64(len(l.parts[p].records))
		l.parts[p].records = append(l.parts[p].records, pipeline.Record{
			Topic: "trades", Partition: p, Offset: n, Time: start.Add(time.Duration(n) * time.Second),
			Value: fmt.Appendf(nil, `{"e":"trade","s":%q,"p":"1","n":"live","T":%d}`, id, start.UnixMilli()),
		})
	}
}

func (l *logs) gap(p int32, from, to int64, reason string, after ingest.Position) error {
	return &ingest.GapError{Source: "live", Topic: "trades", Partition: p, From: from, To: to, Reason: reason, After: &after}
}

func (l *logs) Incarnation(context.Context) (string, error) { return "one", nil }

func (l *logs) Seek(_ context.Context, after map[int32]ingest.Position) error {
	l.seeks++
	l.at, l.started = maps.Clone(after), map[int32]ingest.Position{}
	for _, p := range slices.Sorted(maps.Keys(l.parts)) {
		part := l.parts[p]
		pos, known := after[p]
		switch {
		case !known:
			if l.at[p] = (ingest.Position{Offset: part.first - 1}); l.latest {
				l.at[p] = ingest.Position{Offset: part.end() - 1}
			}
			l.started[p] = l.at[p]
		case pos.Offset >= part.end():
			return l.gap(p, pos.Offset+1, -1, "its end is lost", ingest.Position{Offset: part.end() - 1, Renewals: pos.Renewals + 1})
		case pos.Offset < part.first-1:
			return l.gap(p, pos.Offset+1, part.first-1, "expired", ingest.Position{Offset: part.first - 1, Renewals: pos.Renewals})
		}
	}
	return nil
}

func (l *logs) Started() map[int32]ingest.Position { return l.started }

func (l *logs) Ends(context.Context) (map[int32]int64, error) {
	out := map[int32]int64{}
	for p, part := range l.parts {
		out[p] = part.end() - 1
	}
	return out, nil
}

func (l *logs) Fetch(ctx context.Context, rowsMax int, _ int64, wait time.Duration) ([]pipeline.Record, error) {
	var out []pipeline.Record
	for _, p := range slices.Sorted(maps.Keys(l.parts)) {
		part := l.parts[p]
		for l.at[p].Offset+1 < int64(len(part.records)) && len(out) < rowsMax && !l.away {
			next := l.at[p]
			if next.Offset++; slices.Contains(part.holes, next.Offset) {
				return out, l.gap(p, next.Offset, next.Offset, "a hole", next)
			}
			r := part.records[next.Offset]
			r.Origin = pipeline.Origin("mem", "one", "trades", p, next)
			out = append(out, r)
			l.at[p] = next
		}
	}
	if len(out) == 0 {
		time.Sleep(min(wait, time.Millisecond))
	}
	return out, ctx.Err()
}

func (l *logs) Drained(context.Context, map[int32]int64) (bool, error) {
	if l.away {
		return false, errors.New("no broker answers")
	}
	for p, part := range l.parts {
		if l.at[p].Offset+1 < int64(len(part.records)) {
			return false, nil
		}
	}
	return true, nil
}

func (l *logs) Committed(context.Context, map[int32]ingest.Position) error { return nil }
func (l *logs) Close() error                                               { return nil }

// read is a run of the stream over what is there, in a process of its own, by which nothing may be read twice.
func (w *world) read(l *logs, allow bool) (gaps []ingest.GapMark, rows int64, err error) {
	w.t.Helper()
	w.reopen()
	reports, err := w.stream(l, ingest.StreamOptions{AllowGap: allow})
	for _, r := range reports {
		gaps, rows = append(gaps, r.Gaps...), rows+r.RowsRead
	}
	return gaps, rows, err
}

func named(prefix string, from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprint(prefix, i))
	}
	return out
}

// keyless is the lake in which each record of the stream is a row, so that one that is read twice is seen.
var keyless = strings.Replace(strings.Replace(tradesLake, "    key: [id]\n", "    key: []\n", 1), "    sequence: [event_time]\n", "", 1)

func wantGap(t *testing.T, err error, partition int32, from, to int64) {
	t.Helper()
	var gap *ingest.GapError
	if !errors.As(err, &gap) || gap.Partition != partition || gap.From != from || gap.To != to || ingest.ExitCode(err) != 4 {
		t.Fatalf("%v, want a gap in partition %d from %d to %d", err, partition, from, to)
	}
}

// However many partitions have lost records, each loss stands in the table once, and the others go on where they stood.
func TestGapsInManyPartitions(t *testing.T) {
	w := newWorld(t, keyless)
	const partitions = 7
	l := newLogs(partitions)
	for p := range int32(partitions) {
		l.publish(p, named(fmt.Sprintf("p%d-", p), 0, 3)...)
	}
	if _, n, err := w.read(l, false); err != nil || n != 3*partitions {
		t.Fatalf("%d rows, %v", n, err)
	}
	for p := range int32(partitions) {
		l.publish(p, named(fmt.Sprintf("p%d-", p), 3, 10)...)
		if p > 0 {
			l.parts[p].first = 6
		}
	}
	_, n, err := w.read(l, false)
	if wantGap(t, err, 1, 3, 5); n != 0 {
		t.Errorf("%d rows were read behind a gap", n)
	}
	gaps, n, err := w.read(l, true)
	if err != nil || len(gaps) != partitions-1 || n != 7+4*(partitions-1) {
		t.Fatalf("%d gaps, %d rows, %v", len(gaps), n, err)
	}
	for i, g := range gaps {
		if g.Partition != int32(i+1) || g.From != 3 || g.To != 5 {
			t.Errorf("gap %+v", g)
		}
	}
	if rows := w.rows("trades", "id"); len(rows) != 3*partitions+7+4*(partitions-1) {
		t.Errorf("%d rows: %v", len(rows), rows)
	}
	if gaps, n, err = w.read(l, false); err != nil || len(gaps) != 0 || n != 0 {
		t.Errorf("once more: %d gaps, %d rows, %v", len(gaps), n, err)
	}
}

// A log that has lost its end gives its offsets to other records: those are read, the ones before them are not read again,
// and none is taken for another.
func TestGapAtTheEnd(t *testing.T) {
	w := newWorld(t, keyless)
	l := newLogs(2)
	l.publish(0, named("a", 0, 5)...)
	l.publish(1, named("b", 0, 5)...)
	if _, _, err := w.read(l, false); err != nil {
		t.Fatal(err)
	}
	want := append(named("a", 0, 5), named("b", 0, 5)...)
	for round := range 2 {
		l.parts[0].records = l.parts[0].records[:3]
		_, _, err := w.read(l, false)
		wantGap(t, err, 0, int64(5+round), -1)
		if gaps, n, err := w.read(l, true); err != nil || len(gaps) != 1 || n != 0 {
			t.Fatalf("%+v, %d rows, %v", gaps, n, err)
		}
		l.publish(0, named(fmt.Sprintf("new%d-", round), 0, 3)...)
		l.publish(1, fmt.Sprint("b", 5+round))
		if gaps, n, err := w.read(l, false); err != nil || len(gaps) != 0 || n != 4 {
			t.Errorf("behind the gap: %+v, %d rows, %v", gaps, n, err)
		}
		want = append(append(want, named(fmt.Sprintf("new%d-", round), 0, 3)...), fmt.Sprint("b", 5+round))
		slices.Sort(want)
		equal(t, "rows", w.rows("trades", "id"), want)
	}
}

// What stands before a hole gets into the table whether or not the hole is allowed, and so does what stands behind it if it is.
func TestGapInTheMiddle(t *testing.T) {
	w := newWorld(t, keyless)
	l := newLogs(1)
	l.publish(0, named("a", 0, 3)...)
	if _, _, err := w.read(l, false); err != nil {
		t.Fatal(err)
	}
	l.publish(0, named("a", 3, 12)...)
	l.parts[0].holes = []int64{5, 6, 9}
	_, n, err := w.read(l, false)
	if wantGap(t, err, 0, 5, 5); n != 2 {
		t.Errorf("%d rows before the gap, want 2", n)
	}
	gaps, n, err := w.read(l, true)
	if err != nil || len(gaps) != 3 || n != 4 {
		t.Errorf("%d gaps, %d rows, %v", len(gaps), n, err)
	}
	if _, n, err = w.read(l, false); err != nil || n != 0 {
		t.Errorf("once more: %d rows, %v", n, err)
	}
	equal(t, "rows", w.rows("trades", "id"), []string{"a0", "a1", "a10", "a11", "a2", "a3", "a4", "a7", "a8"})
}

// Of two runs that allow the same gap one records it, and neither goes back behind what the other has read since.
func TestGapAllowedTwice(t *testing.T) {
	w := newWorld(t, keyless)
	l := newLogs(1)
	l.publish(0, named("a", 0, 5)...)
	if _, _, err := w.read(l, false); err != nil {
		t.Fatal(err)
	}
	l.parts[0].records = l.parts[0].records[:2]
	l.publish(0, "n0", "n1")
	other := &logs{parts: l.parts}
	raced := &racing{logs: l, first: func() {
		if _, n, err := w.read(other, true); err != nil || n != 0 {
			t.Errorf("%d rows, %v", n, err)
		}
		l.publish(0, "n2")
		if _, n, err := w.read(other, false); err != nil || n != 1 {
			t.Errorf("%d rows, %v", n, err)
		}
	}}
	lake := w.Lake
	var gaps int
	err := lake.RunStream(t.Context(), raced, ingest.StreamOptions{
		Source: "live", AllowGap: true, AvailableNow: true, NoMaintenance: true, OnEpoch: func(r ingest.StreamReport) { gaps += len(r.Gaps) },
	})
	if err != nil || gaps != 0 {
		t.Errorf("%d gaps recorded again, %v", gaps, err)
	}
	if got := w.rows("trades", "id"); len(got) != 6 {
		t.Errorf("rows: %v", got)
	}
}

// racing lets somebody else work between its first gap and what it makes of it.
type racing struct {
	*logs
	first func()
}

func (r *racing) Seek(ctx context.Context, after map[int32]ingest.Position) error {
	err := r.logs.Seek(ctx, after)
	if first := r.first; err != nil && first != nil {
		r.first = nil
		first()
	}
	return err
}

// Where reading begins is in the table before anything is read, of empty partitions too: what comes and goes while the
// stream is away is a gap, and what comes after a start at the end is read.
func TestStartOfEmptyPartitions(t *testing.T) {
	t.Run("expired", func(t *testing.T) {
		w := newWorld(t, keyless)
		l := newLogs(2)
		l.publish(0, "a0")
		if _, n, err := w.read(l, false); err != nil || n != 1 {
			t.Fatalf("%d rows, %v", n, err)
		}
		l.publish(1, named("b", 0, 9)...)
		l.parts[1].first = 4
		_, _, err := w.read(l, false)
		wantGap(t, err, 1, 0, 3)
		if gaps, n, err := w.read(l, true); err != nil || len(gaps) != 1 || n != 5 {
			t.Errorf("%+v, %d rows, %v", gaps, n, err)
		}
	})
	t.Run("latest", func(t *testing.T) {
		w := newWorld(t, keyless)
		l := newLogs(1)
		l.latest = true
		if _, _, err := w.read(l, false); err != nil {
			t.Fatal(err)
		}
		l.publish(0, named("a", 0, 5)...)
		if _, n, err := w.read(l, false); err != nil || n != 5 {
			t.Errorf("%d rows of 5 that came during the restart, %v", n, err)
		}
	})
}

// With --available-now, only a source that can be asked may say that nothing is left.
func TestAvailableNowProvesItsEnd(t *testing.T) {
	w := newWorld(t, keyless)
	l := newLogs(2)
	l.publish(0, named("a", 0, 5)...)
	l.parts[0].markers, l.parts[1].markers = 2, 1
	l.away = true
	if _, _, err := w.read(l, false); err == nil {
		t.Error("a run that could read nothing says that it has read all")
	}
	l.away = false
	if _, n, err := w.read(l, false); err != nil || n != 5 {
		t.Errorf("before the markers: %d rows, %v", n, err)
	}
}

// A message may carry any time; one that no progress file can hold does not stop the stream.
func TestMessageTimesBeyondTheCalendar(t *testing.T) {
	for _, at := range []time.Time{time.UnixMilli(1724148000000000), time.UnixMilli(-90000000000000), time.UnixMilli(1 << 62)} {
		w := newWorld(t, keyless)
		l := newLogs(1)
		l.publish(0, "a", "b")
		l.parts[0].records[1].Time = at
		for _, want := range []int64{2, 0} {
			if _, n, err := w.read(l, false); err != nil || n != want {
				t.Errorf("%v: %d rows, %v", at.UTC(), n, err)
			}
		}
	}
}

// Neither does one that no line of JSON can hold end the archive of raw messages, or keep quarantine from being shown.
func TestArchivedTimesBeyondTheCalendar(t *testing.T) {
	for _, at := range []time.Time{time.UnixMilli(1724148000000000), time.UnixMilli(-90000000000000), time.UnixMilli(1 << 62)} {
		w := newWorld(t, strings.Replace(keyless, "    topic: trades\n", "    topic: trades\n    archive: true\n", 1))
		l := newLogs(1)
		l.publish(0, "a", "b")
		l.parts[0].records[1].Time = at
		l.parts[0].records[1].Value = []byte("no json")
		if _, n, err := w.read(l, false); err != nil || n != 2 {
			t.Errorf("%v: %d rows, %v", at.UTC(), n, err)
		}
		q := w.quarantine(ingest.QuarantineFilter{})
		if len(q) != 1 {
			t.Fatalf("%v: %d rows in quarantine", at.UTC(), len(q))
		}
		if _, err := json.Marshal(q); err != nil {
			t.Errorf("%v: %v", at.UTC(), err)
		}
		if _, err := w.QuarantineRetry(t.Context(), ingest.QuarantineFilter{}, false); err != nil {
			t.Errorf("%v: retry: %v", at.UTC(), err)
		}
	}
}

// tail is a log whose last records are gone, which shows only when everything before has been read.
type tail struct{ *logs }

func (s tail) Drained(context.Context, map[int32]int64) (bool, error) {
	part := s.parts[0]
	if next := s.at[0].Offset + 1; next < int64(len(part.records)) {
		return false, nil
	} else if next < part.end() {
		return false, s.gap(0, next, part.end()-1, "gone", ingest.Position{Offset: part.end() - 1})
	}
	return true, nil
}

// A gap that is seen when the run asks whether it has read everything can be allowed like another.
func TestGapFoundAtTheEndOfTheRun(t *testing.T) {
	w := newWorld(t, keyless)
	l := newLogs(1)
	l.publish(0, named("a", 0, 3)...)
	l.parts[0].markers = 2
	_, err := w.stream(tail{l}, ingest.StreamOptions{})
	wantGap(t, err, 0, 3, 4)
	w.reopen()
	reports, err := w.stream(tail{l}, ingest.StreamOptions{AllowGap: true})
	if err != nil || len(reports) != 1 || len(reports[0].Gaps) != 1 || reports[0].Gaps[0].From != 3 || reports[0].Gaps[0].To != 4 {
		t.Fatalf("%+v, %v", reports, err)
	}
	if reports, err := w.stream(tail{l}, ingest.StreamOptions{}); err != nil || len(reports) != 0 {
		t.Errorf("once more: %+v, %v", reports, err)
	}
	equal(t, "rows", w.rows("trades", "id"), named("a", 0, 3))
}

// forgetful is a log that forgets what is in the table. Another run is faster, at the moment that a test wants.
type forgetful struct {
	*logs
	seek, fetch func()
}

func (s *forgetful) once(f *func()) {
	if do := *f; do != nil {
		*f = nil
		do()
	}
}

func (s *forgetful) Seek(ctx context.Context, after map[int32]ingest.Position) error {
	s.once(&s.seek)
	return s.logs.Seek(ctx, after)
}

func (s *forgetful) Fetch(ctx context.Context, rowsMax int, bytesMax int64, wait time.Duration) ([]pipeline.Record, error) {
	s.once(&s.fetch)
	if at, first := s.at[0], s.parts[0].first; at.Offset < first-1 {
		return nil, s.gap(0, at.Offset+1, first-1, "forgotten", ingest.Position{Offset: first - 1, Renewals: at.Renewals})
	}
	return s.logs.Fetch(ctx, rowsMax, bytesMax, wait)
}

// What the source has forgotten because another run has it in the table is no gap, and moves no position back.
func TestForgottenByAnotherRun(t *testing.T) {
	for name, when := range map[string]func(*forgetful, func()){
		"before the source is placed": func(s *forgetful, f func()) { s.seek = f },
		"before it is read":           func(s *forgetful, f func()) { s.fetch = f },
	} {
		for _, allow := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", gaps are allowed: ", allow), func(t *testing.T) {
				w := newWorld(t, keyless)
				l := newLogs(1)
				l.publish(0, named("a", 0, 3)...)
				if _, _, err := w.read(l, false); err != nil {
					t.Fatal(err)
				}
				l.publish(0, named("a", 3, 10)...)
				slow := &forgetful{logs: l}
				var other int64
				when(slow, func() {
					lake, err := ingest.New(w.cfg)
					if err == nil {
						err = lake.RunStream(t.Context(), &logs{parts: l.parts}, ingest.StreamOptions{
							Source: "live", AvailableNow: true, NoMaintenance: true, OnEpoch: func(r ingest.StreamReport) { other += r.RowsRead },
						})
					}
					if err != nil {
						t.Error(err)
					}
					l.parts[0].first = 9
					l.publish(0, "a10")
				})
				w.reopen()
				// The record that came last is not of those that the run must read, which began before.
				reports, err := w.stream(slow, ingest.StreamOptions{AllowGap: allow})
				if err != nil || other != 7 {
					t.Fatalf("%v; the other run has read %d rows", err, other)
				}
				for _, r := range reports {
					if len(r.Gaps) > 0 || r.Positions[0].Offset < 9 {
						t.Errorf("%+v", r)
					}
				}
				if gaps, _, err := w.read(l, false); err != nil || len(gaps) > 0 {
					t.Errorf("once more: %+v, %v", gaps, err)
				}
				if rows := w.rows("trades", "id"); len(rows) != 11 {
					t.Errorf("%d rows: %v", len(rows), rows)
				}
			})
		}
	}
}

// busy is a log of which one partition gets a record whenever it is asked.
type busy struct {
	*logs
	fetches int
}

func (s *busy) Fetch(ctx context.Context, rowsMax int, bytesMax int64, wait time.Duration) ([]pipeline.Record, error) {
	if s.fetches++; s.fetches > 5000 {
		return nil, errors.New("the run does not end")
	}
	s.publish(1, fmt.Sprint("b", s.fetches))
	return s.logs.Fetch(ctx, rowsMax, bytesMax, wait)
}

// A partition that ends with markers, which no position reaches, does not keep a run going as long as another one gets
// records.
func TestAvailableNowEndsBesideABusyPartition(t *testing.T) {
	w := newWorld(t, tradesLake)
	l := newLogs(2)
	l.publish(0, named("a", 0, 3)...)
	l.publish(1, "b0")
	l.parts[0].markers = 1
	if _, err := w.stream(&busy{logs: l}, ingest.StreamOptions{Trigger: 50 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if rows := w.rows("trades", "id"); !slices.Contains(rows, "a2") || !slices.Contains(rows, "b0") {
		t.Errorf("%d rows: %v", len(rows), rows)
	}
}
