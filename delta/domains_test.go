package delta

import (
	"context"
	"errors"
	"testing"

	"github.com/cauce-data/cauce/objstore"
)

func TestDomains(t *testing.T) {
	ctx := context.Background()
	store := objstore.NewMemory(nil)
	tab, err := Create(ctx, store, "t", CreateOptions{Schema: testSchema()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "delta.clustering", "delta.rowTracking", "delta.mine"} {
		if _, err := tab.SetDomain(ctx, name, "{}"); !errors.Is(err, ErrDomain) {
			t.Errorf("domain %q: %v", name, err)
		}
		if _, err := tab.RemoveDomain(ctx, name); !errors.Is(err, ErrDomain) {
			t.Errorf("domain %q: %v", name, err)
		}
	}
	if v, err := tab.RemoveDomain(ctx, "app"); err != nil || v != 0 {
		t.Errorf("a domain that is not there: version %d, error %v", v, err)
	}
	if _, err := tab.SetDomain(ctx, "app", `{"a":1}`); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.SetDomain(ctx, "other", "x"); err != nil {
		t.Fatal(err)
	}
	// Two set one domain: the second is told, and so is one who had read it.
	other, err := Open(ctx, store, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := mustSnapshot(t, other)
	x := other.Begin(s)
	x.SetDomain(DomainMetadata{Domain: "app", Configuration: "late"})
	y := other.Begin(s)
	y.SetDomain(DomainMetadata{Domain: "third", Configuration: "beside"})
	if _, err := tab.SetDomain(ctx, "app", `{"a":2}`); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Commit(ctx, CommitOptions{}); !errors.Is(err, ErrMetadataChanged) {
		t.Errorf("a lost race for a domain: %v", err)
	}
	if _, err := y.Commit(ctx, CommitOptions{}); err != nil {
		t.Errorf("a race for another domain: %v", err)
	}
	if _, err := tab.RemoveDomain(ctx, "other"); err != nil {
		t.Fatal(err)
	}
	v, err := tab.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := tab.readCommit(ctx, v)
	if err != nil || len(c.domains) != 1 || !c.domains[0].Removed || c.domains[0].Configuration != "x" {
		t.Errorf("removed by %+v, error %v", c.domains, err)
	}
	for i := range v {
		if err := store.Delete(ctx, tab.commitKey(i)); err != nil {
			t.Fatal(err)
		}
	}
	fresh, err := Open(ctx, store, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	list := mustSnapshot(t, fresh).Domains()
	if len(list) != 2 || list[0].Domain != "app" || list[0].Configuration != `{"a":2}` || list[1].Domain != "third" {
		t.Errorf("domains by the checkpoint: %v", list)
	}
}
