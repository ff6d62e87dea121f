package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cauce-data/cauce/connect/binance"
	"github.com/cauce-data/cauce/connect/x"
	"github.com/cauce-data/cauce/pipeline"
)

// liveFlags are the flags of every producer of a live source.
type liveFlags struct {
	source, to, url, spoolMax, listen string
}

func (l *liveFlags) add(f *pflag.FlagSet, url string) {
	targetFlags(f, &l.source, &l.to)
	f.StringVar(&l.url, "url", "", url)
	f.StringVar(&l.spoolMax, "spool-max", "", "`size` of what may wait on disk for the topic, such as 1GiB (default: as the lake file says)")
	f.StringVar(&l.listen, "metrics-listen", "", metricsListen)
}

// produceLive runs a producer until it is stopped. set puts the command's own flags in the place of what the lake file says.
func (a *app) produceLive(cmd *cobra.Command, kind string, flags *liveFlags, set func(p *pipeline.Produce)) error {
	lake, src, p, err := a.producerOf(kind, flags)
	if err != nil {
		return err
	}
	set(&p)
	if kind == pipeline.ProduceBinance {
		if p.URL == "" {
			return usagef("source %s: no address to connect to; give --url, or produce: {kind: binance, url: …} in the lake file", src.Name)
		}
		if len(p.Symbols) == 0 && !binance.NamesStreams(p.URL) {
			p.Symbols = []string{"BTCUSDT", "ETHUSDT", "SOLUSDT"}
		}
	}
	ctx := cmd.Context()
	st := a.streams(lake)
	defer st.Close()
	live, err := st.producer(ctx, src, p, a.logger())
	if err != nil {
		return err
	}
	if a.watch, err = a.monitor(flags.listen); err != nil {
		return errors.Join(err, live.close())
	}
	defer a.watch.Close()
	a.watch.produce(src.Name, live.stats)
	from := p.URL
	if from == "" {
		from = "the public server"
	}
	a.note("producing from %s into topic %s", lake.Redact(from), src.Topic)
	stop := a.tick(live.line)
	err = live.run(ctx)
	figures := live.client.Stats()
	err = errors.Join(err, live.close())
	stop()
	if err != nil {
		return err
	}
	return a.printProduced(live.result(figures))
}

// producerOf finds the source that a producer of a kind sends to, and what the lake file and the common flags say of it.
func (a *app) producerOf(kind string, flags *liveFlags) (*pipeline.Lake, *pipeline.Source, pipeline.Produce, error) {
	none := pipeline.Produce{}
	lake, err := a.loadLake()
	if err != nil {
		return nil, nil, none, err
	}
	name := flags.source
	if name == "" && flags.to == "" {
		if made := slices.DeleteFunc(slices.Clone(lake.Sources), func(s *pipeline.Source) bool {
			return !s.Streaming() || s.Produce == nil || s.Produce.Kind != kind
		}); len(made) == 1 {
			name = made[0].Name
		}
	}
	src, err := streamSource(lake, name, flags.to)
	if err != nil {
		return nil, nil, none, err
	}
	p := pipeline.Produce{Kind: kind, SpoolBytesMax: pipeline.SpoolBytesMax}
	if src.Produce != nil && src.Produce.Kind == kind {
		p = *src.Produce
	}
	if flags.url != "" {
		if err := checkAddress("url", flags.url, pipeline.ProduceSchemes(kind)...); err != nil {
			return nil, nil, none, err
		}
		p.URL = flags.url
	}
	if flags.spoolMax != "" {
		if p.SpoolBytesMax, err = pipeline.ParseSize(flags.spoolMax); err != nil || p.SpoolBytesMax < 1<<16 {
			return nil, nil, none, usagef("--spool-max %q: it must be a size of at least 64KiB, such as 512MiB or 1GiB", flags.spoolMax)
		}
	}
	return lake, src, p, nil
}

// checkAddress refuses an address of a flag that the lake file would refuse too.
func checkAddress(flag, address string, schemes ...string) error {
	if address == "" {
		return nil
	}
	if err := pipeline.CheckAddress(address, schemes...); err != nil {
		return usagef("--%s %s: %w", flag, address, err)
	}
	return nil
}

// checkNames refuses a list of a flag that is given without names.
func checkNames(cmd *cobra.Command, flag string, names []string) error {
	if cmd.Flags().Changed(flag) && (len(names) == 0 || slices.ContainsFunc(names, func(s string) bool { return strings.TrimSpace(s) == "" })) {
		return usagef("--%s %q: a name is empty", flag, strings.Join(names, ","))
	}
	return nil
}

