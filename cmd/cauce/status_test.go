package main

import (
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

// TestStatusTellsErrorsBelowItsTable: why it is not known how much waits stands in a line of its own, and no column is as
// wide as an error.
func TestStatusTellsErrorsBelowItsTable(t *testing.T) {
	why := "no Kafka broker can be reached: " + strings.Repeat("long ", 40)
	var away, here sourceStatus
	away.Name, away.Lag = "away", &lagStatus{Error: why}
	here.Name, here.Lag = "here", &lagStatus{Records: 1200, Seconds: 3}
	var out strings.Builder
	if err := printStreams(&out, []sourceStatus{away, here}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, why) != strings.HasPrefix(line, "stream away: ") || len(line) > 80 && !strings.HasPrefix(line, "stream away: ") {
			t.Errorf("status:\n%s", out.String())
		}
	}
	if !strings.Contains(out.String(), why) || !strings.Contains(out.String(), "1,200") {
		t.Errorf("status:\n%s", out.String())
	}
}

// TestQueuesHaveNoOffsets: what Pub/Sub calls a message is its id, and how far its queue has been read is a time.
func TestQueuesHaveNoOffsets(t *testing.T) {
	at := time.Date(2026, 11, 28, 10, 0, 0, 168_836_000, time.UTC)
	s := ingest.SourceStatus{Kind: pipeline.KindPubSub, Streams: []ingest.StreamPlan{{Positions: []ingest.PositionMark{{Offset: at.UnixMicro(), Time: at}}}}}
	if got := readSoFar(s); !strings.Contains(got, "published up to 2026-11-28T10:00:00.168Z") || strings.Contains(got, "partition") {
		t.Errorf("read so far: %s", got)
	}
	r := ingest.QuarantineRow{Topic: "trades", Offset: at.UnixMicro(), Origin: "pubsub:example.com/p:trades/1234"}
	if got := place(r); got != "trades message 1234" {
		t.Errorf("place: %s", got)
	}
	r = ingest.QuarantineRow{Topic: "trades", Partition: 2, Offset: 7, Origin: "kafka:c.id:trades/2"}
	if got := place(r); got != "trades/2@7" {
		t.Errorf("place: %s", got)
	}
}
