package simulate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/internal/prereq"
)

func newBluesky(t testing.TB, o BlueskyOptions) *Bluesky {
	t.Helper()
	if o.Start.IsZero() {
		o.Start = start
	}
	b, err := NewBluesky(o)
	must(t, err)
	return b
}

// The same seed gives the same events, however they are asked for; another seed gives others.
func TestPostsDependOnTheSeedAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		events := func(seed uint64, steps []int) string {
			var journal bytes.Buffer
			b, err := NewBluesky(BlueskyOptions{Seed: seed, Start: start, Journal: &journal})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range steps {
				if err := b.Step(n); err != nil {
					t.Fatal(err)
				}
			}
			return journal.String()
		}
		n := rapid.IntRange(20, 200).Draw(t, "n")
		cut := rapid.IntRange(0, n).Draw(t, "cut")
		if one, two := events(seed, []int{n}), events(seed, []int{cut, n - cut}); one != two || one == "" {
			t.Fatalf("%q\n%q", one, two)
		}
		if events(seed, []int{n}) == events(seed+1, []int{n}) {
			t.Fatal("another seed gives the same")
		}
	})
}

// A post is created once, changed and deleted only while it lives, and its revisions grow.
func TestPostsAreSound(t *testing.T) {
	var journal bytes.Buffer
	b := newBluesky(t, BlueskyOptions{Seed: 9, Journal: &journal})
	must(t, b.Step(5000))
	live, revs, ops := map[string]bool{}, map[string]string{}, map[string]int{}
	last := int64(0)
	for line := range strings.Lines(journal.String()) {
		var v struct {
			DID, Rkey, Rev, Op string
			TimeUS             int64 `json:"time_us"`
		}
		must(t, json.Unmarshal([]byte(line), &v))
		key := v.DID + "/" + v.Rkey
		if live[key] == (v.Op == "create") {
			t.Fatalf("%s of a post that is alive: %v", v.Op, live[key])
		}
		live[key] = v.Op != "delete"
		if v.Rev <= revs[v.DID] || v.TimeUS <= last {
			t.Fatalf("revision %s after %s, time %d after %d", v.Rev, revs[v.DID], v.TimeUS, last)
		}
		revs[v.DID], last = v.Rev, v.TimeUS
		ops[v.Op]++
	}
	if ops["create"] < 2000 || ops["update"] < 200 || ops["delete"] < 200 {
		t.Errorf("%v", ops)
	}
}

var idForms = map[string]*regexp.Regexp{
	"TID": regexp.MustCompile(`^[2-7a-z]{13}$`),
	"DID": regexp.MustCompile(`^did:plc:[a-z2-7]{24}$`),
	"CID": regexp.MustCompile(`^bafyrei[a-z2-7]{52}$`),
	"URI": regexp.MustCompile(`^at://did:plc:[a-z2-7]{24}/[a-zA-Z.]+/[a-z0-9]+$`),
	"ISO": regexp.MustCompile(`^2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`),
	"µs":  regexp.MustCompile(`^1\d{15}$`),
}

// members describes an object's members, in their order: the kind of each value, of nested objects theirs.
func members(t *testing.T, raw []byte, path string) (out []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	for d.More() {
		name, err := d.Token()
		must(t, err)
		var v json.RawMessage
		must(t, d.Decode(&v))
		at := path + name.(string)
		text := strings.Trim(string(v), `"`)
		kind := map[byte]string{'"': "text", '[': "list", 't': "boolean", 'f': "boolean"}[v[0]]
		switch {
		case v[0] == '{':
			out = append(out, members(t, v, at+".")...)
			continue
		case at == "commit.record.text":
		case kind == "":
			kind = "number"
			fallthrough
		default:
			for name, re := range idForms {
				if re.MatchString(text) {
					kind = name
				}
			}
		}
		out = append(out, at+" "+kind)
	}
	return out
}

