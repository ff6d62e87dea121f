package delta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// clockedTable is a table in memory whose log entries have the times of a clock that the test moves.
func clockedTable(t *testing.T, config map[string]string) (tab *Table, now *time.Time) {
	t.Helper()
	at := time.Date(2024, 8, 20, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return at }
	tab, err := Create(context.Background(), objstore.NewMemory(clock), "t", CreateOptions{Schema: testSchema(), Config: config}, &Options{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	return tab, &at
}

func versionAt(t *testing.T, tab *Table, at time.Time) Version {
	t.Helper()
	s, err := tab.SnapshotAsOf(context.Background(), at)
	if errors.Is(err, ErrVersionNotFound) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.Version()
}

func TestTimeTravelByTimestamp(t *testing.T) {
	tab, now := clockedTable(t, nil)
	start := *now
	for i := range 5 { // versions 1 to 5, a minute apart
		*now = now.Add(time.Minute)
		appendFile(t, tab, fmt.Sprint("f", i))
	}
	for _, c := range []struct {
		at   time.Duration
		want Version
	}{{-time.Millisecond, -1}, {0, 0}, {59 * time.Second, 0}, {time.Minute, 1}, {3*time.Minute + time.Second, 3}, {time.Hour, 5}} {
		if got := versionAt(t, tab, start.Add(c.at)); got != c.want {
			t.Errorf("%v: version %d, want %d", c.at, got, c.want)
		}
	}
	_, err := tab.SnapshotAsOf(context.Background(), start.Add(-time.Hour))
	var ve *VersionError
	if !errors.As(err, &ve) || ve.Earliest != 0 || ve.Latest != 5 || !ve.EarliestTime.Equal(start) {
		t.Errorf("%v", err)
	}
}

// Without in-commit timestamps the times of log entries may run backwards; they are moved forward by a millisecond.
func TestTimeTravelClockRunsBackwards(t *testing.T) {
	tab, now := clockedTable(t, nil)
	start := *now
	*now = start.Add(-time.Hour)
	appendFile(t, tab, "f1")
	*now = start.Add(time.Minute)
	appendFile(t, tab, "f2")
	h, err := tab.History(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var times []time.Duration
	for _, c := range h {
		times = append(times, c.Time.Sub(start))
	}
	if !slices.Equal(times, []time.Duration{time.Minute, time.Millisecond, 0}) {
		t.Fatal(times)
	}
	for at, want := range map[time.Duration]Version{-time.Minute: -1, 0: 0, time.Millisecond: 1, time.Minute: 2} {
		if got := versionAt(t, tab, start.Add(at)); got != want {
			t.Errorf("%v: version %d, want %d", at, got, want)
		}
	}
}

// PROTOCOL.md, "In-Commit Timestamps": first action, greater than the one before whatever the clock says, also after a
// lost race; time travel uses them from the version on that switched them on.
func TestInCommitTimestamps(t *testing.T) {
	ctx := context.Background()
	tab, now := clockedTable(t, map[string]string{"delta.checkpointInterval": "2"})
	start := *now
	*now = start.Add(10 * time.Minute)
	appendFile(t, tab, "f1")
	s := mustSnapshot(t, tab)
	x := tab.Begin(s)
	m := s.Metadata()
	m.Configuration = map[string]string{"delta.enableInCommitTimestamps": "true", "delta.checkpointInterval": "2"}
	x.SetMetadata(m)
	x.SetProtocol(Protocol{MinReaderVersion: 1, MinWriterVersion: 7, WriterFeatures: []string{"appendOnly", "invariants", "inCommitTimestamp"}})
	*now = start.Add(20 * time.Minute)
	if _, err := x.Commit(ctx, CommitOptions{Operation: "SET TBLPROPERTIES"}); err != nil {
		t.Fatal(err)
	}
	s = mustSnapshot(t, tab)
	if s.Config("delta.inCommitTimestampEnablementVersion") != "2" || s.Config("delta.inCommitTimestampEnablementTimestamp") != fmt.Sprint(now.UnixMilli()) {
		t.Fatal(s.Metadata().Configuration)
	}
	*now = start.Add(15 * time.Minute) // the clock runs backwards
	race := false
	x = tab.Begin(s)
	x.AddFile(testAdd("f3"))
	res, err := x.Commit(ctx, CommitOptions{Hook: func(phase string) {
		if phase == "before-commit" && !race {
			race = true
			appendFile(t, reopen(t, tab), "winner")
		}
	}})
	if err != nil || res.Lost != 1 {
		t.Fatal(res, err)
	}
	seg, err := tab.list(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	times, err := tab.commitTimes(ctx, mustSnapshot(t, tab), seg)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(times); i++ {
		if !times[i].at.After(times[i-1].at) {
			t.Fatalf("times %v", times)
		}
	}
	// Winner (by another clock) and loser lie behind the switch.
	for i, tb := range []*Table{tab, reopen(t, tab)} {
		got := mustSnapshot(t, tb)
		if got.Version() != 4 || !got.Time().Equal(times[4].at) {
			t.Fatalf("table %d: version %d at %v, want %v", i, got.Version(), got.Time(), times[4].at)
		}
	}
	data, _, err := readObject(ctx, tab.Store(), tab.commitKey(4))
	if err != nil || string(data[:14]) != `{"commitInfo":` {
		t.Fatalf("%.60s %v", data, err)
	}
	for at, want := range map[time.Time]Version{start.Add(10 * time.Minute): 1, start.Add(19 * time.Minute): 1, start.Add(20 * time.Minute): 2, times[3].at: 3, times[4].at: 4} {
		if got := versionAt(t, tab, at); got != want {
			t.Errorf("%v: version %d, want %d", at, got, want)
		}
	}
}

func TestCleanupLog(t *testing.T) {
	ctx := context.Background()
	tab, now := clockedTable(t, map[string]string{"delta.checkpointInterval": "3", "delta.logRetentionDuration": "interval 10 days"})
	for i := range 20 { // a version a day
		*now = now.Add(24 * time.Hour)
		appendFile(t, tab, fmt.Sprint("f", i))
	}
	want := stateText(mustSnapshot(t, tab))
	var told []Version
	o := CleanupOptions{DryRun: true, Before: func(_ context.Context, commits []Commit) error {
		told = nil
		for _, c := range commits {
			told = append(told, c.Version)
		}
		return nil
	}}
	dry, err := tab.CleanupLog(ctx, o)
	if err != nil || dry.Earliest != 9 || len(told) != 9 {
		t.Fatal(dry, told, err)
	}
	if _, err := tab.SnapshotAt(ctx, 0); err != nil {
		t.Fatal("the dry run deleted: ", err)
	}
	stop := errors.New("stop")
	if _, err := tab.CleanupLog(ctx, CleanupOptions{Before: func(context.Context, []Commit) error { return stop }}); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	o.DryRun = false
	res, err := tab.CleanupLog(ctx, o)
	if err != nil || !slices.Equal(res.Deleted, dry.Deleted) {
		t.Fatal(res, err)
	}
	if got := stateText(mustSnapshot(t, reopen(t, tab))); got != want {
		t.Fatalf("state\n%s, want\n%s", got, want)
	}
	for v := Version(0); v <= 20; v++ {
		s, err := tab.SnapshotAt(ctx, v)
		if v < 9 {
			var ve *VersionError
			if !errors.As(err, &ve) || ve.Earliest != 9 || ve.Latest != 20 {
				t.Fatalf("version %d: %v", v, err)
			}
		} else if err != nil || s.NumFiles() != int(v) {
			t.Fatalf("version %d: %v", v, err)
		}
	}
	// The commit of the oldest checkpoint is still there, so its time is known.
	if got := versionAt(t, tab, now.Add(-11*24*time.Hour)); got != 9 {
		t.Fatal(got)
	}
	if got := versionAt(t, tab, now.Add(-12*24*time.Hour)); got != -1 {
		t.Fatal(got)
	}
	if again, err := tab.CleanupLog(ctx, CleanupOptions{}); err != nil || len(again.Deleted) != 0 {
		t.Fatal(again, err)
	}
}

// Behind a checkpoint that cannot be read the commits are all that is left of the table.
func TestCleanupLogKeepsWhatABrokenCheckpointStandsFor(t *testing.T) {
	ctx := context.Background()
	tab, now := clockedTable(t, map[string]string{"delta.checkpointInterval": "3", "delta.logRetentionDuration": "interval 10 days"})
	for i := range 8 { // a version a day
		*now = now.Add(24 * time.Hour)
		appendFile(t, tab, fmt.Sprint("f", i))
	}
	if err := tab.Store().Put(ctx, tab.checkpointKey(6), strings.NewReader("PAR1 cut"), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	want := stateText(mustSnapshot(t, reopen(t, tab)))
	*now = now.Add(20 * 24 * time.Hour)
	res, err := reopen(t, tab).CleanupLog(ctx, CleanupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fresh := reopen(t, tab)
	if s, err := fresh.Snapshot(ctx); err != nil {
		t.Fatalf("%v; deleted were %v", err, res.Deleted)
	} else if got := stateText(s); got != want {
		t.Fatalf("state\n%s, want\n%s", got, want)
	}
	if res.Earliest != 3 {
		t.Errorf("version %d is the earliest, want that of the checkpoint before", res.Earliest)
	}
}

// A removed file leaves the state when nobody may want it any more.
func TestTombstonesExpire(t *testing.T) {
	ctx := context.Background()
	tab, now := clockedTable(t, map[string]string{"delta.deletedFileRetentionDuration": "interval 2 days", "delta.checkpointInterval": "1"})
	appendFile(t, tab, "f")
	s := mustSnapshot(t, tab)
	x := tab.Begin(s)
	x.RemoveFile(s.byPath()["f"].Tombstone(now.UnixMilli(), true))
	if _, err := x.Commit(ctx, CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(47 * time.Hour)
	appendFile(t, tab, "g")
	if n := len(mustSnapshot(t, tab).Tombstones()); n != 1 {
		t.Fatal(n)
	}
	*now = now.Add(2 * time.Hour)
	appendFile(t, tab, "h")
	for _, tb := range []*Table{tab, reopen(t, tab)} {
		if n := len(mustSnapshot(t, tb).Tombstones()); n != 0 {
			t.Fatal(n)
		}
	}
}

func TestUnsupportedFeatures(t *testing.T) {
	ctx := context.Background()
	meta := func(config map[string]string, field string) string {
		m := &Metadata{ID: "x", SchemaString: `{"type":"struct","fields":[{"name":"a","type":"long","nullable":true,"metadata":{` + field + `}}]}`, Configuration: config}
		b, err := marshal(wireAction{Metadata: m})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, c := range []struct {
		name, protocol, meta string
		read, write          []string // names refused
	}{
		{"old", `{"minReaderVersion":1,"minWriterVersion":2}`, meta(nil, ""), nil, nil},
		{"unknown reader feature", `{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors","zebra"],"writerFeatures":["deletionVectors","zebra"]}`, meta(nil, ""), []string{"zebra"}, nil},
		{"unknown writer feature", `{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["appendOnly","zebra"]}`, meta(nil, ""), nil, []string{"zebra"}},
		{"reader version", `{"minReaderVersion":4,"minWriterVersion":7}`, meta(nil, ""), []string{"4"}, nil},
		{"writer version", `{"minReaderVersion":1,"minWriterVersion":8}`, meta(nil, ""), nil, []string{"8"}},
		{"check constraint", `{"minReaderVersion":1,"minWriterVersion":3}`, meta(map[string]string{"delta.constraints.c": "a > 0"}, ""), nil, []string{"checkConstraints"}},
		{"change feed supported and off", `{"minReaderVersion":1,"minWriterVersion":4}`, meta(nil, ""), nil, nil},
		{"invariant", `{"minReaderVersion":1,"minWriterVersion":2}`, meta(nil, `"delta.invariants":"{}"`), nil, []string{"invariants"}},
		{"generated column", `{"minReaderVersion":1,"minWriterVersion":4}`, meta(nil, `"delta.generationExpression":"1"`), nil, []string{"generatedColumns"}},
		{"identity column", `{"minReaderVersion":1,"minWriterVersion":6}`, meta(nil, `"delta.identity.start":1`), nil, []string{"identityColumns"}},
		{"column mapping", `{"minReaderVersion":2,"minWriterVersion":5}`, meta(map[string]string{"delta.columnMapping.mode": "name"}, `"delta.columnMapping.physicalName":"p","delta.columnMapping.id":1`), nil, nil},
		{"column mapping without support", `{"minReaderVersion":1,"minWriterVersion":2}`, meta(map[string]string{"delta.columnMapping.mode": "name"}, ""), nil, nil},
		{"row tracking suspended", `{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["rowTracking","domainMetadata"]}`, meta(map[string]string{"delta.rowTrackingSuspended": "true"}, ""), nil, nil},
		{"checkpoint protection", `{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["checkpointProtection"]}`, meta(nil, ""), nil, []string{"checkpointProtection"}},
		{"iceberg", `{"minReaderVersion":2,"minWriterVersion":7,"writerFeatures":["columnMapping","icebergCompatV1","icebergCompatV2"]}`, meta(nil, ""), nil, []string{"icebergCompatV1", "icebergCompatV2"}},
		{"catalog", `{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["catalogManaged"],"writerFeatures":["catalogManaged","inCommitTimestamp"]}`, meta(nil, ""), []string{"catalogManaged"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := objstore.NewMemory(nil)
			log := `{"protocol":` + c.protocol + "}\n" + c.meta + "\n"
			if err := store.PutIfAbsent(ctx, "_delta_log/00000000000000000000.json", []byte(log)); err != nil {
				t.Fatal(err)
			}
			refused := func(err error, want []string) bool {
				if len(want) == 0 {
					return err == nil
				}
				var u *UnsupportedError
				return errors.As(err, &u) && errors.Is(err, ErrUnsupported) && slices.Equal(u.Names, want)
			}
			tab, err := Open(ctx, store, "", nil)
			if !refused(err, c.read) {
				t.Fatalf("open: %v, want %v refused", err, c.read)
			}
			if err != nil {
				return
			}
			x := tab.Begin(mustSnapshot(t, tab))
			x.AddFile(testAdd("f"))
			if _, err := x.Commit(ctx, CommitOptions{}); !refused(err, c.write) {
				t.Fatalf("commit: %v, want %v refused", err, c.write)
			}
		})
	}
}

// What is newer than this package, or not written by it, is refused under its own name; reading goes on where only writers
// need to know the feature.
func TestFeaturesRefusedByName(t *testing.T) {
	ctx := context.Background()
	named := func(err error, name string) bool {
		var u *UnsupportedError
		return errors.As(err, &u) && errors.Is(err, ErrUnsupported) && slices.Equal(u.Names, []string{name})
	}
	reading := func(f string) string {
		return fmt.Sprintf(`{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":[%q],"writerFeatures":[%q]}`, f, f)
	}
	writing := func(f string) string {
		return fmt.Sprintf(`{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":[%q]}`, f)
	}
	for _, f := range []string{"catalogManaged", "catalogOwned-preview", "geospatial", "adaptiveMetadata-preview", "redirectReaderWriter-preview"} {
		store := objstore.NewMemory(nil)
		if err := store.PutIfAbsent(ctx, "_delta_log/00000000000000000000.json", []byte(rawHead(t, reading(f), nil, "a long"))); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(ctx, store, "", nil); !named(err, f) {
			t.Errorf("%s: open: %v", f, err)
		}
	}
	write := func(protocol, f string) {
		t.Helper()
		tab := rawTable(t, rawHead(t, protocol, nil, "a long"))
		x := tab.Begin(mustSnapshot(t, tab))
		x.AddFile(testAdd("f"))
		if _, err := x.Commit(ctx, CommitOptions{}); !named(err, f) {
			t.Errorf("%s: commit: %v", f, err)
		}
	}
	for _, f := range []string{"typeWidening-preview", "variantType", "variantType-preview", "variantShredding", "variantShredding-preview"} {
		write(reading(f), f)
	}
	for _, f := range []string{
		"coordinatedCommits-preview", "checkpointProtection", "icebergCompatV1", "icebergCompatV2", "icebergCompatV3", "icebergWriterCompatV1", "icebergWriterCompatV3",
		"materializePartitionColumns", "collations", "collations-preview", "redirectWriterOnly-preview",
	} {
		write(writing(f), f)
	}
	for _, typ := range []string{"interval year", "interval day to second", "timestamp_nanos", "geometry(OGC:CRS84)"} {
		store := objstore.NewMemory(nil)
		if err := store.PutIfAbsent(ctx, "_delta_log/00000000000000000000.json", []byte(rawHead(t, oldProtocol, nil, "a "+typ))); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(ctx, store, "", nil); !named(err, typ) {
			t.Errorf("%s: open: %v", typ, err)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		o    CreateOptions
		want error
	}{
		"no schema":          {CreateOptions{}, ErrSchema},
		"no such partition":  {CreateOptions{Schema: testSchema(), PartitionBy: []string{"x"}}, ErrSchema},
		"all partitions":     {CreateOptions{Schema: &Schema{Fields: testSchema().Fields[:1]}, PartitionBy: []string{"id"}}, ErrSchema},
		"partition twice":    {CreateOptions{Schema: testSchema(), PartitionBy: []string{"id", "ID"}}, ErrSchema},
		"nested partition":   {CreateOptions{Schema: &Schema{Fields: []Field{{Name: "a", Type: &Array{Element: Long}}, {Name: "b", Type: Long}}}, PartitionBy: []string{"a"}}, ErrSchema},
		"column twice":       {CreateOptions{Schema: &Schema{Fields: []Field{{Name: "a", Type: Long}, {Name: "A", Type: Long}}}}, ErrSchema},
		"column with spaces": {CreateOptions{Schema: &Schema{Fields: []Field{{Name: "a b", Type: Long}}}}, ErrSchema},
		"void":               {CreateOptions{Schema: &Schema{Fields: []Field{{Name: "a", Type: Void}}}}, ErrUnsupported},
		"unknown property":   {CreateOptions{Schema: testSchema(), Config: map[string]string{"delta.zebra": "1"}}, ErrProperty},
		"bad property":       {CreateOptions{Schema: testSchema(), Config: map[string]string{"delta.checkpointInterval": "0"}}, ErrProperty},
		"bad boolean":        {CreateOptions{Schema: testSchema(), Config: map[string]string{"delta.appendOnly": "yes"}}, ErrProperty},
		"bad interval":       {CreateOptions{Schema: testSchema(), Config: map[string]string{"delta.logRetentionDuration": "1 month"}}, ErrProperty},
		"suspended ids":      {CreateOptions{Schema: testSchema(), Config: map[string]string{"delta.enableRowTracking": "true", "delta.rowTrackingSuspended": "true"}}, ErrProperty},
	} {
		store := objstore.NewMemory(nil)
		if _, err := Create(ctx, store, "t", c.o, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		for info := range store.List(ctx, "", "") {
			t.Errorf("%s: left %s", name, info.Key)
		}
	}
	tab, err := Create(ctx, objstore.NewMemory(nil), "t/", CreateOptions{Schema: testSchema(), Config: map[string]string{"my.own": "x"}}, nil)
	if err != nil || tab.Path() != "t" {
		t.Fatal(tab, err)
	}
	if again, err := Create(ctx, tab.Store(), "t", CreateOptions{Schema: testSchema(), IfNotExists: true}, nil); err != nil || mustSnapshot(t, again).Config("my.own") != "x" {
		t.Fatal(err)
	}
	if _, err := Open(ctx, tab.Store(), "elsewhere", nil); !errors.Is(err, ErrNotATable) {
		t.Fatal(err)
	}
	if _, err := Open(ctx, tab.Store(), "t", &Options{Isolation: "Chaos"}); !errors.Is(err, ErrProperty) {
		t.Fatal(err)
	}
}
