package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"

	"github.com/cauce-data/cauce/objstore"
)

// versionChecksum is the content of a version checksum file, N.crc (PROTOCOL.md, "Version Checksum File Schema"), with the
// fields that cost nothing to know: the lists of files and the histograms of a table of any size are left to others.
type versionChecksum struct {
	TxnID              string            `json:"txnId,omitempty"`
	TableSizeBytes     int64             `json:"tableSizeBytes"`
	NumFiles           int64             `json:"numFiles"`
	NumDeletedRecords  *int64            `json:"numDeletedRecordsOpt,omitempty"`
	NumDeletionVectors *int64            `json:"numDeletionVectorsOpt,omitempty"`
	NumMetadata        int64             `json:"numMetadata"`
	NumProtocol        int64             `json:"numProtocol"`
	InCommitTimestamp  *int64            `json:"inCommitTimestampOpt,omitempty"`
	SetTransactions    *[]Txn            `json:"setTransactions,omitempty"`
	DomainMetadata     *[]DomainMetadata `json:"domainMetadata,omitempty"`
	Metadata           *Metadata         `json:"metadata"`
	Protocol           *Protocol         `json:"protocol"`
}

// Bounds of the lists of a checksum, as Spark has them; longer ones are left out whole.
const (
	checksumTxns    = 100
	checksumDomains = 200
)

func (t *Table) checksumKey(v Version) string { return t.logKey(fmt.Sprintf("%020d.crc", v)) }

// checksum sums the snapshot up; nil where what would be written is not exactly what the log says. info is the commitInfo
// of the version, nil if it is not known.
func (s *Snapshot) checksum(info *CommitInfo) *versionChecksum {
	if s.metadata.lossy {
		return nil
	}
	c := &versionChecksum{
		TableSizeBytes: s.live.bytes, NumFiles: int64(s.live.n), NumMetadata: 1, NumProtocol: 1,
		Metadata: s.metadata, Protocol: s.protocol,
	}
	if s.protocol.hasWriterFeature("deletionVectors") {
		c.NumDeletedRecords, c.NumDeletionVectors = &s.live.marked, &s.live.vectors
	}
	if info != nil {
		c.TxnID = info.TxnID
		if on(s.metadata, propICT) {
			c.InCommitTimestamp = info.InCommitTimestamp
		}
	}
	// Which of them have expired depends on when one looks.
	if _, expire := s.metadata.Configuration[propTxnRetention]; !expire && len(s.txns) <= checksumTxns {
		list := make([]Txn, 0, len(s.txns))
		for _, app := range sortedKeys(s.txns) {
			list = append(list, s.txns[app])
		}
		c.SetTransactions = &list
	}
	if len(s.domains) <= checksumDomains {
		list := s.Domains()
		c.DomainMetadata = &list
	}
	return c
}

// checksumIsDue tells whether the commit that has just been made gets a checksum.
func (t *Table) checksumIsDue() bool {
	if t.opts.NoChecksum {
		return false
	}
	now := t.opts.Clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.summed.IsZero() && now.Sub(t.summed) < t.opts.ChecksumEvery {
		return false
	}
	t.summed = now
	return true
}

// writeChecksum writes the version checksum of a commit that has just been made, unless one is there: a checksum is never
// overwritten (PROTOCOL.md, "Version Checksum File").
func (s *Snapshot) writeChecksum(ctx context.Context, c *commit) error {
	sum := s.checksum(c.info)
	if sum == nil {
		return nil
	}
	data, err := marshal(sum)
	if err != nil {
		return err
	}
	put := s.table.store.PutIfAbsent
	if h, ok := s.table.store.(objstore.Hinter); ok {
		put = h.PutHint
	}
	if err := put(ctx, s.table.checksumKey(s.version), append(data, '\n')); err != nil && !isExists(err) {
		return fmt.Errorf("checksum of version %d of %s: %w", s.version, s.table, err)
	}
	return nil
}

// readChecksum reads the checksum of a version; nil if there is none that can be read.
func (t *Table) readChecksum(ctx context.Context, v Version) *versionChecksum {
	data, _, err := readObject(ctx, t.store, t.checksumKey(v))
	if err != nil {
		return nil
	}
	var c versionChecksum
	if json.Unmarshal(data, &c) != nil || c.Metadata == nil || c.Protocol == nil || c.Metadata.SchemaString == "" || c.NumFiles < 0 || c.TableSizeBytes < 0 {
		return nil
	}
	return &c
}

// ErrChecksum says that a version is not what its version checksum says (Spark: failed integrity check).
var ErrChecksum = errors.New("the table's state differs from its version checksum")

