package golden

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/duckdb/duckdb-go/v2"

	"github.com/cauce-data/cauce/delta"
)

// expectedParquet prints the rows of the Parquet files in a folder.
func expectedParquet(dir string, schema *delta.Schema) (_ []string, err error) {
	connector, err := duckdb.NewConnector("", nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, connector.Close()) }()
	ctx := context.Background()
	c, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if _, err := c.(driver.ExecerContext).ExecContext(ctx, "SET TimeZone = 'UTC'", nil); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.parquet"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return []string{}, nil
	}
	var cols, paths []string
	for _, f := range schema.Fields {
		cols = append(cols, `"`+strings.ReplaceAll(f.Name, `"`, `""`)+`"`)
	}
	for _, f := range files {
		paths = append(paths, "'"+strings.ReplaceAll(f, "'", "''")+"'")
	}
	a, err := duckdb.NewArrowFromConn(c)
	if err != nil {
		return nil, err
	}
	rd, err := a.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM read_parquet([%s], union_by_name = true, hive_partitioning = false)",
		strings.Join(cols, ", "), strings.Join(paths, ", ")))
	if err != nil {
		return nil, err
	}
	defer rd.Release()
	return lines(schema.Fields, func(yield func(arrow.RecordBatch, error) bool) {
		for rd.Next() {
			if !yield(rd.RecordBatch(), nil) {
				return
			}
		}
		if err := rd.Err(); err != nil {
			yield(nil, err)
		}
	})
}
