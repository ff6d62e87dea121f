// Package lab is the bench on which the tests of the whole program stand: it makes lakes, runs and kills the real
// binary on them, generates input together with the rows that must come of it, and compares tables that different
// programs have read.
package lab

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/lockbuf"
	"github.com/cauce-data/cauce/internal/prereq"
)

// program is what is under test: that of CAUCE_BIN, which make sets, else a new build.
var program = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("CAUCE_BIN"); bin != "" {
		_, err := os.Stat(bin)
		return bin, err
	}
	out, err := exec.Command("make", "-s", "-C", prereq.Root(), "build").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return filepath.Join(prereq.Root(), "bin", "cauce"), nil
})

// lakeFile is the crypto lake in its smallest form, with one table, its history and its live events.
const lakeFile = `version: 1
storage: file:./data
tables:
  unified_events:
    columns:
      event_id: {type: STRING, not_null: true}
      source: STRING
      symbol: STRING
      trade_id: LONG
      price: "DECIMAL(18,8)"
      quantity: "DECIMAL(18,8)"
      event_time: TIMESTAMP
      is_buyer_maker: BOOLEAN
      ingested_at: TIMESTAMP
      event_date: DATE
    key: [event_id]
    sequence: [event_time]
    partition_by: [event_date]
    cluster_by: [symbol, event_time]
    transform:
      - set: {symbol: "upper(trim(symbol))"}
      - set: {event_id: "symbol || '-' || trade_id", event_date: "to_date(event_time)"}
    expect:
      - {name: price_positive, check: "price IS NOT NULL AND price > 0", on_fail: quarantine}
      - {name: has_time, check: "event_time IS NOT NULL", on_fail: quarantine}
sources:
  history:
    table: unified_events
    kind: files
    location: ["raw/batch/historico_*.csv*"]
    format: csv
    csv: {delimiter: ",", header: auto}
    fields: {source: "'batch'", symbol: symbol, trade_id: trade_id, price: price, quantity: qty,
             event_time: to_event_time(time), is_buyer_maker: "to_boolean(is_buyer_maker)"}
    rank: 0
  live:
    table: unified_events
    kind: embedded
    topic: crypto_trades
    format: json
    filter: "e = 'trade'"
    fields: {source: "'stream'", symbol: s, trade_id: t, price: p, quantity: q, event_time: to_event_time(T), is_buyer_maker: "to_boolean(m)"}
    rank: 1
stream: {trigger: 1s}
`

// Lake is a lake in a temporary folder.
type Lake struct {
	Dir string
	Env []string // for every process, beyond the test's own environment
	t   testing.TB
	bin string
}

// NewLake makes an empty lake with the table unified_events and the sources history and live.
func NewLake(t testing.TB) *Lake {
	t.Helper()
	return NewLakeOf(t, []byte(lakeFile))
}

// NewKafkaLake is NewLake with the source live reading a topic of Apache Kafka, at an address and with the keys of the
// kafka block that are given beside it.
func NewKafkaLake(t testing.TB, topic, broker, more string) *Lake {
	t.Helper()
	text := strings.Replace(lakeFile, "    kind: embedded\n    topic: crypto_trades\n",
		fmt.Sprintf("    kind: kafka\n    topic: %s\n    kafka: {brokers: [%q]%s}\n", topic, broker, more), 1)
	return NewLakeOf(t, []byte(text))
}

// NewPubSubLake is NewLake with the source live reading a topic of Google Pub/Sub through the subscription "<topic>-lake",
// with further keys of the pubsub block; and, from a second subscription "<topic>-log", the source log, which keeps every
// message as a row of the table messages. That has no key.
func NewPubSubLake(t testing.TB, topic, project, more string) *Lake {
	t.Helper()
	block := func(subscription string) string {
		return fmt.Sprintf("    kind: pubsub\n    topic: %s\n    pubsub: {project: %s, subscription: %s-%s%s}\n", topic, project, topic, subscription, more)
	}
	text := strings.Replace(lakeFile, "    kind: embedded\n    topic: crypto_trades\n", block("lake"), 1)
	text = strings.Replace(text, "sources:\n", `  messages:
    columns: {symbol: STRING, trade_id: LONG, price: STRING, T: LONG}
sources:
  log:
    table: messages
`+block("log")+`    format: json
    filter: "e = 'trade'"
    fields: {symbol: s, trade_id: t, price: p}
    rank: 1
`, 1)
	return NewLakeOf(t, []byte(text))
}

