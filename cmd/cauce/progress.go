package main

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// tickEvery is how often a line of progress is renewed.
const tickEvery = time.Second

// tick shows a line of progress on standard error, renewed in place, while it is a terminal. The returned function
// ends it and waits.
func (a *app) tick(line func() string) (stop func()) {
	if a.quiet || !a.stderrIsTerminal() {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(tickEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				fmt.Fprintf(a.stderr, "\r\033[K%s", line())
			case <-done:
				fmt.Fprint(a.stderr, "\r\033[K")
				return
			}
		}
	})
	return sync.OnceFunc(func() { close(done); wg.Wait() })
}

// checkLog refuses what --log-format and --log-level cannot be.
func (a *app) checkLog() error {
	if a.logFormat != "text" && a.logFormat != "json" {
		return fmt.Errorf("--log-format %q: it must be text or json", a.logFormat)
	}
	if a.logLevel != "" {
		var l slog.Level
		if err := l.UnmarshalText([]byte(a.logLevel)); err != nil {
			return fmt.Errorf("--log-level %q: it must be debug, info, warn or error", a.logLevel)
		}
	}
	return nil
}

// logger is where long-running parts report what an operator wants to know: lines on standard error.
func (a *app) logger() *slog.Logger {
	var w io.Writer = redacting{a, a.stderr}
	level := slog.LevelWarn
	if a.verbose {
		level = slog.LevelInfo
	}
	if a.quiet {
		w = io.Discard
	}
	if a.logLevel != "" {
		if err := level.UnmarshalText([]byte(a.logLevel)); err == nil {
			w = redacting{a, a.stderr} // said louder than -q
		}
	}
	o := &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
			if attr.Key == slog.TimeKey && a.logFormat != "json" {
				attr.Value = slog.StringValue(attr.Value.Time().UTC().Format(time.RFC3339))
			}
			return attr
		},
	}
	if a.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
