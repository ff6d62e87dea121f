package bi

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestDriversReadWhatIsWritten has Python's drivers read a table while a stream writes it: the same values by each, in text
// and binary, through cursors and COPY; one version in a transaction; PostgreSQL's classes of errors; reflection.
func TestDriversReadWhatIsWritten(t *testing.T) {
	python := prereq.Need(t, "venv")
	l := lab.NewLake(t)
	const rows = 700
	text := "symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n"
	want := make([][]any, rows)
	for i := range rows {
		at := time.Date(2024, 8, 19, 23, 58, 0, 0, time.UTC).Add(time.Duration(i) * 333 * time.Millisecond)
		id, price := i+1, fmt.Sprintf("%d.%08d", 60000+i, i*12345%100000000)
		maker := []string{"true", "false"}[i%2]
		text += "BTCUSDT," + strconv.Itoa(id) + "," + price + ",0.5,," + at.Format("2006-01-02T15:04:05.000Z") + "," + maker + ",true\n"
		want[i] = []any{"BTCUSDT-" + strconv.Itoa(id), "BTCUSDT", id, price, at.Format("2006-01-02T15:04:05.000+00:00"), i%2 == 0, at.Format("2006-01-02")}
	}
	if err := os.WriteFile(filepath.Join(l.Inbox(), "historico_2024-08-19.csv"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Run("run", "batch")
	expected, err := json.Marshal(map[string]any{"rows": want, "last": rows})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "expected.json")
	if err := os.WriteFile(file, expected, 0o600); err != nil {
		t.Fatal(err)
	}
	events := filepath.Join(t.TempDir(), "events.jsonl")
	lab.NewGenerator(testscale.Rand(t), 3).Events(t, events, 2000)
	stream := l.Start(nil, "run", "stream", "--trigger", "100ms", "--rows-max", "100")
	l.Run("produce", "replay", events)
	s := serveLake(t, l)
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, "drivers.py", host, port, file).CombinedOutput()
	if t.Logf("REPORT: %s", out); err != nil {
		t.Error(err)
	}
	stream.Signal(syscall.SIGTERM)
	if code := stream.Wait(time.Minute); code != 0 {
		t.Errorf("the stream ended with %d: %s", code, stream.Stderr.String())
	}
}
