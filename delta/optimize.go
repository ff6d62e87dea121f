package delta

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/cauce-data/cauce/objstore"
)

// OptimizeOptions say what Optimize does. The zero value packs small files into larger ones.
type OptimizeOptions struct {
	Where       Predicate // restricts it to files that may hold such rows; usually a range of partitions
	TargetBytes int64     // size of the new files; 0: 128 MiB
	// ZOrderBy sorts the rows of each partition along a curve through these columns, so that files (and row groups)
	// have narrow bounds in all of them.
	ZOrderBy []string
	// SortBy orders the rows inside each new file (logical column names), so that its row groups have narrow bounds. It
	// does not choose files, as ZOrderBy does. Nil: rows stay in the order of the files.
	SortBy []string
	// MinFiles is how many small files a partition must have before they are packed; below 2: 2.
	MinFiles int
	// Tiered leaves a file of a partition alone as long as it is larger than all smaller ones together, and counts only
	// the others for MinFiles. So a partition that grows all the time is not rewritten for each few files that are added:
	// a row is rewritten once each time that what holds it has doubled. It leaves a few more files, each twice as large
	// as the one before. A larger file with many marked rows is rewritten by itself, so that a writer who marks rows in
	// it meanwhile does not undo the packing of the small ones. Small files are packed up to twice MinFiles at a time, each
	// time in a commit of its own: a writer who marks rows in many of them would else undo every packing that takes long.
	// Z-order, clustering and Purge choose files by other rules.
	Tiered bool
	// KeepMarked, with Tiered, leaves such larger files with many marked rows as they are.
	KeepMarked  bool
	Compression string // "snappy" (default) or "zstd"
	// Purge rewrites the files that have a deletion vector, and only those, so that the marked rows are gone from the
	// files (REORG TABLE … APPLY (PURGE)); Vacuum then deletes the old ones.
	Purge bool
	// Full clusters all files of a clustered table anew, those that are clustered already and those of other engines too
	// (OPTIMIZE … FULL).
	Full bool
	// Auto says in the commit that nobody asked for it (auto compaction).
	Auto bool
	// Hook is called when a phase begins: "optimize", "files-written", "before-commit", "after-commit", "checkpoint".
	Hook func(phase string)

	clusterBy []string // of the table
}

// OptimizeResult says what Optimize did.
type OptimizeResult struct {
	Version        Version // of the last commit; of the table as it was read if there was none
	Commits        int
	FilesRemoved   int
	FilesAdded     int
	BytesRemoved   int64
	BytesAdded     int64
	VectorsRemoved int // deletion vectors that went with the files
	// Removed are the files that were rewritten, as keys of the store.
	Removed []string
	Yielded int // groups of files given up because a writer of rows changed one of them meanwhile
	// Metrics are the sums of the commits' operationMetrics, under Spark's names; the sizes are those of the last commit.
	Metrics map[string]string
}

// Bounds of Optimize.
const (
	optimizeTargetBytes = 128 << 20
	optimizeCommitBytes = 1 << 30  // input of one commit: what is lost at most when the process ends
	optimizeVectorShare = 0.05     // share of marked rows from which a file is rewritten for its vector alone
	optimizeRounds      = 3        // how often groups that were given up are tried anew
	zorderInputBytes    = 64 << 20 // compressed input that is sorted in memory at once
	zorderTag           = "cauce.zorder"
)

// bin is a group of files of one partition that become one file, or a few.
type bin struct {
	files   []File
	bytes   int64
	written []WrittenFile
	marked  bool   // one large file that is rewritten for its vector, with Tiered
	cube    string // id of the group of files that are clustered together
}

// Optimize rewrites files without changing rows: small files of a partition are packed into larger ones, rows that
// deletion vectors mark are dropped. It is no data change for other writers, and it yields to them: a group of files of
// which a writer of rows changed one is given up, tried anew, and left to the next call at last. With nothing to do
// nothing is committed.
func (t *Table) Optimize(ctx context.Context, o OptimizeOptions) (*OptimizeResult, error) {
	if o.TargetBytes <= 0 {
		o.TargetBytes = optimizeTargetBytes
	}
	o.MinFiles = max(2, o.MinFiles) // to pack one file would be done again each time
	o.Tiered = o.Tiered && len(o.ZOrderBy) == 0 && !o.Purge
	res := &OptimizeResult{}
	yielded, left := 0, -1
	for inVain := 0; inVain < optimizeRounds; {
		s, bins, err := t.planOptimize(ctx, &o, res)
		if err == nil {
			if left < 0 { // each group leaves a file less at least, so that more groups than files are of what came meanwhile
				left = s.NumFiles()
			}
			if o.Tiered && len(bins) > 1 {
				bins = bins[:1] // the others are planned anew when this one is in the table
			}
			yielded, err = t.rewriteBins(ctx, s, bins, o, res)
		}
		if err != nil {
			return nil, fmt.Errorf("optimize %s: %w", t, err)
		}
		switch {
		case yielded > 0 && bins[0].marked:
			res.Yielded++
			o.KeepMarked = true
		case yielded > 0:
			inVain++
		case o.Tiered && len(bins) > 0 && left > 0:
			inVain = 0
			left--
		default:
			return res, nil
		}
	}
	res.Yielded += yielded
	return res, nil
}

