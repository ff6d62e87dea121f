package delta

import (
	"context"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
)

// zorderRows sorts rows along the Z-order curve through some columns. Each column counts by its rank, not its value, so
// that columns of any type and spread weigh alike.
//
// NB: the rows are held in memory, twice for a moment; the caller bounds them.
func zorderRows(ctx context.Context, rows Rows, columns []string) (*MemoryRows, error) {
	all, err := collect(rows.Schema(), rows.Read(ctx, nil, nil))
	if err != nil {
		return nil, err
	}
	defer all.Release()
	cols := make([]arrow.Array, len(columns))
	for i, c := range columns {
		cols[i] = named(all, c)
	}
	idx := zorder(cols, int(all.NumRows()))
	sorted, err := takeBatch(ctx, all, idx)
	if err != nil {
		return nil, err
	}
	defer sorted.Release()
	return NewRows(rows.Schema(), sorted), nil
}

// zorder gives the order of the rows.
func zorder(cols []arrow.Array, n int) []int64 {
	bits := min(20, 64/max(1, len(cols)))
	keys := make([]uint64, n)
	idx := make([]int64, n)
	for c, col := range cols {
		for i := range idx {
			idx[i] = int64(i)
		}
		sort.SliceStable(idx, func(x, y int) bool { return compareValues(col, int(idx[x]), col, int(idx[y])) < 0 })
		// Equal values have equal ranks; ranks are spread over all the bits.
		var rank uint64
		for i, r := range idx {
			if i > 0 && compareValues(col, int(idx[i-1]), col, int(r)) != 0 {
				rank = uint64(i)
			}
			v := rank * (1<<bits - 1) / uint64(max(1, n-1))
			for b := range bits {
				keys[r] |= v >> b & 1 << (b*len(cols) + len(cols) - 1 - c)
			}
		}
	}
	for i := range idx {
		idx[i] = int64(i)
	}
	sort.SliceStable(idx, func(x, y int) bool { return keys[idx[x]] < keys[idx[y]] })
	return idx
}
