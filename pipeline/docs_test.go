package pipeline_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/pipeline"
)

var generatedPart = regexp.MustCompile(`(?s)(<!-- (\w+): generated -->\n).*?(<!-- end -->)`)

// withGenerated puts text into the generated part of a document.
func withGenerated(t *testing.T, path, text string) []byte {
	t.Helper()
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(generatedPart.FindAll(doc, -1)); n != 1 {
		t.Fatalf("%s has %d generated parts", path, n)
	}
	return generatedPart.ReplaceAllFunc(doc, func(b []byte) []byte {
		m := generatedPart.FindSubmatch(b)
		return []byte(string(m[1]) + text + string(m[3]))
	})
}

func TestExpressionsDocument(t *testing.T) {
	var b strings.Builder
	for _, f := range pipeline.Functions() {
		fmt.Fprintf(&b, "### `%s`\n\n%s", f.Signature, f.Meaning)
		switch {
		case f.FilesOnly:
			b.WriteString(" Only in `filter`, `fields` and `delete` of sources of files.")
		case f.RecordOnly:
			b.WriteString(" Only in `filter`, `fields` and `delete`.")
		}
		b.WriteString("\n\n")
		if len(f.Examples) > 0 {
			b.WriteString("| | |\n|---|---|\n")
			for _, x := range f.Examples {
				v := "`" + x.Value + "`"
				if x.Value == "fails" {
					v = "*fails*"
				}
				fmt.Fprintf(&b, "| `%s` | %s |\n", strings.ReplaceAll(x.SQL, "|", `\|`), v)
			}
			b.WriteString("\n")
		}
	}
	generated(t, "../docs/expressions.md", withGenerated(t, "../docs/expressions.md", b.String()))
}

func TestLakeFileDocument(t *testing.T) {
	generated(t, "../docs/lake-file.md", withGenerated(t, "../docs/lake-file.md", pipeline.Reference()))
}

// The YAML of the documents must be what Load accepts; fragments are put into a lake file where they belong.
func TestDocumentedKeysExist(t *testing.T) {
	schema := string(pipeline.Schema())
	for _, doc := range []string{"../docs/lake-file.md", "../docs/expressions.md"} {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`([a-z_]+): [^`]*`").FindAllStringSubmatch(string(b), -1) {
			if !strings.Contains(schema, `"`+m[1]+`"`) {
				t.Errorf("%s speaks of the key %s, which does not exist", doc, m[1])
			}
		}
	}
}
