package delta

import (
	"errors"
	"testing"
)

// TestLegacyCalendar moves days of the hybrid calendar; the pairs are those of Spark's RebaseDateTime.
func TestLegacyCalendar(t *testing.T) {
	for hybrid, want := range map[int64]int64{
		-719164: -719162, // 0001-01-01
		-141428: -141438, // 1582-10-04
		-141427: -141427, // 1582-10-15
		0:       0,
	} {
		if got := rebaseDays(hybrid); got != want {
			t.Errorf("day %d becomes %d, want %d", hybrid, got, want)
		}
		const day, time = int64(86_400_000_000), int64(3_600_000_001)
		if got := (Calendar{Dates: true}).rebaseMicros(hybrid*day + time); got != want*day+time {
			t.Errorf("day %d with a time becomes %d, want %d", hybrid, got, want*day+time)
		}
	}
}

// TestUnknownTypeChangeIsRefused reads schemas with type changes (PROTOCOL.md, "Type Widening").
func TestUnknownTypeChangeIsRefused(t *testing.T) {
	p := &Protocol{MinReaderVersion: 3, MinWriterVersion: 7, ReaderFeatures: []string{"typeWidening"}, WriterFeatures: []string{"typeWidening"}}
	for change, ok := range map[[2]string]bool{
		{"byte", "long"}: true, {"float", "double"}: true, {"integer", "double"}: true, {"date", "timestamp_ntz"}: true,
		{"decimal(6,2)", "decimal(12,4)"}: true, {"long", "decimal(20,0)"}: true, {"integer", "decimal(11,1)"}: true,
		{"long", "integer"}: false, {"long", "double"}: false, {"decimal(6,2)", "decimal(7,4)"}: false, {"string", "long"}: false, {"date", "timestamp"}: false,
		{"string", "string collate x"}: true, {"varchar(10)", "string"}: true, {"char(3)", "varchar(10)"}: true, {"char(3)", "long"}: false, {"byte", "decimal(4,1)"}: false,
	} {
		s := &Schema{Fields: []Field{{Name: "c", Type: &Struct{Fields: []Field{{Name: "x", Type: Long, Metadata: map[string]any{
			"delta.typeChanges": []any{map[string]any{"fromType": change[0], "toType": change[1]}}}}}}}}}
		if err := checkTypeChanges(p, s); ok != (err == nil) || !ok && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%v: error %v", change, err)
		}
	}
}
