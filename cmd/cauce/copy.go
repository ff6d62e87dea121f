package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/objstore/usage"
)

func newCopy(a *app) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "copy --to URL",
		Short: "Take the whole lake to another storage root",
		Long: `Take everything below the storage root to another one, on local disk, S3 or Google Cloud Storage: landed files,
tables with their logs, quarantine and progress. Then all rows of every table are read on both sides and compared
by a hash. The source stays as it is.

Afterwards cauce run batch at the new root finds nothing new, and streams go on from their offsets. A copy that was
stopped goes on where it was when it is run again; run again later, it takes what has come since. Writers of the old
root must have stopped before the last copy, and none may write to the new root before.`,
		Example: `  cauce copy --to s3://my-bucket/lake
  cauce --root s3://my-bucket/lake copy --to gs://my-other-bucket/lake`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if to == "" {
				return usagef("where to? --to URL names the new root: a folder, s3://bucket/folder or gs://bucket/folder")
			}
			l, err := a.openLake(ctx)
			if err != nil {
				return err
			}
			defer l.Close()
			target, err := a.loadLakeFile(a.lakeFile, to)
			if err != nil {
				return err
			}
			if scheme(target.Storage) != scheme(l.Storage) {
				target.Store.Endpoint = "" // it is that of the other kind of server
			}
			target.Store.CacheBytes = 0
			store, err := openStore(ctx, target.Storage, target)
			if err != nil {
				return fmt.Errorf("--to: %w", err)
			}
			var files, bytes atomic.Int64
			stop := a.tick(func() string {
				return fmt.Sprintf("copy: %s, %s bytes", count(files.Load(), "file"), thousands(bytes.Load()))
			})
			report, err := l.ingest.Copy(ctx, store, ingest.CopyOptions{OnFile: func(_ string, n int64) {
				files.Add(1)
				bytes.Add(n)
			}})
			stop()
			if err != nil {
				return err
			}
			return a.print(struct {
				*ingest.CopyReport
				RequestsFrom usage.Usage `json:"requests_from,omitempty"`
				RequestsTo   usage.Usage `json:"requests_to,omitempty"`
			}{report, usage.Of(l.store), usage.Of(store)}, func(w io.Writer) error {
				fmt.Fprintf(w, "%s -> %s: %s copied (%s bytes), %s there before\n", report.From, report.To, count(int64(report.FilesCopied), "file"),
					thousands(report.BytesCopied), thousands(int64(report.FilesThere)))
				for _, name := range slices.Sorted(maps.Keys(report.Tables)) {
					t := report.Tables[name]
					fmt.Fprintf(w, "%s: version %d, %s, rows equal: %s\n", name, t.Version, count(int64(t.Files), "file"), t.Hash)
				}
				_, err := fmt.Fprintf(w, "next: write \"storage: %s\" into %s, or give --root\n", report.To, l.File)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the new storage root: a `URL` or a folder")
	return cmd
}
