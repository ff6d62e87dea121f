package avro

import (
	"bytes"
	"context"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"github.com/cauce-data/cauce/connect/csv"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

func container(t *testing.T) []byte {
	t.Helper()
	s := avro.MustParse(`{"type":"record","name":"r","fields":[{"name":"id","type":"long"},{"name":"n","type":["null","string"]},
		{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},{"name":"t","type":{"type":"long","logicalType":"timestamp-micros"}},
		{"name":"w","type":{"type":"long","logicalType":"local-timestamp-millis"}},{"name":"day","type":{"type":"int","logicalType":"date"}},
		{"name":"m","type":{"type":"map","values":"int"}},{"name":"a","type":{"type":"array","items":"double"}},{"name":"b","type":"bytes"}]}`)
	var b bytes.Buffer
	w, err := ocf.NewWriter(&b, s, ocf.WithCodec(ocf.SnappyCodec()))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2024, 8, 20, 1, 2, 3, 456789000, time.UTC)
	for i, n := range []any{"a\"b", nil, "c"} {
		err := w.Encode(map[string]any{"id": int64(1)<<60 + int64(i), "n": n, "d": big.NewRat(150, 100), "t": at, "w": at.Truncate(time.Millisecond),
			"day": at.Truncate(24 * time.Hour), "m": map[string]any{"k": 1, "j": 2}, "a": []any{1.5, 1e300}, "b": []byte{0, 255}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRecords: each type keeps its value as text, a date is no midnight and a local time has no zone; records are found
// again by position; a cut or foreign file is told from an empty one.
func TestRecords(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	store, err := objstore.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	data := container(t)
	for name, content := range map[string][]byte{"a.avro": data, "cut.avro": data[:len(data)-20], "alien.avro": []byte("Obj?"), "empty.avro": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open := func(name string) (*pipeline.RawFile, error) {
		info, err := store.Stat(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		return Opener{Stager: csv.NewOpener(csv.Options{})}.Open(ctx, store, info, &pipeline.Source{Format: pipeline.FormatAvro})
	}
	f, err := open("a.avro")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"a":[1.5,1e+300],"b":"00ff","d":1.5,"day":"2024-08-20","id":1152921504606846976,"m":{"j":2,"k":1},"n":"a\"b","t":"2024-08-20T01:02:03.456789Z","w":"2024-08-20T01:02:03.456"}`,
		`{"a":[1.5,1e+300],"b":"00ff","d":1.5,"day":"2024-08-20","id":1152921504606846977,"m":{"j":2,"k":1},"n":null,"t":"2024-08-20T01:02:03.456789Z","w":"2024-08-20T01:02:03.456"}`,
	}
	n := 0
	for row, err := range f.Rows(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if n < len(want) && (row.Values[0] != want[n] || row.Position != int64(n+1)) {
			t.Errorf("record %d is %s, want %s", row.Position, row.Values[0], want[n])
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d records, want 3", n)
	}
	for row, err := range f.RowsAt(ctx, []int64{2}) {
		if err != nil || row.Position != 2 || row.Raw != want[1] {
			t.Errorf("record 2 is %v, %v", row, err)
		}
	}
	if _, err := open("alien.avro"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a foreign file: %v", err)
	}
	if f, err = open("cut.avro"); err == nil {
		for _, err = range f.Rows(ctx) {
		}
	}
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("a cut file: %v", err)
	}
	if f, err = open("empty.avro"); err != nil {
		t.Fatal(err)
	}
	for row, err := range f.Rows(ctx) {
		t.Errorf("an empty file has %v, %v", row, err)
	}
}
