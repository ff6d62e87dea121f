package spark

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cauce-data/cauce/pipeline"
)

// Maintain is the App that looks after tables.
type Maintain struct {
	Name   string          `json:"name"`
	Mode   string          `json:"mode"` // maintain
	Root   string          `json:"root"`
	What   string          `json:"what"` // optimize or vacuum
	Tables []MaintainTable `json:"tables"`
}

// MaintainTable is a table with the statement that is run on it: Statement, the table, Options.
type MaintainTable struct {
	Table     TableSpec `json:"table"`
	Statement string    `json:"statement"`
	Options   string    `json:"options,omitempty"`
}

func newMaintain(l *pipeline.Lake, what string, tables []*pipeline.Table, options func(t *pipeline.Table) string) (*Maintain, error) {
	root, err := hadoopURL(l.Storage)
	if err != nil {
		return nil, err
	}
	app := &Maintain{Name: "cauce " + what, Mode: "maintain", Root: root, What: what}
	for _, t := range tables {
		app.Tables = append(app.Tables, MaintainTable{Table: lakeTable(t), Statement: strings.ToUpper(what), Options: options(t)})
	}
	return app, nil
}

// NewOptimize makes the App that packs the small files of tables, their rows in Z-order of columns; nil: of each table's
// cluster_by; none: as they come.
func NewOptimize(l *pipeline.Lake, tables []*pipeline.Table, columns []string) (*Maintain, error) {
	return newMaintain(l, "optimize", tables, func(t *pipeline.Table) string {
		by := columns
		if by == nil {
			by = t.ClusterBy
		}
		var quoted []string
		for _, c := range by {
			if !slices.ContainsFunc(t.PartitionBy, func(p string) bool { return strings.EqualFold(p, c) }) {
				quoted = append(quoted, quoteName(c))
			}
		}
		if len(quoted) == 0 {
			return ""
		}
		return "ZORDER BY (" + strings.Join(quoted, ", ") + ")"
	})
}

// NewVacuum makes the App that deletes files which no version of the last while names.
func NewVacuum(l *pipeline.Lake, tables []*pipeline.Table, retention time.Duration) (*Maintain, error) {
	return newMaintain(l, "vacuum", tables, func(*pipeline.Table) string {
		return fmt.Sprintf("RETAIN %d HOURS", int(math.Ceil(retention.Hours())))
	})
}
