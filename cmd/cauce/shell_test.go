package main

import (
	"bytes"
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestSplitStatements: a ';' in quotes or in a comment ends nothing.
func TestSplitStatements(t *testing.T) {
	for _, x := range []struct {
		text string
		want []string
		rest string
	}{
		{"SELECT 1;", []string{"SELECT 1"}, ""},
		{"SELECT 1; SELECT 2;\n", []string{"SELECT 1", " SELECT 2"}, "\n"},
		{"SELECT ';', \";\" -- ;\n;", []string{"SELECT ';', \";\" -- ;\n"}, ""},
		{"SELECT 'it''s; one' /* ; */;SELECT", []string{"SELECT 'it''s; one' /* ; */"}, "SELECT"},
		{"SELECT $$;$$; -- done;\n", []string{"SELECT $$;$$"}, " -- done;\n"},
		{";; -- nothing\n;", nil, ""},
		{"SELECT 'open;", nil, "SELECT 'open;"},
		{"SELECT /* open;", nil, "SELECT /* open;"},
	} {
		got, rest := splitStatements(x.text)
		if !slices.Equal(got, x.want) || rest != x.rest {
			t.Errorf("%q: %q and %q, want %q and %q", x.text, got, rest, x.want, x.rest)
		}
	}
}

// TestShellSession types lines into a shell's session: several statements in a line, statements of several lines,
// commands between, and an interrupted statement after which the shell still answers.
func TestShellSession(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	if code := run([]string{"cauce", "init", dir, "--template", "crypto", "--quiet"}, nil, &out, &out); code != 0 {
		t.Fatalf("init: %d\n%s", code, out.String())
	}
	a := &app{stdout: &out, stderr: &out, lakeFile: dir + "/lake.yaml"}
	l, err := a.openLake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &session{a: a, l: l, format: formatCSV}
	ctx := context.Background()
	step := func(line, want string) {
		t.Helper()
		out.Reset()
		if s.line(ctx, line) {
			t.Fatalf("%q left the shell", line)
		}
		if got := out.String(); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q printed %q, want %q", line, got, want)
		}
	}
	step("SELECT 1 AS a; SELECT 'x;y' AS b; -- and", "a\n1\nb\nx;y\n")
	step("SELECT", "")
	step(".help", "Statements end with ;")
	step(" 7 AS n", "")
	step(";", "n\n7\n")
	step("SELECT nonsense; SELECT 2 AS never;", "error: ")
	if strings.Contains(out.String(), "never") {
		t.Error("the statement after a failed one ran")
	}
	step(".as-of nonsense", `error: --as-of "nonsense"`)
	if s.asOf != "" {
		t.Errorf("a refused .as-of is kept: %q", s.asOf)
	}
	step(".as-of 2024-08-20", "")
	step(".as-of", "")

	done := make(chan struct{})
	go func() { // what main does with SIGINT
		defer close(done)
		for !a.interrupt() {
			runtime.Gosched()
		}
	}()
	step("SELECT count(*) FROM range(1000000000) a, range(1000000) b;", "error: interrupted")
	<-done
	step("SELECT 42 AS n;", "n\n42\n")
	if a.interrupt() {
		t.Error("a shell that waits for a line has nothing to interrupt: Ctrl-C must reach the process")
	}
}
