package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

// How often the monitor looks at what nobody tells it.
const (
	lagEvery  = 5 * time.Second
	sizeEvery = 10 * time.Second
)

// monitor serves what monitoring systems ask for: /metrics, /healthz and /readyz. A nil monitor is one that nobody wants:
// all its methods do nothing.
type monitor struct {
	*metrics
	log   *slog.Logger
	http  *http.Server
	addr  net.Addr
	alive context.Context // ends with Close
	stop  context.CancelFunc
	work  sync.WaitGroup

	mu        sync.Mutex
	parts     map[string]*part
	positions map[string]map[int32]ingest.Position // where the table stands, by source
	producers map[string]func() producerStats      // by source
}

// part is one thing that this process does without end.
type part struct {
	why   string // why it is not ready; "": it is
	since time.Time
	check func() string // asked instead of why, if not nil
}

// starting is why a part is not ready before it told anything.
const starting = "it is starting"

// monitor begins to listen on an address; "" is none, and gives nil. Close it.
func (a *app) monitor(listen string) (*monitor, error) {
	if listen == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, usagef("metrics: %s: %w", listen, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &monitor{
		metrics: newMetrics(), log: a.logger(), addr: l.Addr(), alive: ctx, stop: stop,
		parts: map[string]*part{}, positions: map[string]map[int32]ingest.Position{},
		producers: map[string]func() producerStats{},
	}
	m.registry.MustRegister(readiness{m}, producers{m})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelWarn)}))
	started := time.Now()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"status": "ok", "version": version, "seconds": time.Since(started).Seconds()})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := m.ready()
		code := http.StatusOK
		if !r.Ready {
			code = http.StatusServiceUnavailable
		}
		writeJSON(w, code, r)
	})
	if addr, ok := l.Addr().(*net.TCPAddr); ok && addr.IP.IsLoopback() {
		// Profiles tell more than others should see.
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	m.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	m.work.Go(func() {
		if err := m.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			m.log.Error("metrics are no longer served", "error", err)
		}
	})
	m.log.Info("metrics are served", "address", "http://"+l.Addr().String()+"/metrics")
	return m, nil
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // a client that has gone misses nothing
}

// Close ends the server and the looking.
func (m *monitor) Close() {
	if m == nil {
		return
	}
	m.stop()
	_ = m.http.Close()
	m.work.Wait()
}

// begin says that a part has been started and is not ready yet. check, if not nil, tells from then on why it is not; "": it is.
func (m *monitor) begin(name string, check func() string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restarts.WithLabelValues(name)
	m.parts[name] = &part{why: starting, since: time.Now(), check: check}
}

// report says that a part works, or why it does not.
func (m *monitor) report(name string, err error) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.parts[name]
	if p == nil {
		p = &part{}
		m.parts[name] = p
	}
	why := ""
	if err != nil {
		why = err.Error()
	}
	if (p.why == "") != (why == "") || p.since.IsZero() {
		p.since = time.Now()
	}
	p.why = why
}

// restarted counts a part that failed and is started again.
func (m *monitor) restarted(name string, err error) {
	if m == nil {
		return
	}
	m.restarts.WithLabelValues(name).Inc()
	m.report(name, err)
}

// A readyReport is the answer of /readyz.
type readyReport struct {
	Ready bool        `json:"ready"`
	Parts []readyPart `json:"parts"`
}

type readyPart struct {
	Name  string    `json:"name"`
	Ready bool      `json:"ready"`
	Why   string    `json:"why,omitempty"`
	Since time.Time `json:"since"` // that it is, or is not, ready
}

