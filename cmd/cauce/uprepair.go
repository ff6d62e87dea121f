package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

// How far back `up` looks for holes by itself: mostly to yesterday, and each repairEvery a week; cauce gaps --repair looks
// at everything.
const (
	repairDays  = 7
	repairEvery = time.Hour
)

// fetcher asks the exchange that up's producers are connected to: an exchange that --url names without TLS is played on a
// machine nearby, and is its own REST interface and archive.
func (u *up) fetcher(src *pipeline.Source) *fetcher {
	rest, archive := u.restURL, ""
	if host, ok := strings.CutPrefix(u.url, "ws://"); ok {
		host, _, _ = strings.Cut(host, "/")
		archive = "http://" + host
		if rest == "" {
			rest = archive
		}
	}
	return newFetcher(src, rest, archive)
}

// repair looks for holes until ctx ends, and fetches those that were there at the look before: what is missing at the end
// of a stream is mostly under way.
func (u *up) repair(ctx context.Context, src *pipeline.Source, f *fetcher) error {
	before := []ingest.Hole{}
	u.l.watch.report("repair "+src.Name, nil) // it has nothing to wait for
	var told time.Time                        // when holes that stay were told of last
	var wide time.Time                        // when it looked at all of repairDays last
	had := map[string]time.Time{}
	tick := time.NewTicker(src.Repair.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		days := 1
		if len(before) > 0 || time.Since(wide) > repairEvery {
			days, wide = repairDays, time.Now()
		}
		o := ingest.GapsOptions{Table: src.Table, Since: time.Now().In(u.l.Table(src.Table).Timezone).AddDate(0, 0, -days).Format(time.DateOnly)}
		g, err := u.l.ingest.Gaps(ctx, o)
		if err != nil {
			return err
		}
		u.l.watch.repaired(src, g)
		if g.Missing > 0 && len(before) > 0 {
			r, err := u.a.repairSource(ctx, u.l, ingest.RepairOptions{Source: src.Name, Fetcher: f, GapsOptions: o, Before: before, Had: had})
			if err != nil {
				return err
			}
			if r.Holes > 0 && (r.Epochs > 0 || time.Since(told) > repairEvery) {
				told = time.Now()
				u.log.Info("repair "+src.Name, "holes", r.Holes, "fetched", r.Fetched, "inserted", r.RowsInserted, "absent", r.Absent, "archives", len(r.Archives))
				for _, w := range r.Warnings {
					u.log.Warn("repair "+src.Name, "warning", w)
				}
			}
		}
		before = slices.DeleteFunc(g.Holes, func(h ingest.Hole) bool { return h.Owner != ingest.OwnerOurs })
	}
}

// statements tells of yesterday, series by series, whether it is complete.
func (u *up) statements(ctx context.Context) {
	for _, t := range u.l.Tables {
		if t.Ledger == nil {
			continue
		}
		yesterday := time.Now().In(t.Timezone).AddDate(0, 0, -1).Format(time.DateOnly)
		g, err := u.l.ingest.Gaps(ctx, ingest.GapsOptions{Table: t.Name, Since: yesterday})
		if err != nil {
			u.log.Warn("the ledger cannot be read", "table", t.Name, "error", err)
			continue
		}
		for _, d := range g.Days {
			if d.Day == yesterday {
				u.log.Info("ledger "+t.Name, "statement", d.Statement, "missing", d.Missing)
			}
		}
	}
}
