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

// ledgerPlacesMax bounds the places of one id that are looked at.
const ledgerPlacesMax = 100

// Ledger tells which ids of the table's ledger a snapshot holds: by series and day, and as ranges of consecutive ids,
// the negative ones aside. since, a day such as 2024-08-20, leaves out what lies before; "" leaves out nothing. Days that
// are complete in themselves are found by counting alone; only the others are sorted.
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
	q := QueryTable{Name: t.Name, Snapshot: s, Hide: pipeline.HideDeleted(s.Schema())}
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
		"count(*) FILTER (WHERE starts_with(o, 'rest:')) FROM ("+rows(where)+") WHERE s IS NOT NULL AND i >= 0 GROUP BY s, d ORDER BY d, s", q,
		func(b arrow.RecordBatch, i int) {
			g := rangeAt(b, i, placeAt)
			d := pipeline.LedgerDay{Series: g.Series, Day: g.Day, From: g.From, To: g.To, Rows: longAt(b, 8, i), IDs: longAt(b, 9, i), Files: longAt(b, 10, i), Repaired: longAt(b, 11, i)}
			days = append(days, d)
			if d.To-d.From == d.IDs-1 && d.Rows == d.IDs {
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
	places := func(end string) string {
		list := func(c string) string {
			return fmt.Sprintf("list(%s ORDER BY o, p) FILTER (i = %s)[1:%d]", c, end, ledgerPlacesMax)
		}
		return list("o") + ", " + list("p")
	}
	err = e.eachRow(ctx, "SELECT s, d, lo, hi, "+places("lo")+", "+places("hi")+" FROM (SELECT *, min(i) OVER w AS lo, max(i) OVER w AS hi "+
		"FROM (SELECT *, i - dense_rank() OVER (PARTITION BY s, d ORDER BY i) AS g FROM ("+rows(where)+") WHERE s IS NOT NULL AND i >= 0) "+
		"WINDOW w AS (PARTITION BY s, d, g)) WHERE i = lo OR i = hi GROUP BY s, d, lo, hi LIMIT "+fmt.Sprint(ledgerRangesMax+1), q,
		func(b arrow.RecordBatch, i int) {
			n++
			if g := rangeAt(b, i, placesAt); !whole[id{g.Series, g.Day}] {
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

// rangeAt reads a range whose places stand in the columns 4 and 5, and 6 and 7.
func rangeAt(b arrow.RecordBatch, i int, places func(b arrow.RecordBatch, c, i int) []pipeline.LedgerPlace) pipeline.LedgerRange {
	return pipeline.LedgerRange{
		Series: textAt(b, 0, i), Day: textAt(b, 1, i), From: longAt(b, 2, i), To: longAt(b, 3, i), FromPlaces: places(b, 4, i), ToPlaces: places(b, 6, i),
	}
}

func placeAt(b arrow.RecordBatch, c, i int) []pipeline.LedgerPlace {
	return []pipeline.LedgerPlace{{Origin: textAt(b, c, i), Position: longAt(b, c+1, i)}}
}

// placesAt reads a list of origins and, in the next column, one of their positions.
func placesAt(b arrow.RecordBatch, c, i int) (out []pipeline.LedgerPlace) {
	origins, _ := b.Column(c).(*array.List)
	positions, _ := b.Column(c + 1).(*array.List)
	if origins == nil || positions == nil || origins.IsNull(i) || positions.IsNull(i) {
		return nil
	}
	names, _ := origins.ListValues().(*array.String)
	at, _ := positions.ListValues().(*array.Int64)
	if names == nil || at == nil {
		return nil
	}
	first, end := origins.ValueOffsets(i)
	p, _ := positions.ValueOffsets(i)
	for k := range end - first {
		if names.IsValid(int(first+k)) && at.IsValid(int(p+k)) {
			out = append(out, pipeline.LedgerPlace{Origin: strings.Clone(names.Value(int(first + k))), Position: at.Value(int(p + k))})
		}
	}
	return out
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
