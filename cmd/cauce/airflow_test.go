package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
)

// The DAGs of deploy/airflow are what the program renders for the template crypto.
func TestDeployedDagsAreCurrent(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	shell(t, dir, "cauce init . --template crypto")
	lake := filepath.Join(dir, "lake.yaml")
	for _, c := range []struct {
		file string
		args []string
	}{
		{"cauce_crypto.py", []string{"--dag-id", "cauce_crypto"}},
	} {
		args := append([]string{"airflow", "render", "--lake", lake, "--out", out, "--lake-path", "/opt/cauce/crypto/lake.yaml"}, c.args...)
		root := newRoot(&app{prog: "cauce", stdin: strings.NewReader(""), stdout: &strings.Builder{}, stderr: &strings.Builder{}})
		root.SetArgs(args)
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(out, c.file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(prereq.Root(), "deploy", "airflow", c.file))
		if err != nil || string(got) != string(want) {
			t.Errorf("deploy/airflow/%s is not what the program renders (%v): cauce %s", c.file, err, strings.Join(args, " "))
		}
	}
}
