package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
)

// NewRegistry starts a real schema registry (Apicurio, from Maven, with its data in memory) for a test, which ends with it,
// and gives the address at which it speaks Confluent's protocol. Without Java or the program the test is skipped by name.
func NewRegistry(t testing.TB) string {
	t.Helper()
	java, dir := prereq.Need(t, "java"), prereq.Need(t, "registry")
	jars, err := filepath.Glob(filepath.Join(dir, "apicurio-registry-app-*-runner.jar"))
	if err != nil || len(jars) != 1 {
		t.Fatalf("%s holds %d programs: %v", dir, len(jars), err)
	}
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	logFile := filepath.Join(t.TempDir(), "registry.log")
	log, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(java, "-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dquarkus.http.host=127.0.0.1", fmt.Sprintf("-Dquarkus.http.port=%d", ports[0]), "-jar", jars[0])
	cmd.Dir = t.TempDir()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-exited })
	url := fmt.Sprintf("http://127.0.0.1:%d/apis/ccompat/v7", ports[0])
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		err := answers(t.Context(), url+"/subjects")
		if err == nil {
			return url
		}
		said, _ := os.ReadFile(logFile)
		select {
		case <-exited:
			t.Fatalf("the schema registry ended while it started: %s", said)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the schema registry does not answer: %v: %s", err, said)
		}
	}
}

func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r.Body)
	if r.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New(r.Status))
	}
	return errors.Join(err, r.Body.Close())
}
