package worker

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/cauce-data/cauce/engine/duckdb"
)

// Options configure a Pool; the zero value of each but Command, Dir and Log works.
type Options struct {
	// Command is how a worker is started: a program whose main calls Main, and its arguments, the first of which is the
	// program's name.
	Path string
	Args []string
	// Dir takes the workers' temporary folders and results that clients read slowly.
	Dir string
	// Readable are the folders in which data files lie.
	Readable []string

	// Workers serve statements of all sessions; 0: one per processor. A statement that runs for longer than longAfter makes room
	// for others and gives way to them on the processors, while no more than longPerWorker times Workers such run and memory
	// is left: so that long ones do not hold up short ones.
	Workers     int
	PinnedMax   int   // more workers, for sessions with temporary tables; 0: four times Workers
	QueueMax    int   // statements that may wait for a worker; 0: 500
	MemoryBytes int64 // that DuckDB may hold in one worker; 0: 1 GiB
	TempBytes   int64 // that one worker, and one result, may put on disk; 0: 8 GiB

	Log *slog.Logger
}

// memoryExtra is what a worker's process may hold beside DuckDB's limit before it is killed.
const memoryExtra = 512 << 20

// stopGrace is how long a statement that was cancelled may go on before its worker is killed.
const stopGrace = 2 * time.Second

const (
	// longAfter is how long a statement runs before it makes room for others.
	longAfter = 500 * time.Millisecond
	// longPerWorker is how many statements for each worker may have made room.
	longPerWorker = 4
	// roomEvery is how often a statement that found no room to make tries again.
	roomEvery = time.Second
	// waysBehind is how much nicer than this process a worker is that gives way: a thread of it gets a third of what one of another
	// worker gets while both want a processor. More would starve it beside other programs of the machine, such as a stream.
	waysBehind = 5
)

// watchEvery is how often a worker's memory is looked at while it runs a statement.
const watchEvery = 50 * time.Millisecond

// Pool holds the workers. Close it.
type Pool struct {
	o      Options
	slots  chan struct{} // one token for each statement that runs and has made no room
	long   chan struct{} // one for each that has
	spare  chan struct{} // one for a Request that is Spare, where there is no slot
	pinned chan struct{}
	budget int64 // memory that what runs may hold when a statement makes room

	waiting atomic.Int64
	counts  Counts

	mu     sync.Mutex
	idle   []*proc
	all    map[*proc]bool
	turns  map[*turn]bool // of the statements that run, but for those of pinned workers
	closed bool
	serial int
	plain  bool // namespaces were refused
	work   sync.WaitGroup
}

// Counts are what a pool has done.
type Counts struct {
	Statements, Killed, Died, Refused atomic.Int64
}

// Open makes a pool and starts its first worker, so that what keeps workers from starting is known at once.
func Open(o Options) (*Pool, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.PinnedMax <= 0 {
		o.PinnedMax = 4 * o.Workers
	}
	if o.QueueMax <= 0 {
		o.QueueMax = 500
	}
	if o.MemoryBytes <= 0 {
		o.MemoryBytes = 1 << 30
	}
	if o.TempBytes <= 0 {
		o.TempBytes = 8 << 30
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of sql workers: %w", err)
	}
	p := &Pool{o: o, slots: make(chan struct{}, o.Workers), long: make(chan struct{}, longPerWorker*o.Workers), spare: make(chan struct{}, 1), pinned: make(chan struct{}, o.PinnedMax), budget: memoryBudget(o.Workers, o.MemoryBytes), all: map[*proc]bool{}, turns: map[*turn]bool{}}
	first, err := p.start()
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.idle = append(p.idle, first)
	return p, nil
}

// Counts tell what the pool has done.
func (p *Pool) Counts() *Counts { return &p.counts }

// Load tells how many statements run and how many wait.
func (p *Pool) Load() (running, waiting int) {
	return len(p.slots) + len(p.long) + len(p.spare), int(p.waiting.Load())
}

// Workers lists the process ids of the workers.
func (p *Pool) Workers() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []int
	for w := range p.all {
		out = append(out, w.cmd.Process.Pid)
	}
	return out
}

// Close kills the workers and removes their folders.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	var all []*proc
	for w := range p.all {
		all = append(all, w)
	}
	p.mu.Unlock()
	for _, w := range all {
		w.kill()
	}
	p.work.Wait()
	return nil
}

