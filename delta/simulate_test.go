package delta

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
)

// The simulation: writers work side by side on one table over a store that fails, as a seed says. One of them runs at a
// time; it hands on whenever it looks at the log, writes it, or ends a phase, and the seed says to whom. Time passes
// only when the simulation lets it. A seed reruns the same history, but for what the parts of one operation do beside each
// other (the columns of a checkpoint are read in parallel, and an injected fault may hit either first).
//
// Afterwards the log is replayed in order against a model of the table (a map of rows), commit by commit: whatever the
// writers were told, each of their operations must be there at most once, those that were acknowledged exactly once,
// and each version must have the rows that the operations in that order give.

// simRow is a row of the simulated table; the greatest Seq of an ID stays.
type simRow struct {
	ID, Day string
	Seq     int64
}

// simConfig is what a failure is shrunk by.
type simConfig struct {
	seed    uint64
	writers int
	steps   int // operations of each writer
	faults  bool
}

func (c simConfig) String() string {
	return fmt.Sprintf("seed %d, %d writers, %d operations each, faults %v", c.seed, c.writers, c.steps, c.faults)
}

// simOp is one operation of a writer, tried until it is known to be done.
type simOp struct {
	name    string // "w1/3"
	kind    string
	rows    []simRow
	ids     []string
	day     string  // of a statement's condition
	below   int64   // of a statement's condition: seq is less
	target  Version // of a restore; below 0: not drawn yet
	tune    OptimizeOptions
	acked   int     // times that success was reported
	version Version // that it reported; -1: no change was needed
}

type sim struct {
	cfg     simConfig
	rng     *rand.Rand
	mem     *objstore.Memory
	now     time.Time
	ops     map[string]*simOp
	trace   []string
	events  chan *simWriter
	start   Version // of the present round: a restore goes no further back
	seq     int64
	gen     int
	tracked bool // the table has row tracking, in-commit timestamps and a change feed
	failed  error
	crashes int
	injured int

	packings, yielded int // commits of OPTIMIZE, groups it gave up
}

type simWriter struct {
	sim    *sim
	name   string
	rng    *rand.Rand
	resume chan struct{}
	ops    []*simOp
	store  *simStore
	tab    *Table
	done   bool
	ids    int
	reads  map[string]int // by key, over all of its processes
}

