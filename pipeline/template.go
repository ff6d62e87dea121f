package pipeline

import (
	"embed"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

//go:embed templates/*.yaml
var templates embed.FS

// Templates are the names of the lake files that `cauce init --template` writes.
func Templates() []string {
	entries, err := templates.ReadDir("templates")
	if err != nil {
		panic("BUG: templates are not embedded: " + err.Error())
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

var storageLine = regexp.MustCompile(`(?m)^storage: \S+`)

// Template gives the text of a template, with another storage root if storage is not "".
func Template(name, storage string) (string, error) {
	b, err := templates.ReadFile(path.Join("templates", name+".yaml"))
	if err != nil {
		return "", fmt.Errorf("unknown template %q; %s", name, suggest(name, Templates()))
	}
	return withStorage(string(b), storage), nil
}

func withStorage(text, storage string) string {
	if storage == "" {
		return text
	}
	return storageLine.ReplaceAllLiteralString(text, "storage: "+yamlText(storage))
}

var plainYAML = regexp.MustCompile(`^[A-Za-z0-9_./-]+(:[A-Za-z0-9_./-]+)*$`)

// yamlText writes a text as a YAML scalar that is read as the same text.
func yamlText(s string) string {
	switch strings.ToLower(s) {
	case "", "null", "true", "false", "on", "off", "yes", "no", "y", "n", "~", "-":
		return strconv.Quote(s)
	}
	if plainYAML.MatchString(s) && !strings.ContainsAny(s[:1], "0123456789.-") {
		return s
	}
	for _, c := range s {
		if c < ' ' || c == 0x7f {
			return strconv.Quote(s)
		}
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
