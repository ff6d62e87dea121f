package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
)

// serveReaders is how many sessions refresh a dashboard at the same time.
const serveReaders = 50

// hostileTimeout is the longest that a statement may take where hostile sessions are about. The default is long, so that
// fifty sessions on few processors wait for their turn; a limit is what a lake with strangers among its clients has.
const hostileTimeout = "5s"

// latency is how long answers took, in milliseconds.
type latency struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (l latency) String() string {
	return fmt.Sprintf("%s | %s | %s | %s", digits(l.P50), digits(l.P95), digits(l.P99), digits(l.Max))
}

// serve measures the doors for clients over a table of rows records: a dashboard over the wire and by DuckDB on the same
// files, a million rows to a client, many readers while a stream writes, and a session beside hostile ones.
func (b *bench) serve(ctx context.Context, rows, rate int, lasts time.Duration) error {
	history, err := b.history(rows)
	if err != nil {
		return err
	}
	lake := filepath.Join(b.dir, "serve", "lake")
	if err := newLake(lake, history); err != nil {
		return err
	}
	if _, _, err := run(lake, b.cauce, "run", "batch", "--json"); err != nil {
		return err
	}
	pg, err := freeAddress()
	if err != nil {
		return err
	}
	flight, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(pg)
	open := func() (stop func(), err error) {
		return b.background(ctx, lake, func() bool { return answers(pg) && answers(flight) }, "serve", "--pg-listen", pg, "--flight-listen", flight)
	}
	stop, err := open()
	if err != nil {
		return err
	}
	defer func() { stop() }()
	ask := func(v any, args ...string) error {
		_, out, err := run(b.dir, b.python, append([]string{filepath.Join(prereq.Root(), "bench", "serve.py")}, args...)...)
		if err != nil {
			return err
		}
		return json.Unmarshal(out, v)
	}
	if err := b.dashboard(ask, port, lakeTable(lake)); err != nil {
		return err
	}
	if err := b.manyRows(ask, port, flight, lakeTable(lake), min(rows*9/10, 1_000_000)); err != nil {
		return err
	}

	fmt.Fprintf(b.out, "\n### %d sessions refresh the dashboard\n\nMilliseconds of a query.\n\n| | queries | a second | p50 | p95 | p99 | max | failed | rows seen |\n|---|---|---|---|---|---|---|---|---|\n", serveReaders)
	for _, part := range []struct {
		what           string
		inside, writes bool
	}{
		{"DuckDB in the client, the files stand still", true, false},
		{"over the wire, the table stands still", false, false},
		{fmt.Sprintf("over the wire, the table takes %d events a second", rate), false, true},
	} {
		end, door := func() {}, port
		if part.inside {
			door = lakeTable(lake)
		}
		if part.writes {
			if end, err = b.writeAt(ctx, lake, rows, rate, lasts); err != nil {
				return err
			}
		}
		var r struct {
			latency
			Queries   int      `json:"queries"`
			PerSecond float64  `json:"per_second"`
			Failed    int      `json:"failed"`
			Failures  []string `json:"failures"`
			Rows      [2]int64 `json:"rows"`
		}
		err = ask(&r, "readers", door, strconv.Itoa(serveReaders), strconv.FormatFloat(lasts.Seconds(), 'f', -1, 64))
		if end(); err != nil {
			return err
		}
		if part.writes && r.Rows[0] == r.Rows[1] {
			return fmt.Errorf("no reader saw the table grow from %d rows", r.Rows[0])
		}
		fmt.Fprintf(b.out, "| %s | %d | %s | %s | %d | %d to %d |\n", part.what, r.Queries, digits(r.PerSecond), r.latency, r.Failed, r.Rows[0], r.Rows[1])
		for _, f := range r.Failures {
			fmt.Fprintf(b.out, "\nfailed: %s\n", f)
		}
	}

	stop()
	text := lakeFile + "serve: {statement_timeout: " + hostileTimeout + "}\n"
	if err := os.WriteFile(filepath.Join(lake, "lake.yaml"), []byte(text), 0o644); err != nil {
		return err
	}
	if stop, err = open(); err != nil {
		stop = func() {}
		return err
	}
	var h struct {
		Quiet, Beside struct {
			latency
			N      int `json:"n"`
			Failed int `json:"failed"`
		}
		Refused map[string]int `json:"refused"`
	}
	if err := ask(&h, "hostile", port, strconv.FormatFloat(lasts.Seconds(), 'f', -1, 64)); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n### A session beside hostile ones\n\nMilliseconds of `max(event_time), count(*)`, while six other sessions send endless joins, memory bombs and what is refused; serve.statement_timeout is %s.\n\n| | answers | p50 | p95 | p99 | max | failed |\n|---|---|---|---|---|---|---|\n", hostileTimeout)
	fmt.Fprintf(b.out, "| alone | %d | %s | %d |\n| beside them | %d | %s | %d |\n\nRefused, by SQLSTATE:", h.Quiet.N, h.Quiet.latency, h.Quiet.Failed, h.Beside.N, h.Beside.latency, h.Beside.Failed)
	for _, code := range slices.Sorted(maps.Keys(h.Refused)) {
		fmt.Fprintf(b.out, " %s × %d", code, h.Refused[code])
	}
	fmt.Fprintln(b.out)
	return nil
}

