package cloud

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

type copied struct {
	FilesCopied int `json:"files_copied"`
	FilesThere  int `json:"files_there"`
	Tables      map[string]struct {
		Version int64
		Hash    string
	}
}

// TestCopyThroughAllStores takes a lake from disk to S3, to GCS and back to disk, working on it at each place: nothing is
// read again, the stream goes on from its offsets, and no row changes.
func TestCopyThroughAllStores(t *testing.T) {
	prereq.Need(t, "versitygw")
	prereq.Need(t, "fake-gcs-server")
	s3, gcs := cloudtest.NewS3(t), cloudtest.NewGCS(t)
	proxy := cloudtest.NewProxy(t, s3.Endpoint)
	l := lab.NewLake(t)
	l.Env = append(s3.Env(proxy.URL), gcs.Env("")...)
	g := lab.NewGenerator(testscale.Rand(t), 3)
	bad := 0
	for day := range 2 {
		bad += g.History(t, l.Inbox(), day, 600, 50).Bad
	}
	events := func(root string, n int) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "events.jsonl")
		g.Events(t, path, n)
		l.Run("produce", "replay", path)
		var r struct {
			RowsRead int64 `json:"rows_read"`
		}
		l.JSON(&r, "--root", root, "run", "stream", "--available-now")
		if want := int64(n + (n+96)/97); r.RowsRead != want {
			t.Errorf("the stream at %s read %d events, %d were new", root, r.RowsRead, want)
		}
	}
	here := l.Path("data")
	l.Run("run", "batch")
	l.Run("table", "optimize", "unified_events")
	events(here, 200)

	var raw int64 // bytes of the files that the batch has read
	files, err := filepath.Glob(filepath.Join(here, "raw", "batch", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		i, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		raw += i.Size()
	}

	from := here
	for _, to := range []string{"s3://" + s3.Bucket(t, "one") + "/lake", "gs://" + gcs.Bucket(t, "two"), l.Path("back")} {
		var c copied
		if strings.HasPrefix(to, "s3:") {
			// Killed in the middle, it goes on where it was.
			proxy.Add(cloudtest.Rule{Method: "PUT", Effect: cloudtest.Slow})
			p := l.Start(nil, "--root", from, "copy", "--to", to)
			for deadline := time.Now().Add(time.Minute); puts(proxy) < 12 && time.Now().Before(deadline); {
				time.Sleep(5 * time.Millisecond)
			}
			p.Kill()
			p.Wait(time.Minute)
			proxy.Clear()
			l.JSON(&c, "--root", from, "copy", "--to", to)
			if c.FilesThere < 1 || c.FilesCopied < 1 {
				t.Errorf("after a kill %d files were there and %d copied", c.FilesThere, c.FilesCopied)
			}
		} else {
			l.JSON(&c, "--root", from, "copy", "--to", to)
		}
		if len(c.Tables) != 2 {
			t.Fatalf("tables %+v", c.Tables)
		}
		// The copy has compared the hashes of all rows itself; that it is right to say so is seen once from outside.
		if from == here {
			var again copied
			l.JSON(&again, "--root", from, "copy", "--to", to)
			if again.FilesCopied != 0 || again.FilesThere != c.FilesThere+c.FilesCopied {
				t.Errorf("copied again: %+v after %+v", again, c)
			}
			if a, b := l.Run("--root", from, "table", "hash", "unified_events"), l.Run("--root", to, "table", "hash", "unified_events"); a != b {
				t.Errorf("hash %s at %s, %s at %s", a, from, b, to)
			}
		}
		var batch struct {
			FilesRead int `json:"files_read"`
			Epochs    int
			Requests  usage
		}
		l.JSON(&batch, "--root", to, "run", "batch")
		if batch.FilesRead != 0 || batch.Epochs != 0 {
			t.Errorf("batch at %s is no no-op: %+v", to, batch)
		}
		if got := batch.Requests["get"].Bytes; got >= raw {
			t.Errorf("to find that out the batch at %s read %d bytes; the files have %d", to, got, raw)
		}
		events(to, 100)
		if d := lab.Diff(g.Expected.Lines(), lab.Lines(t, []byte(l.Run("--root", to, "query", "SELECT "+strings.Join(lab.Columns, ", ")+" FROM unified_events", "--format", "csv")), lab.Columns)); d != "" {
			t.Fatalf("at %s: %s", to, d)
		}
		// The target has gone on by itself.
		if from != here {
			from = to
			continue
		}
		if out, errs, code := l.Try("--root", from, "copy", "--to", to); code != 2 || !strings.Contains(errs, "gone on") {
			t.Errorf("copy over a lake that has gone on: %d %s%s", code, out, errs)
		}
		from = to
	}
	// Files that are new at the last place are read there.
	g.History(t, l.Path("back/raw/batch"), 2, 500, 50)
	l.Run("--root", from, "run", "batch")
	if d := lab.Diff(g.Expected.Lines(), lab.Lines(t, []byte(l.Run("--root", from, "query", "SELECT "+strings.Join(lab.Columns, ", ")+" FROM unified_events", "--format", "csv")), lab.Columns)); d != "" {
		t.Fatal(d)
	}
	if out, errs, code := l.Try("--root", from, "copy", "--to", from+"/inside"); code != 2 || !strings.Contains(errs, "in the other") {
		t.Errorf("copy into itself: %d %s%s", code, out, errs)
	}
}

func puts(p *cloudtest.Proxy) int {
	n := 0
	for _, r := range p.Requests() {
		if r.Method == http.MethodPut {
			n++
		}
	}
	return n
}
