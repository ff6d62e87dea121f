package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cauce-data/cauce/connect/simulate"
)

func newSimulate(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "simulate",
		Short: "Play an outside system on this machine",
	}, newSimulateExchange(a), newSimulateBluesky(a), newSimulateX(a))
}

func newSimulateExchange(a *app) *cobra.Command {
	var (
		common simulated
		o      simulate.Options
	)
	cmd := &cobra.Command{
		Use:   "exchange",
		Short: "Serve invented trades over the exchange's WebSocket and REST protocol",
		Long: `Serve invented trades over the exchange's WebSocket and REST protocol. The same seed gives the same trades.
The journal gets one trade as JSON a line (s, t, p, q, T, m): what a lake fed from here must hold, each trade once.
Runs until it is stopped (SIGINT, SIGTERM); with --count it stops making trades but goes on serving.`,
		Example: `  cauce simulate exchange --listen 127.0.0.1:9443 --seed 1 --rate 200 --journal trades.jsonl
  cauce produce binance --url ws://127.0.0.1:9443`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := common.check(); err != nil {
				return err
			}
			o.Seed, o.Rate, o.Count, o.Start = common.seed, common.rate, common.count, common.at
			o.Log = a.logger()
			return a.simulate(cmd, &common, "exchange: ws://%s (seed %d, %g trades a second)", "trades", func(journal io.Writer) (simulate.System, error) {
				o.Journal = journal
				return simulate.New(o)
			})
		},
	}
	f := cmd.Flags()
	common.add(f, "trade", 9443, 100)
	f.Int64Var(&o.FirstID, "first-id", 1, "trade id that each symbol begins with")
	f.Int64Var(&o.SkipEvery, "skip-every", 0, "let no trade have each `N`-th id, as the real exchange does at times (0: never)")
	f.StringSliceVar(&o.Symbols, "symbols", nil, "symbols to trade (default BTCUSDT,ETHUSDT,SOLUSDT)")
	fault := faults(f)
	fault(&o.Faults.DropEvery, "drop-every", "cut the connection without a close frame")
	fault(&o.Faults.ShutdownEvery, "shutdown-every", "send serverShutdown and close")
	fault(&o.Faults.HalfOpenEvery, "half-open-every", "go silent without closing")
	fault(&o.Faults.DuplicateEvery, "duplicate-every", "send an event twice")
	fault(&o.Faults.SwapEvery, "swap-every", "send two neighbours in the wrong order")
	fault(&o.Faults.MalformedEvery, "malformed-every", "send a frame that is no JSON")
	fault(&o.Faults.UnknownEvery, "unknown-every", "send an event of an unknown type")
	fault(&o.Faults.OldEvery, "old-every", "send a trade as it was written once, with the ids of both orders")
	fault(&o.Faults.LoseEvery, "lose-every", "leave an event out of the socket (REST has it)")
	return cmd
}

// faults gives the function that adds a flag for a fault which comes again and again.
func faults(f *pflag.FlagSet) func(p *int, name, what string) {
	return func(p *int, name, what string) {
		f.IntVar(p, name, 0, what+" after every `N` events of a connection (0: never)")
	}
}

// simulated are the flags that all simulated systems have.
type simulated struct {
	listen, journal, start string
	seed                   uint64
	rate                   float64
	count                  int64
	at                     time.Time // of start
}

// add adds the flags; event is what the system makes.
func (s *simulated) add(f *pflag.FlagSet, event string, port int, rate float64) {
	f.StringVar(&s.listen, "listen", fmt.Sprintf("127.0.0.1:%d", port), "`HOST:PORT` to serve on; port 0 takes a free one")
	f.Uint64Var(&s.seed, "seed", 1, "what the "+event+"s are made from")
	f.Float64Var(&s.rate, "rate", rate, event+"s a second, all together")
	f.Int64Var(&s.count, "count", 0, "make this many "+event+"s, then none (0: no end)")
	f.StringVar(&s.start, "start", "", "time of the first "+event+" (default: now)")
	f.StringVar(&s.journal, "journal", "", "write every "+event+" to this `file`")
}

func (s *simulated) check() error {
	if s.rate <= 0 {
		return usagef("--rate %v: it must be greater than 0", s.rate)
	}
	if s.start != "" {
		t, err := parseTime(s.start)
		if err != nil {
			return usagef("--start: %w", err)
		}
		s.at = t
	}
	return nil
}

// simulate serves a system until it is stopped. greeting has the address, the seed and the rate; events is what it makes.
func (a *app) simulate(cmd *cobra.Command, s *simulated, greeting, events string, open func(journal io.Writer) (simulate.System, error)) error {
	var lines countLines
	out := io.Writer(&lines)
	if s.journal != "" {
		f, err := os.Create(s.journal)
		if err != nil {
			return usagef("--journal: %w", err)
		}
		defer f.Close()
		out = io.MultiWriter(f, &lines)
	}
	x, err := open(out)
	if err != nil {
		return usagef("%s: %w", cmd.CommandPath(), err)
	}
	ln, err := net.Listen("tcp", s.listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w; choose another port, 0 takes a free one", s.listen, err)
	}
	a.note(greeting, ln.Addr(), s.seed, s.rate)
	if err := simulate.Serve(cmd.Context(), ln, x); err != nil && cmd.Context().Err() == nil {
		return err
	}
	result := map[string]any{"address": ln.Addr().String(), "seed": s.seed, events: lines.n.Load()}
	return a.print(result, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "made %d %s\n", lines.n.Load(), events)
		return err
	})
}

// countLines counts the lines written to it.
type countLines struct{ n atomic.Int64 }

func (c *countLines) Write(p []byte) (int, error) {
	c.n.Add(int64(strings.Count(string(p), "\n")))
	return len(p), nil
}

// parseTime reads the times that a user types: ISO 8601 with or without zone (UTC), or only a date.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00",
		"2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly,
	} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time; write it as 2024-08-20 or 2024-08-20T13:45:00Z", s)
}

// parsePastTime reads the time of a version. One that has not come yet is a mistake: no version can be told to be that of it.
func parsePastTime(s string) (time.Time, error) {
	t, err := parseTime(s)
	if err == nil && t.After(time.Now()) {
		err = fmt.Errorf("%s has not come yet; the newest version is read without a time", s)
	}
	return t, err
}
