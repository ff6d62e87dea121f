package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// microColumns are the columns that every program computes from the events and the history alike. The history's
// quote_qty is no part of an event.
var microColumns = []string{"event_id", "symbol", "trade_id", "price", "qty", "event_time", "is_buyer_maker", "event_date"}

// micro measures micro-batches of 10,000 events into a table of rows records whose keys lie in the newest window days
// (0: all 30 days). Each program begins with a table that it loaded itself from the same history.
func (b *bench) micro(rows, window int) error {
	history, err := b.history(rows)
	if err != nil {
		return err
	}
	events := filepath.Join(b.dir, fmt.Sprintf("events-%d-%d-%d", rows, window, b.batches))
	if err := b.generate(events, "stream", "--history-rows", strconv.Itoa(rows), "--window-days", strconv.Itoa(window), "--batches", strconv.Itoa(b.batches)); err != nil {
		return err
	}
	keys := "newest 2 days"
	if window == 0 {
		keys = "all 30 days"
	}
	work := filepath.Join(b.dir, "micro")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	cauce, err := b.microCauce(filepath.Join(work, "cauce"), history, events)
	if err != nil {
		return err
	}
	peer, err := b.microDeltaRS(filepath.Join(work, "deltars"), history, events, window)
	if err != nil {
		return err
	}
	hashes := map[string]string{}
	for name, table := range map[string]string{"Cauce": lakeTable(filepath.Join(work, "cauce")), "delta-rs": filepath.Join(work, "deltars")} {
		if hashes[name], err = b.rowHash("delta", table, microColumns...); err != nil {
			return err
		}
	}
	if err := sameRows(hashes); err != nil {
		return err
	}
	n := float64(b.batches)
	for _, s := range []*series{cauce, peer} {
		ratio := ""
		if s == peer {
			ratio = fmt.Sprintf("%.1f", spreadOf(peer.ms).Median/spreadOf(cauce.ms).Median)
		}
		fmt.Fprintf(b.out, "| %d | %s | %s | %s | %.3f | %.0f | %.1f | %.2f | %s |\n", rows, keys, s.name, spreadOf(s.ms),
			s.cost.CPU.Seconds()/n, s.cost.PeakMB, float64(s.files)/n, float64(s.bytes)/n/1e6, ratio)
	}
	return os.RemoveAll(work)
}

// series is what the micro-batches of one program cost.
type series struct {
	name  string
	ms    []float64 // from commit to commit
	cost  usage     // of the whole process, its start included
	files int       // files that came to the table's folder
	bytes int64     // bytes that came to the table's folder, log included
}

func (b *bench) microCauce(lake, history, events string) (*series, error) {
	if err := newLake(lake, history); err != nil {
		return nil, err
	}
	if _, _, err := run(lake, b.cauce, "run", "batch", "--json"); err != nil {
		return nil, err
	}
	// The events wait in the buffer, as a broker would hold them; what is measured is the stream job alone.
	all := filepath.Join(lake, "events.jsonl")
	if err := concatenate(all, events); err != nil {
		return nil, err
	}
	if _, _, err := run(lake, b.cauce, "produce", "replay", all, "--json"); err != nil {
		return nil, err
	}
	return b.series("Cauce", lakeTable(lake), func() (usage, error) {
		u, _, err := run(lake, b.cauce, "run", "stream", "--available-now", "--rows-max", "10000", "--json")
		return u, err
	})
}

func (b *bench) microDeltaRS(table, history, events string, window int) (*series, error) {
	if err := os.MkdirAll(filepath.Dir(table), 0o755); err != nil {
		return nil, err
	}
	if _, _, err := b.script("deltars.py", "w1", "--csv", history, "--table", table); err != nil {
		return nil, err
	}
	// The partition predicate is the peer's best setting where the keys' days are few.
	pred := "days"
	if window == 0 {
		pred = "join"
	}
	return b.series("polars + delta-rs", table, func() (usage, error) {
		u, _, err := b.script("deltars.py", "w3", "--batches", events, "--table", table, "--pred", pred, "--n", strconv.Itoa(b.batches))
		return u, err
	})
}

// series runs the micro-batches and reads the time of each from the log: a commit's file appears when it is durable,
// so the time between two of them is the whole cost of a batch, whatever the program does in it.
func (b *bench) series(name, table string, work func() (usage, error)) (*series, error) {
	before, err := commitTimes(table)
	if err != nil {
		return nil, err
	}
	s := &series{name: name}
	files, bytes, err := size(table)
	if err != nil {
		return nil, err
	}
	if s.cost, err = work(); err != nil {
		return nil, err
	}
	after, err := commitTimes(table)
	if err != nil {
		return nil, err
	}
	times := after[len(before):]
	if len(times) < b.batches {
		return nil, fmt.Errorf("%s: %d commits for %d batches", name, len(times), b.batches)
	}
	for i := 2; i < len(times); i++ {
		s.ms = append(s.ms, (times[i]-times[i-1])*1e3)
	}
	if s.files, s.bytes, err = size(table); err != nil {
		return nil, err
	}
	s.files, s.bytes = s.files-files, s.bytes-bytes
	fmt.Fprintf(os.Stderr, "bench: %s: %s ms a batch\n", name, spreadOf(s.ms))
	return s, nil
}

// commitTimes are the modification times of the commits that merge rows, in seconds, by version. What a program does
// between two of them, such as compaction, counts into the time between them.
func commitTimes(table string) ([]float64, error) {
	entries, err := os.ReadDir(filepath.Join(table, "_delta_log"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), ".json"); ok && len(base) == 20 {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	var out []float64
	for _, n := range names {
		file := filepath.Join(table, "_delta_log", n)
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if !strings.Contains(string(text), `"operation":"MERGE"`) {
			continue
		}
		info, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		out = append(out, float64(info.ModTime().UnixNano())/1e9)
	}
	return out, nil
}

func concatenate(to, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return err
	}
	slices.Sort(files)
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	for _, f := range files {
		in, err := os.Open(f)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		in.Close()
		if err != nil {
			return err
		}
	}
	return out.Close()
}