// proc is one worker's process.
type proc struct {
	p    *Pool
	cmd  *exec.Cmd
	conn net.Conn
	enc  *gob.Encoder
	dec  *gob.Decoder
	dir  string
	gone chan struct{} // closed when the process has ended

	sending sync.Mutex
	id      atomic.Uint64 // of the last statement
	dead    atomic.Bool   // it has been killed or is not to be used again
	why     atomic.Pointer[Error]
	keys    map[string]bool // catalogues that it was told to install; true: it has
	used    bool            // something of a session's is in it

	pace   sync.Mutex
	behind bool // it gives way to others on the processors
}

// giveWay puts the worker behind the others on the processors.
func (w *proc) giveWay() {
	w.pace.Lock()
	defer w.pace.Unlock()
	if w.dead.Load() {
		return
	}
	w.behind = true // even if only some of its threads are
	if err := renice(w.cmd.Process.Pid, waysBehind); err != nil {
		w.p.o.Log.Debug("an sql worker does not give way", "error", err)
	}
}

// hurry undoes giveWay.
func (w *proc) hurry() error {
	w.pace.Lock()
	defer w.pace.Unlock()
	if !w.behind {
		return nil
	}
	err := renice(w.cmd.Process.Pid, 0)
	w.behind = err != nil
	return err
}

func (p *Pool) start() (*proc, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errors.New("the server is stopping")
	}
	p.serial++
	dir := filepath.Join(p.o.Dir, fmt.Sprintf("worker-%d-%d", os.Getpid(), p.serial))
	plain := p.plain
	p.mu.Unlock()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of an sql worker: %w", err)
	}
	w, err := p.spawn(dir, plain)
	if err != nil && !plain {
		p.o.Log.Debug("sql workers are not put into a network namespace", "error", err)
		if w, err = p.spawn(dir, true); err == nil {
			p.mu.Lock()
			p.plain = true
			p.mu.Unlock()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start an sql worker: %w", err), os.RemoveAll(dir))
	}
	p.mu.Lock()
	p.all[w] = true
	closed := p.closed
	p.mu.Unlock()
	p.work.Go(func() {
		_ = w.cmd.Wait() // how it ended is told to the statement that it ran
		w.dead.Store(true)
		close(w.gone)
		_ = w.conn.Close()
		if err := os.RemoveAll(dir); err != nil {
			p.o.Log.Warn("folder of an sql worker remains", "folder", dir, "error", err)
		}
		p.mu.Lock()
		delete(p.all, w)
		p.mu.Unlock()
	})
	if closed {
		w.kill()
	}
	return w, nil
}

func (p *Pool) spawn(dir string, plain bool) (*proc, error) {
	text, err := json.Marshal(config{
		Readable: p.o.Readable, Temp: dir, MemoryLimit: p.o.MemoryBytes, TempLimit: p.o.TempBytes,
	})
	if err != nil {
		return nil, err
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "parent")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	if err := ours.Close(); err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: p.o.Path, Args: p.o.Args, Dir: dir, ExtraFiles: []*os.File{theirs},
		// Nothing of this process's environment: that is where credentials stand.
		Env:    []string{configVariable + "=" + string(text), "HOME=" + dir, "TMPDIR=" + dir, "LANG=C.UTF-8"},
		Stderr: &logWriter{log: p.o.Log}, SysProcAttr: namespaces(), WaitDelay: time.Second,
	}
	if plain {
		cmd.SysProcAttr = plainAttributes()
	}
	// Pdeathsig is about the thread that starts the process, so it must be one that stays.
	started := make(chan error)
	starter.Do(func() { go startThread() })
	starts <- startRequest{cmd, started}
	if err := <-started; err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &proc{p: p, cmd: cmd, conn: conn, enc: gob.NewEncoder(conn), dec: gob.NewDecoder(conn), dir: dir, gone: make(chan struct{}), keys: map[string]bool{}}, nil
}

type startRequest struct {
	cmd     *exec.Cmd
	started chan error
}

var (
	starter sync.Once
	starts  = make(chan startRequest)
)

// startThread starts processes from one thread that lives as long as this process.
func startThread() {
	runtime.LockOSThread()
	for r := range starts {
		r.started <- r.cmd.Start()
	}
}

// logWriter writes what a worker prints, which it does only when something is wrong, to the log.
type logWriter struct{ log *slog.Logger }

