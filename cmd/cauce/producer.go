package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cauce-data/cauce/connect/binance"
	"github.com/cauce-data/cauce/connect/bluesky"
	"github.com/cauce-data/cauce/connect/buffer"
	"github.com/cauce-data/cauce/connect/kafka"
	"github.com/cauce-data/cauce/connect/pubsub"
	"github.com/cauce-data/cauce/connect/spool"
	"github.com/cauce-data/cauce/connect/x"
	"github.com/cauce-data/cauce/internal/live"
	"github.com/cauce-data/cauce/pipeline"
)

// producer is a client of a live source, and the spool between it and the topic of a source of the lake.
type producer struct {
	client interface {
		Run(ctx context.Context) error
		Stats() live.Stats
	}
	spool *spool.Spool
	src   *pipeline.Source
	log   *slog.Logger
}

// firstPatience bounds how long a producer waits for its topic before it begins: what comes then waits in the spool.
const firstPatience = 5 * time.Second

// producer opens a source's topic, the spool before it, and the client that p describes.
func (s *streams) producer(ctx context.Context, src *pipeline.Source, p pipeline.Produce, log *slog.Logger) (*producer, error) {
	first, err := s.firstSink(ctx, src)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(spoolDir(s.lake), src.Name)
	sp, err := spool.Open(spool.Options{
		Dir: dir, BytesMax: p.SpoolBytesMax, Sync: s.lake.Buffer.Sync, Log: log,
		// A Jetstream server keeps its events, so its client can wait; the others' servers do not.
		Wait: p.Kind == pipeline.ProduceBluesky,
		Open: func(ctx context.Context) (spool.Target, error) {
			if t := first; t != nil {
				first = nil
				return t, nil
			}
			return s.sink(ctx, src)
		},
		Permanent: permanent,
	})
	if err != nil {
		if first != nil {
			_ = first.Close()
		}
		if errors.Is(err, spool.ErrBusy) {
			return nil, usagef("a producer of source %s runs already (%w); stop that one first, or give this one a source of its own", src.Name, err)
		}
		return nil, err
	}
	out := &producer{spool: sp, src: src, log: log}
	state := filepath.Join(produceDir(s.lake), src.Name+"-"+p.Kind+".json")
	switch p.Kind {
	case pipeline.ProduceBluesky:
		o := bluesky.Options{URL: p.URL, Collections: p.Collections, StateFile: state, Sink: sp, Log: log}
		if p.Dictionary != "" {
			if o.Dictionary, err = os.ReadFile(p.Dictionary); err != nil {
				err = fmt.Errorf("dictionary: %w", err)
				break
			}
		}
		out.client, err = bluesky.New(o)
	case pipeline.ProduceX:
		if p.Token == "" {
			err = errors.New(`there is no bearer token; the source's produce block gives it, by reference: token: "${env:X_BEARER_TOKEN}" or "${file:x.token}"`)
			break
		}
		out.client, err = x.New(x.Options{URL: p.URL, Token: p.Token, BackfillMinutes: p.BackfillMinutes, StateFile: state, Sink: sp, Log: log})
	default:
		out.client, err = binance.New(binance.Options{URL: p.URL, Symbols: p.Symbols, Channel: p.Channel, Microseconds: p.Microseconds, Sink: sp, Log: log})
	}
	if err != nil {
		_ = sp.Close()
		return nil, usagef("produce %s: %w", p.Kind, err)
	}
	return out, nil
}

// firstSink opens a source's topic; nil if it cannot be reached now but may be later.
func (s *streams) firstSink(ctx context.Context, src *pipeline.Source) (sink, error) {
	if src.Kind == pipeline.KindEmbedded {
		return s.sink(ctx, src)
	}
	short, cancel := context.WithTimeout(ctx, firstPatience)
	defer cancel()
	first, err := s.sink(short, src)
	if err != nil && ctx.Err() == nil && (errors.Is(err, pipeline.ErrUnavailable) || short.Err() != nil) && !permanent(err) {
		s.a.note("%v; events wait in %s until it can", err, spoolDir(s.lake))
		return nil, nil //nolint:nilnil // the spool opens it later
	}
	return first, err
}

