package main

import (
	"archive/zip"
	"bytes"
	_ "embed"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// notebookText is the notebook as a script whose cells begin with "# %%", with what differs between lakes left open.
//
//go:embed kits/notebook.py
var notebookText string

// kit is what the notebook and the connection files of BI tools say about a lake.
type kit struct {
	Table, Location, Rows string
	Time, Value           string // "": there is no such column
	Host, Port, User      string
	columns               []delta.Field
}

// DSN is the address of PostgreSQL's protocol. No password stands in it.
func (k *kit) DSN() string {
	u := url.URL{Scheme: "postgresql", User: url.User(k.User), Host: net.JoinHostPort(k.Host, k.Port), Path: "/lake"}
	return u.String()
}

func newNotebook(a *app) *cobra.Command {
	var out, table, pg, user string
	var force bool
	cmd := &cobra.Command{
		Use:   "notebook",
		Short: "Write a Jupyter notebook, and connection files for BI tools",
		Long: `Write a Jupyter notebook that reads a table with deltalake, DuckDB and psycopg, compares what they count, shows what
earlier versions held and plots history and live events together; and beside it the files with which Tableau (.tds), Power
BI (.pbids) and Superset (an import in a .zip) connect to cauce serve. No file holds a password.`,
		Example: `  cauce notebook --out analysis
  cauce notebook --table orders --pg lake.example.org:5432 --user analyst`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			k, err := newKit(l, table)
			if err != nil {
				return err
			}
			if k.Host, k.Port, err = net.SplitHostPort(pg); err != nil || k.Host == "" || k.Port == "" {
				return usagef("--pg %q: host and port, such as 127.0.0.1:5432", pg)
			}
			k.User = user
			files, err := k.files()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o755); err != nil {
				return usagef("--out %s: %w", out, err)
			}
			written := []string{}
			for _, f := range files {
				path := filepath.Join(out, f.name)
				if _, err := os.Lstat(path); err == nil && !force {
					return usagef("%s exists already; --force replaces it, --out DIR writes elsewhere", path)
				} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				written = append(written, path)
			}
			for i, f := range files {
				if err := writeFile(written[i], func(w io.Writer) error {
					_, err := w.Write(f.data)
					return err
				}); err != nil {
					return err
				}
			}
			return a.print(struct {
				Table string   `json:"table"`
				Files []string `json:"files"`
			}{k.Table, written}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, strings.Join(written, "\n"))
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&out, "out", ".", "`folder` for the files")
	f.StringVar(&table, "table", "", "the `table` (default: the lake file's first)")
	f.StringVar(&pg, "pg", "127.0.0.1:5432", "`address` (host:port) of cauce serve")
	f.StringVar(&user, "user", "reader", "`role` that connects to cauce serve")
	f.BoolVar(&force, "force", false, "replace files that exist")
	return cmd
}

// newKit says what the files need to know of a table; "" is the first one.
func newKit(l *pipeline.Lake, name string) (*kit, error) {
	t := l.Table(name)
	if name == "" {
		t = l.Tables[0]
	}
	if t == nil {
		return nil, usagef("--table %s: the lake file has no such table; it has %s", name, list(tableNames(l)))
	}
	k := &kit{Table: t.Name, Location: strings.TrimRight(l.Storage, "/") + "/" + t.Location, Rows: "true", columns: t.DeltaSchema().Fields}
	if !isBucketURL(l.Storage) {
		dir, err := objstore.FileURLPath(l.Storage)
		if err != nil {
			return nil, &usageError{err: err}
		}
		k.Location = filepath.Join(dir, filepath.FromSlash(t.Location))
	}
	if t.Deletes {
		k.Rows = "NOT coalesce(" + pipeline.ColumnDeleted + ", false)"
	}
	isKey := map[string]bool{}
	for _, c := range append(append([]string{}, t.Key...), t.PartitionBy...) {
		isKey[strings.ToLower(c)] = true
	}
	// The sequence is mostly the time of the event; the time of ingestion is none.
	for _, c := range append(append([]string{}, t.Sequence...), k.columnNames()...) {
		if f, ok := t.DeltaSchema().Field(c); ok && k.Time == "" && c != pipeline.ColumnIngestedAt && (f.Type == delta.Timestamp || f.Type == delta.TimestampNTZ) {
			k.Time = f.Name
		}
	}
	for _, c := range t.Columns {
		_, exact := c.Type.(delta.Decimal)
		if k.Value == "" && !isKey[strings.ToLower(c.Name)] && (exact || c.Type == delta.Double || c.Type == delta.Float) {
			k.Value = c.Name
		}
	}
	return k, nil
}

