package infra

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/test/lab"
)

// TestRelease packs the program that is under test as make release packs the one that it builds: an archive whose program
// runs, with completions that shells read, a manual page for each command, a bill of materials, and checksums that hold.
func TestRelease(t *testing.T) {
	bin := lab.NewLake(t).Program()
	dist := filepath.Join(t.TempDir(), "dist")
	cmd := exec.Command("sh", "deploy/release/release.sh", "v1.2.3-test")
	cmd.Dir = prereq.Root()
	cmd.Env = append(os.Environ(), "DIST="+dist, "BIN="+bin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sums, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	name := "cauce_v1.2.3-test_linux_" + runtime.GOARCH
	for _, file := range []string{name + ".tar.gz", name + ".cdx.json"} {
		b, err := os.ReadFile(filepath.Join(dist, file))
		if err != nil {
			t.Fatal(err)
		}
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256(b), file); !strings.Contains(string(sums), line) {
			t.Errorf("SHA256SUMS does not have %s:\n%s", line, sums)
		}
	}
	dir := t.TempDir()
	unpack(t, filepath.Join(dist, name+".tar.gz"), dir)
	in := func(path string) string { return filepath.Join(dir, name, path) }
	if out, err := exec.Command(in("cauce"), "version").CombinedOutput(); err != nil {
		t.Errorf("the packed program: %v: %s", err, out)
	}
	if out, err := exec.Command("bash", "-n", in("completions/cauce.bash")).CombinedOutput(); err != nil {
		t.Errorf("bash does not read its completions: %v: %s", err, out)
	}
	for path, want := range map[string]string{
		"LICENSE": "", "README.md": "", "CHANGELOG.md": "", "LICENSES-pages.txt": "@codemirror/view", "completions/_cauce": "#compdef cauce", "completions/cauce.fish": "complete -c cauce",
		"completions/cauce.ps1": "Register-ArgumentCompleter", "man/man1/cauce.1": ".TH", "man/man1/cauce-query.1": "as-of", "man/man1/cauce-table-optimize.1": "zorder",
	} {
		b, err := os.ReadFile(in(path))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %q: %v", path, want, err)
		}
	}
	var bom struct {
		Format     string `json:"bomFormat"`
		Components []struct{ Name, Version string }
	}
	b, err := os.ReadFile(filepath.Join(dist, name+".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &bom); err != nil || bom.Format != "CycloneDX" {
		t.Fatalf("bill of materials: %v, format %q", err, bom.Format)
	}
	parts := map[string]string{}
	for _, c := range bom.Components {
		parts[c.Name] = c.Version
	}
	for _, want := range []string{"github.com/duckdb/duckdb-go/v2", "github.com/apache/arrow-go/v18", "github.com/spf13/cobra"} {
		if parts[want] == "" {
			t.Errorf("the bill of materials lacks %s; it has %d parts", want, len(parts))
		}
	}
}

// unpack unpacks an archive of files and folders.
func unpack(t *testing.T, path, dir string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.FileInfo().IsDir() {
			if err := os.MkdirAll(to, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, h.FileInfo().Mode())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, r); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
