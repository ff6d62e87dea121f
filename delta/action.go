package delta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
)

// commit is the content of one commit file.
type commit struct {
	version  Version
	info     *CommitInfo
	protocol *Protocol
	metadata *Metadata
	txns     []Txn
	domains  []DomainMetadata
	adds     []*Add
	removes  []*Remove
	cdc      []*CDC
}

// dataChange reports whether the commit changes the rows of the table.
func (c *commit) dataChange() bool {
	for _, a := range c.adds {
		if a.DataChange {
			return true
		}
	}
	for _, r := range c.removes {
		if r.DataChange {
			return true
		}
	}
	return false
}

// wireAction is one line of a commit: an object with one member, named for the action. Members that are not named
// here belong to actions of other features (sidecar, checkpointMetadata) or of the future, which a reader ignores
// (PROTOCOL.md, "Protocol Evolution"): what they mean is guarded by table features.
type wireAction struct {
	Add            *Add            `json:"add,omitempty"`
	Remove         *Remove         `json:"remove,omitempty"`
	Metadata       *Metadata       `json:"metaData,omitempty"`
	Protocol       *Protocol       `json:"protocol,omitempty"`
	Txn            *Txn            `json:"txn,omitempty"`
	CDC            *CDC            `json:"cdc,omitempty"`
	DomainMetadata *DomainMetadata `json:"domainMetadata,omitempty"`
	CommitInfo     *CommitInfo     `json:"commitInfo,omitempty"`
}

// parseCommit reads the lines of a commit. key names the file in errors.
func parseCommit(key string, version Version, data []byte) (*commit, error) {
	c := &commit{version: version}
	line := 0
	for len(data) > 0 {
		var raw []byte
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			raw, data = data[:i], data[i+1:]
		} else {
			raw, data = data, nil
		}
		line++
		raw = bytes.TrimSpace(raw)
		if len(raw) == 0 {
			continue
		}
		var a wireAction
		if err := json.Unmarshal(raw, &a); err != nil {
			return nil, &CorruptError{Key: key, Line: line, Err: err}
		}
		if err := c.take(&a); err != nil {
			return nil, &CorruptError{Key: key, Line: line, Err: err}
		}
	}
	return c, nil
}

func (c *commit) take(a *wireAction) error {
	switch {
	case a.Add != nil:
		if a.Add.Path == "" {
			return errors.New("add without a path")
		}
		c.adds = append(c.adds, a.Add)
	case a.Remove != nil:
		if a.Remove.Path == "" {
			return errors.New("remove without a path")
		}
		c.removes = append(c.removes, a.Remove)
	case a.Metadata != nil:
		c.metadata = a.Metadata
	case a.Protocol != nil:
		c.protocol = a.Protocol
	case a.Txn != nil:
		c.txns = append(c.txns, *a.Txn)
	case a.CDC != nil:
		c.cdc = append(c.cdc, a.CDC)
	case a.DomainMetadata != nil:
		c.domains = append(c.domains, *a.DomainMetadata)
	case a.CommitInfo != nil:
		c.info = a.CommitInfo
	}
	return nil
}

// encode gives the lines of a commit: commitInfo first, as in-commit timestamps demand, then what changes the table,
// then removed and added files.
func (c *commit) encode() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	var err error
	put := func(a wireAction) {
		if err == nil {
			err = enc.Encode(a)
		}
	}
	if c.info != nil {
		put(wireAction{CommitInfo: c.info})
	}
	if c.protocol != nil {
		put(wireAction{Protocol: c.protocol})
	}
	if c.metadata != nil {
		put(wireAction{Metadata: c.metadata})
	}
	for i := range c.txns {
		put(wireAction{Txn: &c.txns[i]})
	}
	for i := range c.domains {
		put(wireAction{DomainMetadata: &c.domains[i]})
	}
	for _, r := range c.removes {
		put(wireAction{Remove: r})
	}
	for _, a := range c.adds {
		put(wireAction{Add: a})
	}
	for _, f := range c.cdc {
		put(wireAction{CDC: f})
	}
	if err != nil {
		return nil, fmt.Errorf("version %d: %w", c.version, err)
	}
	return buf.Bytes(), nil
}