func (m *monitor) ready() readyReport {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := readyReport{Ready: true, Parts: []readyPart{}}
	for name, p := range m.parts {
		why := p.why
		if p.check != nil {
			if why = p.check(); (why == "") != (p.why == "") {
				p.since = time.Now()
			}
			p.why = why
		}
		r.Ready = r.Ready && why == ""
		r.Parts = append(r.Parts, readyPart{Name: name, Ready: why == "", Why: why, Since: p.since.UTC()})
	}
	slices.SortFunc(r.Parts, func(a, b readyPart) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return r
}

// readiness gives the parts of a monitor as metrics.
type readiness struct{ m *monitor }

var partReady = prometheus.NewDesc("cauce_part_ready", "1 if a part of the process (a stream, a producer …) works, as /readyz says.", []string{"part"}, nil)

func (r readiness) Describe(ch chan<- *prometheus.Desc) { ch <- partReady }

func (r readiness) Collect(ch chan<- prometheus.Metric) {
	for _, p := range r.m.ready().Parts {
		v := 0.0
		if p.Ready {
			v = 1
		}
		ch <- prometheus.MustNewConstMetric(partReady, prometheus.GaugeValue, v, p.Name)
	}
}

func streamPart(source string) string { return "stream " + source }

// observer tells the monitor what the lake does.
func (m *monitor) observer() ingest.Observer {
	if m == nil {
		return ingest.Observer{}
	}
	return ingest.Observer{
		Epoch: m.epoch,
		Quarantined: func(r delta.MergeResult) {
			m.committed(catalog.Quarantine, r.FilesAdded, r.FilesRemoved, r.BytesAdded, r.Rebases)
		},
		Positions: func(source string, pos []ingest.PositionMark) {
			m.report(streamPart(source), nil)
			m.mu.Lock()
			defer m.mu.Unlock()
			at := map[int32]ingest.Position{}
			for _, p := range pos {
				at[p.Partition] = ingest.Position{Offset: p.Offset, Time: p.Time}
			}
			m.positions[source] = at
		},
		Superseded: func(source string) { m.superseded.WithLabelValues(source).Inc() },
		Maintained: m.maintained,
	}
}

// every calls look at once and then from time to time, until the monitor is closed or ctx ends.
func (m *monitor) every(ctx context.Context, pause time.Duration, look func(ctx context.Context)) {
	m.work.Go(func() {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(m.alive, cancel)()
		for {
			look(ctx)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	})
}

// watchStream looks how far the table is behind a stream's end. What it cannot see makes the stream not ready: it cannot
// be read either.
func (m *monitor) watchStream(ctx context.Context, st *streams, src *pipeline.Source) {
	if m == nil {
		return
	}
	// What counts up must be seen at 0 first: Prometheus takes no notice of the first value of a series.
	m.gaps.WithLabelValues(src.Name)
	m.superseded.WithLabelValues(src.Name)
	m.read.WithLabelValues(src.Name)
	for _, outcome := range outcomes {
		m.rows.WithLabelValues(src.Name, outcome)
	}
	topic := "topic " + src.Topic
	var in ingest.Source
	m.every(ctx, lagEvery, func(ctx context.Context) {
		m.mu.Lock()
		pos, reading := m.positions[src.Name]
		m.mu.Unlock()
		if !reading {
			return
		}
		var err error
		if in == nil {
			if in, err = st.source(ctx, src); err != nil {
				m.report(topic, err)
				return
			}
			context.AfterFunc(ctx, func() { _ = in.Close() })
		}
		lagging, ok := in.(ingest.Lagging)
		if !ok {
			return
		}
		b, err := lagging.Backlog(ctx, pos)
		if ctx.Err() != nil {
			return
		}
		m.report(topic, err)
		if err == nil {
			m.lag(src.Name, b)
		}
	})
}

// watchBuffer looks how much the embedded buffer keeps.
func (m *monitor) watchBuffer(ctx context.Context, st *streams) {
	if m == nil {
		return
	}
	m.every(ctx, lagEvery, func(ctx context.Context) {
		b, err := st.buffer(ctx)
		if err == nil {
			topics, terr := b.Topics(ctx)
			for _, t := range topics {
				m.bufferMessages.WithLabelValues(t.Name).Set(float64(t.Messages))
				m.bufferBytes.WithLabelValues(t.Name).Set(float64(t.Bytes))
			}
			err = terr
		}
		if ctx.Err() == nil {
			m.report("buffer", err)
		}
	})
}

// watchTables looks how large the lake's tables are.
func (m *monitor) watchTables(ctx context.Context, l *lake) {
	if m == nil {
		return
	}
	for _, name := range l.ingest.Catalog().Names() {
		for _, of := range []*prometheus.CounterVec{m.commits, m.filesAdded, m.filesRemoved, m.bytesAdded, m.rebases} {
			of.WithLabelValues(name)
		}
		for _, result := range []string{maintainedOK, maintainedFailed} {
			m.maintenance.WithLabelValues(name, result)
		}
	}
	m.every(ctx, sizeEvery, func(ctx context.Context) {
		for _, name := range l.ingest.Catalog().Names() {
			s, err := l.ingest.Size(ctx, name)
			if ctx.Err() != nil {
				return
			}
			m.report("table "+name, err)
			if err == nil && s != nil {
				m.size(name, s)
			}
		}
	})
}

// repaired says that the repair of a source works, and what its table lacks.
func (m *monitor) repaired(src *pipeline.Source, g *ingest.GapsReport) {
	if m == nil {
		return
	}
	m.report("repair "+src.Name, nil)
	m.missing.WithLabelValues(src.Table).Set(float64(g.Missing))
}

// produce shows a producer of a source among the metrics and the parts, in the place of one that has ended.
func (m *monitor) produce(source string, stats func() producerStats) {
	if m == nil {
		return
	}
	m.begin("producer "+source, func() string { return stats().why() })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.producers[source] = stats
}

// metricsListen is the help of the flag that names the monitor's address.
const metricsListen = "serve /metrics, /healthz and /readyz on this `address`, such as 127.0.0.1:9464 (default: nothing is served)"