func (s *sim) log(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

func (s *sim) fail(format string, args ...any) {
	if s.failed == nil {
		s.failed = fmt.Errorf(format, args...)
	}
}

// yield lets another writer go on.
func (w *simWriter) yield() {
	w.sim.events <- w
	<-w.resume
}

// simStore is one process's view of the store.
type simStore struct {
	objstore.Store
	w       *simWriter
	crashed bool
	calls   int
	crashAt int  // 0: never
	stale   bool // the last listing was; the next is not

	mu sync.Mutex // reads may come side by side
}

var (
	errSimCrash = errors.New("the process has died")
	errSimFault = errors.New("the store failed")
)

// step is called before each call that one goroutine of the writer makes: here the others may come in.
func (s *simStore) step(what string) error {
	if s.crashed {
		return errSimCrash
	}
	s.calls++
	took := time.Duration(s.w.rng.IntN(20)) * time.Millisecond
	if s.w.sim.cfg.faults && s.w.rng.IntN(100) == 0 {
		took = time.Duration(s.w.rng.IntN(60)) * time.Second // a slow store
	}
	s.w.sim.now = s.w.sim.now.Add(took)
	if s.crashAt > 0 && s.calls >= s.crashAt {
		s.crashed = true
		s.w.sim.crashes++
		s.w.sim.log("%s dies before %s", s.w.name, what)
		return errSimCrash
	}
	return nil
}

// roll draws a fault: one in n.
func (s *simStore) roll(n int) bool {
	hit := s.w.sim.cfg.faults && s.w.rng.IntN(n) == 0
	if hit {
		s.w.sim.injured++
	}
	return hit
}

func (s *simStore) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		s.w.yield()
		if err := s.step("list"); err != nil || s.roll(60) {
			yield(objstore.Info{}, errors.Join(err, errSimFault))
			return
		}
		var all []objstore.Info
		for info, err := range s.Store.List(ctx, prefix, startAfter) {
			if err != nil {
				yield(info, err)
				return
			}
			all = append(all, info)
		}
		n := len(all) - 1
		s.stale = !s.stale && n > 0 && strings.Contains(prefix, "_delta_log") && !strings.HasSuffix(all[n].Key, "/00000000000000000000.json") && s.roll(30)
		if s.stale {
			all = all[:n] // a listing that has not seen the newest object; the first commit is older than any writer
		}
		for _, info := range all {
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (s *simStore) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	s.w.yield()
	if err := s.step("commit"); err != nil {
		return err
	}
	lost := fmt.Errorf("%w: %w", errSimFault, objstore.ErrAmbiguous)
	if s.roll(25) {
		return lost // the request never arrived
	}
	err := s.Store.PutIfAbsent(ctx, key, data)
	s.w.sim.log("%s puts %s: %v", s.w.name, key[strings.LastIndex(key, "/")+1:], err)
	if err == nil && s.roll(12) {
		if s.w.rng.IntN(3) == 0 {
			s.crashed = true
			s.w.sim.crashes++
			s.w.sim.log("%s dies after its commit", s.w.name)
			return errSimCrash
		}
		return lost // the answer got lost
	}
	s.w.yield()
	return err
}

func (s *simStore) Put(ctx context.Context, key string, r io.Reader, o objstore.PutOptions) error {
	if err := s.step("put"); err != nil {
		return err
	}
	switch {
	case s.roll(60):
		return errSimFault
	case s.roll(60): // torn
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := s.Store.Put(ctx, key, strings.NewReader(string(data[:len(data)/2])), o); err != nil {
			return err
		}
		return errSimFault
	case s.roll(60):
		if err := s.Store.Put(ctx, key, r, o); err != nil {
			return err
		}
		return errSimFault
	}
	return s.Store.Put(ctx, key, r, o)
}

// readFault decides by what is read and how often, not by the order: an operation may read several objects at once.
func (s *simStore) readFault(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.crashed {
		return errSimCrash
	}
	s.w.reads[key]++
	h := fnv.New64a()
	fmt.Fprint(h, s.w.sim.cfg.seed, s.w.name, len(s.w.ops), key, s.w.reads[key])
	if s.w.sim.cfg.faults && h.Sum64()%101 == 0 {
		return errSimFault
	}
	return nil
}

func (s *simStore) Get(ctx context.Context, key string) (io.ReadCloser, objstore.Info, error) {
	if err := s.readFault(key); err != nil {
		return nil, objstore.Info{}, err
	}
	return s.Store.Get(ctx, key)
}

func (s *simStore) GetRange(ctx context.Context, key string, offset, n int64) ([]byte, error) {
	if err := s.readFault(key); err != nil {
		return nil, err
	}
	return s.Store.GetRange(ctx, key, offset, n)
}

func (s *simStore) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := s.readFault(key); err != nil {
		return objstore.Info{}, err
	}
	return s.Store.Stat(ctx, key)
}

func (s *simStore) Delete(ctx context.Context, key string) error {
	if err := s.readFault("delete " + key); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}

func simSchema() *Schema {
	return &Schema{Fields: []Field{{Name: "id", Type: String}, {Name: "day", Type: String, Nullable: true}, {Name: "seq", Type: Long, Nullable: true}}}
}

