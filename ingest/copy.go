package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// CopyOptions narrow a copy.
type CopyOptions struct {
	// OnFile is told of each object that was copied, by several goroutines at once; nil: nobody listens.
	OnFile func(key string, bytes int64)
}

// CopyReport says what a copy did.
type CopyReport struct {
	From        string                `json:"from"`
	To          string                `json:"to"`
	FilesCopied int                   `json:"files_copied"`
	FilesThere  int                   `json:"files_there"` // copied by an earlier run
	BytesCopied int64                 `json:"bytes_copied"`
	Tables      map[string]*CopyTable `json:"tables"` // by path below the root
	Seconds     float64               `json:"seconds"`
}

// CopyTable is a table that stands at the new root as it stood at the old one.
type CopyTable struct {
	Version delta.Version `json:"version"`
	Files   int           `json:"files"`
	Hash    string        `json:"hash"` // rows:sum over every column, equal on both sides
}

const copiesAtOnce = 8

// momentTriesMax bounds how often versions are looked at until they are those of one moment.
const momentTriesMax = 100

// Names in a table's log that belong to a version, and those that are written once.
var (
	logVersion  = regexp.MustCompile(`^(\d{20})\.`)
	writtenOnce = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
)

// copying is one run of Copy.
type copying struct {
	l        *Lake
	to       objstore.Store
	o        CopyOptions
	versions map[string]delta.Version // by the table's path
	there    map[string]objstore.Info // what the target holds

	mu     sync.Mutex
	report *CopyReport
}

