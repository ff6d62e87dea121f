package sharing

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

const eventsPath = "processed/events"

func eventsSchema() *delta.Schema {
	return &delta.Schema{Fields: []delta.Field{
		{Name: "id", Type: delta.Long, Nullable: true}, {Name: "price", Type: delta.Double, Nullable: true}, {Name: "name", Type: delta.String, Nullable: true},
		{Name: "at", Type: delta.Timestamp, Nullable: true}, {Name: "day", Type: delta.Date, Nullable: true}, {Name: "seq", Type: delta.Long, Nullable: true},
		{Name: pipeline.ColumnDeleted, Type: delta.Boolean, Nullable: true},
	}}
}

// row is a row of the table events; negative prices stand for deletions.
type row struct {
	id, seq int64
	price   float64
	day     int // of January 2024
	deleted bool
}

func (r row) json() string {
	return fmt.Sprintf(`{"id": %d, "price": %g, "name": "n%d", "at": "2024-01-%02dT00:00:00.000001Z", "day": "2024-01-%02d", "seq": %d, "_deleted": %t}`,
		r.id, r.price, r.id%7, r.day, r.day, r.seq, r.deleted)
}

func (r row) String() string { return fmt.Sprintf("%d %g %02d", r.id, r.price, r.day) }

// fixture is a server over a lake with the table events, upserted by id, and a recipient of all of it.
type fixture struct {
	*testing.T
	store objstore.Store
	lake  *pipeline.Lake
	table *delta.Table
	srv   *Server
	http  *httptest.Server
	now   time.Time
	who   Recipient
	token string
}

