package spark

import (
	"os"
	"sync"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/sparktest"
)

var shared struct {
	sync.Mutex
	c   *sparktest.Cluster
	dir string
}

// TestMain ends the cluster that the tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	if shared.c != nil {
		shared.c.Stop()
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// master gives the URL of the tests' cluster, which the first of them starts from the jars of the pyspark package.
func master(t *testing.T) string {
	t.Helper()
	prereq.Need(t, "java")
	prereq.Need(t, "venv")
	shared.Lock()
	defer shared.Unlock()
	if shared.c == nil {
		dir, err := os.MkdirTemp("", "cauce-spark-cluster-")
		if err != nil {
			t.Fatal(err)
		}
		shared.dir, shared.c = dir, sparktest.StartCluster(t, dir)
	}
	return shared.c.URL
}
