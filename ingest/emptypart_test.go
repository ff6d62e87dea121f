package ingest_test

import (
	"strings"
	"testing"

	"github.com/cauce-data/cauce/ingest"
)

// TestEmptyPartitionValues: a table has null for the empty text of a partition column, so that a key with one would never be met again.
func TestEmptyPartitionValues(t *testing.T) {
	w := newWorld(t, strings.NewReplacer("partition_by: [event_date]", "partition_by: [note]", "key: [id]", "key: [id, note]").Replace(tradesLake))
	for minute, file := range []string{"trades_1.csv", "trades_2.csv"} {
		w.put(file, minute, "id,price,note,time", `a,1,"",1724148000000`, `b,1,x,1724148000000`, file+",1,x,1724148000000")
		if r := w.batch(ingest.BatchOptions{}); r.RowsQuarantined != 1 {
			t.Errorf("%s: %+v", file, r.Counts)
		}
	}
	equal(t, "rows", w.rows("trades", "id", "note"), []string{"b x", "trades_1.csv x", "trades_2.csv x"})
	if q := w.quarantine(ingest.QuarantineFilter{}); len(q) != 2 || q[0].Rule != "not_null:note" || q[0].Reason != `note is null (note = "")` {
		t.Errorf("quarantine: %+v", q)
	}

	// Where it is no key, a row that comes again changes nothing.
	w = newWorld(t, strings.Replace(strings.Replace(tradesLake, "partition_by: [event_date]", "partition_by: [note]", 1), `, {where: "note <> 'drop'"}`, "", 1))
	for minute, file := range []string{"trades_1.csv", "trades_2.csv"} {
		w.put(file, minute, "id,price,note,time", `a,1,"",1724148000000`, `b,1,x,1724148000000`, file+",1,x,1724148000000")
		if r := w.batch(ingest.BatchOptions{}); r.RowsInserted != int64(3-2*minute) || r.RowsUpdated != 0 {
			t.Errorf("%s: %+v", file, r.Counts)
		}
	}
	equal(t, "rows of the second table", w.rows("trades", "id", "note"), []string{"a -", "b x", "trades_1.csv x", "trades_2.csv x"})
}

// TestNullPartitionAndItsName: null and the text that hive calls its folder lie in one folder, and in two files.
func TestNullPartitionAndItsName(t *testing.T) {
	w := newWorld(t, strings.Replace(strings.Replace(tradesLake, "partition_by: [event_date]", "partition_by: [note]", 1), `, {where: "note <> 'drop'"}`, "", 1))
	w.cfg.Engine = engine(t)
	for minute, file := range []string{"trades_1.csv", "trades_2.csv"} {
		w.reopen()
		w.put(file, minute, "id,price,note,time", "a,1,,1724148000000", "b,1,__HIVE_DEFAULT_PARTITION__,1724148000000", file+",1,x,1724148000000")
		if r := w.batch(ingest.BatchOptions{}); r.RowsInserted != int64(3-2*minute) || r.RowsUpdated != 0 {
			t.Errorf("%s: %+v", file, r.Counts)
		}
	}
	equal(t, "rows", w.rows("trades", "id", "note"), []string{"a -", "b __HIVE_DEFAULT_PARTITION__", "trades_1.csv x", "trades_2.csv x"})
}
