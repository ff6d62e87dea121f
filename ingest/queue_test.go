package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

const queueLake = `
version: 1
storage: file:./data
tables:
  trades:
    columns: {id: {type: STRING, not_null: true}, price: "DECIMAL(18,4)", event_time: TIMESTAMP}
    key: [id]
    sequence: [event_time]
  messages:
    columns: {id: STRING, price: "DECIMAL(18,4)"}
sources:
  live: {table: trades, kind: embedded, topic: trades, format: json, fields: {id: s, price: p, event_time: to_event_time(T)}, rank: 1}
  log: {table: messages, kind: embedded, topic: trades, format: json, fields: {id: s, price: p}, rank: 1}
`

// queue is a source that keeps each message until it is acknowledged, gives them in any order and gives some again.
type queue struct {
	incarnation string
	messages    []pipeline.Record
	pending     []int // to be delivered, by index
	given       []int // delivered, not acknowledged
	acked       map[int]int
	beforeAck   func()
	gap         *ingest.GapError
	seeks       int
	after       map[int32]ingest.Position
	released    int
	retention   time.Duration // 0: for ever
	now         time.Time
}

func newQueue() *queue { return &queue{incarnation: "sub", acked: map[int]int{}} }

// publish appends one message; several have one time.
func (q *queue) publish(id, price string, minute int) {
	n := len(q.messages)
	at := start.Add(time.Duration(n/3) * time.Second)
	q.messages = append(q.messages, pipeline.Record{
		Topic: "trades", Offset: at.UnixMicro(), Time: at, Origin: fmt.Sprintf("mem:p:trades/m%d", n),
		Value: fmt.Appendf(nil, `{"s":%q,"p":%q,"T":%d}`, id, price, start.Add(time.Duration(minute)*time.Minute).UnixMilli()),
	})
	q.pending = append([]int{n}, q.pending...) // the newest first
}

func (q *queue) Incarnation(context.Context) (string, error) { return q.incarnation, nil }

func (q *queue) Seek(_ context.Context, after map[int32]ingest.Position) error {
	q.after = after
	if g := q.gap; g != nil && after[0].Time.Before(start.Add(time.Hour)) {
		return g
	}
	q.seeks++
	q.pending, q.given = append(q.given, q.pending...), nil
	return nil
}

func (q *queue) Renewed(_ context.Context, after map[int32]ingest.Position) (map[int32]ingest.Position, error) {
	if q.retention == 0 || len(after) == 0 || q.now.Sub(after[0].Time) < q.retention/2 {
		return nil, nil
	}
	return map[int32]ingest.Position{0: {Offset: q.now.UnixMicro(), Time: q.now}}, nil
}

func (q *queue) Ends(context.Context) (map[int32]int64, error) { return nil, nil }

func (q *queue) Fetch(ctx context.Context, rowsMax int, _ int64, wait time.Duration) ([]pipeline.Record, error) {
	var out []pipeline.Record
	for len(q.pending) > 0 && len(out) < rowsMax {
		n := q.pending[0]
		q.pending = q.pending[1:]
		q.given = append(q.given, n)
		out = append(out, q.messages[n])
	}
	if len(out) == 0 {
		time.Sleep(min(wait, 10*time.Millisecond))
	}
	return out, ctx.Err()
}

func (q *queue) Acknowledge(_ context.Context, n int) error {
	if q.beforeAck != nil {
		q.beforeAck()
	}
	for _, i := range q.given[:n] {
		q.acked[i]++
	}
	q.given = q.given[n:]
	return nil
}

func (q *queue) Drained(context.Context, map[int32]int64) (bool, error) {
	return len(q.pending) == 0, nil
}
func (q *queue) Release()                                                   { q.released++ }
func (q *queue) Committed(context.Context, map[int32]ingest.Position) error { return nil }
func (q *queue) Close() error                                               { return nil }

