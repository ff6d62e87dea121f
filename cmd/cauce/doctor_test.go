package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/cauce-data/cauce/objstore"
)

// undeletable is a store whose role may not delete.
type undeletable struct{ objstore.Store }

func (undeletable) Delete(_ context.Context, key string) error {
	return fmt.Errorf("delete %s: %w", key, objstore.ErrDenied)
}

// TestDoctorLeavesNothing: what the doctor writes to try the storage is gone afterwards, also when somebody stops it; a role that
// may not delete is told what stays.
func TestDoctorLeavesNothing(t *testing.T) {
	store, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	keys := func() []string {
		var out []string
		for info, err := range store.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, info.Key)
		}
		return out
	}
	if _, left, err := probeStore(t.Context(), store); err != nil || len(left) > 0 || len(keys()) > 0 {
		t.Errorf("left %q, there are %q, %v", left, keys(), err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := store.PutIfAbsent(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	if left, err := remove(stopped, store, "x", nil, nil); err != nil || len(left) > 0 || len(keys()) > 0 {
		t.Errorf("after Ctrl-C: left %q, there are %q, %v", left, keys(), err)
	}
	if _, left, err := probeStore(t.Context(), undeletable{store}); err != nil || len(left) != 1+raceRounds || len(keys()) != len(left) {
		t.Errorf("a role that may not delete: left %q, there are %q, %v", left, keys(), err)
	}
}
