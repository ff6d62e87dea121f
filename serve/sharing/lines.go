package sharing

import (
	"bufio"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// parquetProtocol and what follows are the lines of a response (PROTOCOL.md, "API Response Actions in Parquet Format" and
// "… in Delta Format"), each in an object whose one key says what it is.
type parquetProtocol struct {
	MinReaderVersion int `json:"minReaderVersion"`
}

type parquetMetadata struct {
	ID               string            `json:"id"`
	Name             string            `json:"name,omitempty"`
	Description      string            `json:"description,omitempty"`
	Format           map[string]string `json:"format"`
	SchemaString     string            `json:"schemaString"`
	PartitionColumns []string          `json:"partitionColumns"`
	Configuration    map[string]string `json:"configuration"`
	Version          *delta.Version    `json:"version,omitempty"`
	Size             *int64            `json:"size,omitempty"`
	NumFiles         *int              `json:"numFiles,omitempty"`
}

type deltaProtocol struct {
	Protocol *delta.Protocol `json:"deltaProtocol"`
	Version  *delta.Version  `json:"version,omitempty"`
}

type deltaMetadata struct {
	Metadata *delta.Metadata `json:"deltaMetadata"`
	Version  *delta.Version  `json:"version,omitempty"`
	Size     *int64          `json:"size,omitempty"`
	NumFiles *int            `json:"numFiles,omitempty"`
}

type parquetFile struct {
	URL             string             `json:"url"`
	ID              string             `json:"id"`
	PartitionValues map[string]*string `json:"partitionValues"`
	Size            int64              `json:"size"`
	Stats           string             `json:"stats,omitempty"`
	Version         *delta.Version     `json:"version,omitempty"`
	Timestamp       *int64             `json:"timestamp,omitempty"` // ms since the epoch
	Expires         int64              `json:"expirationTimestamp"` // ms since the epoch
}

type deltaFile struct {
	ID        string         `json:"id"`
	VectorID  string         `json:"deletionVectorFileId,omitempty"`
	Size      int64          `json:"size"`
	Version   *delta.Version `json:"version,omitempty"`
	Timestamp *int64         `json:"timestamp,omitempty"` // ms since the epoch
	Expires   int64          `json:"expirationTimestamp"` // ms since the epoch
	Action    map[string]any `json:"deltaSingleAction"`
}

type endStream struct {
	MinExpires int64 `json:"minUrlExpirationTimestamp"` // ms since the epoch
}

// Kinds of lines of files. The delta format has one, whose action tells.
const (
	lineFile   = "file"
	lineAdd    = "add"
	lineRemove = "remove"
	lineCDF    = "cdf"
)

// answer collects the lines of a response, so that an error that comes late can still be told as one.
type answer struct {
	s      *Server
	who    *Recipient
	table  shared
	format string
	base   string
	caps   capabilities
	// logical is the schema of rewritten files in the parquet format, whose clients know nothing of mapped names.
	logical *delta.Schema
	snap    *delta.Snapshot // of which the answer speaks
	info    delta.TableInfo
	plain   bool // data files without marked rows can be read by clients that know no reader feature
	expires time.Time
	lines   []map[string]any
}

func (s *Server) newAnswer(r *http.Request, who *Recipient, t shared, snap *delta.Snapshot) (*answer, error) {
	caps, err := parseCapabilities(r.Header.Get(capabilitiesHeader))
	if err != nil {
		return nil, err
	}
	t.deletes = pipeline.HideDeleted(snap.Schema()) != ""
	protocol := readable(snap.Protocol())
	format, err := caps.choose(protocol, t.deletes)
	if err != nil {
		return nil, err
	}
	a := &answer{s: s, who: who, table: t, format: format, base: s.base(r), caps: caps, expires: s.o.Now().Add(URLLifetime).Truncate(time.Second)}
	a.at(snap)
	return a, nil
}

// at makes the answer speak of the files of a version.
func (a *answer) at(snap *delta.Snapshot) {
	a.snap, a.info = snap, snap.TableInfo()
	a.logical = withoutMetadata(snap.Schema())
	a.plain = true
	for _, f := range needs(readable(snap.Protocol()), false) {
		a.plain = a.plain && (f == delta.FeatureDeletionVectors || f == "timestampNtz")
	}
}

// readable leaves out of a protocol what speaks of the log alone, which clients never see.
func readable(p delta.Protocol) delta.Protocol {
	ofLog := func(n string) bool { return n == "v2Checkpoint" || n == "vacuumProtocolCheck" }
	p.ReaderFeatures = slices.DeleteFunc(slices.Clone(p.ReaderFeatures), ofLog)
	p.WriterFeatures = slices.DeleteFunc(slices.Clone(p.WriterFeatures), ofLog)
	if p.MinReaderVersion == 3 && len(p.ReaderFeatures) == 0 {
		p.MinReaderVersion = 1
	}
	return p
}

// withoutMetadata is a schema whose columns lie in files under their own names.
func withoutMetadata(s *delta.Schema) *delta.Schema {
	out := &delta.Schema{Fields: slices.Clone(s.Fields)}
	for i := range out.Fields {
		out.Fields[i].Metadata = nil
		out.Fields[i].Type = plainType(out.Fields[i].Type)
	}
	return out
}

func plainType(t delta.Type) delta.Type {
	switch t := t.(type) {
	case *delta.Struct:
		return &delta.Struct{Fields: withoutMetadata(&delta.Schema{Fields: t.Fields}).Fields}
	case *delta.Array:
		c := *t
		c.Element = plainType(t.Element)
		return &c
	case *delta.Map:
		c := *t
		c.Key, c.Value = plainType(t.Key), plainType(t.Value)
		return &c
	}
	return t
}

func (a *answer) put(kind string, v any) { a.lines = append(a.lines, map[string]any{kind: v}) }

// head adds the lines of protocol and metadata. version is given where the request named one.
func (a *answer) head(snap *delta.Snapshot, version, protocolVersion *delta.Version) {
	p, m := snap.Protocol(), snap.Metadata()
	size, n := snap.Bytes(), snap.NumFiles()
	a.protocol(p, protocolVersion)
	a.metadata(&m, version, &size, &n)
}

func (a *answer) protocol(p delta.Protocol, version *delta.Version) {
	if a.format == formatParquet {
		a.put("protocol", parquetProtocol{MinReaderVersion: 1})
		return
	}
	p = readable(p)
	if a.table.deletes {
		p = p.With(delta.FeatureDeletionVectors)
	}
	a.put("protocol", deltaProtocol{Protocol: &p, Version: version})
}

func (a *answer) metadata(m *delta.Metadata, version *delta.Version, size *int64, files *int) {
	if a.format == formatDelta {
		c := *m
		c.Configuration = maps.Clone(m.Configuration)
		maps.DeleteFunc(c.Configuration, func(k, _ string) bool { return !strings.HasPrefix(k, "delta.") })
		a.put("metaData", deltaMetadata{Metadata: &c, Version: version, Size: size, NumFiles: files})
		return
	}
	out := parquetMetadata{
		ID: m.ID, Name: m.Name, Description: m.Description, Format: map[string]string{"provider": "parquet"}, SchemaString: m.SchemaString,
		PartitionColumns: append([]string{}, m.PartitionColumns...), Configuration: map[string]string{}, Version: version, Size: size, NumFiles: files,
	}
	if s, err := delta.ParseSchema(m.SchemaString); err == nil {
		out.SchemaString = withoutMetadata(s).JSON()
	}
	if changeFeed(m.Configuration) {
		out.Configuration["enableChangeDataFeed"] = "true"
	}
	a.put("metaData", out)
}

// change says of which version a file is, in answers that name versions.
type change struct {
	version delta.Version
	time    time.Time
}

func (c *change) fields() (*delta.Version, *int64) {
	if c == nil {
		return nil, nil
	}
	ms := c.time.UnixMilli()
	return &c.version, &ms
}

// fileID is the same for the same file, in any request of any recipient.
func (a *answer) fileID(parts ...string) string {
	return objectID(append([]string{a.who.Share, a.table.name}, parts...)...)
}

// data adds a data file as it stands in a version, without the rows that its vector marks or that stand for deletions. A
// file without any other row is left out, but for removed ones.
func (a *answer) data(ctx context.Context, kind string, f delta.File, of *change) error {
	rows := f.Deleted
	if a.table.deletes {
		hidden, err := a.s.hidden.of(ctx, a.info, f)
		if err != nil {
			return err
		}
		if !hidden.IsEmpty() {
			rows = union(f.Deleted, hidden)
		}
	}
	marked := rows != nil && !rows.IsEmpty()
	if a.format == formatParquet && (marked || !a.plain) {
		return a.rewritten(ctx, kind, f, rows, of)
	}
	u, err := a.s.dataURL(ctx, a.base, f.Key, a.who, a.expires)
	if err != nil {
		return err
	}
	version, ms := of.fields()
	add := *f.Add
	if a.format == formatParquet {
		a.put(kind, parquetFile{
			URL: u, ID: a.fileID(add.Path), PartitionValues: values(add.PartitionValues), Size: add.Size, Stats: add.Stats,
			Version: version, Timestamp: ms, Expires: a.expires.UnixMilli(),
		})
		return nil
	}
	vectorID := ""
	if add.DeletionVector = nil; marked {
		if add.DeletionVector, err = delta.InlineVector(union(rows, nil)); err != nil {
			return err
		}
		vectorID = a.fileID(add.Path, add.DeletionVector.UniqueID())
		add.Stats = wideBounds(add.Stats)
	}
	add.Path = u
	action := map[string]any{"add": &add}
	if kind == lineRemove {
		r := add.Tombstone(of.time.UnixMilli(), add.DataChange)
		r.Path = u
		action = map[string]any{"remove": r}
	}
	a.put(lineFile, deltaFile{
		ID: a.fileID(f.Add.Path), VectorID: vectorID, Size: add.Size, Version: version, Timestamp: ms, Expires: a.expires.UnixMilli(), Action: action,
	})
	return nil
}

// rewritten adds a copy of a data file that holds only what may be seen, under the columns' own names.
func (a *answer) rewritten(ctx context.Context, kind string, f delta.File, rows *roaring64.Bitmap, of *change) error {
	seen := ""
	if rows != nil {
		b, err := delta.EncodeVector(union(rows, nil))
		if err != nil {
			return err
		}
		seen = string(b)
	}
	id := copyID("data", f.Key, seen, a.logical.JSON())
	f.Deleted = rows
	source := a.info
	files, err := a.s.copies.get(ctx, a.table.name, id, a.copyInfo(), func(ctx context.Context) (delta.Rows, error) {
		return delta.FileRows(ctx, delta.PureGo().Reader, source, []delta.File{f})
	})
	if err != nil {
		return err
	}
	a.copied(kind, id, files, of)
	return nil
}

// copyInfo says how rewritten files are written: in the delta format as those of the table are, else with plain names.
func (a *answer) copyInfo() delta.TableInfo {
	info := a.info
	if a.format == formatParquet {
		info.Schema = a.logical
		info.Config = maps.Clone(info.Config)
		maps.DeleteFunc(info.Config, func(k, _ string) bool { return strings.HasPrefix(k, "delta.columnMapping.") })
	}
	return info
}

func (a *answer) copied(kind, id string, files []copyFile, of *change) {
	version, ms := of.fields()
	for _, c := range files {
		u := a.s.signedURL(a.base, kindCopy, c.Key, a.who, a.expires)
		if a.format == formatParquet {
			line := parquetFile{URL: u, ID: a.fileID(id, c.Path), PartitionValues: values(c.PartitionValues), Size: c.Size, Version: version, Timestamp: ms, Expires: a.expires.UnixMilli()}
			if kind != lineCDF {
				line.Stats = c.Stats
			}
			a.put(kind, line)
			continue
		}
		a.put(lineFile, deltaFile{
			ID: a.fileID(id, c.Path), Size: c.Size, Version: version, Timestamp: ms, Expires: a.expires.UnixMilli(),
			Action: map[string]any{"cdc": &delta.CDC{Path: u, PartitionValues: values(c.PartitionValues), Size: c.Size}},
		})
	}
}

func values(m map[string]*string) map[string]*string {
	if m == nil {
		return map[string]*string{}
	}
	return m
}

// wideBounds says of statistics that they speak of more rows than are left (PROTOCOL.md of Delta, "Per-file Statistics").
func wideBounds(stats string) string {
	st, err := delta.ParseStats(stats)
	if stats == "" || err != nil {
		return stats
	}
	wide := false
	st.TightBounds = &wide
	return st.JSON()
}

// send writes the response.
func (a *answer) send(w http.ResponseWriter, version delta.Version) error {
	if a.caps.endStream {
		a.put("endStreamAction", endStream{MinExpires: a.expires.UnixMilli()})
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-ndjson; charset=utf-8")
	h.Set("Delta-Table-Version", strconv.FormatInt(int64(version), 10))
	a.caps.respond(w, a.format)
	w.WriteHeader(http.StatusOK)
	out := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for _, l := range a.lines {
		if enc.Encode(l) != nil {
			return nil // the client has gone
		}
	}
	_ = out.Flush()
	return nil
}