func (b *bench) dashboard(ask func(any, ...string) error, port, table string) error {
	var d struct {
		Queries map[string]struct{ Wire, Raw []float64 } `json:"queries"`
		AllWire []float64                                `json:"all_wire"`
		AllRaw  []float64                                `json:"all_raw"`
	}
	if err := ask(&d, "dashboard", port, table, strconv.Itoa(b.tries)); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n### A dashboard over the wire\n\nMilliseconds from statement to last row with psycopg, and of DuckDB in the client's own process on the same files; %d runs, in turn; median (least–greatest).\n\n| query | over the wire | DuckDB | ratio |\n|---|---|---|---|\n", b.tries)
	var wire, raw float64
	line := func(name string, a, b spread) string {
		return fmt.Sprintf("| %s | %s | %s | %.2f |\n", name, a, b, a.Median/b.Median)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Queries)) {
		q := d.Queries[name]
		wire, raw = wire+spreadOf(q.Wire).Median, raw+spreadOf(q.Raw).Median
		fmt.Fprint(b.out, line(name, spreadOf(q.Wire), spreadOf(q.Raw)))
	}
	fmt.Fprintf(b.out, "| *one after the other* | %s | %s | %.2f |\n", digits(wire), digits(raw), wire/raw)
	fmt.Fprint(b.out, line("*all at once, each in its own session*", spreadOf(d.AllWire), spreadOf(d.AllRaw)))
	return nil
}

func (b *bench) manyRows(ask func(any, ...string) error, port, flight, table string, rows int) error {
	ways := map[string][]float64{}
	if err := ask(&ways, "rows", port, flight, table, strconv.Itoa(rows), strconv.Itoa(b.tries)); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n### %d rows of 8 columns to a client\n\n%d runs each, in turn; median (least–greatest).\n\n| client | seconds | rows a second |\n|---|---|---|\n", rows, b.tries)
	names := slices.Collect(maps.Keys(ways))
	slices.SortFunc(names, func(x, y string) int { return int(spreadOf(ways[x]).Median - spreadOf(ways[y]).Median) })
	for _, name := range names {
		s := spreadOf(ways[name])
		fmt.Fprintf(b.out, "| %s | %s | %.0f |\n", name, spread{s.Median / 1000, s.Min / 1000, s.Max / 1000}, float64(rows)/s.Median*1000)
	}
	return nil
}

// writeAt has a stream write the table at a rate, until it is told to end.
func (b *bench) writeAt(ctx context.Context, lake string, rows, rate int, lasts time.Duration) (end func(), err error) {
	batches := (int(lasts.Seconds())*2*rate + 9999) / 10000
	made := filepath.Join(b.dir, fmt.Sprintf("serve-events-%d-%d", rows, batches))
	if err := b.generate(made, "stream", "--history-rows", strconv.Itoa(rows), "--window-days", "2", "--batches", strconv.Itoa(batches)); err != nil {
		return nil, err
	}
	events := filepath.Join(b.dir, "serve", "events.jsonl")
	if err := concatenate(events, made); err != nil {
		return nil, err
	}
	stream, err := b.background(ctx, lake, nil, "run", "stream", "--json")
	if err != nil {
		return nil, err
	}
	produce, err := b.background(ctx, lake, nil, "produce", "replay", events, "--rate", strconv.Itoa(rate))
	if err != nil {
		stream()
		return nil, err
	}
	time.Sleep(3 * time.Second) // until the first events are in the table
	return func() {
		produce()
		stream()
	}, nil
}

// background starts a command of Cauce and waits until it is ready (nil: it is). What it says is told where it ends early.
func (b *bench) background(ctx context.Context, lake string, ready func() bool, args ...string) (stop func(), err error) {
	cmd := exec.CommandContext(ctx, b.cauce, args...)
	var says bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = lake, io.Discard, &says
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is ended by a signal
		close(ended)
	}()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	for deadline := time.Now().Add(time.Minute); ready != nil && !ready(); time.Sleep(50 * time.Millisecond) {
		select {
		case <-ended:
			return nil, fmt.Errorf("cauce %v ended: %s", args, tail(says.Bytes()))
		default:
		}
		if time.Now().After(deadline) {
			stop()
			return nil, fmt.Errorf("cauce %v is not ready after a minute: %w", args, os.ErrDeadlineExceeded)
		}
	}
	return stop, nil
}

// answers tells whether somebody listens.
func answers(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	return c.Close() == nil
}