// A message is acknowledged when it is in the table, whatever is being fetched meanwhile; one that comes again, in the same
// micro-batch or in a later one, is the same row.
func TestQueueMessagesCountOnce(t *testing.T) {
	for _, c := range []struct{ source, table, column string }{{"live", "trades", "id"}, {"log", "messages", "_origin"}} {
		t.Run(c.source, func(t *testing.T) {
			w := newWorld(t, queueLake)
			q := newQueue()
			var want []string
			for i := range 10 {
				q.publish(fmt.Sprint("t", i), "1", i)
				want = append(want, map[string]string{"id": fmt.Sprint("t", i), "_origin": fmt.Sprintf("mem:p:trades/m%d", i)}[c.column])
			}
			q.pending = append(q.pending, 3, 3, 9, 0) // delivered again, some twice in a micro-batch
			acks := 0
			q.beforeAck = func() {
				acks++
				rows := w.rows(c.table, "_origin")
				for _, i := range q.given[:min(4, len(q.given))] {
					if !slices.Contains(rows, q.messages[i].Origin) {
						t.Errorf("message %d is acknowledged; the table has %v", i, rows)
					}
				}
			}
			if _, err := w.stream(q, ingest.StreamOptions{Source: c.source, RowsMax: 4}); err != nil {
				t.Fatal(err)
			}
			slices.Sort(want)
			equal(t, "rows", w.rows(c.table, c.column), want)
			if len(q.given) != 0 || acks < 3 {
				t.Errorf("%d acknowledgements, %d messages wait for one", acks, len(q.given))
			}
			// A crash after the commit: everything comes again and changes nothing but the progress.
			before := w.rows(c.table, "id", "_origin", "_position")
			q.pending, q.beforeAck = []int{0, 9, 5, 5, 7}, nil
			w.reopen()
			r, err := w.stream(q, ingest.StreamOptions{Source: c.source})
			if err != nil || len(r) != 1 || r[0].RowsInserted+r[0].RowsUpdated+r[0].RowsDeleted != 0 {
				t.Errorf("delivered again: %+v, %v", r, err)
			}
			equal(t, "rows after a crash", w.rows(c.table, "id", "_origin", "_position"), before)
		})
	}
}

// A queue in which nothing comes for long is none that nobody read: its position is renewed while it is read, and only as often
// as it must be.
func TestQuietQueueIsNoGap(t *testing.T) {
	w := newWorld(t, queueLake)
	q := newQueue()
	q.retention = time.Hour
	q.publish("a", "1", 1)
	var renewed []string
	for minute := 0; minute <= 180; minute += 10 {
		q.now = start.Add(time.Duration(minute) * time.Minute)
		w.reopen()
		reports, err := w.stream(q, ingest.StreamOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range reports {
			if r.Kind == ingest.KindStart {
				renewed = append(renewed, fmt.Sprint(minute))
			}
		}
		if age := q.now.Sub(q.after[0].Time); minute > 0 && age >= q.retention {
			t.Errorf("minute %d: the position is %s old", minute, age)
		}
	}
	equal(t, "renewed in the minutes", renewed, []string{"30", "60", "90", "120", "150", "180"})
	q.publish("b", "1", 1)
	if r, err := w.stream(q, ingest.StreamOptions{}); err != nil || len(r) != 1 || r[0].RowsInserted != 1 {
		t.Errorf("a message at last: %+v, %v", r, err)
	}
}

// A subscription that may have lost messages stops the stream; allowed, the gap is recorded and asked about once.
func TestQueueGap(t *testing.T) {
	w := newWorld(t, queueLake)
	q := newQueue()
	q.publish("a", "1", 1)
	q.gap = &ingest.GapError{Source: "live", Topic: "trades", From: 7, To: -1, Reason: "it stood still for too long"}
	_, err := w.stream(q, ingest.StreamOptions{})
	if gap := (*ingest.GapError)(nil); !errors.As(err, &gap) || q.seeks != 0 {
		t.Fatalf("%v", err)
	}
	w.clock.at = start.Add(2 * time.Hour)
	q.gap.After = &ingest.Position{Offset: w.clock.at.UnixMicro(), Time: w.clock.at}
	r, err := w.stream(q, ingest.StreamOptions{AllowGap: true})
	if err != nil || len(r) != 2 || r[0].Kind != ingest.KindGap || r[0].Gaps[0].From != 7 || r[1].RowsInserted != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	q.publish("b", "1", 1)
	if r, err = w.stream(q, ingest.StreamOptions{}); err != nil || len(r) != 1 {
		t.Errorf("after the gap: %+v, %v", r, err)
	}
	if q.after[0].Time.Before(start.Add(2 * time.Hour)) {
		t.Errorf("it is placed after %v", q.after)
	}
}
