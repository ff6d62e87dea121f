package peers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
)

// spark is a running Spark session (spark.py).
type spark struct {
	t       testing.TB
	in      io.WriteCloser
	answers *bufio.Scanner
	stderr  bytes.Buffer
}

// answer is what spark.py replies.
type answer struct {
	Ready  string           `json:"ready"`
	Error  string           `json:"error"`
	Failed string           `json:"failed"` // of try
	Rows   []map[string]any `json:"rows"`
}

func startSpark(t *testing.T) *spark {
	t.Helper()
	prereq.Need(t, "java")
	jars, python := prereq.Need(t, "jars"), prereq.Need(t, "venv")
	s := &spark{t: t}
	cmd := exec.Command(python, "spark.py", jars, t.TempDir())
	cmd.Stderr = &s.stderr
	cmd.Env = append(os.Environ(), "PYSPARK_PYTHON="+python)
	var err error
	if s.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.answers = bufio.NewScanner(out)
	s.answers.Buffer(nil, 1<<24)
	t.Cleanup(func() {
		s.in.Close()
		stop := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer stop.Stop()
		_ = cmd.Wait()
	})
	return s
}

// ready waits until the session has started, which takes up to half a minute: let it start while other work is done.
func (s *spark) ready() string {
	s.t.Helper()
	return s.next().Ready
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

func (s *spark) do(cmd map[string]string) answer {
	s.t.Helper()
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
	return s.do(map[string]string{"op": "sql", "sql": text}).Rows
}

func (s *spark) csv(table string) []byte {
	s.t.Helper()
	out := filepath.Join(s.t.(*testing.T).TempDir(), "rows")
	s.do(map[string]string{"op": "rows", "table": table, "out": out})
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
