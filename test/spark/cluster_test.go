package spark

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
)

// cluster is a standalone master of Spark with two workers of one core each, on loopback.
type cluster struct {
	url   string
	dir   string
	procs []*exec.Cmd
}

var shared struct {
	sync.Mutex
	c *cluster
}

// TestMain ends the cluster that the tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	if shared.c != nil {
		shared.c.stop()
	}
	os.Exit(code)
}

// master gives the URL of the tests' cluster, which the first of them starts from the jars of the pyspark package.
func master(t *testing.T) string {
	t.Helper()
	prereq.Need(t, "java")
	python := prereq.Need(t, "venv")
	shared.Lock()
	defer shared.Unlock()
	if shared.c == nil {
		homes, err := filepath.Glob(filepath.Join(filepath.Dir(python), "..", "lib", "python3*", "site-packages", "pyspark"))
		if err != nil || len(homes) != 1 {
			t.Fatalf("pyspark is not in the venv: %v %v", homes, err)
		}
		c, err := startCluster(homes[0])
		if err != nil {
			t.Fatal(err)
		}
		shared.c = c
	}
	return shared.c.url
}

func startCluster(home string) (c *cluster, err error) {
	dir, err := os.MkdirTemp("", "cauce-spark-cluster-")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	if err := l.Close(); err != nil {
		return nil, err
	}
	c = &cluster{url: "spark://" + addr, dir: dir}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	start := func(name, class string, args ...string) error {
		log, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			return err
		}
		defer log.Close()
		all := append([]string{"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}, opens...)
		all = append(all, "-cp", filepath.Join(home, "jars", "*"), "org.apache.spark.deploy."+class, "--host", "127.0.0.1", "--webui-port", "0")
		cmd := exec.Command("java", append(all, args...)...)
		cmd.Env = append(os.Environ(), "SPARK_HOME="+home, "SPARK_LOCAL_IP=127.0.0.1", "SPARK_SCALA_VERSION=2.13") // as Spark's own scripts set it
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // a worker ends its executors
		if err := cmd.Start(); err != nil {
			return err
		}
		c.procs = append(c.procs, cmd)
		return nil
	}
	if err := start("master", "master.Master", "--port", port); err != nil {
		return c, err
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(filepath.Join(dir, "master.log"))
			return c, fmt.Errorf("the master of Spark does not answer: %w\n%s", err, out)
		}
	}
	for i := range 2 {
		name := fmt.Sprintf("worker-%d", i)
		if err := start(name, "worker.Worker", "--cores", "1", "--memory", "1200m", "--work-dir", filepath.Join(dir, name), c.url); err != nil {
			return c, err
		}
	}
	return c, nil
}

// opens is what Spark's own scripts open to it of Java's modules.
var opens = func() []string {
	var out []string
	for _, p := range []string{"java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util", "java.util.concurrent", "sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar"} {
		out = append(out, "--add-opens=java.base/"+p+"=ALL-UNNAMED")
	}
	return out
}()

// stop ends the workers, which end their executors, and then the master.
func (c *cluster) stop() {
	for i := len(c.procs) - 1; i >= 0; i-- {
		p := c.procs[i]
		_ = p.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { _ = p.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = p.Process.Kill()
			<-done
		}
	}
	if err := os.RemoveAll(c.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(os.Stderr, err)
	}
}
