package pipeline

import (
	"fmt"
	"strings"
)

// Reference is the reference of all keys of a lake file, as Markdown: a table for each kind of mapping.
func Reference() string {
	var b strings.Builder
	section := func(title string, s *shape) {
		fmt.Fprintf(&b, "### %s\n\n%s\n\n| key | value | default | meaning |\n|---|---|---|---|\n", title, s.doc)
		for _, k := range s.keys {
			def := "–"
			switch {
			case k.required:
				def = "*required*"
			case k.shape.def != "":
				def = "`" + k.shape.def + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.name, cell(k.shape.value()), cell(def), cell(k.shape.doc))
		}
		b.WriteString("\n")
	}
	section("Top level", lakeShape)
	section("tables.*", tableShape)
	section("tables.\\*.columns.\\*", columnShape)
	section("tables.\\*.transform[]", stepShape)
	section("tables.\\*.expect[]", expectShape)
	section("tables.\\*.ledger", ledgerShape)
	section("sources.*", sourceShape)
	section("sources.\\*.csv", csvShape)
	section("sources.\\*.kafka", kafkaShape)
	section("sources.\\*.kafka.sasl, producer, admin", saslShape("Credentials."))
	for _, name := range []string{"tls", "start", "registry", "tombstones"} {
		section("sources.\\*.kafka."+name, kafkaShape.key(name).shape)
	}
	section("sources.\\*.pubsub", pubsubShape)
	section("sources.\\*.produce", produceShape)
	section("sources.\\*.repair", repairShape)
	for _, name := range []string{"stream", "schedule", "maintenance", "store", "buffer", "engine", "metrics", "serve"} {
		section(name, lakeShape.key(name).shape)
	}
	section("serve.tls", serveShape.key("tls").shape)
	section("roles.*", roleShape)
	tasks := lakeShape.key("schedule").shape
	section("schedule.batch, schedule.maintenance", taskShape("`cauce run batch`; OPTIMIZE and VACUUM as maintenance says. Of maintenance, catch_up is none unless it is given.", CatchUpOnce))
	section("schedule.tasks.*", tasks.key("tasks").shape.elem)
	section("schedule.alerts", tasks.key("alerts").shape)
	section("views.*", viewShape)
	section("serve", serveShape)
	section("roles.*", roleShape)
	b.WriteString("Durations are written `30s`, `1h30m` or `7d`; sizes `134217728`, `64MB` or `128MiB`; a list of one text may be the text itself.\n\n")
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// value describes what a key's value is, with an example.
func (s *shape) value() string {
	v := ""
	switch s.kind {
	case kindChoice:
		parts := make([]string, len(s.enum))
		for i, e := range s.enum {
			parts[i] = "`" + e + "`"
		}
		return strings.Join(parts, ", ")
	case kindBool:
		return "`true`, `false`"
	case kindObject:
		v = "mapping"
	case kindDict:
		v = "mapping by name"
	case kindList:
		v = "list"
	case kindSQL:
		v = "SQL expression"
	case kindType:
		v = "type"
	case kindInt:
		v = "number"
	case kindDuration:
		v = "duration"
	case kindSize:
		v = "size"
	case kindChar:
		v = "character"
	default:
		v = "text"
	}
	if s.example != "" {
		v += ", such as `" + s.example + "`"
	}
	return v
}
