package golden

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/delta"
)

// decisions are what the protocol says of tables on which engines disagree, by what is special in each table's log and
// not by its name: the first that applies decides.
var decisions = []struct {
	section string // of PROTOCOL.md
	applies func(log string) bool
	check   func(t *testing.T, s *delta.Snapshot, rows []string, err error)
}{
	{
		// "A reader must implement every feature that readerFeatures lists": geospatial is one that this reader lacks,
		// so the table is refused by the feature's name.
		section: "Table Features",
		applies: func(log string) bool { return strings.Contains(log, `"geospatial"`) },
		check: func(t *testing.T, _ *delta.Snapshot, _ []string, err error) {
			var u *delta.UnsupportedError
			if !errors.As(err, &u) || !slices.Contains(u.Names, "geospatial") {
				t.Errorf("error %v, want one that names the feature", err)
			}
		},
	},
	{
		// "Delta Log Entries" and "Checkpoints": a checkpoint holds the whole state at its version, and replay begins
		// there; the commit of that version may be gone ("Metadata Cleanup" keeps it, but a reader needs it for nothing).
		// "Data files": the folder of the table has none of those that the checkpoint names, so rows cannot be read.
		section: "Checkpoints",
		applies: func(log string) bool { return log == "" },
		check: func(t *testing.T, s *delta.Snapshot, rows []string, err error) {
			if s == nil {
				t.Fatalf("the checkpoint was not enough: %v", err)
			}
			if s.Version() <= 0 || len(s.Domains()) == 0 {
				t.Errorf("version %d with %d domains", s.Version(), len(s.Domains()))
			}
			if s.NumFiles() > 0 && err == nil {
				t.Errorf("%d rows of files that are not there", len(rows))
			}
		},
	},
	{
		// "Deletion Vector Descriptor Schema": storage type p is an absolute path. Here it is a template that was never
		// filled in and names nothing inside the store: an error, and never the rows without the vector.
		section: "Deletion Vectors",
		applies: func(log string) bool { return strings.Contains(log, `"storageType":"p"`) },
		check: func(t *testing.T, s *delta.Snapshot, rows []string, err error) {
			if s == nil {
				t.Fatal(err)
			}
			if !errors.Is(err, delta.ErrUnsupported) && !errors.Is(err, delta.ErrBadVector) {
				t.Errorf("%d rows and error %v, want a typed error", len(rows), err)
			}
		},
	},
	{
		// "Partition Value Serialization": a timestamp may be written as ISO 8601 with a Z; it comes from
		// partitionValues. The folder's name, in which a colon stands unescaped, means nothing, and a colon in a relative
		// URI's later segments makes no scheme (RFC 2396, section 5).
		section: "Partition Value Serialization",
		applies: func(log string) bool { return strings.Contains(log, `"partitionValues": {"time"`) },
		check: func(t *testing.T, s *delta.Snapshot, rows []string, err error) {
			if err != nil {
				t.Fatal(err)
			}
			if len(rows) != 1 || !strings.Contains(rows[0], `"time":"1971-07-22T03:06:40.000000Z"`) {
				t.Errorf("rows %q", rows)
			}
		},
	},
}

// decide checks a disputed table.
func decide(ctx context.Context, t *testing.T, log string, w way, tab *delta.Table, err error) {
	for _, d := range decisions {
		if !d.applies(log) {
			continue
		}
		var s *delta.Snapshot
		var rows []string
		if err == nil {
			if s, err = tab.Snapshot(ctx); err == nil {
				rows, err = lines(s.Schema().Fields, w.rows(ctx, s))
			}
		}
		t.Logf("PROTOCOL.md, %q: %d rows, %v", d.section, len(rows), err)
		d.check(t, s, rows, err)
		return
	}
	t.Error("nothing is decided about a table like this one")
}
