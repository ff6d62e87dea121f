package flow

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// batchReport is what `cauce run batch --json` says of a run that met bad files.
type batchReport struct {
	report
	FailedFiles []struct{ File, Error string } `json:"failed_files"`
	Warnings    []string                       `json:"warnings"`
}

// TestBadFilesAreToldAndTheOthersGoOn gives a lake one good file and one bad file of each kind. The bad file must be
// named with its reason, or its record be in quarantine; the good one must be in the table.
func TestBadFilesAreToldAndTheOthersGoOn(t *testing.T) {
	const good = csvHeader + "BTCUSDT,1,1,1,0,1724155200000,True,True\n"
	noise := make([]byte, 200_000)
	rnd := rand.NewChaCha8([32]byte{1})
	if _, err := rnd.Read(noise); err != nil {
		t.Fatal(err)
	}
	long := "BTCUSDT,2,1,1," + strings.Repeat("9", testscale.Count(t, "long-record-mb")<<20) + ",1724155200000,True,True\n"
	for _, c := range []struct {
		name, file  string
		text        string
		link        string
		code        int
		quarantined bool   // else nothing in quarantine
		tells       string // what the report says of the file; "" nothing
	}{
		{name: "empty", file: "historico_bad.csv", text: "", tells: "empty"},
		{name: "only a header", file: "historico_bad.csv", text: csvHeader},
		{name: "garbage", file: "historico_bad.csv", text: string(noise), code: 1, tells: "historico_bad.csv"},
		{name: "garbage named gz", file: "historico_bad.csv.gz", text: string(noise), code: 1, tells: "historico_bad.csv.gz"},
		{name: "one long record", file: "historico_bad.csv", text: csvHeader + long, quarantined: true},
		{name: "no price column", file: "historico_bad.csv", text: "symbol,trade_id,qty,time,is_buyer_maker\nBTCUSDT,3,1,1724155200000,True\n", code: 1, tells: "price"},
		{name: "dangling link", file: "historico_bad.csv", link: "/nowhere/at/all.csv", code: 1, tells: "historico_bad.csv"},
		{name: "short record", file: "historico_bad.csv", text: csvHeader + "BTCUSDT,4\n", quarantined: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.NewLake(t)
			for name, text := range map[string]string{"historico_good.csv": good, c.file: c.text} {
				if name == c.file && c.link != "" {
					if err := os.Symlink(c.link, filepath.Join(l.Inbox(), name)); err != nil {
						t.Fatal(err)
					}
					continue
				}
				if err := os.WriteFile(filepath.Join(l.Inbox(), name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			out, errs, code := l.Try("run", "batch", "--json")
			var r batchReport
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatalf("%v in %q, standard error %q", err, out, errs)
			}
			told := fmt.Sprint(r.FailedFiles, r.Warnings)
			if code != c.code || (code == 1) != (len(r.FailedFiles) == 1) {
				t.Errorf("exit code %d, want %d; %s", code, c.code, told)
			}
			if c.tells != "" && !strings.Contains(told, c.tells) {
				t.Errorf("the report says nothing of %q: %s", c.tells, told)
			}
			if (r.Quarantined == 1) != c.quarantined || r.Inserted != 1 {
				t.Errorf("%d quarantined, %d inserted", r.Quarantined, r.Inserted)
			}
			if got := l.Run("query", "SELECT event_id FROM unified_events", "--format", "csv"); got != "event_id\nBTCUSDT-1\n" {
				t.Errorf("the table is %q", got)
			}
		})
	}
}

func TestUnknownKeyInTheLakeFileNamesItsPlace(t *testing.T) {
	l := lab.NewLake(t)
	path := filepath.Join(l.Dir, "lake.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "    sequence:", "    sequense:", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	_, errs, code := l.Try("run", "batch")
	if code != 2 || !strings.Contains(errs, "lake.yaml:17:5") || !strings.Contains(errs, "sequence") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}
