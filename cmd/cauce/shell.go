package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/peterh/liner"
)

const shellHelp = `Statements end with ; and may take several lines. Beside SQL there are:
  .tables          the tables of this lake
  .schema TABLE    the columns of a table
  .as-of V         read one table as of a version or time; .as-of alone goes back to the newest
  .format F        table, csv, json or jsonl
  .help, .quit
Ctrl-C gives up a line or ends a running statement, Ctrl-D leaves; the history of lines is kept.`

// shell is the interactive query: a line editor with history in the lake's state folder.
func (a *app) shell(ctx context.Context, l *lake, asOf string, write bool) error {
	line := liner.NewLiner()
	defer line.Close()
	line.SetCtrlCAborts(true)
	line.SetMultiLineMode(true)
	names := l.ingest.Catalog().Names()
	line.SetCompleter(func(s string) []string { return complete(s, names) })
	if f, err := os.Open(historyFile(l.Lake)); err == nil {
		_, _ = line.ReadHistory(f)
		f.Close()
	}
	s := &session{a: a, l: l, asOf: asOf, format: formatTable, write: write}
	fmt.Fprintf(a.stdout, "cauce %s, lake %s. Type .help for help.\n", version, l.File)
	for {
		prompt := "cauce> "
		if s.pending.Len() > 0 {
			prompt = "   ... "
		}
		text, err := line.Prompt(prompt)
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			s.pending.Reset()
			continue
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			fmt.Fprintln(a.stdout)
			return saveHistory(line, historyFile(l.Lake))
		case err != nil:
			return fmt.Errorf("shell: %w", err)
		}
		if strings.TrimSpace(text) != "" {
			line.AppendHistory(text)
		}
		if quit := s.line(ctx, text); quit {
			return saveHistory(line, historyFile(l.Lake))
		}
	}
}

func saveHistory(line *liner.State, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("shell history: %w", err)
	}
	// What was asked can be as confidential as the data.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("shell history: %w", err)
	}
	_, err = line.WriteHistory(f)
	return errors.Join(err, f.Close())
}

// complete offers table names and the words of SQL for the word that is being typed.
func complete(s string, tables []string) []string {
	cut := strings.LastIndexAny(s, " (,\t") + 1
	head, word := s[:cut], s[cut:]
	if word == "" {
		return nil
	}
	var out []string
	for _, w := range append(tables, "SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "JOIN", "BETWEEN", "count(*)") {
		if len(w) >= len(word) && strings.EqualFold(w[:len(word)], word) {
			out = append(out, head+w)
		}
	}
	return out
}

// session is the state of a shell between its lines.
type session struct {
	a       *app
	l       *lake
	pending strings.Builder // the statement's lines so far
	asOf    string
	format  string
	write   bool // statements that change tables are allowed
}

// line takes one typed line and tells whether it asked to leave.
func (s *session) line(ctx context.Context, text string) (quit bool) {
	trimmed := strings.TrimSpace(text)
	switch {
	case s.pending.Len() == 0 && trimmed == "":
		return false
	case strings.HasPrefix(trimmed, ".") && (s.pending.Len() == 0 || trimmed == ".help" || trimmed == ".quit" || trimmed == ".exit"),
		trimmed == `\q`: // as psql has it
		// A number such as .5 may begin a line of a statement; these three cannot, and are what a lost user types.
		return s.command(ctx, strings.Fields(trimmed))
	case s.pending.Len() == 0 && (strings.EqualFold(strings.TrimRight(trimmed, "; "), "quit") || strings.EqualFold(strings.TrimRight(trimmed, "; "), "exit")):
		return true
	}
	s.pending.WriteString(text + "\n")
	statements, rest := splitStatements(s.pending.String())
	s.pending.Reset()
	if strings.TrimSpace(rest) != "" && !onlyComments(rest) {
		s.pending.WriteString(rest)
	}
	for _, sql := range statements {
		if !s.statement(ctx, sql) {
			break // as after an error of a script: what follows may build on what failed
		}
	}
	return false
}

