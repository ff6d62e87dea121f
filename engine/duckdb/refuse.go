package duckdb

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/cauce-data/cauce/pipeline"
)

// refuse yields the records of some of an epoch's rows as bad ones (pipeline.EpochResult.Refuse).
func (x *epoch) refuse(ctx context.Context, rel *relation, rows *roaring64.Bitmap, why pipeline.Refusal) iter.Seq2[pipeline.BadRow, error] {
	reason := func(b broken, _ func(string) (string, bool)) string {
		if v := b.columns[strings.ToLower(why.Column)]; v != nil {
			return why.Reason(*v)
		}
		return why.Reason("null")
	}
	return func(yield func(pipeline.BadRow, error) bool) {
		for i, p := range x.parts {
			told := x.toldRecords
			if p.file != nil {
				told = func(p *part, pages iter.Seq2[[]broken, error], why reasoner) iter.Seq2[pipeline.BadRow, error] {
					return x.toldRows(ctx, p, pages, why)
				}
			}
			for b, err := range told(p, x.refusedRows(ctx, rel, i, rows, why), reason) {
				if !yield(b, err) || err != nil {
					return
				}
			}
		}
	}
}

// refusedRows reads those of the rows that stand in a part, in pages, each by ascending position.
func (x *epoch) refusedRows(ctx context.Context, rel *relation, at int, rows *roaring64.Bitmap, why pipeline.Refusal) iter.Seq2[[]broken, error] {
	return func(yield func([]broken, error) bool) {
		p := x.parts[at]
		shown, order, rec := "NULL", p.position(), "0"
		if i := rel.schema.Index(why.Column); i >= 0 {
			shown = textOfType(rel.schema.Fields[i].Type, rel.parts[at].inner[i])
		}
		if p.file == nil {
			order, rec = colRecord, colRecord
		}
		const rangesMax = 512
		var ranges [][2]int64 // of global ids, inclusive
		n := 0
		flush := func() bool {
			cond := rangeCondition(ranges, p.base, p.rows)
			ranges, n = ranges[:0], 0
			if cond == "" {
				return true
			}
			var page []broken
			err := x.e.with(ctx, func(c *conn) error {
				q := fmt.Sprintf("SELECT %s, %s, %s FROM %s WHERE %s ORDER BY %s", p.position(), rec, shown, p.table, cond, order)
				return c.each(ctx, q, func(row []any) error {
					b := broken{position: integer(row[0]), rec: int(integer(row[1])), rule: rule{name: why.Rule}, columns: map[string]*string{}}
					if s, ok := row[2].(string); ok {
						b.columns[strings.ToLower(why.Column)] = &s
					}
					page = append(page, b)
					return nil
				})
			})
			return yield(page, err) && err == nil
		}
		for it := rows.Iterator(); it.HasNext(); {
			g := rel.global(int64(it.Next()))
			if g < p.base || g >= p.base+p.rows {
				continue
			}
			if k := len(ranges); k > 0 && ranges[k-1][1] == g-1 {
				ranges[k-1][1] = g
			} else {
				ranges = append(ranges, [2]int64{g, g})
			}
			if n++; (n == badPage || len(ranges) == rangesMax) && !flush() {
				return
			}
		}
		if n > 0 {
			flush()
		}
	}
}
