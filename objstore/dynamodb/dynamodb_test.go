package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/usage"
)

// named is a store in memory with the URL of a bucket, whose conditional puts overwrite, as those of Spark's S3 client do.
type named struct{ *objstore.Memory }

func (named) URL() string { return "s3://bucket/lake" }

func open(t *testing.T) *Store {
	t.Helper()
	prereq.Need(t, "moto")
	srv := cloudtest.NewAWS(t)
	for _, e := range srv.Env() {
		k, v, _ := strings.Cut(e, "=")
		t.Setenv(k, v)
		if v == "" {
			os.Unsetenv(k)
		}
	}
	s, err := Open(t.Context(), named{objstore.NewMemory(nil)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.db.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: &s.o.Table, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("tablePath"), AttributeType: "S"}, {AttributeName: aws.String("fileName"), AttributeType: "S"}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("tablePath"), KeyType: "HASH"}, {AttributeName: aws.String("fileName"), KeyType: "RANGE"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func key(v int) string { return fmt.Sprintf("processed/t/_delta_log/%020d.json", v) }

func content(t *testing.T, s objstore.Store, key string) string {
	t.Helper()
	b, err := s.GetRange(context.Background(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestCommits: one writer wins each version, and the entry is the one that Spark writes.
func TestCommits(t *testing.T) {
	s := open(t)
	for v := range 5 {
		var wg sync.WaitGroup
		errs := make([]error, 6)
		for w := range errs {
			wg.Go(func() { errs[w] = s.PutIfAbsent(context.Background(), key(v), []byte{byte('a' + w)}) })
		}
		wg.Wait()
		winner := -1
		for w, err := range errs {
			if err == nil && winner >= 0 {
				t.Fatalf("version %d: %d and %d won", v, winner, w)
			}
			if err == nil {
				winner = w
			} else if !errors.Is(err, objstore.ErrExists) {
				t.Fatal(err)
			}
		}
		if winner < 0 || content(t, s, key(v)) != string(rune('a'+winner)) {
			t.Fatalf("version %d: winner %d", v, winner)
		}
	}
	out, err := s.db.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &s.o.Table, Key: map[string]types.AttributeValue{
		"tablePath": text("s3a://bucket/lake/processed/t"), "fileName": text("00000000000000000003.json"),
	}})
	if err != nil || len(out.Item) != 5 {
		t.Fatalf("%v: %v", out, err)
	}
	if e, _ := decode(out.Item); !e.complete || !strings.HasPrefix(e.temp, ".tmp/00000000000000000003.json.") {
		t.Fatalf("entry %+v", e)
	}
	if err := s.PutIfAbsent(t.Context(), key(9), []byte("x")); !errors.Is(err, objstore.ErrNotFound) {
		t.Fatalf("a commit after a gap: %v", err)
	}
}

// TestLeftBehind: a commit whose writer died behind its entry is finished by whoever lists the log, or commits next.
func TestLeftBehind(t *testing.T) {
	s := open(t)
	for v, finish := range []func(v int) error{
		func(int) error {
			for _, err := range s.List(t.Context(), "processed/t/_delta_log/", "") {
				if err != nil {
					return err
				}
			}
			return nil
		},
		func(v int) error { return s.PutIfAbsent(t.Context(), key(v+1), []byte("next")) },
	} {
		temp := fmt.Sprintf(".tmp/%020d.json.dead", v)
		if err := s.Put(t.Context(), "processed/t/_delta_log/"+temp, strings.NewReader("left"), objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		item := s.keyOf(commit{"processed/t", int64(v)})
		item["tempPath"], item["complete"] = text(temp), text("false")
		if _, err := s.db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &s.o.Table, Item: item}); err != nil {
			t.Fatal(err)
		}
		if err := s.PutIfAbsent(t.Context(), key(v), []byte("mine")); !errors.Is(err, objstore.ErrExists) {
			t.Fatalf("over an entry: %v", err)
		}
		if err := finish(v); err != nil {
			t.Fatal(err)
		}
		if got := content(t, s, key(v)); got != "left" {
			t.Fatalf("version %d holds %q", v, got)
		}
	}
}

// TestErrors: what DynamoDB refuses is told apart, by type and in words that say what to do, after a bounded number of requests.
func TestErrors(t *testing.T) {
	s := open(t)
	var answer atomic.Pointer[string] // what the server says to a PutItem; nil: it does its work
	var asked atomic.Int64
	backend, err := url.Parse(os.Getenv("AWS_ENDPOINT_URL"))
	if err != nil {
		t.Fatal(err)
	}
	through := httputil.NewSingleHostReverseProxy(backend)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		says := answer.Load()
		if says == nil || !strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".PutItem") {
			through.ServeHTTP(w, r)
			return
		}
		asked.Add(1)
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"__type": "com.amazonaws.dynamodb.v20120810#%s", "message": "says the server"}`, *says)
	}))
	defer front.Close()
	o := s.o
	o.Endpoint = front.URL
	if s, err = Open(t.Context(), s.Store, o); err != nil {
		t.Fatal(err)
	}
	for v, c := range []struct {
		says     string
		want     error
		words    string
		requests int64
	}{
		{"ProvisionedThroughputExceededException", objstore.ErrUnavailable, "raise its capacity", 8},
		{"ThrottlingException", objstore.ErrUnavailable, "takes no more requests", 8},
		{"AccessDeniedException", objstore.ErrDenied, "needs dynamodb:PutItem", 1},
		{"ExpiredTokenException", objstore.ErrCredentials, "sign in again", 1},
		{"UnrecognizedClientException", objstore.ErrCredentials, "does not accept", 1},
		{"ResourceNotFoundException", nil, "correct store.commit_table", 1},
	} {
		answer.Store(&c.says)
		asked.Store(0)
		err := s.PutIfAbsent(t.Context(), key(v), []byte("x"))
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) || errors.Is(err, objstore.ErrExists) {
			t.Errorf("%s: %v", c.says, err)
		}
		if n := asked.Load(); n < 1 || n > c.requests {
			t.Errorf("%s: %d requests, want %d at most", c.says, n, c.requests)
		}
		// Nothing is there, and the next try makes the commit.
		answer.Store(nil)
		if err := s.PutIfAbsent(t.Context(), key(v), []byte("x")); err != nil {
			t.Fatalf("after %s: %v", c.says, err)
		}
	}
	if n := s.Usage()[usage.Commit].Requests; n < 30 {
		t.Errorf("%d calls of DynamoDB are counted", n)
	}
	// Who may only read does not finish what was left behind, and reads on.
	left := fmt.Sprintf(".tmp/%020d.json.dead", 6)
	if err := s.Put(t.Context(), "processed/t/_delta_log/"+left, strings.NewReader("left"), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	item := s.keyOf(commit{"processed/t", 6})
	item["tempPath"], item["complete"] = text(left), text("false")
	if _, err := s.db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &s.o.Table, Item: item}); err != nil {
		t.Fatal(err)
	}
	denied := "AccessDeniedException"
	answer.Store(&denied)
	for _, err := range s.List(t.Context(), "processed/t/_delta_log/", "") {
		if err != nil {
			t.Errorf("a reader: %v", err)
		}
	}
}

// TestForeignWriter: a commit that somebody put into its place without an entry is not taken for one's own.
func TestForeignWriter(t *testing.T) {
	s := open(t)
	if err := s.PutIfAbsent(t.Context(), key(0), []byte("first")); err != nil {
		t.Fatal(err)
	}
	// It comes between our look and our entry.
	below := &late{Memory: s.Store.(named).Memory, key: key(1)} //nolint:errcheck // what open made
	s.Store = below
	err := s.PutIfAbsent(t.Context(), key(1), []byte("mine"))
	if err == nil || !strings.Contains(err.Error(), "without an entry") || errors.Is(err, objstore.ErrExists) {
		t.Errorf("a foreign commit: %v", err)
	}
	if got := content(t, s, key(1)); got != "foreign" {
		t.Errorf("version 1 holds %q", got)
	}
	// It stands, and the table goes on.
	for _, err := range s.List(t.Context(), "processed/t/_delta_log/", "") {
		if err != nil {
			t.Error(err)
		}
	}
	if err := s.PutIfAbsent(t.Context(), key(2), []byte("next")); err != nil {
		t.Error(err)
	}
}

// late is a store in which somebody else creates an object right before our own create.
type late struct {
	*objstore.Memory
	key string
}

func (l *late) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if key == l.key {
		if err := l.Memory.PutIfAbsent(ctx, key, []byte("foreign")); err != nil {
			return err
		}
	}
	return l.Memory.PutIfAbsent(ctx, key, data)
}
