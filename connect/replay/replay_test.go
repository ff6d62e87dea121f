package replay

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// memory is a Sink that keeps what it gets and drops repeated ids.
type memory struct {
	ids     map[string]bool
	got     []string // key=value
	flushed int
	fail    error
}

func (m *memory) Publish(_ context.Context, key []byte, id string, value []byte) error {
	if m.fail != nil {
		return m.fail
	}
	if m.ids == nil {
		m.ids = map[string]bool{}
	}
	if !m.ids[id] {
		m.ids[id] = true
		m.got = append(m.got, string(key)+"="+string(value))
	}
	return nil
}

func (m *memory) Flush(context.Context) error { m.flushed++; return nil }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRun(t *testing.T) {
	in := "\ufeff" + `{"s":"A","t":1}` + "\r\n\n" + `{"s":"A","t":1}` + "\n" + `{"s":7}` + "\n" + `{"x":1,"s":null}` + "\n[1]\nnonsense\n" + `{"s":"é"}`
	want := []string{`A={"s":"A","t":1}`, `A={"s":"A","t":1}`, `7={"s":7}`, `={"x":1,"s":null}`, `=[1]`, `=nonsense`, `é={"s":"é"}`}
	m := &memory{}
	s, err := Run(context.Background(), strings.NewReader(in), Options{Sink: m})
	must(t, err)
	if fmt.Sprint(m.got) != fmt.Sprint(want) || s.Events != 7 || s.Bad != 2 || m.flushed != 1 {
		t.Errorf("got %q, %+v", m.got, s)
	}
	// Again: an event is told from another one by its place in a run, not by its text.
	_, err = Run(context.Background(), iotest.OneByteReader(strings.NewReader(in)), Options{Sink: m})
	must(t, err)
	if len(m.got) != 14 {
		t.Errorf("two runs of 7 events give %d", len(m.got))
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	fmt.Fprintln(w, `{"s":"A"}`)
	must(t, w.Close())
	plain, packed := filepath.Join(dir, "a.jsonl"), filepath.Join(dir, "a.jsonl.gz")
	must(t, os.WriteFile(plain, []byte(`{"s":"A"}`), 0o600))
	must(t, os.WriteFile(packed, z.Bytes(), 0o600))
	m := &memory{}
	for _, p := range []string{plain, packed} {
		_, err := File(context.Background(), p, Options{Sink: m})
		must(t, err)
	}
	if len(m.got) != 2 || m.got[0] != m.got[1] {
		t.Errorf("two files with an equal line gave %q", m.got)
	}
	must(t, os.WriteFile(packed, z.Bytes()[:20], 0o600))
	if _, err := File(context.Background(), packed, Options{Sink: m}); err == nil || !strings.Contains(err.Error(), packed) {
		t.Errorf("got %v", err)
	}
	if _, err := File(context.Background(), filepath.Join(dir, "none"), Options{Sink: m}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	long := "{}\n" + strings.Repeat("x", LineBytesMax+1)
	if _, err := Run(context.Background(), strings.NewReader(long), Options{Sink: &memory{}}); err == nil || !strings.Contains(err.Error(), "line 2: longer") {
		t.Errorf("got %v", err)
	}
	big := `{"s":"A","x":"` + strings.Repeat("x", 1<<20) + `"}`
	m := &memory{}
	_, err := Run(context.Background(), strings.NewReader(big+"\n"+big), Options{Sink: m})
	must(t, err)
	if len(m.got) != 2 || m.got[0] != "A="+big {
		t.Errorf("%d long events", len(m.got))
	}
	full := errors.New("no space")
	if _, err := Run(context.Background(), strings.NewReader("\n{}"), Options{Sink: &memory{fail: full}}); !errors.Is(err, full) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("got %v", err)
	}
	if _, err := Run(context.Background(), iotest.ErrReader(full), Options{Sink: m}); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if _, err := Run(context.Background(), strings.NewReader(""), Options{}); err == nil {
		t.Error("no sink was taken")
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		s, err := Run(context.Background(), strings.NewReader(strings.Repeat("{}\n", 101)), Options{Sink: m, Rate: 10})
		must(t, err)
		if s.Elapsed != 10*time.Second {
			t.Errorf("101 events at 10 a second took %s", s.Elapsed)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s, err = Run(ctx, strings.NewReader(strings.Repeat("{}\n", 101)), Options{Sink: m, Rate: 10})
		if !errors.Is(err, context.DeadlineExceeded) || s.Events < 49 || s.Events > 51 || m.flushed != 2 {
			t.Errorf("stopped after %d events with %v", s.Events, err)
		}
	})
}
