package ingest_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore/fault"
)

// deletingLake is tradesLake with sources that delete.
var deletingLake = strings.NewReplacer(
	`filter: "e = 'trade'"`, `filter: "e = 'trade' OR e = 'delete'"
    delete: "e = 'delete'"`,
	`fields: {id: id, price: price, note: note, event_time: to_event_time(time)}`, `fields: {id: id, price: price, note: note, event_time: to_event_time(time)}
    delete: "note = 'gone'"`,
	`check: "price > 0"`, `check: "price > 0 OR price IS NULL"`,
	`{where: "note <> 'drop'"}`, `{where: "note IS NULL OR note <> 'drop'"}`,
	`check: "price < 1000"`, `check: "price < 1000 OR price IS NULL"`,
).Replace(tradesLake)

// step is one thing that happens to the lake; steps of one file or one topic keep their order, others may be permuted.
type step struct {
	file   string // "" for an event of the stream
	minute int
	text   string
}

// history makes up files, re-issues and events over few keys, so that most of them meet.
func history(rng *rand.Rand) (files, events []step) {
	line := func() string {
		id, price, at := fmt.Sprint("k", rng.IntN(8)), fmt.Sprint(rng.IntN(5)), rng.IntN(6)
		note := []string{"x", "y", "gone", "drop"}[rng.IntN(4)]
		return fmt.Sprintf("%s,%s,%s,%s", id, price, note, start.AddDate(0, 0, -at).Format("2006-01-02T15:04:05Z"))
	}
	for f := range 1 + rng.IntN(4) {
		for issue := range 1 + rng.IntN(2) {
			lines := []string{header}
			for range rng.IntN(6) {
				lines = append(lines, line())
			}
			files = append(files, step{
				file: fmt.Sprintf("raw/batch/trades_%d.csv", f), minute: f + 10*issue, text: strings.Join(lines, "\n") + "\n",
			})
		}
	}
	for range rng.IntN(12) {
		kind := []string{"trade", "trade", "trade", "delete", "other"}[rng.IntN(5)]
		events = append(events, step{text: fmt.Sprintf(`{"e":%q,"s":"k%d","p":"%d","n":"live","T":%d}`,
			kind, rng.IntN(8), rng.IntN(5), start.AddDate(0, 0, -rng.IntN(6)).UnixMilli())})
	}
	return files, events
}

// shuffle gives an order of the files in which re-issues come after what they replace.
func shuffle(rng *rand.Rand, files []step) []step {
	out := slices.Clone(files)
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	byFile := map[string][]step{}
	for _, f := range files {
		byFile[f.file] = append(byFile[f.file], f)
	}
	for i, f := range out {
		out[i] = byFile[f.file][0]
		byFile[f.file] = byFile[f.file][1:]
	}
	return out
}

