package main

import (
	"fmt"
	"maps"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/cauce-data/cauce/connect/spool"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/internal/live"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/usage"
)

// metrics are what /metrics shows. deploy/monitoring uses their names; a test compares the two.
type metrics struct {
	registry *prometheus.Registry

	restarts                                                            *prometheus.CounterVec
	read, rows, quarantined, epochs, superseded, gaps                   *prometheus.CounterVec
	lagRecords, lagSeconds, lastCommit                                  *prometheus.GaugeVec
	epochSeconds, phaseSeconds                                          *prometheus.HistogramVec
	commits, filesAdded, filesRemoved, bytesAdded, rebases              *prometheus.CounterVec
	version, files, bytes, partitionFiles                               *prometheus.GaugeVec
	maintenance, maintenanceSeconds, filesCompacted, filesVacuumed      *prometheus.CounterVec
	missing, bufferMessages, bufferBytes                                *prometheus.GaugeVec
	produced, ignored, malformed, reconnects, producing, unacknowledged *prometheus.Desc
	repeated, dropped, producerLag, spooled                             *prometheus.Desc

	serveSessions, serveWaiting, serveWorkersEnded prometheus.Gauge
	serveStatements, serveRefused                  *prometheus.CounterVec
	serveSeconds                                   prometheus.Histogram
}

// secondsBuckets reach from a quick phase to a batch of many files.
var secondsBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cauce_" + name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "cauce_" + name, Help: help}, labels)
		m.registry.MustRegister(g)
		return g
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "cauce_" + name, Help: help, Buckets: secondsBuckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge("build_info", "Always 1; the version of the program stands in the labels.", "version", "goversion").WithLabelValues(version, runtime.Version()).Set(1)

	m.restarts = counter("part_restarts_total", "Times that a part of the process failed and was started again.", "part")

	m.read = counter("source_records_read_total", "Records that commits of a source covered.", "source")
	m.rows = counter("source_rows_total", "What became of the records: inserted, updated, unchanged, quarantined, filtered, deleted.", "source", "outcome")
	m.quarantined = counter("source_quarantined_total", "Records that were put into quarantine, by the rule that they broke.", "source", "rule")
	m.epochs = counter("source_epochs_total", "Commits of a source, by kind: stream, batch, repair, retry, gap …", "source", "kind")
	m.superseded = counter("source_superseded_total", "Epochs that were given up because another run of the source had committed them.", "source")
	m.gaps = counter("source_gaps_total", "Gaps of a source that somebody allowed.", "source")
	m.lagRecords = gauge("source_lag_records", "Records behind the position of the table.", "source", "partition")
	m.lagSeconds = gauge("source_lag_seconds", "Age of the oldest record behind the position of the table; 0 if there is none.", "source")
	m.lastCommit = gauge("source_last_commit_timestamp_seconds", "When a source last made a commit, in Unix time.", "source")
	m.epochSeconds = histogram("epoch_seconds", "Time from the beginning of an epoch to the end of its commit; for streams waiting for records is part of it.", "source")
	m.phaseSeconds = histogram("epoch_phase_seconds", "Time of the phases of an epoch: fetch, read, compute, archive, progress, quarantine, locate, write, commit, confirm, acknowledge.", "source", "phase")

	m.commits = counter("table_commits_total", "Commits that sources made to a table.", "table")
	m.filesAdded = counter("table_files_added_total", "Data files that those commits added.", "table")
	m.filesRemoved = counter("table_files_removed_total", "Data files that those commits removed.", "table")
	m.bytesAdded = counter("table_bytes_added_total", "Bytes of the data files that those commits added.", "table")
	m.rebases = counter("table_rebases_total", "Times that a commit met a faster writer and was resolved against it.", "table")
	m.version = gauge("table_version", "Version of a table.", "table")
	m.files = gauge("table_files", "Data files of a table.", "table")
	m.bytes = gauge("table_bytes", "Bytes of the data files of a table.", "table")
	m.partitionFiles = gauge("table_partition_files_max", "Data files of the partition that has most.", "table")

	m.maintenance = counter("maintenance_runs_total", "Times that maintenance looked at a table; result is ok or failed.", "table", "result")
	m.maintenanceSeconds = counter("maintenance_seconds_total", "Time that maintenance took.", "table")
	m.filesCompacted = counter("maintenance_files_compacted_total", "Small files that were rewritten into larger ones.", "table")
	m.filesVacuumed = counter("maintenance_files_vacuumed_total", "Files that no version needs and that were deleted.", "table")
	m.missing = gauge("ledger_missing", "Ids that a table lacks, by the last look of the ledger.", "table")
	m.bufferMessages = gauge("buffer_messages", "Messages that the embedded buffer keeps.", "topic")
	m.bufferBytes = gauge("buffer_bytes", "Bytes that the embedded buffer keeps.", "topic")

	m.serveSessions = gauge("serve_sessions", "Sessions of clients that ask SQL.").WithLabelValues()
	m.serveWaiting = gauge("serve_statements_waiting", "Statements that wait for a worker.").WithLabelValues()
	m.serveWorkersEnded = gauge("serve_workers_ended", "Worker processes that were killed for a limit or ended by themselves, and were replaced.").WithLabelValues()
	m.serveStatements = counter("serve_statements_total", "Statements of clients, by SQLSTATE; 00000 is success.", "code")
	m.serveRefused = counter("serve_refused_total", "Connections that were refused: password, role, sessions, encryption.", "reason")
	m.serveSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "cauce_serve_statement_seconds", Help: "Time from a statement to its last row.", Buckets: secondsBuckets})
	m.registry.MustRegister(m.serveSeconds)

	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("cauce_producer_"+name, help, append([]string{"source"}, labels...), nil)
	}
	m.produced = desc("events_total", "Events that a producer has sent.")
	m.ignored = desc("ignored_total", "Events of kinds that nobody asked for.", "kind")
	m.malformed = desc("malformed_total", "Frames that could not be read.")
	m.reconnects = desc("reconnects_total", "Connections to the source after the first.")
	m.producing = desc("connected", "1 if the producer is connected to its source.")
	m.unacknowledged = desc("unacknowledged", "Events that wait for the acknowledgement of the stream.")
	m.repeated = desc("duplicates_total", "Events that came again and were not sent again.")
	m.dropped = desc("dropped_total", "Events that came and were not taken, for lack of room on disk.")
	m.producerLag = desc("lag_seconds", "Time between the last event and its arrival.")
	m.spooled = desc("spool_bytes", "Bytes of events that wait on disk for the stream.")
	return m
}

