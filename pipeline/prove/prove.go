// Package prove holds two engines against each other: it makes lake files and records that are meant to go wrong where
// engines differ (days with 23 hours, halves that are rounded, letters that become two, numbers that almost fit), and
// compares what became of each record. It stands beside pipeline, whose plans it feeds; it runs no engine itself.
package prove

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// Record is one input record: a value for each of the plan's raw fields, nil for null.
type Record struct {
	Position int64
	Values   []*string
}

// Fate is what became of a record: it was filtered (the zero value), it became a row, or it broke a rule.
type Fate struct {
	Row    []*string // the declared columns but ingested_at as text for people (Columns gives their order); nil: no row
	Rule   string
	Reason string
}

// String shows a fate on one line.
func (f Fate) String() string {
	switch {
	case f.Rule != "":
		return "broke " + f.Rule + ": " + f.Reason
	case f.Row == nil:
		return "was filtered"
	}
	parts := make([]string, len(f.Row))
	for i, v := range f.Row {
		if parts[i] = "NULL"; v != nil {
			parts[i] = fmt.Sprintf("%q", *v)
		}
	}
	return "became (" + strings.Join(parts, ", ") + ")"
}

// Columns are the columns of a plan's table that a Fate shows, in its order.
func Columns(plan *pipeline.Plan) []pipeline.Column {
	var out []pipeline.Column
	for _, n := range plan.Table.MappedColumns() {
		c, _ := plan.Table.Column(n)
		out = append(out, c)
	}
	return out
}

// Difference is a record that two engines treat differently.
type Difference struct {
	Record Record
	A, B   Fate
}

// Compare gives the records of which two engines made different things, by position. Of rows with one key an engine may
// keep the one that wins a merge alone; a row that only the other engine shows is then no difference.
func Compare(plan *pipeline.Plan, records []Record, a, b map[int64]Fate) []Difference {
	ka, kb := keys(plan, a), keys(plan, b)
	var out []Difference
	for _, r := range records {
		x, y := a[r.Position], b[r.Position]
		if x.String() == y.String() || lost(plan, x, y, ka) || lost(plan, y, x, kb) {
			continue
		}
		out = append(out, Difference{r, x, y})
	}
	return out
}

// lost says that a record of which an engine shows nothing has the key of a row that it shows; fate is what the other
// engine made of the record, and shown are the keys of the rows of this one.
func lost(plan *pipeline.Plan, nothing, fate Fate, shown map[string]bool) bool {
	if nothing.Row != nil || nothing.Rule != "" || fate.Row == nil {
		return false
	}
	k, ok := key(plan, fate)
	return ok && shown[k]
}

func keys(plan *pipeline.Plan, fates map[int64]Fate) map[string]bool {
	out := map[string]bool{}
	for _, f := range fates {
		if k, ok := key(plan, f); ok {
			out[k] = true
		}
	}
	return out
}

// key is the text of a row's key; false: there is no row, or its table has no key.
func key(plan *pipeline.Plan, f Fate) (string, bool) {
	if f.Row == nil || len(plan.Table.Key) == 0 {
		return "", false
	}
	var out []string
	for i, c := range Columns(plan) {
		if !slices.Contains(plan.Table.Key, c.Name) {
			continue
		}
		if f.Row[i] == nil {
			return "", false
		}
		out = append(out, *f.Row[i])
	}
	return fmt.Sprintf("%q", out), true
}

// Records makes n records for a plan. The values come from pools of difficult texts, from the texts that stand in the
// plan's own expressions, and from values that fit; each depends on rng alone.
func Records(plan *pipeline.Plan, rng *rand.Rand, n int) []Record {
	pools := []func() string{
		func() string { return pick(rng, numbers) }, func() string { return pick(rng, times) }, func() string { return pick(rng, texts) },
		func() string { return pick(rng, booleans) }, func() string { return randomNumber(rng) }, func() string { return randomTime(rng) },
	}
	own := literals(plan)
	if len(own) > 0 {
		pools = append(pools, func() string { return mutate(rng, pick(rng, own)) })
	}
	suited := map[int][]func() string{} // by field: pools of what the field is for
	for i, f := range plan.RawFields {
		suited[i] = suit(plan, f, rng)
	}
	out := make([]Record, n)
	for i := range out {
		r := Record{Position: int64(i + 1), Values: make([]*string, len(plan.RawFields))}
		// Most records have one or two odd values; with all of them odd the first rule would hide the others.
		odd := rng.IntN(3)
		for k := range r.Values {
			var v string
			switch {
			case rng.IntN(25) == 0 || strings.HasPrefix(plan.RawFields[k], "\x00"): // null, or nothing that a record can say
				continue
			case len(suited[k]) > 0 && (rng.IntN(len(r.Values)) >= odd):
				v = pick(rng, suited[k])()
			default:
				v = pick(rng, pools)()
				if rng.IntN(6) == 0 {
					v = mutate(rng, v)
				}
			}
			r.Values[k] = &v
		}
		out[i] = r
	}
	return out
}

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