func simRows(rows []simRow) *MemoryRows {
	sc := simSchema().Arrow()
	b := array.NewRecordBuilder(memory.DefaultAllocator, sc)
	defer b.Release()
	for _, r := range rows {
		b.Field(0).(*array.StringBuilder).Append(r.ID)
		b.Field(1).(*array.StringBuilder).Append(r.Day)
		b.Field(2).(*array.Int64Builder).Append(r.Seq)
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	return NewRows(sc, rec)
}

func (s *sim) options(name string, ids *int) *Options {
	s.gen++
	gen := s.gen
	return &Options{
		Clock: func() time.Time { return s.now }, MaxTries: 50, MaxWait: time.Hour, EngineInfo: name,
		NewID: func() string {
			*ids++
			return fmt.Sprintf("%08x-0000-4000-8000-%012x", gen, *ids)
		},
		Jitter: func() float64 { return 0.5 },
		Sleep: func(ctx context.Context, d time.Duration) error {
			s.now = s.now.Add(d)
			return ctx.Err()
		},
	}
}

// process starts a writer's process anew.
func (w *simWriter) process() error {
	w.ids = 0
	w.store = &simStore{Store: w.sim.mem, w: w}
	if w.sim.cfg.faults && w.rng.IntN(4) == 0 {
		w.store.crashAt = 1 + w.rng.IntN(40)
	}
	var err error
	w.tab, err = Open(context.Background(), w.store, "t", w.sim.options(w.name, &w.ids))
	return err
}

func (w *simWriter) run() {
	<-w.resume
	defer func() {
		w.done = true
		w.sim.events <- w
	}()
	for i := range w.sim.cfg.steps {
		op := w.draw(fmt.Sprintf("%s/%d.%d", w.name, w.sim.start, i))
		w.ops = append(w.ops, op)
		w.sim.ops[op.name] = op
		for try := 1; ; try++ {
			if w.sim.failed != nil {
				return
			}
			if try == 100 {
				w.sim.fail("%s %s did not end in 100 tries", op.name, op.kind)
				return
			}
			if w.tab == nil || w.store.crashed {
				if err := w.process(); err != nil {
					w.tab = nil
					if !simMayFail(err) {
						w.sim.fail("%s opens the table: %w", w.name, err)
					}
					continue
				}
			}
			err := w.do(op, try)
			w.sim.log("%s %s, try %d: %v", op.name, op.kind, try, err)
			if err == nil {
				break
			}
			if errors.Is(err, ErrTxnApplied) && try > 1 {
				op.acked++ // an earlier try that was taken for a failure
				break
			}
			if !simMayFail(err) {
				w.sim.fail("%s %s: %w", op.name, op.kind, err)
				return
			}
		}
	}
}

// simMayFail tells whether an error is one that the store was made to give. A conflict never is: DESIGN D5 mends it.
func simMayFail(err error) bool {
	return errors.Is(err, errSimFault) || errors.Is(err, errSimCrash)
}

// draw makes up an operation.
func (w *simWriter) draw(name string) *simOp {
	op := &simOp{name: name, version: -1}
	key := func() string { return fmt.Sprint("k", w.rng.IntN(12)) }
	row := func(id string) simRow {
		w.sim.seq++
		return simRow{ID: id, Day: fmt.Sprint("d", w.rng.IntN(2)), Seq: int64(w.rng.IntN(30))*1_000_000 + w.sim.seq}
	}
	switch p := w.rng.IntN(29); {
	case p < 2:
		op.kind = "delete where"
		op.day, op.below = fmt.Sprint("d", w.rng.IntN(2)), int64(w.rng.IntN(30))*1_000_000
	case p < 4:
		op.kind = "update"
		op.day, op.below = fmt.Sprint("d", w.rng.IntN(2)), int64(w.rng.IntN(30))*1_000_000
	case p < 6:
		op.kind = "merge into"
		seen := map[string]bool{}
		for range 1 + w.rng.IntN(4) {
			if k := key(); !seen[k] {
				seen[k] = true
				op.rows = append(op.rows, row(k))
			}
		}
	case p < 10:
		op.kind = "append"
		for i := range 1 + w.rng.IntN(3) {
			op.rows = append(op.rows, row(fmt.Sprintf("%s#%d", name, i)))
		}
	case p < 18:
		op.kind = "merge"
		seen := map[string]bool{}
		for range 1 + w.rng.IntN(5) {
			if k := key(); !seen[k] {
				seen[k] = true
				op.rows = append(op.rows, row(k))
			}
		}
	case p < 20:
		op.kind = "delete"
		op.ids = []string{key(), key(), "none"}
	case p < 23:
		op.kind, op.tune = "optimize", w.drawOptimize()
	case p < 24:
		op.kind = "vacuum"
	case p < 25:
		op.kind = "checkpoint"
	case p < 27:
		op.kind = "overwrite"
		for i := range 1 + w.rng.IntN(3) {
			op.rows = append(op.rows, row(fmt.Sprintf("%s#%d", name, i)))
		}
	case p < 28:
		op.kind, op.day, op.below = "replace where", fmt.Sprint("d", w.rng.IntN(2)), int64(1+w.rng.IntN(30))*1_000_000
		for i := range 1 + w.rng.IntN(3) {
			r := row(fmt.Sprintf("%s#%d", name, i))
			op.rows = append(op.rows, simRow{ID: r.ID, Day: op.day, Seq: r.Seq % op.below})
		}
	default:
		op.kind, op.target = "restore", -1
	}
	return op
}

// drawOptimize makes up what an OPTIMIZE is told: files small enough that they fill up, tiers with each of their
// bounds, an order, or a purge.
func (w *simWriter) drawOptimize() OptimizeOptions {
	var o OptimizeOptions
	if w.rng.IntN(3) == 0 {
		o.TargetBytes = int64(1000 + w.rng.IntN(6000)) // a file of one row has some 1,000 bytes
	}
	switch p := w.rng.IntN(12); {
	case p < 6:
		o.Tiered, o.MinFiles, o.KeepMarked = true, w.rng.IntN(5), w.rng.IntN(3) == 0
	case p < 7:
		o.Purge = true
	case p < 8:
		o.ZOrderBy = []string{"seq", "id"}
	case p < 9:
		o.SortBy = []string{"id"}
	}
	return o
}

func (w *simWriter) do(op *simOp, try int) error {
	ctx := context.Background()
	hook := func(string) { w.yield() }
	txn := &Txn{AppID: op.name, Version: 1}
	ack := func(committed bool, v Version) {
		op.acked++
		if committed {
			op.version = v
		}
	}
	switch op.kind {
	case "append":
		rows := simRows(op.rows)
		defer rows.Close()
		res, err := w.tab.Append(ctx, rows, AppendOptions{Txn: txn, UserMetadata: op.name, Hook: hook})
		if err == nil {
			ack(res.Committed, res.Version)
		}
		return err
	case "overwrite": // of the partitions that the rows are in
		rows := simRows(op.rows)
		defer rows.Close()
		res, err := w.tab.Overwrite(ctx, rows, OverwriteOptions{Dynamic: true, AppendOptions: AppendOptions{Txn: txn, UserMetadata: op.name, Hook: hook}})
		if err == nil {
			ack(res.Committed, res.Version)
		}
		return err
	case "merge":
		rows := simRows(op.rows)
		defer rows.Close()
		res, err := w.tab.Merge(ctx, rows, MergeOptions{Key: []string{"id"}, Order: []OrderTerm{{Column: "seq"}}, Txn: txn,
			UserMetadata: op.name, CommitEmpty: true, Hook: hook})
		if err == nil {
			ack(res.Committed, res.Version)
		}
		return err
	case "delete":
		var keys []simRow
		for _, id := range slices.Compact(slices.Sorted(slices.Values(op.ids))) {
			keys = append(keys, simRow{ID: id})
		}
		rows := simRows(keys)
		defer rows.Close()
		res, err := w.tab.Delete(ctx, []string{"id"}, rows, DeleteOptions{Txn: txn, UserMetadata: op.name, Hook: hook})
		if err == nil {
			ack(res.Committed, res.Version)
		}
		return err
	case "delete where", "update", "merge into", "replace where":
		res, err := w.statement(op, ChangeOptions{Txn: txn, UserMetadata: op.name, Hook: hook})
		if err == nil {
			ack(res.Committed, res.Version)
		}
		return err
	case "optimize":
		o := op.tune
		rounds := 0
		o.Hook = func(phase string) {
			if rounds++; rounds > 1000 {
				w.sim.fail("%s: OPTIMIZE %+v goes on for ever", op.name, op.tune)
				w.store.crashed = true
			}
			hook(phase)
		}
		res, err := w.tab.Optimize(ctx, o)
		if err == nil {
			w.sim.packings += res.Commits
			w.sim.yielded += res.Yielded
		}
		return err
	case "vacuum":
		_, err := w.tab.Vacuum(ctx, VacuumOptions{Retention: time.Hour, Force: true, Hook: hook})
		return err
	case "checkpoint":
		_, err := w.tab.Checkpoint(ctx)
		return err
	case "restore":
		s, err := w.tab.Snapshot(ctx)
		if err != nil {
			return err
		}
		if op.target < 0 { // the first try that sees the table
			op.target = max(w.sim.start, s.Version()-Version(w.rng.IntN(4)))
		}
		res, err := w.tab.Restore(ctx, op.target, RestoreOptions{UserMetadata: fmt.Sprintf("%s try %d", op.name, try), Hook: hook})
		if err == nil {
			ack(res.Committed, res.Version)
		}
		return err
	}
	return fmt.Errorf("no operation %q", op.kind)
}

// statement runs a DELETE, UPDATE or MERGE of SQL, or Spark's replaceWhere; apply is what it means.
func (w *simWriter) statement(op *simOp, o ChangeOptions) (*ChangeResult, error) {
	ctx := context.Background()
	call := func(name string, args ...expr.Expr) expr.Expr { return expr.Call{Func: name, Args: args} }
	where := call("and", expr.Eq(expr.Col("day"), expr.Lit(op.day)), call("<", expr.Col("seq"), expr.Lit(op.below)))
	switch op.kind {
	case "delete where":
		return w.tab.DeleteWhere(ctx, where, o)
	case "update":
		return w.tab.Update(ctx, UpdateOptions{ChangeOptions: o, Where: where, Set: []Assignment{{"day", expr.Lit("d2")}, {"seq", call("+", expr.Col("seq"), expr.Lit(1))}}})
	}
	rows := simRows(op.rows)
	defer rows.Close()
	if op.kind == "replace where" {
		return w.tab.ReplaceWhere(ctx, where, rows, false, o)
	}
	return w.tab.MergeInto(ctx, rows, MergeIntoOptions{ChangeOptions: o, On: expr.Eq(expr.Col("target", "id"), expr.Col("source", "id")), Clauses: []MergeClause{
		{Kind: WhenMatched, Condition: call("<", expr.Col("source", "seq"), expr.Col("target", "seq")), Delete: true},
		{Kind: WhenMatched, All: true},
		{Kind: WhenNotMatched, All: true},
	}})
}

// apply changes a model as the operation changes the table.
func (op *simOp) apply(model map[string]simRow) {
	switch op.kind {
	case "merge":
		for _, r := range op.rows {
			if old, ok := model[r.ID]; !ok || r.Seq > old.Seq {
				model[r.ID] = r
			}
		}
	case "merge into":
		for _, r := range op.rows {
			if old, ok := model[r.ID]; ok && r.Seq < old.Seq {
				delete(model, r.ID)
			} else {
				model[r.ID] = r
			}
		}
	case "delete":
		for _, id := range op.ids {
			delete(model, id)
		}
	case "overwrite":
		maps.DeleteFunc(model, func(_ string, r simRow) bool {
			return slices.ContainsFunc(op.rows, func(n simRow) bool { return n.Day == r.Day })
		})
	case "delete where", "replace where":
		maps.DeleteFunc(model, func(_ string, r simRow) bool { return r.Day == op.day && r.Seq < op.below })
	case "update":
		for id, r := range model {
			if r.Day == op.day && r.Seq < op.below {
				model[id] = simRow{id, "d2", r.Seq + 1}
			}
		}
	}
	switch op.kind {
	case "append", "overwrite", "replace where":
		for _, r := range op.rows {
			model[r.ID] = r
		}
	}
}

// simulate runs one history and checks it.
func simulate(cfg simConfig) (*sim, error) {
	s := &sim{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.seed, 1)), now: time.Date(2024, 8, 20, 0, 0, 0, 0, time.UTC), ops: map[string]*simOp{}, events: make(chan *simWriter)}
	s.mem = objstore.NewMemory(func() time.Time { return s.now })
	conf := map[string]string{"delta.checkpointInterval": fmt.Sprint(2 + s.rng.IntN(6)), "delta.deletedFileRetentionDuration": "interval 1 hour"}
	if s.rng.IntN(3) > 0 {
		conf["delta.enableDeletionVectors"] = "true"
	}
	if s.rng.IntN(3) == 0 {
		conf[propCheckpointPolicy] = "v2"
	}
	if s.tracked = s.rng.IntN(2) == 0; s.tracked {
		for _, p := range []string{propRowTracking, propICT, propChangeFeed} {
			conf[p] = "true"
		}
	}
	ids := 0
	tab, err := Create(context.Background(), s.mem, "t", CreateOptions{Schema: simSchema(), PartitionBy: []string{"day"}, Config: conf}, s.options("check", &ids))
	if err != nil {
		return s, err
	}
	for round := range 2 {
		if err := s.round(round); err != nil {
			return s, err
		}
		if err := s.check(tab.Path()); err != nil {
			return s, err
		}
		// Nobody is at work: what nobody needs any more may go, and what was removed is out of reach.
		s.now = s.now.Add(3 * time.Hour)
		if err := s.checkVacuum(); err != nil {
			return s, err
		}
	}
	return s, nil
}