// Copy takes everything below the lake's root to another one: landed files, tables with their logs, quarantine and
// progress, so that runs go on there from where they stood. Tables are copied as of the version at the beginning, data
// before log and the log in order, so that what stands at the target is a table at any time, and a run that was stopped
// goes on where it was. Then the rows of every table are read on both sides and their hashes compared.
//
// A target that has gone on by itself is refused. Objects of the target that the source lacks stay.
func (l *Lake) Copy(ctx context.Context, to objstore.Store, o CopyOptions) (*CopyReport, error) {
	start := l.clock()
	c := &copying{
		l: l, to: to, o: o, versions: map[string]delta.Version{}, there: map[string]objstore.Info{},
		report: &CopyReport{From: l.store.URL(), To: to.URL(), Tables: map[string]*CopyTable{}},
	}
	from, target := strings.TrimSuffix(l.store.URL(), "/")+"/", strings.TrimSuffix(to.URL(), "/")+"/"
	if strings.HasPrefix(target, from) || strings.HasPrefix(from, target) {
		return nil, &UsageError{Msg: fmt.Sprintf("copy from %s to %s: one lies in the other", l.store.URL(), to.URL())}
	}
	logs, others, err := c.list(ctx)
	if err != nil {
		return nil, err
	}
	for info, err := range to.List(ctx, "", "") {
		if err != nil {
			return nil, fmt.Errorf("copy to %s: %w", to.URL(), err)
		}
		c.there[info.Key] = info
	}
	for table := range c.versions {
		if err := c.sameHistory(ctx, table); err != nil {
			return nil, err
		}
	}
	// Progress and data first: whatever a log entry names is there before it.
	if err := c.all(ctx, others); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, keys := range logs {
		g.Go(func() error {
			for _, key := range keys {
				if err := c.one(gctx, key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for table, v := range c.versions {
		if err := c.verify(ctx, table, v); err != nil {
			return nil, err
		}
	}
	c.report.Seconds = l.clock().Sub(start).Seconds()
	return c.report, nil
}

// list finds what is to be copied: the log of each table up to its version of now, in an order in which it can be
// written, and everything else.
func (c *copying) list(ctx context.Context) (logs map[string][]string, others []string, err error) {
	// Versions are fixed before the listing: what their commits name is then listed.
	for info, err := range c.l.store.List(ctx, "", "") {
		if err != nil {
			return nil, nil, fmt.Errorf("copy from %s: %w", c.l.store.URL(), err)
		}
		table, name, ok := inLog(info.Key)
		if !ok {
			continue
		}
		if v, ok := versionOf(name); ok && strings.HasSuffix(name, ".json") && (c.versions[table] < v || c.versions[table] == 0) {
			c.versions[table] = v
		}
	}
	if err := c.oneMoment(ctx); err != nil {
		return nil, nil, fmt.Errorf("copy from %s: %w", c.l.store.URL(), err)
	}
	logs = map[string][]string{}
	for info, err := range c.l.store.List(ctx, "", "") {
		if err != nil {
			return nil, nil, fmt.Errorf("copy from %s: %w", c.l.store.URL(), err)
		}
		table, name, ok := inLog(info.Key)
		last, known := c.versions[table]
		switch v, versioned := versionOf(name); {
		case !ok, strings.HasPrefix(name, "_sidecars/"):
			others = append(others, info.Key)
		case !known || versioned && v > last || strings.Contains(name, ".tmp"):
			// A version that came meanwhile: the next run takes it.
		case name == "_last_checkpoint":
			// A hint, which may name a checkpoint that is not copied. Readers go without.
		default:
			logs[table] = append(logs[table], info.Key)
		}
	}
	for _, keys := range logs {
		// By version; commits before the checkpoints and checksums that rest on them.
		slices.SortFunc(keys, func(a, b string) int {
			rank := func(k string) string {
				name := path.Base(k)
				v, _ := versionOf(name)
				if name == fmt.Sprintf("%020d.json", v) {
					return name[:20] + " "
				}
				return name
			}
			return strings.Compare(rank(a), rank(b))
		})
	}
	return logs, others, nil
}

// oneMoment moves the versions on until all tables have them at once. A run brings what it refuses to quarantine before it commits,
// and a retry marks it as resolved afterwards: between versions of two moments a record could be lost.
func (c *copying) oneMoment(ctx context.Context) error {
	for _, name := range c.l.catalog.Names() {
		table, err := c.l.catalog.Path(name)
		if err != nil {
			return err
		}
		if _, ok := c.versions[table]; !ok {
			c.versions[table] = -1 // it may come meanwhile
		}
	}
	defer maps.DeleteFunc(c.versions, func(_ string, v delta.Version) bool { return v < 0 })
	for range momentTriesMax {
		moved := false
		for table, v := range c.versions {
			last, err := c.newest(ctx, table, v)
			if err != nil {
				return err
			}
			if last != v {
				c.versions[table], moved = last, true
			}
		}
		if !moved {
			return nil
		}
	}
	return errors.New("the tables are committed to faster than one can look at them; copy when less is written")
}

// newest is the newest version of a table, which had one already, or -1.
func (c *copying) newest(ctx context.Context, table string, v delta.Version) (delta.Version, error) {
	log, after := table+"/_delta_log/", ""
	if v >= 0 {
		after = fmt.Sprintf("%s%020d.json", log, v)
	}
	for info, err := range c.l.store.List(ctx, log, after) {
		if err != nil {
			return v, err
		}
		n, ok := versionOf(strings.TrimPrefix(info.Key, log))
		if !ok {
			break // names of versions come first
		}
		if strings.HasSuffix(info.Key, ".json") {
			v = max(v, n)
		}
	}
	return v, nil
}

// inLog takes a key of a table's log apart.
func inLog(key string) (table, name string, ok bool) {
	table, name, ok = strings.Cut(key, "/_delta_log/")
	return table, name, ok
}

func versionOf(name string) (delta.Version, bool) {
	m := logVersion.FindStringSubmatch(name)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	return delta.Version(n), err == nil
}

// sameHistory refuses a target whose table is another one, or has commits that the source lacks.
func (c *copying) sameHistory(ctx context.Context, table string) error {
	last := delta.Version(-1)
	for key := range c.there {
		if t, name, ok := inLog(key); ok && t == table {
			if v, ok := versionOf(name); ok && strings.HasSuffix(name, ".json") {
				last = max(last, v)
			}
		}
	}
	if last < 0 {
		return nil
	}
	if last > c.versions[table] {
		return &UsageError{Msg: fmt.Sprintf("copy: the table %s at %s has version %d, and at %s only %d: it has gone on there by itself; copy to another place",
			table, c.to.URL(), last, c.l.store.URL(), c.versions[table])}
	}
	key := fmt.Sprintf("%s/_delta_log/%020d.json", table, last)
	ours, err := readAll(ctx, c.l.store, key)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil // log cleanup has removed it; the hashes tell
	}
	if err != nil {
		return err
	}
	theirs, err := readAll(ctx, c.to, key)
	if err != nil {
		return err
	}
	if string(ours) != string(theirs) {
		return &UsageError{Msg: fmt.Sprintf("copy: version %d of the table %s is another at %s than at %s; copy to another place", last, table, c.to.URL(), c.l.store.URL())}
	}
	return nil
}

// all copies objects whose order does not matter.
func (c *copying) all(ctx context.Context, keys []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copiesAtOnce)
	for _, key := range keys {
		g.Go(func() error { return c.one(ctx, key) })
	}
	return g.Wait()
}

// one copies an object, unless it is there.
func (c *copying) one(ctx context.Context, key string) error {
	had, there := c.there[key]
	if there {
		same, err := c.same(ctx, key, had)
		if err != nil {
			return err
		}
		if same {
			c.mu.Lock()
			c.report.FilesThere++
			c.mu.Unlock()
			return nil
		}
	}
	r, info, err := c.l.store.Get(ctx, key)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil // VACUUM or a summary of progress came first; if a table needs it, its hash tells
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if err := c.to.Put(ctx, key, r, objstore.PutOptions{ModTime: info.ModTime}); err != nil {
		return fmt.Errorf("copy to %s: %w", c.to.URL(), err)
	}
	c.mu.Lock()
	c.report.FilesCopied++
	c.report.BytesCopied += info.Size
	c.mu.Unlock()
	if c.o.OnFile != nil {
		c.o.OnFile(key, info.Size)
	}
	return nil
}

// same tells whether the target holds an object already: by name and size where a name is written once, as those of tables
// and progress are that have an id in them, else by its time of modification too, which a copy keeps.
func (c *copying) same(ctx context.Context, key string, had objstore.Info) (bool, error) {
	info, err := c.l.store.Stat(ctx, key)
	if err != nil || info.Size != had.Size {
		return false, ignoreMissing(err)
	}
	if _, name, ok := inLog(key); ok && logVersion.MatchString(name) || c.ours(key) && writtenOnce.MatchString(path.Base(key)) {
		return true, nil
	}
	own, err := c.to.Stat(ctx, key)
	if err != nil {
		return false, ignoreMissing(err)
	}
	return sameTime(info.ModTime, own.ModTime), nil
}

// ours tells whether an object is a table's or progress, which Cauce names. Files of history have the names that others gave them.
func (c *copying) ours(key string) bool {
	if strings.HasPrefix(key, ProgressPath+"/") {
		return true
	}
	for table := range c.versions {
		if strings.HasPrefix(key, table+"/") {
			return true
		}
	}
	return false
}

func ignoreMissing(err error) error {
	if errors.Is(err, objstore.ErrNotFound) {
		return nil
	}
	return err
}

// verify compares every row of a table.
func (c *copying) verify(ctx context.Context, table string, v delta.Version) error {
	var hashes [2]string
	var snaps [2]*delta.Snapshot
	g, gctx := errgroup.WithContext(ctx)
	for i, store := range []objstore.Store{c.l.store, c.to} {
		g.Go(func() error {
			t, err := delta.Open(gctx, store, table, nil)
			if err != nil {
				return err
			}
			if snaps[i], err = t.SnapshotAt(gctx, v); err != nil {
				return fmt.Errorf("table %s at %s: %w", table, store.URL(), err)
			}
			if hashes[i], err = delta.LogicalHash(gctx, t, snaps[i]); err != nil {
				return fmt.Errorf("table %s at %s: %w", table, store.URL(), err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if hashes[0] != hashes[1] {
		return fmt.Errorf("copy: table %s version %d has the hash %s at %s and %s at %s: run the copy again; the source is unchanged",
			table, v, hashes[0], c.l.store.URL(), hashes[1], c.to.URL())
	}
	c.report.Tables[table] = &CopyTable{Version: v, Files: snaps[1].NumFiles(), Hash: hashes[1]}
	return nil
}
