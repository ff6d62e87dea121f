package ingest_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

// partitioned is a log of several partitions that gives its records in one fixed order, and keeps account of how many are
// out: fetched, and not said to be in the table.
type partitioned struct {
	records []pipeline.Record

	mu      sync.Mutex
	next    int
	in      int // records that the table has
	outMost int
	pauses  int // so often nothing is there, once something has been
}

// add appends a record with the next offset of its partition.
func (s *partitioned) add(partition int32, value string) {
	n := int64(0)
	for _, r := range s.records {
		if r.Partition == partition {
			n = r.Offset + 1
		}
	}
	s.records = append(s.records, pipeline.Record{Topic: "trades", Partition: partition, Offset: n,
		Time: start.Add(time.Duration(len(s.records)) * time.Second), Value: []byte(value), Origin: fmt.Sprintf("mem:p:trades/%d", partition)})
}

func (s *partitioned) Incarnation(context.Context) (string, error) { return "p", nil }

func (s *partitioned) Seek(_ context.Context, after map[int32]ingest.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = 0
	for s.next < len(s.records) {
		r := s.records[s.next]
		if p, ok := after[r.Partition]; !ok || p.Offset < r.Offset {
			break
		}
		s.next++
	}
	s.in = s.next
	return nil
}

func (s *partitioned) Ends(context.Context) (map[int32]int64, error) {
	ends := map[int32]int64{}
	for _, r := range s.records {
		ends[r.Partition] = r.Offset
	}
	return ends, nil
}

func (s *partitioned) Fetch(_ context.Context, rowsMax int, bytesMax int64, _ time.Duration) ([]pipeline.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next > 0 && s.pauses > 0 {
		s.pauses--
		return nil, nil
	}
	from, bytes := s.next, int64(0)
	for s.next < len(s.records) && s.next-from < rowsMax && bytes < bytesMax {
		bytes += int64(len(s.records[s.next].Value))
		s.next++
	}
	s.outMost = max(s.outMost, s.next-s.in)
	return slices.Clone(s.records[from:s.next]), nil
}

func (s *partitioned) Committed(_ context.Context, pos map[int32]ingest.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in = 0
	for _, r := range s.records {
		if p, ok := pos[r.Partition]; ok && r.Offset <= p.Offset {
			s.in++
		}
	}
	return nil
}

func (s *partitioned) Drained(context.Context, map[int32]int64) (bool, error) { return false, nil }

func (s *partitioned) Close() error { return nil }

// outlasted makes the commits of a world wait until what is behind them has been read ahead: how fast a machine is decides nothing.
func (s *partitioned) outlasted(w *world, batch int) {
	w.cfg.Hook = func(phase string) {
		for deadline := time.Now().Add(10 * time.Second); phase == "before-commit" && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			s.mu.Lock()
			done := s.next-s.in > batch || s.next == len(s.records)
			s.mu.Unlock()
			if done {
				return
			}
		}
	}
	w.reopen()
}

func tradeText(id, price string, minute int) string {
	return fmt.Sprintf(`{"e":"trade","s":%q,"p":%q,"n":"live","T":%d}`, id, price, start.Add(time.Duration(minute)*time.Minute).UnixMilli())
}

