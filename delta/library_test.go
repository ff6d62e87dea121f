package delta_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/testscale"
)

// TestLibraryExample builds a module of its own that imports this package, without cgo, and runs it twice: the second
// time everything that it upserts is there.
func TestLibraryExample(t *testing.T) {
	if testscale.Current() == testscale.Short {
		return // a build without cgo is a whole build
	}
	dir, err := filepath.Abs(filepath.Join("..", "examples", "library"))
	if err != nil {
		t.Fatal(err)
	}
	bin, folder := filepath.Join(t.TempDir(), "library"), t.TempDir()
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod -buildvcs=false", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for run, want := range []string{"2 inserted, 0 updated, 0 lost", "0 inserted, 0 updated, 2 lost"} {
		out, err := exec.Command(bin, folder).CombinedOutput()
		if err != nil {
			t.Fatalf("run %d: %v\n%s", run, err, out)
		}
		if !strings.Contains(string(out), want) || !strings.Contains(string(out), "Lima 21\nQuito 14\n") {
			t.Errorf("run %d prints %q, want %q and the rows", run, out, want)
		}
	}
}
