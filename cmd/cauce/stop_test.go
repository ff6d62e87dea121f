package main

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestStoppedBeforeItBegan ends what runs until it is stopped before it could open anything: that is a good end too,
// while a command with an end of its own did not come to it.
func TestStoppedBeforeItBegan(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, "cauce init .")
	for _, c := range []struct {
		args []string
		want error
	}{
		{[]string{"run", "stream", "--json"}, nil},
		{[]string{"up", "--json", "--no-produce"}, nil},
		{[]string{"run", "stream", "--available-now"}, context.Canceled},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var out, problems strings.Builder
		root := newRoot(&app{prog: "cauce", stdin: strings.NewReader(""), stdout: &out, stderr: &problems})
		root.SetArgs(append(c.args, "--lake", dir+"/lake.yaml"))
		if err := root.ExecuteContext(ctx); !errors.Is(err, c.want) {
			t.Errorf("%v: %v, want %v\n%s", c.args, err, c.want, problems.String())
		}
		if c.want == nil && !strings.HasPrefix(out.String(), "{") {
			t.Errorf("%v prints %q", c.args, out.String())
		}
	}
}
