// Package sharing_test reads shared tables with the clients that people have, while the tables are being written.
package sharing_test

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// client is a running client.py.
type client struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Scanner
}

func newClient(t *testing.T, python, profile, table string) *client {
	t.Helper()
	cmd := exec.Command(python, filepath.Join(prereq.Root(), "test", "sharing", "client.py"), profile, table)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return &client{t: t, in: in, out: bufio.NewScanner(out)}
}

type answer struct {
	Failed  string
	Rows    int
	Version int
	Tables  []string
}

func (c *client) try(cmd map[string]any) answer {
	c.t.Helper()
	b, err := json.Marshal(cmd)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.in.Write(append(b, '\n')); err != nil {
		c.t.Fatal(err)
	}
	var a answer
	if !c.out.Scan() || json.Unmarshal(c.out.Bytes(), &a) != nil {
		c.t.Fatalf("%s: the client answered %q", b, c.out.Text())
	}
	return a
}

func (c *client) do(cmd map[string]any) answer {
	c.t.Helper()
	what := fmt.Sprint(cmd)
	a := c.try(cmd)
	if a.Failed != "" {
		c.t.Fatalf("%s: %s", what, a.Failed)
	}
	return a
}

// served is a lake whose shares are served.
type served struct {
	*lab.Lake
	process  *lab.Process
	endpoint string
}

func serve(t *testing.T, l *lab.Lake) *served {
	t.Helper()
	addr := loopback.Free(t)
	s := &served{Lake: l, process: l.Start(nil, "share", "serve", "--listen", addr), endpoint: "http://" + addr + "/delta-sharing/"}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		r, err := http.Get(s.endpoint + "shares")
		if err == nil {
			_ = r.Body.Close()
			if r.StatusCode != http.StatusUnauthorized {
				t.Fatalf("without a token: %d", r.StatusCode)
			}
			return s
		}
		if time.Now().After(deadline) || !s.process.Running() {
			t.Fatalf("the server does not answer: %v", err)
		}
	}
}

// share makes a recipient and returns its profile file.
func (s *served) share(name string, args ...string) string {
	file := s.Path(name + ".share")
	s.Run(append([]string{"share", "create", name, "--endpoint", s.endpoint, "--output", file}, args...)...)
	return file
}

