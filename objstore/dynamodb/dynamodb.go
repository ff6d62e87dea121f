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
	"maps"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	"github.com/google/uuid"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/internal/remote"
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
	count *usage.Counter
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
	s := &Store{Store: below, o: o, base: o.Scheme + "://" + rest + "/", count: &usage.Counter{}, clock: time.Now}
	var next usage.Doer = http.DefaultClient
	if cfg.HTTPClient != nil {
		next = cfg.HTTPClient
	}
	cfg.HTTPClient = s.count.Client(next, func(*http.Request) usage.Kind { return usage.Commit })
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

// Usage is that of the store below, and the calls of DynamoDB.
func (s *Store) Usage() usage.Usage {
	u := usage.Usage{}
	maps.Copy(u, usage.Of(s.Store))
	maps.Copy(u, s.count.Usage())
	return u
}

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

// errForeign says that a commit is in its place that the holder of its entry has not written.
var errForeign = errors.New("a writer has committed without an entry in DynamoDB")

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
		case gerr == nil && !found && !errors.As(err, &taken), refused(err):
			return fmt.Errorf("put %s: %w", key, s.explain(ctx, "dynamodb:PutItem", err))
		default:
			return fmt.Errorf("put %s: %w: %w", key, objstore.ErrAmbiguous, errors.Join(s.explain(ctx, "dynamodb:PutItem", err), gerr))
		}
	}
	if err := s.complete(ctx, c, temp); errors.Is(err, errForeign) {
		return fmt.Errorf("put %s: %w", key, err)
	} else if err != nil {
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
		return entry{}, false, s.explain(ctx, "dynamodb:GetItem", err)
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
	if err := s.complete(ctx, c, e.temp); !errors.Is(err, errForeign) {
		return err
	}
	return nil
}

// complete puts a commit into its place and closes its entry.
func (s *Store) complete(ctx context.Context, c commit, temp string) error {
	r, _, err := s.Get(ctx, path.Join(c.table, "_delta_log", temp))
	if errors.Is(err, objstore.ErrNotFound) {
		// delta-rs moves the temporary file, where others copy it: then the commit is in its place, and its writer closes the entry.
		if _, serr := s.Stat(ctx, c.key()); serr == nil {
			return nil
		}
	}
	if err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	// Several may do this at once, with the same bytes. Other bytes are those of a writer that knows nothing of the entries: readers
	// have seen them, so they stand, and only the entry's own writer has to hear of it.
	var foreign error
	if err := s.Store.PutIfAbsent(ctx, c.key(), data); errors.Is(err, objstore.ErrExists) || errors.Is(err, objstore.ErrAmbiguous) {
		had, rerr := s.GetRange(ctx, c.key(), 0, -1)
		if rerr != nil {
			return errors.Join(err, rerr)
		}
		if !bytes.Equal(had, data) {
			foreign = fmt.Errorf("%w: %s in %s; all writers of the table must commit through the DynamoDB table %s", errForeign, c.key(), s.URL(), s.o.Table)
		}
	} else if err != nil {
		return err
	}
	item := s.keyOf(c)
	item["tempPath"], item["complete"] = text(temp), text("true")
	item["expireTime"] = &types.AttributeValueMemberN{Value: strconv.FormatInt(s.clock().Add(expiry).Unix(), 10)}
	_, err = s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.o.Table, Item: item})
	return errors.Join(foreign, s.explain(ctx, "dynamodb:PutItem", err))
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// refused tells that DynamoDB's answer proves that nothing was written. Throttling is no such answer: the library has sent the
// request several times, and an earlier one may have had no answer.
func refused(err error) bool {
	switch code(err) {
	case "ResourceNotFoundException", "AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException", "ValidationException":
		return true
	}
	return false
}

// explain puts an error of DynamoDB into the words of objstore, with what to do about it.
func (s *Store) explain(ctx context.Context, action string, err error) error {
	if err == nil {
		return nil
	}
	what := "DynamoDB table " + s.o.Table
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	c := code(err)
	if resp := (*awshttp.ResponseError)(nil); errors.As(err, &resp) && resp.HTTPStatusCode() == http.StatusForbidden {
		c = "AccessDeniedException" // said without words
	}
	switch c {
	case "ResourceNotFoundException":
		return fmt.Errorf("%s: it does not exist; make it with the hash key tablePath and the range key fileName, or correct store.commit_table: %w", what, err)
	case "AccessDeniedException":
		return fmt.Errorf("%s: %w: it needs %s on that table; use a role that has it (store.role, AWS_PROFILE) or grant it: %w", what, objstore.ErrDenied, action, err)
	case "UnrecognizedClientException", "InvalidSignatureException":
		return fmt.Errorf("%s: %w: the server does not accept them: %w", what, objstore.ErrCredentials, err)
	case "ExpiredTokenException":
		return fmt.Errorf("%s: %w: they have expired; sign in again: %w", what, objstore.ErrCredentials, err)
	case "ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded":
		return fmt.Errorf("%s: %w: it takes no more requests, after %d tries; raise its capacity or bill it by request: %w", what, objstore.ErrUnavailable, remote.Attempts, err)
	case "":
		return fmt.Errorf("%s: %w: %w", what, objstore.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
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
		return s.explain(ctx, "dynamodb:Query", err)
	}
	if len(out.Items) == 0 {
		return nil
	}
	e, file := decode(out.Items[0])
	c, ok := parse(path.Join(table, "_delta_log", file))
	if !ok || e.complete {
		return nil
	}
	if err := s.complete(ctx, c, e.temp); !errors.Is(err, objstore.ErrDenied) && !errors.Is(err, errForeign) {
		return err
	}
	// Who may only read sees the version before; a commit that nobody has finished was not told to anybody.
	return nil
}
