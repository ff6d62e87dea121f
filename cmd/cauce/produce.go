package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cauce-data/cauce/connect/replay"
	"github.com/cauce-data/cauce/pipeline"
)

func newProduce(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "produce",
		Short: "Send live events into a stream of the lake",
	}, newProduceBinance(a), newProduceBluesky(a), newProduceX(a), newProduceReplay(a))
}

// streamSource finds the source that a producer or reader means: the named one, or the only stream of the lake.
// kind, if not "", leaves only the streams of one kind.
func streamSource(lake *pipeline.Lake, name, kind string) (*pipeline.Source, error) {
	switch kind {
	case "", pipeline.KindKafka, pipeline.KindPubSub, pipeline.KindEmbedded:
	default:
		return nil, usagef("--to %s: it must be %s, %s or %s", kind, pipeline.KindKafka, pipeline.KindPubSub, pipeline.KindEmbedded)
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
			kind = pipeline.KindEmbedded + ", " + pipeline.KindKafka + " or " + pipeline.KindPubSub
		}
		return nil, usagef("%s has no source of kind %s, so there is no stream; add one under sources", lake.File, kind)
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

func newProduceReplay(a *app) *cobra.Command {
	var (
		source, to, key string
		rate            float64
	)
	cmd := &cobra.Command{
		Use:     "replay FILE",
		Short:   "Send recorded events, one JSON object a line, into a stream of the lake",
		Example: `  cauce produce replay trades.jsonl.gz`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch info, err := os.Stat(args[0]); {
			case err != nil:
				return &usageError{err: err}
			case info.IsDir():
				return usagef("%s is a folder; give a file", args[0])
			case !(rate >= 0): // NaN neither
				return usagef("--rate %v: it must not be less than 0", rate)
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
				return err
			}
			return a.printProduced(produced{Source: src.Name, Topic: src.Topic, Events: s.Events, Malformed: s.Bad})
		},
	}
	f := cmd.Flags()
	targetFlags(f, &source, &to)
	f.StringVar(&key, "key", "s", "field that becomes the message's key")
	f.Float64Var(&rate, "rate", 0, "events a second (0: as fast as they can be kept)")
	return cmd
}

// targetFlags are the flags by which every producer is told where to send.
func targetFlags(f *pflag.FlagSet, source, to *string) {
	f.StringVar(source, "source", "", "the lake file's stream to send to (default: the only one, or the only one with a producer of this kind)")
	f.StringVar(to, "to", "", "`kind` of the stream to send to, kafka, pubsub or embedded (default: as the lake file says)")
}
