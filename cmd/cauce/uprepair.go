package main

import (
	"context"
	"strings"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

// repairDays is how far back `up` looks for holes by itself; cauce gaps --repair looks at everything.
const repairDays = 7

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
	version := int64(-1)
	tick := time.NewTicker(src.Repair.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		o := ingest.GapsOptions{Table: src.Table, Since: time.Now().In(u.l.Table(src.Table).Timezone).AddDate(0, 0, -repairDays).Format(time.DateOnly)}
		g, err := u.l.ingest.Gaps(ctx, o)
		if err != nil {
			return err
		}
		if v := int64(g.Tables[0].Version); g.Missing > 0 && len(before) > 0 {
			r, err := u.a.repairSource(ctx, u.l, ingest.RepairOptions{Source: src.Name, Fetcher: f, GapsOptions: o, Before: before})
			if err != nil {
				return err
			}
			if r.Holes > 0 && (v != version || r.Epochs > 0) {
				u.log.Info("repair "+src.Name, "holes", r.Holes, "fetched", r.Fetched, "inserted", r.RowsInserted, "absent", r.Absent, "archives", len(r.Archives))
				for _, w := range r.Warnings {
					u.log.Warn("repair "+src.Name, "warning", w)
				}
			}
			version = v
		}
		before = g.Holes
	}
}
