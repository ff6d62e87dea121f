package main

import (
	_ "embed" // the page
	"fmt"
	"html/template"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// check is a figure of Cauce's beside the same one from elsewhere.
type check struct {
	Phase, What string
	Got         string
	Want        string
	From        string // where Want comes from
	OK          bool
}

// phase is a part of the run.
type phase struct {
	Name, Title string
	Took        time.Duration
	Notes       []string
}

// report is what the run has found. It is safe for concurrent use.
type report struct {
	mu     sync.Mutex
	out    io.Writer
	start  time.Time
	Phases []*phase
	Checks []check
	Parts  []string // of the architecture, with their versions
	Failed string   // why the run broke off
	Took   time.Duration
}

func newReport(out io.Writer) *report { return &report{out: out, start: time.Now()} }

// begin opens a phase.
func (r *report) begin(name, title string) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, start := &phase{Name: name, Title: title}, time.Now()
	r.Phases = append(r.Phases, p)
	fmt.Fprintf(r.out, "\n%s  phase %s: %s\n", r.clock(), name, title)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		p.Took = time.Since(start)
		fmt.Fprintf(r.out, "%s  phase %s took %s\n", r.clock(), name, p.Took.Round(time.Second))
	}
}

// clock is the time since the start.
func (r *report) clock() string {
	s := int(time.Since(r.start).Seconds())
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}

// say tells of a step.
func (r *report) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	if n := len(r.Phases); n > 0 {
		r.Phases[n-1].Notes = append(r.Phases[n-1].Notes, r.clock()+" "+line)
	}
	fmt.Fprintf(r.out, "%s    %s\n", r.clock(), line)
}

// equal checks that two figures are the same when they are written down; want comes from somewhere outside Cauce.
func (r *report) equal(what string, got, want any, from string) {
	g, w := fmt.Sprint(got), fmt.Sprint(want)
	r.add(check{What: what, Got: g, Want: w, From: from, OK: g == w})
}

// holds checks that something is so; want says what that is in words.
func (r *report) holds(what string, ok bool, got any, want, from string) {
	r.add(check{What: what, Got: fmt.Sprint(got), Want: want, From: from, OK: ok})
}

func (r *report) add(c check) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.Phases); n > 0 {
		c.Phase = r.Phases[n-1].Name
	}
	r.Checks = append(r.Checks, c)
	if c.OK {
		fmt.Fprintf(r.out, "%s    ok    %s: %s\n", r.clock(), c.What, c.Got)
	} else {
		fmt.Fprintf(r.out, "%s    FAIL  %s: got %s, want %s (%s)\n", r.clock(), c.What, c.Got, c.Want, c.From)
	}
}

// good says that there were checks, and that each held.
func (r *report) good() bool {
	return r.Failed == "" && len(r.Checks) > 0 && !slices.ContainsFunc(r.Checks, func(c check) bool { return !c.OK })
}

// held counts the checks that held.
func (r *report) held() (n int) {
	for _, c := range r.Checks {
		if c.OK {
			n++
		}
	}
	return n
}

// print writes the table of checks.
func (r *report) print() {
	fmt.Fprintln(r.out)
	for _, c := range r.Checks {
		mark := "ok  "
		if !c.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(r.out, "%s  %s  %-58s  %s\n", mark, c.Phase, c.What, short(c.Got))
		if !c.OK {
			fmt.Fprintf(r.out, "         want (%s): %s\n", c.From, short(c.Want))
		}
	}
	fmt.Fprintf(r.out, "\n%d of %d checks hold, in %s\n", r.held(), len(r.Checks), r.Took.Round(time.Second))
	if r.Failed != "" {
		fmt.Fprintf(r.out, "the run broke off: %s\n", r.Failed)
	}
}

// short bounds a text for a line of the table.
func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	const most = 160
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"seconds": func(d time.Duration) string { return d.Round(time.Second).String() },
}).Parse(pageText))

// write puts the page of checks into a file.
func (r *report) write(file string, pictures []string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	err = pageTemplate.Execute(f, struct {
		*report
		Good     bool
		Held     int
		At       string
		Pictures []string
	}{r, r.good(), r.held(), r.start.UTC().Format("2006-01-02 15:04 MST"), pictures})
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
