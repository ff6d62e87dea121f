package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest"
)

func (w *world) why(table string, key ...string) *ingest.WhyReport {
	w.t.Helper()
	r, err := w.Why(context.Background(), table, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func column(v ingest.RowVersion, name string) string {
	for _, c := range v.Columns {
		if c.Name == name && c.Text != nil {
			return *c.Text
		}
	}
	return ""
}

// TestWhyTellsEveryVersion: a row that came from a file, was corrected by a stream and beaten by a newer event; compaction
// in between and a late loser change nothing of what is told.
func TestWhyTellsEveryVersion(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("trades_1.csv", 0, "id,price,note,time", "x,1,n,2024-08-20T10:00:00Z", "a,1,first,2024-08-20T10:00:00Z", "y,2,n,2024-08-20T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	p := newTopic("trades")
	trade(p, "b", "9", 1)
	trade(p, "a", "2", 1)
	if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	tb, err := w.Catalog().Open(t.Context(), "trades")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tb.Optimize(t.Context(), delta.OptimizeOptions{}); err != nil {
		t.Fatal(err)
	}
	trade(p, "a", "3", 2)
	if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	w.put("trades_2.csv", 5, "id,price,note,time", "a,7,late,2024-08-20T09:00:00Z")
	w.batch(ingest.BatchOptions{})

	r := w.why("trades", "a")
	if !r.Live || r.Oldest != 0 || r.Vacuumed != 0 || len(r.Versions) != 3 {
		t.Fatalf("%+v", r)
	}
	var got []string
	for _, v := range r.Versions {
		o := v.Origin
		got = append(got, fmt.Sprintf("%s %s %s/%d@%d %s:%d epoch %d", column(v, "price"), o.Kind, o.Topic, o.Partition, o.Offset, strings.Join(o.Files, ","), o.Line, o.Epoch))
	}
	kind, _, _ := strings.Cut(r.Versions[0].Origin.Origin, ":")
	equal(t, "versions", got, []string{
		"3 " + kind + " trades/0@3 :0 epoch 2",
		"2 " + kind + " trades/0@2 :0 epoch 1",
		"1 file /0@0 raw/batch/trades_1.csv:3 epoch 1",
	})
	if v := r.Versions[2]; v.Origin.Raw != "a,1,first,2024-08-20T10:00:00Z" || v.Origin.Source != "history" || v.Origin.Position != 2 || v.Operation != "MERGE" {
		t.Errorf("first version: %+v", v)
	}
	if a, b := r.Versions[0].Version, r.Versions[1].Version; a <= b || b <= r.Versions[2].Version {
		t.Errorf("versions %d, %d", a, b)
	}

	if err := w.store.Delete(t.Context(), "raw/batch/trades_1.csv"); err != nil {
		t.Fatal(err)
	}
	if o := w.why("trades", "y").Versions[0].Origin; !o.Gone || o.Line != 0 || len(o.Files) != 1 {
		t.Errorf("the file is gone: %+v", o)
	}
	if _, err := w.Why(t.Context(), "trades", []string{"nobody"}); !errors.Is(err, ingest.ErrNoRow) {
		t.Errorf("unknown key: %v", err)
	}
	var use *ingest.UsageError
	if _, err := w.Why(t.Context(), "trades", []string{"a", "b"}); !errors.As(err, &use) {
		t.Errorf("two columns: %v", err)
	}
	if _, err := tb.DeleteWhere(t.Context(), nil, delta.ChangeOptions{}); err != nil {
		t.Fatal(err)
	}
	if r := w.why("trades", "a"); r.Live || len(r.Versions) != 3 {
		t.Errorf("deleted: %+v", r)
	}
}

// A row that an event has deleted stands in the table for later ones to lose to, and is not in the table for whoever asks.
func TestWhyOfADeletedRow(t *testing.T) {
	w := newWorld(t, deletingLake)
	p := newTopic("trades")
	say := func(id, kind string, minute int) {
		p.publish(`{"e":%q,"s":%q,"p":"1","n":"n","T":%d}`, kind, id, start.Add(time.Duration(minute)*time.Minute).UnixMilli())
	}
	for i, kind := range []string{"trade", "delete", "trade"} {
		say("a", kind, i)
		if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
			t.Fatal(err)
		}
		if r, want := w.why("trades", "a"), kind == "trade"; r.Live != want || len(r.Versions) != i+1 || r.Versions[0].Deleted == want {
			t.Errorf("after %s: live %t, %d versions", kind, r.Live, len(r.Versions))
		}
	}
}
