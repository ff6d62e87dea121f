package duckdb

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// ledgerRangesMax bounds the ranges of one ledger. Ids that leave so many holes are not consecutive.
const ledgerRangesMax = 1_000_000

// Ledger tells which ids of the table's ledger a snapshot holds: by series and day, and as ranges of consecutive ids.
// since, a day such as 2024-08-20, leaves out what lies before; "" leaves out nothing. Days that are complete in
// themselves are found by counting alone; only the others are sorted.
func (e *Engine) Ledger(ctx context.Context, t *pipeline.Table, s *delta.Snapshot, since string) ([]pipeline.LedgerDay, []pipeline.LedgerRange, error) {
	r := &renderer{zone: t.Timezone.String(), name: func(n string) (rendered, error) {
		c, ok := t.Column(n)
		if !ok {
			return rendered{}, fmt.Errorf("BUG: unknown column %s", n)
		}
		v, k := quoteName(c.Name), kindOf(c.Type)
		if k == kindTime {
			v = "make_timestamp(epoch_us(" + v + "))"
		}
		return rendered{value: v, kind: k, plain: true, typ: c.Type}, nil
	}}
	series, err := r.expr(t.Ledger.Series)
	if err != nil {
		return nil, nil, err
	}
	value := series.value
	if series.fail != "" {
		value = "CASE WHEN " + series.fail + " THEN NULL ELSE " + value + " END"
	}
	day := quoteName(t.Ledger.Day)
	rows := func(where string) string {
		return "SELECT " + value + " AS s, coalesce(CAST(" + day + " AS VARCHAR), '') AS d, CAST(" + quoteName(t.Ledger.ID) + " AS BIGINT) AS i, " +
			pipeline.ColumnOrigin + " AS o, " + pipeline.ColumnPosition + " AS p FROM " + quoteName(t.Name) + where
	}
	q := QueryTable{Name: t.Name, Snapshot: s}
	if t.Deletes {
		q.Hide = "NOT coalesce(" + pipeline.ColumnDeleted + ", false)"
	}
	const ends = "min(i), max(i), arg_min(o, i), arg_min(p, i), arg_max(o, i), arg_max(p, i)"
	where := ""
	if since != "" {
		where = " WHERE " + day + " >= DATE '" + since + "'"
	}
	var days []pipeline.LedgerDay
	var ranges []pipeline.LedgerRange
	open := map[string]bool{}
	type id struct{ series, day string }
	whole := map[id]bool{}
	err = e.eachRow(ctx, "SELECT s, d, "+ends+", count(*), count(DISTINCT i), count(*) FILTER (WHERE starts_with(o, 'f:')), "+
		"count(*) FILTER (WHERE starts_with(o, 'rest:')) FROM ("+rows(where)+") WHERE s IS NOT NULL AND i IS NOT NULL GROUP BY s, d ORDER BY d, s", q,
		func(b arrow.RecordBatch, i int) {
			g := rangeAt(b, i)
			d := pipeline.LedgerDay{Series: g.Series, Day: g.Day, From: g.From, To: g.To, Rows: longAt(b, 8, i), IDs: longAt(b, 9, i), Files: longAt(b, 10, i), Repaired: longAt(b, 11, i)}
			days = append(days, d)
			if d.To-d.From+1 == d.IDs {
				whole[id{d.Series, d.Day}] = true
				ranges = append(ranges, g)
			} else {
				open[d.Day] = true
			}
		})
	if err != nil || len(open) == 0 {
		return days, ranges, err
	}
	var list []string
	null := ""
	for d := range open {
		if d == "" {
			null = " OR " + day + " IS NULL"
			continue
		}
		list = append(list, "DATE '"+d+"'")
	}
	slices.Sort(list)
	if len(list) == 0 {
		where = " WHERE " + day + " IS NULL"
	} else {
		where = " WHERE " + day + " IN (" + strings.Join(list, ", ") + ")" + null
	}
	n := 0
	err = e.eachRow(ctx, "SELECT s, d, "+ends+" FROM (SELECT *, i - dense_rank() OVER (PARTITION BY s, d ORDER BY i) AS g FROM ("+rows(where)+
		") WHERE s IS NOT NULL AND i IS NOT NULL) GROUP BY s, d, g LIMIT "+fmt.Sprint(ledgerRangesMax+1), q,
		func(b arrow.RecordBatch, i int) {
			n++
			if g := rangeAt(b, i); !whole[id{g.Series, g.Day}] {
				ranges = append(ranges, g)
			}
		})
	if err == nil && n > ledgerRangesMax {
		err = fmt.Errorf("table %s: the ids of column %s make more than %d ranges within (%s); they are not consecutive there: correct ledger.series in the lake file",
			t.Name, t.Ledger.ID, ledgerRangesMax, t.Ledger.SeriesSQL)
	}
	return days, ranges, err
}

func (e *Engine) eachRow(ctx context.Context, sql string, q QueryTable, f func(b arrow.RecordBatch, i int)) (err error) {
	r, err := e.Query(ctx, sql, []QueryTable{q})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := r.Close(); err == nil {
			err = cerr
		}
	}()
	for b, err := range r.Batches(ctx) {
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			f(b, i)
		}
	}
	return nil
}

func rangeAt(b arrow.RecordBatch, i int) pipeline.LedgerRange {
	return pipeline.LedgerRange{
		Series: textAt(b, 0, i), Day: textAt(b, 1, i), From: longAt(b, 2, i), To: longAt(b, 3, i),
		FromOrigin: textAt(b, 4, i), FromPosition: longAt(b, 5, i), ToOrigin: textAt(b, 6, i), ToPosition: longAt(b, 7, i),
	}
}

// textAt and longAt read a value of a result; null is "" or 0.
func textAt(b arrow.RecordBatch, c, i int) string {
	if a, ok := b.Column(c).(*array.String); ok && a.IsValid(i) {
		return strings.Clone(a.Value(i))
	}
	return ""
}

func longAt(b arrow.RecordBatch, c, i int) int64 {
	if a, ok := b.Column(c).(*array.Int64); ok && a.IsValid(i) {
		return a.Value(i)
	}
	return 0
}
