package pipeline

import (
	"strconv"
	"strings"
)

// Share is a set of tables that is shared under a name (cauce share, cauce serve --http-listen).
type Share struct {
	Name    string
	Tables  []string // none: every table
	History bool     // older versions and the change feed may be read
	Comment string
}

// Share returns the share with this name; nil if the lake file declares none. Names ignore case, as the protocol's do.
func (l *Lake) Share(name string) *Share {
	for i := range l.Shares {
		if strings.EqualFold(l.Shares[i].Name, name) {
			return &l.Shares[i]
		}
	}
	return nil
}

var shareShape = &shape{
	kind: kindObject, doc: "A set of tables that recipients read over Delta Sharing; `cauce share create` makes a recipient.", example: "{tables: [events], history: false}",
	keys: []keyShape{
		{"tables", names("The tables of the share. Default: every table of the lake file.", "[events]"), false},
		{"history", boolean("Whether recipients may read older versions and the change feed. Rows that were deleted or changed stand in them.", "true"), false},
		{"comment", text("What recipients are told of the share.", "Prices for partners"), false},
	},
}

// shares reads the key shares.
func (b *builder) shares(v *value) {
	if v == nil {
		return
	}
	for _, e := range v.keys {
		b.name(e, "share")
		if b.lake.Share(e.name) != nil {
			b.r.errorf(e.at, "names ignore case", "share %s is declared twice", e.name)
			continue
		}
		s := Share{Name: e.name, History: e.v.get("history").bool(true), Comment: e.v.get("comment").str("")}
		if tables := e.v.get("tables"); tables != nil {
			for _, t := range tables.items {
				switch decl := b.lake.Table(t.text); {
				case decl != nil:
					s.Tables = append(s.Tables, decl.Name)
				case strings.EqualFold(t.text, "quarantine"):
					s.Tables = append(s.Tables, "quarantine")
				default:
					b.r.errorf(t.at, suggest(t.text, b.tableNames()), "share %s: there is no table %s", e.name, strconv.Quote(clip(t.shown)))
				}
			}
			if len(tables.items) == 0 {
				b.r.errorf(tables.at, "leave tables out to share every table", "share %s has no tables", e.name)
			}
		}
		b.lake.Shares = append(b.lake.Shares, s)
	}
}