// round lets the writers do their operations side by side.
func (s *sim) round(n int) error {
	fresh, err := s.open()
	if err != nil {
		return err
	}
	s.start = mustVersion(fresh)
	var ready []*simWriter
	for i := range s.cfg.writers {
		w := &simWriter{sim: s, name: fmt.Sprintf("r%dw%d", n, i), resume: make(chan struct{}), reads: map[string]int{}, rng: rand.New(rand.NewPCG(s.cfg.seed, uint64(100*(n+1)+i)))}
		ready = append(ready, w)
		go w.run()
	}
	for len(ready) > 0 {
		i := s.rng.IntN(len(ready))
		ready[i].resume <- struct{}{}
		if w := <-s.events; w.done {
			ready = slices.DeleteFunc(ready, func(o *simWriter) bool { return o == w })
		}
	}
	return s.failed
}

func mustVersion(t *Table) Version {
	s, err := t.Snapshot(context.Background())
	if err != nil {
		return -1
	}
	return s.Version()
}

// open sees the table with new eyes, through a store without faults.
func (s *sim) open() (*Table, error) {
	ids := 1 << 20
	return Open(context.Background(), s.mem, "t", s.options("check", &ids))
}

// shrink looks for a smaller history that fails too.
func shrink(cfg simConfig, err error) (simConfig, error) {
	for {
		smaller := []simConfig{cfg, cfg, cfg}
		smaller[0].writers--
		smaller[1].steps--
		smaller[2].faults = false
		found := false
		for _, c := range smaller {
			if c == cfg || c.writers < 1 || c.steps < 1 {
				continue
			}
			for i := range uint64(20) { // a smaller history is another one: some seeds beside this one are tried
				c.seed = cfg.seed + i
				if _, e := simulate(c); e != nil {
					cfg, err, found = c, e, true
					break
				}
			}
			if found {
				break
			}
		}
		if !found {
			return cfg, err
		}
	}
}

