package delta

import (
	"context"
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// shallowClone makes a table of the files of another one, as Spark's CREATE TABLE … SHALLOW CLONE does: paths are absolute.
func shallowClone(t testing.TB, store objstore.Store, of *Table, path string, opts *Options) *Table {
	t.Helper()
	ctx := context.Background()
	s := snap(t, of)
	clone := newTable(store, path, opts)
	x := clone.Begin(&Snapshot{table: clone, version: -1, txns: map[string]Txn{}, domains: map[string]DomainMetadata{}})
	meta := s.Metadata()
	meta.ID, meta.Configuration = clone.opts.NewID(), maps.Clone(meta.Configuration)
	x.SetProtocol(s.Protocol())
	x.SetMetadata(meta)
	for _, a := range s.Adds() {
		if a.DeletionVector != nil {
			t.Fatal("the clone's origin has deletion vectors")
		}
		key, err := s.TableInfo().FileKey(a.Path)
		if err != nil {
			t.Fatal(err)
		}
		a.Path = store.URL() + "/" + EncodePath(key)
		x.AddFile(a)
	}
	if _, err := x.Commit(ctx, CommitOptions{Operation: "CLONE"}); err != nil {
		t.Fatal(err)
	}
	return clone
}

// What a shallow clone has replaced of its files still belongs to the table that it was cloned from.
func TestVacuumOfACloneSparesItsOrigin(t *testing.T) {
	ctx := context.Background()
	for name, o := range map[string]VacuumOptions{"full": {}, "lite": {Lite: true}} {
		t.Run(name, func(t *testing.T) {
			store := tempStore(t)
			origin := newItems(t, store, false, nil)
			mustMerge(t, origin, itemMerge(), item{ID: "a", Seq: 1}, item{ID: "b", Day: 1, Seq: 1})
			files := objects(t, store, "items")
			clone := shallowClone(t, store, origin, "clone", &Options{Clock: later})
			mustMerge(t, clone, itemMerge(), item{ID: "a", Seq: 2})
			mustMerge(t, clone, itemMerge(), item{ID: "a", Seq: 3})
			clone.opts.Clock = func() time.Time { return later().AddDate(1, 0, 0) }
			res, err := clone.Vacuum(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			if got := objects(t, store, "items"); !reflect.DeepEqual(got, files) {
				t.Fatalf("the origin has\n%v\nof\n%v", got, files)
			}
			if len(res.Deleted) != 1 {
				t.Errorf("%v went, not the clone's own file that it has replaced", res.Deleted)
			}
		})
	}
}
