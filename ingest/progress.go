package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// ProgressPath is the folder below the root that says what each epoch covered.
const ProgressPath = "processed/_progress"

// FilesIncarnation is the incarnation of every source of files: a file is identified by its content, so there is no
// log whose identity could change.
const FilesIncarnation = "files"

// compactEvery bounds the chain that must be read to know what a source has covered.
const compactEvery = 20

// An EpochFile says what one epoch of a source covered (DESIGN D3). It is immutable and written before the epoch's
// commit, which names it in commitInfo.userMetadata; so there may be several of one epoch, of which the commit chose
// at most one.
type EpochFile struct {
	Format      int       `json:"format"` // 1
	Source      string    `json:"source"`
	Incarnation string    `json:"incarnation"`
	Table       string    `json:"table"`
	TableID     string    `json:"table_id"`
	Epoch       int64     `json:"epoch"` // version of the commit's txn
	ID          string    `json:"id"`
	Kind        string    `json:"kind"` // KindBatch …
	Plan        string    `json:"plan"` // hash of the plan that read the records
	WrittenAt   time.Time `json:"written_at"`
	// Previous is the epoch file before this one and Compacted one that sums up everything up to some earlier epoch;
	// both are names in the same folder, "" for none.
	Previous  string `json:"previous,omitempty"`
	Compacted string `json:"compacted,omitempty"`

	Files []FileMark `json:"files,omitempty"`
	// Ranges are what a micro-batch read; Positions is where the source stands after it, in every partition.
	Ranges    []RangeMark    `json:"ranges,omitempty"`
	Positions []PositionMark `json:"positions,omitempty"`
	Gaps      []GapMark      `json:"gaps,omitempty"`
	// Checkpoint is the folder below the root that Spark's query used, where Spark made the epoch. It is told, never read.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Asked are ids that a repair asked for and that the source does not have.
	Asked []AskedMark `json:"asked,omitempty"`
}

// What an epoch did.
const (
	KindBatch     = "batch"
	KindReprocess = "reprocess"
	KindStream    = "stream"
	KindGap       = "gap"    // a gap was accepted; nothing was read
	KindStart     = "start"  // where reading begins was decided; nothing was read
	KindRetry     = "retry"  // quarantined records were tried again
	KindRepair    = "repair" // records that the table lacked were fetched
)

// FileMark is one file that an epoch covered.
type FileMark struct {
	Name       string    `json:"name"`
	Size       int64     `json:"size"`
	ModTime    time.Time `json:"mtime"`
	ETag       string    `json:"etag,omitempty"` // as the store gave it when the file was read
	SHA256     string    `json:"sha256"`
	Origin     string    `json:"origin"`
	Generation int64     `json:"generation"`
	Rows       int64     `json:"rows"`
	// Fields are the names in the file's header, if it has one: a quarantined record can then be read without the file.
	Fields []string `json:"fields,omitempty"`
	// Copy is true if the content had been read before under another name; no row was read.
	Copy bool `json:"copy,omitempty"`
	// Replaces are the origins whose rows this epoch removed for the file.
	Replaces []string `json:"replaces,omitempty"`
}

// RangeMark is a range of offsets that an epoch covered, both ends inclusive.
type RangeMark struct {
	Partition int32 `json:"partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to"`
	Rows      int64 `json:"rows"`
}

// PositionMark is where a partition stands.
type PositionMark struct {
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"` // -1: nothing has been read, and the partition had nothing that was gone
	Time      time.Time `json:"time"`
	Renewals  int       `json:"renewals,omitempty"`
}

func (m PositionMark) position() Position {
	return Position{Offset: m.Offset, Time: m.Time, Renewals: m.Renewals}
}

// GapMark is a range that was lost before it was read, and that somebody allowed to be lost.
type GapMark struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"` // -1: all of them, since the whole log is another one; no offset tells what is missing
	From      int64     `json:"from"`
	To        int64     `json:"to"` // -1: unknown
	Reason    string    `json:"reason"`
	AllowedAt time.Time `json:"allowed_at"`
	// Incarnation is the one in which the range was lost.
	Incarnation string `json:"incarnation"`
}

// originMark says which epoch read an origin last.
type originMark struct {
	Epoch int64  `json:"epoch"`
	File  string `json:"file"` // name of the epoch file
	Plan  string `json:"plan"`
}

