// Package sparktest runs a real Apache Spark of more than one process, from the pyspark package of .cache/venv, and gives the flags with
// which `cauce spark` is to be called there.
package sparktest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
)

// Cluster is a standalone master of Spark with two workers of one core each, on loopback.
type Cluster struct {
	URL   string // of the master
	dir   string
	procs []*exec.Cmd
}

// StartCluster starts one whose data and logs are below a folder, which Stop leaves there.
func StartCluster(t testing.TB, dir string) *Cluster {
	t.Helper()
	prereq.Need(t, "java")
	home, err := sparkHome(prereq.Need(t, "venv"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := startCluster(home, dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sparkHome is the folder of Spark in the environment of a Python.
func sparkHome(python string) (string, error) {
	homes, err := filepath.Glob(filepath.Join(filepath.Dir(python), "..", "lib", "python3*", "site-packages", "pyspark"))
	if err != nil || len(homes) != 1 {
		return "", errors.Join(fmt.Errorf("pyspark is not in the environment of %s: %v", python, homes), err)
	}
	return homes[0], nil
}

func startCluster(home, dir string) (c *Cluster, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	if err := l.Close(); err != nil {
		return nil, err
	}
	c = &Cluster{URL: "spark://" + addr, dir: dir}
	defer func() {
		if err != nil {
			c.Stop()
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
		if err := start(name, "worker.Worker", "--cores", "1", "--memory", "1200m", "--work-dir", filepath.Join(dir, name), c.URL); err != nil {
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

// Stop ends the workers, which end their executors, and then the master.
func (c *Cluster) Stop() {
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
	c.procs = nil
}

// SubmitFlags are the flags of `cauce spark submit` for a small Spark with Delta Lake and Kafka at a master, "local[2]" or the URL of
// a Cluster, with further settings ("key=value"). The environment that it needs is set for the test.
func SubmitFlags(t testing.TB, master string, more ...string) []string {
	t.Helper()
	prereq.Need(t, "java")
	python, folder := prereq.Need(t, "venv"), prereq.Need(t, "jars")
	t.Setenv("PYSPARK_PYTHON", python)
	t.Setenv("SPARK_LOCAL_IP", "127.0.0.1")
	jars := Jars(t, folder)
	tmp := t.TempDir()
	flags := []string{"--spark-submit", filepath.Join(filepath.Dir(python), "spark-submit"), "--master", master}
	for _, c := range append([]string{
		"spark.jars=" + strings.Join(jars, ","), "spark.ui.enabled=false", "spark.driver.memory=1g", "spark.executor.memory=1g", "spark.local.dir=" + tmp,
		"spark.sql.shuffle.partitions=2", "spark.databricks.delta.snapshotPartitions=2", "spark.driver.host=127.0.0.1", "spark.driver.bindAddress=127.0.0.1",
		"spark.sql.warehouse.dir=" + filepath.Join(tmp, "warehouse"), "spark.driver.extraJavaOptions=" + ShortLived + " -Djava.io.tmpdir=" + tmp + " -Dderby.system.home=" + tmp,
		"spark.executor.extraJavaOptions=" + ShortLived,
	}, more...) {
		flags = append(flags, "--conf", c)
	}
	return flags
}

// ShortLived spares a JVM that lives for seconds the compiler for those that live for days.
const ShortLived = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

// Jars are those of some folders.
func Jars(t testing.TB, folders ...string) []string {
	t.Helper()
	var out []string
	for _, f := range folders {
		jars, err := filepath.Glob(filepath.Join(f, "*.jar"))
		if err != nil || len(jars) == 0 {
			t.Fatalf("no jars in %s (%v)", f, err)
		}
		out = append(out, jars...)
	}
	return out
}

// LogStores compiles the LogStores of deploy/spark, as its README says, with the jars of a folder, and gives the jar, which lies in dir.
func LogStores(python, jars, dir string) (string, error) {
	home, err := sparkHome(python)
	if err != nil {
		return "", err
	}
	sources, err := filepath.Glob(filepath.Join(prereq.Root(), "deploy", "spark", "*.java"))
	if err != nil || len(sources) == 0 {
		return "", errors.Join(errors.New("deploy/spark has no LogStore"), err)
	}
	classes, jar := filepath.Join(dir, "classes"), filepath.Join(dir, "put-if-absent.jar")
	path := filepath.Join(home, "jars", "*") + ":" + filepath.Join(jars, "*")
	for _, cmd := range [][]string{
		append([]string{"javac", "-Werror", "-cp", path, "-d", classes}, sources...),
		{"jar", "cf", jar, "-C", classes, "."},
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", cmd[0], err, out)
		}
	}
	return jar, nil
}