// TestBacklogIsReadAhead: while a batch is merged the next one is read, and no more; what each covers is right in every
// partition, those included of which it read nothing.
func TestBacklogIsReadAhead(t *testing.T) {
	w := newWorld(t, tradesLake)
	s := &partitioned{}
	const batch, batches = 20, 6
	for i := range batch * batches {
		// The partitions come one after the other, so that a batch has records of one of them alone.
		s.add(int32(i/(2*batch)), tradeText(fmt.Sprint("t", i), "1", i%60))
	}
	s.outlasted(w, batch)
	reports, err := w.stream(s, ingest.StreamOptions{RowsMax: batch})
	if err != nil || len(reports) != batches {
		t.Fatalf("%d batches, %v", len(reports), err)
	}
	if s.outMost > 2*batch {
		t.Errorf("%d records were out at once, with batches of %d", s.outMost, batch)
	}
	if s.outMost <= batch {
		t.Errorf("nothing was read ahead: %d records were out at most", s.outMost)
	}
	for i, r := range reports {
		if r.RowsRead != batch || len(r.Ranges) != 1 || r.Ranges[0].Partition != int32(i/2) {
			t.Errorf("batch %d: %d rows, %+v", i, r.RowsRead, r.Ranges)
		}
		for _, p := range r.Positions {
			if want := int64(2*batch - 1); p.Partition < int32(i/2) && p.Offset != want {
				t.Errorf("after batch %d partition %d stands at %d, want %d", i, p.Partition, p.Offset, want)
			}
		}
	}
	w.reopen()
	if reports, err := w.stream(s, ingest.StreamOptions{RowsMax: batch}); err != nil || len(reports) != 0 {
		t.Errorf("a second run reads %d batches, %v", len(reports), err)
	}
	if n := len(w.scan("trades")); n != batch*batches {
		t.Errorf("%d rows", n)
	}
}

// TestReadingAheadIsPatient: a moment without records does not end it; only the merge beside it does.
func TestReadingAheadIsPatient(t *testing.T) {
	w := newWorld(t, tradesLake)
	const batch = 20
	s := &partitioned{pauses: 3}
	for i := range 2 * batch {
		s.add(0, tradeText(fmt.Sprint("t", i), "1", i%60))
	}
	s.outlasted(w, batch)
	reports, err := w.stream(s, ingest.StreamOptions{RowsMax: batch})
	if err != nil || len(reports) != 2 {
		t.Fatalf("%d batches, %v", len(reports), err)
	}
	if s.outMost <= batch {
		t.Errorf("nothing was read ahead: %d records were out at most", s.outMost)
	}
}

// TestBytesEndABatch: a batch ends with the record that reaches the bound.
func TestBytesEndABatch(t *testing.T) {
	w := newWorld(t, tradesLake)
	s := &partitioned{}
	for i := range 50 {
		s.add(0, tradeText(fmt.Sprintf("t%02d", i), "1", i%60))
	}
	size := int64(len(s.records[0].Value))
	reports, err := w.stream(s, ingest.StreamOptions{BytesMax: 10 * size})
	if err != nil || len(reports) != 5 {
		t.Fatalf("%d batches, %v", len(reports), err)
	}
	if s.outMost > 20 {
		t.Errorf("%d records were out at once, with bytes for 10", s.outMost)
	}
}

// TestLateEvents: an event that comes days late is a row of its own day if its key is new, and changes nothing if the
// table has a newer one of its key, in the same batch or an earlier one.
func TestLateEvents(t *testing.T) {
	w := newWorld(t, tradesLake)
	s := &partitioned{}
	const day = 24 * 60
	s.add(0, tradeText("a", "1", 3*day))
	s.add(0, tradeText("b", "2", 3*day))
	s.add(0, tradeText("late", "3", 0))
	s.add(0, tradeText("b", "4", 0)) // older than its own, in one batch
	s.add(0, tradeText("a", "5", 0)) // in another batch
	s.add(0, tradeText("a", "6", 4*day))
	reports, err := w.stream(s, ingest.StreamOptions{RowsMax: 4})
	if err != nil || len(reports) != 2 {
		t.Fatalf("%d batches, %v", len(reports), err)
	}
	if c := reports[0].Counts; c.RowsInserted != 3 || c.RowsUnchanged != 1 {
		t.Errorf("first batch: %+v", c)
	}
	if c := reports[1].Counts; c.RowsUpdated != 1 || c.RowsUnchanged != 1 {
		t.Errorf("second batch: %+v", c)
	}
	date := func(days int) string { return start.AddDate(0, 0, days).UTC().Format(time.DateOnly) }
	equal(t, "rows", w.rows("trades", "id", "price", "event_date"), []string{"a 6 " + date(4), "b 2 " + date(3), "late 3 " + date(0)})
}
