package examples_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/cauce-data/cauce/internal/prereq"
)

func compileSchema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "docs", "schemas", name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func valid(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

// The schemas of posts describe the examples' events, and refuse what a producer does not publish as a post.
func TestPostsAgreeWithTheirSchemas(t *testing.T) {
	for schema, file := range map[string]string{"bluesky-post.schema.json": "bluesky.jsonl", "x-post.schema.json": "x.jsonl"} {
		s := compileSchema(t, schema)
		text, err := os.ReadFile(filepath.Join("social", file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, `"kind":"identity"`) { // which is not published
				if valid(t, s, line) == nil {
					t.Errorf("%s: taken for a post: %s", schema, line)
				}
				continue
			}
			if err := valid(t, s, line); err != nil {
				t.Errorf("%s: %v\n%s", schema, err, line)
			}
			for old, broken := range map[string]string{
				`"did":"did:`: `"did":"`, `"operation":"create"`: `"operation":"delete"`, `"operation":"delete"`: `"operation":"create"`,
				`"time_us":1`: `"time_us":-1`, `"rev":"`: `"revision":"`, `"data":{`: `"date":{`, `"text":"BTC`: `"body":"BTC`,
			} {
				if strings.Contains(line, old) && valid(t, s, strings.Replace(line, old, broken, 1)) == nil {
					t.Errorf("%s takes %s in the place of %s", schema, broken, old)
				}
			}
		}
	}
}

// The recorded events of posts are of the form that the schema says.
func TestRecordedPostsAgreeWithTheSchema(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(prereq.Need(t, "shared"), "realdata", "bluesky_jetstream_v1_expected.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	s := compileSchema(t, "bluesky-post.schema.json")
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"collection":"app.bsky.feed.post"`) {
			n++
			if err := valid(t, s, line); err != nil {
				t.Errorf("%v\n%s", err, line)
			}
		}
	}
	if n != 18 {
		t.Errorf("%d events of posts", n)
	}
}
