package superset

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/test/lab"
)

// PicturesEnv names a folder that gets the pictures of the dashboard before and after.
const PicturesEnv = "CAUCE_PICTURES"

// market makes trades of two symbols whose prices move slowly.
type market struct{ next int }

func (m *market) trade(at time.Time) (symbol string, id int, price float64) {
	m.next++
	x := float64(at.Unix()) / 3600
	symbol, price = "BTCUSDT", 61000+900*math.Sin(x/3)+120*math.Sin(5*x)
	if m.next%2 == 0 {
		symbol, price = "ETHUSDT", 2600+40*math.Sin(x/2)
	}
	return symbol, m.next, price
}

func (m *market) history(t *testing.T, dir string, from, to time.Time, step time.Duration) {
	t.Helper()
	var b strings.Builder
	b.WriteString("symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n")
	for at := from; at.Before(to); at = at.Add(step) {
		symbol, id, price := m.trade(at)
		fmt.Fprintf(&b, "%s,%d,%.2f,0.5,0,%s,true,true\n", symbol, id, price, at.UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	if err := os.WriteFile(filepath.Join(dir, "historico_"+from.Format(time.DateOnly)+".csv"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (m *market) events(t *testing.T, path string, times []time.Time) {
	t.Helper()
	var b strings.Builder
	for _, at := range times {
		symbol, id, price := m.trade(at)
		fmt.Fprintf(&b, `{"e":"trade","E":%d,"s":"%s","t":%d,"p":"%.2f","q":"0.5","T":%d,"m":true,"M":true}`+"\n", at.UnixMilli(), symbol, id, price, at.UnixMilli())
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSupersetDashboard: Apache Superset connects with what it has for PostgreSQL; a dashboard of three charts, refreshed
// while a stream writes, shows what cauce query counts at the same version, and more each time.
func TestSupersetDashboard(t *testing.T) {
	superset := prereq.Need(t, "superset")
	python := prereq.Need(t, "venv")
	l := lab.NewLake(t)
	address := loopback.Free(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	l.Append("serve: {pg_listen: \"" + address + "\", workers: 2}\n")
	m := &market{}
	seam := time.Now().Add(-20 * time.Minute)
	m.history(t, l.Inbox(), seam.Add(-50*time.Hour), seam, 30*time.Second)
	l.Run("run", "batch")
	var backlog []time.Time
	for at := seam; at.Before(time.Now()); at = at.Add(10 * time.Second) {
		backlog = append(backlog, at)
	}
	events := l.Path("events.jsonl")
	m.events(t, events, backlog)
	up := l.Start(nil, "up", "--no-produce", "--no-repair", "--trigger", "1s")
	l.Run("produce", "replay", events)

	// Trades of this very moment, until Superset has been asked.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	live, stop := context.WithCancel(ctx)
	var producing sync.WaitGroup
	producing.Go(func() {
		for live.Err() == nil {
			now := time.Now()
			m.events(t, events, []time.Time{now.Add(-time.Second), now.Add(-500 * time.Millisecond), now})
			if _, errs, code := l.Try("produce", "replay", events); code != 0 && live.Err() == nil {
				t.Errorf("produce ended with %d: %s", code, errs)
				return
			}
			select {
			case <-live.Done():
			case <-time.After(2 * time.Second):
			}
		}
	})
	args := []string{"superset.py", superset, t.TempDir(), port, l.Program(), l.Path("lake.yaml")}
	if dir := os.Getenv(PicturesEnv); dir != "" {
		args = append(args, prereq.Need(t, "chromium"), dir)
	}
	cmd := exec.CommandContext(ctx, python, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	stop()
	producing.Wait()
	if err != nil {
		t.Fatalf("superset: %v\n%s", err, out)
	}
	var got struct {
		Columns   []string
		Refreshes []struct {
			Version int64
			Rows    map[string]int64
			Query   map[string]int64
			Minutes map[string]int64
			Age     float64
		}
	}
	if err := json.Unmarshal(out, &got); err != nil || len(got.Refreshes) != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	if !slices.Contains(got.Columns, "event_id") || len(got.Columns) < 10 {
		t.Errorf("Superset finds the columns %v", got.Columns)
	}
	sum := func(m map[string]int64) (n int64) {
		for _, v := range m {
			n += v
		}
		return n
	}
	for i, r := range got.Refreshes {
		t.Logf("refresh %d: version %d, %d rows %v, %v minutes, the newest event is %.1f s old", i+1, r.Version, sum(r.Rows), r.Rows, r.Minutes, r.Age)
		if !maps.Equal(r.Rows, r.Query) || len(r.Rows) < 3 {
			t.Errorf("refresh %d shows %v, cauce query counts %v at version %d", i+1, r.Rows, r.Query, r.Version)
		}
		if r.Minutes["batch"] < 1000 || r.Minutes["stream"] < 15 {
			t.Errorf("refresh %d has prices of %v minutes", i+1, r.Minutes)
		}
		if r.Age < 0 || r.Age > 600 {
			t.Errorf("refresh %d: the newest event is %.1f s old", i+1, r.Age)
		}
	}
	if a, b := got.Refreshes[0], got.Refreshes[1]; b.Version <= a.Version || sum(b.Rows) <= sum(a.Rows) {
		t.Errorf("while the stream writes, versions go from %d to %d and rows from %d to %d", a.Version, b.Version, sum(a.Rows), sum(b.Rows))
	}
	up.Signal(syscall.SIGTERM)
	if code := up.Wait(time.Minute); code != 0 {
		t.Errorf("up ended with %d: %s", code, up.Stderr.String())
	}
}
