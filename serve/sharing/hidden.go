package sharing

import (
	"context"
	"fmt"
	"sync"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// Bounds of what hiddenRows remembers.
const (
	hiddenFilesMax = 100_000
	hiddenBytesMax = 64 << 20
)

// hiddenRows finds the rows of data files that stand for deletions (_deleted), which a recipient is not to see. A data
// file never changes, so what was found stays true.
type hiddenRows struct {
	mu    sync.Mutex
	known map[string]*roaring64.Bitmap // by the file's key in the store; empty: none
	bytes uint64
}

func newHiddenRows() *hiddenRows { return &hiddenRows{known: map[string]*roaring64.Bitmap{}} }

// of gives the physical rows of a file that stand for deletions, marked in its vector or not. The caller must not change
// the set.
func (h *hiddenRows) of(ctx context.Context, info delta.TableInfo, f delta.File) (*roaring64.Bitmap, error) {
	h.mu.Lock()
	rows, ok := h.known[f.Key]
	h.mu.Unlock()
	if ok {
		return rows, nil
	}
	rows, err := readHidden(ctx, info, f)
	if err != nil {
		return nil, fmt.Errorf("%s: deleted rows: %w", f.Key, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.known) >= hiddenFilesMax || h.bytes > hiddenBytesMax {
		clear(h.known)
		h.bytes = 0
	}
	h.known[f.Key] = rows
	h.bytes += rows.GetSizeInBytes()
	return rows, nil
}

func readHidden(ctx context.Context, info delta.TableInfo, f delta.File) (*roaring64.Bitmap, error) {
	rows := roaring64.New()
	field, ok := info.Schema.Field(pipeline.ColumnDeleted)
	if !ok {
		return rows, nil
	}
	if st, err := delta.ParseStats(f.Add.Stats); err == nil && st.NumRecords >= 0 {
		if n, ok := st.NullCount[field.PhysicalName()].(int64); ok && n == st.NumRecords {
			return rows, nil
		}
	}
	all := []delta.File{{Add: f.Add, Key: f.Key}} // without the vector: the answer must hold for any
	for b, err := range delta.PureGo().Reader.Read(ctx, info, all, delta.ReadOptions{Columns: []string{field.Name}, WithPosition: true}) {
		if err != nil {
			return nil, err
		}
		marked, ok := b.Column(0).(*array.Boolean)
		if !ok {
			return nil, fmt.Errorf("column %s has the type %s, not boolean", field.Name, b.Column(0).DataType())
		}
		at, ok := b.Column(int(b.NumCols()) - 1).(*array.Int64)
		if !ok {
			return nil, fmt.Errorf("BUG: row numbers have the type %s", b.Column(int(b.NumCols())-1).DataType())
		}
		for i := range marked.Len() {
			if marked.IsValid(i) && marked.Value(i) {
				rows.Add(uint64(at.Value(i)))
			}
		}
	}
	return rows, nil
}

// union is what either set holds; nil is empty. The result is a set of its own.
func union(a, b *roaring64.Bitmap) *roaring64.Bitmap {
	out := roaring64.New()
	if a != nil {
		out.Or(a)
	}
	if b != nil {
		out.Or(b)
	}
	return out
}