func (l *logWriter) Write(b []byte) (int, error) {
	l.log.Warn("sql worker: " + string(b[:min(len(b), 2000)]))
	return len(b), nil
}

func (w *proc) kill() {
	w.dead.Store(true)
	_ = w.cmd.Process.Kill() // it may have ended by itself
}

func (w *proc) send(m message) error {
	w.sending.Lock()
	defer w.sending.Unlock()
	return w.enc.Encode(m)
}

// take gives a worker that is free.
func (p *Pool) take() (*proc, error) {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return p.start()
		}
		w := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if !w.dead.Load() {
			return w, nil
		}
	}
}

func (p *Pool) give(w *proc) {
	if w.dead.Load() {
		return
	}
	if w.used {
		if err := w.reset(); err != nil {
			w.kill()
			return
		}
	}
	if err := w.hurry(); err != nil { // not every system lets a process be what it was
		w.kill()
		return
	}
	p.mu.Lock()
	keep := len(p.idle) < p.o.Workers && !p.closed
	if keep {
		p.idle = append(p.idle, w)
	}
	p.mu.Unlock()
	if !keep {
		w.kill()
	}
}

// reset makes a worker forget what a session left in it.
func (w *proc) reset() error {
	if err := w.conn.SetDeadline(time.Now().Add(stopGrace)); err != nil {
		return err
	}
	if err := w.send(message{Reset: true}); err != nil {
		return err
	}
	var r reply
	if err := w.dec.Decode(&r); err != nil || !r.Done {
		return fmt.Errorf("reset: %w", err)
	}
	w.used = false
	return w.conn.SetDeadline(time.Time{})
}

// Pinned is a worker that belongs to one session, because it holds the session's temporary tables.
type Pinned struct {
	p    *Pool
	w    *proc
	last *Result // nil: there was none
}

// Pin takes a worker for one session; it fails (KindBusy) when too many sessions have one. Close gives it back.
func (p *Pool) Pin() (*Pinned, error) {
	select {
	case p.pinned <- struct{}{}:
	default:
		return nil, &Error{Kind: KindBusy, Message: fmt.Sprintf("%d sessions have temporary tables, and no more may; try again later", p.o.PinnedMax)}
	}
	w, err := p.take()
	if err != nil {
		<-p.pinned
		return nil, err
	}
	w.used = true
	return &Pinned{p: p, w: w}, nil
}

// Lost tells that the worker has ended, and the temporary tables with it.
func (n *Pinned) Lost() bool { return n.w.dead.Load() }

// Close gives the worker back.
func (n *Pinned) Close() {
	if n.last != nil {
		n.last.cancel()
		<-n.last.done
	}
	n.p.give(n.w)
	<-n.p.pinned
}

