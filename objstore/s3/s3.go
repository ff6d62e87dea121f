// Package s3 is an objstore.Store in Amazon S3 or a server that speaks its protocol, conditional writes included. It
// stands between objstore and the AWS SDK, which nothing else sees.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/internal/remote"
	"github.com/cauce-data/cauce/objstore/usage"
)

// Options say how to reach a bucket. The zero value takes everything from the AWS environment: AWS_PROFILE, AWS_REGION,
// AWS_ENDPOINT_URL and the rest, the shared configuration files, web identity, and the roles of containers and machines.
type Options struct {
	Region   string // "": the environment's, else us-east-1
	Endpoint string // "": the environment's, else Amazon's own
	Profile  string // of the shared configuration files
	// RoleARN is a role to assume with the credentials found, ExternalID what its trust policy may ask for.
	RoleARN, ExternalID string
	// PathStyle puts the bucket into the path instead of the host name. Nil: where an endpoint is given.
	PathStyle *bool
	// SSE asks for encryption at rest, "AES256" or "aws:kms"; "": the bucket's default. KMSKey names the key of the
	// latter.
	SSE, KMSKey string
}

// partBytes is the size from which an object is put in parts, and that of the first of them: later ones are larger, so
// that 10,000 suffice for the largest object of S3, 5 TiB. partsAtOnce bounds memory to as many and one more.
const (
	partBytes   = 8 << 20
	partsAtOnce = 4
)

// Store is a bucket, or what lies below a prefix of it.
type Store struct {
	client *s3.Client
	bucket string
	prefix string // "" or ending in a slash
	o      Options
	who    string // whose credentials these are, for messages
	count  *usage.Counter
}

// ParseURL takes "s3://bucket/prefix" apart; s3a and s3n, as Hadoop writes it, mean the same.
func ParseURL(raw string) (bucket, prefix string, err error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || scheme != "s3" && scheme != "s3a" && scheme != "s3n" {
		return "", "", fmt.Errorf("storage %q: not an s3:// URL", raw)
	}
	bucket, prefix, _ = strings.Cut(rest, "/")
	if bucket == "" || strings.ContainsAny(bucket, "?#@:") {
		return "", "", fmt.Errorf("storage %q: write s3://bucket/prefix", raw)
	}
	prefix = strings.Trim(prefix, "/")
	if prefix != "" {
		if err := objstore.CheckKey("storage", prefix); err != nil {
			return "", "", err
		}
	}
	return bucket, prefix, nil
}

// LoadConfig is the AWS configuration of Options: the default chain, narrowed by what they name. Requests are repeated
// up to remote.Attempts times, from one budget for all of them, so that a server in trouble is not drowned.
func LoadConfig(ctx context.Context, o Options) (aws.Config, error) {
	load := []func(*config.LoadOptions) error{config.WithRetryer(func() aws.Retryer {
		return retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts = remote.Attempts
			r.Backoff = retry.BackoffDelayerFunc(func(n int, _ error) (time.Duration, error) { return remote.Backoff(n), nil })
		})
	})}
	load = append(load, config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.DialContext = remote.NotSilent(t.DialContext)
	})))
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	// The library's own client of the token service for web identity takes no endpoint from the environment.
	if e := os.Getenv("AWS_ENDPOINT_URL_STS"); e != "" || os.Getenv("AWS_ENDPOINT_URL") != "" {
		if e == "" {
			e = os.Getenv("AWS_ENDPOINT_URL")
		}
		load = append(load, config.WithWebIdentityRoleCredentialOptions(func(w *stscreds.WebIdentityRoleOptions) {
			w.Client = sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &e})
		}))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return cfg, fmt.Errorf("AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if o.RoleARN != "" {
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), o.RoleARN, func(a *stscreds.AssumeRoleOptions) {
			a.RoleSessionName = "cauce"
			if o.ExternalID != "" {
				a.ExternalID = &o.ExternalID
			}
		}))
	}
	if cfg.Credentials == nil {
		return cfg, fmt.Errorf("AWS: %w", objstore.ErrCredentials)
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return cfg, fmt.Errorf("AWS: %w (set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is attached): %w",
			objstore.ErrCredentials, err)
	}
	return cfg, nil
}

