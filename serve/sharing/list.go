package sharing

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// pageMax bounds a page of a list for which no size was asked.
const pageMax = 500

// idSpace makes the ids of shares and tables out of their names: the same for as long as the name is.
var idSpace = uuid.MustParse("6a3c1f0e-6f0b-5c53-8a55-6b2f6e0a3d11")

func objectID(parts ...string) string {
	return uuid.NewSHA1(idSpace, []byte(strings.ToLower(strings.Join(parts, "\x00")))).String()
}

type jsonShare struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Comment string `json:"comment,omitempty"`
}

type jsonSchema struct {
	Name  string `json:"name"`
	Share string `json:"share"`
}

type jsonTable struct {
	Name    string `json:"name"`
	Schema  string `json:"schema"`
	Share   string `json:"share"`
	ShareID string `json:"shareId"`
	ID      string `json:"id"`
}

func (s *Server) share(who *Recipient) jsonShare {
	out := jsonShare{Name: who.Share, ID: objectID(who.Share)}
	if decl := s.o.Lake.Share(who.Share); decl != nil {
		out.Comment = decl.Comment
	}
	return out
}

// listShares is PROTOCOL.md, "List Shares".
func (s *Server) listShares(w http.ResponseWriter, r *http.Request, who *Recipient) error {
	return writePage(w, r, []jsonShare{s.share(who)})
}

// getShare is PROTOCOL.md, "Get Share".
func (s *Server) getShare(w http.ResponseWriter, r *http.Request, who *Recipient) error {
	if err := s.checkShare(r, who); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]jsonShare{"share": s.share(who)})
	return nil
}

// listSchemas is PROTOCOL.md, "List Schemas in a Share".
func (s *Server) listSchemas(w http.ResponseWriter, r *http.Request, who *Recipient) error {
	if err := s.checkShare(r, who); err != nil {
		return err
	}
	return writePage(w, r, []jsonSchema{{Name: Schema, Share: who.Share}})
}

// listTables is PROTOCOL.md, "List Tables in a Schema".
func (s *Server) listTables(w http.ResponseWriter, r *http.Request, who *Recipient) error {
	if err := checkSchema(r); err != nil {
		return err
	}
	return s.listAllTables(w, r, who)
}

// listAllTables is PROTOCOL.md, "List all Tables in a Share".
func (s *Server) listAllTables(w http.ResponseWriter, r *http.Request, who *Recipient) error {
	if err := s.checkShare(r, who); err != nil {
		return err
	}
	out := []jsonTable{}
	for _, t := range s.tables(who) {
		out = append(out, jsonTable{Name: t.name, Schema: Schema, Share: who.Share, ShareID: objectID(who.Share), ID: objectID(who.Share, Schema, t.name)})
	}
	return writePage(w, r, out)
}

// page is the answer to a request for a list.
type page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"nextPageToken,omitempty"`
}

// pageToken is what a nextPageToken holds: the place of the first item of the next page.
type pageToken struct {
	At int `json:"at"`
}

func writePage[T any](w http.ResponseWriter, r *http.Request, all []T) error {
	q := r.URL.Query()
	size := pageMax
	if v := q.Get("maxResults"); v != "" {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil || n < 0 {
			return badParameter("maxResults %q: it is a number from 0 on", clip(v))
		}
		size = int(n)
	}
	var at pageToken
	if v := q.Get("pageToken"); v != "" {
		b, err := base64.RawURLEncoding.DecodeString(v)
		if err != nil || json.Unmarshal(b, &at) != nil || at.At < 0 {
			return badParameter("pageToken %q: it does not come from this server", clip(v))
		}
	}
	from := min(at.At, len(all))
	to := from + min(size, len(all)-from)
	out := page[T]{Items: all[from:to]}
	if to < len(all) {
		b, err := json.Marshal(pageToken{At: to})
		if err != nil {
			return err
		}
		out.Next = base64.RawURLEncoding.EncodeToString(b)
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}