func (k *kit) columnNames() []string {
	var out []string
	for _, f := range k.columns {
		out = append(out, f.Name)
	}
	return out
}

// kitFile is a file to be written.
type kitFile struct {
	name string
	data []byte
}

func (k *kit) files() ([]kitFile, error) {
	notebook, err := k.notebook()
	if err != nil {
		return nil, err
	}
	tableau, err := k.tableau()
	if err != nil {
		return nil, err
	}
	powerBI, err := k.powerBI()
	if err != nil {
		return nil, err
	}
	superset, err := k.superset()
	if err != nil {
		return nil, err
	}
	return []kitFile{{k.Table + ".ipynb", notebook}, {k.Table + ".tds", tableau}, {k.Table + ".pbids", powerBI}, {k.Table + "-superset.zip", superset}}, nil
}

// cell is a cell of nbformat 4.5.
type cell struct{ kind, id, source string }

// MarshalJSON writes what a cell of its kind must have; one of code has not been executed yet.
func (c cell) MarshalJSON() ([]byte, error) {
	m := map[string]any{"cell_type": c.kind, "id": c.id, "metadata": map[string]any{}, "source": c.source}
	if c.kind == "code" {
		m["execution_count"], m["outputs"] = nil, []any{}
	}
	return json.Marshal(m)
}

func (k *kit) notebook() ([]byte, error) {
	t, err := template.New("notebook").Funcs(template.FuncMap{"py": pythonText}).Parse(notebookText)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	if err := t.Execute(&text, k); err != nil {
		return nil, err
	}
	var cells []cell
	for part := range strings.SplitSeq(text.String(), "# %%") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		head, body, _ := strings.Cut(part, "\n")
		c := cell{"code", "cell-" + strconv.Itoa(len(cells)+1), strings.TrimSpace(body)}
		if strings.TrimSpace(head) == "[markdown]" {
			c.kind = "markdown"
			var lines []string
			for line := range strings.SplitSeq(c.source, "\n") {
				lines = append(lines, strings.TrimPrefix(strings.TrimPrefix(line, "#"), " "))
			}
			c.source = strings.Join(lines, "\n")
		}
		cells = append(cells, c)
	}
	return json.MarshalIndent(map[string]any{
		"cells": cells, "nbformat": 4, "nbformat_minor": 5,
		"metadata": map[string]any{
			"kernelspec":    map[string]any{"display_name": "Python 3", "language": "python", "name": "python3"},
			"language_info": map[string]any{"name": "python"},
		},
	}, "", " ")
}