// TestAnyOrderSameTable takes one history through the lake in different ways: files and events in any order between
// each other, in one run or many, micro-batches of any size, runs repeated and cut off at any call of the store. The
// table's logical hash is the same each time (DESIGN D2), and so is the set of records in quarantine.
func TestAnyOrderSameTable(t *testing.T) {
	rng := testscale.Rand(t)
	ctx := context.Background()
	lake := newWorld(t, deletingLake)
	for round := range testscale.Count(t, "source-orders") {
		files, events := history(rng)
		var want string
		var wantRows []string
		for way := range 4 {
			w := lake.fork()
			p := newTopic("trades")
			todo, said := shuffle(rng, files), 0
			var trace []string
			run := func() {
				for attempt := 0; ; attempt++ {
					inner := w.store
					broken := fault.New(inner)
					if way > 0 && attempt == 0 && rng.IntN(3) == 0 {
						broken.CrashAt(1 + rng.IntN(40))
						trace = append(trace, "cut")
					}
					w.store = broken
					w.reopen()
					var err error
					if rng.IntN(2) == 0 {
						trace = append(trace, "stream")
						_, err = w.stream(p.reader(), ingest.StreamOptions{RowsMax: 1 + rng.IntN(5)})
					} else {
						trace = append(trace, "batch")
						_, err = w.RunBatch(ctx, ingest.BatchOptions{Sources: []string{"history"}, EpochFilesMax: 1 + rng.IntN(3)})
					}
					w.store = inner
					w.reopen()
					if !broken.Crashed() {
						if err != nil {
							t.Fatalf("round %d, way %d: %v\n%v", round, way, err, trace)
						}
						return
					}
				}
			}
			for len(todo) > 0 || said < len(events) {
				switch {
				case len(todo) > 0 && (said == len(events) || rng.IntN(2) == 0):
					f := todo[0]
					todo = todo[1:]
					trace = append(trace, fmt.Sprintf("put %s@%d", f.file, f.minute))
					// A re-issue that is never seen cannot count, so each issue is read before the next one replaces it.
					if _, err := w.store.Stat(ctx, f.file); err == nil {
						if _, err := w.RunBatch(ctx, ingest.BatchOptions{Sources: []string{"history"}}); err != nil {
							t.Fatal(err)
						}
						trace = append(trace, "batch")
					}
					w.putRaw(f.file, f.minute, f.text)
				default:
					p.publish("%s", events[said].text)
					said++
					trace = append(trace, "event")
				}
				if way > 0 && rng.IntN(2) == 0 {
					run()
				}
			}
			for range 2 { // the second of each does nothing
				if _, err := w.RunBatch(ctx, ingest.BatchOptions{Sources: []string{"history"}}); err != nil {
					t.Fatal(err)
				}
				if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			tab, err := w.Catalog().Open(ctx, "trades")
			if err != nil {
				t.Fatal(err)
			}
			if s, err := tab.Snapshot(ctx); err != nil || s.Version() == 0 {
				continue // nothing was read at all
			}
			got := w.hash("trades")
			rows := w.rows("trades", "id", "price", "note", "event_time", "_deleted", "_rank", "_generation", "_position", "_origin")
			for _, q := range w.quarantine(ingest.QuarantineFilter{}) {
				got += fmt.Sprintf("\n%s %s %d %s", q.Source, q.Origin, q.Position, q.Rule)
			}
			sorted := strings.Split(got, "\n")
			slices.Sort(sorted[1:])
			got = strings.Join(sorted, "\n")
			if way == 0 {
				want, wantRows = got, rows
			} else if got != want {
				t.Fatalf("round %d, way %d gives another table:\n%s\nwant\n%s\nquarantine and hash\n%s\nwant\n%s\ntrace %v", round, way,
					strings.Join(rows, "\n"), strings.Join(wantRows, "\n"), got, want, trace)
			}
			if want := winners(files, events); want != nil {
				var live []string
				for _, r := range w.scan("trades") {
					if r["_deleted"] != "true" {
						live = append(live, r["id"]+" "+r["price"])
					}
				}
				slices.Sort(live)
				equal(t, fmt.Sprintf("round %d, way %d: live rows", round, way), live, want)
			}
		}
	}
}

// winners computes the live rows from the inputs alone, by the order of DESIGN D2.
func winners(files, events []step) []string {
	type version struct {
		at                       string // event time, which sorts as text
		rank, generation, number int
		price                    string
		deleted                  bool
	}
	best := map[string]version{}
	offer := func(id string, v version) {
		b, ok := best[id]
		if !ok || slices.Compare([]string{b.at}, []string{v.at}) < 0 ||
			(b.at == v.at && slices.Compare([]int{b.rank, b.generation, b.number}, []int{v.rank, v.generation, v.number}) < 0) {
			best[id] = v
		}
	}
	for _, f := range files {
		for i, l := range strings.Split(strings.TrimSpace(f.text), "\n")[1:] {
			c := strings.Split(l, ",")
			deleted := c[2] == "gone"
			if c[2] == "drop" || (!deleted && c[1] == "0") {
				continue
			}
			if deleted && c[1] == "0" {
				return nil // whether rules judge deletions is the engine's to say
			}
			offer(c[0], version{at: c[3], generation: f.minute, number: i + 1, price: c[1], deleted: deleted})
		}
	}
	for i, e := range events {
		var kind, id, note string
		var price int
		var at int64
		text := strings.NewReplacer(`"`, " ", ",", " ", ":", " ", "{", " ", "}", " ").Replace(e.text)
		if _, err := fmt.Fscan(bytes.NewBufferString(text), new(string), &kind, new(string), &id, new(string), &price, new(string), &note, new(string), &at); err != nil {
			return nil
		}
		if kind == "other" || (kind == "trade" && price == 0) {
			continue
		}
		if kind == "delete" && price == 0 {
			return nil
		}
		offer(id, version{at: timeText(at), rank: 1, number: i + 1, price: fmt.Sprint(price), deleted: kind == "delete"})
	}
	var out []string
	for id, v := range best {
		if !v.deleted {
			out = append(out, id+" "+v.price)
		}
	}
	slices.Sort(out)
	return out
}