// VerifyChecksum compares the snapshot with the version checksum that its writer left (PROTOCOL.md, "State Validation"):
// ErrChecksum, with the fields, if they differ. ok is false if there is no checksum that can be read.
func (s *Snapshot) VerifyChecksum(ctx context.Context) (ok bool, err error) {
	said := s.table.readChecksum(ctx, s.version)
	is := s.checksum(nil)
	if said == nil || is == nil {
		return false, nil
	}
	var differ []string
	compare := func(name string, said, is any) {
		if !reflect.DeepEqual(said, is) {
			differ = append(differ, fmt.Sprintf("%s is %v, the checksum says %v", name, is, said))
		}
	}
	compare("tableSizeBytes", said.TableSizeBytes, is.TableSizeBytes)
	compare("numFiles", said.NumFiles, is.NumFiles)
	for _, n := range []struct {
		name     string
		said, is *int64
	}{{"numDeletedRecords", said.NumDeletedRecords, is.NumDeletedRecords}, {"numDeletionVectors", said.NumDeletionVectors, is.NumDeletionVectors}} {
		if n.said != nil && n.is != nil {
			compare(n.name, *n.said, *n.is)
		}
	}
	if said.SetTransactions != nil && is.SetTransactions != nil {
		compare("setTransactions", txnTexts(*said.SetTransactions), txnTexts(*is.SetTransactions))
	}
	if said.DomainMetadata != nil && is.DomainMetadata != nil {
		compare("domainMetadata", domainTexts(*said.DomainMetadata), domainTexts(*is.DomainMetadata))
	}
	compare("metadata", actionText(said.Metadata), actionText(is.Metadata))
	compare("protocol", protocolText(said.Protocol), protocolText(is.Protocol))
	if len(differ) > 0 {
		return true, fmt.Errorf("%s version %d: %w: %s", s.table, s.version, ErrChecksum, strings.Join(differ, "; "))
	}
	return true, nil
}

func actionText(v any) string {
	b, err := marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func txnTexts(txns []Txn) []string {
	out := make([]string, len(txns))
	for i := range txns {
		out[i] = actionText(&txns[i])
	}
	sort.Strings(out)
	return out
}

func domainTexts(domains []DomainMetadata) []string {
	out := make([]string, len(domains))
	for i := range domains {
		out[i] = actionText(&domains[i])
	}
	sort.Strings(out)
	return out
}

// protocolText does not care in which order features are listed.
func protocolText(p *Protocol) string {
	q := *p
	q.ReaderFeatures, q.WriterFeatures = slices.Sorted(slices.Values(p.ReaderFeatures)), slices.Sorted(slices.Values(p.WriterFeatures))
	return actionText(&q)
}

// Head is what a table says of itself: a snapshot without its files.
type Head struct {
	Version  Version
	Protocol Protocol
	Metadata Metadata
	Schema   *Schema
	NumFiles int64
	Bytes    int64 // size of the live files together
	// FromChecksum says that a version checksum answered, so that neither checkpoint nor commits were read.
	FromChecksum bool
}

// ReadHead reads the newest head of the table under a path: from its version checksum where its writer left one, which
// costs the same for a table of any size, else by opening it. A checksum that is not whole is as good as none. Errors are
// those of Open.
func ReadHead(ctx context.Context, store objstore.Store, path string, opts *Options) (*Head, error) {
	t := newTable(store, path, opts)
	if h, err := t.headFromChecksum(ctx); h != nil || err != nil {
		return h, err
	}
	t, err := Open(ctx, store, path, opts)
	if err != nil {
		return nil, err
	}
	s, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return &Head{Version: s.version, Protocol: *s.protocol, Metadata: *s.metadata, Schema: s.schema, NumFiles: int64(s.live.n), Bytes: s.live.bytes}, nil
}

func (t *Table) headFromChecksum(ctx context.Context) (*Head, error) {
	from := Version(0)
	if hint, ok := t.readLastCheckpoint(ctx); ok {
		from = hint.Version
	}
	seg, err := t.list(ctx, from)
	if err != nil {
		return nil, err
	}
	if len(seg.commits) == 0 {
		return nil, nil
	}
	v := seg.commits[len(seg.commits)-1].version
	c := t.readChecksum(ctx, v)
	if c == nil {
		return nil, nil
	}
	s := &Snapshot{table: t, version: v, protocol: c.Protocol, metadata: c.Metadata}
	if err := s.finish(nil); err != nil {
		if errors.Is(err, ErrUnsupported) {
			return nil, err
		}
		return nil, nil // the log may know better
	}
	return &Head{Version: v, Protocol: *c.Protocol, Metadata: *c.Metadata, Schema: s.schema, NumFiles: c.NumFiles, Bytes: c.TableSizeBytes, FromChecksum: true}, nil
}
