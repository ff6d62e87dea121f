// Package dynamodb commits to Delta tables on S3 through an entry in DynamoDB, as the S3DynamoDBLogStore of Delta for Spark
// does, so that both can write one table. It stands between delta and a store whose commits others would overwrite.
package dynamodb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/uuid"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/s3"
	"github.com/cauce-data/cauce/objstore/usage"
)

// Options say where the entries stand.
type Options struct {
	Table    string // of DynamoDB; "": delta_log, Spark's default
	Endpoint string // "": the environment's, else Amazon's own
	// Scheme begins the tables' paths in the entries; it must be the one that the other writers use. "": s3a.
	Scheme string
	AWS    s3.Options // how AWS is reached
}

// expiry is how long a finished entry stays at least (the table's TTL deletes it): a writer that was stopped for longer than
// that would commit its version again.
const expiry = 24 * time.Hour

// Store is a store whose commits are made through DynamoDB. All else goes through to the store below.
type Store struct {
	objstore.Store
	db    *dynamodb.Client
	o     Options
	base  string // of the tables' paths, ending in a slash
	clock func() time.Time
}

// Open puts the coordination over a store, whose URL must be one of S3.
func Open(ctx context.Context, below objstore.Store, o Options) (*Store, error) {
	_, rest, ok := strings.Cut(below.URL(), "s3://")
	if !ok {
		return nil, fmt.Errorf("storage %s: commits through DynamoDB are for S3; everywhere else a put is conditional by itself", below.URL())
	}
	if o.Table == "" {
		o.Table = "delta_log"
	}
	if o.Scheme == "" {
		o.Scheme = "s3a"
	}
	cfg, err := s3.LoadConfig(ctx, o.AWS)
	if err != nil {
		return nil, fmt.Errorf("DynamoDB table %s: %w", o.Table, err)
	}
	s := &Store{Store: below, o: o, base: o.Scheme + "://" + rest + "/", clock: time.Now}
	s.db = dynamodb.NewFromConfig(cfg, func(c *dynamodb.Options) {
		c.DisableValidateResponseChecksum = true // the answers to failed requests have none, and each would be warned of
		if o.Endpoint != "" {
			c.BaseEndpoint = &o.Endpoint
		}
	})
	return s, nil
}

// Presign is that of the store below.
func (s *Store) Presign(ctx context.Context, key string, lifetime time.Duration) (string, error) {
	if p, ok := s.Store.(objstore.Presigner); ok {
		return p.Presign(ctx, key, lifetime)
	}
	return "", objstore.ErrNoPresign
}

// Sweep is that of the store below.
func (s *Store) Sweep(ctx context.Context, prefix string, before time.Time, dryRun bool) ([]objstore.Info, error) {
	if sw, ok := s.Store.(objstore.Sweeper); ok {
		return sw.Sweep(ctx, prefix, before, dryRun)
	}
	return nil, nil
}

// Usage is that of the store below.
func (s *Store) Usage() usage.Usage { return usage.Of(s.Store) }

var commitName = regexp.MustCompile(`^(?:(.*)/)?_delta_log/(\d{20})\.json$`)

// commit is a commit's key, taken apart.
type commit struct {
	table   string // key of the table's folder below the root
	version int64
}

func parse(key string) (commit, bool) {
	m := commitName.FindStringSubmatch(key)
	if m == nil {
		return commit{}, false
	}
	v, err := strconv.ParseInt(m[2], 10, 64)
	return commit{m[1], v}, err == nil
}

func (c commit) file() string { return fmt.Sprintf("%020d.json", c.version) }
func (c commit) key() string  { return path.Join(c.table, "_delta_log", c.file()) }

// entry is what DynamoDB holds of a commit.
type entry struct {
	temp     string // relative to _delta_log
	complete bool
}

func text(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }

func (s *Store) keyOf(c commit) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"tablePath": text(strings.TrimSuffix(s.base+c.table, "/")), "fileName": text(c.file())}
}

func decode(item map[string]types.AttributeValue) (e entry, file string) {
	get := func(name string) string {
		v, ok := item[name].(*types.AttributeValueMemberS)
		if !ok {
			return ""
		}
		return v.Value
	}
	return entry{temp: get("tempPath"), complete: get("complete") == "true"}, get("fileName")
}

