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

	"github.com/cauce-data/cauce/connect/simulate"
)

func newSimulate(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "simulate",
		Short: "Play an outside system on this machine",
	}, newSimulateExchange(a))
}

func newSimulateExchange(a *app) *cobra.Command {
	var (
		listen  string
		o       simulate.Options
		journal string
		start   string
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
			if o.Rate <= 0 {
				return usagef("--rate %v: it must be greater than 0", o.Rate)
			}
			if start != "" {
				t, err := parseTime(start)
				if err != nil {
					return usagef("--start: %w", err)
				}
				o.Start = t
			}
			var trades countLines
			out := io.Writer(&trades)
			if journal != "" {
				f, err := os.Create(journal)
				if err != nil {
					return usagef("--journal: %w", err)
				}
				defer f.Close()
				out = io.MultiWriter(f, &trades)
			}
			o.Journal = out
			o.Log = a.logger()
			x, err := simulate.New(o)
			if err != nil {
				return usagef("simulate exchange: %w", err)
			}
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("--listen %s: %w; choose another port, 0 takes a free one", listen, err)
			}
			a.note("exchange: ws://%s (seed %d, %g trades a second)", ln.Addr(), o.Seed, o.Rate)
			if err := simulate.Serve(cmd.Context(), ln, x); err != nil && cmd.Context().Err() == nil {
				return err
			}
			result := struct {
				Address string `json:"address"`
				Seed    uint64 `json:"seed"`
				Trades  int64  `json:"trades"`
			}{ln.Addr().String(), o.Seed, trades.n.Load()}
			return a.print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "made %d trades\n", result.Trades)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:9443", "`HOST:PORT` to serve on; port 0 takes a free one")
	f.Uint64Var(&o.Seed, "seed", 1, "what the trades are made from")
	f.Float64Var(&o.Rate, "rate", 100, "trades a second, over all symbols")
	f.Int64Var(&o.Count, "count", 0, "make this many trades, then none (0: no end)")
	f.Int64Var(&o.FirstID, "first-id", 1, "trade id that each symbol begins with")
	f.Int64Var(&o.SkipEvery, "skip-every", 0, "let no trade have each `N`-th id, as the real exchange does at times (0: never)")
	f.StringSliceVar(&o.Symbols, "symbols", nil, "symbols to trade (default BTCUSDT,ETHUSDT,SOLUSDT)")
	f.StringVar(&start, "start", "", "time of the first trade (default: now)")
	f.StringVar(&journal, "journal", "", "write every trade to this `file`")
	fault := func(p *int, name, what string) {
		f.IntVar(p, name, 0, what+" after every `N` events of a connection (0: never)")
	}
	fault(&o.Faults.DropEvery, "drop-every", "cut the connection without a close frame")
	fault(&o.Faults.ShutdownEvery, "shutdown-every", "send serverShutdown and close")
	fault(&o.Faults.HalfOpenEvery, "half-open-every", "go silent without closing")
	fault(&o.Faults.DuplicateEvery, "duplicate-every", "send an event twice")
	fault(&o.Faults.SwapEvery, "swap-every", "send two neighbours in the wrong order")
	fault(&o.Faults.MalformedEvery, "malformed-every", "send a frame that is no JSON")
	fault(&o.Faults.UnknownEvery, "unknown-every", "send an event of an unknown type")
	fault(&o.Faults.LoseEvery, "lose-every", "leave an event out of the socket (REST has it)")
	return cmd
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
