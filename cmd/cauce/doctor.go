package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// finding is what one check of the doctor says.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, warning, error
	Detail string `json:"detail"`
}

func newDoctor(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check that lake file, storage, engine, tables, buffer and streams work",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := a.examine(cmd.Context())
			bad := 0
			for _, f := range findings {
				if f.Status == "error" {
					bad++
				}
			}
			err := a.print(struct {
				OK     bool      `json:"ok"`
				Checks []finding `json:"checks"`
			}{bad == 0, findings}, func(w io.Writer) error {
				for _, f := range findings {
					if _, err := fmt.Fprintf(w, "%-8s %-10s %s\n", f.Status, f.Check, f.Detail); err != nil {
						return err
					}
				}
				return nil
			})
			if err == nil && bad > 0 {
				err = &reported{code: exitFailure, msg: count(int64(bad), "check") + " found an error"}
			}
			return err
		},
	}
}

// examine runs the checks in the order in which one rests on another, and ends where nothing further can be said.
func (a *app) examine(ctx context.Context) []finding {
	var out []finding
	say := func(check string, err error, format string, args ...any) bool {
		f := finding{Check: check, Status: "ok", Detail: fmt.Sprintf(format, args...)}
		if err != nil {
			f.Status, f.Detail = "error", err.Error()
		}
		out = append(out, f)
		return err == nil
	}
	warn := func(check, format string, args ...any) {
		out = append(out, finding{check, "warning", fmt.Sprintf(format, args...)})
	}

	def, err := a.loadLake()
	if err != nil {
		say("lake file", err, "")
		return out
	}
	say("lake file", nil, "%s: %s, %s", def.File, count(int64(len(def.Tables)), "table"), count(int64(len(def.Sources)), "source"))
	for _, d := range def.Warnings {
		warn("lake file", "%v", d)
	}
	l, err := a.open(ctx, def)
	if err != nil {
		say("wiring", err, "")
		return out
	}
	defer l.Close()

	took, left, err := probeStore(ctx, l.store)
	did := "wrote, listed, read and deleted"
	if len(left) > 0 {
		did = "wrote, listed and read"
	}
	say("storage", err, "%s: %s an object in %v; of %d writers that raced to create an object one won, %d times", l.Redact(l.Storage),
		did, took.Round(time.Microsecond), raceWriters, raceRounds)
	if len(left) > 0 {
		warn("storage", "this role may not delete, so %s of this check stay behind, %s and those beside it; a role that may delete removes them", count(int64(len(left)), "object"), left[0])
	}
	if p, ok := l.store.(objstore.LocalPather); ok {
		var fs unix.Statfs_t
		dir := p.LocalPath("")
		if err := unix.Statfs(dir, &fs); err == nil {
			free := int64(fs.Bavail) * int64(fs.Bsize)
			if const1GiB := int64(1 << 30); free < const1GiB {
				warn("disk", "%s: only %s bytes are free", dir, thousands(free))
			} else {
				say("disk", nil, "%s: %s bytes free", dir, thousands(free))
			}
		}
	}
	probe := filepath.Join(tempDir(def), "doctor")
	err = os.WriteFile(probe, nil, 0o600)
	if err == nil {
		err = os.Remove(probe)
	}
	say("state", err, "%s can be written", def.StateDir())

	r, err := l.engine.Query(ctx, "SELECT 1 AS one", nil)
	if err == nil {
		var n int64
		n, err = writeRows(io.Discard, formatCSV, r.Schema(), r.Batches(ctx))
		err = errors.Join(err, r.Close())
		if err == nil && n != 1 {
			err = fmt.Errorf("SELECT 1 gave %d rows", n)
		}
	}
	say("engine", err, "DuckDB answers")

	for _, name := range l.ingest.Catalog().Names() {
		t, err := l.ingest.Catalog().Open(ctx, name)
		if errors.Is(err, delta.ErrNotATable) {
			say("table", nil, "%s: nothing written yet", name)
			continue
		}
		if err != nil {
			say("table", err, "")
			continue
		}
		s, err := t.Snapshot(ctx)
		if err != nil {
			say("table", fmt.Errorf("%s: %w", name, err), "")
			continue
		}
		if _, err := l.ingest.Catalog().Difference(name, s); err != nil {
			say("table", err, "")
			continue
		}
		missing, err := missingFiles(ctx, t, s)
		if err == nil && len(missing) > 0 {
			err = fmt.Errorf("%s: version %d names %s that the storage lacks, first %s; cauce table restore can go back to a version that is whole",
				name, s.Version(), count(int64(len(missing)), "file"), missing[0])
		}
		say("table", err, "%s: version %d, %s, all there", name, s.Version(), count(int64(s.NumFiles()), "file"))
	}
	for _, s := range def.Sources {
		if s.Kind != pipeline.KindKafka && s.Kind != pipeline.KindPubSub {
			continue
		}
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		t, err := a.describeTopic(short, s)
		cancel()
		shape := count(int64(t.Partitions), "partition")
		if s.Kind == pipeline.KindPubSub {
			shape = "subscription " + t.Subscription
		}
		if !say("topic", err, "%s: %s, kept %s", s.Topic, shape, t.kept()) {
			continue
		}
		for _, w := range t.Warnings {
			warn("topic", "%s: %s", s.Topic, w)
		}
	}
	for _, s := range def.Sources {
		if s.Kind != pipeline.KindEmbedded {
			continue
		}
		b, err := a.openBuffer(ctx, def)
		if err != nil {
			say("buffer", err, "")
			break
		}
		role := "joined another process"
		if b.Hosting() {
			role = "hosted here"
		}
		topics, err := b.Topics(ctx)
		var names []string
		for _, t := range topics {
			names = append(names, t.Name)
		}
		say("buffer", errors.Join(err, b.Close()), "%s: %s; topics: %s", bufferDir(def), role, list(names))
		break
	}
	read := map[string][]ingest.StreamPlan{}
	for _, s := range def.Sources {
		if !s.Streaming() {
			continue
		}
		streams, err := l.ingest.Streams(ctx, s.Name)
		if err != nil {
			say("stream", err, "")
			continue
		}
		read[s.Name] = streams
	}
	found := a.outlooks(ctx, l, read)
	for _, name := range slices.Sorted(maps.Keys(read)) {
		switch o := found[name]; {
		case o.Stops != "":
			say("stream", fmt.Errorf("a run would stop: %s", o.Stops), "")
		case o.Lag != nil && o.Lag.Error != "": // also a role that may not read the stream
			warn("stream", "%s: whether a run would go on is not known: %s", name, o.Lag.Error)
		case o.Lag != nil:
			say("stream", nil, "%s: a run would go on; %s to read", name, count(o.Lag.Records, "event"))
		default:
			say("stream", nil, "%s: a run would go on", name)
		}
	}
	return out
}