// permanent tells which errors of a topic another try does not mend.
func permanent(err error) bool {
	return kafka.Permanent(err) || pubsub.Permanent(err) || errors.Is(err, buffer.ErrTooLarge)
}

// reportEvery is how often a producer's figures go into the log.
const reportEvery = time.Minute

// run runs the client until the context ends.
func (p *producer) run(ctx context.Context) error {
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				s, sp := p.client.Stats(), p.spool.Stats()
				p.log.Info("producer "+p.src.Name, "events", s.Events, "rate", s.Rate, "lag", s.Lag.Round(time.Millisecond).String(),
					"reconnects", s.Reconnects, "spool_events", sp.Events, "spool_bytes", sp.Bytes)
			}
		}
	}()
	return p.client.Run(ctx)
}

// stats are the producer's figures of now.
func (p *producer) stats() producerStats { return producerStats{p.client.Stats(), p.spool.Stats()} }

// close sends what it can of the spool and leaves the rest for the next start.
func (p *producer) close() error { return p.spool.Close() }

// line is the producer's line of progress.
func (p *producer) line() string {
	s, sp := p.client.Stats(), p.spool.Stats()
	text := fmt.Sprintf("%d events, %.0f/s, lag %s, %d reconnects", s.Events, s.Rate, s.Lag.Round(time.Millisecond), s.Reconnects)
	if !s.Connected {
		text += ", not connected"
	}
	if sp.Events > 0 && (sp.Error != "" || sp.Stalled > time.Second) {
		text += fmt.Sprintf(", %d wait on disk (%s bytes)", sp.Events, thousands(sp.Bytes))
	}
	return text
}

// produced is the result of every producer.
type produced struct {
	Source     string           `json:"source"`
	Topic      string           `json:"topic"`
	Events     int64            `json:"events"`
	Duplicates int64            `json:"duplicates"` // that arrived again and were not sent again
	Ignored    int64            `json:"ignored"`    // of kinds that are not asked for
	Kinds      map[string]int64 `json:"ignored_kinds,omitempty"`
	Malformed  int64            `json:"malformed"`
	Reconnect  int64            `json:"reconnects"`
	Rate       float64          `json:"rate"`
	Lag        float64          `json:"lag_seconds"`
	Dropped    []live.Dropped   `json:"dropped,omitempty"`
	Lost       []live.Lost      `json:"lost,omitempty"`
	Spool      *spool.Stats     `json:"spool,omitempty"` // what still waits
}

// result is the producer's result, of figures from before its end.
func (p *producer) result(s live.Stats) produced {
	sp := p.spool.Stats()
	return produced{
		Source: p.src.Name, Topic: p.src.Topic, Events: s.Events, Duplicates: s.Duplicates, Ignored: s.Ignored, Kinds: s.IgnoredKinds,
		Malformed: s.Malformed, Reconnect: s.Reconnects, Rate: s.Rate, Lag: s.Lag.Seconds(), Dropped: s.Dropped, Lost: s.Lost, Spool: &sp,
	}
}

func (a *app) printProduced(p produced) error {
	return a.print(p, func(w io.Writer) error {
		fmt.Fprintf(w, "%d events sent to %s (%d duplicates, %d ignored, %d malformed, %d reconnects)\n",
			p.Events, p.Topic, p.Duplicates, p.Ignored, p.Malformed, p.Reconnect)
		for _, d := range p.Dropped {
			fmt.Fprintf(w, "dropped for lack of room: %d of %s, %s to %s\n", d.Events, d.Series, d.First, d.Last)
		}
		for _, l := range p.Lost {
			fmt.Fprintf(w, "not delivered: %s to %s (%s)\n", l.From.Format(time.RFC3339), l.To.Format(time.RFC3339), l.Reason)
		}
		if p.Spool != nil && p.Spool.Events > 0 {
			fmt.Fprintf(w, "%d events wait on disk for the topic; the next start sends them\n", p.Spool.Events)
		}
		return nil
	})
}
