package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/connect/binance"
	"github.com/cauce-data/cauce/connect/replay"
	"github.com/cauce-data/cauce/pipeline"
)

func newProduce(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "produce",
		Short: "Send live events into a stream of the lake",
	}, newProduceBinance(a), newProduceReplay(a))
}

// streamSource finds the source that a producer or reader means: the named one, or the only stream of the lake.
// kind, if not "", leaves only the streams of one kind.
func streamSource(lake *pipeline.Lake, name, kind string) (*pipeline.Source, error) {
	switch kind {
	case "", pipeline.KindKafka, pipeline.KindEmbedded:
	default:
		return nil, usagef("--to %s: it must be %s or %s", kind, pipeline.KindKafka, pipeline.KindEmbedded)
	}
	var streams []string
	for _, s := range lake.Sources {
		if s.Streaming() && (kind == "" || s.Kind == kind) {
			streams = append(streams, s.Name)
		}
	}
	if name != "" {
		s := lake.Source(name)
		switch {
		case s == nil:
			return nil, usagef("source %q is not in %s; its streams are: %s", name, lake.File, list(streams))
		case !s.Streaming():
			return nil, usagef("source %q reads files, not a stream; the streams are: %s", name, list(streams))
		case kind != "" && s.Kind != kind:
			return nil, usagef("source %q is of kind %s, not %s; of that kind are: %s", name, s.Kind, kind, list(streams))
		}
		return s, nil
	}
	switch len(streams) {
	case 0:
		if kind == "" {
			kind = pipeline.KindEmbedded + " or " + pipeline.KindKafka
		}
		return nil, usagef("%s has no source of kind %s, so there is no stream to send to; add one under sources", lake.File, kind)
	case 1:
		return lake.Source(streams[0]), nil
	}
	return nil, usagef("%s has several streams (%s); choose one with --source", lake.File, list(streams))
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// produced is the result of every producer.
type produced struct {
	Source    string           `json:"source"`
	Topic     string           `json:"topic"`
	Events    int64            `json:"events"`
	Ignored   int64            `json:"ignored"` // of kinds that are not asked for
	Kinds     map[string]int64 `json:"ignored_kinds,omitempty"`
	Malformed int64            `json:"malformed"`
	Reconnect int64            `json:"reconnects"`
}

func (a *app) printProduced(p produced) error {
	return a.print(p, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%d events sent to %s (%d ignored, %d malformed, %d reconnects)\n",
			p.Events, p.Topic, p.Ignored, p.Malformed, p.Reconnect)
		return err
	})
}

func newProduceBinance(a *app) *cobra.Command {
	var (
		source, to, url, channel, listen string
		symbols                          []string
		micros                           bool
	)
	cmd := &cobra.Command{
		Use:   "binance",
		Short: "Subscribe to an exchange's trades and keep them in the buffer",
		Long: `Subscribe to an exchange's market data over its WebSocket and keep each event in the buffer.
The address and the symbols come from the source's produce block in the lake file unless flags name others.
Reconnects by itself; runs until it is stopped (SIGINT, SIGTERM).`,
		Example: `  cauce produce binance --url ws://127.0.0.1:9443 --symbols BTCUSDT,ETHUSDT`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lake, err := a.loadLake()
			if err != nil {
				return err
			}
			src, err := streamSource(lake, source, to)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			o, err := binanceOptions(src, url, symbols)
			if err != nil {
				return err
			}
			o.Channel, o.Microseconds, o.Log = channel, micros, a.logger()
			st := a.streams(lake)
			defer st.Close()
			sink, err := st.sink(ctx, src)
			if err != nil {
				return err
			}
			defer sink.Close()
			o.Sink = sink
			client, err := binance.New(o)
			if err != nil {
				return usagef("produce binance: %w", err)
			}
			if a.watch, err = a.monitor(listen); err != nil {
				return err
			}
			defer a.watch.Close()
			a.watch.produce(src.Name, binanceStats(client, sink))
			a.note("producing from %s into topic %s", lake.Redact(o.URL), src.Topic)
			stop := a.tick(func() string {
				s := client.Stats()
				return fmt.Sprintf("%d events, %.0f/s, %d reconnects", s.Events, s.Rate, s.Reconnects)
			})
			err = client.Run(ctx)
			stop()
			if err != nil {
				return err
			}
			s := client.Stats()
			return a.printProduced(produced{src.Name, src.Topic, s.Events, s.Ignored, s.IgnoredKinds, s.Malformed, s.Reconnects})
		},
	}
	f := cmd.Flags()
	f.StringVar(&source, "source", "", "the lake file's stream to send to (default: the only one)")
	f.StringVar(&to, "to", "", "`kind` of the stream to send to, kafka or embedded (default: as the lake file says)")
	f.StringVar(&url, "url", "", "WebSocket `address`, such as ws://127.0.0.1:9443")
	f.StringSliceVar(&symbols, "symbols", nil, "symbols to subscribe to")
	f.StringVar(&channel, "channel", "trade", "trade or aggTrade")
	f.StringVar(&listen, "metrics-listen", "", metricsListen)
	f.BoolVar(&micros, "microseconds", false, "ask for times in microseconds")
	return cmd
}