// NewExample makes an empty lake with the lake file of an example: "orders" for examples/orders.
func NewExample(t testing.TB, name string) *Lake {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(prereq.Root(), "examples", name, "lake.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return NewLakeOf(t, text)
}

// NewLakeOf makes an empty lake with a lake file of the test's own.
func NewLakeOf(t testing.TB, text []byte) *Lake {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	l := &Lake{Dir: t.TempDir(), t: t, bin: bin}
	write(t, filepath.Join(l.Dir, "lake.yaml"), string(text))
	if err := os.MkdirAll(l.Path("data/raw/batch"), 0o755); err != nil {
		t.Fatal(err)
	}
	return l
}

// LakeIn is a lake in a folder that exists; whoever asks for it sees to its lake file.
func LakeIn(t testing.TB, dir string) *Lake {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return &Lake{Dir: dir, t: t, bin: bin}
}

// With is the same lake with other environment variables for every process.
func (l *Lake) With(env ...string) *Lake {
	with := *l
	with.Env = env
	return &with
}

// Append adds text to the lake file.
func (l *Lake) Append(text string) {
	l.t.Helper()
	b, err := os.ReadFile(l.Path("lake.yaml"))
	if err != nil {
		l.t.Fatal(err)
	}
	write(l.t, l.Path("lake.yaml"), string(b)+text)
}

// Write puts a file below the lake's folder.
func (l *Lake) Write(rel, text string) {
	l.t.Helper()
	write(l.t, l.Path(rel), text)
}

// Program is the path of the program under test.
func (l *Lake) Program() string { return l.bin }

// Path is a path below the lake's folder.
func (l *Lake) Path(rel string) string { return filepath.Join(l.Dir, filepath.FromSlash(rel)) }

// Inbox is the folder where history files land.
func (l *Lake) Inbox() string { return l.Path("data/raw/batch") }

// Table is the folder of the Delta table.
func (l *Lake) Table() string { return l.Path("data/processed/unified-events") }

// Process is a started program.
type Process struct {
	Args           []string
	Stdout, Stderr lockbuf.Buffer
	cmd            *exec.Cmd
	done           chan struct{}
	err            error
}

// Start starts the program in the lake's folder with further environment variables ("NAME=value"). It is killed at the
// end of the test if it still runs.
func (l *Lake) Start(env []string, args ...string) *Process {
	l.t.Helper()
	p := &Process{Args: args, done: make(chan struct{})}
	p.cmd = exec.Command(l.bin, args...)
	p.cmd.Dir = l.Dir
	p.cmd.Env = append(append(os.Environ(), l.Env...), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.Stdout, &p.Stderr
	if err := p.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	l.t.Cleanup(func() { p.Kill(); <-p.done })
	return p
}

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Kill sends SIGKILL.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Running says that the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the end of the process, at most for the given time, and returns its exit code; -1 when a signal ended
// it; -2 when it still runs.
func (p *Process) Wait(limit time.Duration) int {
	select {
	case <-p.done:
	case <-time.After(limit):
		return -2
	}
	if p.err == nil {
		return 0
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// Try runs the program to its end and returns what it printed and its exit code.
func (l *Lake) Try(args ...string) (stdout, stderr string, code int) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.bin, args...)
	cmd.Dir = l.Dir
	cmd.Env = append(os.Environ(), l.Env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		code = exit.ExitCode()
	default:
		l.t.Fatalf("cauce %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), code
}

// Run runs the program, which must succeed, and returns its standard output.
func (l *Lake) Run(args ...string) string {
	l.t.Helper()
	out, errs, code := l.Try(args...)
	if code != 0 {
		l.t.Fatalf("cauce %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// JSON runs the program with --json and decodes the one object that it prints.
func (l *Lake) JSON(v any, args ...string) {
	l.t.Helper()
	out := l.Run(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		l.t.Fatalf("cauce %s --json: %v in %q", strings.Join(args, " "), err, out)
	}
}

// Rows reads the table with `cauce query` and returns the generator's columns in the canonical form, sorted.
func (l *Lake) Rows() []string {
	l.t.Helper()
	return Lines(l.t, []byte(l.Run("query", "SELECT "+strings.Join(Columns, ", ")+" FROM unified_events", "--format", "csv")), Columns)
}

// Lines takes a CSV file with a header, as any program may have written the table, and returns the given columns of its
// rows in one form: columns joined by |, decimals with eight digits, instants in µs, booleans as true and false;
// sorted.
func Lines(t testing.TB, text []byte, columns []string) []string {
	t.Helper()
	records, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatalf("CSV: %v", err)
	}
	if len(records) == 0 {
		t.Fatal("CSV without a header")
	}
	at := make([]int, len(columns))
	for i, c := range columns {
		if at[i] = slices.Index(records[0], c); at[i] < 0 {
			t.Fatalf("CSV has no column %s: %v", c, records[0])
		}
	}
	lines := make([]string, 0, len(records)-1)
	for _, rec := range records[1:] {
		fields := make([]string, len(columns))
		for i, c := range columns {
			v, err := canonical(c, rec[at[i]])
			if err != nil {
				t.Fatalf("column %s: %v", c, err)
			}
			fields[i] = v
		}
		lines = append(lines, strings.Join(fields, "|"))
	}
	slices.Sort(lines)
	return lines
}

func canonical(column, v string) (string, error) {
	if v == "" {
		return v, nil
	}
	switch column {
	case "price", "quantity":
		r, ok := new(big.Rat).SetString(v)
		if !ok {
			return "", fmt.Errorf("%q is no decimal", v)
		}
		return r.FloatString(8), nil
	case "event_time", "ingested_at":
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999Z07", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999"} {
			if at, err := time.Parse(layout, v); err == nil {
				return fmt.Sprint(at.UnixMicro()), nil
			}
		}
		return "", fmt.Errorf("%q is no instant", v)
	case "is_buyer_maker":
		return strings.ToLower(v), nil
	}
	return v, nil
}

// Diff compares two tables in canonical form and describes the first differences; "" if there are none.
func Diff(want, got []string) string {
	if slices.Equal(want, got) {
		return ""
	}
	count := map[string]int{}
	for _, l := range want {
		count[l]++
	}
	for _, l := range got {
		count[l]--
	}
	var missing, extra []string
	for l, n := range count {
		switch {
		case n > 0:
			missing = append(missing, l)
		case n < 0:
			extra = append(extra, l)
		}
	}
	slices.Sort(missing)
	slices.Sort(extra)
	return fmt.Sprintf("%d rows wanted, %d there; %d missing: %s; %d too many: %s",
		len(want), len(got), len(missing), strings.Join(head(missing), "  "), len(extra), strings.Join(head(extra), "  "))
}

func head(lines []string) []string {
	if len(lines) > 3 {
		return append(slices.Clone(lines[:3]), "…")
	}
	return lines
}