// TestPythonClientReadsWhatIsWritten: the client delta-sharing reads versions, changes and the newest state in both
// formats, from a table that a batch is writing to, and gets what `cauce query` and `cauce table cdf` give.
func TestPythonClientReadsWhatIsWritten(t *testing.T) {
	python := prereq.Need(t, "clients")
	l := lab.NewLake(t)
	g := lab.NewGenerator(testscale.Rand(t), 3)
	write := func(day int) {
		t.Helper()
		g.History(t, l.Inbox(), day, 300, 50)
		if _, errs, code := l.Try("run", "batch"); code != 0 {
			t.Fatalf("run batch: %d %s", code, errs)
		}
	}
	write(0)
	l.Run("table", "properties", "unified_events", "--set", "delta.enableChangeDataFeed=true")
	write(1) // corrections of the first file mark rows in its deletion vectors
	write(2)
	s := serve(t, l)
	profile := s.share("partners")
	c := newClient(t, python, profile, "partners.public.unified_events")
	if got := c.do(map[string]any{"do": "tables"}).Tables; !slices.Equal(got, []string{"unified_events"}) {
		t.Errorf("tables: %v", got)
	}
	first := c.do(map[string]any{"do": "version"}).Version

	// A writer goes on while the client reads. Each state that it sees is one of the table's.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for day := range 3 {
			g.History(t, l.Inbox(), day, 200, 50)
			if _, errs, code := l.Try("run", "batch"); code != 0 {
				t.Errorf("run batch: %d %s", code, errs)
			}
		}
	}()
	var seen []int
	out := filepath.Join(t.TempDir(), "rows.csv")
	for i := 0; ; i++ {
		seen = append(seen, c.do(map[string]any{"do": "rows", "out": out, "delta": []any{nil, true, false}[i%3]}).Rows)
		select {
		case <-done:
		default:
			continue
		}
		break
	}
	last := c.do(map[string]any{"do": "version"}).Version
	if last <= first {
		t.Fatalf("nothing was written: versions %d and %d", first, last)
	}
	counts := map[int]bool{}
	rowsAt := map[int][]string{}
	for v := first; v <= last; v++ {
		rowsAt[v] = lab.Lines(t, []byte(l.Run("query", "SELECT "+strings.Join(lab.Columns, ", ")+" FROM unified_events", "--as-of", fmt.Sprint(v), "--format", "csv")), lab.Columns)
		counts[len(rowsAt[v])] = true
	}
	if !slices.IsSorted(seen) {
		t.Errorf("counts fell while rows were added: %v", seen)
	}
	for _, n := range seen {
		if !counts[n] {
			t.Errorf("%d rows were seen, which no version has: %v", n, counts)
		}
	}
	t.Logf("%d reads while versions %d to %d were written: %v rows", len(seen), first, last, seen)

	for _, v := range []int{first, last} {
		for _, delta := range []any{nil, true, false} {
			c.do(map[string]any{"do": "rows", "out": out, "delta": delta, "version": v})
			text, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if d := lab.Diff(rowsAt[v], lab.Lines(t, text, lab.Columns)); d != "" {
				t.Errorf("version %d, delta format %v: %s", v, delta, d)
			}
		}
	}
	if len(rowsAt[first]) == len(rowsAt[last]) {
		t.Errorf("time travel shows no difference: %d rows", len(rowsAt[first]))
	}
	// Hints make the answer smaller, not wrong.
	hint := `{"op":"equal","children":[{"op":"column","name":"event_date","valueType":"date"},{"op":"literal","value":"2024-08-19","valueType":"date"}]}`
	all, some := len(rowsAt[last]), c.do(map[string]any{"do": "rows", "out": out, "version": last, "jsonPredicateHints": hint}).Rows
	var day int
	for _, line := range rowsAt[last] {
		if strings.HasSuffix(line, "|2024-08-19") {
			day++
		}
	}
	if some != day || some == 0 || some == all {
		t.Errorf("a day by its hint: %d rows, not %d of %d", some, day, all)
	}
	if n := c.do(map[string]any{"do": "rows", "out": out, "limit": 7}).Rows; n != 7 {
		t.Errorf("a limit of 7 gave %d rows", n)
	}

	// Changes, as many of each kind and of the same keys as the table has them.
	want := changes(t, l.Run("table", "cdf", "unified_events", "--from", fmt.Sprint(first), "--to", fmt.Sprint(last), "--format", "csv"))
	for _, delta := range []bool{false, true} {
		c.do(map[string]any{"do": "changes", "out": out, "delta": delta, "starting_version": first, "ending_version": last})
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if got := changes(t, string(text)); !slices.Equal(got, want) || len(got) == 0 {
			t.Errorf("changes %d to %d, delta format %v: %d rows, not %d\n%s", first, last, delta, len(got), len(want), lab.Diff(want, got))
		}
	}

	// Who is not known, no longer known or known no more gets nothing.
	refused := func(profile, part string) {
		t.Helper()
		if a := newClient(t, python, profile, "partners.public.unified_events").try(map[string]any{"do": "rows", "out": out}); !strings.Contains(a.Failed, part) {
			t.Errorf("%s: %+v, want %q", profile, a, part)
		}
	}
	short := s.share("short", "--expires", "1s")
	time.Sleep(1100 * time.Millisecond) // the token's own time passes, which is the server process's clock
	refused(short, "401")
	var list struct {
		Recipients []struct{ ID, Share, State string }
	}
	l.JSON(&list, "share", "list")
	if len(list.Recipients) != 2 || list.Recipients[0].State != "good" || list.Recipients[1].State != "expired" {
		t.Errorf("share list: %+v", list)
	}
	file := fileURL(t, profile)
	forged := strings.Replace(file, "X-Amz-Signature=", "X-Amz-Signature=00", 1)
	log := file[:strings.Index(file, "event_date=")] + "_delta_log/00000000000000000000.json" + file[strings.Index(file, "?"):]
	for u, status := range map[string]int{file: 200, forged: 403, log: 403, strings.Replace(file, "/files/data/", "/files/data/../../", 1): 404} {
		r, err := http.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		if _ = r.Body.Close(); r.StatusCode != status && (status == http.StatusOK || r.StatusCode == http.StatusOK) {
			t.Errorf("GET %s: %d, not %d", u, r.StatusCode, status)
		}
	}
	l.Run("share", "revoke", "partners")
	refused(profile, "401")
	if r, err := http.Get(file); err != nil || r.StatusCode != http.StatusForbidden {
		t.Errorf("a URL of a recipient that was revoked: %v %v", r, err)
	} else {
		_ = r.Body.Close()
	}
	s.process.Signal(syscall.SIGTERM)
	if code := s.process.Wait(time.Minute); code != 0 {
		t.Errorf("SIGTERM: exit code %d", code)
	}
}

// fileURL asks for the table and gives the URL of a data file.
func fileURL(t *testing.T, profile string) string {
	t.Helper()
	b, err := os.ReadFile(profile)
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Endpoint, BearerToken string }
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, p.Endpoint+"shares/partners/schemas/public/tables/unified_events/query", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+p.BearerToken)
	r.Header.Set("delta-sharing-capabilities", "responseformat=delta;readerfeatures=deletionvectors")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var l struct {
			File struct {
				DeltaSingleAction struct{ Add struct{ Path string } }
			}
		}
		if err := lines.Decode(&l); err != nil {
			t.Fatalf("no data file: %v", err)
		}
		if path := l.File.DeltaSingleAction.Add.Path; path != "" {
			u, err := url.Parse(path)
			if err != nil {
				t.Fatal(err)
			}
			u.RawPath = ""
			return strings.ReplaceAll(u.String(), "%3D", "=")
		}
	}
}

// changes reads the key, kind and version of each change from a CSV file.
func changes(t *testing.T, text string) []string {
	t.Helper()
	records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(records) == 0 {
		t.Fatalf("changes: %v", err)
	}
	var at []int
	for _, c := range []string{"_commit_version", "event_id", "_change_type"} {
		at = append(at, slices.Index(records[0], c))
	}
	if slices.Contains(at, -1) {
		t.Fatalf("changes have the columns %v", records[0])
	}
	var out []string
	for _, r := range records[1:] {
		out = append(out, strings.Join([]string{r[at[0]], r[at[1]], r[at[2]]}, "|"))
	}
	slices.Sort(out)
	return out
}