// TestSimulation runs many histories of writers over a faulty store.
func TestSimulation(t *testing.T) {
	seed := testscale.Seed(t)
	n := uint64(testscale.Count(t, "schedules"))
	// A schedule holds little and makes much garbage: the collector would have a sixth of the time.
	defer debug.SetGCPercent(debug.SetGCPercent(1000))
	type total struct{ commits, crashes, faults, lost, packings, yielded int }
	var sum total
	var mu sync.Mutex
	next := seed
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				mu.Lock()
				at := next
				next++
				stop := at >= seed+n || t.Failed()
				mu.Unlock()
				if stop {
					return
				}
				cfg := simConfig{seed: at, writers: 2 + int(at%4), steps: 3, faults: at%5 != 0}
				s, err := simulate(cfg)
				if err != nil {
					small, e := shrink(cfg, err)
					again, _ := simulate(small)
					t.Errorf("%s: %v\nsmallest found: %s: %v\n%s", cfg, err, small, e, strings.Join(again.trace, "\n"))
					return
				}
				mu.Lock()
				sum.crashes += s.crashes
				sum.faults += s.injured
				sum.packings += s.packings
				sum.yielded += s.yielded
				for _, l := range s.trace {
					switch {
					case strings.Contains(l, ".crc: "):
					case strings.Contains(l, " puts ") && strings.HasSuffix(l, "<nil>"):
						sum.commits++
					case strings.Contains(l, " puts "):
						sum.lost++
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("REPORT: %d schedules: %d commits, %d lost races, %d faults, %d crashes, %d commits of OPTIMIZE, which gave up %d groups of files",
		n, sum.commits, sum.lost, sum.faults, sum.crashes, sum.packings, sum.yielded)
	if sum.lost == 0 || sum.crashes == 0 || sum.faults == 0 || sum.packings == 0 {
		t.Error("the schedules met no race, no crash, no fault or no packing")
	}
}
