package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/live"
	"github.com/cauce-data/cauce/internal/testscale"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var errAway = errors.New("away")

// topic is a Target that keeps what it acknowledged and can be away.
type topic struct {
	mu     sync.Mutex
	away   bool
	fail   error       // of Publish
	chance func() bool // of a failure of each call; nil: none
	all    []entry     // in the order in which they were stored
}

type entry struct{ key, id, value string }

// connection has messages in flight until they are flushed; when it fails some of them were stored, the others never are.
type connection struct {
	t       *topic
	flying  []entry
	flights int
}

func (p *topic) open(context.Context) (Target, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return nil, errAway
	}
	return &connection{t: p}, nil
}

func (c *connection) Publish(_ context.Context, key []byte, id string, value []byte) error {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if c.t.fail != nil {
		return c.t.fail
	}
	if c.t.away || c.t.chance != nil && c.t.chance() {
		return errAway
	}
	v := string(value)
	if value == nil {
		v = "nil"
	}
	c.flying = append(c.flying, entry{string(key), id, v})
	return nil
}

func (c *connection) Flush(context.Context) error {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	c.flights++
	if c.t.away || c.t.chance != nil && c.t.chance() {
		c.t.all = append(c.t.all, c.flying[:len(c.flying)*(c.flights%3)/2]...)
		c.flying = nil
		return errAway
	}
	c.t.all = append(c.t.all, c.flying...)
	c.flying = nil
	return nil
}

func (c *connection) Close() error { return nil }

func (p *topic) setAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

func (p *topic) stored() []entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.all)
}

func open(t testing.TB, dir string, p *topic, o Options) *Spool {
	t.Helper()
	o.Dir, o.Open, o.RetryMin, o.RetryMax = dir, p.open, time.Millisecond, 2*time.Millisecond
	s, err := Open(o)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func event(i int) entry {
	return entry{fmt.Sprintf("k%d", i%7), "id-" + strconv.Itoa(i), strings.Repeat("v", i%300) + strconv.Itoa(i)}
}

func publish(t testing.TB, s *Spool, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		e := event(i)
		must(t, s.Publish(context.Background(), []byte(e.key), e.id, []byte(e.value)))
	}
}

func drain(t testing.TB, s *Spool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	must(t, s.Drain(ctx))
}

// complete demands every event from 0 to n, in order; where again is true one may come again, as itself, behind itself.
func complete(t testing.TB, all []entry, n int, again bool) {
	t.Helper()
	next := 0
	for i, e := range all {
		if next < n && e == event(next) {
			next++
			continue
		}
		id, err := strconv.Atoi(strings.TrimPrefix(e.id, "id-"))
		if !again || err != nil || id >= next || e != event(id) {
			t.Fatalf("entry %d is %v; next is %d of %d", i, e, next, n)
		}
	}
	if next != n {
		t.Fatalf("%d of %d events", next, n)
	}
}

func TestEventsPassInOrder(t *testing.T) {
	p := &topic{}
	dir := t.TempDir()
	s := open(t, dir, p, Options{segmentBytes: 20_000})
	publish(t, s, 0, 3000)
	drain(t, s)
	complete(t, p.stored(), 3000, false)
	if st := s.Stats(); st.Bytes != 0 || st.Events != 0 || st.Stalled != 0 {
		t.Errorf("%+v", st)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*.seg")); len(files) > 1 {
		t.Errorf("segments that are sent stay: %v", files)
	}
	must(t, s.Publish(context.Background(), nil, "t", nil))
	must(t, s.Publish(context.Background(), nil, "e", []byte{}))
	drain(t, s)
	if all := p.stored(); all[3000].value != "nil" || all[3001].value != "" {
		t.Errorf("a tombstone and an empty value: %v", all[3000:])
	}
	must(t, s.Close())
	if err := s.Publish(context.Background(), nil, "x", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// keys is a Target that keeps the keys of what it gets.
type keys struct{ got [][]byte }

func (k *keys) Publish(_ context.Context, key []byte, _ string, _ []byte) error {
	k.got = append(k.got, key)
	return nil
}

func (k *keys) Flush(context.Context) error { return nil }

func (k *keys) Close() error { return nil }

// An event without key has none behind the spool either: to Kafka an empty one is a key, by which all such events get one partition.
func TestEventsWithoutKeyStayWithout(t *testing.T) {
	k := &keys{}
	s, err := Open(Options{Dir: t.TempDir(), Open: func(context.Context) (Target, error) { return k, nil }})
	must(t, err)
	must(t, s.Publish(context.Background(), nil, "a", []byte("v")))
	must(t, s.Publish(context.Background(), []byte("k"), "b", []byte("v")))
	drain(t, s)
	must(t, s.Close())
	if len(k.got) != 2 || k.got[0] != nil || string(k.got[1]) != "k" {
		t.Errorf("keys %q", k.got)
	}
}

// While the topic is away events wait, also for another process.
func TestEventsWaitForTheTopic(t *testing.T) {
	p := &topic{away: true}
	dir := t.TempDir()
	s := open(t, dir, p, Options{segmentBytes: 20_000})
	publish(t, s, 0, 1000)
	time.Sleep(5 * time.Millisecond)
	if st := s.Stats(); st.Events != 1000 || st.Bytes < 100_000 || st.Error != "away" || st.Stalled == 0 {
		t.Errorf("%+v", st)
	}
	begin := time.Now()
	must(t, s.Close())
	if took := time.Since(begin); took > time.Second {
		t.Errorf("Close waited %s for a topic that is away", took)
	}
	s = open(t, dir, p, Options{segmentBytes: 20_000})
	if st := s.Stats(); st.Events != 1000 {
		t.Errorf("%+v", st)
	}
	publish(t, s, 1000, 1500)
	p.setAway(false)
	drain(t, s)
	complete(t, p.stored(), 1500, false)
}

// copyDir is what a killed process leaves, cut off in the middle of its last write.
func copyDir(t testing.TB, from string, cut func(size int64) int64) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(from)
	must(t, err)
	last := ""
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		must(t, err)
		must(t, os.WriteFile(filepath.Join(to, e.Name()), b, 0o600))
		if strings.HasSuffix(e.Name(), segmentExt) {
			last = filepath.Join(to, e.Name())
		}
	}
	if last != "" && cut != nil {
		info, err := os.Stat(last)
		must(t, err)
		must(t, os.Truncate(last, cut(info.Size())))
	}
	return to
}

