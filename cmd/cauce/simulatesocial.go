package main

import (
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cauce-data/cauce/connect/simulate"
)

// refuse adds the flag for attempts that are refused.
func refuse(f *pflag.FlagSet, r *simulate.Refusals) {
	f.IntSliceVar((*[]int)(r), "refuse", nil, "answer the first connections with these `STATUSES`, such as 503,429")
}

func newSimulateBluesky(a *app) *cobra.Command {
	var (
		common simulated
		o      simulate.BlueskyOptions
	)
	cmd := &cobra.Command{
		Use:   "bluesky",
		Short: "Serve invented posts as a Jetstream server of Bluesky does",
		Long: `Serve invented events over Jetstream's WebSocket protocol, version 1: posts that are created, changed and deleted, likes,
follows, accounts. The same seed gives the same events. The journal gets each event of a post as JSON a line (did, rkey,
rev, op, time_us, text, lang): of each post a lake that is fed from here must hold the last. A cursor that is older than
--lookback is moved forward without a word, as the real servers do. Runs until it is stopped (SIGINT, SIGTERM).`,
		Example: `  cauce simulate bluesky --listen 127.0.0.1:9444 --seed 1 --journal posts.jsonl
  cauce produce bluesky --url ws://127.0.0.1:9444`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := common.check(); err != nil {
				return err
			}
			o.Seed, o.Rate, o.Count, o.Start, o.Log = common.seed, common.rate, common.count, common.at, a.logger()
			return a.simulate(cmd, &common, "Jetstream: ws://%s (seed %d, %g events a second)", "post_events", func(journal io.Writer) (simulate.System, error) {
				o.Journal = journal
				return simulate.NewBluesky(o)
			})
		},
	}
	f := cmd.Flags()
	common.add(f, "event", 9444, 100)
	f.IntVar(&o.Authors, "authors", 40, "how many accounts write")
	f.DurationVar(&o.Lookback, "lookback", 36*time.Hour, "how long events are kept")
	fault := faults(f)
	fault(&o.Faults.DropEvery, "drop-every", "cut the connection without a close frame")
	fault(&o.Faults.HalfOpenEvery, "half-open-every", "go silent without closing")
	fault(&o.Faults.ReplayEvery, "replay-every", "send the last 20 events again")
	fault(&o.Faults.SwapEvery, "swap-every", "send two neighbours in the wrong order")
	fault(&o.Faults.MalformedEvery, "malformed-every", "send a frame that is no JSON")
	fault(&o.Faults.UnknownEvery, "unknown-every", "send an event of an unknown kind")
	refuse(f, &o.Faults.Refuse)
	return cmd
}

func newSimulateX(a *app) *cobra.Command {
	var (
		common simulated
		o      simulate.XOptions
	)
	cmd := &cobra.Command{
		Use:   "x",
		Short: "Serve invented posts as the filtered stream of X does",
		Long: `Serve invented posts over the filtered stream of X (API version 2) and its rules, which know words and lang: only. The same
seed gives the same posts. The journal gets each post as JSON a line (id, first, author_id, username, created_at, text,
lang), whether a rule lets it through or not. Runs until it is stopped (SIGINT, SIGTERM).`,
		Example: `  cauce simulate x --listen 127.0.0.1:9445 --token secret --rule bitcoin
  X_BEARER_TOKEN=secret cauce produce x --url http://127.0.0.1:9445`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := common.check(); err != nil {
				return err
			}
			if o.Token == "" {
				return usagef("--token: give the bearer token that clients must have; here it is no secret")
			}
			o.Seed, o.Rate, o.Count, o.Start, o.Log = common.seed, common.rate, common.count, common.at, a.logger()
			return a.simulate(cmd, &common, "X: http://%s (seed %d, %g posts a second)", "posts", func(journal io.Writer) (simulate.System, error) {
				o.Journal = journal
				return simulate.NewX(o)
			})
		},
	}
	f := cmd.Flags()
	common.add(f, "post", 9445, 20)
	f.StringVar(&o.Token, "token", "", "bearer `token` that clients must have")
	f.StringArrayVar(&o.Rules, "rule", nil, "`rule` of the account from the beginning, such as \"bitcoin lang:en\"; * lets every post through")
	f.DurationVar(&o.KeepAlive, "keep-alive", 20*time.Second, "how often a line break is sent while there is nothing else")
	fault := faults(f)
	fault(&o.Faults.DropEvery, "drop-every", "cut the connection")
	fault(&o.Faults.HalfOpenEvery, "half-open-every", "go silent without closing, keep-alives included")
	fault(&o.Faults.DisconnectEvery, "disconnect-every", "end the stream for operational reasons")
	fault(&o.Faults.ReplayEvery, "replay-every", "send the last 20 posts again")
	fault(&o.Faults.MalformedEvery, "malformed-every", "send a line that is no JSON")
	fault(&o.Faults.UnknownEvery, "unknown-every", "send a message of an unknown kind")
	refuse(f, &o.Faults.Refuse)
	return cmd
}
