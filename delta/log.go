package delta

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

const logFolder = "_delta_log"

// commitKey is the object of a version (PROTOCOL.md, "Delta Log Entries").
func (t *Table) commitKey(v Version) string {
	return t.key(fmt.Sprintf("%s/%020d.json", logFolder, v))
}

func (t *Table) logKey(name string) string { return t.key(logFolder + "/" + name) }

// logFile is one object of the log that matters for reading the table.
type logFile struct {
	version Version
	info    objstore.Info
	// checkpoint files only
	part, parts int    // of a multi-part checkpoint, from 1; else 0
	uuid        string // of a V2 checkpoint with a UUID name
}

// segment is a listing of the log: commits and checkpoints by version, ascending.
type segment struct {
	commits     []logFile
	checkpoints []logFile
}

// parseLogName tells what an object of the log is by its name; ok is false for names that a reader ignores: checksums,
// compacted commits (their content is a convenience, and writers disagree on it), temporary files, staged commits.
func parseLogName(name string) (f logFile, checkpoint, ok bool) {
	if len(name) < 21 || name[20] != '.' {
		return f, false, false
	}
	v, err := strconv.ParseUint(name[:20], 10, 63)
	if err != nil {
		return f, false, false
	}
	f.version = Version(v)
	rest := name[21:]
	if rest == "json" {
		return f, false, true
	}
	rest, ok = strings.CutPrefix(rest, "checkpoint.")
	if !ok {
		return f, false, false
	}
	if rest == "parquet" {
		return f, true, true
	}
	words := strings.Split(rest, ".")
	switch {
	case len(words) == 3 && words[2] == "parquet" && len(words[0]) == 10 && len(words[1]) == 10:
		f.part, err = strconv.Atoi(words[0])
		if err != nil {
			return f, false, false
		}
		f.parts, err = strconv.Atoi(words[1])
		return f, true, err == nil && f.part >= 1 && f.part <= f.parts
	case len(words) == 2 && (words[1] == "parquet" || words[1] == "json") && len(words[0]) == 36:
		f.uuid = words[0]
		return f, true, true
	}
	return f, false, false
}

// list reads the names of the log from a version on (0: all of it).
func (t *Table) list(ctx context.Context, from Version) (segment, error) {
	var seg segment
	prefix := t.logKey("")
	after := ""
	if from > 0 {
		// Names of the version itself are longer, and so greater, than its bare number.
		after = prefix + fmt.Sprintf("%020d", from)
	}
	for in, err := range t.store.List(ctx, prefix, after) {
		if err != nil {
			return segment{}, fmt.Errorf("list the log of %s: %w", t, err)
		}
		f, checkpoint, ok := parseLogName(strings.TrimPrefix(in.Key, prefix))
		if !ok {
			continue
		}
		f.info = in
		if checkpoint {
			if in.Size > 0 { // an empty one is the trace of a store that shows unfinished writes
				seg.checkpoints = append(seg.checkpoints, f)
			}
		} else {
			seg.commits = append(seg.commits, f)
		}
	}
	sort.Slice(seg.commits, func(i, j int) bool { return seg.commits[i].version < seg.commits[j].version })
	return seg, nil
}

// completeCheckpoints groups the checkpoint files, newest version first; within a version the plain ones first. A
// multi-part checkpoint with a missing part is left out (PROTOCOL.md, "Multi-part checkpoint").
func (s segment) completeCheckpoints() [][]logFile {
	type group struct {
		version Version
		parts   int
		uuid    string
	}
	groups := map[group][]logFile{}
	for _, f := range s.checkpoints {
		g := group{f.version, f.parts, f.uuid}
		groups[g] = append(groups[g], f)
	}
	var out [][]logFile
	for g, files := range groups {
		if g.parts > 0 {
			seen := map[int]bool{}
			for _, f := range files {
				seen[f.part] = true
			}
			if len(seen) != g.parts {
				continue
			}
			sort.Slice(files, func(i, j int) bool { return files[i].part < files[j].part })
		}
		out = append(out, files)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i][0], out[j][0]
		if a.version != b.version {
			return a.version > b.version
		}
		if (a.uuid == "") != (b.uuid == "") {
			return a.uuid == ""
		}
		if a.parts != b.parts {
			return a.parts < b.parts
		}
		return a.uuid > b.uuid
	})
	return out
}

// readObject reads a whole object.
func readObject(ctx context.Context, store objstore.Store, key string) ([]byte, objstore.Info, error) {
	r, info, err := store.Get(ctx, key)
	if err != nil {
		return nil, info, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, info, fmt.Errorf("read %s: %w", key, err)
	}
	return data, info, nil
}

// readCommit reads and parses one version. objstore.ErrNotFound if it does not exist.
func (t *Table) readCommit(ctx context.Context, v Version) (*commit, objstore.Info, error) {
	key := t.commitKey(v)
	data, info, err := readObject(ctx, t.store, key)
	if err != nil {
		return nil, info, err
	}
	c, err := parseCommit(key, v, data)
	return c, info, err
}

// readCommitInfo reads the commitInfo of a version, nil if it has none. Where in-commit timestamps are on it is the first
// line (PROTOCOL.md, "In-Commit Timestamps"), and the rest of a large commit is not read.
func (t *Table) readCommitInfo(ctx context.Context, v Version) (*CommitInfo, objstore.Info, error) {
	key := t.commitKey(v)
	r, info, err := t.store.Get(ctx, key)
	if err != nil {
		return nil, info, err
	}
	defer r.Close()
	line, err := bufio.NewReader(io.LimitReader(r, 4<<20)).ReadBytes('\n')
	if err == nil || errors.Is(err, io.EOF) {
		var a wireAction
		if json.Unmarshal(line, &a) == nil && a.CommitInfo != nil {
			return a.CommitInfo, info, nil
		}
	}
	c, info, err := t.readCommit(ctx, v)
	if err != nil {
		return nil, info, err
	}
	return c.info, info, nil
}

// timeOf is the time of a commit: its in-commit timestamp if it has one and the table says so, else the time of its
// object.
func timeOf(c *commit, info objstore.Info) time.Time {
	if c != nil && c.info != nil && c.info.InCommitTimestamp != nil {
		return time.UnixMilli(*c.info.InCommitTimestamp).UTC()
	}
	return info.ModTime.UTC().Truncate(time.Millisecond)
}

func isNotFound(err error) bool { return errors.Is(err, objstore.ErrNotFound) }
