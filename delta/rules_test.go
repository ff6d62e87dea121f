package delta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
)

// Rules of the protocol that implementations are known to get wrong; docs/delta.md lists all of them with their tests.

// rawTable is a table whose commits are given as text, one string each, in a store in memory.
func rawTable(t testing.TB, commits ...string) *Table {
	t.Helper()
	ctx := context.Background()
	store := objstore.NewMemory(time.Now)
	for v, text := range commits {
		if err := store.PutIfAbsent(ctx, fmt.Sprintf("t/_delta_log/%020d.json", v), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	tab, err := Open(ctx, store, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// rawHead is the first commit of a table: columns as the schema has them ("name type", with ";" between), the partition columns after "|".
func rawHead(t testing.TB, protocol string, config map[string]string, columns string) string {
	t.Helper()
	cols, parts, _ := strings.Cut(columns, "|")
	var fields []string
	for _, c := range strings.Split(cols, ";") {
		name, typ, _ := strings.Cut(strings.TrimSpace(c), " ")
		if !strings.HasPrefix(typ, "{") {
			typ = `"` + typ + `"`
		}
		fields = append(fields, fmt.Sprintf(`{"name":%q,"type":%s,"nullable":true,"metadata":{}}`, name, typ))
	}
	m := &Metadata{ID: "x", SchemaString: `{"type":"struct","fields":[` + strings.Join(fields, ",") + `]}`, PartitionColumns: strings.Fields(parts), Configuration: config}
	b, err := marshal(wireAction{Metadata: m})
	if err != nil {
		t.Fatal(err)
	}
	return `{"protocol":` + protocol + "}\n" + string(b) + "\n"
}

const (
	oldProtocol    = `{"minReaderVersion":1,"minWriterVersion":2}`
	vectorProtocol = `{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}`
)

// PROTOCOL.md, "Per-file Statistics": a file with a vector has the number of its physical rows and wide bounds; then null
// counts say something only where none or all of the rows are null. Without the mark bounds are tight.
func TestStatisticsBesideAVector(t *testing.T) {
	ctx := context.Background()
	tab := dmlTable(t, vectors, []string{`{"id":1,"k":5,"p":"x"}`, `{"id":2,"p":"x"}`, `{"id":3,"k":9,"p":"x"}`})
	for _, a := range snap(t, tab).Adds() {
		if st, err := ParseStats(a.Stats); err != nil || st.TightBounds != nil && !*st.TightBounds || st.NumRecords != 3 {
			t.Errorf("before: %s, %v", a.Stats, err)
		}
	}
	if _, err := tab.DeleteWhere(ctx, expr.Eq(expr.Col("id"), expr.Lit(2)), ChangeOptions{}); err != nil {
		t.Fatal(err)
	}
	s := snap(t, tab)
	for _, a := range s.Adds() {
		st, err := ParseStats(a.Stats)
		if err != nil || a.DeletionVector == nil || st.TightBounds == nil || *st.TightBounds || st.NumRecords != 3 || fmt.Sprintf("%v %v %v", st.NullCount["k"], st.MinValues["k"], st.MaxValues["k"]) != "1 5 9" {
			t.Errorf("after: %s, %v", a.Stats, err)
		}
	}
	for _, p := range []Predicate{IsNull{"k"}, Not{IsNull{"k"}}} {
		if len(s.Prune(p)) != 1 {
			t.Errorf("%v: the file is left out, though its null count says nothing of the rows that are left", p)
		}
	}
	if n := len(s.Prune(Compare{"k", ">", int64(9)})); n != 0 {
		t.Error("wide bounds still bound")
	}
}

// PROTOCOL.md, "Add File and Remove File": a path is a URI, and all spellings of one file are one key, in commits, in
// checkpoints and in the table's lists.
func TestSpellingsOfAPathAreOneFile(t *testing.T) {
	add := func(path string) string {
		return fmt.Sprintf(`{"add":{"path":%q,"partitionValues":{},"size":1,"modificationTime":1,"dataChange":true}}`+"\n", path)
	}
	remove := func(path string) string {
		return fmt.Sprintf(`{"remove":{"path":%q,"deletionTimestamp":%d,"dataChange":true}}`+"\n", path, time.Now().UnixMilli())
	}
	for _, c := range [][2]string{
		{"/a/b%20c", "file:/a/b%20c"}, {"file:///a/b", "/a/b"}, {"file:/a/%62", "file:///a/b"}, {"p=%41/x", "p=A/x"}, {"x%2Fy", "x/y"}, {"%E4%B8%AD", "%e4%b8%ad"},
	} {
		tab := rawTable(t, rawHead(t, oldProtocol, nil, "a long")+add(c[0])+add("other"), remove(c[1]))
		if _, err := tab.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, tab := range []*Table{tab, reopen(t, tab)} {
			if got := paths(snap(t, tab)); !slices.Equal(got, []string{"other"}) {
				t.Errorf("%s removed as %s: %v is left", c[0], c[1], got)
			}
		}
	}
	// A percent sign that was escaped twice is another name.
	tab := rawTable(t, rawHead(t, oldProtocol, nil, "a long")+add("x%2541"), remove("x%41"))
	if n := snap(t, tab).NumFiles(); n != 1 {
		t.Errorf("decoded twice: %d files", n)
	}
	// And so it is beside a file whose path in the log reads as that name. Where they lie in the index is left to chance.
	for i := range 200 {
		blank, percent := fmt.Sprintf("%d%%20x", i), fmt.Sprintf("%d%%2520x", i)
		tab := rawTable(t, rawHead(t, oldProtocol, nil, "a long")+add(blank)+add(percent), remove(percent))
		if got := paths(snap(t, tab)); !slices.Equal(got, []string{blank}) {
			t.Fatalf("%s removed: %v is left", percent, got)
		}
	}
}

// PROTOCOL.md, "Partition Value Serialization": values come from partitionValues, whatever the folder is called; the empty
// string is null for every type, and so is null itself.
func TestPartitionValuesComeFromTheLog(t *testing.T) {
	ctx := context.Background()
	tab := dmlTable(t, nil, []string{`{"id":1,"p":"x"}`}, []string{`{"id":2,"p":"x"}`}, []string{`{"id":3,"p":"x"}`})
	text := rawHead(t, oldProtocol, nil, "id long; k integer; v string; p string; d date | p d")
	values := map[string]string{"1": `{"p":"other","d":"2024-08-20"}`, "2": `{"p":"","d":""}`, "3": `{"p":null,"d":null}`}
	i := 0
	for _, a := range snap(t, tab).Adds() {
		i++
		text += fmt.Sprintf(`{"add":{"path":%q,"partitionValues":%s,"size":%d,"modificationTime":1,"dataChange":true}}`+"\n", a.Path, values[fmt.Sprint(i)], a.Size)
	}
	for v := range 4 {
		if err := tab.Store().Delete(ctx, tab.commitKey(Version(v))); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.Store().PutIfAbsent(ctx, tab.commitKey(0), []byte(text)); err != nil {
		t.Fatal(err)
	}
	if got, want := tableText(t, reopen(t, tab)), "1 - - other 2024-08-20\n2 - - - -\n3 - - - -"; got != want {
		t.Errorf("rows\n%s\nwant\n%s", got, want)
	}
}

// PROTOCOL.md, "Partition Value Serialization": timestamps have two spellings, and compare as times.
func TestTimestampPartitionsCompareAsTimes(t *testing.T) {
	add := func(path, at string) string {
		return fmt.Sprintf(`{"add":{"path":%q,"partitionValues":{"at":%q},"size":1,"modificationTime":1,"dataChange":true}}`+"\n", path, at)
	}
	tab := rawTable(t, rawHead(t, oldProtocol, nil, "a long; at timestamp | at")+add("old", "2024-08-20 12:00:00")+add("iso", "2024-08-20T12:00:00.000000Z")+add("zone", "2024-08-20T14:00:00+02:00")+add("later", "2024-08-20 12:00:00.000001"))
	noon := time.Date(2024, 8, 20, 12, 0, 0, 0, time.UTC)
	for p, want := range map[Predicate]string{
		Compare{"at", "=", noon}: "old iso zone", Compare{"at", ">", noon}: "later", Compare{"at", "<", noon}: "", Compare{"at", "<=", noon}: "old iso zone",
	} {
		var got []string
		for _, a := range snap(t, tab).Prune(p) {
			got = append(got, a.Path)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%v gives %v, want %s", p, got, want)
		}
	}
}

// PROTOCOL.md, "Action Reconciliation": the key of a file is its path and the id of its vector, and the order of actions in
// one commit means nothing.
func TestFilesAreReconciledByPathAndVector(t *testing.T) {
	dv := func(offset int) string {
		if offset < 0 {
			return ""
		}
		return fmt.Sprintf(`,"deletionVector":{"storageType":"u","pathOrInlineDv":"ab^-aqEH.-t@S}K{vb[*k^","offset":%d,"sizeInBytes":40,"cardinality":6}`, offset)
	}
	add := func(offset int) string {
		return `{"add":{"path":"x","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true` + dv(offset) + "}}\n"
	}
	remove := func(offset int) string {
		return fmt.Sprintf(`{"remove":{"path":"x","deletionTimestamp":%d,"dataChange":true%s}}`+"\n", time.Now().UnixMilli(), dv(offset))
	}
	for _, removeFirst := range []bool{true, false} {
		swap := func(from, to int) string {
			if removeFirst {
				return remove(from) + add(to)
			}
			return add(to) + remove(from)
		}
		tab := rawTable(t, rawHead(t, vectorProtocol, nil, "a long"), add(-1), swap(-1, 1), swap(1, 49))
		if _, err := tab.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, tab := range []*Table{tab, reopen(t, tab)} {
			s := snap(t, tab)
			var live, gone []string
			for _, a := range s.Adds() {
				live = append(live, a.DeletionVector.UniqueID())
			}
			for _, r := range s.Tombstones() {
				gone = append(gone, r.DeletionVector.UniqueID())
			}
			slices.Sort(gone)
			if want := "uab^-aqEH.-t@S}K{vb[*k^"; !slices.Equal(live, []string{want + "@49"}) || !slices.Equal(gone, []string{"", want + "@1"}) {
				t.Errorf("remove first %v: live %q, removed %q", removeFirst, live, gone)
			}
		}
	}
}

// PROTOCOL.md, "Deletion Vectors" and "Writer Requirements for Row Tracking": whoever marks rows removes the file with its
// old vector and adds it with a new one, which has all rows of the old one, in one commit; row ids, tags and whatever else
// the file had stay.
func TestVectorsOnlyGrow(t *testing.T) {
	ctx := context.Background()
	tab := dmlTable(t, map[string]string{"delta.enableDeletionVectors": "true", "delta.enableRowTracking": "true"})
	var lines []string
	for i := range 30 {
		lines = append(lines, fmt.Sprintf(`{"id":%d,"k":%d,"p":"x"}`, i, i))
	}
	if _, err := tab.Append(ctx, jsonRows(t, dmlSource, lines...), AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	// The file gets a tag, as OPTIMIZE of another writer leaves them.
	s := snap(t, tab)
	tx := tab.Begin(s)
	tx.recommit = true
	tag := "of another writer"
	for _, a := range s.Adds() {
		tagged := *a
		tagged.Tags, tagged.DataChange = map[string]*string{"T": &tag}, false
		tx.AddFile(&tagged)
	}
	if _, err := tx.Commit(ctx, CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	from := snap(t, tab).Version() + 1
	on := expr.Eq(expr.Col("target", "id"), expr.Col("source", "id"))
	for what, do := range map[string]func() error{
		"delete": func() error {
			_, err := tab.DeleteWhere(ctx, fn("<", expr.Col("id"), expr.Lit(3)), ChangeOptions{})
			return err
		},
		"update": func() error {
			_, err := tab.Update(ctx, UpdateOptions{Where: fn("=", expr.Col("id"), expr.Lit(7)), Set: []Assignment{{"k", expr.Lit(70)}}})
			return err
		},
		"merge by key": func() error {
			_, err := tab.Merge(ctx, jsonRows(t, dmlSource, `{"id":9,"k":90,"p":"x"}`), MergeOptions{Key: []string{"id"}})
			return err
		},
		"MERGE": func() error {
			_, err := tab.MergeInto(ctx, jsonRows(t, dmlSource, `{"id":11}`), MergeIntoOptions{On: on, Clauses: []MergeClause{{Kind: WhenMatched, Delete: true}}})
			return err
		},
	} {
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	s = snap(t, tab)
	commits, err := tab.Actions(ctx, from, s.Version())
	if err != nil || len(commits) != 4 {
		t.Fatalf("%d commits, %v", len(commits), err)
	}
	seen := 0
	for _, c := range commits {
		for _, a := range c.Adds {
			if a.DeletionVector == nil {
				continue
			}
			i := slices.IndexFunc(c.Removes, func(r *Remove) bool { return r.Path == a.Path })
			if i < 0 {
				t.Fatalf("version %d: %s is added with a vector and not removed", c.Version, a.Path)
			}
			seen++
			r := c.Removes[i]
			old, err := LoadVector(ctx, s.TableInfo(), r.DeletionVector)
			if err != nil {
				t.Fatal(err)
			}
			now, err := LoadVector(ctx, s.TableInfo(), a.DeletionVector)
			if err != nil {
				t.Fatal(err)
			}
			if !vectorMinus(old, now).IsEmpty() || old != nil && old.GetCardinality() >= now.GetCardinality() {
				t.Errorf("version %d: rows of the old vector are missing in the new one", c.Version)
			}
			if a.BaseRowID == nil || a.DefaultRowCommitVersion == nil || r.BaseRowID == nil || r.DefaultRowCommitVersion == nil ||
				*a.BaseRowID != *r.BaseRowID || *a.DefaultRowCommitVersion != *r.DefaultRowCommitVersion {
				t.Errorf("version %d: row ids of %+v and %+v", c.Version, r, a)
			}
			if a.Tags["T"] == nil || *a.Tags["T"] != tag {
				t.Errorf("version %d: tags %v", c.Version, a.Tags)
			}
		}
	}
	if seen != 4 {
		t.Errorf("%d vectors in 4 commits", seen)
	}
}

// PROTOCOL.md, "Deletion Vector File Storage Format" and "Deletion Vector Descriptor Schema", byte by byte, with the
// examples of the text.
func TestVectorBytes(t *testing.T) {
	ctx := context.Background()
	info := TableInfo{Store: objstore.NewMemory(nil), Path: "t"}
	rows := []*roaring64.Bitmap{roaring64.BitmapOf(3, 4, 7, 11, 18, 29), roaring64.BitmapOf(0, 1<<33)}
	key, descriptors, err := writeVectors(ctx, info, func() string { return "d2c639aa-8816-431a-aaf6-d3fe2512ff61" }, []*roaring64.Bitmap{rows[0].Clone(), rows[1].Clone()})
	if err != nil || key != "t/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin" {
		t.Fatal(key, err)
	}
	data, _, err := readObject(ctx, info.Store, key)
	if err != nil || data[0] != 1 {
		t.Fatal(data, err)
	}
	for i, d := range descriptors {
		body := data[int(*d.Offset)+4:][:d.SizeInBytes]
		if d.StorageType != "u" || binary.BigEndian.Uint32(data[*d.Offset:]) != uint32(d.SizeInBytes) || binary.LittleEndian.Uint32(body) != 1681511377 ||
			binary.BigEndian.Uint32(data[*d.Offset+4+d.SizeInBytes:]) != crc32.ChecksumIEEE(body) {
			t.Errorf("vector %d: %+v in % x", i, d, data)
		}
		if got, err := LoadVector(ctx, info, d); err != nil || !got.Equals(rows[i]) {
			t.Errorf("vector %d: %v, %v", i, got, err)
		}
	}
	if *descriptors[0].Offset != 1 || int(*descriptors[1].Offset) != 1+8+int(descriptors[0].SizeInBytes) {
		t.Errorf("offsets of %+v", descriptors)
	}
	// Inline, as Spark writes it. The example in the protocol's text has the first, native format, which is refused by name.
	got, err := LoadVector(ctx, info, &DeletionVector{StorageType: "i", PathOrInlineDv: "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", SizeInBytes: 44, Cardinality: 6})
	if err != nil || !got.Equals(rows[0]) {
		t.Errorf("inline: %v, %v", got, err)
	}
	// Z85 pads to four bytes; what is beyond sizeInBytes is none of the vector.
	body, err := EncodeVector(rows[1].Clone())
	if err != nil {
		t.Fatal(err)
	}
	padded := &DeletionVector{StorageType: "i", PathOrInlineDv: encodeZ85(append(slices.Clone(body), 0xFF, 0xFF, 0xFF)), SizeInBytes: int32(len(body)), Cardinality: 2}
	if got, err := LoadVector(ctx, info, padded); err != nil || !got.Equals(rows[1]) {
		t.Errorf("inline with padding: %v, %v", got, err)
	}
	// What stands before the last 20 characters is a folder; a path that is absolute is a URI.
	for d, want := range map[*DeletionVector]string{
		{StorageType: "u", PathOrInlineDv: "ab^-aqEH.-t@S}K{vb[*k^"}: "t/ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin",
		{StorageType: "u", PathOrInlineDv: "^-aqEH.-t@S}K{vb[*k^"}:   key,
	} {
		if got, err := vectorPlace(info, d); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", d.PathOrInlineDv, got, err, want)
		}
	}
	local := TableInfo{Store: localStore(t, t.TempDir()), Path: "t"}
	if got, err := vectorPlace(local, &DeletionVector{StorageType: "p", PathOrInlineDv: local.Store.URL() + "/t/a%20b.bin"}); err != nil || got != "t/a b.bin" {
		t.Errorf("absolute: %s, %v", got, err)
	}
	wrong := *descriptors[0]
	wrong.Cardinality++
	if _, err := LoadVector(ctx, info, &wrong); !errors.Is(err, ErrBadVector) {
		t.Errorf("another cardinality: %v", err)
	}
}

// PROTOCOL.md, "Reader Requirements for Deletion Vectors": vectors count as long as the protocol has them, whatever the
// property says.
func TestVectorsCountWithoutTheirProperty(t *testing.T) {
	ctx := context.Background()
	tab := dmlTable(t, vectors, []string{`{"id":1,"p":"x"}`, `{"id":2,"p":"x"}`, `{"id":3,"p":"x"}`})
	if _, err := tab.DeleteWhere(ctx, expr.Eq(expr.Col("id"), expr.Lit(1)), ChangeOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.SetProperties(ctx, map[string]string{"delta.enableDeletionVectors": "false"}, AlterOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := tableText(t, tab); got != "2 - - x\n3 - - x" {
		t.Errorf("rows\n%s", got)
	}
	// New ones are not written any more, and the old one is not forgotten.
	if _, err := tab.DeleteWhere(ctx, expr.Eq(expr.Col("id"), expr.Lit(2)), ChangeOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, a := range snap(t, tab).Adds() {
		if a.DeletionVector != nil {
			t.Errorf("a vector was written: %+v", a.DeletionVector)
		}
	}
	if got := tableText(t, tab); got != "3 - - x" {
		t.Errorf("rows\n%s", got)
	}
}

// PROTOCOL.md, "Checkpoints" and "Checkpoint Schema": removed files within the retention stay, without statistics and tags;
// what has expired, commitInfo and cdc do not; features are listed where the versions want them.
func TestCheckpointHoldsWhatCounts(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	old := now.Add(-40 * 24 * time.Hour).UnixMilli()
	remove := func(path string, at int64) string {
		return fmt.Sprintf(`{"remove":{"path":%q,"deletionTimestamp":%d,"dataChange":true,"stats":"{\"numRecords\":1}","tags":{"a":"b"},"size":3}}`+"\n", path, at)
	}
	head := rawHead(t, oldProtocol, map[string]string{"delta.setTransactionRetentionDuration": "interval 30 days", "delta.enableChangeDataFeed": "false"}, "a long")
	tab := rawTable(t, head+
		`{"commitInfo":{"timestamp":1,"operation":"X"}}`+"\n"+`{"cdc":{"path":"_change_data/c","partitionValues":{},"size":1,"dataChange":false}}`+"\n"+`{"unknownAction":{"x":1}}`+"\n"+
		fmt.Sprintf(`{"txn":{"appId":"old","version":9,"lastUpdated":%d}}`+"\n"+`{"txn":{"appId":"new","version":5,"lastUpdated":%d}}`+"\n", old, now.UnixMilli())+
		`{"add":{"path":"a","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true,"tags":{"k":"v"},"stats":"{\"numRecords\":1}"}}`+"\n"+remove("gone", now.UnixMilli())+remove("forgotten", old)+
		`{"remove":{"path":"timeless","dataChange":true}}`)
	v, err := tab.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	actions, err := readAll(t, tab.Store(), tab.logKey(fmt.Sprintf("%020d.checkpoint.parquet", v)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range actions {
		b, err := marshal(a.wireAction)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case a.Remove != nil && (a.Remove.Stats != "" || a.Remove.Tags != nil), a.Add != nil && (a.Add.Stats == "" || a.Add.Tags["k"] == nil), a.Protocol != nil && (a.Protocol.ReaderFeatures != nil || a.Protocol.WriterFeatures != nil):
			t.Errorf("%s", b)
		}
		name, _, _ := strings.Cut(string(b[2:]), `"`)
		switch {
		case a.Remove != nil:
			name += " " + a.Remove.Path
		case a.Txn != nil:
			name += " " + a.Txn.AppID
		}
		got = append(got, name)
	}
	slices.Sort(got)
	if want := []string{"add", "metaData", "protocol", "remove gone", "txn new"}; !slices.Equal(got, want) {
		t.Errorf("the checkpoint holds %q, want %q", got, want)
	}
}

// PROTOCOL.md, "Delta Log Entries": versions are 64 bits wide, and names of 20 digits sort as their numbers do.
func TestVersionsBeyond32Bits(t *testing.T) {
	ctx := context.Background()
	tab := rawTable(t, rawHead(t, oldProtocol, map[string]string{"delta.checkpointInterval": "2"}, "a long"))
	appendFile(t, tab, "f")
	if _, err := tab.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	const far = Version(9_999_999_999)
	data, _, err := readObject(ctx, tab.Store(), tab.logKey("00000000000000000001.checkpoint.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	for info, err := range tab.Store().List(ctx, "t/", "") {
		if err == nil {
			err = tab.Store().Delete(ctx, info.Key)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.Store().PutIfAbsent(ctx, tab.logKey(fmt.Sprintf("%020d.checkpoint.parquet", far)), data); err != nil {
		t.Fatal(err)
	}
	for i := range 4 { // passes the next checkpoint, whose hint has the version as well
		fresh := reopen(t, tab)
		if got := snap(t, fresh); got.Version() != far+Version(i) || got.NumFiles() != 1+i {
			t.Fatalf("version %d with %d files", got.Version(), got.NumFiles())
		}
		if res := appendFile(t, fresh, fmt.Sprint("g", i)); res.Version != far+Version(i)+1 || res.CheckpointErr != nil {
			t.Fatalf("%+v", res)
		}
	}
	if hint, ok := tab.readLastCheckpoint(ctx); !ok || hint.Version != far+3 {
		t.Errorf("hint %+v", hint)
	}
	if s, err := reopen(t, tab).SnapshotAt(ctx, far+1); err != nil || s.NumFiles() != 2 {
		t.Errorf("time travel: %v", err)
	}
}

// PROTOCOL.md, "Transaction Identifiers": the last one counts, also where its version is lower; one that has outlived
// delta.setTransactionRetentionDuration counts no more, and its version may be committed again.
func TestTxnsMayFallAndExpire(t *testing.T) {
	ctx := context.Background()
	txn := func(app string, v int, at time.Time) string {
		return fmt.Sprintf(`{"txn":{"appId":%q,"version":%d,"lastUpdated":%d}}`+"\n", app, v, at.UnixMilli())
	}
	now := time.Now()
	tab := rawTable(t, rawHead(t, oldProtocol, map[string]string{"delta.setTransactionRetentionDuration": "interval 2 days"}, "a long")+txn("a", 9, now)+txn("b", 7, now.Add(-72*time.Hour)), txn("a", 4, now))
	s := snap(t, tab)
	if v, ok := s.Txn("a"); !ok || v != 4 {
		t.Errorf("the last txn is %d", v)
	}
	if v, ok := s.Txn("b"); ok {
		t.Errorf("an expired txn is %d", v)
	}
	commit := func(app string, v int64) error {
		tx := tab.Begin(snap(t, tab))
		tx.SetTxn(Txn{AppID: app, Version: v})
		_, err := tx.Commit(ctx, CommitOptions{})
		return err
	}
	if err := commit("a", 4); !errors.Is(err, ErrConcurrentTransaction) {
		t.Errorf("the same again: %v", err)
	}
	if err := errors.Join(commit("a", 5), commit("b", 3)); err != nil {
		t.Error(err)
	}
}

// PROTOCOL.md, "Add CDC File": data files may have a column _change_type that is none of the table's.
func TestChangeTypeOfDataFilesIsIgnored(t *testing.T) {
	ctx := context.Background()
	wide := &Schema{Fields: []Field{{Name: "id", Type: Long, Nullable: true}, {Name: ChangeTypeColumn, Type: String, Nullable: true}}}
	made := dmlTableOf(t, wide, nil, []string{`{"id":1,"_change_type":"insert"}`})
	text := rawHead(t, oldProtocol, nil, "id long")
	for _, a := range snap(t, made).Adds() {
		b, err := marshal(wireAction{Add: a})
		if err != nil {
			t.Fatal(err)
		}
		text += string(b) + "\n"
	}
	for v := range 2 {
		if err := made.Store().Delete(ctx, made.commitKey(Version(v))); err != nil {
			t.Fatal(err)
		}
	}
	if err := made.Store().PutIfAbsent(ctx, made.commitKey(0), []byte(text)); err != nil {
		t.Fatal(err)
	}
	tab := reopen(t, made)
	if got := tableText(t, tab); got != "1" {
		t.Errorf("rows %s", got)
	}
	if _, err := tab.Update(ctx, UpdateOptions{Set: []Assignment{{"id", expr.Lit(2)}}}); err != nil {
		t.Fatal(err)
	}
	if got := tableText(t, tab); got != "2" {
		t.Errorf("rows %s", got)
	}
}

// PROTOCOL.md, "Struct Field", "Array Type" and "Map Type": what is NOT NULL inside of a column is missed where what is
// around it is there, and only there.
func TestNotNullInsideOfColumns(t *testing.T) {
	ctx := context.Background()
	inner := &Struct{Fields: []Field{{Name: "a", Type: Long}, {Name: "b", Type: Long, Nullable: true}}}
	schema := &Schema{Fields: []Field{
		{Name: "id", Type: Long, Nullable: true}, {Name: "s", Type: inner, Nullable: true}, {Name: "l", Type: &Array{Element: Long}, Nullable: true},
		{Name: "ls", Type: &Array{Element: inner, ContainsNull: true}, Nullable: true}, {Name: "m", Type: &Map{Key: String, Value: Long}, Nullable: true},
	}}
	long := arrow.PrimitiveTypes.Int64
	loose := arrow.StructOf(arrow.Field{Name: "a", Type: long, Nullable: true}, arrow.Field{Name: "b", Type: long, Nullable: true})
	rows := arrow.NewSchema([]arrow.Field{{Name: "id", Type: long, Nullable: true}, {Name: "s", Type: loose, Nullable: true}, {Name: "l", Type: arrow.ListOf(long), Nullable: true},
		{Name: "ls", Type: arrow.ListOf(loose), Nullable: true}, {Name: "m", Type: arrow.MapOf(arrow.BinaryTypes.String, long), Nullable: true}}, nil)
	bothWays(t, func(t *testing.T, config map[string]string) {
		tab, err := Create(ctx, objstore.NewMemory(time.Now), "t", CreateOptions{Schema: schema, Config: config}, nil)
		if err != nil {
			t.Fatal(err)
		}
		write := func(lines ...string) error {
			_, err := tab.Append(ctx, jsonRows(t, rows, lines...), AppendOptions{})
			return err
		}
		if err := write(`{"id":1}`, `{"id":2,"s":{"a":3},"l":[],"ls":[null,{"a":1}],"m":[{"key":"k","value":5}]}`); err != nil {
			t.Fatal(err)
		}
		want := tableText(t, tab)
		for column, line := range map[string]string{
			"s.a": `{"id":3,"s":{"b":1}}`, "l.element": `{"id":3,"l":[1,null]}`, "ls.element.a": `{"id":3,"ls":[{"a":1},{"a":null}]}`, "m.value": `{"id":3,"m":[{"key":"k","value":null}]}`,
		} {
			for what, err := range map[string]error{
				"append": write(`{"id":9}`, line),
				"merge": func() error {
					_, err := tab.MergeInto(ctx, jsonRows(t, rows, `{"id":9}`, line), MergeIntoOptions{On: expr.Eq(expr.Col("target", "id"), expr.Col("source", "id")), Clauses: []MergeClause{{Kind: WhenNotMatched, All: true}}})
					return err
				}(),
			} {
				var nn *NotNullError
				if !errors.As(err, &nn) || nn.Column != column || nn.Row != 1 {
					t.Errorf("%s of %s: %v", what, line, err)
				}
			}
		}
		if got := tableText(t, tab); got != want {
			t.Errorf("rows\n%s\nwant\n%s", got, want)
		}
	})
}

// PROTOCOL.md, "Void Type": such a column is in no file and is read as null; writers leave it out, and refuse tables in
// which it stands inside of arrays or maps, or which have no other columns.
func TestVoidColumns(t *testing.T) {
	ctx := context.Background()
	ids := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}, nil)
	tab := rawTable(t, rawHead(t, oldProtocol, nil, "id long; nothing void"))
	if _, err := tab.Append(ctx, jsonRows(t, ids, `{"id":1}`), AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Update(ctx, UpdateOptions{Set: []Assignment{{"id", expr.Lit(2)}}}); err != nil {
		t.Fatal(err)
	}
	if got := tableText(t, tab); got != "2 (null)" {
		t.Errorf("rows %s", got)
	}
	for _, columns := range []string{
		`id long; a {"type":"array","elementType":"void","containsNull":true}`, `id long; m {"type":"map","keyType":"string","valueType":"void","valueContainsNull":true}`,
		`id long; s {"type":"struct","fields":[{"name":"x","type":{"type":"array","elementType":"void","containsNull":true},"nullable":true,"metadata":{}}]}`,
	} {
		tab := rawTable(t, rawHead(t, oldProtocol, nil, columns))
		var u *UnsupportedError
		if _, err := tab.Append(ctx, jsonRows(t, ids, `{"id":1}`), AppendOptions{}); !errors.As(err, &u) || !slices.Contains(u.Names, "void") {
			t.Errorf("%s: %v", columns, err)
		}
	}
	tab = rawTable(t, rawHead(t, oldProtocol, nil, "nothing void"))
	var u *UnsupportedError
	none := arrow.NewSchema([]arrow.Field{{Name: "nothing", Type: arrow.Null, Nullable: true}}, nil)
	if _, err := tab.Append(ctx, jsonRows(t, none, `{"nothing":null}`), AppendOptions{}); !errors.As(err, &u) || !slices.Contains(u.Names, "void") {
		t.Errorf("nothing but void: %v", err)
	}
}

// Spark's MERGE: a key that is null matches nothing, matches on which no clause acts do not count as such, and a
// source of more rows than a batch holds is taken as a whole.
func TestMergeOfManyRows(t *testing.T) {
	ctx := context.Background()
	const n = 120_000
	bothWays(t, func(t *testing.T, config map[string]string) {
		tab := dmlTable(t, config)
		lines := make([]string, n)
		for i := range lines {
			lines[i] = fmt.Sprintf(`{"id":%d,"k":1,"p":"x"}`, i)
		}
		lines = append(lines, `{"k":1,"p":"x"}`)
		source := jsonRows(t, dmlSource, lines...)
		defer source.Close()
		on := expr.Eq(expr.Col("target", "id"), expr.Col("source", "id"))
		merge := func() string {
			res, err := tab.MergeInto(ctx, source, MergeIntoOptions{On: on, Clauses: []MergeClause{
				{Kind: WhenMatched, Condition: fn("=", fn("%", expr.Col("target", "id"), expr.Lit(1000)), expr.Lit(0)), Set: []Assignment{{"k", fn("+", expr.Col("target", "k"), expr.Lit(1))}}},
				{Kind: WhenNotMatched, All: true},
			}})
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(res.Inserted, res.Updated, res.Deleted)
		}
		if got := merge(); got != fmt.Sprint(n+1, 0, 0) {
			t.Errorf("first: %s", got)
		}
		// The null key comes again, for it matches nothing.
		if got := merge(); got != fmt.Sprint(1, n/1000, 0) {
			t.Errorf("second: %s", got)
		}
	})
}
