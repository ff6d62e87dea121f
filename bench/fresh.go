package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cauce-data/cauce/internal/prereq"
)

// fresh is what the freshness of a table was.
type fresh struct {
	Sent      int     `json:"sent"`
	Seen      int     `json:"seen"` // the others lost to a newer event of their key in the same micro-batch
	Versions  int     `json:"versions"`
	Optimized int     `json:"optimized"`
	Raced     int     `json:"raced"` // looks that failed because the reader saw a checksum before its commit
	P50       float64 `json:"p50"`   // milliseconds
	P90       float64 `json:"p90"`
	P99       float64 `json:"p99"`
	Max       float64 `json:"max"`
}

// freshness produces events at a rate into Apache Kafka while `cauce run stream` reads them into a table of rows records,
// and measures how long each takes to be seen by deltalake, which polls the table's log.
func (b *bench) freshness(ctx context.Context, rate, rows int, lasts, trigger time.Duration) error {
	broker, err := b.broker(ctx)
	if err != nil {
		return err
	}
	defer broker.Stop()
	history, err := b.history(rows)
	if err != nil {
		return err
	}
	events := int(lasts.Seconds()) * rate
	waiting := filepath.Join(b.dir, fmt.Sprintf("drain-%d-%d", rows, events))
	if err := b.generate(waiting, "stream", "--history-rows", strconv.Itoa(rows), "--batches", strconv.Itoa((events+9999)/10000)); err != nil {
		return err
	}
	if err := broker.CreateTopic(ctx, drainTopic, drainPartitions, nil); err != nil {
		return err
	}
	work := filepath.Join(b.dir, "fresh")
	lake := filepath.Join(work, "lake")
	if err := os.RemoveAll(work); err != nil { // what a run that was killed has left: its stop file would end the reader at once
		return err
	}
	if err := kafkaLake(lake, history, broker.Addr, fmt.Sprintf("stream: {trigger: %dms}\n", trigger.Milliseconds())); err != nil {
		return err
	}
	if _, _, err := run(lake, b.cauce, "run", "batch", "--json"); err != nil {
		return err
	}

	listen, err := freeAddress()
	if err != nil {
		return err
	}
	var problems bytes.Buffer
	stream := exec.CommandContext(ctx, b.cauce, "run", "stream", "--json", "--metrics-listen", listen)
	stream.Dir, stream.Stderr = lake, &problems
	if err := stream.Start(); err != nil {
		return err
	}
	defer func() { _ = stream.Process.Kill() }()
	if err := waitReady(ctx, listen); err != nil {
		return fmt.Errorf("%w\n%s", err, problems.String())
	}
	stop, sent := filepath.Join(work, "stop"), filepath.Join(work, "produced.txt")
	reader := exec.CommandContext(ctx, b.python, filepath.Join(prereq.Root(), "bench", "freshness.py"), lakeTable(lake), sent, stop)
	reader.Stderr = os.Stderr
	says, err := reader.StdoutPipe()
	if err != nil {
		return err
	}
	if err := reader.Start(); err != nil {
		return err
	}
	defer func() { _ = reader.Process.Kill() }()
	answer := bufio.NewScanner(says)
	if !answer.Scan() {
		return errors.New("the reader did not start")
	}

	watching, done := context.WithCancel(ctx)
	var watch sync.WaitGroup
	filesMax := 0.0
	watch.Go(func() {
		for tick := time.NewTicker(time.Second); ; {
			select {
			case <-watching.Done():
				tick.Stop()
				return
			case <-tick.C:
				filesMax = max(filesMax, metric(listen, `cauce_table_partition_files_max{table="unified_events"}`))
			}
		}
	})
	err = produceAt(ctx, broker.Addr, waiting, sent, events, rate)
	time.Sleep(2*trigger + 3*time.Second) // the last ones are seen
	done()
	watch.Wait()
	if err = errors.Join(err, os.WriteFile(stop, nil, 0o600)); err != nil {
		return err
	}
	text := ""
	for answer.Scan() {
		text = answer.Text()
	}
	if err := reader.Wait(); err != nil {
		return err
	}
	var f fresh
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return fmt.Errorf("the reader says %q: %w", text, err)
	}
	if err := stream.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := stream.Wait(); err != nil {
		return fmt.Errorf("the stream ended with %w\n%s", err, problems.String())
	}
	cpu := stream.ProcessState.UserTime() + stream.ProcessState.SystemTime()
	peak := 0.0
	if r, ok := stream.ProcessState.SysUsage().(*syscall.Rusage); ok {
		peak = float64(r.Maxrss) / 1024
	}
	fmt.Fprintf(b.out, "\n### From producing to seeing: %d events a second for %s, trigger %s, into a table of %d rows\n\n", rate, lasts, trigger, rows)
	fmt.Fprintln(b.out, "| events seen | p50 ms | p90 ms | p99 ms | greatest ms | CPU, cores | peak MB | versions | compactions | looks that failed | files of the fullest partition |\n|---|---|---|---|---|---|---|---|---|---|---|")
	fmt.Fprintf(b.out, "| %d of %d | %.0f | %.0f | %.0f | %.0f | %.2f | %.0f | %d | %d | %d | %.0f |\n", f.Seen, f.Sent, f.P50, f.P90, f.P99, f.Max,
		cpu.Seconds()/lasts.Seconds(), peak, f.Versions, f.Optimized, f.Raced, filesMax)
	return os.RemoveAll(work)
}

// produceAt publishes the first events of the files in dir at an even rate, and writes when each was handed over:
// "partition offset nanoseconds" a line.
func produceAt(ctx context.Context, addr, dir, sent string, events, rate int) error {
	lines, err := readLines(dir, events)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(drainTopic), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		return err
	}
	defer cl.Close()
	type mark struct {
		partition  int32
		offset, ns int64
	}
	marks := make([]mark, 0, events)
	var failed error
	began := time.Now()
	for i, line := range lines {
		if d := time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate))); d > time.Millisecond {
			time.Sleep(d)
		}
		ns := time.Now().UnixNano()
		cl.Produce(ctx, &kgo.Record{Key: symbolOf(line), Value: line}, func(r *kgo.Record, err error) {
			if err != nil {
				failed = err
				return
			}
			marks = append(marks, mark{r.Partition, r.Offset, ns}) // callbacks come one after the other
		})
	}
	if err := errors.Join(cl.Flush(ctx), failed); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, m := range marks {
		fmt.Fprintf(&b, "%d %d %d\n", m.partition, m.offset, m.ns)
	}
	return os.WriteFile(sent, b.Bytes(), 0o600)
}

// readLines reads the first n lines of the JSON files in dir.
func readLines(dir string, n int) ([][]byte, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var out [][]byte
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(text) {
			if len(out) == n {
				return out, nil
			}
			out = append(out, bytes.TrimSuffix(line, []byte("\n")))
		}
	}
	if len(out) < n {
		return nil, fmt.Errorf("%s holds %d of %d events", dir, len(out), n)
	}
	return out, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// waitReady waits until every part of a process works.
func waitReady(ctx context.Context, listen string) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + listen + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return errors.New("the stream is not ready within a minute")
		}
	}
}

// metric asks for one value of /metrics; 0 if there is none.
func metric(listen, series string) float64 {
	resp, err := http.Get("http://" + listen + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0
	}
	_, rest, found := strings.Cut(string(page), "\n"+series+" ")
	if !found {
		return 0
	}
	value, _, _ := strings.Cut(rest, "\n")
	v, _ := strconv.ParseFloat(value, 64)
	return v
}