// Whatever the topic does and whenever the process dies, each accepted event arrives, in order, and what comes twice has
// the same message id.
func TestNothingAcceptedIsLost(t *testing.T) {
	rnd := testscale.Rand(t)
	for range testscale.Turns(t, "spool-lives") {
		p := &topic{}
		p.chance = func() bool { return rnd.IntN(300) == 0 } // under the topic's lock, by one goroutine
		dir, n := t.TempDir(), 0
		r := rand.New(rand.NewPCG(rnd.Uint64(), 1))
		for range 2 + r.IntN(4) {
			s := open(t, dir, p, Options{segmentBytes: int64(2000 + r.IntN(40_000))})
			for range 1 + r.IntN(5) {
				m := n + r.IntN(300)
				publish(t, s, n, m)
				n = m
				p.setAway(r.IntN(3) == 0)
				time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
			}
			if r.IntN(2) == 0 {
				must(t, s.Close())
				continue
			}
			// A kill: the files stay as they are, and a write that had not returned is half there.
			s.stop()
			s.done.Wait()
			s.closed = true
			half, err := appendRecord(nil, record{[]byte("k"), "not accepted", []byte("x")})
			must(t, err)
			if s.w != nil {
				_, err = s.w.Write(half[:r.IntN(len(half))])
				must(t, err)
			}
			s.release()
		}
		p.setAway(false)
		s := open(t, dir, p, Options{})
		drain(t, s)
		must(t, s.Close())
		complete(t, p.stored(), n, true)
	}
}

// What a power cut took from the end of a segment is lost, what comes after is not taken for sent.
func TestShortenedSegment(t *testing.T) {
	p := &topic{}
	dir := t.TempDir()
	s := open(t, dir, p, Options{})
	publish(t, s, 0, 100)
	drain(t, s)
	cut := copyDir(t, dir, func(size int64) int64 { return size / 2 })
	must(t, s.Close())
	p.all, p.away = nil, true
	s = open(t, cut, p, Options{})
	publish(t, s, 0, 3)
	must(t, s.Close())
	p.setAway(false)
	s = open(t, cut, p, Options{})
	drain(t, s)
	complete(t, p.stored(), 3, false)
}

// A damaged record costs the rest of its segment, which is told; the other segments are sent.
func TestDamagedSegmentIsTold(t *testing.T) {
	p := &topic{away: true}
	dir := t.TempDir()
	s := open(t, dir, p, Options{segmentBytes: 5000})
	publish(t, s, 0, 200)
	must(t, s.Close())
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	must(t, err)
	b, err := os.ReadFile(files[1])
	must(t, err)
	b[len(b)/2] ^= 0xff
	must(t, os.WriteFile(files[1], b, 0o600))
	p.setAway(false)
	s = open(t, dir, p, Options{})
	drain(t, s)
	if st := s.Stats(); st.Damaged == 0 || st.Damaged > int64(len(b)) {
		t.Errorf("%+v", st)
	}
	all := p.stored()
	if len(all) >= 200 || len(all) < 150 || all[len(all)-1] != event(199) {
		t.Errorf("%d events, the last is %v", len(all), all[len(all)-1])
	}
}

