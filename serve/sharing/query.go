package sharing

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
)

// requestBytesMax bounds the body of a query.
const requestBytesMax = 1 << 20

// queryRequest is the body of a query (PROTOCOL.md, "Request Body").
type queryRequest struct {
	PredicateHints            []string       `json:"predicateHints"`
	JSONPredicateHints        string         `json:"jsonPredicateHints"`
	LimitHint                 *int64         `json:"limitHint"`
	Version                   *delta.Version `json:"version"`
	Timestamp                 string         `json:"timestamp"`
	StartingVersion           *delta.Version `json:"startingVersion"`
	EndingVersion             *delta.Version `json:"endingVersion"`
	IncludeHistoricalProtocol bool           `json:"includeHistoricalProtocol"`
}

func readQuery(r *http.Request) (*queryRequest, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, requestBytesMax+1))
	if err != nil {
		return nil, errorf(http.StatusBadRequest, codeMalformed, "the request's body ended early")
	}
	if len(b) > requestBytesMax {
		return nil, errorf(http.StatusRequestEntityTooLarge, codeMalformed, "the request's body has more than %d bytes", requestBytesMax)
	}
	q := &queryRequest{}
	if len(strings.TrimSpace(string(b))) > 0 {
		if err := json.Unmarshal(b, q); err != nil {
			return nil, errorf(http.StatusBadRequest, codeMalformed, "the request's body is not the JSON that the protocol defines: %v", err)
		}
	}
	n := 0
	for _, set := range []bool{q.Version != nil, q.Timestamp != "", q.StartingVersion != nil} {
		if set {
			n++
		}
	}
	switch {
	case n > 1:
		return nil, badParameter("version, timestamp and startingVersion exclude each other")
	case q.Version != nil && *q.Version < 0:
		return nil, badParameter("version %d: versions begin at 0", *q.Version)
	case q.StartingVersion != nil && *q.StartingVersion < 0:
		return nil, badParameter("startingVersion %d: versions begin at 0", *q.StartingVersion)
	case q.EndingVersion != nil && q.StartingVersion == nil:
		return nil, badParameter("endingVersion needs startingVersion")
	case q.EndingVersion != nil && *q.EndingVersion < *q.StartingVersion:
		return nil, badParameter("endingVersion %d lies before startingVersion %d", *q.EndingVersion, *q.StartingVersion)
	case q.LimitHint != nil && *q.LimitHint < 0:
		return nil, badParameter("limitHint %d: it is a number from 0 on", *q.LimitHint)
	}
	return q, nil
}

func (t *shared) needHistory(asked bool) error {
	if asked && !t.history {
		return errorf(http.StatusBadRequest, codeUnsupported, "table %s is shared without its history: neither older versions nor changes can be read", t.name)
	}
	return nil
}

// tableVersion is PROTOCOL.md, "Query Table Version", the old form with HEAD included.
func (s *Server) tableVersion(w http.ResponseWriter, r *http.Request, who *Recipient) error {
	ctx := r.Context()
	t, table, err := s.open(ctx, r, who)
	if err != nil {
		return err
	}
	var version delta.Version
	if v := r.URL.Query().Get("startingTimestamp"); v != "" {
		if err := t.needHistory(true); err != nil {
			return err
		}
		at, err := parseTimestamp(v)
		if err != nil {
			return badParameter("startingTimestamp: %v", err)
		}
		if version, err = firstSince(ctx, table, at); err != nil {
			return err
		}
	} else {
		snap, err := table.Snapshot(ctx)
		if err != nil {
			return err
		}
		version = snap.Version()
	}
	w.Header().Set("Delta-Table-Version", strconv.FormatInt(int64(version), 10))
	w.WriteHeader(http.StatusOK)
	return nil
}

// firstSince finds the first version committed at or after a time.
func firstSince(ctx context.Context, table *delta.Table, at time.Time) (delta.Version, error) {
	latest, err := table.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	before, err := table.VersionAsOf(ctx, at.Add(-time.Nanosecond))
	var none *delta.VersionError
	if errors.As(err, &none) {
		return none.Earliest, nil
	}
	if err != nil {
		return 0, err
	}
	if before >= latest.Version() {
		return 0, badParameter("no version was committed at or after %s; the newest is %d, of %s", at.UTC().Format(time.RFC3339Nano), latest.Version(), latest.Time().UTC().Format(time.RFC3339Nano))
	}
	return before + 1, nil
}

