package delta

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"
)

// LogicalHash is a hash of the rows of a snapshot that depends on neither their order nor the files that hold them:
// the number of rows, and the sum of the SHA-256 of each row's canonical text (docs/canonical-text.md) as 256-bit
// numbers. exclude names columns that are left out.
func LogicalHash(ctx context.Context, t *Table, s *Snapshot, exclude ...string) (string, error) {
	skip := map[string]bool{}
	for _, c := range exclude {
		if f, ok := s.Schema().Field(c); ok {
			skip[f.Name] = true
		}
	}
	var columns []string
	for _, f := range s.Schema().Fields {
		if !skip[f.Name] {
			columns = append(columns, f.Name)
		}
	}
	var h RowsHash
	for b, err := range t.Scan(ctx, s, ScanOptions{Columns: columns}) {
		if err != nil {
			return "", err
		}
		h.Add(b)
	}
	return h.String(), nil
}

// RowsHash is the hash of LogicalHash over batches from anywhere. The zero value is the hash of no rows.
type RowsHash struct {
	rows int64
	sum  [4]uint64 // little-endian words
	buf  []byte
}

// Add adds the rows of a batch. The names of its columns are part of the hash, their order is not.
func (h *RowsHash) Add(b arrow.RecordBatch) {
	names := make([]string, b.NumCols())
	for i := range names {
		names[i] = b.ColumnName(i)
	}
	cols := canonColumns(names, b.Columns())
	for i := range int(b.NumRows()) {
		h.buf = appendRowText(h.buf[:0], cols, i)
		d := sha256.Sum256(h.buf)
		var carry uint64
		for w := range h.sum {
			h.sum[w], carry = bits.Add64(h.sum[w], binary.BigEndian.Uint64(d[24-8*w:]), carry)
		}
	}
	h.rows += b.NumRows()
}

// String is the number of rows, a colon and the sum in hex.
func (h *RowsHash) String() string {
	var d [32]byte
	for w, v := range h.sum {
		binary.BigEndian.PutUint64(d[24-8*w:], v)
	}
	return fmt.Sprintf("%d:%s", h.rows, hex.EncodeToString(d[:]))
}
