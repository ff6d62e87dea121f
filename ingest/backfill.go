package ingest

import "github.com/cauce-data/cauce/pipeline"

// backfill says in which ways rows that a stream has lost may come into its table after all: from where its ids are
// fetched, from files, or from whoever has the messages still.
func (l *Lake) backfill(src *pipeline.Source) []string {
	var ways []string
	t := l.lake.Table(src.Table)
	if t.Ledger != nil {
		for _, s := range l.lake.Sources {
			if s.Table == src.Table && s.Repair != nil {
				ways = append(ways, "cauce gaps --repair fetches the ids that are missing (with --from archive from daily files)")
				break
			}
		}
	}
	for _, s := range l.lake.Sources {
		if s.Table == src.Table && !s.Streaming() {
			ways = append(ways, "cauce land FILE… and cauce run batch "+s.Name+" take them from files")
			break
		}
	}
	return append(ways, "cauce produce replay FILE --source "+src.Name+" publishes messages again that are kept elsewhere; what the table has already stays as it is")
}