// PutIfAbsent creates an object. A commit goes through an entry: first its content under a name of its own, then the entry,
// which only one writer can create, then the commit itself, and the entry is closed. What comes after the entry may fail or be
// left to others: whoever lists the log or commits next finishes it.
func (s *Store) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	c, ok := parse(key)
	if !ok {
		return s.Store.PutIfAbsent(ctx, key, data)
	}
	if _, err := s.Stat(ctx, key); err == nil {
		return fmt.Errorf("put %s: %w", key, objstore.ErrExists)
	} else if !errors.Is(err, objstore.ErrNotFound) {
		return err
	}
	if c.version > 0 {
		before := commit{c.table, c.version - 1}
		if err := s.finish(ctx, before); err != nil {
			return err
		}
		if _, err := s.Stat(ctx, before.key()); err != nil {
			return fmt.Errorf("put %s: the commit before it: %w", key, err)
		}
	}
	temp := ".tmp/" + c.file() + "." + uuid.NewString()
	if err := s.Put(ctx, path.Join(c.table, "_delta_log", temp), bytes.NewReader(data), objstore.PutOptions{}); err != nil {
		return err
	}
	item := s.keyOf(c)
	item["tempPath"], item["complete"] = text(temp), text("false")
	_, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.o.Table, Item: item, ConditionExpression: aws.String("attribute_not_exists(fileName)")})
	var taken *types.ConditionalCheckFailedException
	if err != nil {
		// The library repeats a request whose answer is lost, and is then told that the entry exists: it may be ours.
		had, found, gerr := s.entry(ctx, c)
		switch {
		case gerr == nil && found && had.temp == temp:
		case errors.As(err, &taken) && gerr == nil && found:
			return fmt.Errorf("put %s: %w", key, objstore.ErrExists)
		case gerr == nil && !found && !errors.As(err, &taken):
			return fmt.Errorf("put %s: DynamoDB table %s: %w: %w", key, s.o.Table, objstore.ErrUnavailable, err)
		default:
			return fmt.Errorf("put %s: DynamoDB table %s: %w: %w", key, s.o.Table, objstore.ErrAmbiguous, errors.Join(err, gerr))
		}
	}
	if err := s.complete(ctx, c, temp); err != nil {
		// The entry decides; that the commit is not in its place yet is the next reader's work.
		if _, serr := s.Stat(ctx, key); serr != nil {
			return fmt.Errorf("put %s: %w: %w", key, objstore.ErrAmbiguous, err)
		}
	}
	return nil
}

// entry reads a commit's entry.
func (s *Store) entry(ctx context.Context, c commit) (entry, bool, error) {
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.o.Table, Key: s.keyOf(c), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return entry{}, false, fmt.Errorf("DynamoDB table %s: %w", s.o.Table, err)
	}
	e, _ := decode(out.Item)
	return e, len(out.Item) > 0, nil
}

// finish completes a commit that its writer has left behind its entry.
func (s *Store) finish(ctx context.Context, c commit) error {
	e, found, err := s.entry(ctx, c)
	if err != nil || !found || e.complete {
		return err
	}
	return s.complete(ctx, c, e.temp)
}

// complete puts a commit into its place and closes its entry.
func (s *Store) complete(ctx context.Context, c commit, temp string) error {
	r, _, err := s.Get(ctx, path.Join(c.table, "_delta_log", temp))
	if err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	// Several may do this at once, with the same bytes.
	if err := s.Store.PutIfAbsent(ctx, c.key(), data); err != nil && !errors.Is(err, objstore.ErrExists) && !errors.Is(err, objstore.ErrAmbiguous) {
		return err
	}
	item := s.keyOf(c)
	item["tempPath"], item["complete"] = text(temp), text("true")
	item["expireTime"] = &types.AttributeValueMemberN{Value: strconv.FormatInt(s.clock().Add(expiry).Unix(), 10)}
	_, err = s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.o.Table, Item: item})
	return err
}

// List finishes the last commit of a log before it lists it.
func (s *Store) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	table, _, ok := strings.Cut(prefix+"/", "/_delta_log/")
	if !ok || !strings.Contains(prefix, "_delta_log/") {
		return s.Store.List(ctx, prefix, startAfter)
	}
	return func(yield func(objstore.Info, error) bool) {
		if err := s.finishLast(ctx, table); err != nil {
			yield(objstore.Info{}, fmt.Errorf("list %s: %w", prefix, err))
			return
		}
		for info, err := range s.Store.List(ctx, prefix, startAfter) {
			if !yield(info, err) {
				return
			}
		}
	}
}

func (s *Store) finishLast(ctx context.Context, table string) error {
	out, err := s.db.Query(ctx, &dynamodb.QueryInput{
		TableName: &s.o.Table, ConsistentRead: aws.Bool(true), ScanIndexForward: aws.Bool(false), Limit: aws.Int32(1),
		KeyConditionExpression:    aws.String("tablePath = :t"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":t": text(strings.TrimSuffix(s.base+table, "/"))},
	})
	if err != nil {
		return fmt.Errorf("DynamoDB table %s: %w", s.o.Table, err)
	}
	if len(out.Items) == 0 {
		return nil
	}
	e, file := decode(out.Items[0])
	c, ok := parse(path.Join(table, "_delta_log", file))
	if !ok || e.complete {
		return nil
	}
	return s.complete(ctx, c, e.temp)
}