// binanceOptions joins what the lake file says about a source's producer with what flags override.
func binanceOptions(src *pipeline.Source, url string, symbols []string) (binance.Options, error) {
	var o binance.Options
	if p := src.Produce; p != nil {
		o.URL, o.Symbols = p.URL, p.Symbols
	}
	if url != "" {
		o.URL = url
	}
	if len(symbols) > 0 {
		o.Symbols = symbols
	}
	if len(o.Symbols) == 0 {
		o.Symbols = []string{"BTCUSDT", "ETHUSDT", "SOLUSDT"}
	}
	if o.URL == "" {
		return o, usagef("source %s: no address to connect to; give --url, or produce: {kind: binance, url: …} in the lake file", src.Name)
	}
	return o, nil
}

// binanceStats is what a client tells the monitor.
func binanceStats(c *binance.Client, to sink) func() producerStats {
	return func() producerStats {
		s := c.Stats()
		return producerStats{Events: s.Events, Malformed: s.Malformed, Reconnects: s.Reconnects, Ignored: s.IgnoredKinds, Waiting: to.Waiting(), Connected: s.Connected, Last: s.Last}
	}
}

func newProduceReplay(a *app) *cobra.Command {
	var (
		source, to, key string
		rate            float64
	)
	cmd := &cobra.Command{
		Use:     "replay FILE",
		Short:   "Send recorded events, one JSON object a line, into the buffer",
		Example: `  cauce produce replay trades.jsonl.gz`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); err != nil {
				return &usageError{err: err}
			}
			lake, err := a.loadLake()
			if err != nil {
				return err
			}
			src, err := streamSource(lake, source, to)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			st := a.streams(lake)
			defer st.Close()
			sink, err := st.sink(ctx, src)
			if err != nil {
				return err
			}
			defer sink.Close()
			s, err := replay.File(ctx, args[0], replay.Options{Sink: sink, Key: key, Rate: rate})
			if errors.Is(err, fs.ErrNotExist) {
				return usagef("%s: no such file", args[0])
			}
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return a.printProduced(produced{Source: src.Name, Topic: src.Topic, Events: s.Events, Malformed: s.Bad})
		},
	}
	f := cmd.Flags()
	f.StringVar(&source, "source", "", "the lake file's stream to send to (default: the only one)")
	f.StringVar(&to, "to", "", "`kind` of the stream to send to, kafka or embedded (default: as the lake file says)")
	f.StringVar(&key, "key", "s", "field that becomes the message's key")
	f.Float64Var(&rate, "rate", 0, "events a second (0: as fast as they can be kept)")
	return cmd
}

// tickEvery is how often a line of progress is renewed.
const tickEvery = time.Second
