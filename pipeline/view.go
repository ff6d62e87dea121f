package pipeline

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/cauce-data/cauce/delta"
)

// View is a named SELECT over the lake's tables, for those who read through `cauce serve`.
type View struct {
	Name    string
	Comment string
	SQL     string
	Columns []delta.Field // of its result, in order
	Tables  []string      // that it reads, each once, as the lake file writes them
}

// View finds a view by its name; names ignore case. It is nil where there is none.
func (l *Lake) View(name string) *View {
	for _, v := range l.Views {
		if strings.EqualFold(v.Name, name) {
			return v
		}
	}
	return nil
}

var viewShape = &shape{
	kind: kindObject, doc: "A named SELECT over the lake's tables; it appears beside them. Who may read it may read it whole, whatever else they see.",
	example: `{sql: "SELECT event_date, symbol, count(*) AS n FROM events GROUP BY ALL"}`,
	short:   &shape{kind: kindText, doc: "The SELECT alone.", example: "SELECT event_date, count(*) AS n FROM events GROUP BY ALL"}, shortKey: "sql",
	keys: []keyShape{
		{"sql", text("One SELECT, in DuckDB's SQL. It names tables of the lake, and gives each column of its result a plain name of its own.", `"SELECT event_date, count(*) AS n FROM events GROUP BY ALL"`), true},
		{"comment", text("What the view shows; BI tools see it.", `"events by day"`), false},
	},
}

// views reads the key views. Tables must have been read.
func (b *builder) views(v *value) {
	views := v.get("views")
	if views == nil {
		return
	}
	var relations []Relation
	for _, t := range b.lake.Tables {
		relations = append(relations, Relation{t.Name, t.DeltaSchema().Fields})
	}
	for _, e := range views.keys {
		b.name(e, "view")
		view := &View{Name: e.name, Comment: e.v.get("comment").str("")}
		switch {
		case b.lake.Table(e.name) != nil:
			b.r.errorf(e.at, "give the view another name", "view %s: a table has this name", e.name)
		case strings.EqualFold(e.name, "quarantine"):
			b.r.errorf(e.at, "give the view another name", "view %s: the name belongs to the lake's quarantine", e.name)
		case b.lake.View(e.name) != nil:
			b.r.errorf(e.at, "names ignore case", "view %s is declared twice", e.name)
		}
		if sql := e.v.get("sql"); sql != nil {
			view.SQL = strings.TrimRight(strings.TrimSpace(sql.text), "; \n")
			b.viewQuery(view, sql, relations)
		}
		b.lake.Views = append(b.lake.Views, view)
	}
}

// viewQuery checks a view's SELECT and notes what it reads and gives.
func (b *builder) viewQuery(view *View, at *value, relations []Relation) {
	q, err := b.parser.ParseQuery(view.SQL, relations)
	if err != nil {
		place := at.at
		var se *SyntaxError
		if errors.As(err, &se) && at.text == at.shown {
			place = b.r.inside(at, se.Offset)
		}
		b.r.errorf(place, "", "view %s: %v", view.Name, err)
		return
	}
	for _, name := range q.Tables {
		t := b.lake.Table(name)
		if t == nil { // the parser knows only the relations that it was given
			b.r.errorf(at.at, "", "view %s: there is no table %s", view.Name, strconv.Quote(clip(name)))
			return
		}
		if !slices.Contains(view.Tables, t.Name) {
			view.Tables = append(view.Tables, t.Name)
		}
	}
	seen := map[string]bool{}
	for i, f := range q.Columns {
		switch key := strings.ToLower(f.Name); {
		case !identifier.MatchString(f.Name):
			b.r.errorf(at.at, "write … AS name", "view %s: column %d (%s) has no plain name", view.Name, i+1, strconv.Quote(clip(f.Name)))
		case seen[key]:
			b.r.errorf(at.at, "write … AS name", "view %s: two columns are called %s", view.Name, f.Name)
		default:
			seen[key] = true
		}
	}
	view.Columns = q.Columns
}
