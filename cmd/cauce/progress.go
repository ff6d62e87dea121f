package main

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

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

// logger is where long-running parts report what an operator wants to know: lines on standard error.
func (a *app) logger() *slog.Logger {
	var w io.Writer = redacting{a, a.stderr}
	level := slog.LevelWarn
	if a.quiet {
		w = io.Discard
	}
	if a.verbose {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
			if attr.Key == slog.TimeKey {
				attr.Value = slog.StringValue(attr.Value.Time().UTC().Format(time.RFC3339))
			}
			return attr
		},
	}))
}
