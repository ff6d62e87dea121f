package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path"
	"strings"

	"github.com/cauce-data/cauce/objstore"
)

// readCheckpoint reads the files of one complete checkpoint: classic, multi-part, or V2 with sidecars, whose top level
// may be Parquet or JSON and may stand under a classic name (PROTOCOL.md, "Checkpoints").
func (t *Table) readCheckpoint(ctx context.Context, files []logFile) (*commit, error) {
	c := &commit{version: files[0].version}
	var sidecars []*sidecar
	each := func(a *checkpointAction) error {
		if a.Sidecar != nil {
			sidecars = append(sidecars, a.Sidecar)
			return nil
		}
		return c.take(&a.wireAction)
	}
	for _, f := range files {
		if strings.HasSuffix(f.info.Key, ".json") {
			if err := t.readCheckpointJSON(ctx, f.info.Key, each); err != nil {
				return nil, err
			}
			continue
		}
		if err := readCheckpointFile(ctx, t.store, f.info.Key, each); err != nil {
			return nil, fmt.Errorf("checkpoint %s: %w", f.info.Key, err)
		}
	}
	// The list is complete here: a sidecar holds no sidecars.
	top := sidecars
	folder := t.logKey("_sidecars")
	for _, sc := range top {
		key := path.Join(folder, sc.Path)
		if strings.Contains(sc.Path, "/") {
			// The protocol wants a bare name; a path relative to the table or an absolute URI is seen in the wild.
			var err error
			if key, err = (TableInfo{Store: t.store, Path: t.path}).FileKey(sc.Path); err != nil {
				return nil, err
			}
		}
		if err := readCheckpointFile(ctx, t.store, key, func(a *checkpointAction) error {
			if a.Add == nil && a.Remove == nil {
				return &CorruptError{Key: key, Err: errors.New("a sidecar may hold only file actions")}
			}
			return c.take(&a.wireAction)
		}); err != nil {
			return nil, fmt.Errorf("sidecar %s: %w", key, err)
		}
	}
	return c, nil
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
	files := int64(len(s.files))
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
		for _, f := range s.files {
			if !put(wireAction{Add: f.add}) {
				return
			}
		}
		horizon := s.table.opts.Clock().Add(-s.DeletedFileRetention()).UnixMilli()
		for _, t := range s.tombs {
			if t.remove.DeletionTimestamp >= horizon && !put(wireAction{Remove: t.remove}) {
				return
			}
		}
	}
}
