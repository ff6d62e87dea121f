package sharing_test

import (
	"archive/zip"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestNotebookRuns executes the notebook that `cauce notebook` writes while a stream writes the table: deltalake, DuckDB and, over
// PostgreSQL's protocol, psycopg count what `cauce query` counts at the same version; it shows how the versions differ, and history
// and live events in one picture.
func TestNotebookRuns(t *testing.T) {
	python := prereq.Need(t, "clients")
	l := lab.NewLake(t)
	g := lab.NewGenerator(testscale.Rand(t), 2)
	g.History(t, l.Inbox(), 0, 400, 50)
	l.Run("run", "batch")
	before := len(l.Rows())
	events := l.Path("events.jsonl")
	g.Events(t, events, 150)
	l.Run("produce", "replay", events)
	l.Run("run", "stream", "--available-now")
	rows := len(l.Rows())
	if rows <= before {
		t.Fatalf("%d rows after %d: nothing live would be seen", rows, before)
	}
	address := loopback.Free(t)
	l.Run("notebook", "--out", "kit", "--pg", address)
	serve, stream := l.Start(nil, "serve", "--pg-listen", address), l.Start(nil, "run", "stream", "--trigger", "200ms")
	answers := func() bool {
		c, err := net.Dial("tcp", address)
		return err == nil && c.Close() == nil
	}
	for until := time.Now().Add(time.Minute); !answers(); time.Sleep(50 * time.Millisecond) {
		if !serve.Running() || time.Now().After(until) {
			t.Fatalf("cauce serve does not listen: %s", serve.Stderr.String())
		}
	}
	done := make(chan struct{})
	var producing sync.WaitGroup
	producing.Go(func() {
		for {
			g.Events(t, events, 20)
			if _, errs, code := l.Try("produce", "replay", events); code != 0 {
				t.Errorf("produce ended with %d: %s", code, errs)
				return
			}
			select {
			case <-done:
				return
			case <-time.After(time.Second):
			}
		}
	})

	cmd := exec.Command(python, filepath.Join(prereq.Root(), "test", "sharing", "notebook.py"), l.Path("kit/unified_events.ipynb"))
	cmd.Env = append(os.Environ(), "MPLBACKEND=module://matplotlib_inline.backend_inline", "IPYTHONDIR="+t.TempDir(), "MPLCONFIGDIR="+t.TempDir(), "JUPYTER_RUNTIME_DIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	close(done)
	producing.Wait()
	var out struct {
		Text     string
		Pictures int
	}
	if err != nil || json.Unmarshal(b, &out) != nil {
		t.Fatalf("the notebook ended: %v %s", err, b)
	}
	plain := strings.ReplaceAll(out.Text, ",", "")
	counted := regexp.MustCompile(`version (\d+): (\d+) rows`).FindStringSubmatch(plain)
	if counted == nil {
		t.Fatalf("the notebook does not say what it counts:\n%s", out.Text)
	}
	var q struct {
		Rows []struct{ N int64 }
	}
	l.JSON(&q, "query", "SELECT count(*) AS n FROM unified_events", "--as-of", counted[1])
	for _, want := range []string{fmt.Sprintf(`version %s: %d rows`, counted[1], q.Rows[0].N), `history +\d+`, `live +\d+`, fmt.Sprintf(`the same %d rows`, q.Rows[0].N),
		fmt.Sprintf(`(?m) %s .* %d +[0-9]+$`, counted[1], q.Rows[0].N), `(?m)MERGE +\d+ +[1-9]\d*$`} {
		if !regexp.MustCompile(want).MatchString(plain) {
			t.Errorf("the notebook does not show %s:\n%s", want, out.Text)
		}
	}
	if after := len(l.Rows()); int64(after) < q.Rows[0].N || q.Rows[0].N < int64(rows) || out.Pictures != 1 {
		t.Errorf("%d rows before the notebook, %d in it, %d after it; %d pictures", rows, q.Rows[0].N, after, out.Pictures)
	}
	for _, p := range []*lab.Process{serve, stream} {
		p.Signal(syscall.SIGTERM)
		if code := p.Wait(time.Minute); code != 0 {
			t.Errorf("a process ended with %d: %s", code, p.Stderr.String())
		}
	}
}

// TestConnectionFiles: the files for BI tools are what their formats want, and hold no password.
func TestConnectionFiles(t *testing.T) {
	l := lab.NewLake(t)
	l.Run("notebook", "--out", "kit", "--pg", "lake.example.org:6543", "--user", "analyst")
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(l.Path("kit/unified_events" + name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var tds struct {
		Connection struct {
			Class string `xml:"class,attr"`
			Named []struct {
				Connection struct {
					Class  string `xml:"class,attr"`
					Server string `xml:"server,attr"`
					Port   string `xml:"port,attr"`
					DB     string `xml:"dbname,attr"`
					User   string `xml:"username,attr"`
				} `xml:"connection"`
			} `xml:"named-connections>named-connection"`
			Relation struct {
				Table string `xml:"table,attr"`
			} `xml:"relation"`
		} `xml:"connection"`
	}
	if err := xml.Unmarshal(read(".tds"), &tds); err != nil || len(tds.Connection.Named) != 1 {
		t.Fatalf("%v: %s", err, read(".tds"))
	}
	if c := tds.Connection.Named[0].Connection; c.Class != "postgres" || c.Server != "lake.example.org" || c.Port != "6543" || c.DB != "lake" || c.User != "analyst" ||
		tds.Connection.Relation.Table != "[public].[unified_events]" {
		t.Errorf("Tableau: %+v", tds)
	}
	var pbids struct {
		Version     string
		Connections []struct {
			Mode    string
			Details struct {
				Protocol string
				Address  struct{ Server, Database string }
			}
		}
	}
	if err := json.Unmarshal(read(".pbids"), &pbids); err != nil || len(pbids.Connections) != 1 || pbids.Connections[0].Details.Protocol != "postgresql" ||
		pbids.Connections[0].Details.Address.Server != "lake.example.org:6543" || pbids.Connections[0].Details.Address.Database != "lake" {
		t.Errorf("Power BI: %+v %v", pbids, err)
	}
	z, err := zip.OpenReader(l.Path("kit/unified_events-superset.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	names := map[string]bool{}
	for _, f := range z.File {
		names[f.Name] = true
	}
	for _, want := range []string{"lake_export/metadata.yaml", "lake_export/databases/lake.yaml", "lake_export/datasets/lake/unified_events.yaml"} {
		if !names[want] {
			t.Errorf("Superset's import lacks %s: %v", want, names)
		}
	}
	if _, errs, code := l.Try("notebook", "--out", "kit"); code != 2 || !strings.Contains(errs, "--force") {
		t.Errorf("files that exist: %d %s", code, errs)
	}
	l.Run("notebook", "--out", "kit", "--force")
}