// pythonText is a Python literal: "" is None. JSON's strings are Python's.
func pythonText(s string) (string, error) {
	if s == "" {
		return "None", nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(s)
	return strings.TrimSpace(b.String()), err
}

// Tableau's data source file, as far as a connection needs it.
type (
	tdsFile struct {
		XMLName    xml.Name      `xml:"datasource"`
		Name       string        `xml:"formatted-name,attr"`
		Inline     bool          `xml:"inline,attr"`
		Version    string        `xml:"version,attr"`
		Connection tdsConnection `xml:"connection"`
	}
	tdsConnection struct {
		Class    string       `xml:"class,attr"`
		DB       string       `xml:"dbname,attr,omitempty"`
		Port     string       `xml:"port,attr,omitempty"`
		Server   string       `xml:"server,attr,omitempty"`
		User     string       `xml:"username,attr,omitempty"`
		Named    []tdsNamed   `xml:"named-connections>named-connection,omitempty"`
		Relation *tdsRelation `xml:"relation"`
	}
	tdsNamed struct {
		Caption    string        `xml:"caption,attr"`
		Name       string        `xml:"name,attr"`
		Connection tdsConnection `xml:"connection"`
	}
	tdsRelation struct {
		Connection string `xml:"connection,attr"`
		Name       string `xml:"name,attr"`
		Table      string `xml:"table,attr"`
		Type       string `xml:"type,attr"`
	}
)

func (k *kit) tableau() ([]byte, error) {
	const connection = "postgres.cauce"
	b, err := xml.MarshalIndent(tdsFile{Name: k.Table, Inline: true, Version: "18.1", Connection: tdsConnection{
		Class:    "federated",
		Named:    []tdsNamed{{k.Host, connection, tdsConnection{Class: "postgres", DB: "lake", Port: k.Port, Server: k.Host, User: k.User}}},
		Relation: &tdsRelation{connection, k.Table, "[public].[" + k.Table + "]", "table"},
	}}, "", "  ")
	return append([]byte(xml.Header), append(b, '\n')...), err
}

func (k *kit) powerBI() ([]byte, error) {
	return json.MarshalIndent(map[string]any{
		"version": "0.1",
		"connections": []any{map[string]any{
			"details": map[string]any{"protocol": "postgresql", "address": map[string]string{"server": net.JoinHostPort(k.Host, k.Port), "database": "lake"}},
			"options": map[string]any{}, "mode": "DirectQuery",
		}},
	}, "", "  ")
}

// superset makes an export of assets as Superset imports it: a database and a dataset. Ids are made of names, so that a
// second import changes the same assets.
func (k *kit) superset() ([]byte, error) {
	database := uuid.NewSHA1(uuid.NameSpaceURL, []byte(k.DSN())).String()
	dataset := uuid.NewSHA1(uuid.NameSpaceURL, []byte(k.DSN()+"/public/"+k.Table)).String()
	var columns []map[string]any
	for _, f := range k.columns {
		columns = append(columns, map[string]any{"column_name": f.Name, "is_dttm": f.Type == delta.Timestamp || f.Type == delta.TimestampNTZ || f.Type == delta.Date,
			"is_active": true, "groupby": true, "filterable": true, "type": supersetType(f.Type)})
	}
	var mainTime any
	if k.Time != "" {
		mainTime = k.Time
	}
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, f := range []struct {
		name string
		v    any
	}{
		{"metadata.yaml", map[string]any{"version": "1.0.0", "type": "SqlaTable", "timestamp": "2024-01-01T00:00:00+00:00"}},
		{"databases/lake.yaml", map[string]any{
			"database_name": "lake", "sqlalchemy_uri": strings.Replace(k.DSN(), "postgresql://", "postgresql+psycopg2://", 1), "cache_timeout": nil, "expose_in_sqllab": true,
			"allow_run_async": false, "allow_ctas": false, "allow_cvas": false, "extra": map[string]any{}, "uuid": database, "version": "1.0.0",
		}},
		{"datasets/lake/" + k.Table + ".yaml", map[string]any{
			"table_name": k.Table, "main_dttm_col": mainTime, "description": nil, "default_endpoint": nil, "offset": 0, "cache_timeout": nil, "schema": "public", "sql": nil,
			"params": nil, "template_params": nil, "filter_select_enabled": true, "fetch_values_predicate": nil, "extra": nil, "uuid": dataset, "database_uuid": database,
			"columns": columns, "version": "1.0.0",
			"metrics": []any{map[string]any{"metric_name": "count", "verbose_name": "rows", "metric_type": "count", "expression": "count(*)"}},
		}},
	} {
		w, err := z.Create("lake_export/" + f.name)
		if err != nil {
			return nil, err
		}
		b, err := json.MarshalIndent(f.v, "", "  ") // JSON is YAML
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// supersetType is the name of a column's type in PostgreSQL.
func supersetType(t delta.Type) string {
	switch t {
	case delta.Long:
		return "BIGINT"
	case delta.Integer:
		return "INTEGER"
	case delta.Short, delta.Byte:
		return "SMALLINT"
	case delta.Double:
		return "DOUBLE PRECISION"
	case delta.Float:
		return "REAL"
	case delta.Boolean:
		return "BOOLEAN"
	case delta.Date:
		return "DATE"
	case delta.Timestamp:
		return "TIMESTAMP WITH TIME ZONE"
	case delta.TimestampNTZ:
		return "TIMESTAMP"
	}
	if d, ok := t.(delta.Decimal); ok {
		return fmt.Sprintf("NUMERIC(%d,%d)", d.P, d.S)
	}
	return "VARCHAR"
}
