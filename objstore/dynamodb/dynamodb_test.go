package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
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
