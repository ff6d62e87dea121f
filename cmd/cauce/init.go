package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

func newInit(a *app) *cobra.Command {
	var (
		template, storage, from string
		folders                 bool
		o                       pipeline.InferOptions
	)
	cmd := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a lake file to begin with",
		Long: `Write DIR/lake.yaml (default: the working directory) from a template, or with --from for a CSV file of your own:
delimiter, encoding, columns, types, key and time are guessed and each guess is marked in the file.
An existing lake file is never touched. With --storage the lake stands elsewhere, such as in a bucket, and with --folders its
folders are made there, for people and consoles: Cauce itself needs none, and no bucket is made.
Templates: ` + strings.Join(pipeline.Templates(), ", ") + `.`,
		Example: `  cauce init mylake --template crypto
  cauce init mylake --storage s3://my-bucket/lake --folders
  cauce init mylake --from orders.csv --key order_id,line`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			if from != "" {
				o.Storage = storage
				guess, err := pipeline.Infer(from, o)
				if err != nil {
					return usagef("--from: %w", err)
				}
				return a.writeLake(cmd.Context(), dir, guess.Text, guess.Warnings, folders)
			}
			if len(o.Key) > 0 || o.Time != "" || o.Table != "" {
				return usagef("--key, --time and --table belong to --from FILE.csv")
			}
			text, err := pipeline.Template(template, storage)
			if err != nil {
				return usagef("--template: %w", err)
			}
			return a.writeLake(cmd.Context(), dir, text, nil, folders)
		},
	}
	f := cmd.Flags()
	f.StringVar(&template, "template", "crypto", "which `template`: "+strings.Join(pipeline.Templates(), ", "))
	f.StringVar(&storage, "storage", "", "storage `URL` to write into the lake file (default: data beside it)")
	f.BoolVar(&folders, "folders", false, "make the lake's folders in the storage")
	f.StringVar(&from, "from", "", "make the lake file for this CSV `file`, or the first one of a folder")
	f.StringSliceVar(&o.Key, "key", nil, "with --from: the columns of the key (default: guessed)")
	f.StringVar(&o.Time, "time", "", "with --from: the column that tells which row is newer (default: guessed)")
	f.StringVar(&o.Table, "table", "", "with --from: the table's name (default: the file's)")
	cmd.MarkFlagsMutuallyExclusive("from", "template")
	return cmd
}

// writeLake writes a new lake file and the folders in which its files land, and checks that it can be used.
func (a *app) writeLake(ctx context.Context, dir, text string, warnings []string, folders bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return usagef("folder %s: %w", dir, err)
	}
	file := filepath.Join(dir, "lake.yaml")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return usagef("%s exists already and is left as it is; name another folder", file)
	}
	if err != nil {
		return usagef("lake file: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("lake file: %w", err)
	}
	l, err := a.loadLakeFile(file, a.root)
	if err != nil {
		return fmt.Errorf("%s was written, but cannot be used as it is: %w", file, err)
	}
	made := []string{}
	if folders {
		if made, err = makeFolders(ctx, l); err != nil {
			// A second try would find a lake file and refuse.
			return fmt.Errorf("folders: %w; no lake file was written", errors.Join(err, os.Remove(file)))
		}
	}
	if warnings == nil {
		warnings = []string{}
	}
	var tables []string
	for _, t := range l.Tables {
		tables = append(tables, t.Name)
	}
	return a.print(struct {
		File     string   `json:"file"`
		Storage  string   `json:"storage"`
		Tables   []string `json:"tables"`
		Folders  []string `json:"folders"` // that were made
		Warnings []string `json:"warnings"`
	}{file, l.Redact(l.Storage), tables, made, warnings}, func(w io.Writer) error {
		for _, s := range warnings {
			fmt.Fprintf(w, "warning: %s\n", s)
		}
		flag := ""
		if dir != "." {
			flag = " --lake " + shellQuote(file)
		}
		prog := shellQuote(a.prog)
		if len(made) > 0 {
			fmt.Fprintf(w, "made %s in %s\n", strings.Join(made, ", "), l.Redact(l.Storage))
		}
		_, err := fmt.Fprintf(w, "wrote %s\nnext:\n  %s check%s\n  %s land%s FILE.csv\n  %s run batch%s\n", file, prog, flag, prog, flag, prog, flag)
		return err
	})
}

// makeFolders makes the folders of a lake, and tells which. A bucket has none: there an empty object stands for each, with a
// name that listings of files and of tables pass over. Those of tables come with their first commit: Spark takes a folder that
// holds anything for a table that exists, and then makes none.
func makeFolders(ctx context.Context, l *pipeline.Lake) ([]string, error) {
	store, err := openStore(ctx, l.Storage, l)
	if err != nil {
		return nil, err
	}
	folders := []string{"raw/batch", "raw/streaming", "processed"}
	disk, local := store.(objstore.LocalPather)
	if local {
		folders[2] = catalog.QuarantinePath
		for _, t := range l.Tables {
			folders = append(folders, t.Location)
		}
	}
	for _, f := range folders {
		if local {
			err = os.MkdirAll(disk.LocalPath(f), 0o755)
		} else {
			err = store.Put(ctx, f+"/.keep", strings.NewReader(""), objstore.PutOptions{})
		}
		if err != nil {
			return nil, err
		}
	}
	return folders, nil
}
