package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/sparkjson"
)

// writeDeltaRows writes rows of a Delta table; JSON lines in the form of Spark's to_json, which keeps every field.
func writeDeltaRows(w io.Writer, format string, schema *delta.Schema, rows batches) error {
	if format != formatJSONL {
		_, err := writeRows(w, format, schema.Arrow(), rows)
		return err
	}
	bw := bufio.NewWriterSize(w, 64<<10)
	var buf []byte
	_, err := forEachRow(rows, func(rec arrow.RecordBatch, i int) error {
		var err error
		if buf, err = sparkjson.AppendRow(buf[:0], schema.Fields, rec, i); err != nil {
			return err
		}
		_, err = bw.Write(append(buf, '\n'))
		return err
	})
	if err != nil {
		return err
	}
	return bw.Flush()
}

// writeFiles writes the live files as JSON, one object a line, sorted by path.
func writeFiles(w io.Writer, s *delta.Snapshot) error {
	type liveFile struct {
		Path                    string                `json:"path"`
		PartitionValues         map[string]*string    `json:"partitionValues"`
		Size                    int64                 `json:"size"` // bytes
		DeletionVector          *delta.DeletionVector `json:"deletionVector,omitempty"`
		Stats                   string                `json:"stats,omitempty"`
		BaseRowID               *int64                `json:"baseRowId,omitempty"`
		DefaultRowCommitVersion *int64                `json:"defaultRowCommitVersion,omitempty"`
	}
	files := make([]liveFile, 0, s.NumFiles())
	for _, a := range s.Adds() {
		values := a.PartitionValues
		if values == nil {
			values = map[string]*string{}
		}
		files = append(files, liveFile{a.Path, values, a.Size, a.DeletionVector, a.Stats, a.BaseRowID, a.DefaultRowCommitVersion})
	}
	sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	bw := bufio.NewWriter(w)
	enc := json.NewEncoder(bw)
	enc.SetEscapeHTML(false)
	for _, f := range files {
		if err := enc.Encode(f); err != nil {
			return err
		}
	}
	return bw.Flush()
}

func newTableCDF(a *app) *cobra.Command {
	var (
		from, to int64
		format   string
	)
	cmd := &cobra.Command{
		Use:   "cdf TABLE",
		Short: "Print the change feed of a Delta table",
		Long: `Print the rows that commits inserted, deleted and updated, with _change_type, _commit_version and
_commit_timestamp. The table must have delta.enableChangeDataFeed.
--json prints {columns, rows, from, to}.`,
		Example: `  cauce table cdf data/processed/unified-events --from 3 --to 5`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := a.openTable(ctx, args[0])
			if err != nil {
				return err
			}
			feed, err := t.Changes(ctx, delta.ChangesOptions{From: delta.Version(from), To: delta.Version(to)})
			if err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			if a.json {
				body, err := jsonRows(feed.Schema.Arrow(), batches(feed.Batches(ctx)))
				if err != nil {
					return fmt.Errorf("table %s: %w", args[0], err)
				}
				return a.printJSON(struct {
					resultBody
					From int64 `json:"from"`
					To   int64 `json:"to"`
				}{body, int64(feed.From), int64(feed.To)})
			}
			if err := writeDeltaRows(a.stdout, format, feed.Schema, batches(feed.Batches(ctx))); err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			return nil
		},
	}
	cmd.Flags().Int64Var(&from, "from", 0, "begin with the changes of this `version`")
	cmd.Flags().Int64Var(&to, "to", -1, "end with the changes of this `version` (-1: the newest)")
	cmd.Flags().StringVar(&format, "format", formatJSONL, "jsonl, csv, json, table or parquet")
	return cmd
}