const spoolHelp = `
What the topic does not take yet waits on disk, in .cauce/spool, in the order of arrival, and outlives this process.`

func newProduceBinance(a *app) *cobra.Command {
	var (
		flags   liveFlags
		channel string
		symbols []string
		micros  bool
	)
	cmd := &cobra.Command{
		Use:   "binance",
		Short: "Subscribe to an exchange's trades and send them into a stream of the lake",
		Long: `Subscribe to an exchange's market data over its WebSocket and send each event into a stream of the lake.
The address and the symbols come from the source's produce block in the lake file unless flags name others.
Reconnects by itself; runs until it is stopped (SIGINT, SIGTERM).
` + spoolHelp + ` When it is full (spool_max) events
are dropped, counted and named: the exchange does not wait. cauce gaps --repair fetches them.`,
		Example: `  cauce produce binance --url ws://127.0.0.1:9443 --symbols BTCUSDT,ETHUSDT`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkNames(cmd, "symbols", symbols); err != nil {
				return err
			}
			return a.produceLive(cmd, pipeline.ProduceBinance, &flags, func(p *pipeline.Produce) {
				if len(symbols) > 0 {
					p.Symbols = symbols
				}
				if cmd.Flags().Changed("channel") || p.Channel == "" {
					p.Channel = channel
				}
				p.Microseconds = p.Microseconds || micros
			})
		},
	}
	f := cmd.Flags()
	flags.add(f, "WebSocket `address`, such as ws://127.0.0.1:9443")
	f.StringSliceVar(&symbols, "symbols", nil, "symbols to subscribe to")
	f.StringVar(&channel, "channel", pipeline.RepairTrade, "trade or aggTrade")
	f.BoolVar(&micros, "microseconds", false, "ask for times in microseconds")
	return cmd
}

func newProduceBluesky(a *app) *cobra.Command {
	var (
		flags       liveFlags
		collections []string
		dictionary  string
	)
	cmd := &cobra.Command{
		Use:   "bluesky",
		Short: "Read posts of Bluesky from a Jetstream server and send them into a stream of the lake",
		Long: `Read events from a Jetstream server (version 1) of Bluesky and send those of the wanted collections, posts unless told
otherwise, into a stream of the lake: each event as the server wrote it, its key author/collection/record key.
After a stop, a kill or a broken connection it goes on where it was, a little before, and drops what it knows already. The
public servers keep 36 hours: what was missed beyond is told as a range of time. Runs until it is stopped.
` + spoolHelp + ` When it is full (spool_max) the
producer waits: the server keeps the events.`,
		Example: `  cauce produce bluesky
  cauce produce bluesky --url ws://127.0.0.1:9444 --source posts`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkNames(cmd, "collections", collections); err != nil {
				return err
			}
			return a.produceLive(cmd, pipeline.ProduceBluesky, &flags, func(p *pipeline.Produce) {
				if len(collections) > 0 {
					p.Collections = collections
				}
				if dictionary != "" {
					p.Dictionary = dictionary
				}
			})
		},
	}
	f := cmd.Flags()
	flags.add(f, "WebSocket `address`, such as wss://jetstream1.us-west.bsky.network/subscribe")
	f.StringSliceVar(&collections, "collections", nil, "collections to subscribe to (default app.bsky.feed.post)")
	f.StringVar(&dictionary, "dictionary", "", "`file` of Jetstream's zstd dictionary; with it frames come compressed")
	return cmd
}

func newProduceX(a *app) *cobra.Command {
	var (
		flags    liveFlags
		backfill int
	)
	cmd := &cobra.Command{
		Use:   "x",
		Short: "Read posts of X from the filtered stream and send them into a stream of the lake",
		Long: `Read the filtered stream of X (API version 2) and send each post into a stream of the lake, as the stream wrote it; its key
is the id of the first post of its edit history. Which posts come the account's rules say: see cauce produce x rules.
The bearer token stands in the source's produce block, by reference: token: "${env:X_BEARER_TOKEN}" or "${file:x.token}".
After a break what was missed is asked for (backfill_minutes, where the account may), and what does not come back is told
as a range of time. Runs until it is stopped.
` + spoolHelp + ` When it is full (spool_max) posts
are dropped, counted and named: the stream does not wait.`,
		Example: `  cauce produce x rules add "bitcoin lang:en"
  cauce produce x`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.produceLive(cmd, pipeline.ProduceX, &flags, func(p *pipeline.Produce) {
				if cmd.Flags().Changed("backfill-minutes") {
					p.BackfillMinutes = backfill
				}
			})
		},
	}
	f := cmd.Flags()
	flags.add(f, "HTTP `address` of the API, such as https://api.x.com")
	f.IntVar(&backfill, "backfill-minutes", 0, "after a break of at most so many `minutes` (0 to 5) ask for what was missed")
	cmd.AddCommand(newProduceXRules(a))
	return cmd
}

