package ingest

import (
	"context"
	"errors"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// progressGrace is the age from which progress files that a summary covers may go: long enough that every run which
// looked up the chain before the summary was written has ended its look.
const progressGrace = time.Hour

// unfinishedAge is the age from which what a Put left unfinished counts as left by a killed process.
const unfinishedAge = 24 * time.Hour

// tidy removes what no run needs any more outside of tables: progress files that a summary covers, and files that
// killed processes left unfinished. It gives the number of files removed.
func (l *Lake) tidy(ctx context.Context) (int, error) {
	removed := 0
	var errs []error
	if s, ok := l.store.(objstore.Sweeper); ok {
		for _, dir := range []string{"raw/", ProgressPath + "/"} {
			swept, err := s.Sweep(ctx, dir, l.clock().Add(-unfinishedAge), false)
			removed += len(swept)
			if err != nil {
				errs = append(errs, err)
			}
		}
	}
	for _, src := range l.lake.Sources {
		n, err := l.tidyProgress(ctx, src)
		removed += n
		if err != nil {
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

// tidyProgress removes progress files of a source, in every incarnation, up to a summary that is in use for long enough.
func (l *Lake) tidyProgress(ctx context.Context, src *pipeline.Source) (int, error) {
	t, err := l.catalog.Open(ctx, src.Table)
	if errors.Is(err, delta.ErrNotATable) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	snap, err := t.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	files := map[string][]objstore.Info{} // by folder
	for f, err := range l.store.List(ctx, ProgressPath+"/"+url.PathEscape(src.Name)+"/", "") {
		if err != nil {
			return 0, err
		}
		files[path.Dir(f.Key)] = append(files[path.Dir(f.Key)], f)
	}
	before := l.clock().Add(-progressGrace)
	removed := 0
	for dir, all := range files {
		incarnation, ok := incarnationOf(dir + "/")
		if !ok {
			continue
		}
		log := l.progressLog(src.Name, incarnation)
		sum, upTo, err := log.settledSummary(ctx, snap, before)
		if err != nil {
			return removed, err
		}
		if sum == "" {
			continue
		}
		keep, err := l.filesOfQuarantine(ctx, log, snap, &upTo)
		if err != nil {
			return removed, err
		}
		for _, f := range all {
			m := epochOfFile.FindStringSubmatch(path.Base(f.Key))
			if m == nil || path.Base(f.Key) == sum || !f.ModTime.Before(before) {
				continue
			}
			n, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil || n > upTo || keep[path.Base(f.Key)] {
				continue
			}
			if err := l.store.Delete(ctx, f.Key); err != nil && !errors.Is(err, objstore.ErrNotFound) {
				return removed, err
			}
			removed++
		}
	}
	return removed, nil
}

// epochOfFile reads epoch and kind (none: the winner file) out of the name of a progress file.
var epochOfFile = regexp.MustCompile(`^([0-9]+)(-[0-9a-f-]+(?:\.compact)?)?\.json$`)

// settledSummary finds the newest summary of a log that was written before the given time, and the last epoch in it.
func (p *progressLog) settledSummary(ctx context.Context, snap *delta.Snapshot, before time.Time) (name string, epoch int64, err error) {
	last, ok := snap.Txn(p.appID())
	if !ok {
		return "", 0, nil
	}
	next, err := p.confirmed(ctx, snap, last)
	if err != nil {
		return "", 0, err
	}
	looked := ""
	for next != "" {
		e := new(EpochFile)
		if err := p.readJSON(ctx, next, e); errors.Is(err, errNoProgress) || err == nil && e.TableID != snap.Metadata().ID {
			return "", 0, nil
		} else if err != nil {
			return "", 0, err
		}
		if e.Compacted != "" && e.Compacted != looked {
			looked = e.Compacted
			info, err := p.store.Stat(ctx, p.key(looked))
			if errors.Is(err, objstore.ErrNotFound) {
				return "", 0, nil // the chain itself is all there is
			}
			if err != nil {
				return "", 0, err
			}
			c := new(compactFile)
			if info.ModTime.Before(before) {
				if err := p.readJSON(ctx, looked, c); errors.Is(err, errNoProgress) || err == nil && c.TableID != e.TableID {
					return "", 0, nil
				} else if err != nil {
					return "", 0, err
				}
				return looked, c.Epoch, nil
			}
		}
		next = e.Previous
	}
	return "", 0, nil
}

// filesOfQuarantine gives what quarantine still needs of a progress: the winner files that tell that a row of quarantine counts, and
// the epoch files that tell what the columns of its file were. It lowers upTo below the epochs that are needed whole to judge a
// row.
func (l *Lake) filesOfQuarantine(ctx context.Context, p *progressLog, snap *delta.Snapshot, upTo *int64) (keep map[string]bool, err error) {
	keep = map[string]bool{}
	winners := map[int64]string{}
	for r, err := range l.quarantineRows(ctx, judgedColumns...) {
		if err != nil {
			return nil, err
		}
		dir, file := path.Split(r.Progress)
		if dir != p.dir+"/" || r.ResolvedAt != nil || r.Epoch > *upTo {
			continue
		}
		name, ok := winners[r.Epoch]
		if !ok {
			if name, err = p.winner(ctx, snap, r.Epoch); err != nil {
				return nil, err
			}
			winners[r.Epoch] = name
			keep[winnerName(r.Epoch)] = true
		}
		if r.Topic == "" {
			keep[file] = true
		}
		if name != file {
			*upTo = min(*upTo, r.Epoch-1)
		}
	}
	return keep, nil
}
