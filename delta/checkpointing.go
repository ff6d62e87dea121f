package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/objstore"
)

// checkpointState is what a checkpoint says: its small actions, and its files column by column.
type checkpointState struct {
	commit                   // without adds and removes
	parts  []*checkpointPart // in the order of the files
}

// checkpointPart is what one file of a checkpoint says of data files.
type checkpointPart struct {
	chunks  []*fileChunk    // adds that were read column by column
	adds    *fileSetBuilder // adds that were read row by row
	removes *fileSetBuilder
}

// take takes over a file action and tells whether it was one.
func (p *checkpointPart) take(a *checkpointAction) bool {
	switch {
	case a.Add != nil:
		p.adds.add(a.Add)
	case a.Remove != nil:
		p.removes.remove(a.Remove)
	default:
		return false
	}
	return true
}

// readCheckpoint reads the files of one complete checkpoint: classic, multi-part, or V2 with sidecars, whose top level
// may be Parquet or JSON and may stand under a classic name (PROTOCOL.md, "Checkpoints"). Parts and sidecars are read
// beside each other.
func (t *Table) readCheckpoint(ctx context.Context, files []logFile) (*checkpointState, error) {
	st := &checkpointState{commit: commit{version: files[0].version}}
	var mu sync.Mutex // guards what the small actions change
	var sidecars []*sidecar
	var err error
	st.parts, err = t.readCheckpointParts(ctx, len(files), func(ctx context.Context, i int, part *checkpointPart) error {
		key := files[i].info.Key
		each := func(a *checkpointAction) error {
			if part.take(a) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if a.Sidecar != nil {
				sidecars = append(sidecars, a.Sidecar)
				return nil
			}
			return st.commit.take(&a.wireAction)
		}
		if strings.HasSuffix(key, ".json") {
			return t.readCheckpointJSON(ctx, key, each)
		}
		var err error
		if part.chunks, err = readCheckpointAdds(ctx, t.store, key, true, each); err != nil {
			return fmt.Errorf("checkpoint %s: %w", key, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// The list is complete here: a sidecar holds no sidecars.
	parts, err := t.readCheckpointParts(ctx, len(sidecars), func(ctx context.Context, i int, part *checkpointPart) error {
		key, err := t.sidecarKey(sidecars[i].Path)
		if err != nil {
			return err
		}
		part.chunks, err = readCheckpointAdds(ctx, t.store, key, true, func(a *checkpointAction) error {
			if !part.take(a) {
				return &CorruptError{Key: key, Err: errors.New("a sidecar may hold only file actions")}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("sidecar %s: %w", key, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	st.parts = append(st.parts, parts...)
	return st, nil
}

// sidecarKey is the object of a sidecar.
func (t *Table) sidecarKey(name string) (string, error) {
	if strings.Contains(name, "/") {
		// The protocol wants a bare name; a path relative to the table or an absolute URI is seen in the wild.
		return TableInfo{Store: t.store, Path: t.path}.FileKey(name)
	}
	return path.Join(t.logKey("_sidecars"), name), nil
}

// readCheckpointParts runs read for n parts, as many at once as there are processors.
func (t *Table) readCheckpointParts(ctx context.Context, n int, read func(context.Context, int, *checkpointPart) error) ([]*checkpointPart, error) {
	parts := make([]*checkpointPart, n)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	for i := range parts {
		parts[i] = &checkpointPart{adds: newFileSetBuilder(fileSet{}), removes: newFileSetBuilder(fileSet{})}
		g.Go(func() error { return read(gctx, i, parts[i]) })
	}
	return parts, g.Wait()
}

func (t *Table) readCheckpointJSON(ctx context.Context, key string, each func(*checkpointAction) error) error {
	data, _, err := readObject(ctx, t.store, key)
	if err != nil {
		return err
	}
	for i, raw := range bytes.Split(data, []byte{'\n'}) {
		if raw = bytes.TrimSpace(raw); len(raw) == 0 {
			continue
		}
		var a checkpointAction
		if err := json.Unmarshal(raw, &a); err != nil {
			return &CorruptError{Key: key, Line: i + 1, Err: err}
		}
		if a.CheckpointMetadata != nil {
			continue
		}
		if err := each(&a); err != nil {
			return &CorruptError{Key: key, Line: i + 1, Err: err}
		}
	}
	return nil
}

// CheckpointOptions shape a checkpoint. The zero value is what follows every delta.checkpointInterval-th commit.
type CheckpointOptions struct {
	// Format of the top level of a V2 checkpoint: "json" (default) or "parquet". Only for tables whose
	// delta.checkpointPolicy is v2.
	Format string
	// Classic gives a V2 checkpoint the classic name, by which older readers find the protocol that they do not support
	// (PROTOCOL.md, "Handling Backward compatibility while moving to UUID-named v2 Checkpoints"). Its format is Parquet.
	Classic bool
	// SidecarActions bounds the files that one sidecar lists; 0: 100,000.
	SidecarActions int
}

// Checkpoint writes a checkpoint of the newest version, classic or V2 as delta.checkpointPolicy says, and points
// _last_checkpoint at it. It does nothing if that version has one.
func (t *Table) Checkpoint(ctx context.Context) (Version, error) {
	return t.CheckpointAs(ctx, CheckpointOptions{})
}

// CheckpointAs is Checkpoint with a shape.
func (t *Table) CheckpointAs(ctx context.Context, o CheckpointOptions) (Version, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	if err := s.CheckWrite(); err != nil {
		return 0, err
	}
	switch v2 := s.v2Checkpoints(); {
	case o.Format != "" && o.Format != "json" && o.Format != "parquet":
		return 0, fmt.Errorf("checkpoint of %s: format %q is neither json nor parquet", t, o.Format)
	case !v2 && (o.Format != "" || o.Classic || o.SidecarActions > 0):
		return 0, fmt.Errorf("checkpoint of %s: %w: a V2 checkpoint needs %s=v2", t, ErrProperty, propCheckpointPolicy)
	case o.Classic && o.Format == "json":
		return 0, fmt.Errorf("checkpoint of %s: one with a classic name is Parquet", t)
	}
	return s.version, s.writeCheckpoint(ctx, o)
}

// v2Checkpoints reports whether checkpoints of the table follow the V2 spec.
func (s *Snapshot) v2Checkpoints() bool {
	return strings.EqualFold(s.Config(propCheckpointPolicy), "v2") && s.protocol.hasWriterFeature("v2Checkpoint")
}

// checkpointKey is the object of a checkpoint in one part with the classic name.
func (t *Table) checkpointKey(v Version) string {
	return t.logKey(fmt.Sprintf("%020d.checkpoint.parquet", v))
}

// classicEvery says how often a V2 checkpoint gets the classic name: every n-th.
const classicEvery = 10

// checkpointAfterCommit writes the checkpoint that is due after a commit.
func (s *Snapshot) checkpointAfterCommit(ctx context.Context) error {
	o := CheckpointOptions{}
	o.Classic = s.v2Checkpoints() && int64(s.version)/s.checkpointInterval()%classicEvery == 0
	return s.writeCheckpoint(ctx, o)
}

// writeCheckpoint writes the state of the snapshot as a checkpoint. One that stands there already is kept: readers may
// be inside it.
func (s *Snapshot) writeCheckpoint(ctx context.Context, o CheckpointOptions) error {
	t := s.table
	key := t.checkpointKey(s.version)
	v2 := s.v2Checkpoints()
	if v2 && !o.Classic {
		ext := o.Format
		if ext == "" {
			ext = "json"
		}
		key = t.logKey(fmt.Sprintf("%020d.checkpoint.%s.%s", s.version, s.checkpointUUID(), ext))
	}
	switch _, err := t.store.Stat(ctx, key); {
	case err == nil:
		return nil
	case !isNotFound(err):
		return fmt.Errorf("checkpoint of version %d: %w", s.version, err)
	}
	files := int64(s.live.n)
	hint := lastCheckpoint{Version: s.version, NumOfAddFiles: &files}
	var err error
	if v2 {
		err = s.writeV2(ctx, key, o, &hint)
	} else {
		var size int64
		hint.Size, size, err = writeCheckpointFile(ctx, t.store, key, s.checkpointShape(classicFile), s.checkpointActions())
		hint.SizeInBytes = &size
	}
	if err != nil {
		return err
	}
	if last, ok := t.readLastCheckpoint(ctx); ok && last.Version >= s.version {
		return nil
	}
	data, err := hint.encode()
	if err != nil {
		return err
	}
	if err := t.store.Put(ctx, t.logKey("_last_checkpoint"), bytes.NewReader(data), objstore.PutOptions{}); err != nil {
		return fmt.Errorf("checkpoint of version %d: %w", s.version, err)
	}
	return nil
}

// checkpointActions yields the state: first the small actions, then live files and tombstones.
func (s *Snapshot) checkpointActions() iter.Seq[*checkpointAction] {
	return func(yield func(*checkpointAction) bool) {
		for _, part := range []iter.Seq[*checkpointAction]{s.smallActions(), s.fileActions()} {
			for a := range part {
				if !yield(a) {
					return
				}
			}
		}
	}
}

// smallActions yields protocol, metadata, applications and domains (PROTOCOL.md, "Checkpoints"). commitInfo and cdc have
// no place in a checkpoint.
func (s *Snapshot) smallActions() iter.Seq[*checkpointAction] {
	return func(yield func(*checkpointAction) bool) {
		put := func(a wireAction) bool { return yield(&checkpointAction{wireAction: a}) }
		if !put(wireAction{Protocol: s.protocol}) || !put(wireAction{Metadata: s.metadata}) {
			return
		}
		for _, app := range sortedKeys(s.txns) {
			if txn := s.txns[app]; !s.txnExpired(txn) && !put(wireAction{Txn: &txn}) {
				return
			}
		}
		for _, d := range s.Domains() {
			if !put(wireAction{DomainMetadata: &d}) {
				return
			}
		}
	}
}

// fileActions yields live files, and those removed files that older readers may still want.
func (s *Snapshot) fileActions() iter.Seq[*checkpointAction] {
	return func(yield func(*checkpointAction) bool) {
		put := func(a wireAction) bool { return yield(&checkpointAction{wireAction: a}) }
		for f := range s.live.rows() {
			if !put(wireAction{Add: f.add(f.i)}) {
				return
			}
		}
		horizon := s.tombstoneHorizon()
		for f := range s.tombs.rows() {
			if f.time[f.i] >= horizon && !put(wireAction{Remove: f.remove(f.i)}) {
				return
			}
		}
	}
}
