package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/connect/binance"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

// exitGap is the code of a gap in a source, found by a stream or by the ledger.
const exitGap = 4

func newGaps(a *app) *cobra.Command {
	var (
		o             ingest.GapsOptions
		repair, all   bool
		tail          bool
		rest, archive string
		from          string
	)
	cmd := &cobra.Command{
		Use:   "gaps [TABLE]",
		Short: "Say which days are complete, which ids are missing, and whose holes they are",
		Long: `Say which days are complete, which ids are missing, and whose holes they are. The ids of a table's ledger (see
ledger in the lake file) are consecutive within a series, so every hole is a row that is missing: at the source itself,
or only here. It also lists the offsets of streams that were lost before they were read, and allowed to be.

--repair fetches what is missing here: id by id through the exchange's REST interface, within its limits, or great holes
(repair.ids_max) and everything with --from archive from its daily files, whose checksums are verified. What the
exchange says it does not have is remembered in the table.

Exit code 4 while an id is missing that the source has, or has not been asked for.`,
		Example: `  cauce gaps
  cauce gaps --repair
  cauce gaps --since 2024-08-20 --series BTCUSDT --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if len(args) == 1 {
				o.Table = args[0]
			}
			switch {
			case from != "auto" && from != "archive":
				return usagef("--from %q: it is auto or archive", from)
			case !repair && (all || tail || rest != "" || archive != "" || cmd.Flags().Changed("from")):
				return usagef("--all, --tail, --from, --rest-url and --archive-url are about --repair")
			}
			if err := errors.Join(checkAddress("rest-url", rest, "http", "https"), checkAddress("archive-url", archive, "http", "https")); err != nil {
				return err
			}
			l, err := a.openLake(cmd.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			result := struct {
				Repairs []*ingest.RepairReport `json:"repairs,omitempty"`
				*ingest.GapsReport
				ExitCode int `json:"exit_code"`
			}{}
			if repair {
				if result.Repairs, err = a.repair(ctx, l, ingest.RepairOptions{GapsOptions: o, All: all, Tail: tail, Archive: from == "archive"}, rest, archive); err != nil {
					return err
				}
			}
			if result.GapsReport, err = l.ingest.Gaps(ctx, o); err != nil {
				return err
			}
			if result.Missing > 0 {
				result.ExitCode = exitGap
			}
			err = a.print(result, func(w io.Writer) error { return printGaps(w, result.Repairs, result.GapsReport) })
			if err == nil && result.Missing > 0 {
				hint := "; cauce gaps --repair fetches them"
				if repair {
					hint = ""
				}
				err = &reported{exitGap, fmt.Sprintf("%s missing%s", count(result.Missing, "id"), hint)}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&repair, "repair", false, "fetch what is missing")
	f.BoolVar(&all, "all", false, "with --repair: ask also for what a file shows to be missing at its source")
	f.BoolVar(&tail, "tail", false, "with --repair: fetch also what the exchange has behind the last id of each series")
	f.StringVar(&from, "from", "auto", "with --repair: auto, or archive for everything")
	f.StringVar(&rest, "rest-url", "", "with --repair: HTTP `address` of the exchange instead of the lake file's")
	f.StringVar(&archive, "archive-url", "", "with --repair: HTTP `address` of the archive instead of the lake file's")
	f.StringVar(&o.Since, "since", "", "only from this `day` on, such as 2024-08-20")
	f.StringVar(&o.Series, "series", "", "only this series, such as BTCUSDT")
	return cmd
}

// repair repairs the tables through every source that knows how.
func (a *app) repair(ctx context.Context, l *lake, o ingest.RepairOptions, rest, archive string) ([]*ingest.RepairReport, error) {
	var out []*ingest.RepairReport
	for _, src := range l.Sources {
		if src.Repair == nil || l.Table(src.Table).Ledger == nil || o.Table != "" && !strings.EqualFold(o.Table, src.Table) {
			continue
		}
		o.Source, o.Fetcher = src.Name, newFetcher(src, rest, archive)
		r, err := a.repairSource(ctx, l, o)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, usagef("%s has no source that knows where missing rows can be fetched: a table needs a ledger, and one of its streams a repair block; see docs/lake-file.md", l.File)
	}
	return out, nil
}

func (a *app) repairSource(ctx context.Context, l *lake, o ingest.RepairOptions) (r *ingest.RepairReport, err error) {
	if o.TempDir, err = os.MkdirTemp(tempDir(l.Lake), "archive-*"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.TempDir)) }()
	return l.ingest.Repair(ctx, o)
}

// fetcher asks the exchange.
type fetcher struct {
	repair  *pipeline.Repair
	rest    *binance.REST
	archive binance.Archive
}

func newFetcher(src *pipeline.Source, rest, archive string) *fetcher {
	futures := src.Repair.Market == pipeline.RepairUM
	f := &fetcher{
		repair:  src.Repair,
		rest:    &binance.REST{BaseURL: src.Repair.RESTURL, Futures: futures},
		archive: binance.Archive{BaseURL: src.Repair.ArchiveURL, Futures: futures},
	}
	if rest != "" {
		f.rest.BaseURL = rest
	}
	if archive != "" {
		f.archive.BaseURL = archive
	}
	return f
}

func (f *fetcher) Name() string { return f.repair.Kind }

func (f *fetcher) Fetch(ctx context.Context, symbol string, from, to int64) iter.Seq2[ingest.RepairRecord, error] {
	return func(yield func(ingest.RepairRecord, error) bool) {
		err := f.rest.Events(ctx, f.repair.Channel, symbol, from, to, func(e binance.Event) bool {
			return yield(ingest.RepairRecord{ID: e.ID, Time: e.Time, Value: e.Value}, nil)
		})
		if binance.UnknownSymbol(err) {
			err = fmt.Errorf("%w: %w", ingest.ErrNotFetchable, err)
		}
		if err != nil {
			yield(ingest.RepairRecord{}, err)
		}
	}
}

func (f *fetcher) Archive(ctx context.Context, symbol, day, dir string) (string, error) {
	path, err := f.archive.Daily(ctx, f.repair.Channel+"s", symbol, day, dir)
	if errors.Is(err, binance.ErrNoArchive) {
		err = fmt.Errorf("%w: %w", ingest.ErrNoArchive, err)
	}
	return path, err
}

// holesShown bounds the holes that are printed for people.
const holesShown = 50

func printGaps(w io.Writer, repairs []*ingest.RepairReport, r *ingest.GapsReport) error {
	for _, x := range repairs {
		fmt.Fprintf(w, "repair %s: %s asked for, %s fetched, %s inserted, %s not there at the source\n",
			x.Source, count(int64(x.Holes), "hole"), count(x.Fetched, "record"), thousands(x.RowsInserted), count(x.Absent, "id"))
		for _, f := range x.Archives {
			fmt.Fprintf(w, "  landed %s\n", f)
		}
		for _, m := range x.Warnings {
			fmt.Fprintf(w, "  warning: %s\n", m)
		}
	}
	for _, t := range r.Tables {
		switch {
		case !t.Ledger:
			fmt.Fprintf(w, "%s: no ledger, so nothing can be said of missing rows\n", t.Table)
		case t.Version < 0:
			fmt.Fprintf(w, "%s: nothing written yet\n", t.Table)
		case t.Quarantined > 0 && r.Missing > 0:
			fmt.Fprintf(w, "%s: %s in quarantine, among which missing ids may be\n", t.Table, count(t.Quarantined, "record"))
		case !slices.ContainsFunc(r.Days, func(d ingest.DayLedger) bool { return d.Table == t.Table }):
			fmt.Fprintf(w, "%s: it has no rows to which this applies\n", t.Table)
		}
	}
	for _, d := range r.Days {
		fmt.Fprintln(w, printable(d.Statement))
	}
	if len(r.Holes) > 0 {
		g := newGrid("hole", "ids", "from", "to", "whose", "why").right(1, 2, 3)
		for i, h := range r.Holes {
			if i == holesShown {
				break
			}
			g.row(h.Series, thousands(h.IDs), strconv.FormatInt(h.From, 10), strconv.FormatInt(h.To, 10), h.Owner, h.Why)
		}
		if err := g.write(w); err != nil {
			return err
		}
		if more := len(r.Holes) - holesShown; more > 0 {
			fmt.Fprintf(w, "and %s more; --json lists all\n", count(int64(more), "hole"))
		}
	}
	if len(r.Offsets) > 0 {
		g := newGrid("lost offsets", "topic", "partition", "from", "to", "allowed", "why").right(2, 3, 4)
		for _, x := range r.Offsets {
			partition, from, to := strconv.Itoa(int(x.Partition)), strconv.FormatInt(x.From, 10), strconv.FormatInt(x.To, 10)
			if x.To < x.From {
				to = "?"
			}
			if x.Partition == pipeline.AllPartitions {
				partition, from, to = "all", "-", "-"
			}
			g.row(x.Source, x.Topic, partition, from, to, timeText(x.AllowedAt, true), x.Reason)
		}
		return g.write(w)
	}
	return nil
}