// MarshalJSON writes what the protocol demands of an add even where it is empty.
func (a *Add) MarshalJSON() ([]byte, error) {
	type plain Add
	p := plain(*a)
	if p.PartitionValues == nil {
		p.PartitionValues = map[string]*string{}
	}
	return marshal(&p)
}

// jsonMetadata is the metaData action as JSON has it.
type jsonMetadata struct {
	ID               string             `json:"id"`
	Name             *string            `json:"name,omitempty"`
	Description      *string            `json:"description,omitempty"`
	Format           Format             `json:"format"`
	SchemaString     string             `json:"schemaString"`
	PartitionColumns []string           `json:"partitionColumns"`
	Configuration    map[string]*string `json:"configuration"`
	CreatedTime      *int64             `json:"createdTime,omitempty"`
}

// MarshalJSON writes empty lists and maps where the protocol demands them, and no name that the action did not have.
func (m *Metadata) MarshalJSON() ([]byte, error) {
	j := jsonMetadata{ID: m.ID, Format: m.Format, SchemaString: m.SchemaString, PartitionColumns: m.PartitionColumns,
		Configuration: pointers(m.Configuration), CreatedTime: m.CreatedTime}
	if m.Name != "" || m.named {
		j.Name = &m.Name
	}
	if m.Description != "" || m.described {
		j.Description = &m.Description
	}
	if j.Format.Provider == "" {
		j.Format.Provider = "parquet"
	}
	if j.Format.Options == nil {
		j.Format.Options = map[string]string{}
	}
	if j.PartitionColumns == nil {
		j.PartitionColumns = []string{}
	}
	if j.Configuration == nil {
		j.Configuration = map[string]*string{}
	}
	return marshal(&j)
}

// UnmarshalJSON reads the action and notes what it says differently from how it would be written.
func (m *Metadata) UnmarshalJSON(b []byte) error {
	var j jsonMetadata
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*m = Metadata{ID: j.ID, Format: j.Format, SchemaString: j.SchemaString, PartitionColumns: j.PartitionColumns, CreatedTime: j.CreatedTime}
	m.setNames(j.Name, j.Description)
	m.setConfiguration(j.Configuration)
	return nil
}

func (m *Metadata) setNames(name, description *string) {
	if m.named = name != nil; m.named {
		m.Name = *name
	}
	if m.described = description != nil; m.described {
		m.Description = *description
	}
}

func (m *Metadata) setConfiguration(c map[string]*string) {
	if c == nil {
		return
	}
	m.Configuration = flatten(c)
	m.lossy = len(m.Configuration) < len(c)
}

// MarshalJSON writes the feature lists exactly where the protocol allows them: readerFeatures at reader version 3,
// writerFeatures at writer version 7 (PROTOCOL.md, "Table Features").
func (p *Protocol) MarshalJSON() ([]byte, error) {
	j := struct {
		MinReaderVersion int       `json:"minReaderVersion"`
		MinWriterVersion int       `json:"minWriterVersion"`
		ReaderFeatures   *[]string `json:"readerFeatures,omitempty"`
		WriterFeatures   *[]string `json:"writerFeatures,omitempty"`
	}{MinReaderVersion: p.MinReaderVersion, MinWriterVersion: p.MinWriterVersion}
	if p.MinReaderVersion >= 3 {
		l := append([]string{}, p.ReaderFeatures...)
		j.ReaderFeatures = &l
	}
	if p.MinWriterVersion >= 7 {
		l := append([]string{}, p.WriterFeatures...)
		j.WriterFeatures = &l
	}
	return marshal(j)
}

func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte{'\n'}), nil
}

