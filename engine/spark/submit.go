package spark

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Submit says how a Spark application is started.
type Submit struct {
	// Command is the start of the command line; nil: spark-submit.
	Command []string
	// Master is spark-submit's --master; "" leaves it to Spark's own configuration.
	Master string
	// Conf are Spark's settings.
	Conf map[string]string
	// Args stand before the application: --packages, --deploy-mode …
	Args []string
	// Env is added to the environment.
	Env []string
	// Graceful says that the application ends by itself, between two commits, when a file named stop appears beside it;
	// else it is interrupted.
	Graceful bool
	// Log gets what Spark prints; nil: nobody, but its end stands in the error of an application that fails.
	Log io.Writer
}

// What an application needs beside Spark itself, in the versions that the tests run.
const (
	deltaPackage = "io.delta:delta-spark_4.2_2.13:4.4.0"
	kafkaPackage = "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"
)

// WithPackages names the packages of a batch or a stream, unless Args or Conf say where its jars come from.
func (s Submit) WithPackages(mode string) Submit {
	for _, a := range s.Args {
		if strings.HasPrefix(a, "--packages") || strings.HasPrefix(a, "--jars") {
			return s
		}
	}
	for k := range s.Conf {
		if strings.HasPrefix(k, "spark.jars") {
			return s
		}
	}
	packages := deltaPackage
	if mode == ModeStream {
		packages += "," + kafkaPackage
	}
	s.Args = append([]string{"--packages", packages}, s.Args...)
	return s
}

// CommandLine is the whole command for a driver and an app in a folder.
func (s Submit) CommandLine(dir string) []string {
	line := slices.Clone(s.Command)
	if len(line) == 0 {
		line = []string{"spark-submit"}
	}
	if s.Master != "" {
		line = append(line, "--master", s.Master)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Conf)) {
		line = append(line, "--conf", k+"="+s.Conf[k])
	}
	line = append(line, s.Args...)
	return append(line, filepath.Join(dir, "driver.py"), filepath.Join(dir, "app.json"))
}

// Write puts the driver and an app into a folder.
func Write(dir string, app any) error {
	doc, err := json.MarshalIndent(app, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "driver.py"), Driver(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "app.json"), append(doc, '\n'), 0o644)
}

// tail keeps the last bytes that were written.
type tail struct{ b []byte }

const tailMax = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 2*tailMax {
		t.b = append(t.b[:0], t.b[len(t.b)-tailMax:]...)
	}
	return len(p), nil
}

// stopPatience is how long an application that was asked to end may take.
const stopPatience = 2 * time.Minute

// Run writes the app into dir and runs it to its end.
func (s Submit) Run(ctx context.Context, dir string, app any) error {
	if err := Write(dir, app); err != nil {
		return err
	}
	line := s.CommandLine(dir)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if s.Graceful {
		cmd.Cancel = func() error {
			if err := os.WriteFile(filepath.Join(dir, "stop"), nil, 0o644); err != nil {
				return err
			}
			return os.ErrProcessDone // what the application ends with is what counts
		}
		cmd.WaitDelay = stopPatience
	}
	last := &tail{}
	log := io.Writer(last)
	if s.Log != nil {
		log = io.MultiWriter(last, s.Log)
	}
	cmd.Stdout, cmd.Stderr = log, log
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return &FailedError{Code: exit.ExitCode(), Output: string(bytes.TrimSpace(last.b))}
	}
	return fmt.Errorf("start %s: %w; --spark-submit names the program of your Spark", line[0], err)
}

var javaFrame = regexp.MustCompile(`^\s+(at [\w.$/<>@-]+\(.*\)|\.\.\. \d+ more)( ~?\[.*\])?\s*$`)

// FailedError says that a Spark application ended with an exit code other than 0.
type FailedError struct {
	Code   int
	Output string // the end of what it printed
}

func (e *FailedError) Error() string {
	// Of a Java stack trace only what was thrown tells anything here; --verbose shows the whole.
	var lines []string
	for _, l := range strings.Split(e.Output, "\n") {
		if !javaFrame.MatchString(l) {
			lines = append(lines, l)
		}
	}
	if len(lines) > 15 {
		lines = lines[len(lines)-15:]
	}
	return fmt.Sprintf("the Spark application ended with exit code %d:\n%s", e.Code, strings.Join(lines, "\n"))
}
