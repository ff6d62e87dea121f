package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
)

func TestJSONChecksum(t *testing.T) {
	// The example of PROTOCOL.md, "JSON checksum".
	text := `{"k0":"'v 0'", "checksum": "adsaskfljadfkjadfkj", "k1":{"k2": 2, "k3": ["v3", [1, 2], {"k4": "v4", "k5": ["v5", "v6", "v7"]}]}}`
	want := `"k0"="%27v%200%27","k1"+"k2"=2,"k1"+"k3"+0="v3","k1"+"k3"+1+0=1,"k1"+"k3"+1+1=2,"k1"+"k3"+2+"k4"="v4","k1"+"k3"+2+"k5"+0="v5","k1"+"k3"+2+"k5"+1="v6","k1"+"k3"+2+"k5"+2="v7"`
	if got, err := canonicalJSON([]byte(text)); err != nil || got != want {
		t.Errorf("%s\nnot\n%s\nerror %v", got, want, err)
	}
	if sum, err := jsonChecksum([]byte(text)); err != nil || sum != "6a92d155a59bf2eecbd4b4ec7fd1f875" {
		t.Errorf("checksum %s, error %v", sum, err)
	}
	for _, bad := range []string{``, `{`, `{"a":1,"a":2}`, `{"a":1} x`, strings.Repeat("[", 1000)} {
		if _, err := jsonChecksum([]byte(bad)); err == nil {
			t.Errorf("%q has a checksum", bad)
		}
	}
}

func FuzzLastCheckpoint(f *testing.F) {
	h, err := lastCheckpoint{Version: 3, Size: 4, V2: &lastV2Checkpoint{Path: "x"}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(h)
	f.Add([]byte(`{"k0":"'v 0'","k1":{"k3":["v3",[1,2],{"k4":null}]}}`))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = jsonChecksum(b) })
}

// TestLastCheckpointOfSpark checks the checksums that Spark wrote into _last_checkpoint.
func TestLastCheckpointOfSpark(t *testing.T) {
	root := filepath.Join(prereq.Need(t, "shared"), "delta-golden")
	seen := 0
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "_last_checkpoint" {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		var h struct {
			Checksum string `json:"checksum"`
		}
		if json.Unmarshal(data, &h) != nil || h.Checksum == "" {
			return nil
		}
		seen++
		if sum, err := jsonChecksum(data); err != nil || sum != h.Checksum {
			t.Errorf("%s: checksum %s, the file says %s; error %v", p, sum, h.Checksum, err)
		}
		return nil
	})
	if err != nil || seen == 0 {
		t.Errorf("%d checksums, error %v", seen, err)
	}
}

// files lists objects below the table by name.
func files(t *testing.T, tab *Table, prefix string) []string {
	t.Helper()
	var out []string
	for info, err := range tab.store.List(context.Background(), tab.logKey(prefix), "") {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.TrimPrefix(info.Key, tab.logKey("")))
	}
	return out
}

