package delta

import (
	"bytes"
	"context"
	"testing"

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
