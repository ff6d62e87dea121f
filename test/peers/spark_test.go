package peers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/sparktest"
)

// session is a running Spark session (spark.py). All tests of the package share one, for its start takes half a minute;
// they run one after another.
type session struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Scanner
	stderr  bytes.Buffer
	version string
}

// spark is the session as one test sees it.
type spark struct {
	t testing.TB
	*session
}

// answer is what spark.py replies.
type answer struct {
	Ready   string           `json:"ready"`
	Error   string           `json:"error"`
	Failed  string           `json:"failed"` // of try
	Rows    []map[string]any `json:"rows"`
	Answers []answer         `json:"answers"` // of each
}

var shared struct {
	sync.Once
	*session
	tmp string
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if s := shared.session; s != nil {
		s.in.Close()
		stop := time.AfterFunc(30*time.Second, func() { _ = s.cmd.Process.Kill() })
		_ = s.cmd.Wait()
		stop.Stop()
	}
	if shared.tmp != "" {
		_ = os.RemoveAll(shared.tmp)
	}
	os.Exit(code)
}

// startSpark starts the session unless it runs, and returns at once: let it start while other work is done.
func startSpark(t testing.TB) *spark {
	t.Helper()
	prereq.Need(t, "java")
	jars, python := prereq.Need(t, "jars"), prereq.Need(t, "venv")
	shared.Do(func() {
		if shared.tmp, shared.err = os.MkdirTemp("", "cauce-spark-"); shared.err != nil {
			return
		}
		store := ""
		if _, err := prereq.Lookup("javac"); err == nil {
			if store, shared.err = sparktest.LogStores(python, jars, shared.tmp); shared.err != nil {
				return
			}
		}
		if s3a, err := prereq.Lookup("s3a"); err == nil {
			jars += ":" + s3a
		}
		s := &session{cmd: exec.Command(python, "spark.py", jars, shared.tmp, store)}
		s.cmd.Stderr = &s.stderr
		s.cmd.Env = append(os.Environ(), "PYSPARK_PYTHON="+python)
		if s.in, shared.err = s.cmd.StdinPipe(); shared.err != nil {
			return
		}
		out, err := s.cmd.StdoutPipe()
		if err != nil {
			shared.err = err
			return
		}
		if shared.err = s.cmd.Start(); shared.err != nil {
			return
		}
		s.answers = bufio.NewScanner(out)
		s.answers.Buffer(nil, 1<<26)
		shared.session = s
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return &spark{t, shared.session}
}

// ready waits until the session has started, and gives Spark's version.
func (s *spark) ready() string {
	s.t.Helper()
	if s.version == "" {
		s.version = s.next().Ready
	}
	return s.version
}

func (s *spark) next() answer {
	s.t.Helper()
	if !s.answers.Scan() {
		s.t.Fatalf("Spark ended: %v\n%s", s.answers.Err(), tail(s.stderr.Bytes()))
	}
	var a answer
	if err := json.Unmarshal(s.answers.Bytes(), &a); err != nil {
		s.t.Fatalf("Spark answered %q: %v", s.answers.Text(), err)
	}
	if a.Error != "" {
		s.t.Fatalf("Spark: %s", a.Error)
	}
	return a
}

func (s *spark) do(cmd any) answer {
	s.t.Helper()
	s.ready()
	line, err := json.Marshal(cmd)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		s.t.Fatalf("Spark: %v\n%s", err, tail(s.stderr.Bytes()))
	}
	return s.next()
}

func (s *spark) sql(text string) []map[string]any {
	s.t.Helper()
	return s.do(map[string]any{"op": "sql", "sql": text}).Rows
}

// try runs a statement whose failure is an answer.
func (s *spark) try(text string) answer {
	s.t.Helper()
	return s.do(map[string]any{"op": "try", "sql": text})
}

// each runs statements beside each other, a few at a time, and gives their answers in their order.
func (s *spark) each(texts []string) []answer {
	s.t.Helper()
	if len(texts) == 0 {
		return nil
	}
	return s.do(map[string]any{"op": "each", "sqls": texts}).Answers
}

func (s *spark) csv(table string) []byte {
	s.t.Helper()
	out := filepath.Join(s.t.(*testing.T).TempDir(), "rows")
	s.do(map[string]any{"op": "rows", "table": table, "out": out})
	files, err := filepath.Glob(filepath.Join(out, "part-*.csv"))
	if err != nil || len(files) != 1 {
		s.t.Fatalf("Spark wrote %d CSV files into %s, error %v", len(files), out, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

func tail(b []byte) []byte {
	if len(b) > 4000 {
		return b[len(b)-4000:]
	}
	return b
}