// planOptimize groups the files of the newest snapshot that are worth rewriting. It puts the clustering columns and the
// names of the others, as the schema has them, into o.
func (t *Table) planOptimize(ctx context.Context, o *OptimizeOptions, res *OptimizeResult) (*Snapshot, []*bin, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := s.CheckWrite(); err != nil {
		return nil, nil, err
	}
	for i, c := range o.ZOrderBy {
		f, ok := s.Schema().Field(c)
		if !ok {
			return nil, nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, c)
		}
		if slices.Contains(s.PartitionBy(), f.Name) {
			return nil, nil, fmt.Errorf("%w: %q is a partition column, by which rows are apart already", ErrNoSuchColumn, c)
		}
		if i == 0 {
			o.ZOrderBy = slices.Clone(o.ZOrderBy)
		}
		o.ZOrderBy[i] = f.Name
	}
	if res.Commits == 0 {
		res.Version = s.Version()
	}
	cluster, err := s.ClusterBy()
	switch {
	case err != nil && !o.Purge:
		return nil, nil, err
	case len(cluster) > 0 && len(o.ZOrderBy) > 0:
		return nil, nil, fmt.Errorf("%w: the table is clustered by %s: Z-order does not go with it", ErrClustered, strings.Join(cluster, ", "))
	case len(cluster) == 0 && o.Full:
		return nil, nil, fmt.Errorf("%w: only a clustered table can be optimized in full", ErrClustered)
	}
	var bins []*bin
	if len(cluster) > 0 && !o.Purge {
		o.clusterBy, o.Tiered = cluster, false
		bins, err = s.planClusters(ctx, *o, cluster)
	} else {
		bins, err = s.planBins(ctx, *o)
	}
	return s, bins, err
}

// rewriteBins rewrites groups of files, as many in a commit as its bounds allow, and says how many were given up.
func (t *Table) rewriteBins(ctx context.Context, s *Snapshot, bins []*bin, o OptimizeOptions, res *OptimizeResult) (yielded int, err error) {
	for len(bins) > 0 {
		n, bytes := 0, int64(0)
		for n < len(bins) && (n == 0 || bytes+bins[n].bytes <= optimizeCommitBytes) {
			bytes += bins[n].bytes
			n++
		}
		y, err := t.optimizeCommit(ctx, s, bins[:n], o, res)
		if err != nil {
			return 0, err
		}
		yielded += y
		bins = bins[n:]
	}
	return yielded, nil
}

// planBins groups the files that are worth rewriting.
func (s *Snapshot) planBins(ctx context.Context, o OptimizeOptions) ([]*bin, error) {
	parts := map[string][]*Add{}
	for _, a := range s.Prune(o.Where) {
		parts[partitionKey(a)] = append(parts[partitionKey(a)], a)
	}
	var bins []*bin
	for _, k := range sortedKeys(parts) {
		adds := parts[k]
		var pick, alone []*Add
		limit := o.TargetBytes
		least, most := o.MinFiles, math.MaxInt
		if len(o.ZOrderBy) > 0 {
			tag := strings.Join(o.ZOrderBy, ",")
			done := true
			for _, a := range adds {
				v := a.Tags[zorderTag]
				done = done && v != nil && *v == tag && a.DeletionVector == nil
			}
			if done {
				continue
			}
			pick, limit, least = adds, zorderInputBytes, 1
		} else if o.Purge {
			least = 1
			for _, a := range adds {
				if a.DeletionVector != nil {
					pick = append(pick, a)
				}
			}
		} else {
			for _, a := range adds {
				if a.Size < o.TargetBytes/4*3 || markedShare(a) > optimizeVectorShare {
					pick = append(pick, a)
				}
			}
			if o.Tiered {
				pick, alone = tier(pick, o.MinFiles)
				most = 2 * o.MinFiles
			}
			if o.KeepMarked {
				alone = nil
			}
		}
		put := func(b *bin, group []*Add) (err error) {
			b.files, err = s.load(ctx, group)
			bins = append(bins, b)
			return err
		}
		// Ascending by size: the smallest files gain most, and equal ones stay together.
		pick = slices.Clone(pick)
		sort.SliceStable(pick, func(i, j int) bool { return pick[i].Size < pick[j].Size })
		for len(pick) > 0 {
			b := &bin{}
			var group []*Add
			for len(pick) > 0 && (len(group) == 0 || b.bytes+pick[0].Size <= limit && len(group) < most) {
				group = append(group, pick[0])
				b.bytes += pick[0].Size
				pick = pick[1:]
			}
			if len(group) < least && !(len(group) == 1 && markedShare(group[0]) > optimizeVectorShare) {
				continue
			}
			if err := put(b, group); err != nil {
				return nil, err
			}
		}
		for _, a := range alone {
			if err := put(&bin{bytes: a.Size, marked: true}, []*Add{a}); err != nil {
				return nil, err
			}
		}
	}
	return bins, nil
}

