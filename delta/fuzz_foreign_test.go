package delta

import (
	"bytes"
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
)

// What other writers wrote must never end the process or take memory without bound, whatever its bytes are.

func FuzzSnapshotJSON(f *testing.F) {
	head := `{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}` + "\n"
	f.Add([]byte(head + `{"metaData":{"id":"x","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":["a"],"configuration":{}}}` +
		"\n" + `{"add":{"path":"f","partitionValues":{"a":"1"},"size":1,"modificationTime":1,"dataChange":true}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx := context.Background()
		store := objstore.NewMemory(nil)
		if err := store.Put(ctx, "_delta_log/00000000000000000000.json", bytes.NewReader(data), objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		tab, err := Open(ctx, store, "", nil)
		if err != nil {
			return
		}
		s, err := tab.Snapshot(ctx)
		if err != nil {
			return
		}
		for _, fd := range s.Schema().Fields {
			s.Prune(Compare{Column: fd.Name, Op: "<", Value: int64(1)})
		}
		for _, err := range tab.Scan(ctx, s, ScanOptions{}) {
			if err != nil {
				return
			}
		}
	})
}

func FuzzDeletionVector(f *testing.F) {
	f.Add([]byte{0xd1, 0xd3, 0x39, 0x64, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0xd1, 0xd3, 0x39, 0x64, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3a, 0x30, 0, 0})
	f.Fuzz(func(_ *testing.T, data []byte) {
		if rows, err := DecodeVector(data); err == nil {
			_ = rows.GetCardinality()
		}
		_, _ = decodeZ85(string(data))
	})
}

func FuzzStatsBounds(f *testing.F) {
	f.Add(`{"numRecords":1,"minValues":{"a":1e999999999},"maxValues":{"a":"x"},"nullCount":{"a":{"b":1}}}`)
	f.Fuzz(func(_ *testing.T, s string) {
		st, err := ParseStats(s)
		if err != nil {
			return
		}
		for _, typ := range []Type{Long, Double, String, Date, Timestamp, Decimal{38, 2}, Boolean} {
			for _, v := range st.MinValues {
				statBound(typ, v, false)
			}
			for _, v := range st.MaxValues {
				statBound(typ, v, true)
			}
		}
	})
}

func FuzzTypeChanges(f *testing.F) {
	f.Add(`{"type":"struct","fields":[{"name":"a","type":{"type":"map","keyType":"string","valueType":{"type":"array","elementType":"decimal(38,0)","containsNull":true},"valueContainsNull":true},"nullable":true,"metadata":{"delta.typeChanges":[{"toType":"long","fromType":"x"}]}}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		schema, err := ParseSchema(s)
		if err != nil {
			return
		}
		_ = schema.Arrow()
		_ = checkTypeChanges(&Protocol{MinReaderVersion: 3, ReaderFeatures: []string{"typeWidening"}}, schema)
		if _, err := ParseSchema(schema.JSON()); err != nil {
			t.Errorf("its own text is refused: %v", err)
		}
	})
}

func FuzzVariant(f *testing.F) {
	f.Add([]byte{1, 0, 0}, []byte{0})
	f.Add([]byte{1, 1, 0, 1, 'a'}, []byte{2, 1, 0, 0, 2, 12, 1})
	f.Fuzz(func(_ *testing.T, meta, value []byte) {
		_, _ = VariantJSON(meta, value)
	})
}

func FuzzVersionChecksum(f *testing.F) {
	log := `{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}` + "\n" +
		`{"metaData":{"id":"x","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{}}}`
	f.Add([]byte(`{"tableSizeBytes":0,"numFiles":0,"numMetadata":1,"numProtocol":1,"metadata":{"id":"x","format":{"provider":"parquet"},"schemaString":"{\"type\":\"struct\",\"fields\":[]}","partitionColumns":["a"],"configuration":{"k":null}},"protocol":{"minReaderVersion":3,"minWriterVersion":7}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx := context.Background()
		store := objstore.NewMemory(nil)
		for key, b := range map[string][]byte{"00000000000000000000.json": []byte(log), "00000000000000000000.crc": data} {
			if err := store.Put(ctx, "_delta_log/"+key, bytes.NewReader(b), objstore.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = ReadHead(ctx, store, "", nil)
		tab, err := Open(ctx, store, "", nil)
		if err != nil {
			t.Fatal(err) // whatever a checksum says, the log is whole
		}
		s, err := tab.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.VerifyChecksum(ctx)
	})
}

// FuzzLogFiles puts foreign bytes in the place of one file of a log with a V2 checkpoint, a sidecar and a deletion vector.
// Reading ends in a state or in an error, and takes memory in proportion to the bytes; a hint (_last_checkpoint) never
// changes the state.
func FuzzLogFiles(f *testing.F) {
	ctx := context.Background()
	made := dmlTable(f, map[string]string{"delta.enableDeletionVectors": "true", "delta.checkpointPolicy": "v2", "delta.checkpointInterval": "3"})
	for range 4 {
		if _, err := made.Append(ctx, jsonRows(f, dmlSource, `{"id":1,"k":1,"v":"a","p":"x"}`, `{"id":2,"k":2,"v":"b","p":"x"}`), AppendOptions{}); err != nil {
			f.Fatal(err)
		}
	}
	if _, err := made.DeleteWhere(ctx, expr.Eq(expr.Col("id"), expr.Lit(1)), ChangeOptions{}); err != nil {
		f.Fatal(err)
	}
	if _, err := made.Checkpoint(ctx); err != nil {
		f.Fatal(err)
	}
	whole := map[string][]byte{}
	var kinds []string // a file of each kind
	seen := map[string]bool{}
	for info, err := range made.Store().List(ctx, "t/", "") {
		if err != nil {
			f.Fatal(err)
		}
		data, _, err := readObject(ctx, made.Store(), info.Key)
		if err != nil {
			f.Fatal(err)
		}
		whole[info.Key] = data
		for _, kind := range []string{"_last_checkpoint", ".crc", ".checkpoint.", "_sidecars/", "deletion_vector", "5.json", ".snappy.parquet"} {
			if strings.Contains(info.Key, kind) && !seen[kind] {
				seen[kind] = true
				f.Add(uint8(len(kinds)), data)
				f.Add(uint8(len(kinds)), data[:len(data)/2])
				kinds = append(kinds, info.Key)
			}
		}
	}
	if !seen["_last_checkpoint"] || !seen[".checkpoint."] || !seen["_sidecars/"] || !seen["deletion_vector"] {
		f.Fatalf("the log has only %v", kinds)
	}
	// Beside the time, which is that of the objects.
	state := func(s *Snapshot) string {
		_, rest, _ := strings.Cut(stateText(s), "\n")
		return rest
	}
	want := state(snap(f, made))
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		key := kinds[int(which)%len(kinds)]
		store := objstore.NewMemory(nil)
		for k, d := range whole {
			if k == key {
				d = data
			}
			if err := store.Put(ctx, k, bytes.NewReader(d), objstore.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tab, err := Open(ctx, store, "t", nil)
		if err == nil {
			var s *Snapshot
			if s, err = tab.Snapshot(ctx); err == nil {
				if strings.HasSuffix(key, "_last_checkpoint") && state(s) != want {
					t.Errorf("the hint %q changes the state to\n%s", data, state(s))
				}
				_, _ = s.VerifyChecksum(ctx)
				for _, err := range tab.Scan(ctx, s, ScanOptions{}) {
					if err != nil {
						break
					}
				}
			}
		}
		if err != nil && strings.HasSuffix(key, "_last_checkpoint") {
			t.Errorf("the hint %q makes the table unreadable: %v", data, err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 256<<20+uint64(len(data))*1000 {
			t.Errorf("%s of %d bytes takes %d MiB", key, len(data), n>>20)
		}
	})
}
