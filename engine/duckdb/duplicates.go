package duckdb

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow/array"
	"golang.org/x/sync/errgroup"
)

// hashed is a row by the hash of its key.
type hashed struct {
	hash   uint64
	global int64
}

// duplicates gives the global ids, ascending, of all rows whose key's hash another row has, too.
//
// Hardly any row has, and finding that out must not cost a hash table of all of them: one pass over the hashes marks in a
// bitmap those that met one with the same low bits, and a second pass collects what was marked. That takes four bytes a
// row, and eight more for each of the eighth of the rows that meet another by chance.
func (x *epoch) duplicates(ctx context.Context, rel *relation, key []string, keyList string) ([]int64, error) {
	const bitsPerRow = 16
	size := uint64(1) << bits.Len64(uint64(max(rel.total*bitsPerRow, 64)-1))
	seen, twice := make([]uint64, size/64), make([]uint64, size/64)
	at := func(h uint64) (word uint64, bit uint64) {
		h &= size - 1
		return h / 64, 1 << (h % 64)
	}
	// The rows of a small epoch are kept, so that the second pass goes over memory.
	const keptMax = 100_000
	var mu sync.Mutex
	var met []hashed
	err := x.hashes(ctx, rel, key, keyList, func(rows []hashed) {
		for _, r := range rows {
			w, b := at(r.hash)
			if atomic.OrUint64(&seen[w], b)&b != 0 {
				atomic.OrUint64(&twice[w], b)
			}
		}
		if rel.total <= keptMax {
			mu.Lock()
			defer mu.Unlock()
			met = append(met, rows...)
		}
	})
	if err != nil || !slices.ContainsFunc(twice, func(w uint64) bool { return w != 0 }) {
		return nil, err
	}
	once := func(r hashed) bool {
		w, b := at(r.hash)
		return twice[w]&b == 0
	}
	if rel.total <= keptMax {
		met = slices.DeleteFunc(met, once)
	} else if err = x.hashes(ctx, rel, key, keyList, func(rows []hashed) {
		rows = slices.DeleteFunc(rows, once)
		mu.Lock()
		defer mu.Unlock()
		met = append(met, rows...)
	}); err != nil {
		return nil, err
	}
	slices.SortFunc(met, func(a, b hashed) int { return cmp.Compare(a.hash, b.hash) })
	var ids []int64
	for i, r := range met {
		if i > 0 && met[i-1].hash == r.hash || i+1 < len(met) && met[i+1].hash == r.hash {
			ids = append(ids, r.global)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// hashes calls each with the rows of the relation, page by page and several pages at once. each may change the slice.
func (x *epoch) hashes(ctx context.Context, rel *relation, key []string, keyList string, each func(rows []hashed)) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(x.e.threads, 1))
	columns := append(slices.Clone(key), colGlobal)
	for i := range rel.parts {
		p := &rel.parts[i]
		for from := int64(0); from < p.rows; from += readPage {
			var where []string
			if p.rows > readPage {
				where = []string{fmt.Sprintf("rowid >= %d AND rowid < %d", from, from+readPage)}
			}
			query := "SELECT hash(" + keyList + ") AS h, " + quoteName(colGlobal) + " FROM (" + rel.partQuery(p, columns, false, where...) + ")"
			g.Go(func() error {
				return x.e.with(gctx, func(c *conn) error {
					var rows []hashed
					for b, err := range c.batches(gctx, query, nil) {
						if err != nil {
							return err
						}
						h, ok := b.Column(0).(*array.Uint64)
						id, isID := b.Column(1).(*array.Int64)
						if !ok || !isID {
							return fmt.Errorf("BUG: hashes of keys are %s and %s", b.Column(0).DataType(), b.Column(1).DataType())
						}
						rows = rows[:0]
						for i, v := range h.Uint64Values() {
							rows = append(rows, hashed{v, id.Value(i)})
						}
						each(rows)
					}
					return nil
				})
			})
		}
	}
	return g.Wait()
}