// tier chooses among the small files of a partition those that are worth packing together: the smallest ones, up to the
// largest that is no larger than all before it together, if they are at least so many. Of the larger ones those with
// many marked rows are to be rewritten for their vectors, each alone.
func tier(files []*Add, least int) (together, alone []*Add) {
	files = slices.Clone(files)
	sort.SliceStable(files, func(i, j int) bool { return files[i].Size < files[j].Size })
	n, sum := 0, int64(0)
	for i, a := range files {
		if a.Size <= sum {
			n = i + 1
		}
		sum += a.Size
	}
	for _, a := range files[n:] {
		if markedShare(a) > optimizeVectorShare {
			alone = append(alone, a)
		}
	}
	if n < least {
		n = 0
	}
	return files[:n], alone
}

// partitionKey is equal for files of one partition.
func partitionKey(a *Add) string {
	var b strings.Builder
	for _, k := range sortedKeys(a.PartitionValues) {
		b.WriteString(k)
		if v := a.PartitionValues[k]; v != nil && *v != "" {
			b.WriteString("\x01" + *v)
		}
		b.WriteByte(0)
	}
	return b.String()
}

// markedShare is the share of a file's rows that its vector marks, 1 if the number of rows is not known.
func markedShare(a *Add) float64 {
	if a.DeletionVector == nil {
		return 0
	}
	st, err := ParseStats(a.Stats)
	if err != nil || st.NumRecords <= 0 {
		return 1
	}
	return float64(a.DeletionVector.Cardinality) / float64(st.NumRecords)
}

// optimizeCommit rewrites some bins in one commit and says how many it had to give up.
func (t *Table) optimizeCommit(ctx context.Context, s *Snapshot, bins []*bin, o OptimizeOptions, res *OptimizeResult) (yielded int, err error) {
	if o.Hook != nil {
		o.Hook("optimize")
	}
	info := s.TableInfo()
	total := len(bins)
	defer func() {
		if err != nil && !errors.Is(err, objstore.ErrAmbiguous) {
			for _, b := range bins {
				deleteFiles(context.WithoutCancel(ctx), t.store, b.written)
			}
		}
	}()
	for _, b := range bins {
		if err := t.rewriteBin(ctx, s, info, b, o); err != nil {
			return 0, err
		}
	}
	if o.Hook != nil {
		o.Hook("files-written")
	}
	tx := t.Begin(s)
	operation := "OPTIMIZE"
	params := map[string]string{"predicate": "[]", "zOrderBy": quoteJSON(o.ZOrderBy), "clusterBy": quoteJSON(o.clusterBy), "auto": strconv.FormatBool(o.Auto)}
	if o.Where != nil {
		params["predicate"] = quoteJSON([]string{fmt.Sprint(o.Where)})
	}
	if o.Purge {
		operation = "REORG"
		params = map[string]string{"predicate": params["predicate"], "applyPurge": "true"}
	}
	stage := func() {
		now := t.opts.Clock().UnixMilli()
		for _, b := range bins {
			for _, f := range b.files {
				tx.RemoveFile(f.Add.Tombstone(now, false))
			}
			for _, w := range b.written {
				x := addOf(w, false)
				if len(o.ZOrderBy) > 0 {
					tag := strings.Join(o.ZOrderBy, ",")
					x.Tags = map[string]*string{zorderTag: &tag}
				}
				if len(o.clusterBy) > 0 {
					o.markClustered(x, b.cube)
				}
				tx.AddFile(x)
			}
		}
	}
	stage()
	done, err := tx.Commit(ctx, CommitOptions{
		Operation: operation, Parameters: params,
		MetricsFunc: func() map[string]string { return optimizeMetrics(bins) },
		Hook:        o.Hook,
		Rebase: func(ctx context.Context, newer *Snapshot, _ []WinningCommit) error {
			var keep []*bin
			for _, b := range bins {
				whole := true
				for _, f := range b.files {
					whole = whole && newer.holds(f.Add.Path, f.Add.DeletionVector)
				}
				if whole {
					keep = append(keep, b)
				} else {
					deleteFiles(context.WithoutCancel(ctx), t.store, b.written)
				}
			}
			bins = keep
			if len(bins) == 0 {
				return errNothingLeft
			}
			tx.ResetFiles()
			stage()
			return nil
		},
	})
	switch {
	case errors.Is(err, errNothingLeft):
		return total, nil
	case errors.Is(err, ErrMetadataChanged), errors.Is(err, ErrProtocolChanged), errors.Is(err, ErrConcurrentDeleteDelete):
		for _, b := range bins {
			deleteFiles(context.WithoutCancel(ctx), t.store, b.written)
		}
		bins = nil
		return total, nil
	case err != nil:
		return 0, err
	}
	res.Version = done.Version
	res.Commits++
	res.sum(done.Info.OperationMetrics)
	for _, b := range bins {
		res.FilesRemoved += len(b.files)
		res.FilesAdded += len(b.written)
		res.BytesRemoved += b.bytes
		for _, f := range b.files {
			res.Removed = append(res.Removed, f.Key)
			if f.Add.DeletionVector != nil {
				res.VectorsRemoved++
			}
		}
		for _, w := range b.written {
			res.BytesAdded += w.Size
		}
	}
	return total - len(bins), nil
}

