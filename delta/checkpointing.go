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
		var a struct {
			wireAction
			Sidecar *struct {
				Path        string `json:"path"`
				SizeInBytes int64  `json:"sizeInBytes"`
			} `json:"sidecar"`
		}
		if err := json.Unmarshal(raw, &a); err != nil {
			return &CorruptError{Key: key, Line: i + 1, Err: err}
		}
		act := &checkpointAction{wireAction: a.wireAction}
		if a.Sidecar != nil {
			act.Sidecar = &sidecar{Path: a.Sidecar.Path, SizeInBytes: a.Sidecar.SizeInBytes}
		}
		if err := each(act); err != nil {
			return &CorruptError{Key: key, Line: i + 1, Err: err}
		}
	}
	return nil
}

// Checkpoint writes a classic checkpoint of the newest version and points _last_checkpoint at it. It does nothing if
// that version has one.
func (t *Table) Checkpoint(ctx context.Context) (Version, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	if err := s.CheckWrite(); err != nil {
		return 0, err
	}
	return s.version, s.writeCheckpoint(ctx)
}

// checkpointKey is the object of a classic checkpoint in one part.
func (t *Table) checkpointKey(v Version) string {
	return t.logKey(fmt.Sprintf("%020d.checkpoint.parquet", v))
}

// writeCheckpoint writes the state of the snapshot as a checkpoint. One that stands there already is kept: readers may
// be inside it.
func (s *Snapshot) writeCheckpoint(ctx context.Context) error {
	t := s.table
	key := t.checkpointKey(s.version)
	switch _, err := t.store.Stat(ctx, key); {
	case err == nil:
		return nil
	case !isNotFound(err):
		return fmt.Errorf("checkpoint of version %d: %w", s.version, err)
	}
	rows, size, err := writeCheckpointFile(ctx, t.store, key, s.checkpointActions())
	if err != nil {
		return err
	}
	if hint, ok := t.readLastCheckpoint(ctx); ok && hint.Version >= s.version {
		return nil
	}
	files := int64(s.live.n)
	hint, err := json.Marshal(lastCheckpoint{Version: s.version, Size: rows, SizeInBytes: &size, NumOfAddFiles: &files})
	if err != nil {
		return err
	}
	if err := t.store.Put(ctx, t.logKey("_last_checkpoint"), bytes.NewReader(hint), objstore.PutOptions{}); err != nil {
		return fmt.Errorf("checkpoint of version %d: %w", s.version, err)
	}
	return nil
}

// checkpointActions yields the state: protocol, metadata, applications, domains, live files, and those removed files
// that older readers may still want (PROTOCOL.md, "Checkpoints"). commitInfo and cdc have no place in a checkpoint.
func (s *Snapshot) checkpointActions() iter.Seq[*checkpointAction] {
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