// Open gives the store for a URL "s3://bucket/prefix". It looks for credentials, but asks nothing of the bucket.
func Open(ctx context.Context, rawURL string, o Options) (*Store, error) {
	bucket, prefix, err := ParseURL(rawURL)
	if err != nil {
		return nil, err
	}
	cfg, err := LoadConfig(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("storage %s: %w", rawURL, err)
	}
	s := &Store{bucket: bucket, o: o, who: identity(ctx, cfg, o), count: &usage.Counter{}}
	if prefix != "" {
		s.prefix = prefix + "/"
	}
	var next usage.Doer = http.DefaultClient
	if cfg.HTTPClient != nil {
		next = cfg.HTTPClient
	}
	cfg.HTTPClient = s.count.Client(next, kind)
	s.client = s3.NewFromConfig(cfg, func(c *s3.Options) {
		if o.Endpoint != "" {
			c.BaseEndpoint = &o.Endpoint
		}
		c.UsePathStyle = c.BaseEndpoint != nil
		if o.PathStyle != nil {
			c.UsePathStyle = *o.PathStyle
		}
		c.DisableLogOutputChecksumValidationSkipped = true
	})
	return s, nil
}

// identity names whoever asks: servers do not always say whom they deny.
func identity(ctx context.Context, cfg aws.Config, o Options) string {
	who := "nobody"
	if c, err := cfg.Credentials.Retrieve(ctx); err == nil {
		who = "access key " + c.AccessKeyID
	}
	switch {
	case o.RoleARN != "":
		return "role " + o.RoleARN
	case o.Profile != "":
		return "profile " + o.Profile + " (" + who + ")"
	}
	return who
}

// kind tells requests of S3's REST interface apart.
func kind(r *http.Request) usage.Kind {
	q := r.URL.Query()
	switch r.Method {
	case http.MethodGet:
		if q.Has("list-type") || q.Has("uploads") {
			return usage.List
		}
		return usage.Get
	case http.MethodHead:
		return usage.Head
	case http.MethodPut, http.MethodPost:
		if q.Has("delete") {
			return usage.Delete
		}
		return usage.Put
	case http.MethodDelete:
		return usage.Delete
	}
	return usage.Other
}

// URL is "s3://bucket/prefix".
func (s *Store) URL() string { return "s3://" + strings.TrimSuffix(s.bucket+"/"+s.prefix, "/") }

// Usage is what was asked of the server.
func (s *Store) Usage() usage.Usage { return s.count.Usage() }

func (s *Store) name(key string) *string { return aws.String(s.prefix + key) }

func description(key string, size *int64, etag *string, at *time.Time, metadata map[string]string) objstore.Info {
	info := objstore.Info{Key: key, Size: aws.ToInt64(size), ETag: strings.Trim(aws.ToString(etag), `"`), ModTime: aws.ToTime(at).Truncate(time.Second)}
	for k, v := range metadata {
		if t, ok := remote.ParseModTime(v); ok && strings.EqualFold(k, remote.ModTimeKey) {
			info.ModTime = t
		}
	}
	return info
}

// Get opens the object. A connection that breaks is taken up again where it broke, as long as the object is the same.
func (s *Store) Get(ctx context.Context, key string) (io.ReadCloser, objstore.Info, error) {
	if err := objstore.CheckKey("get", key); err != nil {
		return nil, objstore.Info{}, err
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.name(key)})
	if err != nil {
		return nil, objstore.Info{}, s.explain(ctx, "get", key, err)
	}
	info := description(key, out.ContentLength, out.ETag, out.LastModified, out.Metadata)
	return &reader{ctx: ctx, s: s, key: key, etag: out.ETag, size: info.Size, body: out.Body}, info, nil
}

// reader reads an object over as many connections as it takes.
type reader struct {
	ctx    context.Context //nolint:containedctx // of the one Get that this lives in
	s      *Store
	key    string
	etag   *string
	size   int64
	at     int64
	body   io.ReadCloser
	broken int   // connections that broke without a byte in between
	err    error // the answer to all further reads
}

