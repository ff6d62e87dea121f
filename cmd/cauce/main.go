// Command cauce is a data lake in one binary: history that arrives as files and events that arrive as streams run
// through the same declared transformations into one Delta Lake table. This package is the command line: a file per
// subcommand, the wiring of the packages, and nothing that another program would want to import.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
	_ "time/tzdata" // time zones of lake files, on machines that have none installed

	"github.com/cauce-data/cauce/serve/worker"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == worker.Command { // a process of cauce serve; it has signals and arguments of its own
		os.Exit(worker.Main())
	}
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// insistAfter is how long after a signal another one is a second wish. Programs such as timeout send theirs to the process
// and to its group, so that it comes twice.
const insistAfter = 300 * time.Millisecond

// run executes one command line and gives its exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	done := make(chan struct{})
	defer close(done)
	a := &app{prog: args[0], stdin: stdin, stdout: stdout, stderr: stderr}
	go func() {
		for since := (time.Time{}); ; {
			select {
			case s := <-signals:
				switch {
				case !since.IsZero() && time.Since(since) < insistAfter:
				case !since.IsZero(): // the user insists: what is unfinished is found by the next start
					os.Exit(exitFailure)
				case s == syscall.SIGINT && a.interrupt():
				default:
					since = time.Now()
					stop(&interrupted{signal: s})
				}
			case <-done:
				return
			}
		}
	}()

	root := newRoot(a)
	root.SetArgs(args[1:])
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !a.started {
		if strings.Contains(err.Error(), "arg(s)") { // cobra's, which names neither the command nor what it wants
			err = fmt.Errorf("%s: %w; usage: %s", cmd.CommandPath(), err, cmd.UseLine())
		}
		// Everything before the command's own work is about how it was called.
		err = &usageError{err: err}
		a.json = a.json || slices.Contains(args[1:], "--json")
	}
	var i *interrupted
	if err != nil && errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &i) {
		err = i
	}
	return a.fail(err)
}
