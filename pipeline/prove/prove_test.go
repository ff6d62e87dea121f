package prove

import (
	"testing"

	"github.com/cauce-data/cauce/pipeline"
)

// Of two records with one key an engine shows the winner alone; that is no difference. A row that is gone without another
// one under its key is, and so is a row with another value.
func TestRowsThatLostAreNoDifference(t *testing.T) {
	plan := &pipeline.Plan{Table: &pipeline.Table{
		Key:     []string{"id"},
		Columns: []pipeline.Column{{Name: "id"}, {Name: "v"}},
	}}
	row := func(id, v string) Fate {
		out := make([]*string, 0, 2)
		for _, c := range Columns(plan) {
			if c.Name == "id" {
				out = append(out, &id)
			} else {
				out = append(out, &v)
			}
		}
		return Fate{Row: out}
	}
	records := []Record{{Position: 1}, {Position: 2}, {Position: 3}, {Position: 4}}
	spark := map[int64]Fate{1: row("A", "old"), 2: row("A", "new"), 3: row("B", "x"), 4: row("C", "y")}
	here := map[int64]Fate{2: row("A", "new"), 4: row("C", "z")}
	for _, ds := range [][]Difference{Compare(plan, records, here, spark), Compare(plan, records, spark, here)} {
		if len(ds) != 2 || ds[0].Record.Position != 3 || ds[1].Record.Position != 4 {
			t.Errorf("differences: %+v, want those of records 3 (gone) and 4 (another value)", ds)
		}
	}
}