func newProduceXRules(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "rules",
		Short: "Say which posts the filtered stream of X sends",
		Long: `Say which posts the filtered stream of X sends: those that match at least one rule. The rules belong to the account of the
bearer token and stay there.`,
	}, newXRulesList(a), newXRulesAdd(a), newXRulesDelete(a))
}

// xClient is a client of X that only manages rules.
func (a *app) xClient(flags *liveFlags) (*x.Client, error) {
	_, src, p, err := a.producerOf(pipeline.ProduceX, flags)
	if err != nil {
		return nil, err
	}
	c, err := x.New(x.Options{URL: p.URL, Token: p.Token})
	if err != nil {
		return nil, usagef("source %s: %w; give it in the source's produce block: {kind: x, token: \"${env:X_BEARER_TOKEN}\"}", src.Name, err)
	}
	return c, nil
}

func (a *app) printRules(what string, rules []x.Rule) error {
	if rules == nil {
		rules = []x.Rule{}
	}
	return a.print(struct {
		Rules []x.Rule `json:"rules"`
	}{rules}, func(w io.Writer) error {
		if len(rules) == 0 {
			_, err := fmt.Fprintln(w, what)
			return err
		}
		g := newGrid("id", "tag", "rule")
		for _, r := range rules {
			g.row(r.ID, r.Tag, r.Value)
		}
		return g.write(w)
	})
}

func newXRulesList(a *app) *cobra.Command {
	var flags liveFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the rules",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.xClient(&flags)
			if err != nil {
				return err
			}
			rules, err := c.Rules(cmd.Context())
			if err != nil {
				return err
			}
			return a.printRules("no rules: the stream sends nothing; add one with cauce produce x rules add", rules)
		},
	}
	flags.rules(cmd.Flags())
	return cmd
}

func (l *liveFlags) rules(f *pflag.FlagSet) {
	f.StringVar(&l.source, "source", "", "the lake file's stream whose produce block has the token")
	f.StringVar(&l.url, "url", "", "HTTP `address` of the API")
}

func newXRulesAdd(a *app) *cobra.Command {
	var (
		flags liveFlags
		tag   string
	)
	cmd := &cobra.Command{
		Use:     "add RULE…",
		Short:   "Add rules; one that is there already stays as it is",
		Example: `  cauce produce x rules add "bitcoin lang:en" --tag btc`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.xClient(&flags)
			if err != nil {
				return err
			}
			var rules []x.Rule
			for _, v := range args {
				if strings.TrimSpace(v) == "" {
					return usagef("a rule is empty")
				}
				rules = append(rules, x.Rule{Value: v, Tag: tag})
			}
			added, err := c.AddRules(cmd.Context(), rules)
			if err != nil {
				return err
			}
			return a.printRules("nothing added: the rules are there already", added)
		},
	}
	flags.rules(cmd.Flags())
	cmd.Flags().StringVar(&tag, "tag", "", "`text` that stands beside the posts that match")
	return cmd
}

func newXRulesDelete(a *app) *cobra.Command {
	var flags liveFlags
	cmd := &cobra.Command{
		Use:   "delete ID…",
		Short: "Delete rules by id",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, id := range args {
				if _, err := strconv.ParseUint(id, 10, 64); err != nil {
					return usagef("%q is no id of a rule; cauce produce x rules list shows them", id)
				}
			}
			c, err := a.xClient(&flags)
			if err != nil {
				return err
			}
			n, err := c.DeleteRules(cmd.Context(), args)
			if err != nil {
				return err
			}
			return a.print(struct {
				Deleted int `json:"deleted"`
			}{n}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s deleted\n", count(int64(n), "rule"))
				return err
			})
		},
	}
	flags.rules(cmd.Flags())
	return cmd
}
