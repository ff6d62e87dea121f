package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cauce-data/cauce/pipeline"
)

// version is set by the linker for releases.
var version = "0.1.0-dev"

// app is what all commands share: the streams, the global flags and how results are printed.
type app struct {
	prog           string // the name this process was started by, for commands that are printed for pasting
	stdin          io.Reader
	stdout, stderr io.Writer

	lakeFile string
	root     string
	json     bool
	quiet    bool
	verbose  bool

	started bool // a command's own work has begun
	printed bool // the one JSON object is out

	// lake is the last lake file that was read: what came out of its ${env:…} and ${file:…} is not shown.
	lake atomic.Pointer[pipeline.Lake]

	// statement cancels what the shell is running; nil: Ctrl-C ends the process.
	statement atomic.Pointer[context.CancelFunc]

	logFormat string
	logLevel  string
	// watch is what /metrics and /readyz are served from; nil: they are not.
	watch *monitor
}

// interrupt ends the statement that a shell is running, if there is one, and tells whether there was.
func (a *app) interrupt() bool {
	cancel := a.statement.Load()
	if cancel == nil {
		return false
	}
	(*cancel)()
	return true
}

func newRoot(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cauce",
		Short: "History and live events in one Delta Lake table",
		Long: `Cauce is a data lake in one binary. History that arrives as CSV files and events that arrive as live
streams run through the same declared transformations into one Delta Lake table, which any
Delta reader can read while it is being written.

Commands look for lake.yaml in the working directory; --lake names another file.

Exit codes: 0 ok, 1 failure, 2 bad use or configuration, 3 data broke a rule with on_fail: fail,
4 gap in a source, 5 conflict with another writer that could not be resolved.`,
		Example: `  cauce demo
  cauce init mylake --template crypto
  cauce query "SELECT count(*) FROM unified_events"`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if err := a.checkLog(); err != nil {
				return err
			}
			a.started = true
			return nil
		},
	}
	cmd.SetOut(a.stdout)
	cmd.SetErr(a.stderr)
	cmd.SetIn(a.stdin)
	f := cmd.PersistentFlags()
	f.StringVar(&a.lakeFile, "lake", "lake.yaml", "the lake `file`")
	f.StringVar(&a.root, "root", os.Getenv("CAUCE_ROOT"), "storage root `URL` instead of the lake file's (environment: CAUCE_ROOT)")
	f.BoolVar(&a.json, "json", false, "print one JSON object on standard output")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress on standard error")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "tell more on standard error")
	f.StringVar(&a.logFormat, "log-format", "text", "`form` of the log on standard error: text or json")
	f.StringVar(&a.logLevel, "log-level", "", "least `level` that is logged: debug, info, warn or error (default warn; info with -v and under up; nothing with -q)")
	cmd.AddGroup(
		&cobra.Group{ID: "start", Title: "Start:"},
		&cobra.Group{ID: "flow", Title: "Bring data in:"},
		&cobra.Group{ID: "use", Title: "Use the tables:"},
		&cobra.Group{ID: "ops", Title: "Look after them:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			cmd.AddCommand(c)
		}
	}
	add("start", newDemo(a), newInit(a), newCheck(a), newPlan(a), newSample(a))
	add("flow", newLand(a), newRun(a), newUp(a), newProduce(a), newTopics(a), newSimulate(a))
	add("use", newQuery(a), newServe(a), newTable(a), newShare(a), newNotebook(a))
	add("ops", newQuarantine(a), newGaps(a), newWhy(a), newStatus(a), newRuns(a), newAlert(a), newAirflow(a), newDoctor(a), newCopy(a), newSpark(a), newProve(a), newBench(a))
	cmd.AddCommand(newVersion(a), newMan(a))
	completeNames(a, cmd)
	return cmd
}

// group is a command that only holds others. cobra suggests near names for the root alone; this does it below too.
func group(cmd *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(subs...)
	cmd.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		msg := fmt.Sprintf("unknown command %q for %q", args[0], c.CommandPath())
		c.SuggestionsMinimumDistance = 2
		if s := c.SuggestionsFor(args[0]); len(s) > 0 {
			msg += "; did you mean " + strings.Join(s, " or ") + "?"
		} else {
			var names []string
			for _, sub := range c.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name())
				}
			}
			msg += "; there are " + strings.Join(names, ", ")
		}
		return fmt.Errorf("%s", msg)
	}
	cmd.RunE = func(c *cobra.Command, args []string) error {
		if a := c.Flags().Lookup("json"); a != nil && a.Value.String() == "true" {
			return usagef("%s needs a subcommand; see %s --help", c.CommandPath(), c.CommandPath())
		}
		return c.Help()
	}
	return cmd
}

// print writes a command's result: v as the one JSON object with --json, else whatever human writes.
func (a *app) print(v any, human func(w io.Writer) error) error {
	if a.json {
		out, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("result as JSON: %w", err)
		}
		return a.printJSON(json.RawMessage(a.redact(string(out))))
	}
	return human(redacting{a, a.stdout})
}

// redact puts references of the lake file in the place of what they stand for. Rows of a query are not passed through
// here: they are data.
func (a *app) redact(s string) string {
	if l := a.lake.Load(); l != nil {
		return l.Redact(s)
	}
	return s
}

// redacting writes through redact.
type redacting struct {
	a *app
	w io.Writer
}

func (r redacting) Write(b []byte) (int, error) {
	if _, err := io.WriteString(r.w, r.a.redact(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (a *app) printJSON(v any) error {
	out, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("result as JSON: %w", err)
	}
	a.printed = true
	_, err = fmt.Fprintf(a.stdout, "%s\n", out)
	return err
}

// stderrIsTerminal decides on progress; stdoutIsTerminal on the default format of tables.
func (a *app) stderrIsTerminal() bool { return isTerminal(a.stderr) }
func (a *app) stdoutIsTerminal() bool { return isTerminal(a.stdout) }

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// note prints a line for people on standard error, on terminals and in logs alike.
func (a *app) note(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(redacting{a, a.stderr}, format+"\n", args...)
	}
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Commit   string `json:"commit,omitempty"`
				Go       string `json:"go"`
				DuckDB   string `json:"duckdb,omitempty"`
				Platform string `json:"platform"`
			}{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value
					}
				}
				for _, d := range info.Deps {
					if d.Path == "github.com/duckdb/duckdb-go/v2" {
						v.DuckDB = d.Version
					}
				}
			}
			return a.print(v, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "cauce %s (%s, %s, duckdb-go %s)\n", v.Version, v.Go, v.Platform, v.DuckDB)
				return err
			})
		},
	}
}