// conditionalPuts says what a store must be able to do.
const conditionalPuts = "the server must honour conditional puts (If-None-Match: * of S3, ifGenerationMatch=0 of Google Cloud Storage)"

// How the doctor's race is run: a store without conditional creates lets two writers win in the first round already.
const (
	raceWriters = 8
	raceRounds  = 5
)

// raceStore lets writers race to create one object, as writers of one version of a table do. A store that lets two of them
// win would let a commit overwrite another: no table may be written there.
// left are objects that could not be deleted.
func raceStore(ctx context.Context, s objstore.Store, key string) (left []string, err error) {
	for round := range raceRounds {
		key := fmt.Sprintf("%s-race-%d", key, round)
		defer func() { left, err = remove(ctx, s, key, left, err) }()
		errs := make([]error, raceWriters)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				<-start
				errs[i] = s.PutIfAbsent(ctx, key, []byte(strconv.Itoa(i)))
			})
		}
		close(start)
		wg.Wait()
		winner, open := -1, false // open: a writer does not know whether it won
		for i, err := range errs {
			switch {
			case errors.Is(err, objstore.ErrAmbiguous):
				open = true
			case err == nil && winner >= 0:
				return nil, fmt.Errorf("UNSAFE: %s let writers %d and %d both create %s: commits of two writers would overwrite each other; no table may be written here; %s", s.URL(), winner, i, key, conditionalPuts)
			case err == nil:
				winner = i
			case !errors.Is(err, objstore.ErrExists):
				return nil, err
			}
		}
		if winner < 0 && open {
			continue
		}
		if winner < 0 {
			return nil, fmt.Errorf("of %d writers none could create %s: %w", raceWriters, key, errors.Join(errs...))
		}
		got, err := s.GetRange(ctx, key, 0, -1)
		if err != nil {
			return nil, err
		}
		if string(got) != strconv.Itoa(winner) {
			return nil, fmt.Errorf("UNSAFE: writer %d created %s, but it holds what writer %s wrote: no table may be written to %s", winner, key, got, s.URL())
		}
	}
	return nil, nil
}

