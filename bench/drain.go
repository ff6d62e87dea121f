package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/prereq"
)

// drainTopic is the topic of the parts that read from Kafka.
const drainTopic = "crypto_trades"

// drainPartitions is how many partitions it has.
const drainPartitions = 4

// drained is what draining a topic cost one program.
type drained struct {
	name   string
	events int
	rate   float64 // events a second, from the start of reading to the last commit
	cost   usage   // of the whole process, its start included
	table  string
}

// drain lets a number of events wait in a topic of Apache Kafka, 10 % of them with keys of the newest two days of a
// history of rows records, and has them merged into a table of that history by `cauce run stream --available-now` and, if
// peer, by Spark Structured Streaming with foreachBatch MERGE from the same broker.
func (b *bench) drain(ctx context.Context, events, rows int, peer bool) error {
	broker, err := b.broker(ctx)
	if err != nil {
		return err
	}
	defer broker.Stop()
	history, err := b.history(rows)
	if err != nil {
		return err
	}
	waiting := filepath.Join(b.dir, fmt.Sprintf("drain-%d-%d", rows, events))
	if err := b.generate(waiting, "stream", "--history-rows", strconv.Itoa(rows), "--batches", strconv.Itoa((events+9999)/10000)); err != nil {
		return err
	}
	if err := broker.CreateTopic(ctx, drainTopic, drainPartitions, nil); err != nil {
		return err
	}
	n, err := preload(ctx, broker.Addr, waiting, events)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "bench: %d events wait in Kafka\n", n)
	work := filepath.Join(b.dir, "drain")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	results := []*drained{}
	own, err := b.drainCauce(filepath.Join(work, "cauce"), history, broker.Addr, n)
	if err != nil {
		return err
	}
	results = append(results, own)
	if peer {
		spark, err := b.drainSpark(filepath.Join(work, "spark"), history, broker.Addr, n)
		if err != nil {
			return err
		}
		results = append(results, spark)
	}
	hashes := map[string]string{}
	for _, r := range results {
		if hashes[r.name], err = b.rowHash("delta", r.table, microColumns...); err != nil {
			return err
		}
	}
	if err := sameRows(hashes); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n### %d events that wait in Kafka, into a table of %d rows\n\n", n, rows)
	fmt.Fprintln(b.out, "| program | events/s | CPU s | µs CPU an event | peak MB | × |\n|---|---|---|---|---|---|")
	for _, r := range results {
		fmt.Fprintf(b.out, "| %s | %.0f | %.1f | %.1f | %.0f | %.1f |\n", r.name, r.rate, r.cost.CPU.Seconds(),
			r.cost.CPU.Seconds()*1e6/float64(n), r.cost.PeakMB, own.rate/r.rate)
	}
	if peer {
		fmt.Fprintln(b.out, "\nBoth tables had the same row hash, read by DuckDB's delta extension. Cauce's rate is that of the whole process, start to\nexit; Spark's begins with its first micro-batch, the start of the JVM and of the session left out. CPU is that of the whole process.")
	}
	return os.RemoveAll(work)
}

// broker starts an empty Kafka broker below the bench's folder.
func (b *bench) broker(ctx context.Context) (*kafkatest.Broker, error) {
	if _, err := prereq.Lookup("java"); err != nil {
		return nil, err
	}
	jars, err := prereq.Lookup("kafka")
	if err != nil {
		return nil, fmt.Errorf("%w; make setup installs it", err)
	}
	dir := filepath.Join(b.dir, "kafka")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return kafkatest.Start(ctx, kafkatest.Options{Jars: jars, Dir: dir})
}