// sum adds the metrics of a commit.
func (r *OptimizeResult) sum(m map[string]string) {
	if r.Metrics == nil {
		r.Metrics = map[string]string{}
	}
	for k, v := range m {
		if strings.HasPrefix(k, "num") {
			x, _ := strconv.ParseInt(r.Metrics[k], 10, 64)
			y, _ := strconv.ParseInt(v, 10, 64)
			v = strconv.FormatInt(x+y, 10)
		}
		r.Metrics[k] = v
	}
}

var errNothingLeft = errors.New("writers of rows changed every file")

func (t *Table) rewriteBin(ctx context.Context, s *Snapshot, info TableInfo, b *bin, o OptimizeOptions) error {
	eng := t.engine()
	info, reader, err := s.copyInfo(info, eng.Reader)
	if err != nil {
		return err
	}
	live, err := newFileRows(ctx, reader, info, b.files)
	if err != nil {
		return err
	}
	if live.NumRows() == 0 {
		return nil
	}
	req := WriteRequest{Rows: live, Compression: o.Compression, FileBytesTarget: o.TargetBytes}
	if by := append(slices.Clone(o.ZOrderBy), o.clusterBy...); len(by) == 0 {
		req.SortBy = o.SortBy
	} else {
		sorted, err := zorderRows(ctx, live, by)
		if err != nil {
			return err
		}
		defer sorted.Close()
		req.Rows = sorted
	}
	b.written, err = eng.FileWriter.Write(ctx, info, req)
	if err != nil {
		return err
	}
	withoutIDStats(info.Config, b.written)
	var n int64
	for _, w := range b.written {
		n += w.NumRecords
	}
	if n != live.NumRows() {
		return fmt.Errorf("BUG: %d rows rewritten as %d", live.NumRows(), n)
	}
	return nil
}

// optimizeMetrics are Spark's operationMetrics of an OPTIMIZE.
func optimizeMetrics(bins []*bin) map[string]string {
	var removed, added, vectors int
	var bytesRemoved, bytesAdded int64
	var sizes []int64
	for _, b := range bins {
		removed += len(b.files)
		added += len(b.written)
		for _, f := range b.files {
			bytesRemoved += f.Add.Size
			if f.Add.DeletionVector != nil {
				vectors++
			}
		}
		for _, w := range b.written {
			bytesAdded += w.Size
			sizes = append(sizes, w.Size)
		}
	}
	slices.Sort(sizes)
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	at := func(share int) string {
		if len(sizes) == 0 {
			return "0"
		}
		return n(sizes[(len(sizes)-1)*share/100])
	}
	return map[string]string{
		"numRemovedFiles": n(int64(removed)), "numAddedFiles": n(int64(added)),
		"numRemovedBytes": n(bytesRemoved), "numAddedBytes": n(bytesAdded),
		"numDeletionVectorsRemoved": n(int64(vectors)),
		"minFileSize":               at(0), "p25FileSize": at(25), "p50FileSize": at(50), "p75FileSize": at(75), "maxFileSize": at(100),
	}
}