// remove deletes an object of the doctor's, also when ctx has ended. It adds the object to left where the role may not, and other
// errors to err.
func remove(ctx context.Context, s objstore.Store, key string, left []string, err error) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	derr := s.Delete(ctx, key)
	if errors.Is(derr, objstore.ErrDenied) {
		return append(left, key), err
	}
	return left, errors.Join(err, derr)
}

// probeStore does with objects of its own everything that a commit needs, and deletes them; left are those that it may not.
func probeStore(ctx context.Context, s objstore.Store) (took time.Duration, left []string, err error) {
	start := time.Now()
	key := fmt.Sprintf("processed/_progress/.doctor-%d", start.UnixNano())
	if err := s.PutIfAbsent(ctx, key, []byte("cauce")); err != nil {
		return 0, nil, err
	}
	defer func() { left, err = remove(ctx, s, key, left, err) }()
	if err := s.PutIfAbsent(ctx, key, []byte("second")); !errors.Is(err, objstore.ErrExists) {
		return 0, nil, fmt.Errorf("UNSAFE: %s accepted a second create of %s (%w): commits of two writers would overwrite each other; no table may be written here; %s", s.URL(), key, err, conditionalPuts)
	}
	got, err := s.GetRange(ctx, key, 0, -1)
	if err != nil {
		return 0, nil, err
	}
	if string(got) != "cauce" {
		return 0, nil, fmt.Errorf("storage gave %q back for %s", got, key)
	}
	found := false
	for info, err := range s.List(ctx, "processed/_progress/.doctor-", "") {
		if err != nil {
			return 0, nil, err
		}
		found = found || info.Key == key
	}
	if !found {
		return 0, nil, fmt.Errorf("storage does not list %s, which was just written", key)
	}
	if left, err = raceStore(ctx, s, key); err != nil {
		return 0, left, err
	}
	return time.Since(start), left, nil
}

// missingFiles looks for data files and deletion vectors that a snapshot names and the store lacks.
func missingFiles(ctx context.Context, t *delta.Table, s *delta.Snapshot) ([]string, error) {
	there := map[string]bool{}
	prefix := t.Path()
	if prefix != "" {
		prefix += "/"
	}
	for info, err := range t.Store().List(ctx, prefix, "") {
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(info.Key, prefix+"_delta_log/") {
			there[info.Key] = true
		}
	}
	var missing []string
	table := s.TableInfo()
	for _, add := range s.Adds() {
		key, err := table.FileKey(add.Path)
		if err != nil {
			return nil, err
		}
		if !there[key] {
			missing = append(missing, add.Path)
		}
		vector, err := table.VectorKey(add.DeletionVector)
		if err != nil {
			return nil, err
		}
		if vector != "" && !there[vector] {
			missing = append(missing, strings.TrimPrefix(vector, prefix))
		}
	}
	return missing, nil
}
