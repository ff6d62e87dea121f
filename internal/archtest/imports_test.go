package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
)

const module = "github.com/cauce-data/cauce"

// flow is the order in which a row travels, nearest to the bytes first. A folder imports only folders of earlier
// lines, and itself; folders of one line do not know each other. Folders with /* hold one package per outside system,
// and those do not know each other either.
var flow = [][]string{
	{"objstore"},
	{"delta"},
	{"pipeline"},
	{"engine/*", "connect/*", "catalog"},
	{"ingest"},
	{"schedule"},
	{"serve"},
	{"cmd/*"},
}

// beyond are imports that the flow does not give, each with its reason.
var beyond = map[[2]string]string{
	{"connect/simulate", "connect/binance"}: "the simulated exchange speaks the client's messages, from one definition",
	{"test/demofull", "test/lab"}:           "the run of the whole architecture starts the program as the tests do",
}

// goPackage is what go list tells of a package.
type goPackage struct {
	ImportPath string
	Dir        string
	Standard   bool
	GoFiles    []string
	CgoFiles   []string
	Imports    []string
}

func list(t *testing.T, env []string, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Standard,GoFiles,CgoFiles,Imports"}, args...)...)
	cmd.Dir = prereq.Root()
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("go list %v: %s", args, exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// place gives the line of the flow on which a package stands and the folder that must not know its neighbours; -1
// where it is no part of the flow.
func place(rel string) (line int, folder string) {
	for i, names := range flow {
		for _, name := range names {
			base, many := strings.CutSuffix(name, "/*")
			if rel != base && !strings.HasPrefix(rel, base+"/") {
				continue
			}
			if many && rel != base {
				base = path.Join(base, strings.SplitN(strings.TrimPrefix(rel, base+"/"), "/", 2)[0])
			}
			return i, base
		}
	}
	return -1, rel
}

// mayImport says why one package of the project must not import another, or "".
func mayImport(from, to string) string {
	if strings.HasPrefix(to, "internal/") || beyond[[2]string{from, to}] != "" {
		return ""
	}
	toLine, toFolder := place(to)
	if toLine < 0 {
		return "it is no part of the flow"
	}
	if strings.HasPrefix(from, "internal/") {
		return "internal packages help, they know nothing of the flow"
	}
	fromLine, fromFolder := place(from)
	switch {
	case fromLine < 0: // test/ and bench/ drive the program from outside
		return ""
	case fromFolder == toFolder, toLine < fromLine:
		return ""
	case toLine == fromLine:
		return "folders of one line do not know each other"
	}
	return "it stands further from the bytes"
}

func TestImportDirections(t *testing.T) {
	for _, p := range list(t, nil, "-tags", "duckdb_arrow", "./...") {
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module+"/")
			if !ours {
				continue
			}
			if why := mayImport(from, to); why != "" {
				t.Errorf("%s imports %s: %s", from, to, why)
			}
		}
	}
}

func TestMayImport(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"delta", "objstore", true},
		{"objstore", "delta", false},
		{"objstore/fault", "objstore", true},
		{"delta", "pipeline", false},
		{"engine/duckdb", "ingest", false},
		{"engine/duckdb", "catalog", false},
		{"connect/csv", "connect/buffer", false},
		{"connect/simulate", "connect/binance", true},
		{"ingest", "connect/csv", true},
		{"cmd/cauce", "schedule", true},
		{"delta", "internal/prereq", true},
		{"internal/prereq", "delta", false},
		{"delta", "test/kill", false},
		{"test/kill", "delta", true},
	} {
		if why := mayImport(c.from, c.to); (why == "") != c.ok {
			t.Errorf("mayImport(%s, %s) = %q, want allowed: %v", c.from, c.to, why, c.ok)
		}
	}
}

// deltaModules are the modules below delta. It is of use to other Go projects, so it brings neither cgo nor an engine
// nor a cloud's SDK; a new module here is a decision.
var deltaModules = []string{
	"github.com/RoaringBitmap/roaring/v2", // deletion vectors
	"github.com/apache/arrow-go/v18",      // batches and Parquet
	"github.com/google/uuid",              // file names
	"github.com/goccy/go-json",            // the log
	"golang.org/x/sync",                   // bounded concurrency
	"golang.org/x/sys",                    // locks and fsync of the local store
	// below arrow-go and roaring
	"github.com/andybalholm/brotli", "github.com/apache/thrift", "github.com/bits-and-blooms/bitset", "github.com/golang/snappy",
	"github.com/google/flatbuffers", "github.com/klauspost/compress", "github.com/klauspost/asmfmt", "github.com/klauspost/cpuid/v2",
	"github.com/mschoch/smat", "github.com/pierrec/lz4/v4", "github.com/zeebo/xxh3", "github.com/tidwall", "github.com/cespare/xxhash/v2",
	"golang.org/x/exp", "golang.org/x/xerrors", "golang.org/x/net", "golang.org/x/text", "golang.org/x/tools", "golang.org/x/mod",
	"google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto", "gonum.org/v1/gonum", "modernc.org",
}

func TestDeltaNeedsNoCgoAndNoCloud(t *testing.T) {
	const nocgo = "CGO_ENABLED=0"
	for _, p := range list(t, []string{nocgo}, "-deps", "./objstore", "./delta") {
		if p.Standard {
			continue
		}
		if ours, ok := strings.CutPrefix(p.ImportPath, module+"/"); ok {
			if ours != "objstore" && ours != "delta" && !strings.HasPrefix(ours, "delta/") && !strings.HasPrefix(ours, "internal/") {
				t.Errorf("delta needs %s", ours)
			}
			continue
		}
		if len(p.CgoFiles) > 0 {
			t.Errorf("delta needs cgo in %s", p.ImportPath)
		}
		if !slices.ContainsFunc(deltaModules, func(m string) bool { return p.ImportPath == m || strings.HasPrefix(p.ImportPath, m+"/") }) {
			t.Errorf("delta needs %s, which the list of its modules has not", p.ImportPath)
		}
	}
	if testing.Short() {
		return
	}
	cmd := exec.Command("go", "build", "./objstore", "./delta")
	cmd.Dir, cmd.Env = prereq.Root(), append(os.Environ(), nocgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("delta does not build without cgo: %v\n%s", err, out)
	}
}

func TestObjstoreRootIsStandardLibraryOnly(t *testing.T) {
	for _, p := range list(t, nil, "./objstore") {
		for _, imp := range p.Imports {
			if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
				t.Errorf("objstore imports %s", imp)
			}
		}
	}
}