// outcomes are what becomes of records, in the order of ingest.Counts.
var outcomes = [...]string{"inserted", "updated", "unchanged", "quarantined", "filtered", "deleted"}

// Results of maintenance.
const (
	maintainedOK     = "ok"
	maintainedFailed = "failed"
)

// epoch takes a commit of a source into the metrics.
func (m *metrics) epoch(r ingest.EpochReport) {
	m.read.WithLabelValues(r.Source).Add(float64(r.RowsRead))
	for i, n := range []int64{r.RowsInserted, r.RowsUpdated, r.RowsUnchanged, r.RowsQuarantined, r.RowsFiltered, r.RowsDeleted} {
		m.rows.WithLabelValues(r.Source, outcomes[i]).Add(float64(n))
	}
	for rule, n := range r.Rules {
		m.quarantined.WithLabelValues(r.Source, rule).Add(float64(n))
	}
	m.epochs.WithLabelValues(r.Source, r.Kind).Inc()
	if r.Kind == ingest.KindGap {
		m.gaps.WithLabelValues(r.Source).Inc()
	}
	m.lastCommit.WithLabelValues(r.Source).SetToCurrentTime()
	m.epochSeconds.WithLabelValues(r.Source).Observe(r.Seconds)
	for phase, s := range r.Phases {
		m.phaseSeconds.WithLabelValues(r.Source, phase).Observe(s)
	}
	m.committed(r.Table, r.FilesAdded, r.FilesRemoved, r.BytesAdded, r.Rebases)
}

// committed takes a commit to a table into the metrics.
func (m *metrics) committed(table string, filesAdded, filesRemoved int, bytesAdded int64, rebases int) {
	m.commits.WithLabelValues(table).Inc()
	m.filesAdded.WithLabelValues(table).Add(float64(filesAdded))
	m.filesRemoved.WithLabelValues(table).Add(float64(filesRemoved))
	m.bytesAdded.WithLabelValues(table).Add(float64(bytesAdded))
	m.rebases.WithLabelValues(table).Add(float64(rebases))
}

func (m *metrics) lag(source string, b ingest.Backlog) {
	for p, n := range b.Records {
		m.lagRecords.WithLabelValues(source, strconv.Itoa(int(p))).Set(float64(n))
	}
	m.lagSeconds.WithLabelValues(source).Set(b.Age(time.Now()).Seconds())
}

