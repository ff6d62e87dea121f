package delta

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
)

// TestChecksumsOfOtherWriters compares the version checksums in the golden tables with what the log gives here.
func TestChecksumsOfOtherWriters(t *testing.T) {
	ctx := context.Background()
	root := filepath.Join(prereq.Need(t, "shared"), "delta-golden")
	var tables, sums int
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "_delta_log" {
			return err
		}
		crcs, err := filepath.Glob(filepath.Join(p, "*.crc"))
		if err != nil || len(crcs) == 0 {
			return err
		}
		tab, err := Open(ctx, localStore(t, filepath.Dir(p)), "", nil)
		if err != nil {
			return nil //nolint:nilerr // refused, or no table that can be read: other tests say which
		}
		tables++
		for _, crc := range crcs {
			v, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(crc), ".crc"), 10, 64)
			if err != nil {
				continue
			}
			s, err := tab.SnapshotAt(ctx, Version(v))
			if err != nil {
				continue // its commits are gone
			}
			ok, err := s.VerifyChecksum(ctx)
			if err != nil {
				t.Error(err)
			}
			if ok {
				sums++
			}
		}
		return nil
	})
	t.Logf("%d checksums of %d tables", sums, tables)
	if err != nil || sums < 200 {
		t.Errorf("only %d checksums, error %v", sums, err)
	}
}

// TestChecksumOfEveryCommit changes a table in every way and compares each checksum with the log read anew.
func TestChecksumOfEveryCommit(t *testing.T) {
	ctx := context.Background()
	store := objstore.NewMemory(nil)
	tab, err := Create(ctx, store, "t", CreateOptions{Schema: simSchema(), PartitionBy: []string{"day"}, Name: "n", Config: map[string]string{
		"delta.enableDeletionVectors": "true", "delta.enableRowTracking": "true", "delta.enableInCommitTimestamps": "true", "delta.checkpointInterval": "3",
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		r := simRows([]simRow{{fmt.Sprint("a", i), "d0", 1}, {fmt.Sprint("b", i), "d1", 1}, {"k", "d0", int64(i)}})
		_, err := tab.Merge(ctx, r, MergeOptions{Key: []string{"id"}, Order: []OrderTerm{{Column: "seq"}}, Txn: &Txn{AppID: fmt.Sprint("app", i%2), Version: int64(i)}})
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	if _, err := tab.Optimize(ctx, OptimizeOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Restore(ctx, 2, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	fresh, err := Open(ctx, store, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	last := mustSnapshot(t, fresh).Version()
	for v := range last + 1 {
		s, err := fresh.SnapshotAt(ctx, v)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := s.VerifyChecksum(ctx); !ok || err != nil {
			t.Errorf("version %d: checksum there %v, error %v", v, ok, err)
		}
		c := fresh.readChecksum(ctx, v)
		if c.TxnID == "" || c.InCommitTimestamp == nil || *c.InCommitTimestamp != s.Time().UnixMilli() || c.SetTransactions == nil || c.DomainMetadata == nil || c.NumDeletionVectors == nil {
			t.Errorf("version %d: checksum %+v", v, c)
		}
	}
	h, err := ReadHead(ctx, store, "t", nil)
	if s := mustSnapshot(t, fresh); err != nil || !h.FromChecksum || h.Version != last || h.NumFiles != int64(s.NumFiles()) || h.Bytes != s.Bytes() || h.Schema.String() != s.Schema().String() || h.Metadata.Name != "n" {
		t.Errorf("head %+v, error %v", h, err)
	}

	// A checksum that says something else is found; one that is torn, or belongs to nobody, is ignored and stays.
	key := fresh.checksumKey(last)
	data, _, err := readObject(ctx, store, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, broken := range []string{"", "{", string(data[:len(data)/2]), `{"numFiles":3}`, strings.Replace(string(data), `"numMetadata":1`, `"numFiles":"x"`, 1)} {
		if err := store.Put(ctx, key, strings.NewReader(broken), objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if ok, err := mustSnapshot(t, fresh).VerifyChecksum(ctx); ok || err != nil {
			t.Errorf("checksum %q: %v, error %v", broken, ok, err)
		}
		if h, err := ReadHead(ctx, store, "t", nil); err != nil || h.FromChecksum || h.NumFiles != int64(mustSnapshot(t, fresh).NumFiles()) {
			t.Errorf("checksum %q: head %+v, error %v", broken, h, err)
		}
	}
	wrong := strings.Replace(string(data), `"numFiles":`, `"numFiles":1`, 1)
	if err := store.Put(ctx, key, strings.NewReader(wrong), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := mustSnapshot(t, fresh).VerifyChecksum(ctx); !errors.Is(err, ErrChecksum) {
		t.Errorf("a wrong checksum: %v", err)
	}
	if err := mustSnapshot(t, fresh).writeChecksum(ctx, &commit{version: last}); err != nil {
		t.Fatal(err)
	}
	if now, _, err := readObject(ctx, store, key); err != nil || string(now) != wrong {
		t.Errorf("a checksum was overwritten: %s, error %v", now, err)
	}
}

// A writer that leaves something out of its metadata, or spells it otherwise, is not corrected: the checksum is what the
// log says, or is not written.
func TestChecksumKeepsMetadataAsItIs(t *testing.T) {
	ctx := context.Background()
	for meta, want := range map[string]string{
		`{"metaData":{"id":"x","name":"","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{}}}`: `"name":"",`,
		`{"metaData":{"id":"x","description":"d","format":{"provider":"parquet"},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[]}}`:                         `"description":"d",`,
		`{"metaData":{"id":"x","format":{"provider":"parquet"},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{"k":null}}}`:                "",
	} {
		store := objstore.NewMemory(nil)
		log := `{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}` + "\n" + meta + "\n"
		if err := store.PutIfAbsent(ctx, "_delta_log/00000000000000000000.json", []byte(log)); err != nil {
			t.Fatal(err)
		}
		tab, err := Open(ctx, store, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		appendFile(t, tab, "f")
		data, _, err := readObject(ctx, store, tab.checksumKey(1))
		if want == "" {
			if !isNotFound(err) {
				t.Errorf("%s has the checksum %s, error %v", meta, data, err)
			}
			continue
		}
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s has the checksum %s, error %v", meta, data, err)
		}
		// The same by way of a checkpoint.
		if _, err := tab.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
		for v := range Version(2) {
			if err := store.Delete(ctx, tab.commitKey(v)); err != nil {
				t.Fatal(err)
			}
		}
		again, err := Open(ctx, store, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := mustSnapshot(t, again).VerifyChecksum(ctx); !ok || err != nil {
			t.Errorf("%s: %v, error %v", meta, ok, err)
		}
	}
}

// Where commits come fast a Table leaves most of them without checksum, and one that comes later has its own again.
func TestChecksumsKeepTheirDistance(t *testing.T) {
	ctx, store, now := context.Background(), objstore.NewMemory(nil), time.UnixMilli(1_724_112_000_000)
	tab, err := Create(ctx, store, "t", CreateOptions{Schema: simSchema()}, &Options{Clock: func() time.Time { return now }, ChecksumEvery: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []time.Duration{9 * time.Second, 2 * time.Second, time.Second, 10 * time.Second} {
		now = now.Add(step)
		r, err := tab.Append(ctx, simRows([]simRow{{fmt.Sprint("a", i), "d0", 1}}), AppendOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Stat(ctx, tab.checksumKey(r.Version))
		if written, want := err == nil, i == 1 || i == 3; written != want {
			t.Errorf("commit %d: checksum written %v, want %v (%v)", i, written, want, err)
		}
	}
}
