package web

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBundleIsCurrent: the libraries in assets/lib were made of what stands in editor/ now, so that a build of the program
// needs no Node and still has the newest.
func TestBundleIsCurrent(t *testing.T) {
	b, err := os.ReadFile("assets/lib/SOURCES.sha256")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for _, line := range lines {
		hash, name, _ := strings.Cut(line, "  ")
		source, err := os.ReadFile(filepath.Join("editor", name))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(source)); got != hash {
			t.Errorf("editor/%s is not what the bundles were made of: make pages", name)
		}
	}
	if len(lines) < 5 {
		t.Errorf("SOURCES.sha256 names %d files", len(lines))
	}
	for _, name := range []string{"editor.js", "chart.js", "chart.css", "LICENSES.txt"} {
		if _, err := assets.ReadFile("assets/lib/" + name); err != nil {
			t.Error(err)
		}
	}
}