// Damage in what is sent costs nothing. Where it has not been sent, it is told, whatever byte it hits, and what is lost is
// kept.
func TestDamageInTheLastSegment(t *testing.T) {
	const sent, all = 5, 10
	for _, c := range []struct {
		name  string
		event int   // that is damaged
		byte  int64 // of its record
		value byte
		lost  bool
	}{
		{name: "the value of one that is sent", event: 1, byte: 20, value: 1},
		{name: "the length of one that is sent", event: 1, byte: 1, value: 1},
		{name: "the value", event: 7, byte: 20, value: 1, lost: true},
		{name: "the length", event: 7, byte: 1, value: 1, lost: true}, // longer than what follows
		{name: "the length, beyond every record", event: 7, byte: 3, value: 0xff, lost: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &topic{}
			dir := t.TempDir()
			s := open(t, dir, p, Options{})
			publish(t, s, 0, sent)
			drain(t, s)
			p.setAway(true)
			publish(t, s, sent, all)
			must(t, s.Close())
			files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
			must(t, err)
			b, err := os.ReadFile(files[0])
			must(t, err)
			at := int64(0)
			for range c.event {
				_, n, err := parseRecord(b[at:])
				must(t, err)
				at += int64(n)
			}
			b[at+c.byte] ^= c.value
			must(t, os.WriteFile(files[0], b, 0o600))
			p.setAway(false)
			s = open(t, dir, p, Options{})
			defer func() { must(t, s.Close()) }()
			publish(t, s, all, all+2)
			drain(t, s)
			want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
			kept, err := filepath.Glob(filepath.Join(dir, "*.damaged"))
			must(t, err)
			if c.lost {
				want = slices.Delete(want, c.event, all)
				if st := s.Stats(); st.Damaged != int64(len(b))-at || len(kept) != 1 {
					t.Errorf("%+v, kept %v", st, kept)
				} else if was, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(was, b[at:]) {
					t.Errorf("kept %d bytes, %v", len(was), err)
				}
			} else if st := s.Stats(); st.Damaged != 0 || len(kept) != 0 {
				t.Errorf("%+v, kept %v", st, kept)
			}
			got := p.stored()
			if len(got) != len(want) {
				t.Fatalf("%d events, want %d", len(got), len(want))
			}
			for i, n := range want {
				if got[i] != event(n) {
					t.Errorf("event %d: %v, want %v", i, got[i], event(n))
				}
			}
		})
	}
}

func TestFullSpool(t *testing.T) {
	p := &topic{away: true}
	s := open(t, t.TempDir(), p, Options{BytesMax: 10_000})
	n := 0
	for {
		e := event(n)
		err := s.Publish(context.Background(), []byte(e.key), e.id, []byte(e.value))
		if errors.Is(err, live.ErrFull) {
			break
		}
		must(t, err)
		n++
	}
	if st := s.Stats(); st.Bytes > 10_000 || st.Bytes < 9_000 || st.Events != int64(n) {
		t.Errorf("%+v of %d", st, n)
	}
	p.setAway(false)
	drain(t, s)
	complete(t, p.stored(), n, false)

	p = &topic{away: true}
	s = open(t, t.TempDir(), p, Options{BytesMax: 10_000, Wait: true})
	publish(t, s, 0, 50)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	var err error
	for i := 50; err == nil; i++ {
		err = s.Publish(ctx, nil, "never", make([]byte, 500))
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for room: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Publish(context.Background(), nil, "then", make([]byte, 9000)) }()
	p.setAway(false)
	must(t, <-done)
}

func TestPermanentErrorEnds(t *testing.T) {
	bad := errors.New("denied")
	p := &topic{fail: bad}
	dir := t.TempDir()
	s := open(t, dir, p, Options{Permanent: func(err error) bool { return errors.Is(err, bad) }})
	publish(t, s, 0, 1)
	if err := s.Drain(context.Background()); !errors.Is(err, bad) {
		t.Errorf("Drain: %v", err)
	}
	if err := s.Publish(context.Background(), nil, "x", nil); !errors.Is(err, bad) {
		t.Errorf("Publish: %v", err)
	}
	if err := s.Close(); !errors.Is(err, bad) {
		t.Errorf("Close: %v", err)
	}
	p.fail = nil
	s = open(t, dir, p, Options{})
	drain(t, s)
	complete(t, p.stored(), 1, false)
}

func TestOneProcessAtATime(t *testing.T) {
	p := &topic{}
	dir := t.TempDir()
	s := open(t, dir, p, Options{})
	_, err := Open(Options{Dir: dir, Open: p.open})
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v", err)
	}
	must(t, s.Close())
	open(t, dir, p, Options{})
}

func FuzzParseRecord(f *testing.F) {
	for _, r := range []record{{[]byte("k"), "id", []byte("v")}, {nil, "", nil}, {nil, "x", []byte{}}} {
		b, err := appendRecord(nil, r)
		must(f, err)
		f.Add(b)
	}
	f.Add([]byte{3, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := parseRecord(b)
		if err != nil {
			return
		}
		again, err := appendRecord(nil, r)
		must(t, err)
		if int64(len(again)) != r.size() {
			t.Fatalf("size %d, written %d", r.size(), len(again))
		}
		if back, _, err := parseRecord(again); err != nil || !bytes.Equal(back.key, r.key) || back.id != r.id || !bytes.Equal(back.value, r.value) || n > len(b) {
			t.Fatalf("%+v, %+v, %v", r, back, err)
		}
	})
}

var _ io.Closer = (*Spool)(nil)
