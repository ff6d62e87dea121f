package flow

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/test/lab"
)

// TestRecordedPostsLand sends the recorded events of a Jetstream server through producer, buffer and stream into the table
// of examples/social: every post is there as it was written, a deletion is a tombstone, and every other event is counted
// by its kind.
func TestRecordedPostsLand(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(prereq.Need(t, "shared"), "realdata", "bluesky_jetstream_v1_expected.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	type post struct{ id, author, text, lang, created, at, rev string }
	want, deleted, kinds := map[string]post{}, 0, map[string]int64{}
	frames := slices.Collect(strings.Lines(string(text)))
	for _, f := range frames {
		var e struct {
			DID    string
			TimeUS int64 `json:"time_us"`
			Kind   string
			Commit struct {
				Rev, Operation, Collection, Rkey string
				Record                           struct {
					Text      string
					CreatedAt time.Time
					Langs     []string
				}
			}
		}
		if err := json.Unmarshal([]byte(f), &e); err != nil {
			t.Fatal(err)
		}
		c := e.Commit
		switch {
		case e.Kind != "commit":
			kinds[e.Kind]++
		case c.Collection != "app.bsky.feed.post":
			kinds[c.Collection]++
		case c.Operation == "delete":
			deleted++
		default:
			p := post{"bluesky-" + e.DID + "/" + c.Rkey, e.DID, c.Record.Text, "", fmt.Sprint(c.Record.CreatedAt.UnixMicro()), fmt.Sprint(e.TimeUS), c.Rev}
			if len(c.Record.Langs) > 0 {
				p.lang = strings.ToLower(c.Record.Langs[0])
			}
			want[p.id] = p
		}
	}
	if len(frames) != 152 || len(want) != 17 || deleted != 1 {
		t.Fatalf("%d events, %d posts and %d deletions are recorded", len(frames), len(want), deleted)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		for _, f := range frames {
			if ws.WriteMessage(websocket.TextMessage, []byte(strings.TrimSpace(f))) != nil {
				return
			}
		}
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	l := lab.NewExample(t, "social")
	p := l.Start(nil, "produce", "bluesky", "--json", "--url", "ws"+strings.TrimPrefix(srv.URL, "http"))
	var status struct {
		RowsRead int64 `json:"rows_read"`
	}
	read := int64(0)
	for deadline := time.Now().Add(30 * time.Second); read < 18 && time.Now().Before(deadline) && p.Running(); {
		l.JSON(&status, "run", "stream", "--source", "bluesky", "--available-now")
		read += status.RowsRead
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(30 * time.Second); code != 0 {
		t.Fatalf("the producer ended with %d: %s", code, p.Stderr.String())
	}
	var out struct {
		Events, Ignored, Malformed int64
		Kinds                      map[string]int64 `json:"ignored_kinds"`
		Spool                      struct{ Events int64 }
	}
	if err := json.Unmarshal(p.Stdout.Bytes(), &out); err != nil {
		t.Fatalf("%v in %q", err, p.Stdout.String())
	}
	if out.Events != 18 || out.Malformed != 0 || out.Spool.Events != 0 || !maps.Equal(out.Kinds, kinds) || out.Events+out.Ignored != 152 {
		t.Errorf("the producer says %+v; recorded are %v", out, kinds)
	}
	var rows []struct {
		ID, Author, Text, Lang, Rev string
		Created, At                 int64
	}
	if err := json.Unmarshal([]byte(l.Run("query", "SELECT event_id AS id, author, text, coalesce(lang, '') AS lang, revision AS rev, epoch_us(created_at) AS created, epoch_us(event_time) AS at FROM unified_events WHERE kind = 'post'", "--format", "json")), &rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		got := post{r.ID, r.Author, r.Text, r.Lang, fmt.Sprint(r.Created), fmt.Sprint(r.At), r.Rev}
		if want[r.ID] != got {
			t.Errorf("row   %+v\nevent %+v", got, want[r.ID])
		}
	}
	if len(rows) != len(want) {
		t.Errorf("%d rows of %d posts", len(rows), len(want))
	}
	all := l.Run("table", "scan", "unified_events", "--format", "jsonl")
	if n := strings.Count(all, `"_deleted":true`); n != deleted {
		t.Errorf("%d tombstones of %d deletions", n, deleted)
	}
	t.Logf("REPORT: 152 recorded Bluesky events: %d posts and %d deletion in the table; not used, by kind: %v", len(rows), deleted, out.Kinds)
}