func newFixture(t *testing.T, store objstore.Store, config map[string]string) *fixture {
	t.Helper()
	if store == nil {
		var err error
		if store, err = objstore.NewLocal(t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
	f := &fixture{T: t, store: store, now: time.Now()}
	f.lake = &pipeline.Lake{Tables: []*pipeline.Table{
		{Name: "events", Location: eventsPath, Key: []string{"id"}}, {Name: "later", Location: "processed/later"},
	}}
	all := map[string]string{"delta.enableDeletionVectors": "true", "delta.enableChangeDataFeed": "true"}
	for k, v := range config {
		all[k] = v
	}
	var err error
	f.table, err = delta.Create(t.Context(), store, eventsPath, delta.CreateOptions{Schema: eventsSchema(), PartitionBy: []string{"day"}, Config: all}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.serve(store)
	f.who, f.token = f.recipient(Recipient{Share: "partners", History: true})
	return f
}

// serve starts the server over a store of the same objects.
func (f *fixture) serve(store objstore.Store) {
	f.Helper()
	var err error
	f.srv, err = New(Options{Lake: f.lake, Catalog: catalog.New(f.lake, store, nil), Store: store, Dir: f.TempDir(), Now: func() time.Time { return f.now }})
	if err != nil {
		f.Fatal(err)
	}
	f.http = httptest.NewServer(f.srv)
	f.Cleanup(f.http.Close)
}

func (f *fixture) recipient(who Recipient) (Recipient, string) {
	f.Helper()
	made, token, err := f.srv.people.Add(who, f.now)
	if err != nil {
		f.Fatal(err)
	}
	return made, token
}

func (f *fixture) upsert(rows ...row) {
	f.Helper()
	var lines []string
	for _, r := range rows {
		lines = append(lines, r.json())
	}
	b, _, err := array.RecordFromJSON(memory.DefaultAllocator, eventsSchema().Arrow(), strings.NewReader("["+strings.Join(lines, ",")+"]"))
	if err != nil {
		f.Fatal(err)
	}
	defer b.Release()
	src := delta.NewRows(eventsSchema().Arrow(), b)
	defer src.Close()
	_, err = f.table.Merge(f.Context(), src, delta.MergeOptions{Key: []string{"id"}, Order: []delta.OrderTerm{{Column: "seq"}}, Tombstone: pipeline.ColumnDeleted})
	if err != nil {
		f.Fatal(err)
	}
}

// do sends a request with the recipient's token.
func (f *fixture) do(method, path, body string, header ...string) *http.Response {
	f.Helper()
	return f.doAs(f.token, method, path, body, header...)
}

func (f *fixture) doAs(token, method, path, body string, header ...string) *http.Response {
	f.Helper()
	target := path
	if !strings.HasPrefix(path, "http") {
		target = f.http.URL + Prefix + path
	}
	r, err := http.NewRequestWithContext(f.Context(), method, target, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(r) // no redirects are followed
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func (f *fixture) body(r *http.Response) []byte {
	f.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// refused checks that an answer is an error in the protocol's form.
func (f *fixture) refused(r *http.Response, status int, code, part string) {
	f.Helper()
	var e struct{ ErrorCode, Message string }
	b := f.body(r)
	if r.StatusCode != status || json.Unmarshal(b, &e) != nil || e.ErrorCode != code || !strings.Contains(e.Message, part) {
		f.Errorf("%s %s: %d %s; want %d %s with %q", r.Request.Method, r.Request.URL, r.StatusCode, b, status, code, part)
	}
	if c := r.Header.Get("Content-Type"); !strings.HasPrefix(c, "application/json") {
		f.Errorf("%s: content type %q", r.Request.URL, c)
	}
}

func (f *fixture) getJSON(path string, out any) {
	f.Helper()
	r := f.do("GET", path, "")
	b := f.body(r)
	if r.StatusCode != http.StatusOK {
		f.Fatalf("GET %s: %d %s", path, r.StatusCode, b)
	}
	if err := json.Unmarshal(b, out); err != nil {
		f.Fatalf("GET %s: %v in %s", path, err, b)
	}
}

const tablePath = "/shares/partners/schemas/public/tables/events"

func TestLists(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.lake.Shares = []pipeline.Share{{Name: "partners", History: true, Comment: "for partners"}}
	type item struct{ Name, Schema, Share, ID, ShareID, Comment string }
	type items struct {
		Items         []item
		NextPageToken string
	}
	var got items
	f.getJSON("/shares", &got)
	if len(got.Items) != 1 || got.Items[0].Name != "partners" || got.Items[0].Comment != "for partners" || len(got.Items[0].ID) != 36 || got.NextPageToken != "" {
		t.Errorf("shares: %+v", got)
	}
	var one struct{ Share item }
	f.getJSON("/shares/PARTNERS", &one)
	if one.Share != got.Items[0] {
		t.Errorf("share: %+v, not %+v", one.Share, got.Items[0])
	}
	var schemas items
	f.getJSON("/shares/partners/schemas", &schemas)
	if len(schemas.Items) != 1 || schemas.Items[0].Name != Schema || schemas.Items[0].Share != "partners" {
		t.Errorf("schemas: %+v", schemas)
	}
	for _, path := range []string{"/shares/partners/schemas/Public/tables", "/shares/partners/all-tables"} {
		var tables items
		f.getJSON(path, &tables)
		if len(tables.Items) != 2 || tables.Items[0].Name != "events" || tables.Items[1].Name != "later" || tables.Items[0].Schema != Schema || tables.Items[0].ShareID != one.Share.ID {
			t.Errorf("%s: %+v", path, tables)
		}
		// Page by page, whatever the size, gives the same.
		var paged []item
		at, turns := "", 0
		for size := range 4 {
			var p items
			f.getJSON(path+"?maxResults="+strconv.Itoa(size)+"&pageToken="+url.QueryEscape(at), &p)
			if len(p.Items) > size {
				t.Errorf("%s: %d items in a page of %d", path, len(p.Items), size)
			}
			paged, at, turns = append(paged, p.Items...), p.NextPageToken, turns+1
			if at == "" {
				break
			}
		}
		if !slices.Equal(paged, tables.Items) || turns != 3 {
			t.Errorf("%s: %d pages with %+v", path, turns, paged)
		}
	}
	f.refused(f.do("GET", "/shares?maxResults=-1", ""), 400, codeParameter, "maxResults")
	f.refused(f.do("GET", "/shares?pageToken=x", ""), 400, codeParameter, "pageToken")
	f.refused(f.do("GET", "/shares/others", ""), 404, codeNotFound, "others")
	f.refused(f.do("GET", "/shares/partners/schemas/x/tables", ""), 404, codeNotFound, `schema "x"`)
	f.refused(f.do("GET", "/nothing", ""), 404, codeNotFound, "not part of the protocol")
	f.refused(f.do("GET", "/shares/partners/schemas/public/tables/none/metadata", ""), 404, codeNotFound, `table "none"`)
	f.refused(f.do("GET", "/shares/partners/schemas/public/tables/later/version", ""), 404, codeNotFound, "nothing has been written")
}

func TestTablesOfARecipient(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.lake.Shares = []pipeline.Share{{Name: "narrow", Tables: []string{"later"}, History: false}}
	names := func(token, share string) []string {
		var out struct{ Items []struct{ Name string } }
		r := f.doAs(token, "GET", "/shares/"+share+"/all-tables", "")
		if err := json.Unmarshal(f.body(r), &out); err != nil || r.StatusCode != http.StatusOK {
			t.Fatal(r.StatusCode, err)
		}
		got := []string{}
		for _, i := range out.Items {
			got = append(got, i.Name)
		}
		return got
	}
	for _, c := range []struct {
		who  Recipient
		want []string
	}{
		{Recipient{Share: "free"}, []string{"events", "later"}},
		{Recipient{Share: "free", Tables: []string{"events"}}, []string{"events"}},
		{Recipient{Share: "free", Tables: []string{"quarantine"}}, []string{"quarantine"}},
		{Recipient{Share: "narrow"}, []string{"later"}},
		{Recipient{Share: "narrow", Tables: []string{"events"}}, []string{}}, // the lake file no longer shares it
		{Recipient{Share: "narrow", Declared: true}, []string{"later"}},
		{Recipient{Share: "gone", Declared: true}, []string{}}, // the lake file no longer has the share
		{Recipient{Share: "gone", Declared: true, Tables: []string{"later"}}, []string{}},
	} {
		_, token := f.recipient(c.who)
		if got := names(token, c.who.Share); !slices.Equal(got, c.want) {
			t.Errorf("%+v sees %v, not %v", c.who, got, c.want)
		}
	}
	_, token := f.recipient(Recipient{Share: "narrow", History: true})
	f.refused(f.doAs(token, "GET", "/shares/narrow/schemas/public/tables/events/version", ""), 404, codeNotFound, "events")
	f.refused(f.doAs(token, "GET", tablePath+"/version", ""), 404, codeNotFound, "partners")
}

func TestTokens(t *testing.T) {
	f := newFixture(t, nil, nil)
	who, token := f.recipient(Recipient{Share: "partners", Expires: f.now.Add(time.Hour)})
	ok := func(want bool, token, part string) {
		t.Helper()
		for _, path := range []string{"/shares", tablePath + "/version"} {
			r := f.doAs(token, "GET", path, "")
			if want {
				if r.StatusCode != http.StatusOK {
					t.Errorf("GET %s: %d", path, r.StatusCode)
				}
				continue
			}
			f.refused(r, 401, codeUnauthenticated, part)
			if !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("no challenge: %v", r.Header)
			}
		}
	}
	ok(true, token, "")
	ok(false, "", "token is needed")
	ok(false, token[1:], "not known")
	ok(false, "../../secret", "not known")
	f.now = f.now.Add(time.Hour - time.Second)
	ok(true, token, "")
	f.now = f.now.Add(time.Second)
	ok(false, token, "expired")
	ok(true, f.token, "")
	if err := f.srv.people.Revoke(who.ID); err != nil {
		t.Fatal(err)
	}
	ok(false, token, "revoked")
	f.refused(f.do("GET", "/shares", "", "Authorization", "Basic "+f.token), 401, codeUnauthenticated, "token is needed")
	// What is kept does not hold a token, and nobody else reads it.
	err := filepath.WalkDir(f.srv.o.Dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if bytes.Contains(b, []byte(f.token)) {
			t.Errorf("%s holds a token", p)
		}
		if st, serr := d.Info(); serr == nil && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", p, st.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A recipient's file that somebody has edited, and that is no JSON any more, keeps nobody from revoking others, or that one.
func TestDamagedRecipients(t *testing.T) {
	f := newFixture(t, nil, nil)
	who, token := f.recipient(Recipient{Share: "partners"})
	if err := os.WriteFile(f.srv.people.path(who.ID), []byte(`{"id": `), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := f.doAs(token, "GET", "/shares", ""); r.StatusCode != http.StatusInternalServerError {
		t.Errorf("its token: %d", r.StatusCode)
	}
	for _, id := range []string{f.who.ID, who.ID} {
		all, err := f.srv.people.List()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(r Recipient) bool { return r.ID == id })
		if i < 0 || (all[i].Damaged != nil) != (id == who.ID) {
			t.Fatalf("recipient %s in %+v", id, all)
		}
		if err := f.srv.people.Revoke(all[i].ID); err != nil {
			t.Error(err)
		}
	}
}

func TestVersionAndMetadata(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.upsert(row{id: 1, seq: 1, price: 1, day: 1})
	f.upsert(row{id: 2, seq: 1, price: 1, day: 2})
	for _, m := range [][2]string{{"GET", tablePath + "/version"}, {"HEAD", tablePath}, {"GET", strings.ToUpper(tablePath[len("/shares"):])}} {
		path := m[1]
		if !strings.HasPrefix(path, "/shares") {
			path = "/shares/PARTNERS/schemas/PUBLIC/tables/EVENTS/version"
		}
		if r := f.do(m[0], path, ""); r.StatusCode != http.StatusOK || r.Header.Get("Delta-Table-Version") != "2" {
			t.Errorf("%s %s: %d %v", m[0], path, r.StatusCode, r.Header)
		}
	}
	at := func(v delta.Version) time.Time {
		s, err := f.table.SnapshotAt(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		return s.Time()
	}
	for _, c := range []struct {
		at   time.Time
		want string
	}{{at(0).Add(-time.Hour), "0"}, {at(1), "1"}, {at(1).Add(time.Millisecond / 2), "2"}, {at(2), "2"}} {
		r := f.do("GET", tablePath+"/version?startingTimestamp="+url.QueryEscape(c.at.Format(time.RFC3339Nano)), "")
		if got := r.Header.Get("Delta-Table-Version"); r.StatusCode != http.StatusOK || got != c.want {
			t.Errorf("the first version since %v: %d %s, not %s", c.at, r.StatusCode, got, c.want)
		}
	}
	f.refused(f.do("GET", tablePath+"/version?startingTimestamp="+url.QueryEscape(at(2).Add(time.Hour).Format(time.RFC3339)), ""), 400, codeParameter, "newest is 2")
	f.refused(f.do("GET", tablePath+"/version?startingTimestamp=yesterday", ""), 400, codeParameter, "yesterday")

	// The parquet format knows no reader features; the delta format has the table's own.
	lines := f.lines(f.do("GET", tablePath+"/metadata", ""))
	if len(lines) != 2 || lines[0]["protocol"]["minReaderVersion"] != 1.0 || lines[1]["metaData"]["deltaMetadata"] != nil ||
		lines[1]["metaData"]["numFiles"] != 2.0 || lines[1]["metaData"]["configuration"].(map[string]any)["enableChangeDataFeed"] != "true" {
		t.Errorf("metadata: %v", lines)
	}
	r := f.do("GET", tablePath+"/metadata?version=1", "", capabilitiesHeader, "ResponseFormat=Delta,Parquet;readerfeatures=DeletionVectors")
	lines = f.lines(r)
	if got := r.Header.Get(capabilitiesHeader); got != "responseformat=delta" {
		t.Errorf("capabilities %q", got)
	}
	if len(lines) != 2 || lines[0]["protocol"]["deltaProtocol"].(map[string]any)["minReaderVersion"] != 3.0 || lines[1]["metaData"]["version"] != 1.0 {
		t.Errorf("metadata: %v", lines)
	}
	// A client that leaves the choice and lacks a feature gets parquet; one that insists is told what it lacks.
	if r := f.do("GET", tablePath+"/metadata", "", capabilitiesHeader, "responseformat=delta,parquet"); r.Header.Get(capabilitiesHeader) != "responseformat=parquet" {
		t.Errorf("capabilities: %v", r.Header)
	}
	f.refused(f.do("GET", tablePath+"/metadata", "", capabilitiesHeader, "responseformat=delta"), 400, codeUnsupported, "deletionVectors")
	f.refused(f.do("GET", tablePath+"/metadata", "", capabilitiesHeader, "responseformat=avro"), 400, codeParameter, "avro")
	f.refused(f.do("GET", tablePath+"/metadata?version=9", ""), 400, codeParameter, "9")
	f.refused(f.do("GET", tablePath+"/metadata?version=x", ""), 400, codeParameter, "version")
	f.refused(f.do("GET", tablePath+"/metadata?version=1&timestamp=2024-01-01T00:00:00Z", ""), 400, codeParameter, "exclude")
	f.refused(f.do("GET", tablePath+"/metadata?timestamp=2024-01-01T00:00:00Z", ""), 400, codeParameter, "")
	if r := f.do("GET", tablePath+"/metadata", "", capabilitiesHeader, "includeEndStreamAction=true"); !strings.Contains(r.Header.Get(capabilitiesHeader), "includeendstreamaction=true") {
		t.Errorf("capabilities: %v", r.Header)
	} else if lines := f.lines(r); len(lines) != 3 || lines[2]["endStreamAction"]["minUrlExpirationTimestamp"] == nil {
		t.Errorf("no end: %v", lines)
	}
}

func TestHistoryCanBeKept(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.upsert(row{id: 1, seq: 1, price: 1, day: 1})
	_, f.token = f.recipient(Recipient{Share: "partners"})
	if r := f.do("POST", tablePath+"/query", ""); r.StatusCode != http.StatusOK {
		t.Errorf("the newest version: %d", r.StatusCode)
	}
	for _, body := range []string{`{"version": 0}`, `{"timestamp": "2124-01-01T00:00:00Z"}`, `{"startingVersion": 0}`} {
		f.refused(f.do("POST", tablePath+"/query", body), 400, codeUnsupported, "history")
	}
	f.refused(f.do("GET", tablePath+"/changes?startingVersion=0", ""), 400, codeUnsupported, "history")
	f.refused(f.do("GET", tablePath+"/metadata?version=0", ""), 400, codeUnsupported, "history")
	f.refused(f.do("GET", tablePath+"/version?startingTimestamp=2024-01-01T00:00:00Z", ""), 400, codeUnsupported, "history")
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.upsert(row{id: 1, seq: 1, price: 1, day: 1})
	for body, part := range map[string]string{
		`{`:                                    "JSON",
		`[]`:                                   "JSON",
		`{"version": -1}`:                      "begin at 0",
		`{"version": 7}`:                       "7",
		`{"version": 0, "startingVersion": 0}`: "exclude",
		`{"endingVersion": 1}`:                 "startingVersion",
		`{"startingVersion": 3}`:               "newest version is 1",
		`{"startingVersion":1,"endingVersion":0}`: "before",
		`{"limitHint": -1}`:                       "limitHint",
		`{"timestamp": "noon"}`:                   "noon",
	} {
		r := f.do("POST", tablePath+"/query", body)
		code := codeParameter
		if part == "JSON" {
			code = codeMalformed
		}
		f.refused(r, 400, code, part)
	}
	f.refused(f.do("POST", tablePath+"/query", `{"jsonPredicateHints": "`+strings.Repeat("x", requestBytesMax)+`"}`), 413, codeMalformed, "bytes")
	f.refused(f.do("POST", tablePath+"/query", "", "fileidhash", "md5"), 400, codeParameter, "fileidhash")
	for q, part := range map[string]string{
		"":                                      "missing",
		"startingVersion=9":                     "newest version is 1",
		"startingVersion=1&endingVersion=0":     "before",
		"startingVersion=-1":                    "startingVersion",
		"startingVersion=0&startingTimestamp=x": "exclude",
		"startingVersion=0&endingVersion=1&endingTimestamp=x": "exclude",
		"startingTimestamp=x": "x",
	} {
		f.refused(f.do("GET", tablePath+"/changes?"+q, ""), 400, codeParameter, part)
	}
}

func TestChangesMustBeRecorded(t *testing.T) {
	f := newFixture(t, nil, map[string]string{"delta.enableChangeDataFeed": "false"})
	f.upsert(row{id: 1, seq: 1, price: 1, day: 1})
	f.refused(f.do("GET", tablePath+"/changes?startingVersion=0", ""), 400, codeUnsupported, "enableChangeDataFeed")
}

func TestSignedURLs(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.upsert(row{id: 1, seq: 1, price: 1, day: 1})
	f.upsert(row{id: 1, seq: 2, price: 2, day: 1}, row{id: 2, seq: 1, price: 2, day: 1}) // makes a vector, so one file is rewritten
	lines := f.lines(f.do("POST", tablePath+"/query", ""))
	var urls []string
	for _, l := range lines[2:] {
		urls = append(urls, l["file"]["url"].(string))
	}
	f.upsert(row{id: 2, seq: 2, price: 3, day: 1})
	for _, l := range f.lines(f.do("POST", tablePath+"/query", ""))[2:] {
		urls = append(urls, l["file"]["url"].(string))
	}
	kinds := map[string]string{}
	for _, u := range urls {
		kinds[strings.Split(strings.SplitN(u, "/files/", 2)[1], "/")[0]] = u
	}
	if kinds[kindData] == "" || kinds[kindCopy] == "" {
		t.Fatalf("no file of each kind: %v", urls)
	}
	whole := map[string][]byte{}
	for kind, u := range kinds {
		r := f.doAs("", "GET", u, "")
		whole[kind] = f.body(r)
		if r.StatusCode != http.StatusOK || !bytes.HasPrefix(whole[kind], []byte("PAR1")) {
			t.Fatalf("GET %s: %d", u, r.StatusCode)
		}
		if r := f.doAs("", "HEAD", u, ""); r.StatusCode != http.StatusOK || r.ContentLength != int64(len(whole[kind])) || r.Header.Get("Accept-Ranges") != "bytes" {
			t.Errorf("HEAD %s: %d %v", u, r.StatusCode, r.Header)
		}
		if r := f.doAs("", "GET", u, "", "Range", "bytes=4-11"); r.StatusCode != http.StatusPartialContent || !bytes.Equal(f.body(r), whole[kind][4:12]) {
			t.Errorf("range of %s: %d", u, r.StatusCode)
		}
		if r := f.doAs("", "GET", u, "", "Range", "bytes=-4"); r.StatusCode != http.StatusPartialContent || string(f.body(r)) != "PAR1" {
			t.Errorf("end of %s: %d", u, r.StatusCode)
		}
		f.refused(f.doAs("", "POST", u, ""), 405, codeMalformed, "GET")

		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		forge := func(change func(u *url.URL, q url.Values)) string {
			c := *parsed
			q := c.Query()
			change(&c, q)
			c.RawQuery = q.Encode()
			return c.String()
		}
		for what, forged := range map[string]string{
			"no signature":      forge(func(_ *url.URL, q url.Values) { q.Del(paramSignature) }),
			"another signature": forge(func(_ *url.URL, q url.Values) { q.Set(paramSignature, strings.Repeat("ab", 32)) }),
			"a later end": forge(func(_ *url.URL, q url.Values) {
				q.Set(paramExpires, strconv.FormatInt(f.now.Add(2*time.Hour).Unix(), 10))
			}),
			"another recipient": forge(func(_ *url.URL, q url.Values) { q.Set(paramRecipient, strings.Repeat("0", idDigits)) }),
			"another file":      forge(func(u *url.URL, _ url.Values) { u.Path = strings.Replace(u.Path, ".parquet", "x.parquet", 1) }),
			"the log": forge(func(u *url.URL, _ url.Values) {
				u.Path = Prefix + "/files/data/" + eventsPath + "/_delta_log/00000000000000000000.json"
			}),
		} {
			r := f.doAs("", "GET", forged, "")
			if b := f.body(r); r.StatusCode != http.StatusForbidden || bytes.Contains(b, []byte("PAR1")) || bytes.Contains(b, []byte("metaData")) {
				t.Errorf("%s: %d %s", what, r.StatusCode, b)
			}
		}
	}
	// Even what is signed leads nowhere else.
	outside := filepath.Join(f.TempDir(), "secret.parquet")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := f.store.(*objstore.Local).LocalPath("")
	if err := os.Symlink(outside, filepath.Join(root, filepath.FromSlash(eventsPath), "link.parquet")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "other.parquet"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(f.srv.copies.dir, outside)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{kindData, eventsPath + "/link.parquet"}, {kindData, "other.parquet"}, {kindData, eventsPath + "/../../other.parquet"},
		{kindData, eventsPath + "/_delta_log/00000000000000000000.json"}, {kindData, eventsPath}, {kindData, eventsPath + "/"},
		{kindCopy, "events/" + filepath.ToSlash(rel)}, {kindCopy, "later/x"}, {"secret", ""}, {kindData, "/etc/passwd"}, {kindData, eventsPath + "/\x00"},
	} {
		u := f.srv.signedURL(f.http.URL+Prefix, c[0], c[1], &f.who, f.now.Add(time.Hour))
		for _, raw := range []string{u, strings.ReplaceAll(u, "..", "%2e%2e"), strings.ReplaceAll(u, "/..", "%2f..")} {
			r := f.doAs("", "GET", raw, "")
			if b := f.body(r); r.StatusCode == http.StatusOK || bytes.Contains(b, []byte("secret")) || bytes.Contains(b, []byte("metaData")) || bytes.Contains(b, []byte("root:")) {
				t.Errorf("%s: %d %s", raw, r.StatusCode, b)
			}
		}
	}
	// URLs end, by themselves and with their recipient.
	f.now = f.now.Add(URLLifetime - 2*time.Second)
	if r := f.doAs("", "GET", kinds[kindData], ""); r.StatusCode != http.StatusOK {
		t.Errorf("before its end: %d", r.StatusCode)
	}
	f.now = f.now.Add(2 * time.Second)
	f.refused(f.doAs("", "GET", kinds[kindData], ""), 403, codeDenied, "expired")
	f.now = f.now.Add(-time.Hour)
	if err := f.srv.people.Revoke(f.who.ID); err != nil {
		t.Fatal(err)
	}
	f.refused(f.doAs("", "GET", kinds[kindData], ""), 403, codeDenied, "revoked")
}

// presigning is a store whose server signs URLs.
type presigning struct{ objstore.Store }

func (presigning) Presign(_ context.Context, key string, lifetime time.Duration) (string, error) {
	return "https://bucket.example.org/" + key + "?X-Amz-Signature=1&lifetime=" + lifetime.String(), nil
}

func TestFilesOfStores(t *testing.T) {
	store := objstore.NewMemory(time.Now)
	f := newFixture(t, store, nil)
	f.upsert(row{id: 1, seq: 1, price: 1, day: 1})
	f.who, f.token = f.recipient(Recipient{Share: "partners", History: true})
	u := f.lines(f.do("POST", tablePath+"/query", ""))[2]["file"]["url"].(string)
	// A store without local files and without signatures is read through the server.
	whole := f.body(f.doAs("", "GET", u, ""))
	if part := f.body(f.doAs("", "GET", u, "", "Range", "bytes=-8")); !bytes.HasPrefix(whole, []byte("PAR1")) || !bytes.Equal(part, whole[len(whole)-8:]) {
		t.Errorf("%d bytes, and %q", len(whole), part)
	}
	f.serve(presigning{store})
	f.who, f.token = f.recipient(Recipient{Share: "partners", History: true})
	u = f.lines(f.do("POST", tablePath+"/query", ""))[2]["file"]["url"].(string)
	if !strings.HasPrefix(u, "https://bucket.example.org/"+eventsPath+"/day=2024-01-01/") || !strings.Contains(u, "lifetime=") {
		t.Errorf("URL %s", u)
	}
}
