package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/cauce-data/cauce/internal/prereq"
)

// consume is phase 5: a dashboard in Superset and a notebook over the table that the stream still writes; then everything stops, and
// each row is compared with what must be there.
func (d *demo) consume() {
	serve := d.as(roleReader).Start(nil, "serve")
	d.until("cauce serve", serve, func() bool { return answers(d.pg) })
	d.say("cauce serve, as the reader role: PostgreSQL's protocol at %s", d.pg)
	d.superset()
	d.notebook()
	d.stop(serve, "cauce serve")

	d.stop(d.producer, "the producer")
	d.stop(d.exchange, "the exchange")
	d.stop(d.stream, "the stream")
	d.as(roleStreaming).Run("run", "stream", "--available-now")
	d.say("producer, exchange and stream have stopped; what was left in the topic is in the table")

	var t struct {
		Messages, Trades, Doubled, Foreign, From, To, Holes, Log int
	}
	d.ask(&t, "topic", d.kafka.Admin, topic, d.log)
	d.holds("trades in the topic", t.Trades > 0 && t.Holes == 0 && t.Foreign == 0,
		fmt.Sprintf("%d, numbers %d to %d of the exchange's log without a hole, %d that it does not know", t.Trades, t.From, t.To-1, t.Foreign),
		fmt.Sprintf("those that the exchange made while the producer was there, of %d", t.Log), "the simulator's own log, and Kafka's client for Python")
	var s struct {
		Wanted, Rows, Doubled, Equal, Version int
		Missing, Foreign, Differ              []string
	}
	spec := d.spec(t.From, t.To)
	d.ask(&s, "same", spec, tableURL)
	wrong := fmt.Sprintf("%d rows are wanted, %d are there and %d are equal", s.Wanted, s.Rows, s.Equal)
	if s.Rows != s.Wanted || s.Equal != s.Wanted {
		wrong += fmt.Sprintf("; missing %v, foreign %v, %d doubled, %v", s.Missing, s.Foreign, s.Doubled, s.Differ)
	}
	d.equal("each row of the table at the end, by deltalake", wrong, fmt.Sprintf("%d rows are wanted, %d are there and %d are equal", s.Wanted, s.Wanted, s.Wanted),
		"the CSV files and the simulator's log, by Python")
	var want figures
	d.ask(&want, "expect", spec)
	d.equal("the same by cauce query", d.queried(""), want, "the CSV files and the simulator's log, by Python")
	d.equal("the same by Spark SQL", d.sparkSQL("")[0], want, "the CSV files and the simulator's log, by Python")
	d.quarantined(want.Bad)
}

// superset makes a dashboard through Superset's API and refreshes it twice.
func (d *demo) superset() {
	program, err := prereq.Lookup("superset")
	if err != nil {
		d.t.Fatal(err)
	}
	_, port, _ := strings.Cut(d.pg, ":")
	args := []string{filepath.Join(prereq.Root(), "test", "superset", "superset.py"), program, d.within("superset"), port, d.lake.Program(), d.lake.Path("lake.yaml")}
	if d.o.pictures {
		chromium, err := prereq.Lookup("chromium")
		if err != nil {
			d.t.Fatal(err)
		}
		args = append(args, chromium, d.o.dir)
	}
	cmd := exec.CommandContext(d.t.Context(), d.python, args...)
	cmd.Env = append(os.Environ(), d.env[roleReader]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	var got struct {
		Refreshes []struct {
			Version int64
			Rows    map[string]int
			Minutes map[string]int
			Age     float64
		}
	}
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil || len(got.Refreshes) != 2 {
		d.t.Fatalf("Superset: %v\n%s%s", err, out, errs.String())
	}
	total := [2]int{}
	for i, r := range got.Refreshes {
		var there figures
		d.ask(&there, "table", tableURL, fmt.Sprint(r.Version))
		d.equal(fmt.Sprintf("rows by source and day in refresh %d of the dashboard", i+1), r.Rows, there.By, fmt.Sprintf("deltalake at version %d", r.Version))
		for _, n := range r.Rows {
			total[i] += n
		}
	}
	first, second := got.Refreshes[0], got.Refreshes[1]
	d.holds("the dashboard while the stream writes", second.Version > first.Version && total[1] > total[0], fmt.Sprintf("%d rows, then %d", total[0], total[1]), "more each time", "the stream writes")
	d.holds("the price over the seam of history and stream", first.Minutes["history"] > 1000 && first.Minutes["live"] > 0, fmt.Sprint(first.Minutes), "minutes of both sources", "six days of history, and minutes of live trades")
	d.holds("age of the newest event", second.Age > 0 && second.Age < 300, fmt.Sprintf("%.0f s", second.Age), "some seconds", "the exchange trades now")
}

var (
	counted = regexp.MustCompile(`version (\d+): ([\d,]+) rows`)
	served  = regexp.MustCompile(`the same ([\d,]+) rows`)
)

// notebook writes the notebook and executes it.
func (d *demo) notebook() {
	d.as(roleReader).Run("notebook", "--out", "kit", "--pg", d.pg)
	cmd := exec.CommandContext(d.t.Context(), d.clients, filepath.Join(prereq.Root(), "test", "sharing", "notebook.py"), d.lake.Path("kit/"+table+".ipynb"))
	cmd.Env = append(append(os.Environ(), d.env[roleReader]...), "MPLBACKEND=module://matplotlib_inline.backend_inline",
		"IPYTHONDIR="+d.t.TempDir(), "MPLCONFIGDIR="+d.t.TempDir(), "JUPYTER_RUNTIME_DIR="+d.t.TempDir())
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	var got struct {
		Text     string
		Pictures int
	}
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		d.t.Fatalf("the notebook: %v\n%s%s", err, out, errs.String())
	}
	a, b := counted.FindStringSubmatch(got.Text), served.FindStringSubmatch(got.Text)
	if a == nil || b == nil {
		d.t.Fatalf("the notebook does not say what it counts:\n%s", got.Text)
	}
	var there figures
	d.ask(&there, "table", tableURL, a[1])
	plain := func(s string) string { return strings.ReplaceAll(s, ",", "") }
	d.equal("rows in the notebook, by deltalake and by psycopg", plain(a[2])+" and "+plain(b[1]), fmt.Sprintf("%d and %d", there.Rows, there.Rows), "deltalake at version "+a[1]+", in another process")
	d.equal("pictures of history and live trades in the notebook", got.Pictures, 1, "nbclient")
}
