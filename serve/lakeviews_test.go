package serve

import "testing"

func TestColumnsOfTheChangeFeed(t *testing.T) {
	some := table{columns: []string{"Id"}}
	for name, want := range map[string]bool{
		"id": true, "_change_type": true, "_commit_version": true, "_commit_timestamp": true, "salary": false, "_change_reason": false, "_commit_author": false,
	} {
		if got := some.inFeed(name); got != want {
			t.Errorf("%s is seen: %t", name, got)
		}
		if !(&table{}).inFeed(name) {
			t.Errorf("%s is not seen by who sees all", name)
		}
	}
}
