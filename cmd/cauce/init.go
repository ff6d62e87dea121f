package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/pipeline"
)

func newInit(a *app) *cobra.Command {
	var (
		template, storage, from string
		o                       pipeline.InferOptions
	)
	cmd := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a lake file to begin with",
		Long: `Write DIR/lake.yaml (default: the working directory) from a template, or with --from for a CSV file of your own:
delimiter, encoding, columns, types, key and time are guessed and each guess is marked in the file.
An existing lake file is never touched.
Templates: ` + strings.Join(pipeline.Templates(), ", ") + `.`,
		Example: `  cauce init mylake --template crypto
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
				return a.writeLake(dir, guess.Text, guess.Warnings)
			}
			if len(o.Key) > 0 || o.Time != "" || o.Table != "" {
				return usagef("--key, --time and --table belong to --from FILE.csv")
			}
			text, err := pipeline.Template(template, storage)
			if err != nil {
				return usagef("--template: %w", err)
			}
			return a.writeLake(dir, text, nil)
		},
	}
	f := cmd.Flags()
	f.StringVar(&template, "template", "crypto", "which `template`: "+strings.Join(pipeline.Templates(), ", "))
	f.StringVar(&storage, "storage", "", "storage `URL` to write into the lake file (default: data beside it)")
	f.StringVar(&from, "from", "", "make the lake file for this CSV `file`, or the first one of a folder")
	f.StringSliceVar(&o.Key, "key", nil, "with --from: the columns of the key (default: guessed)")
	f.StringVar(&o.Time, "time", "", "with --from: the column that tells which row is newer (default: guessed)")
	f.StringVar(&o.Table, "table", "", "with --from: the table's name (default: the file's)")
	cmd.MarkFlagsMutuallyExclusive("from", "template")
	return cmd
}

// writeLake writes a new lake file and the folders in which its files land, and checks that it can be used.
func (a *app) writeLake(dir, text string, warnings []string) error {
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
		Warnings []string `json:"warnings"`
	}{file, l.Redact(l.Storage), tables, warnings}, func(w io.Writer) error {
		for _, s := range warnings {
			fmt.Fprintf(w, "warning: %s\n", s)
		}
		flag := ""
		if dir != "." {
			flag = " --lake " + shellQuote(file)
		}
		prog := shellQuote(a.prog)
		_, err := fmt.Fprintf(w, "wrote %s\nnext:\n  %s check%s\n  %s land%s FILE.csv\n  %s run batch%s\n", file, prog, flag, prog, flag, prog, flag)
		return err
	})
}
