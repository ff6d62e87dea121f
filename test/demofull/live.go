package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cauce-data/cauce/internal/demodata"
	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/test/lab"
)

// live is phase 3: an exchange trades, a producer brings its trades into the topic, and a stream takes them into the table, on the
// embedded engine, then on Structured Streaming, then on the embedded engine again, while the DAG runs on Spark in two more nights.
func (d *demo) live() {
	address := loopback.Free(d.t)
	first := d.made.NextID[demodata.Symbols[0].Name]
	d.exchange = d.as(roleProducer).Start(nil, "simulate", "exchange", "--listen", address, "--seed", fmt.Sprint(d.o.seed), "--rate", fmt.Sprint(d.o.rate), "--first-id", fmt.Sprint(first), "--journal", d.log)
	d.until("the exchange", d.exchange, func() bool { return answers(address) })
	d.producer = d.as(roleProducer).Start(nil, "produce", "binance", "--url", "ws://"+address, "--symbols", "BTCUSDT,ETHUSDT,SOLUSDT")
	d.stream = d.as(roleStreaming).Start(nil, "run", "stream")
	d.say("a simulated exchange at ws://%s, %g trades a second; producer -> topic %s -> cauce run stream, every 30 s", address, d.o.rate, topic)
	d.until("the first micro-batch", d.stream, func() bool { return len(d.epochs("live", "Cauce")) > 0 })

	// The second night: a corrected file of yesterday, and what today's file has so far, whose trades the stream brings as well.
	before := len(d.epochs("live", ""))
	d.reissue()
	d.today(200)
	d.night(2)
	during := len(d.epochs("live", "")) - before
	d.holds("commits of the stream while the DAG ran on Spark", during > 0, during, "at least one", "the log entries on the S3 server's disk")
	d.until("two micro-batches here", d.stream, func() bool { return len(d.epochs("live", "Cauce")) >= 2 })
	d.stop(d.stream, "the embedded stream")

	job := d.as(roleStreaming).Start(nil, append([]string{"spark", "submit", "stream", "--json"}, d.sparkFlags...)...)
	d.say("cauce run stream is stopped, Structured Streaming goes on")
	d.until("the first micro-batch on Spark", job, func() bool { return len(d.epochs("live", "Spark")) > 0 })
	before = len(d.epochs("live", "Spark"))
	d.today(2000)
	d.night(3)
	during = len(d.epochs("live", "Spark")) - before
	d.holds("commits of Structured Streaming while the DAG ran", during > 0, during, "at least one", "the log entries on the S3 server's disk")
	d.until("two micro-batches on Spark", job, func() bool { return len(d.epochs("live", "Spark")) >= 2 })
	d.stop(job, "Structured Streaming")
	d.airflow.Stop()

	had := len(d.epochs("live", "Cauce"))
	d.stream = d.as(roleStreaming).Start(nil, "run", "stream")
	d.say("Structured Streaming is stopped, cauce run stream goes on behind it; Airflow is stopped")
	d.until("a micro-batch here after Spark's", d.stream, func() bool { return len(d.epochs("live", "Cauce")) > had })

	var chain []string
	wrong := 0
	for i, c := range d.epochs("live", "") {
		if c.Epoch != int64(i+1) {
			wrong++
		}
		if n := len(chain); n == 0 || !strings.HasSuffix(chain[n-1], c.Engine) {
			chain = append(chain, "1 × "+c.Engine)
			continue
		}
		var k int
		last := len(chain) - 1
		_, _ = fmt.Sscanf(chain[last], "%d", &k)
		chain[last] = fmt.Sprintf("%d × %s", k+1, c.Engine)
	}
	moved := len(chain) == 3 && strings.HasSuffix(chain[0], "Cauce") && strings.HasSuffix(chain[1], "Spark")
	d.holds("one chain of epochs, each once", wrong == 0 && moved, strings.Join(chain, ", "), "1, 2, 3 … without a hole: Cauce, then Spark, then Cauce", "the txn actions in the log on the S3 server's disk")
	var bad figures
	d.ask(&bad, "expect", d.spec(0, 0))
	d.quarantined(bad.Bad)
}

// stop asks a process to end, and demands that it ends well.
func (d *demo) stop(p *lab.Process, what string) {
	d.t.Helper()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(3 * time.Minute); code != 0 {
		d.t.Fatalf("%s ended with %d: %s%s", what, code, p.Stdout.String(), p.Stderr.String())
	}
}

// reissue lands the corrected file of yesterday under its name.
func (d *demo) reissue() {
	d.download("corrections", d.made.Reissue)
	d.land(d.made.Reissue.Name, "corrections")
}

// today lands a file of today with the first n trades of the exchange, under one name for all, as an exchange that writes its file
// on does. Some more are of a symbol that does not come live, and three records cannot be used.
func (d *demo) today(n int) {
	d.t.Helper()
	var trades []string
	d.until(fmt.Sprintf("%d trades", n), d.exchange, func() bool { trades = d.traded(n); return len(trades) >= n })
	for i := range n / 40 {
		trades = append(trades, fmt.Sprintf("BNBUSDT,%d,%d.5,0.25,0,%d,true,true", i+1, 500+i%9, time.Now().UTC().Truncate(24*time.Hour).UnixMilli()+int64(i)))
	}
	text := "symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n" + strings.Join(trades, "\n") + "\n" +
		"BTCUSDT,1,,1,1,1724112000000,true,true\nBTCUSDT,2,1,1,1,soon,true,true\nBTCUSDT,3,1,-1,1,1724112000000,true,true\n"
	name := "historico_" + time.Now().UTC().Format(time.DateOnly) + ".csv"
	d.download(fmt.Sprintf("today-%d", n), demodata.File{Name: name, Data: []byte(text), ModTime: time.Now()})
	d.land(name, fmt.Sprintf("today-%d", n))
}

// traded are the first trades of the exchange's log, at most n, as records of a file of history.
func (d *demo) traded(n int) (out []string) {
	d.t.Helper()
	f, err := os.Open(filepath.Clean(d.log))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); len(out) < n && lines.Scan(); {
		var t struct {
			S, P, Q string
			ID      int64 `json:"t"`
			T       int64 `json:"T"`
			M       bool
		}
		if json.Unmarshal(lines.Bytes(), &t) != nil {
			break // the last line is being written
		}
		out = append(out, fmt.Sprintf("%s,%d,%s,%s,0,%d,%t,true", t.S, t.ID, t.P, t.Q, t.T, t.M))
	}
	return out
}
