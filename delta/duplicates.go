package delta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
)

// ErrMultipleSourceRows says that several source rows of a MERGE would change one row of the table (see
// MultipleSourceRowsError).
var ErrMultipleSourceRows = errors.New("several source rows match and attempt to modify the same target row")

// MultipleSourceRowsError names the key and the two source rows; it is Spark's
// DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE. errors.Is finds ErrMultipleSourceRows.
type MultipleSourceRowsError struct {
	On     string   // the condition
	Key    string   // the columns of the condition with their values, such as "id = 7"; "" if it compares none
	Source [2]int64 // ordinals of the two source rows, from 0
	Rows   [2]string
}

func (e *MultipleSourceRowsError) Error() string {
	key := e.Key
	if key == "" {
		key = e.On
	}
	return fmt.Sprintf("%s: %s: source row %d %s and source row %d %s; make the source's rows unique or the clauses' conditions exclusive",
		ErrMultipleSourceRows, key, e.Source[0], e.Rows[0], e.Source[1], e.Rows[1])
}

// Is finds ErrMultipleSourceRows.
func (e *MultipleSourceRowsError) Is(target error) bool { return target == ErrMultipleSourceRows }

// ErrDuplicateKey says that two rows of a merge's source have one key and no order decides between them (see
// DuplicateKeyError).
var ErrDuplicateKey = errors.New("several source rows have the same key")

// DuplicateKeyError names the key of a Merge without MergeOptions.Order, and two source rows that have it. errors.Is finds
// ErrDuplicateKey.
type DuplicateKeyError struct {
	Key    string   // the key's columns with their values, such as "id = 7"
	Source [2]int64 // ordinals of the two source rows, from 0
	Rows   [2]string
}

func (e *DuplicateKeyError) Error() string {
	return fmt.Sprintf("%s: %s: source row %d %s and source row %d %s, and no order decides between them",
		ErrDuplicateKey, e.Key, e.Source[0], e.Rows[0], e.Source[1], e.Rows[1])
}

// Is finds ErrDuplicateKey.
func (e *DuplicateKeyError) Is(target error) bool { return target == ErrDuplicateKey }

// sourceRows are two rows of a source as errors tell them.
type sourceRows struct {
	key  string
	at   [2]int64 // ascending
	rows [2]string
}

// valueMax bounds the bytes of a value in an error.
const valueMax = 60

// sourcePair reads two rows of a source, of which schema knows the types and columns the names.
func sourcePair(ctx context.Context, source Rows, schema *Schema, columns *arrow.Schema, keys []string, a, b int64) (sourceRows, error) {
	out := sourceRows{at: [2]int64{min(a, b), max(a, b)}}
	names := make([]string, columns.NumFields())
	for i, f := range columns.Fields() {
		names[i] = f.Name
	}
	r, err := readSource(ctx, source, schema, names, bitmapOf(out.at[:]))
	if err != nil {
		return out, err
	}
	defer r.Release()
	for i := range out.rows {
		var parts []string
		for j, n := range names {
			v := "NULL"
			if r.Column(j).IsValid(i) {
				v = r.Column(j).ValueStr(i)
			}
			if len(v) > valueMax {
				v = strings.ToValidUTF8(v[:valueMax], "") + "…"
			}
			parts = append(parts, n+"="+v)
			if i == 0 && slices.ContainsFunc(keys, func(k string) bool { return strings.EqualFold(k, n) }) {
				if out.key != "" {
					out.key += ", "
				}
				out.key += n + " = " + v
			}
		}
		out.rows[i] = "(" + strings.Join(parts, ", ") + ")"
	}
	return out, nil
}