// stateOf is everything that a snapshot says, for comparing.
func stateOf(t *testing.T, s *Snapshot) string {
	t.Helper()
	var out []string
	for a := range s.checkpointActions() {
		b, err := marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.Replace(string(b), `"dataChange":true`, `"dataChange":false`, 1))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func TestV2Checkpoints(t *testing.T) {
	ctx := context.Background()
	for _, o := range []CheckpointOptions{
		{}, {Format: "json", SidecarActions: 3}, {Format: "parquet", SidecarActions: 3}, {Classic: true}, {Classic: true, SidecarActions: 2},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			store := objstore.NewMemory(nil)
			tab, err := Create(ctx, store, "t", CreateOptions{Schema: simSchema(), PartitionBy: []string{"day"}, Config: map[string]string{
				"delta.checkpointPolicy": "v2", "delta.enableDeletionVectors": "true", "delta.enableRowTracking": "true",
			}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if p := mustSnapshot(t, tab).Protocol(); !slices.Contains(p.ReaderFeatures, "v2Checkpoint") || !slices.Contains(p.WriterFeatures, "v2Checkpoint") {
				t.Fatalf("protocol %+v", p)
			}
			for i := range 5 {
				r := simRows([]simRow{{fmt.Sprint("a", i), "d0", 1}, {fmt.Sprint("b", i), "d1", 1}})
				if _, err := tab.Append(ctx, r, AppendOptions{Txn: &Txn{AppID: "app", Version: int64(i)}}); err != nil {
					t.Fatal(err)
				}
				r.Close()
			}
			gone := simRows([]simRow{{ID: "a1"}, {ID: "b2"}})
			defer gone.Close()
			if _, err := tab.Delete(ctx, []string{"id"}, gone, DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			want := stateOf(t, mustSnapshot(t, tab))
			v, err := tab.CheckpointAs(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tab.CheckpointAs(ctx, o); err != nil { // it is there
				t.Fatal(err)
			}
			written := files(t, tab, fmt.Sprintf("%020d.checkpoint", v))
			sidecars := files(t, tab, "_sidecars/")
			wantSidecars := 1
			if o.SidecarActions > 0 {
				wantSidecars = (8 + 2 + o.SidecarActions - 1) / o.SidecarActions // live files and tombstones
			}
			if len(written) != 1 || len(sidecars) != wantSidecars {
				t.Fatalf("checkpoint %q, sidecars %q", written, sidecars)
			}
			if classic := written[0] == fmt.Sprintf("%020d.checkpoint.parquet", v); classic != o.Classic || o.Format == "parquet" && !strings.HasSuffix(written[0], ".parquet") {
				t.Errorf("checkpoint %s", written[0])
			}
			data, _, err := readObject(ctx, store, tab.logKey("_last_checkpoint"))
			if err != nil {
				t.Fatal(err)
			}
			var hint lastCheckpoint
			if err := json.Unmarshal(data, &hint); err != nil {
				t.Fatal(err)
			}
			sum, err := jsonChecksum(data)
			if err != nil || hint.Checksum != sum || hint.V2 == nil || hint.V2.Path != written[0] || len(hint.V2.SidecarFiles) != len(sidecars) || len(hint.V2.NonFileActions) != 5 {
				t.Errorf("_last_checkpoint %s, error %v", data, err)
			}
			// The commits before are not needed any more.
			for i := range v {
				if err := store.Delete(ctx, tab.commitKey(i)); err != nil {
					t.Fatal(err)
				}
			}
			fresh, err := Open(ctx, store, "t", nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := stateOf(t, mustSnapshot(t, fresh)); got != want {
				t.Errorf("by the checkpoint:\n%s\nby the commits:\n%s", got, want)
			}
			if strings.HasSuffix(written[0], ".json") {
				// Cut anywhere, it is not taken: what it does not say must not be lost.
				key := tab.logKey(written[0])
				whole, _, err := readObject(ctx, store, key)
				if err != nil {
					t.Fatal(err)
				}
				for at := range whole {
					if at != 0 && whole[at-1] != '\n' && at%97 != 0 {
						continue
					}
					if err := store.Put(ctx, key, strings.NewReader(string(whole[:at])), objstore.PutOptions{}); err != nil {
						t.Fatal(err)
					}
					if _, err := Open(ctx, store, "t", nil); err == nil {
						t.Errorf("a manifest cut at byte %d of %d was taken", at, len(whole))
					}
				}
				if err := store.Put(ctx, key, strings.NewReader(string(whole)), objstore.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			// A hint that was changed on the way is not believed.
			if err := store.Put(ctx, tab.logKey("_last_checkpoint"), strings.NewReader(strings.Replace(string(data), `"version":6`, `"version":5`, 1)), objstore.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, ok := fresh.readLastCheckpoint(ctx); ok {
				t.Error("a hint with a wrong checksum was taken")
			}
		})
	}
	plain := newTestTable(t, nil, CreateOptions{})
	if _, err := plain.CheckpointAs(ctx, CheckpointOptions{Format: "json"}); !errors.Is(err, ErrProperty) {
		t.Errorf("a V2 checkpoint of a table without: %v", err)
	}
	if _, err := plain.CheckpointAs(ctx, CheckpointOptions{Format: "xml"}); err == nil {
		t.Error("a checkpoint in XML")
	}
}

// TestSidecarsAreCleanedUp deletes the sidecars of checkpoints that have outlived the retention, and no others.
func TestSidecarsAreCleanedUp(t *testing.T) {
	ctx := context.Background()
	now := time.Date(2024, 8, 20, 12, 0, 0, 0, time.UTC)
	store := objstore.NewMemory(func() time.Time { return now })
	opts := &Options{Clock: func() time.Time { return now }}
	tab, err := Create(ctx, store, "t", CreateOptions{Schema: testSchema(), Config: map[string]string{
		"delta.checkpointPolicy": "v2", "delta.checkpointInterval": "2", "delta.logRetentionDuration": "interval 1 hour",
	}}, opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		now = now.Add(13 * time.Hour)
		appendFile(t, tab, fmt.Sprint("f", i))
	}
	// A checkpoint in the making: its sidecar is there, its manifest is not.
	making := "_sidecars/11111111-0000-4000-8000-000000000000.parquet"
	if err := store.Put(ctx, tab.logKey(making), strings.NewReader("x"), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(13 * time.Hour)
	want := stateOf(t, mustSnapshot(t, tab))
	res, err := tab.CleanupLog(ctx, CleanupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	left := files(t, tab, "_sidecars/")
	if !slices.Contains(left, making) || len(left) >= 5 || len(left) < 2 {
		t.Errorf("sidecars %q left, deleted %q", left, res.Deleted)
	}
	fresh, err := Open(ctx, store, "t", opts)
	if err != nil {
		t.Fatal(err)
	}
	if got := stateOf(t, mustSnapshot(t, fresh)); got != want {
		t.Errorf("after cleanup:\n%s\nbefore:\n%s", got, want)
	}
}

// TestCheckpointStatistics writes checkpoints with statistics as JSON, as structs, as both and without, and compares what
// can be known of files.
func TestCheckpointStatistics(t *testing.T) {
	ctx := context.Background()
	schema := &Schema{Fields: []Field{
		{Name: "i", Type: Integer, Nullable: true}, {Name: "l", Type: Long, Nullable: true}, {Name: "d", Type: Double, Nullable: true},
		{Name: "n", Type: Decimal{20, 4}, Nullable: true}, {Name: "s", Type: String, Nullable: true}, {Name: "day", Type: Date, Nullable: true},
		{Name: "at", Type: Timestamp, Nullable: true}, {Name: "b", Type: Boolean, Nullable: true},
		{Name: "st", Type: &Struct{Fields: []Field{{Name: "x", Type: Long, Nullable: true}, {Name: "y", Type: &Array{Element: Long}, Nullable: true}}}, Nullable: true},
		{Name: "p", Type: Date, Nullable: true}, {Name: "q", Type: Integer, Nullable: true},
	}}
	stats := `{"numRecords":3,"minValues":{"i":-5,"l":9007199254740993,"d":-1.5,"n":-12.3400,"s":"a","day":"2024-01-02","at":"2024-01-02T03:04:05.678Z","st":{"x":1}},` +
		`"maxValues":{"i":7,"l":9223372036854775807,"d":1e300,"n":99999999.9999,"s":"zz","day":"2024-02-03","at":"2024-02-03T04:05:06.789Z","st":{"x":2}},` +
		`"nullCount":{"i":0,"l":1,"d":0,"n":2,"s":0,"day":0,"at":0,"b":3,"st":{"x":0,"y":1}},"tightBounds":true}`
	for _, conf := range []map[string]string{
		{}, {propStatsAsStruct: "true"}, {propStatsAsJSON: "false"}, {propStatsAsJSON: "false", propStatsAsStruct: "true"},
		{propStatsAsJSON: "false", propStatsAsStruct: "true", propCheckpointPolicy: "v2"},
	} {
		t.Run(fmt.Sprint(conf), func(t *testing.T) {
			store := objstore.NewMemory(nil)
			tab, err := Create(ctx, store, "t", CreateOptions{Schema: schema, PartitionBy: []string{"p", "q"}, Config: conf}, nil)
			if err != nil {
				t.Fatal(err)
			}
			x := tab.Begin(mustSnapshot(t, tab))
			p, q := "2024-08-20", "5"
			x.AddFile(&Add{Path: "one", Size: 1, DataChange: true, Stats: stats, PartitionValues: map[string]*string{"p": &p, "q": &q}})
			x.AddFile(&Add{Path: "two", Size: 1, DataChange: true, PartitionValues: map[string]*string{"p": nil, "q": nil}})
			if _, err := x.Commit(ctx, CommitOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := tab.Checkpoint(ctx); err != nil {
				t.Fatal(err)
			}
			if err := store.Delete(ctx, tab.commitKey(0)); err != nil {
				t.Fatal(err)
			}
			fresh, err := Open(ctx, store, "t", nil)
			if err != nil {
				t.Fatal(err)
			}
			s := mustSnapshot(t, fresh)
			one, _ := s.File("one")
			two, _ := s.File("two")
			if one == nil || two == nil || two.Stats != "" || *one.PartitionValues["p"] != p || two.PartitionValues["q"] != nil {
				t.Fatalf("files %+v %+v", one, two)
			}
			if conf[propStatsAsJSON] == "false" && conf[propStatsAsStruct] == "" {
				if one.Stats != "" {
					t.Errorf("statistics %s in a checkpoint that shall have none", one.Stats)
				}
				return
			}
			got, err := ParseStats(one.Stats)
			if err != nil {
				t.Fatal(err)
			}
			want, err := ParseStats(stats)
			if err != nil {
				t.Fatal(err)
			}
			same := func(a, b any) bool { return sameStat(a, b) }
			if got.NumRecords != 3 || !same(got.MinValues, want.MinValues) || !same(got.MaxValues, want.MaxValues) || !same(got.NullCount, want.NullCount) {
				t.Errorf("statistics\n%s\nnot\n%s", one.Stats, stats)
			}
		})
	}
}

// sameStat compares statistics by value: 1e300 is 1E+300, and a timestamp has as many digits as it likes.
func sameStat(a, b any) bool {
	am, ok := a.(map[string]any)
	if ok {
		bm, ok := b.(map[string]any)
		if !ok || len(am) != len(bm) {
			return false
		}
		for k := range am {
			if !sameStat(am[k], bm[k]) {
				return false
			}
		}
		return true
	}
	text := func(v any) string {
		if n, ok := v.(json.Number); ok {
			if r, ok := parseRat(n.String()); ok {
				return r.RatString()
			}
		}
		s := fmt.Sprint(v)
		if at, err := time.Parse(time.RFC3339Nano, s); err == nil {
			return at.String()
		}
		return s
	}
	return text(a) == text(b)
}
