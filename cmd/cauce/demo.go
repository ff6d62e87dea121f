package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/connect/binance"
	"github.com/cauce-data/cauce/connect/simulate"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/internal/demodata"
	"github.com/cauce-data/cauce/internal/lockbuf"
	"github.com/cauce-data/cauce/pipeline"
)

// The demo's size: enough to see every part at work, small enough for a slow laptop's half minute.
const (
	demoLiveEvents = 3000
	demoLiveRate   = 500 // a second
	demoTrigger    = time.Second
	demoTable      = "unified_events"
)

func newDemo(a *app) *cobra.Command {
	var d demo
	cmd := &cobra.Command{
		Use:   "demo [DIR]",
		Short: "See it all at work on this machine: history and live events in one table",
		Long: `Make a lake in DIR (default ./cauce-demo) without any network: six days of sample history, some of it dirty,
one file re-issued with corrections, and a simulated exchange whose live trades arrive while the history is being
loaded. Batch and stream write the same table at the same time. It ends with queries, which can be repeated as
printed; the data stays to be explored.`,
		Example: `  cauce demo
  cauce demo /tmp/try --seed 7
  cauce demo --root s3://my-bucket/demo`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("lake") {
				return usagef("demo makes a lake file of its own; name the folder instead: cauce demo DIR")
			}
			d.a = a
			var err error
			if len(args) == 1 {
				d.dir, err = emptyFolder(args[0])
			} else {
				d.dir, err = freeFolder("cauce-demo")
			}
			if err != nil {
				return err
			}
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().Uint64Var(&d.seed, "seed", 1, "what history and live trades are made from")
	return cmd
}

// emptyFolder accepts a folder that does not exist yet or is empty.
func emptyFolder(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return dir, nil
	case err != nil:
		return "", usagef("folder %s: %w", dir, err)
	case len(entries) > 0:
		return "", usagef("folder %s is not empty; name another, or remove it first", dir)
	}
	return dir, nil
}

// freeFolder finds the first of base, base-2, base-3 … that is free, so that a second demo never touches the first.
func freeFolder(base string) (string, error) {
	const most = 1000
	for i := 1; i <= most; i++ {
		dir := base
		if i > 1 {
			dir = base + "-" + strconv.Itoa(i)
		}
		if _, err := emptyFolder(dir); err == nil {
			return dir, nil
		}
	}
	return "", usagef("folders %s to %s-%d are all in use; name one: cauce demo DIR", base, base, most)
}

type demo struct {
	a     *app
	dir   string
	seed  uint64
	start time.Time
	step  int

	l       *lake
	history *demodata.History
	journal lockbuf.Buffer // of the simulated exchange: a trade a line, JSON

	beforeReissue int64 // the table's version before the corrections came
	batches       []*ingest.BatchReport
	stream        *streamTotals
}

func (d *demo) say(format string, args ...any) {
	if !d.a.json {
		fmt.Fprintf(d.a.stdout, format+"\n", args...)
	}
}

func (d *demo) title(format string, args ...any) {
	d.step++
	d.say("\n%d. "+format, append([]any{d.step}, args...)...)
}

func (d *demo) run(ctx context.Context) error {
	d.start = time.Now()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	defer d.l.Close()
	if err := d.flow(ctx); err != nil {
		return err
	}
	return d.close(ctx)
}

// prepare makes the lake file and the sample history and lands it.
func (d *demo) prepare(ctx context.Context) error {
	text, err := pipeline.Template("crypto", "")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return usagef("demo folder: %w", err)
	}
	file := filepath.Join(d.dir, "lake.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("lake file: %w", err)
	}
	d.a.lakeFile = file
	def, err := d.a.loadLake()
	if err != nil {
		return err
	}
	if d.l, err = d.a.open(ctx, def); err != nil {
		return err
	}
	if err := d.l.mustBeEmpty(ctx); err != nil {
		return errors.Join(err, d.l.Close())
	}
	d.title("A lake in %s (its file: %s)", d.dir, file)
	if d.history, err = demodata.Generate(demodata.Options{Seed: d.seed, Today: d.start}); err != nil {
		return err
	}
	var paths []string
	for _, f := range d.history.Files {
		path, err := d.download("downloads", f)
		if err != nil {
			return err
		}
		paths = append(paths, path)
	}
	landed, err := d.l.ingest.Land(ctx, paths, ingest.LandOptions{})
	if err != nil {
		return err
	}
	d.title("Six days of history land in raw/batch/, as exchanges and people deliver them")
	for _, f := range landed.Files {
		d.say("   %s  %s bytes", f.Key, thousands(f.Bytes))
	}
	return nil
}

