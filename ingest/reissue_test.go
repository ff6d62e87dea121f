package ingest_test

import (
	"testing"

	"github.com/cauce-data/cauce/ingest"
)

// Under on_reissue: replace the rows of a content stand as long as some name has it, and no longer, whatever else one run
// finds beside it.
func TestReplacedContents(t *testing.T) {
	put := func(w *world, name string, minute int, text string) {
		w.put("lines_"+name+".csv", minute, "text,n", text+",1")
	}
	for _, c := range []struct {
		name          string
		before, after func(w *world)
		want          []string
	}{
		{
			"a log that is rotated: the old content has a new name, the old name a new content",
			func(w *world) { put(w, "log", 0, "old") },
			func(w *world) { put(w, "log.1", 0, "old"); put(w, "log", 1, "new") },
			[]string{"new", "old"},
		},
		{
			"rotated, and the new name comes first in order",
			func(w *world) { put(w, "log", 0, "old") },
			func(w *world) { put(w, "a", 0, "old"); put(w, "log", 1, "new") },
			[]string{"new", "old"},
		},
		{
			"two files exchange their names",
			func(w *world) { put(w, "a", 0, "one"); put(w, "b", 0, "two") },
			func(w *world) { put(w, "a", 1, "two"); put(w, "b", 1, "one") },
			[]string{"one", "two"},
		},
		{
			"both names of one content are issued again",
			func(w *world) { put(w, "a", 0, "old"); put(w, "b", 0, "old") },
			func(w *world) { put(w, "a", 1, "new"); put(w, "b", 1, "newer") },
			[]string{"new", "newer"},
		},
		{
			"both names of one content are issued again, with one content",
			func(w *world) { put(w, "a", 0, "old"); put(w, "b", 0, "old") },
			func(w *world) { put(w, "a", 1, "new"); put(w, "b", 1, "new") },
			[]string{"new"},
		},
		{
			"a file is issued again with the content of a new one",
			func(w *world) { put(w, "b", 0, "old") },
			func(w *world) { put(w, "a", 1, "new"); put(w, "b", 1, "new") },
			[]string{"new"},
		},
		{
			"a copy that no commit has told of takes the place of a file that is issued again",
			func(w *world) {
				put(w, "log", 0, "old")
				w.batch(ingest.BatchOptions{})
				put(w, "log.1", 0, "old")
			},
			func(w *world) { put(w, "log", 1, "new") },
			[]string{"new", "old"},
		},
		{
			"a copy that an epoch before has found takes the place of a file that is issued again",
			func(w *world) { put(w, "log", 0, "old") },
			func(w *world) { put(w, "a", 0, "old"); put(w, "b", 0, "old"); put(w, "log", 1, "new") },
			[]string{"new", "old"},
		},
		{
			"one of the two names is only touched",
			func(w *world) { put(w, "a", 0, "old"); put(w, "b", 0, "old") },
			func(w *world) { put(w, "a", 1, "new"); put(w, "b", 1, "old") },
			[]string{"new", "old"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, files := range []int{0, 1} { // one epoch, and one a file
				w := newWorld(t, tradesLake)
				c.before(w)
				w.batch(ingest.BatchOptions{})
				c.after(w)
				w.batch(ingest.BatchOptions{EpochFilesMax: files})
				w.reopen()
				w.batch(ingest.BatchOptions{EpochFilesMax: files})
				equal(t, "lines", w.rows("lines", "text"), c.want)
			}
		})
	}
}