// literals are the texts in a plan's expressions.
func literals(plan *pipeline.Plan) []string {
	found := map[string]bool{}
	look := func(e pipeline.Expr) {
		pipeline.Walk(e, func(e pipeline.Expr) {
			if l, ok := e.(pipeline.Literal); ok && l.Value != nil {
				found[fmt.Sprint(l.Value)] = true
			}
		})
	}
	look(plan.Filter)
	look(plan.Delete)
	for _, f := range plan.Fields {
		look(f.Expr)
	}
	for _, s := range plan.Steps {
		look(s.Where)
		for _, a := range s.Set {
			look(a.Expr)
		}
	}
	for _, x := range plan.Expect {
		look(x.Check)
	}
	return slices.Sorted(maps.Keys(found))
}

// suit gives makers of values that fit the columns which a raw field fills.
func suit(plan *pipeline.Plan, field string, rng *rand.Rand) []func() string {
	var out []func() string
	for _, f := range plan.Fields {
		uses := false
		isTime := false
		pipeline.Walk(f.Expr, func(e pipeline.Expr) {
			switch e := e.(type) {
			case pipeline.Name:
				uses = uses || e.Name == field
			case pipeline.Call:
				isTime = isTime || e.Func == "to_event_time"
			}
		})
		c, ok := plan.Table.Column(f.Column)
		if !uses || !ok {
			continue
		}
		switch t := c.Type.(type) {
		case delta.Decimal:
			out = append(out, func() string { return randomDecimal(rng, min(t.P, 12), min(t.S, 8)) })
		case delta.Primitive:
			switch {
			case isTime || t == delta.Timestamp || t == delta.TimestampNTZ:
				out = append(out, func() string { return randomTime(rng) }, func() string { return fmt.Sprint(1_724_112_000_000 + rng.Int64N(1e9)) })
			case t == delta.Boolean:
				out = append(out, func() string { return pick(rng, []string{"true", "false", "True", "0", "1"}) })
			case t == delta.String:
				out = append(out, func() string { return pick(rng, texts) }, func() string { return pick(rng, []string{"BTCUSDT", "ETHUSDT", "a", "b"}) })
			case t == delta.Date:
				out = append(out, func() string { return randomTime(rng)[:10] })
			default:
				out = append(out, func() string { return fmt.Sprint(rng.IntN(1000)) })
			}
		}
	}
	// A filter or a deletion that looks at the field lets few values pass.
	for _, e := range []pipeline.Expr{plan.Filter, plan.Delete} {
		pipeline.Walk(e, func(e pipeline.Expr) {
			call, ok := e.(pipeline.Call)
			if !ok || len(call.Args) < 2 {
				return
			}
			if n, ok := call.Args[0].(pipeline.Name); ok && n.Name == field {
				for _, a := range call.Args[1:] {
					if l, ok := a.(pipeline.Literal); ok && l.Value != nil {
						s := fmt.Sprint(l.Value)
						out = append(out, func() string { return s })
					}
				}
			}
		})
	}
	return out
}

// Sample shows at most n differences for people.
func Sample(plan *pipeline.Plan, ds []Difference, nameA, nameB string, n int) string {
	var b strings.Builder
	sort.SliceStable(ds, func(i, j int) bool { return ds[i].Record.Position < ds[j].Record.Position })
	for i, d := range ds {
		if i == n {
			fmt.Fprintf(&b, "  and %d more\n", len(ds)-n)
			break
		}
		fmt.Fprintf(&b, "  record %d:", d.Record.Position)
		for k, v := range d.Record.Values {
			if v == nil {
				fmt.Fprintf(&b, " %s = NULL", plan.RawFields[k])
			} else {
				fmt.Fprintf(&b, " %s = %q", plan.RawFields[k], *v)
			}
		}
		fmt.Fprintf(&b, "\n    %-8s %s\n    %-8s %s\n", nameA, d.A, nameB, d.B)
	}
	return b.String()
}