// TestEventsAreJetstreams holds the simulator's events against recorded ones: of each kind, operation and collection
// that it makes, the same members in the same order, with values of the same form; a record's members are some of those
// that recorded ones have, in their order.
func TestEventsAreJetstreams(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(prereq.Need(t, "shared"), "realdata", "bluesky_jetstream_v1_expected.jsonl"))
	must(t, err)
	kindOf := func(line []byte) string {
		var v struct {
			Kind   string
			Commit struct{ Operation, Collection string }
		}
		must(t, json.Unmarshal(line, &v))
		return strings.TrimSpace(v.Kind + " " + v.Commit.Operation + " " + v.Commit.Collection)
	}
	split := func(form []string) (envelope, record []string) {
		for _, m := range form {
			if strings.HasPrefix(m, "commit.record.") {
				record = append(record, m)
			} else {
				envelope = append(envelope, m)
			}
		}
		return envelope, record
	}
	recorded := map[string][][]string{}
	n := 0
	for line := range strings.Lines(string(text)) {
		kind := kindOf([]byte(line))
		recorded[kind] = append(recorded[kind], members(t, []byte(strings.TrimSpace(line)), ""))
		n++
	}
	if n != 152 {
		t.Fatalf("%d events are recorded", n)
	}
	b := newBluesky(t, BlueskyOptions{Seed: 1})
	must(t, b.Step(2000))
	compared := map[string]int{}
	for _, e := range b.log {
		kind := kindOf(e.body)
		envelope, record := split(members(t, e.body, ""))
		like := recorded[kind]
		if kind == "commit update "+postCollection {
			// None is recorded: its envelope is that of other updates, its record that of a post.
			like = slices.Concat(recorded["commit update app.bsky.actor.status"], recorded["commit create "+postCollection])
		}
		if len(like) == 0 {
			t.Fatalf("%s is not recorded", kind)
		}
		if !slices.ContainsFunc(like, func(form []string) bool {
			want, _ := split(form)
			return slices.Equal(want, envelope)
		}) {
			t.Fatalf("%s\nhas the members %q\nrecorded are    %q", e.body, envelope, like)
		}
		// In the order that some recorded record has them.
		if !slices.ContainsFunc(like, func(form []string) bool {
			_, want := split(form)
			for _, m := range record {
				i := slices.Index(want, m)
				if i < 0 {
					return false
				}
				want = want[i+1:]
			}
			return true
		}) {
			t.Fatalf("%s\nhas the record %q\nrecorded are   %q", e.body, record, like)
		}
		compared[kind]++
	}
	for _, kind := range []string{"commit create " + postCollection, "commit delete " + postCollection, "commit update " + postCollection, "identity", "account"} {
		if compared[kind] == 0 {
			t.Errorf("no %s was compared", kind)
		}
	}
	t.Logf("REPORT: simulated events compared with recorded ones, by kind: %s", fmt.Sprint(compared))
}

func TestBlueskyServer(t *testing.T) {
	b := newBluesky(t, BlueskyOptions{Seed: 1, Faults: BlueskyFaults{Refuse: Refusals{503}}})
	_, ws := serve(t, b)
	if _, err := tryDial(ws + "/subscribe"); err == nil {
		t.Error("the first attempt was not refused")
	}
	for query, want := range map[string]string{
		"?cursor=x": "400", "?wantedCollections=posts": "400", "?compress=true": "400",
		"?cursor=1": "", "?cursor=9999999999999999": "", "?wantedCollections=app.bsky.graph.*": "",
	} {
		c, err := tryDial(ws + "/subscribe" + query)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", query, err)
		}
		if c != nil {
			c.Close()
		}
	}
	graph := dial(t, ws+"/subscribe?wantedCollections=app.bsky.graph.*")
	must(t, b.Step(500))
	for range 20 {
		if e := read(t, graph); !strings.Contains(e, `"collection":"app.bsky.graph.`) && !strings.Contains(e, `"kind":"identity"`) && !strings.Contains(e, `"kind":"account"`) {
			t.Errorf("not asked for: %s", e)
		}
	}
}

// TestLinesAreXs holds the simulated X's lines against one written from X's documentation, which no recording shows: the
// same members, with values of the same kind; an edit names both ids, oldest first.
func TestLinesAreXs(t *testing.T) {
	documented := []byte(`{"data":{"author_id":"2244994945","created_at":"2026-07-04T14:38:05.000Z","edit_history_tweet_ids":["2073400000000000001"],"id":"2073400000000000001","lang":"en","text":"We are sharing"},` +
		`"includes":{"users":[{"id":"2244994945","name":"X Dev","username":"XDevelopers"}]},"matching_rules":[{"id":"1166916266197536768","tag":"from"}]}`)
	x, err := NewX(XOptions{Seed: 1, Start: start, Token: "t", Rules: []string{"*"}})
	must(t, err)
	must(t, x.Step(200))
	edits := 0
	for _, p := range x.posts {
		line := xLine(p, x.matches(p))
		if got, want := members(t, line, ""), members(t, documented, ""); !slices.Equal(got, want) {
			t.Fatalf("%s\nhas the members %q\ndocumented are %q", line, got, want)
		}
		var v struct {
			Data struct {
				ID    string
				Edits []string `json:"edit_history_tweet_ids"`
			}
			Includes struct{ Users []struct{ ID string } }
			Rules    []struct{ ID string } `json:"matching_rules"`
		}
		must(t, json.Unmarshal(line, &v))
		e := v.Data.Edits
		if e[len(e)-1] != v.Data.ID || len(v.Includes.Users) != 1 || len(v.Rules) != 1 {
			t.Fatalf("%s", line)
		}
		if len(e) == 2 && e[0] < e[1] {
			edits++
		}
	}
	if edits < 5 {
		t.Errorf("%d edits", edits)
	}
}