// statement runs one statement; Ctrl-C ends it and not the shell.
func (s *session) statement(ctx context.Context, sql string) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.a.statement.Store(&cancel)
	defer s.a.statement.Store(nil)
	start := time.Now()
	if err := s.run(ctx, sql); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintf(s.a.stdout, "error: %v\n", err)
		return false
	}
	if s.format == formatTable {
		fmt.Fprintf(s.a.stdout, "%.3f s\n", time.Since(start).Seconds())
	}
	return true
}

// splitStatements cuts a text at each ';' that ends a statement, not at those in quotes and comments. rest is what
// follows the last one. Statements that hold nothing but comments are left out.
func splitStatements(text string) (statements []string, rest string) {
	begin := 0
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\'' || c == '"':
			i = skipPast(text, i+1, string(c)) // a doubled quote ends and begins again
		case strings.HasPrefix(text[i:], "--"):
			i = skipPast(text, i, "\n")
		case strings.HasPrefix(text[i:], "/*"):
			i = skipPast(text, i+2, "*/")
		case strings.HasPrefix(text[i:], "$$"):
			i = skipPast(text, i+2, "$$")
		case c == ';':
			if s := text[begin:i]; strings.TrimSpace(s) != "" && !onlyComments(s) {
				statements = append(statements, s)
			}
			i++
			begin = i
		default:
			i++
		}
	}
	return statements, text[begin:]
}

// skipPast gives the place behind the next end; the text's end if there is none.
func skipPast(text string, from int, end string) int {
	if i := strings.Index(text[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(text)
}

// onlyComments tells whether a text says nothing to the engine.
func onlyComments(text string) bool {
	for {
		text = strings.TrimSpace(text)
		switch {
		case text == "":
			return true
		case strings.HasPrefix(text, "--"):
			text = text[skipPast(text, 0, "\n"):]
		case strings.HasPrefix(text, "/*") && strings.Contains(text, "*/"):
			text = text[skipPast(text, 2, "*/"):]
		default:
			return false
		}
	}
}

func (s *session) run(ctx context.Context, sql string) error {
	stmt, err := s.l.parseStatement(sql)
	if err == nil {
		err = statementAllowed(stmt, s.write)
	}
	if err != nil {
		return err
	}
	if stmt != nil && !stmt.Reads() {
		res, err := s.a.execute(ctx, s.l, stmt, false)
		if err != nil {
			return err
		}
		return res.write(s.a.stdout)
	}
	var r *result
	if stmt != nil {
		r, err = s.a.described(ctx, s.l, stmt, s.asOf)
	} else {
		r, err = s.a.runQuery(ctx, s.l, sql, s.asOf)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = writeRows(s.a.stdout, s.format, r.Schema(), r.Batches(ctx))
	return err
}

func (s *session) command(ctx context.Context, words []string) (quit bool) {
	w := s.a.stdout
	arg := strings.Join(words[1:], " ")
	switch words[0] {
	case ".quit", ".exit", `\q`:
		return true
	case ".help":
		fmt.Fprintln(w, shellHelp)
	case ".tables":
		for _, name := range s.l.ingest.Catalog().Names() {
			fmt.Fprintln(w, name)
		}
	case ".schema":
		t, err := s.l.ingest.Catalog().Open(ctx, arg)
		if err != nil {
			fmt.Fprintf(w, "error: %v\n", err)
			break
		}
		snap, err := snapshotAsOf(ctx, t, s.asOf)
		if err != nil {
			fmt.Fprintf(w, "error: %v\n", err)
			break
		}
		g := newGrid("column", "type")
		for _, f := range snap.Schema().Fields {
			g.row(f.Name, f.Type.String())
		}
		_ = g.write(w)
	case ".as-of":
		if err := checkAsOf(arg); err != nil {
			fmt.Fprintf(w, "error: %v\n", err)
			break
		}
		s.asOf = arg
	case ".format":
		switch arg {
		case formatTable, formatCSV, formatJSON, formatJSONL:
			s.format = arg
		default:
			fmt.Fprintf(w, "error: format %q: it is one of table, csv, json, jsonl\n", arg)
		}
	default:
		fmt.Fprintf(w, "error: unknown command %s\n%s\n", words[0], shellHelp)
	}
	return false
}