// compactFile sums up a chain of epoch files.
type compactFile struct {
	Format   int                   `json:"format"`
	Epoch    int64                 `json:"epoch"` // the last one that is part of it
	TableID  string                `json:"table_id"`
	Files    []FileMark            `json:"files,omitempty"`
	Origins  map[string]originMark `json:"origins,omitempty"`
	Replaced map[string]originMark `json:"replaced,omitempty"`
	Gaps     []GapMark             `json:"gaps,omitempty"`
	Asked    []AskedMark           `json:"asked,omitempty"`
}

// winnerFile is <epoch>.json: it names the epoch file that the commit chose.
type winnerFile struct {
	Epoch   int64         `json:"epoch"`
	File    string        `json:"file"`
	TableID string        `json:"table_id"`
	Version delta.Version `json:"version"`
}

// progressState is what a source has covered, up to epoch.
type progressState struct {
	// epoch is the last of the table's txn for the source; the next one is epoch+1.
	epoch int64
	// last is the newest confirmed epoch file; "" if there is none. Its epoch is less than epoch where the chain ended early.
	last      string
	compacted string
	chain     int // epochs since compacted
	tableID   string
	found     bool // some epoch is known

	files     map[string]FileMark   // newest reading by name
	contents  map[string]string     // SHA-256 -> origin, of contents whose rows count
	origins   map[string]originMark // by origin
	replaced  map[string]originMark // origins whose rows were removed, by what
	positions map[int32]Position
	gaps      []GapMark
	asked     []AskedMark
}

func newState() *progressState {
	return &progressState{
		files: map[string]FileMark{}, contents: map[string]string{}, origins: map[string]originMark{},
		replaced: map[string]originMark{}, positions: map[int32]Position{},
	}
}

// apply takes one confirmed epoch into the state.
func (s *progressState) apply(name string, e *EpochFile) {
	s.found = true
	s.last = name
	if e.Compacted != "" && e.Compacted != s.compacted {
		s.compacted, s.chain = e.Compacted, 0
	}
	s.chain++
	mark := originMark{Epoch: e.Epoch, File: name, Plan: e.Plan}
	for _, f := range e.Files {
		for _, o := range f.Replaces {
			if o == f.Origin {
				continue
			}
			delete(s.origins, o)
			s.replaced[o] = mark
			maps.DeleteFunc(s.contents, func(_, origin string) bool { return origin == o })
		}
	}
	for _, f := range e.Files {
		s.files[f.Name] = f
		s.contents[f.SHA256] = f.Origin
		if !f.Copy {
			s.origins[f.Origin] = mark
			delete(s.replaced, f.Origin)
		}
	}
	for _, p := range e.Positions {
		s.positions[p.Partition] = p.position()
	}
	s.gaps = append(s.gaps, e.Gaps...)
	for _, m := range e.Asked {
		s.asked = addAsked(s.asked, m)
	}
}

func (s *progressState) compact(epoch int64) *compactFile {
	c := &compactFile{Format: 1, Epoch: epoch, TableID: s.tableID, Origins: s.origins, Replaced: s.replaced, Gaps: s.gaps, Asked: s.asked}
	for _, n := range slices.Sorted(maps.Keys(s.files)) {
		c.Files = append(c.Files, s.files[n])
	}
	return c
}

func (s *progressState) applyCompact(c *compactFile) {
	s.found = true
	for _, f := range c.Files {
		s.files[f.Name] = f
		if _, live := c.Origins[f.Origin]; live {
			s.contents[f.SHA256] = f.Origin
		}
	}
	maps.Copy(s.origins, c.Origins)
	maps.Copy(s.replaced, c.Replaced)
	s.gaps = append(s.gaps, c.Gaps...)
	s.asked = append(s.asked, c.Asked...)
}

// progressLog reads and writes the progress of one source in one incarnation.
type progressLog struct {
	store       objstore.Store
	source      string
	incarnation string
	dir         string // without trailing slash
	warn        func(msg string, args ...any)
}

func (l *Lake) progressLog(source, incarnation string) *progressLog {
	return &progressLog{
		store: l.store, source: source, incarnation: incarnation,
		dir:  path.Join(ProgressPath, url.PathEscape(source), url.PathEscape(incarnation)),
		warn: l.log.Warn,
	}
}

// appID is the application id of the source's txn actions (DESIGN D3).
func (p *progressLog) appID() string { return "cauce/1/" + p.source + "/" + p.incarnation }

// key is the object key of a file of the log.
func (p *progressLog) key(name string) string { return p.dir + "/" + name }

