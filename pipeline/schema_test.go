package pipeline_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/cauce-data/cauce/pipeline"
)

var update = flag.Bool("update", false, "write the generated files")

// generated compares a file of the repository with what the code makes of it today.
func generated(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code makes: go test ./pipeline -run %s -update", path, t.Name())
	}
}

func TestSchemaIsGenerated(t *testing.T) {
	want, err := pipeline.GenerateSchema()
	if err != nil {
		t.Fatal(err)
	}
	generated(t, "lake.schema.json", want)
}

// Every key that Load accepts is in the schema and the other way round: both come from one shape. What remains to be
// seen is that the schema is JSON and closed at every level.
func TestSchemaIsClosed(t *testing.T) {
	var doc any
	if err := json.Unmarshal(pipeline.Schema(), &doc); err != nil {
		t.Fatal(err)
	}
	objects := 0
	var visit func(v any)
	visit = func(v any) {
		switch x := v.(type) {
		case map[string]any:
			if _, ok := x["properties"]; ok {
				if x["type"] == "object" || x["type"] != nil {
					objects++
					if x["additionalProperties"] != false {
						t.Errorf("an object with properties accepts unknown ones: %v", x["description"])
					}
				}
			}
			for _, c := range x {
				visit(c)
			}
		case []any:
			for _, c := range x {
				visit(c)
			}
		}
	}
	visit(doc)
	if objects < 10 {
		t.Errorf("only %d objects in the schema", objects)
	}
}