// Run runs a statement on the session's worker, when the one before it has ended: its rows, which a cursor may still ask for,
// have then all been taken from the worker, and are not mixed with these.
func (n *Pinned) Run(ctx context.Context, r *Request) (out *Result, err error) {
	if n.last != nil {
		select {
		case <-n.last.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer func() { n.last = out }()
	done := make(chan struct{})
	behind := time.AfterFunc(longAfter, func() {
		defer close(done)
		n.w.giveWay()
	})
	return n.p.run(ctx, n.w, r, func() {
		if !behind.Stop() {
			<-done
			_ = n.w.hurry() // where the system does not allow it, the session stays behind
		}
	})
}

// Habit remembers of a session whether its last statement was a long one: the next one then makes room from the beginning. The
// zero value is a session that has run none.
type Habit struct{ long atomic.Bool }

// Run runs a statement on a worker that is free, or waits for one; ctx bounds the waiting and the statement, also after
// Run has returned. h is its session's. The caller closes the result.
func (p *Pool) Run(ctx context.Context, r *Request, h *Habit) (*Result, error) {
	if n := p.waiting.Add(1); n > int64(p.o.QueueMax) {
		p.waiting.Add(-1)
		p.counts.Refused.Add(1)
		return nil, &Error{Kind: KindBusy, Message: fmt.Sprintf("%d statements wait already; try again later", p.o.QueueMax)}
	}
	asked := time.Now()
	t := &turn{p: p, habit: h}
	if h.long.Load() {
		t.long = t.room()
	}
	if !t.long {
		var spare chan struct{} // nil: it is not for this one
		if r.Spare {
			spare = p.spare
		}
		select {
		case p.slots <- struct{}{}:
		case spare <- struct{}{}:
			t.spare = true
		case <-ctx.Done():
			p.waiting.Add(-1)
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, p.waited(time.Since(asked))
		}
	}
	p.waiting.Add(-1)
	w, err := p.take()
	if err != nil {
		t.free()
		return nil, err
	}
	t.begin(w)
	return p.run(ctx, w, r, func() {
		t.end()
		p.give(w)
		t.free()
	})
}

// waited is the error of a statement whose time passed before it began: it tells what the workers did meanwhile.
func (p *Pool) waited(d time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var longest time.Duration
	for t := range p.turns {
		longest = max(longest, time.Since(t.began))
	}
	return &Error{Kind: KindWaited, Message: fmt.Sprintf("it waited %v for a worker and never began; %d statements run, the longest for %v", d.Round(time.Second/10), len(p.turns), longest.Round(time.Second/10))}
}

// turn is the place of a running statement among those that may run.
type turn struct {
	p     *Pool
	habit *Habit
	w     *proc
	began time.Time

	mu    sync.Mutex
	timer *time.Timer
	long  bool // its token is one of long, not one of slots
	spare bool // its token is the one of spare
	ended bool
}

// begin takes a turn; its token has been taken.
func (t *turn) begin(w *proc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.w, t.began = w, time.Now()
	t.p.mu.Lock()
	t.p.turns[t] = true
	t.p.mu.Unlock()
	switch {
	case t.spare: // it has nobody's room
	case t.long:
		t.w.giveWay()
	default:
		t.timer = time.AfterFunc(longAfter, t.makeRoom)
	}
}

// memoryBudget is what the workers' statements may hold together while further ones begin: half of what this machine, or the control
// group in which the process lives, has, and no less than twice what one statement for each worker may.
func memoryBudget(workers int, each int64) int64 {
	machine, err := memlimit.FromSystem()
	if err != nil {
		machine = 0
	}
	if group, err := memlimit.FromCgroup(); err == nil {
		machine = min(machine, group)
	}
	return max(2*int64(workers)*each, int64(min(machine, math.MaxInt64)/2)) //nolint:gosec // bounded
}

// room takes a token of those that have made room, if there is one and what runs leaves as much memory as a statement may hold.
func (t *turn) room() bool {
	t.p.mu.Lock()
	var held int64
	for other := range t.p.turns {
		held += residentBytes(other.w.cmd.Process.Pid)
	}
	t.p.mu.Unlock()
	if held+t.p.o.MemoryBytes > t.p.budget {
		return false
	}
	select {
	case t.p.long <- struct{}{}:
		return true
	default:
		return false
	}
}

// makeRoom lets another statement begin.
func (t *turn) makeRoom() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ended:
	case t.room():
		t.long = true
		t.w.giveWay()
		<-t.p.slots
	default:
		t.timer.Reset(roomEvery)
	}
}

// end says that the statement has ended.
func (t *turn) end() {
	t.p.mu.Lock()
	delete(t.p.turns, t)
	t.p.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	if t.timer != nil {
		t.timer.Stop()
	}
	t.habit.long.Store(time.Since(t.began) > longAfter)
}

// free gives the token back.
func (t *turn) free() {
	switch {
	case t.spare:
		<-t.p.spare
	case t.long:
		<-t.p.long
	default:
		<-t.p.slots
	}
}

// Result is what a statement gives. Its rows are taken from the worker as fast as that makes them.
type Result struct {
	Params  []string
	Columns []duckdb.ColumnType

	spool  *spool
	cancel context.CancelFunc
	done   chan struct{}
}

// Rows reads the Arrow batches. It is called once; the caller releases the reader.
func (r *Result) Rows() (*ipc.Reader, error) {
	rd, err := ipc.NewReader(r.spool)
	if err != nil {
		if told := r.failure(); told != nil {
			return nil, told
		}
		return nil, err
	}
	return rd, nil
}

// failure is the error with which the worker ended, if it did; ipc hides it in texts.
func (r *Result) failure() error {
	r.spool.mu.Lock()
	defer r.spool.mu.Unlock()
	return r.spool.err
}

