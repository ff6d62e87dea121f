package delta

import (
	"context"
	"fmt"
)

// isolation is the level that a commit is held to: the table's own, or snapshot isolation if no rows change, as Spark
// does for OPTIMIZE.
func (x *Tx) isolation() string {
	if (len(x.adds) > 0 || len(x.removes) > 0) && !x.dataChange() {
		return isolationSnapshot
	}
	meta := x.base.metadata
	if meta == nil {
		meta = x.metadata
	}
	if l := meta.Configuration[propIsolation]; checkIsolation(l) == nil {
		return l
	}
	if l := x.table.opts.Isolation; l != "" {
		return l
	}
	return isolationSerializable
}

// settle decides whether the transaction can follow the commits that won against it, by the rules of Spark's
// ConflictChecker in their order. newer is the state after the last of them.
func (x *Tx) settle(ctx context.Context, o CommitOptions, newer *Snapshot, won []WinningCommit) error {
	for i := range won {
		if err := x.conflictBeforeFiles(&won[i]); err != nil {
			return err
		}
		if o.Rebase == nil {
			if err := x.conflictInFiles(newer, &won[i]); err != nil {
				return err
			}
		}
	}
	if o.Rebase != nil {
		return o.Rebase(ctx, newer, won)
	}
	return nil
}

// conflictBeforeFiles checks what no rebase of files can mend: protocol, metadata, domains, and applications.
func (x *Tx) conflictBeforeFiles(w *WinningCommit) error {
	if w.Protocol != nil {
		return &ConflictError{Kind: ProtocolChanged, Version: w.Version}
	}
	if w.Metadata != nil {
		return &ConflictError{Kind: MetadataChanged, Version: w.Version}
	}
	for _, d := range w.Domains {
		for _, mine := range x.domains {
			if d.Domain == mine.Domain {
				return &ConflictError{Kind: MetadataChanged, Version: w.Version, Detail: "domain " + d.Domain}
			}
		}
	}
	for _, t := range w.Txns {
		for _, mine := range x.txns {
			if t.AppID == mine.AppID {
				return &ConflictError{Kind: ConcurrentTransaction, Version: w.Version, Detail: fmt.Sprintf("%s went to %d", t.AppID, t.Version)}
			}
		}
	}
	return nil
}

// conflictInFiles checks the files that the winner added and removed.
func (x *Tx) conflictInFiles(newer *Snapshot, w *WinningCommit) error {
	// A commit that does not say so is not taken for a blind append.
	blind := w.Info.IsBlindAppend != nil && *w.Info.IsBlindAppend
	check := false
	switch x.isolation() {
	case isolationSerializable:
		check = true
	case isolationWriteSerializable:
		check = !blind || x.metadata != nil
	}
	// A backfill describes files anew that were there before (PROTOCOL.md, "Row Tracking").
	if check && w.Info.Operation != opBackfill {
		for _, a := range w.Adds {
			if x.readWhole || x.reads(newer, a) {
				return &ConflictError{Kind: ConcurrentAppend, Version: w.Version, Detail: a.Path}
			}
		}
	}
	for _, r := range w.Removes {
		p := canonicalPath(r.Path)
		hit := x.readWhole || x.readFiles[p]
		if !hit && len(x.readWhere) > 0 {
			a, ok := x.base.File(p)
			hit = !ok || x.reads(x.base, a)
		}
		if hit {
			return &ConflictError{Kind: ConcurrentDeleteRead, Version: w.Version, Detail: r.Path}
		}
	}
	mine := make(map[string]bool, len(x.removes))
	for _, r := range x.removes {
		mine[canonicalPath(r.Path)] = true
	}
	for _, r := range w.Removes {
		if mine[canonicalPath(r.Path)] {
			return &ConflictError{Kind: ConcurrentDeleteDelete, Version: w.Version, Detail: r.Path}
		}
	}
	return nil
}

// reads reports whether a file may hold rows of a predicate that was read.
func (x *Tx) reads(s *Snapshot, a *Add) bool {
	for _, p := range x.readWhere {
		if s.mayMatch(p, a) {
			return true
		}
	}
	return false
}