func winnerName(epoch int64) string { return strconv.FormatInt(epoch, 10) + ".json" }

// errNoProgress is returned for a progress file that is missing or cannot be read as one; its epoch counts as unknown.
var errNoProgress = errors.New("no progress file")

// readJSON reads one progress file. A file that is gone or damaged gives errNoProgress: what it covered is read again,
// which costs time but never a wrong row (DESIGN D2).
func (p *progressLog) readJSON(ctx context.Context, name string, into any) error {
	data, err := readAll(ctx, p.store, p.key(name))
	if errors.Is(err, objstore.ErrNotFound) {
		return fmt.Errorf("%w: %s", errNoProgress, p.key(name))
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		p.warn("a progress file is damaged; what it covered will be read again", "file", p.key(name), "error", err)
		return fmt.Errorf("%w: %s: %w", errNoProgress, p.key(name), err)
	}
	return nil
}

// load finds out what the source has covered, from the table alone: the table's txn gives the epoch, the winner file
// (or the commit itself) its epoch file, and the chain from there the rest.
func (p *progressLog) load(ctx context.Context, snap *delta.Snapshot) (*progressState, error) {
	s := newState()
	s.tableID = snap.Metadata().ID
	epoch, ok := snap.Txn(p.appID())
	if !ok {
		return s, nil
	}
	s.epoch = epoch
	last, err := p.confirmed(ctx, snap, epoch)
	if err != nil || last == "" {
		return s, err
	}
	return s, p.follow(ctx, s, last)
}

// follow reads the chain of epoch files that ends with last into s.
func (p *progressLog) follow(ctx context.Context, s *progressState, last string) error {
	type link struct {
		name string
		file *EpochFile
	}
	var chain []link
	var sum *compactFile
	var sumName string
	for name := last; name != ""; {
		e := new(EpochFile)
		if err := p.readJSON(ctx, name, e); errors.Is(err, errNoProgress) {
			p.warn("the chain of progress files is broken; what lies before will be read again", "source", p.source, "error", err)
			break
		} else if err != nil {
			return err
		}
		if e.TableID != s.tableID {
			break // of a table that stood here before
		}
		if sum == nil && e.Compacted != "" {
			c := new(compactFile)
			err := p.readJSON(ctx, e.Compacted, c)
			if err == nil && c.TableID == s.tableID {
				sum, sumName = c, e.Compacted
			} else if err != nil && !errors.Is(err, errNoProgress) {
				return err
			}
		}
		if sum != nil && e.Epoch <= sum.Epoch {
			break
		}
		chain = append(chain, link{name, e})
		name = e.Previous
	}
	if sum != nil {
		s.applyCompact(sum)
		s.compacted = sumName
	}
	for _, k := range slices.Backward(chain) {
		s.apply(k.name, k.file)
	}
	return nil
}

// confirmed gives the name of the epoch file that won the given epoch, or of the greatest confirmed one below it where
// nothing is known of it any more; "" if there is none.
func (p *progressLog) confirmed(ctx context.Context, snap *delta.Snapshot, epoch int64) (string, error) {
	name, err := p.winner(ctx, snap, epoch)
	if err != nil || name != "" {
		return name, err
	}
	// The commit of the epoch was cleaned from the log before its winner file was written, or somebody deleted files.
	var known []int64
	for info, err := range p.store.List(ctx, p.dir+"/", "") {
		if err != nil {
			return "", err
		}
		if m := winnerRE.FindStringSubmatch(path.Base(info.Key)); m != nil {
			if n, err := strconv.ParseInt(m[1], 10, 64); err == nil && n < epoch {
				known = append(known, n)
			}
		}
	}
	slices.Sort(known)
	for _, n := range slices.Backward(known) {
		name, err := p.winner(ctx, snap, n)
		if err != nil {
			return "", err
		}
		if name != "" {
			p.warn("progress ends before the table's last epoch; what came after is read again",
				"source", p.source, "epoch", epoch, "confirmed", n)
			return name, nil
		}
	}
	p.warn("progress is lost; everything is read again", "source", p.source, "epoch", epoch)
	return "", nil
}

var winnerRE = regexp.MustCompile(`^([0-9]+)\.json$`)