// Err gives the error of a reader of Rows as the worker told it.
func (r *Result) Err(err error) error {
	if err == nil {
		return nil
	}
	if told := r.failure(); told != nil {
		return told
	}
	return err
}

// Close ends the statement, if it still runs, and waits for its end.
func (r *Result) Close() error {
	r.cancel()
	err := r.spool.close()
	<-r.done
	return err
}

func (p *Pool) run(ctx context.Context, w *proc, r *Request, done func()) (*Result, error) {
	p.counts.Statements.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	out := &Result{spool: newSpool(p.o.Dir, p.o.TempBytes), cancel: cancel, done: make(chan struct{})}
	q := *r
	switch has, known := w.keys[q.Key]; {
	case has:
		q.Install = nil
	case q.Key != "" && !known && len(w.keys) >= cataloguesMax:
		q.Forget = true
		clear(w.keys)
	}
	head := make(chan error, 1)
	ended := make(chan struct{})
	id := w.id.Add(1)
	go p.watch(ctx, w, id, ended)
	go func() {
		defer close(out.done)
		err := p.drain(w, &q, out, head)
		close(ended)
		var told *Error
		if err != nil && ctx.Err() != nil && (!errors.As(err, &told) || told.Kind == KindCancelled) && w.why.Load() == nil {
			err = context.Cause(ctx)
		}
		if w.dead.Load() {
			w.kill()
			<-w.gone
		}
		out.spool.end(err)
		select {
		case head <- err:
		default:
		}
		done()
	}()
	if err := <-head; err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

// drain sends the request and takes the replies. It tells on head when the columns are known.
func (p *Pool) drain(w *proc, q *Request, out *Result, head chan<- error) error {
	lost := func(err error) error {
		w.dead.Store(true)
		if why := w.why.Load(); why != nil {
			return why
		}
		p.counts.Died.Add(1)
		p.o.Log.Warn("an sql worker ended", "error", err, "pid", w.cmd.Process.Pid)
		return &Error{Kind: KindDied, Message: "the process that ran the statement ended; it was replaced, and other sessions go on"}
	}
	if err := w.send(message{ID: w.id.Load(), Request: q}); err != nil {
		return lost(err)
	}
	told := false
	for {
		var r reply
		if err := w.dec.Decode(&r); err != nil {
			return lost(err)
		}
		if q.Key != "" {
			w.keys[q.Key] = r.Err == nil || w.keys[q.Key]
		}
		switch {
		case r.Err != nil:
			return r.Err
		case r.Head:
			out.Params, out.Columns = r.Params, r.Columns
			told = true
			head <- nil
		case r.Done:
			if !told {
				head <- nil
			}
			return nil
		default:
			if err := out.spool.put(r.Bytes); err != nil {
				out.cancel() // the worker is told; its remaining replies are read and dropped
				for !r.Done && r.Err == nil {
					r = reply{}
					if derr := w.dec.Decode(&r); derr != nil {
						return lost(derr)
					}
				}
				if errors.Is(err, errSpoolClosed) {
					return nil
				}
				return err
			}
		}
	}
}

// watch cancels a statement whose context ends, kills a worker that does not obey, and one that takes too much memory.
func (p *Pool) watch(ctx context.Context, w *proc, id uint64, ended <-chan struct{}) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	limit := p.o.MemoryBytes + memoryExtra
	cancelled := ctx.Done()
	var deadline <-chan time.Time
	for {
		select {
		case <-ended:
			return
		case <-cancelled:
			cancelled = nil
			t := time.NewTimer(stopGrace)
			defer t.Stop()
			deadline = t.C
			go func() { _ = w.send(message{ID: id, Cancel: true}) }() // may block on a worker that reads nothing, until it is killed
		case <-deadline:
			p.counts.Killed.Add(1)
			w.why.CompareAndSwap(nil, &Error{Kind: KindCancelled, Message: "the statement did not end when it was told to, and its process was ended"})
			w.kill()
			return
		case <-tick.C:
			if n := residentBytes(w.cmd.Process.Pid); n > limit {
				p.counts.Killed.Add(1)
				w.why.CompareAndSwap(nil, &Error{Kind: KindMemory, Message: fmt.Sprintf("the statement took more memory (%d MB) than a statement may (serve.memory_limit: %d MB)", n>>20, p.o.MemoryBytes>>20)})
				w.kill()
				return
			}
		}
	}
}

var _ io.Reader = (*spool)(nil)