// Read reads on.
func (r *reader) Read(p []byte) (int, error) {
	for {
		if r.err != nil {
			return 0, r.err
		}
		n, err := r.body.Read(p)
		r.at += int64(n)
		switch {
		case err == nil:
			r.broken = 0
			return n, nil
		case r.at >= r.size: // the end, or what checksums have against it
			r.err = err
			if !errors.Is(err, io.EOF) {
				r.err = fmt.Errorf("get %s: %w", r.key, err)
			}
			return n, r.err
		}
		if n > 0 {
			r.broken = 0
		}
		r.err = r.reopen(err)
		if n > 0 {
			return n, nil
		}
	}
}

// reopen goes on where a connection broke.
func (r *reader) reopen(cause error) error {
	if r.broken++; r.broken >= remote.Attempts {
		return fmt.Errorf("get %s: broke %d times at byte %d of %d: %w: %w", r.key, r.broken, r.at, r.size, objstore.ErrUnavailable, cause)
	}
	if err := remote.Sleep(r.ctx, remote.Backoff(r.broken)); err != nil {
		return fmt.Errorf("get %s: %w", r.key, err)
	}
	out, err := r.s.client.GetObject(r.ctx, &s3.GetObjectInput{
		Bucket: &r.s.bucket, Key: r.s.name(r.key), IfMatch: r.etag, Range: aws.String(fmt.Sprintf("bytes=%d-", r.at)),
	})
	if err != nil {
		return r.s.explain(r.ctx, "get", r.key, err)
	}
	_ = r.body.Close()
	r.body = out.Body
	return nil
}

// Close ends the reading.
func (r *reader) Close() error { return r.body.Close() }

// GetRange reads a part of the object.
func (s *Store) GetRange(ctx context.Context, key string, offset, n int64) ([]byte, error) {
	if err := objstore.CheckKey("get", key); err != nil {
		return nil, err
	}
	if n == 0 { // HTTP has no empty range
		return s.emptyRange(ctx, key, offset)
	}
	var span string
	switch {
	case offset < 0:
		span = fmt.Sprintf("bytes=%d", offset)
	case n < 0:
		span = fmt.Sprintf("bytes=%d-", offset)
	default:
		span = fmt.Sprintf("bytes=%d-%d", offset, offset+n-1)
	}
	for try := 1; ; try++ {
		data, err := s.getRange(ctx, key, span)
		var broke *brokenBody
		switch {
		case err == nil:
			if n >= 0 && int64(len(data)) > n {
				data = data[:n]
			}
			return data, nil
		case isStatus(err, http.StatusRequestedRangeNotSatisfiable):
			return s.emptyRange(ctx, key, offset)
		case !errors.As(err, &broke) || ctx.Err() != nil:
			return nil, s.explain(ctx, "get", key, err)
		case try >= remote.Attempts:
			return nil, fmt.Errorf("get %s: %d attempts: %w: %w", key, try, objstore.ErrUnavailable, err)
		}
		if err := remote.Sleep(ctx, remote.Backoff(try)); err != nil {
			return nil, fmt.Errorf("get %s: %w", key, err)
		}
	}
}

// brokenBody is an answer that ended early.
type brokenBody struct{ error }

// Unwrap gives the cause.
func (b *brokenBody) Unwrap() error { return b.error }

func (s *Store) getRange(ctx context.Context, key, span string) ([]byte, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.name(key), Range: &span})
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	data := make([]byte, aws.ToInt64(out.ContentLength))
	if _, err := io.ReadFull(out.Body, data); err != nil {
		return nil, &brokenBody{err}
	}
	return data, nil
}

// emptyRange answers for a range without bytes: right at the end, or behind it.
func (s *Store) emptyRange(ctx context.Context, key string, offset int64) ([]byte, error) {
	info, err := s.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if _, _, err := remote.Range(key, offset, 0, info.Size); err != nil {
		return nil, err
	}
	return []byte{}, nil
}