// preload publishes the first events of the files in dir, one JSON object a line, keyed by symbol, and tells how many.
func preload(ctx context.Context, addr, dir string, events int) (int, error) {
	lines, err := readLines(dir, events)
	if err != nil {
		return 0, err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(drainTopic), kgo.MaxBufferedRecords(100_000),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	var first error
	failed := func(_ *kgo.Record, err error) {
		if err != nil && first == nil {
			first = err // callbacks come one after the other
		}
	}
	for _, line := range lines {
		cl.Produce(ctx, &kgo.Record{Key: symbolOf(line), Value: line}, failed)
	}
	return len(lines), errors.Join(cl.Flush(ctx), first)
}

// symbolOf gives the symbol of an event as the generator writes it.
func symbolOf(line []byte) []byte {
	_, rest, _ := bytes.Cut(line, []byte(`"s":"`))
	sym, _, _ := bytes.Cut(rest, []byte(`"`))
	return sym
}

// kafkaLake makes a lake like newLake's whose stream reads the broker.
func kafkaLake(dir, history, broker, stream string) error {
	if err := newLake(dir, history); err != nil {
		return err
	}
	text := strings.Replace(lakeFile, "    kind: embedded\n    topic: trades\n",
		fmt.Sprintf("    kind: kafka\n    topic: %s\n    kafka: {brokers: [%q]}\n", drainTopic, broker), 1)
	text = strings.Replace(text, "stream: {trigger: 100ms, rows_max: 10000}\n", stream, 1)
	return os.WriteFile(filepath.Join(dir, "lake.yaml"), []byte(text), 0o644)
}

func (b *bench) drainCauce(lake, history, broker string, events int) (*drained, error) {
	if err := kafkaLake(lake, history, broker, fmt.Sprintf("stream: {rows_max: %d, bytes_max: 256MiB}\n", drainBatch)); err != nil {
		return nil, err
	}
	if _, _, err := run(lake, b.cauce, "run", "batch", "--json"); err != nil {
		return nil, err
	}
	u, out, err := run(lake, b.cauce, "run", "stream", "--available-now", "--json")
	if err != nil {
		return nil, err
	}
	var r struct {
		Rows   int `json:"rows_read"`
		Epochs int `json:"epochs"`
	}
	if err := json.Unmarshal(out, &r); err != nil || r.Rows != events {
		return nil, fmt.Errorf("the stream read %d of %d events: %s", r.Rows, events, out)
	}
	fmt.Fprintf(os.Stderr, "bench: Cauce: %d events in %d micro-batches, %.2f s, %.2f CPU s\n", r.Rows, r.Epochs, u.Wall.Seconds(), u.CPU.Seconds())
	return &drained{"Cauce", events, float64(events) / u.Wall.Seconds(), u, lakeTable(lake)}, nil
}

func (b *bench) drainSpark(dir, history, broker string, events int) (*drained, error) {
	jars, err := prereq.Lookup("jars")
	if err != nil {
		return nil, fmt.Errorf("%w; make setup installs it", err)
	}
	table, results := filepath.Join(dir, "table"), filepath.Join(dir, "results.jsonl")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// The table that Spark merges into is loaded by delta-rs, which is quicker at it.
	if _, _, err := b.script("deltars.py", "w1", "--csv", history, "--table", table, "--append"); err != nil {
		return nil, err
	}
	u, said, err := b.script("spark_delta.py", "w6", "--jars", jars, "--tmp", filepath.Join(dir, "tmp"), "--table", table, "--dv", "on",
		"--bootstrap", broker, "--topic", drainTopic, "--checkpoint", filepath.Join(dir, "checkpoint"), "--start", "earliest", "--drain",
		"--max-offsets", strconv.Itoa(drainBatch), "--seconds", strconv.Itoa(max(600, events/500)), "--stop-after", strconv.Itoa(events), "--results", results)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(results)
	if err != nil {
		return nil, err
	}
	var r struct {
		Events  int     `json:"events"`
		Batches int     `json:"batches"`
		Span    float64 `json:"span_s"`
		CPU     float64 `json:"cpu"`
		MB      float64 `json:"rss_mb"`
	}
	if err := json.Unmarshal(text, &r); err != nil || r.Events != events || r.Span <= 0 {
		return nil, fmt.Errorf("of Spark: it read %d of %d events: %s", r.Events, events, tail(said))
	}
	u.CPU, u.PeakMB = time.Duration(r.CPU*float64(time.Second)), r.MB // the script counts its JVM too
	fmt.Fprintf(os.Stderr, "bench: Spark: %d events in %d micro-batches, %.1f s\n", r.Events, r.Batches, r.Span)
	return &drained{"Spark 4.2, foreachBatch MERGE", events, float64(events) / r.Span, u, table}, nil
}

// drainBatch is how many events a micro-batch of either program has at most: much of what a commit costs does not grow
// with it, so many is best for both, as far as Spark's heap reaches.
const drainBatch = 500_000