// winner gives the epoch file that the commit of an epoch chose: from the winner file where it speaks of this table and
// the log does not contradict it, else from the log, and then it writes the winner file. "" if neither knows.
func (p *progressLog) winner(ctx context.Context, snap *delta.Snapshot, epoch int64) (string, error) {
	var w winnerFile
	err := p.readJSON(ctx, winnerName(epoch), &w)
	switch {
	case err == nil && w.TableID == snap.Metadata().ID && w.Version <= snap.Version():
		meta, logged, err := commitMetadata(ctx, p.store, snap.TableInfo().Path, w.Version)
		if err != nil {
			return "", err
		}
		if !logged || meta == p.key(w.File) {
			return w.File, nil
		}
		// A folder that was rolled back and went on has another commit under that version.
	case err != nil && !errors.Is(err, errNoProgress):
		return "", err
	}
	for v := snap.Version(); v >= 0; v-- {
		meta, logged, err := commitMetadata(ctx, p.store, snap.TableInfo().Path, v)
		if err != nil {
			return "", err
		}
		if !logged {
			return "", nil // cleaned up from here on
		}
		name, ok := strings.CutPrefix(meta, p.dir+"/")
		if !ok {
			continue
		}
		switch n, ok := epochOf(name); {
		case ok && n == epoch:
			return name, p.confirm(ctx, winnerFile{Epoch: epoch, File: name, TableID: snap.Metadata().ID, Version: v})
		case ok && n < epoch:
			return "", nil // epochs only grow along the log
		}
	}
	return "", nil
}

// epochOf reads the epoch out of the name "<epoch>-<uuid>.json".
func epochOf(name string) (int64, bool) {
	head, _, ok := strings.Cut(name, "-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(head, 10, 64)
	return n, err == nil
}

// commitMetadata reads commitInfo.userMetadata of one commit. logged is false if the log no longer has the commit.
func commitMetadata(ctx context.Context, store objstore.Store, table string, v delta.Version) (meta string, logged bool, err error) {
	data, err := readAll(ctx, store, fmt.Sprintf("%s/_delta_log/%020d.json", table, v))
	if errors.Is(err, objstore.ErrNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	for line := range bytes.Lines(data) {
		if !bytes.Contains(line, []byte(`"commitInfo"`)) {
			continue
		}
		var a struct {
			CommitInfo *struct {
				UserMetadata string `json:"userMetadata"`
			} `json:"commitInfo"`
		}
		if json.Unmarshal(line, &a) == nil && a.CommitInfo != nil {
			return a.CommitInfo.UserMetadata, true, nil
		}
	}
	return "", true, nil
}

// write puts an epoch file and gives its name. Where the chain since the last summary has grown long, it writes a new
// summary of what s knows first.
func (p *progressLog) write(ctx context.Context, s *progressState, e *EpochFile) (string, error) {
	e.Format = 1
	e.Source, e.Incarnation, e.TableID = p.source, p.incarnation, s.tableID
	e.Epoch = s.epoch + 1
	e.ID = uuid.NewString()
	e.Previous, e.Compacted = s.last, s.compacted
	if s.chain >= compactEvery {
		name := fmt.Sprintf("%d-%s.compact.json", s.epoch, uuid.NewString())
		if err := p.put(ctx, name, s.compact(s.epoch)); err != nil {
			return "", err
		}
		e.Compacted = name
	}
	return e.name(), p.put(ctx, e.name(), e)
}

// name is the file's name in its folder.
func (e *EpochFile) name() string { return fmt.Sprintf("%d-%s.json", e.Epoch, e.ID) }

func (p *progressLog) put(ctx context.Context, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return p.store.Put(ctx, p.key(name), bytes.NewReader(append(data, '\n')), objstore.PutOptions{})
}

// confirm writes the winner file of an epoch whose commit is known to be in the log. The log is the authority: a winner
// file of another life of the table is replaced.
func (p *progressLog) confirm(ctx context.Context, w winnerFile) error {
	data, err := json.Marshal(w)
	if err != nil {
		return err
	}
	key := p.key(winnerName(w.Epoch))
	err = p.store.PutIfAbsent(ctx, key, append(data, '\n'))
	// A create whose outcome is not known may be our own or another's.
	if errors.Is(err, objstore.ErrExists) || errors.Is(err, objstore.ErrAmbiguous) {
		var had winnerFile
		if err := p.readJSON(ctx, winnerName(w.Epoch), &had); err == nil && had == w {
			return nil
		}
		return p.store.Put(ctx, key, bytes.NewReader(append(data, '\n')), objstore.PutOptions{})
	}
	return err
}

// readAll reads a small object.
func readAll(ctx context.Context, store objstore.Store, key string) ([]byte, error) {
	r, _, err := store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return data, nil
}