// UnmarshalJSON reads a commitInfo of any writer: values of parameters and metrics that are no strings are kept as
// their JSON, and a field of an unexpected type goes to Extra, for provenance is never a reason to refuse a table.
func (c *CommitInfo) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	*c = CommitInfo{}
	take := func(name string, into any) {
		v, ok := raw[name]
		if !ok {
			return
		}
		if string(v) == "null" || json.Unmarshal(v, into) == nil {
			delete(raw, name)
		}
	}
	take("timestamp", &c.Timestamp)
	take("inCommitTimestamp", &c.InCommitTimestamp)
	take("operation", &c.Operation)
	take("operationParameters", (*looseMap)(&c.OperationParameters))
	take("operationMetrics", (*looseMap)(&c.OperationMetrics))
	take("readVersion", &c.ReadVersion)
	take("isolationLevel", &c.IsolationLevel)
	take("isBlindAppend", &c.IsBlindAppend)
	take("engineInfo", &c.EngineInfo)
	take("txnId", &c.TxnID)
	take("userMetadata", &c.UserMetadata)
	take("tags", &c.Tags)
	if len(raw) > 0 {
		c.Extra = raw
	}
	return nil
}

// MarshalJSON writes the fields and then those of Extra.
func (c *CommitInfo) MarshalJSON() ([]byte, error) {
	type plain CommitInfo
	b, err := marshal((*plain)(c))
	if err != nil || len(c.Extra) == 0 {
		return b, err
	}
	var own map[string]json.RawMessage
	if err := json.Unmarshal(b, &own); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(c.Extra))
	for n := range c.Extra {
		if _, taken := own[n]; !taken {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	out := bytes.TrimSuffix(b, []byte("}"))
	for _, n := range names {
		k, err := marshal(n)
		if err != nil {
			return nil, err
		}
		v := c.Extra[n]
		if len(v) == 0 {
			v = json.RawMessage("null")
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, k...), ':'), v...)
	}
	return append(out, '}'), nil
}

// looseMap reads a map whose values should be strings and are not always: delta-rs writes numbers and lists.
type looseMap map[string]string

// UnmarshalJSON keeps strings as they are and anything else as its JSON text; null values are left out.
func (m *looseMap) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if raw == nil {
		return nil
	}
	out := make(map[string]string, len(raw))
	for k, v := range raw {
		var s string
		switch {
		case string(v) == "null":
		case json.Unmarshal(v, &s) == nil:
			out[k] = s
		default:
			out[k] = string(v)
		}
	}
	*m = out
	return nil
}

// UniqueID is the id of a deletion vector in the reconciliation of the log (PROTOCOL.md, "Action Reconciliation"):
// two adds of one path with different vectors are different logical files. A nil vector has the id "".
func (d *DeletionVector) UniqueID() string {
	if d == nil {
		return ""
	}
	id := d.StorageType + d.PathOrInlineDv
	if d.Offset != nil {
		id += fmt.Sprintf("@%d", *d.Offset)
	}
	return id
}

// fileKey is the identity of a logical file.
func fileKey(path string, dv *DeletionVector) string {
	path = canonicalPath(path)
	if dv == nil {
		return path
	}
	return path + "\x00" + dv.UniqueID()
}

func (a *Add) key() string    { return fileKey(a.Path, a.DeletionVector) }
func (r *Remove) key() string { return fileKey(r.Path, r.DeletionVector) }

// Tombstone is the remove action that takes this file out of the table at a time (ms since the epoch).
func (a *Add) Tombstone(atMS int64, dataChange bool) *Remove {
	size := a.Size
	pv := a.PartitionValues
	if pv == nil {
		pv = map[string]*string{}
	}
	return &Remove{
		Path: a.Path, DeletionTimestamp: atMS, DataChange: dataChange, ExtendedFileMetadata: true,
		PartitionValues: pv, Size: &size, Stats: a.Stats, Tags: a.Tags, DeletionVector: a.DeletionVector,
		BaseRowID: a.BaseRowID, DefaultRowCommitVersion: a.DefaultRowCommitVersion,
	}
}

// canonicalPath gives one spelling to the spellings of one file: "file:/a", "file:///a" and "/a" are one, and so are
// percent-encodings that say the same. A relative path stays relative.
func canonicalPath(p string) string {
	dec := p
	if strings.IndexByte(p, '%') >= 0 {
		if d, err := decodePath(p); err == nil {
			dec = d
		}
	}
	if len(dec) >= 5 && strings.EqualFold(dec[:5], "file:") {
		return "/" + strings.TrimLeft(dec[5:], "/")
	}
	return dec
}