// snapshot reads the version that a request names; named tells whether it names one.
func (s *Server) snapshot(ctx context.Context, t *shared, table *delta.Table, version *delta.Version, timestamp string) (snap *delta.Snapshot, named *delta.Version, err error) {
	if err := t.needHistory(version != nil || timestamp != ""); err != nil {
		return nil, nil, err
	}
	switch {
	case version != nil:
		snap, err = table.SnapshotAt(ctx, *version)
	case timestamp != "":
		at, perr := parseTimestamp(timestamp)
		if perr != nil {
			return nil, nil, badParameter("timestamp: %v", perr)
		}
		// The protocol's reference server refuses a time after the newest version, which may still get versions of its own.
		snap, err = table.SnapshotAsOf(ctx, at)
	default:
		snap, err = table.Snapshot(ctx)
		return snap, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	v := snap.Version()
	return snap, &v, nil
}

// tableMetadata is PROTOCOL.md, "Query Table Metadata".
func (s *Server) tableMetadata(w http.ResponseWriter, r *http.Request, who *Recipient) error {
	ctx := r.Context()
	t, table, err := s.open(ctx, r, who)
	if err != nil {
		return err
	}
	version, err := versionParameter(r, "version")
	if err != nil {
		return err
	}
	timestamp := r.URL.Query().Get("timestamp")
	if version != nil && timestamp != "" {
		return badParameter("version and timestamp exclude each other")
	}
	snap, named, err := s.snapshot(ctx, &t, table, version, timestamp)
	if err != nil {
		return err
	}
	a, err := s.newAnswer(r, who, t, snap)
	if err != nil {
		return err
	}
	a.head(snap, named, nil)
	return a.send(w, snap.Version())
}

func versionParameter(r *http.Request, name string) (*delta.Version, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return nil, badParameter("%s %q: it is a number from 0 on", name, clip(text))
	}
	v := delta.Version(n)
	return &v, nil
}

// query is PROTOCOL.md, "Read Data from a Table".
func (s *Server) query(w http.ResponseWriter, r *http.Request, who *Recipient) error {
	ctx := r.Context()
	q, err := readQuery(r)
	if err != nil {
		return err
	}
	if err := echoFileIDHash(w, r); err != nil {
		return err
	}
	t, table, err := s.open(ctx, r, who)
	if err != nil {
		return err
	}
	if q.StartingVersion != nil {
		return s.stream(ctx, w, r, who, &t, table, q)
	}
	snap, named, err := s.snapshot(ctx, &t, table, q.Version, q.Timestamp)
	if err != nil {
		return err
	}
	a, err := s.newAnswer(r, who, t, snap)
	if err != nil {
		return err
	}
	a.head(snap, named, nil)
	files, err := snap.Files(ctx, s.hints(q, snap.Schema()))
	if err != nil {
		return err
	}
	var of *change
	if named != nil {
		of = &change{snap.Version(), snap.Time()}
	}
	// A limit counts the rows that satisfy the client's predicates, of which statistics know nothing.
	limit := q.LimitHint
	if len(q.PredicateHints) > 0 || q.JSONPredicateHints != "" {
		limit = nil
	}
	var rows int64
	for i := range files {
		if limit != nil && i > 0 && rows >= *limit {
			break
		}
		if err := a.data(ctx, lineFile, files[i], of); err != nil {
			return err
		}
		if limit != nil {
			n, err := s.liveRows(ctx, a, files[i])
			if err != nil {
				return err
			}
			rows += n
		}
	}
	return a.send(w, snap.Version())
}

// hints is what a query's predicates say together about the rows that the client wants.
func (s *Server) hints(q *queryRequest, schema *delta.Schema) delta.Predicate {
	p := sqlHints(q.PredicateHints, s.o.Parse)
	if q.JSONPredicateHints != "" {
		if j, err := jsonHints(q.JSONPredicateHints, schema); err == nil {
			p = delta.And(p, j)
		}
	}
	return p
}

// liveRows counts the rows of a file that a client sees, or fewer where that is not known.
func (s *Server) liveRows(ctx context.Context, a *answer, f delta.File) (int64, error) {
	st, err := delta.ParseStats(f.Add.Stats)
	if err != nil || st.NumRecords < 0 {
		return 0, nil
	}
	gone := f.Deleted
	if a.table.deletes {
		hidden, err := s.hidden.of(ctx, a.info, f)
		if err != nil {
			return 0, err
		}
		gone = union(f.Deleted, hidden)
	}
	if gone == nil {
		return st.NumRecords, nil
	}
	return st.NumRecords - int64(gone.GetCardinality()), nil
}

// echoFileIDHash is PROTOCOL.md, "File ID Hash Header". Both schemes have the same ids here.
func echoFileIDHash(w http.ResponseWriter, r *http.Request) error {
	switch v := strings.ToLower(r.Header.Get("fileidhash")); v {
	case "":
	case formatParquet, formatDelta:
		w.Header().Set("fileidhash", v)
	default:
		return badParameter("fileidhash %q: it can be parquet or delta", clip(v))
	}
	return nil
}