// Stat describes the object.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := objstore.CheckKey("stat", key); err != nil {
		return objstore.Info{}, err
	}
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.name(key)})
	if err != nil {
		return objstore.Info{}, s.explain(ctx, "stat", key, err)
	}
	return description(key, out.ContentLength, out.ETag, out.LastModified, out.Metadata), nil
}

// PutIfAbsent creates the object with the condition "If-None-Match: *".
func (s *Store) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if err := objstore.CheckKey("put", key); err != nil {
		return err
	}
	return remote.Create(ctx, key, func(ctx context.Context) (remote.Outcome, error) {
		in := s.putInput(key, data, nil)
		in.IfNoneMatch = aws.String("*")
		_, err := s.client.PutObject(ctx, in, func(o *s3.Options) { o.Retryer = aws.NopRetryer{} })
		if err == nil {
			return remote.Created, nil
		}
		return outcome(err), s.explain(ctx, "put", key, err)
	})
}

func (s *Store) putInput(key string, data []byte, metadata map[string]string) *s3.PutObjectInput {
	in := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: s.name(key), Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))), Metadata: metadata,
		ServerSideEncryption: types.ServerSideEncryption(s.o.SSE),
	}
	if s.o.KMSKey != "" {
		in.SSEKMSKeyId = &s.o.KMSKey
	}
	return in
}

// List pages through the listing.
func (s *Store) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.name(prefix)}
		if startAfter != "" {
			in.StartAfter = s.name(startAfter)
		}
		for p := s3.NewListObjectsV2Paginator(s.client, in); p.HasMorePages(); {
			page, err := p.NextPage(ctx)
			if err != nil {
				yield(objstore.Info{}, s.explain(ctx, "list", prefix, err))
				return
			}
			for _, o := range page.Contents {
				key := strings.TrimPrefix(aws.ToString(o.Key), s.prefix)
				if objstore.CheckKey("list", key) != nil {
					continue // marks of folders, and names that no store of files could hold
				}
				if !yield(description(key, o.Size, o.ETag, o.LastModified, nil), nil) {
					return
				}
			}
		}
	}
}

// Delete removes the object; in a bucket with versioning its former versions stay.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := objstore.CheckKey("delete", key); err != nil {
		return err
	}
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.name(key)})
	if err = s.explain(ctx, "delete", key, err); errors.Is(err, objstore.ErrNotFound) {
		return nil
	}
	return err
}

// Presign implements objstore.Presigner. The URL ends with the credentials that signed it, where those are temporary.
func (s *Store) Presign(ctx context.Context, key string, lifetime time.Duration) (string, error) {
	r, err := s3.NewPresignClient(s.client).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.name(key)}, s3.WithPresignExpires(lifetime))
	if err != nil {
		return "", s.explain(ctx, "presign", key, err)
	}
	return r.URL, nil
}

// Sweep aborts uploads in parts that were begun before a time and never completed: nobody sees them, but they cost.
func (s *Store) Sweep(ctx context.Context, prefix string, before time.Time, dryRun bool) ([]objstore.Info, error) {
	var swept []objstore.Info
	for p := s3.NewListMultipartUploadsPaginator(s.client, &s3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: s.name(prefix)}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return swept, s.explain(ctx, "sweep", prefix, err)
		}
		for _, u := range page.Uploads {
			if !aws.ToTime(u.Initiated).Before(before) {
				continue
			}
			key := strings.TrimPrefix(aws.ToString(u.Key), s.prefix)
			if !dryRun {
				if err := s.abort(ctx, aws.ToString(u.Key), u.UploadId); err != nil {
					return swept, s.explain(ctx, "sweep", key, err)
				}
			}
			swept = append(swept, objstore.Info{Key: key, ModTime: aws.ToTime(u.Initiated)})
		}
	}
	return swept, nil
}

var (
	_ objstore.Store   = (*Store)(nil)
	_ objstore.Sweeper = (*Store)(nil)
	_ usage.Reporter   = (*Store)(nil)
)

// bucketURL is where the bucket itself is, for messages.
func (s *Store) bucketURL() string { return (&url.URL{Scheme: "s3", Host: s.bucket}).String() }
