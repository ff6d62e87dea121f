package flow

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestLostIDsAreRepaired: a simulated exchange leaves trades out of its socket, cuts connections, repeats and swaps
// events, and leaves ids out altogether; `up` fetches what was lost by itself, and in the end the table holds what the
// exchange's journal holds, each trade once.
func TestLostIDsAreRepaired(t *testing.T) {
	testscale.NotAtShort(t, "trades are made and lost in real time")
	l := lab.NewLake(t)
	address := loopback.Free(t)
	withLedger(t, l, address, "300ms")
	const count = 3000
	l.Run("gaps")
	// History knows the first trades; what happened between them and the connection has to be fetched as well.
	now := time.Now().UTC().Format(time.RFC3339)
	history := "symbol,trade_id,price,qty,time,is_buyer_maker\nBTCUSDT,1,1,1," + now + ",true\nETHUSDT,1,1,1," + now + ",true\n"
	if err := os.WriteFile(filepath.Join(l.Inbox(), "historico_1.csv"), []byte(history), 0o600); err != nil {
		t.Fatal(err)
	}
	// The exchange begins when up already knocks at its door: on a slow machine it would else have made all its trades
	// before the first connection, and nothing would be lost between two that came.
	door, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := door.(*net.TCPListener).SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	up := l.Start(nil, "up", "--trigger", "200ms", "--batch-now")
	knock, err := door.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(knock.Close(), door.Close()); err != nil {
		t.Fatal(err)
	}
	exchange := l.Start(nil, "simulate", "exchange", "--listen", address, "--seed", strconv.FormatUint(testscale.Seed(t), 10), "--symbols", "BTCUSDT,ETHUSDT",
		"--rate", "500", "--count", strconv.Itoa(count), "--skip-every", "100", "--journal", l.Path("journal.jsonl"),
		"--lose-every", "37", "--drop-every", "499", "--duplicate-every", "61", "--swap-every", "53", "--malformed-every", "401")
	var g struct {
		Missing int64
		Days    []struct{ Rows, Repaired, Absent int64 }
		Holes   []struct{ Owner string }
	}
	var rows, repaired, absent int64
	quiet := 0 // looks at which nothing had changed
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		out, errs, _ := l.Try("gaps", "--json")
		if err := json.Unmarshal([]byte(out), &g); err != nil {
			t.Fatalf("%v: %s%s", err, out, errs)
		}
		before := rows
		rows, repaired, absent = 0, 0, 0
		for _, d := range g.Days {
			rows, repaired, absent = rows+d.Rows, repaired+d.Repaired, absent+d.Absent
		}
		if quiet++; g.Missing > 0 || rows != before {
			quiet = 0
		}
		// How many trades come after the last that was seen is chance: connections are cut at the end as well, and nothing
		// says what should have followed.
		if quiet > 5 && repaired >= 10 && absent >= 10 && len(journal(t, l.Path("journal.jsonl"))) == count {
			break
		}
		if time.Now().After(deadline) || !up.Running() {
			t.Fatalf("%d rows, %d missing, %d repaired, %d ids that never were: %s", rows, g.Missing, repaired, absent, up.Stderr.String())
		}
	}
	up.Signal(syscall.SIGTERM)
	if code := up.Wait(time.Minute); code != 0 {
		t.Errorf("up ended with %d: %s", code, up.Stderr.String())
	}
	l.Run("gaps", "--repair", "--tail") // what was lost last
	exchange.Signal(syscall.SIGTERM)
	if code := exchange.Wait(time.Minute); code != 0 {
		t.Errorf("the exchange ended with %d: %s", code, exchange.Stderr.String())
	}
	var have []string
	for line := range strings.Lines(l.Run("query", "SELECT event_id FROM unified_events", "--format", "csv")) {
		if k := strings.TrimSpace(line); k != "event_id" {
			have = append(have, k)
		}
	}
	want := journal(t, l.Path("journal.jsonl"))
	slices.Sort(have)
	if !slices.Equal(have, want) || len(want) != count {
		t.Fatalf("the table has %d trades, the journal %d of %d", len(have), len(want), count)
	}
	t.Logf("%d trades, %d of them repaired, %d ids that the exchange never had", len(have), repaired, absent)
}

// TestRepairKilledInEveryPhase: a repair that is killed leaves nothing doubled and nothing forgotten; the next one goes on.
func TestRepairKilledInEveryPhase(t *testing.T) {
	l := lab.NewLake(t)
	address := loopback.Free(t)
	withLedger(t, l, address, "1h")
	exchange := l.Start(nil, "simulate", "exchange", "--listen", address, "--symbols", "BTCUSDT", "--rate", "100000", "--count", "500", "--skip-every", "50",
		"--start", "2024-08-20T10:00:00Z", "--journal", l.Path("journal.jsonl"))
	for len(journal(t, l.Path("journal.jsonl"))) < 500 {
		if !exchange.Running() {
			t.Fatalf("the exchange ended: %s", exchange.Stderr.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
	put := func(name string, ids ...int) {
		t.Helper()
		text := "symbol,trade_id,price,qty,time,is_buyer_maker\n"
		for _, id := range ids {
			text += "BTCUSDT," + strconv.Itoa(id) + ",1,1,2024-08-20T09:00:00Z,true\n"
		}
		if err := os.WriteFile(filepath.Join(l.Inbox(), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l.Run("run", "batch")
	}
	put("historico_1.csv", 1)
	for i, phase := range []string{"files-written", "before-commit", "after-commit"} {
		put("historico_"+strconv.Itoa(i+2)+".csv", 100*(i+1)+1) // one more hole, of 99 ids
		p := l.Start([]string{"CAUCE_FAULT=kill@" + phase}, "gaps", "--repair")
		if code := p.Wait(time.Minute); code != -1 {
			t.Fatalf("the repair ended with %d instead of being killed at %s: %s", code, phase, p.Stderr.String())
		}
		out := l.Run("gaps", "--repair", "--json")
		var g struct {
			Missing int64
			Days    []struct{ Rows, Absent, Doubled int64 }
		}
		if err := json.Unmarshal([]byte(out), &g); err != nil {
			t.Fatal(err)
		}
		if d := g.Days[0]; g.Missing != 0 || d.Absent != int64(2*(i+1)) || d.Rows != int64(100*(i+1)+1)-d.Absent || d.Doubled != 0 {
			t.Fatalf("killed at %s: %s", phase, out)
		}
	}
}

// withLedger gives a lake a ledger, and a producer and a repair that speak to a simulated exchange.
func withLedger(t *testing.T, l *lab.Lake, address, every string) {
	t.Helper()
	file := l.Path("lake.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.NewReplacer(
		"    expect:\n", "    ledger: {series: symbol, id: trade_id, day: event_date, unit: trades}\n    expect:\n",
		"    rank: 1\n", "    rank: 1\n    produce: {kind: binance, url: \"ws://"+address+"\", symbols: [BTCUSDT, ETHUSDT]}\n    repair: {kind: binance, every: "+every+"}\n",
	).Replace(string(text))
	if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
}

// journal reads the keys of all trades that a simulated exchange has made.
func journal(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		var x map[string]json.RawMessage // t is the id, T the time: a struct would take one for the other
		if json.Unmarshal(s.Bytes(), &x) == nil {
			out = append(out, strings.Trim(string(x["s"]), `"`)+"-"+string(x["t"]))
		}
	}
	slices.Sort(out)
	return out
}