// download writes a file as it would lie in a download folder, with its own time of modification.
func (d *demo) download(folder string, f demodata.File) (string, error) {
	path := filepath.Join(d.dir, folder, f.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("sample history: %w", err)
	}
	if err := os.WriteFile(path, f.Data, 0o644); err != nil {
		return "", fmt.Errorf("sample history: %w", err)
	}
	return path, os.Chtimes(path, f.ModTime, f.ModTime)
}

// flow runs the exchange, its client, the stream and two batches at the same time.
func (d *demo) flow(ctx context.Context) error {
	src, err := streamSource(d.l.Lake, "", "")
	if err != nil {
		return err
	}
	var symbols []string
	for _, s := range demodata.Symbols {
		symbols = append(symbols, s.Name)
	}
	exchange, err := simulate.New(simulate.Options{
		Seed: d.seed, Rate: demoLiveRate, Count: demoLiveEvents, Symbols: symbols,
		FirstID: d.history.NextID[symbols[0]], Journal: &d.journal, Log: d.a.logger(),
	})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("simulated exchange: %w", err)
	}
	st := d.a.streams(d.l.Lake)
	defer st.Close()
	sink, err := st.sink(ctx, src)
	if err != nil {
		ln.Close()
		return err
	}
	client, err := binance.New(binance.Options{URL: "ws://" + ln.Addr().String(), Symbols: symbols, Sink: sink, Log: d.a.logger()})
	if err != nil {
		ln.Close()
		return err
	}
	stream, err := st.source(ctx, src)
	if err != nil {
		ln.Close()
		return err
	}
	defer stream.Close()

	d.title("Batch and stream write one table at the same time")
	d.say("   a simulated exchange trades at ws://%s; its events go into the buffer and from there into the table", ln.Addr())
	d.stream = newStreamTotals(src.Name)

	// Three things end at different times: the exchange when it has nothing more to serve, the producer when it has
	// every trade, the stream when it has committed them.
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	streaming, stopStreaming := context.WithCancel(ctx)
	defer stopStreaming()
	g, ctx := errgroup.WithContext(ctx)
	server := &http.Server{Handler: exchange.Handler(), ReadHeaderTimeout: 10 * time.Second}
	g.Go(func() error {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("simulated exchange: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		select {
		case <-serving.Done():
		case <-ctx.Done():
		}
		return server.Close()
	})
	producing, stopProducing := context.WithCancel(ctx)
	defer stopProducing()
	g.Go(func() error { return client.Run(producing) })
	streamDone := make(chan struct{})
	g.Go(func() error {
		defer close(streamDone)
		return d.l.ingest.RunStream(streaming, stream, ingest.StreamOptions{
			Source: src.Name, Trigger: demoTrigger, OnEpoch: func(r ingest.StreamReport) {
				d.stream.add(r)
				d.say("   stream: version %d, %s merged", r.Version, count(r.RowsRead, "event"))
			},
		})
	})
	g.Go(func() error {
		defer stopServing()
		defer stopStreaming()
		defer stopProducing()
		// A subscriber hears only what is traded after it came, so trading begins when the client is there.
		if err := until(ctx, func() bool { return client.Stats().Connected }); err != nil {
			return err
		}
		trading, endTrading := context.WithCancel(ctx)
		defer endTrading()
		var live sync.WaitGroup
		live.Go(func() { _ = exchange.Run(trading) })
		defer live.Wait()
		defer endTrading()
		if err := d.loadHistory(ctx); err != nil {
			return err
		}
		if err := until(ctx, func() bool { return client.Stats().Events >= demoLiveEvents }); err != nil {
			return err
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	// What the stream had not taken when it was stopped is still in the buffer.
	ctx = context.WithoutCancel(ctx)
	again, err := st.source(ctx, src)
	if err != nil {
		return err
	}
	defer again.Close()
	err = d.l.ingest.RunStream(ctx, again, ingest.StreamOptions{
		Source: src.Name, AvailableNow: true, OnEpoch: func(r ingest.StreamReport) {
			d.stream.add(r)
			d.say("   stream: version %d, %s merged", r.Version, count(r.RowsRead, "event"))
		},
	})
	return errors.Join(err, sink.Close())
}

// until waits for a condition that another goroutine brings about.
func until(ctx context.Context, done func() bool) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	return nil
}

// loadHistory runs the batch twice while the stream is running: over the six days, then over a re-issued file and
// today's file, whose trades have come over the stream as well.
func (d *demo) loadHistory(ctx context.Context) error {
	if err := d.batch(ctx); err != nil {
		return err
	}
	t, err := d.l.ingest.Catalog().Open(ctx, demoTable)
	if err != nil {
		return err
	}
	s, err := t.Snapshot(ctx)
	if err != nil {
		return err
	}
	d.beforeReissue = int64(s.Version())
	today, err := tradesFile(d.journal.String(), d.start)
	if err != nil {
		return err
	}
	reissue, err := d.download("downloads/reissued", d.history.Reissue)
	if err != nil {
		return err
	}
	path, err := d.download("downloads", today)
	if err != nil {
		return err
	}
	landed, err := d.l.ingest.Land(ctx, []string{reissue, path}, ingest.LandOptions{})
	if err != nil {
		return err
	}
	d.say("   %s is issued again with corrections, and %s brings trades that the stream has seen too:", d.history.Reissue.Name, today.Name)
	for _, f := range landed.Files {
		d.say("   %s  %s", f.Key, f.Status)
	}
	return d.batch(ctx)
}

func (d *demo) batch(ctx context.Context) error {
	r, err := d.l.ingest.RunBatch(ctx, ingest.BatchOptions{})
	if err != nil {
		return err
	}
	if len(r.FailedFiles) > 0 {
		return failedFiles(r)
	}
	d.batches = append(d.batches, r)
	d.say("   batch: version %d, %s, %s: %s inserted, %s updated, %s unchanged, %s quarantined (%.1f s)", r.Version,
		count(int64(r.FilesRead), "file"), count(r.RowsRead, "row"), thousands(r.RowsInserted), thousands(r.RowsUpdated),
		thousands(r.RowsUnchanged), thousands(r.RowsQuarantined), r.Seconds)
	return nil
}

// figure is one closing figure: a command that gives it, and what it gave.
type figure struct {
	Title   string          `json:"title"`
	Command string          `json:"command"`
	Result  json.RawMessage `json:"result,omitempty"`
	words   []string
}

// figures are the questions that close the demo. They are asked through the same code as on the command line.
func (d *demo) figures() []figure {
	query := func(title, sql string, more ...string) figure {
		return figure{Title: title, words: append([]string{"query", sql}, more...)}
	}
	yesterday := d.start.UTC().AddDate(0, 0, -1).Format(time.DateOnly)
	return []figure{
		query("Rows per source",
			`SELECT source, count(*) AS n, min(event_time) AS first, max(event_time) AS last FROM unified_events GROUP BY source ORDER BY source`),
		query("Partitions",
			`SELECT event_date, count(*) AS n, count(DISTINCT symbol) AS symbols FROM unified_events GROUP BY event_date ORDER BY event_date`),
		{Title: "The newest versions", words: []string{"table", "history", demoTable, "--limit", "6"}},
		query("What was quarantined, and why",
			`SELECT rule, count(*) AS n, min(reason) AS example FROM quarantine GROUP BY rule ORDER BY n DESC, rule`),
		query("History and live together, across the seam (ids are consecutive: the missing ones are in quarantine)",
			`SELECT symbol, count(*) FILTER (_origin LIKE 'f:%') AS from_files, count(*) FILTER (_origin NOT LIKE 'f:%') AS from_stream, `+
				`count(*) - count(DISTINCT trade_id) AS doubled, max(trade_id) - min(trade_id) + 1 - count(*) AS missing, `+
				`round(sum(price::DOUBLE * quantity) / sum(quantity), 2) AS average_price FROM unified_events GROUP BY symbol ORDER BY symbol`),
		query("Yesterday as it was before the corrected file came …",
			`SELECT count(*) AS n, round(sum(price::DOUBLE * quantity), 2) AS turnover FROM unified_events WHERE event_date = DATE '`+yesterday+`'`,
			"--as-of", strconv.FormatInt(d.beforeReissue, 10)),
		query("… and as it is",
			`SELECT count(*) AS n, round(sum(price::DOUBLE * quantity), 2) AS turnover FROM unified_events WHERE event_date = DATE '`+yesterday+`'`),
	}
}

// command renders a command line of this lake for pasting.
func (d *demo) command(words ...string) string {
	line := []string{shellQuote(d.a.prog)}
	for _, w := range words {
		line = append(line, shellQuote(w))
	}
	return strings.Join(append(line, d.lakeFlags()...), " ")
}

func (d *demo) lakeFlags() []string {
	flags := []string{"--lake", shellQuote(filepath.Join(d.dir, "lake.yaml"))}
	if d.a.root != "" {
		flags = append(flags, "--root", shellQuote(d.a.root))
	}
	return flags
}

// close asks the closing questions and says what to try next.
func (d *demo) close(ctx context.Context) error {
	d.title("What the table holds, asked by the commands shown")
	figures := d.figures()
	for i := range figures {
		f := &figures[i]
		f.Command = d.command(f.words...)
		d.say("\n%s\n$ %s", f.Title, f.Command)
		var out bytes.Buffer
		args := append([]string{"--lake", d.a.lakeFile, "--root", d.a.root}, f.words...)
		if d.a.json {
			args = append(args, "--json")
		}
		inner := &app{prog: d.a.prog, stdin: strings.NewReader(""), stdout: &out, stderr: d.a.stderr}
		root := newRoot(inner)
		root.SetArgs(args)
		if err := root.ExecuteContext(ctx); err != nil {
			return fmt.Errorf("%s: %w", f.Command, err)
		}
		if d.a.json {
			f.Result = bytes.TrimSpace(out.Bytes())
		} else if _, err := d.a.stdout.Write(out.Bytes()); err != nil {
			return err
		}
	}
	next := []string{
		d.command("query", "SELECT symbol, date_trunc('hour', event_time) AS hour, count(*) AS n FROM unified_events GROUP BY ALL ORDER BY n DESC LIMIT 5"),
		d.command("status"),
		d.command("quarantine", "show", "--limit", "5"),
		d.command("table", "optimize", demoTable, "--zorder", "symbol,event_time"),
		d.command("sample", d.l.Sources[0].Name, "-n", "3"),
		d.command("run", "batch"),
	}
	live := []string{
		strings.Join([]string{shellQuote(d.a.prog), "simulate", "exchange", "--listen", "127.0.0.1:9443", "--seed", strconv.FormatUint(d.seed+1, 10)}, " "),
		d.command("produce", "binance", "--url", "ws://127.0.0.1:9443"),
		d.command("run", "stream", "--trigger", "2s"),
	}
	seconds := time.Since(d.start).Seconds()
	if d.a.json {
		return d.a.printJSON(struct {
			Dir        string                `json:"dir"`
			Lake       string                `json:"lake"`
			Seed       uint64                `json:"seed"`
			Seconds    float64               `json:"seconds"`
			LiveEvents int                   `json:"live_events"`
			Batches    []*ingest.BatchReport `json:"batches"`
			Stream     *streamTotals         `json:"stream"`
			Figures    []figure              `json:"figures"`
			Next       []string              `json:"next"`
			Live       []string              `json:"live"`
		}{d.dir, d.a.lakeFile, d.seed, seconds, demoLiveEvents, d.batches, d.stream, figures, next, live})
	}
	d.say("\nDone in %.0f s. The data stays in %s. Try next:", seconds, d.dir)
	for _, c := range next {
		d.say("  %s", c)
	}
	d.say("\nKeep it flowing, each line in a terminal of its own:")
	for _, c := range live {
		d.say("  %s", c)
	}
	return nil
}

// tradesFile is the exchange's own file of the trades in its journal.
func tradesFile(journal string, day time.Time) (demodata.File, error) {
	var b bytes.Buffer
	b.WriteString("symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n")
	dec := json.NewDecoder(strings.NewReader(journal))
	for {
		var t struct {
			Symbol   string `json:"s"`
			ID       int64  `json:"t"`
			Price    string `json:"p"`
			Quantity string `json:"q"`
			Time     int64  `json:"T"`
			Maker    bool   `json:"m"`
		}
		if err := dec.Decode(&t); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		} else if err != nil {
			return demodata.File{}, fmt.Errorf("journal of the simulated exchange: %w", err)
		}
		p, ok1 := new(big.Rat).SetString(t.Price)
		q, ok2 := new(big.Rat).SetString(t.Quantity)
		if !ok1 || !ok2 {
			return demodata.File{}, fmt.Errorf("journal of the simulated exchange: trade %d has price %q, quantity %q", t.ID, t.Price, t.Quantity)
		}
		fmt.Fprintf(&b, "%s,%d,%s,%s,%s,%d,%t,true\n", t.Symbol, t.ID, t.Price, t.Quantity, p.Mul(p, q).FloatString(8), t.Time, t.Maker)
	}
	return demodata.File{Name: "historico_" + day.UTC().Format(time.DateOnly) + ".csv", Data: b.Bytes(), ModTime: time.Now()}, nil
}
