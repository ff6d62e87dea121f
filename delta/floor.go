package delta

import (
	"context"
	"fmt"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// Floor keeps out of a merge what may have been deleted. A table that forgets its tombstones cannot tell a row that was
// never there from one that was deleted; so a row that matches no stored row and is not newer than the newest tombstone
// that was forgotten is not written.
type Floor struct {
	// Property is the property of the table that says up to which value tombstones were forgotten, as FloorValue makes
	// it. It is looked up in the snapshot that the merge stands on; a table without it keeps nothing out.
	Property string
	// Late is called before the commit, once for each time that the merge is planned and has such rows, with all of
	// them, by source ordinal. Tombstones are not among them: they would have nothing to hide, and count as lost. What
	// Late has been told of and is in the table after all, because another writer brought its key, is not in
	// MergeResult.LateRows. nil: nobody wants to know.
	Late func(ctx context.Context, rows *roaring64.Bitmap) error
}

// FloorValue is the text of a Floor's property: the column that rows are compared in, and the greatest forgotten value,
// of a Go type that FormatPartitionValue takes for the column.
func FloorValue(column string, t Type, v any) (string, error) {
	s, err := FormatPartitionValue(t, v)
	if err != nil {
		return "", err
	}
	if s == nil {
		return "", fmt.Errorf("%w: a floor cannot be null", ErrSchema)
	}
	return column + "=" + *s, nil
}

// ParseFloorValue reads a property that FloorValue made: the column with its type, and the value in the Go types of
// ParsePartitionValue.
func ParseFloorValue(s *Schema, text string) (Field, any, error) {
	column, value, ok := strings.Cut(text, "=")
	f, known := s.Field(column)
	if !ok || !known {
		return Field{}, nil, fmt.Errorf("%w: %q names no column of the table and its value", ErrProperty, text)
	}
	v, err := ParsePartitionValue(f.Type, &value)
	if err == nil && v == nil {
		err = fmt.Errorf("it is empty")
	}
	if err != nil {
		return Field{}, nil, fmt.Errorf("%w: %q: %w", ErrProperty, text, err)
	}
	return f, v, nil
}

// keepOut classes the source rows that the floor keeps out. They have matched no stored row.
func (a *mergeAttempt) keepOut(ctx context.Context) error {
	if a.o.Floor == nil || a.src.NumRows() == 0 {
		return nil
	}
	text := a.base.Config(a.o.Floor.Property)
	if text == "" {
		return nil
	}
	f, v, err := ParseFloorValue(a.info.Schema, text)
	if err != nil {
		return fmt.Errorf("property %s: %w", a.o.Floor.Property, err)
	}
	floor, err := constant(f.Type, v, 1)
	if err != nil {
		return fmt.Errorf("property %s: %w", a.o.Floor.Property, err)
	}
	defer floor.Release()
	late := roaring64.New()
	keep := func(o int64) {
		a.class[o] = rowLate
		if a.dead == nil || !a.dead.Contains(uint64(o)) {
			late.Add(uint64(o))
		}
	}
	if fieldIndex(a.src.Schema(), f.Name) < 0 { // nothing but nulls, which are below everything
		for o, c := range a.class {
			if c == rowInsert {
				keep(int64(o))
			}
		}
	} else {
		var at int64
		for b, err := range a.src.Read(ctx, []string{f.Name}, nil) {
			if err != nil {
				return err
			}
			col := b.Column(0)
			for i := range col.Len() {
				if o := at + int64(i); a.class[o] == rowInsert && compareValues(col, i, floor, 0) <= 0 {
					keep(o)
				}
			}
			at += b.NumRows()
		}
	}
	if late.IsEmpty() || a.o.Floor.Late == nil {
		return nil
	}
	return a.o.Floor.Late(ctx, late)
}