func (m *metrics) size(table string, s *ingest.TableSize) {
	m.version.WithLabelValues(table).Set(float64(s.Version))
	m.files.WithLabelValues(table).Set(float64(s.Files))
	m.bytes.WithLabelValues(table).Set(float64(s.Bytes))
	m.partitionFiles.WithLabelValues(table).Set(float64(s.PartitionFilesMax))
}

func (m *metrics) maintained(table string, t ingest.TableMaintenance, took time.Duration, err error) {
	result := maintainedOK
	if err != nil {
		result = maintainedFailed
	}
	m.maintenance.WithLabelValues(table, result).Inc()
	m.maintenanceSeconds.WithLabelValues(table).Add(took.Seconds())
	m.filesCompacted.WithLabelValues(table).Add(float64(t.FilesRemoved))
	m.filesVacuumed.WithLabelValues(table).Add(float64(t.FilesVacuumed))
}

// producerStats is what a producer tells of itself when it is asked.
type producerStats struct {
	live.Stats
	Spool spool.Stats
}

// why tells why a producer is not ready; "": it is.
func (s producerStats) why() string {
	switch {
	case s.Connected:
		return ""
	case s.Last.IsZero():
		return "it has not connected yet"
	}
	return fmt.Sprintf("it is not connected; the last event came %s ago", time.Since(s.Last).Round(time.Second))
}

// producers gives what the producers of a monitor tell as metrics.
type producers struct{ m *monitor }

// Describe implements prometheus.Collector.
func (c producers) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.m.produced, c.m.ignored, c.m.malformed, c.m.reconnects, c.m.producing, c.m.unacknowledged, c.m.repeated, c.m.dropped, c.m.producerLag, c.m.spooled} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c producers) Collect(ch chan<- prometheus.Metric) {
	c.m.mu.Lock()
	all := maps.Clone(c.m.producers)
	c.m.mu.Unlock()
	for source, stats := range all {
		s := stats()
		tell := func(d *prometheus.Desc, kind prometheus.ValueType, v int64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, kind, float64(v), append([]string{source}, labels...)...)
		}
		tell(c.m.produced, prometheus.CounterValue, s.Events)
		tell(c.m.malformed, prometheus.CounterValue, s.Malformed)
		tell(c.m.reconnects, prometheus.CounterValue, s.Reconnects)
		for kind, n := range s.IgnoredKinds {
			tell(c.m.ignored, prometheus.CounterValue, n, kind)
		}
		tell(c.m.repeated, prometheus.CounterValue, s.Duplicates)
		dropped := int64(0)
		for _, d := range s.Dropped {
			dropped += d.Events
		}
		tell(c.m.dropped, prometheus.CounterValue, dropped)
		tell(c.m.unacknowledged, prometheus.GaugeValue, s.Spool.Events)
		tell(c.m.spooled, prometheus.GaugeValue, s.Spool.Bytes)
		ch <- prometheus.MustNewConstMetric(c.m.producerLag, prometheus.GaugeValue, s.Lag.Seconds(), source)
		connected := int64(0)
		if s.Connected {
			connected = 1
		}
		tell(c.m.producing, prometheus.GaugeValue, connected)
	}
}

// requestMetrics gives what a store asked of its server, by kind, as metrics.
type requestMetrics struct{ store objstore.Store }

var (
	storeRequests = prometheus.NewDesc("cauce_store_requests_total", "Requests to the bucket, by kind: get, head, put, list, delete, commit. Pages, parts and repetitions count.", []string{"kind"}, nil)
	storeFailed   = prometheus.NewDesc("cauce_store_failed_requests_total", "Those of the requests that had no answer, or one of 429 and 5xx.", []string{"kind"}, nil)
	storeBytes    = prometheus.NewDesc("cauce_store_bytes_total", "Bytes of bodies: sent by puts, received by all others.", []string{"kind"}, nil)
)

// countRequests serves what a store asks of its server; one that asks nothing of any has no such metrics.
func (m *monitor) countRequests(store objstore.Store) {
	if m != nil && usage.Of(store) != nil {
		m.registry.MustRegister(requestMetrics{store})
	}
}

// Describe implements prometheus.Collector.
func (requestMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- storeRequests
	ch <- storeFailed
	ch <- storeBytes
}

// Collect implements prometheus.Collector.
func (r requestMetrics) Collect(ch chan<- prometheus.Metric) {
	for kind, n := range usage.Of(r.store) {
		for desc, v := range map[*prometheus.Desc]int64{storeRequests: n.Requests, storeFailed: n.Failed, storeBytes: n.Bytes} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(v), string(kind))
		}
	}
}
