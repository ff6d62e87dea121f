package duckdb

import (
	"context"
	"testing"
)

// Versions are whole numbers: the digits of another number are none.
func TestConstantsWithAPoint(t *testing.T) {
	e := testEngine(t)
	ctx := context.Background()
	for sql, want := range map[string]string{"1.5": "1.5", "-0.25": "-0.25", "2.0": "2.0", "12": "12", "'1.5'": "1.5", "1e1": "10.0", "5000000000.1": "5000000000.1"} {
		var got string
		err := e.with(ctx, func(c *conn) error {
			q, err := parseQuery(ctx, c, "SELECT "+sql, nil)
			if err == nil {
				got, _ = constantText(list(q.node["select_list"])[0])
			}
			return err
		})
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", sql, got, err, want)
		}
	}
}
