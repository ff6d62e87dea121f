package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"path"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/cauce-data/cauce/objstore"
)

// sidecarActions bounds the file actions of a sidecar, so that sidecars are read beside each other.
const sidecarActions = 100_000

// checkpointUUID names the V2 checkpoint of the version: the same for everybody who writes it from here, so that one that
// is there is found without a listing. What it says of files stands in sidecars of its own, so it does not matter who of
// two wins.
func (s *Snapshot) checkpointUUID() string {
	return uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "cauce:%s/%d", s.metadata.ID, s.version)).String()
}

// writeV2 writes a checkpoint that follows the V2 spec (PROTOCOL.md, "V2 Spec"): sidecars with the file actions first, then
// the manifest that names them. Sidecars of a try that failed are left to CleanupLog.
func (s *Snapshot) writeV2(ctx context.Context, key string, o CheckpointOptions, hint *lastCheckpoint) error {
	t := s.table
	sidecars, actions, size, err := s.writeSidecars(ctx, o.SidecarActions)
	if err != nil {
		return err
	}
	head := &checkpointMetadata{Version: s.version, Tags: map[string]string{
		"sidecarNumActions": strconv.FormatInt(actions, 10), "sidecarSizeInBytes": strconv.FormatInt(size, 10),
		"numOfAddFiles": strconv.Itoa(s.live.n),
	}}
	small := slices.Collect(s.smallActions())
	manifest := []*checkpointAction{{CheckpointMetadata: head}}
	for i := range sidecars {
		manifest = append(manifest, &checkpointAction{Sidecar: &sidecars[i]})
	}
	// Metadata and protocol come last: JSON has no end mark, and a manifest that was cut between two lines must not pass
	// for a whole one.
	manifest = append(append(manifest, small[2:]...), small[1], small[0])
	var bytesWritten int64
	if path.Ext(key) == ".json" {
		bytesWritten, err = writeManifestJSON(ctx, t.store, key, manifest)
	} else {
		_, bytesWritten, err = writeCheckpointFile(ctx, t.store, key, s.checkpointShape(manifestFile), slices.Values(manifest))
	}
	if err != nil {
		return err
	}
	total := bytesWritten + size
	hint.Size, hint.SizeInBytes = int64(len(manifest))+actions, &total
	hint.V2 = &lastV2Checkpoint{Path: path.Base(key), SizeInBytes: bytesWritten, ModificationTime: t.opts.Clock().UnixMilli()}
	// The hint stays small, as Spark has it: what does not fit is read from the checkpoint.
	if small = append(small, manifest[0]); len(small) <= lastCheckpointActions {
		hint.V2.NonFileActions = small
	}
	if len(sidecars) <= lastCheckpointActions {
		hint.V2.SidecarFiles = sidecars
	}
	return nil
}

// writeSidecars writes the file actions, at most limit into each file, as they stream by.
func (s *Snapshot) writeSidecars(ctx context.Context, limit int) (out []sidecar, actions, size int64, err error) {
	if limit <= 0 {
		limit = sidecarActions
	}
	t := s.table
	next, stop := iter.Pull(s.fileActions())
	defer stop()
	a, more := next()
	shape := s.checkpointShape(sidecarFile)
	for more {
		name := t.opts.NewID() + ".parquet"
		key, err := t.sidecarKey(name)
		if err != nil {
			return nil, 0, 0, err
		}
		n, bytes, err := writeCheckpointFile(ctx, t.store, key, shape, func(yield func(*checkpointAction) bool) {
			for i := 0; more && i < limit; i++ {
				if !yield(a) {
					return
				}
				a, more = next()
			}
		})
		if err != nil {
			return nil, 0, 0, err
		}
		out = append(out, sidecar{Path: name, SizeInBytes: bytes, ModificationTime: t.opts.Clock().UnixMilli()})
		actions, size = actions+n, size+bytes
	}
	return out, actions, size, nil
}

// writeManifestJSON writes the top level of a V2 checkpoint, one action a line.
func writeManifestJSON(ctx context.Context, store objstore.Store, key string, actions []*checkpointAction) (int64, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	for _, a := range actions {
		if err := enc.Encode(a); err != nil {
			return 0, fmt.Errorf("checkpoint %s: %w", key, err)
		}
	}
	n := int64(buf.Len())
	if err := store.Put(ctx, key, &buf, objstore.PutOptions{}); err != nil {
		return 0, fmt.Errorf("checkpoint %s: %w", key, err)
	}
	return n, nil
}
