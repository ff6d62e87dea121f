// Package gcs is an objstore.Store in Google Cloud Storage or its emulator (STORAGE_EMULATOR_HOST). It stands between
// objstore and Google's client library, which nothing else sees.
package gcs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/internal/remote"
	"github.com/cauce-data/cauce/objstore/usage"
)

// Options say how to reach a bucket. The zero value takes everything from the environment: application default
// credentials (GOOGLE_APPLICATION_CREDENTIALS, gcloud's, those of the machine) and STORAGE_EMULATOR_HOST.
type Options struct {
	// Endpoint is another server, such as "http://localhost:4443/storage/v1/"; requests to it are not signed.
	Endpoint string
	// KMSKey encrypts new objects; "": the bucket's default.
	KMSKey string
}

// chunkBytes is the size in which larger objects are sent; one chunk of memory per Put.
const chunkBytes = 8 << 20

// Store is a bucket, or what lies below a prefix of it.
type Store struct {
	client *storage.Client
	bucket string
	prefix string // "" or ending in a slash
	o      Options
	count  *usage.Counter
}

// ParseURL takes "gs://bucket/prefix" apart.
func ParseURL(raw string) (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(raw, "gs://")
	if !ok {
		return "", "", fmt.Errorf("storage %q: not a gs:// URL", raw)
	}
	bucket, prefix, _ = strings.Cut(rest, "/")
	if bucket == "" || strings.ContainsAny(bucket, "?#@:") {
		return "", "", fmt.Errorf("storage %q: write gs://bucket/prefix", raw)
	}
	prefix = strings.Trim(prefix, "/")
	if prefix != "" {
		if err := objstore.CheckKey("storage", prefix); err != nil {
			return "", "", err
		}
	}
	return bucket, prefix, nil
}

// Open gives the store for a URL "gs://bucket/prefix". It looks for credentials, but asks nothing of the bucket.
func Open(ctx context.Context, rawURL string, o Options) (*Store, error) {
	bucket, prefix, err := ParseURL(rawURL)
	if err != nil {
		return nil, err
	}
	s := &Store{bucket: bucket, o: o, count: &usage.Counter{}}
	if prefix != "" {
		s.prefix = prefix + "/"
	}
	base := http.DefaultTransport.(*http.Transport).Clone() //nolint:errcheck // what it is
	base.MaxIdleConnsPerHost = 100
	base.DialContext = remote.NotSilent(base.DialContext)
	var transport http.RoundTripper = base
	var opts []option.ClientOption
	if o.Endpoint != "" {
		opts = append(opts, option.WithEndpoint(o.Endpoint))
	}
	if o.Endpoint == "" && os.Getenv("STORAGE_EMULATOR_HOST") == "" {
		transport, err = htransport.NewTransport(ctx, base, option.WithScopes(storage.ScopeReadWrite))
		if err != nil {
			return nil, fmt.Errorf("storage %s: %w (run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS): %w",
				rawURL, objstore.ErrCredentials, err)
		}
	}
	opts = append(opts, option.WithHTTPClient(&http.Client{Transport: s.count.Transport(transport, kind)}))
	if s.client, err = storage.NewClient(ctx, opts...); err != nil {
		return nil, fmt.Errorf("storage %s: %w", rawURL, err)
	}
	s.client.SetRetry(
		storage.WithMaxAttempts(remote.Attempts),
		storage.WithBackoff(gax.Backoff{Initial: 100 * time.Millisecond, Max: 5 * time.Second, Multiplier: 2}),
		// Whatever is not conditional may be repeated: the same bytes are put, the same object is deleted.
		storage.WithPolicy(storage.RetryAlways),
	)
	return s, nil
}

// kind tells requests of the JSON interface, and downloads by the XML interface, apart.
func kind(r *http.Request) usage.Kind {
	switch r.Method {
	case http.MethodGet:
		switch {
		case strings.HasSuffix(r.URL.Path, "/o"):
			return usage.List
		case r.URL.Query().Get("alt") == "json":
			return usage.Head
		}
		return usage.Get
	case http.MethodPost, http.MethodPut:
		return usage.Put
	case http.MethodDelete:
		return usage.Delete
	}
	return usage.Other
}

// URL is "gs://bucket/prefix".
func (s *Store) URL() string { return "gs://" + strings.TrimSuffix(s.bucket+"/"+s.prefix, "/") }

// Usage is what was asked of the server.
func (s *Store) Usage() usage.Usage { return s.count.Usage() }

// object reads as it is stored: one that was uploaded with Content-Encoding: gzip has the name, the size and the ranges of
// what is stored, and the service or the library would give what is packed in it.
func (s *Store) object(key string) *storage.ObjectHandle {
	return s.client.Bucket(s.bucket).Object(s.prefix + key).ReadCompressed(true)
}

// description cuts times to seconds, for the headers of a download have no finer ones.
func description(key string, a *storage.ObjectAttrs) objstore.Info {
	info := objstore.Info{Key: key, Size: a.Size, ModTime: a.Updated.UTC().Truncate(time.Second), ETag: strconv.FormatInt(a.Generation, 10)}
	for k, v := range a.Metadata {
		if t, ok := remote.ParseModTime(v); ok && strings.EqualFold(k, remote.ModTimeKey) {
			info.ModTime = t
		}
	}
	return info
}

// Get opens the object as it is now. The library takes up a broken connection where it broke, in the same generation.
func (s *Store) Get(ctx context.Context, key string) (io.ReadCloser, objstore.Info, error) {
	if err := objstore.CheckKey("get", key); err != nil {
		return nil, objstore.Info{}, err
	}
	r, err := s.object(key).NewReader(ctx)
	if err != nil {
		return nil, objstore.Info{}, s.explain(ctx, "get", key, err)
	}
	a := storage.ObjectAttrs{Size: r.Attrs.Size, Updated: r.Attrs.LastModified, Generation: r.Attrs.Generation, Metadata: r.Metadata()}
	return reader{r, s, ctx, key}, description(key, &a), nil
}

type reader struct {
	*storage.Reader
	s   *Store
	ctx context.Context //nolint:containedctx // of the one Get that this lives in
	key string
}

// Read reads on.
func (r reader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.s.explain(r.ctx, "get", r.key, err)
	}
	return n, err
}

// GetRange reads a part of the object.
func (s *Store) GetRange(ctx context.Context, key string, offset, n int64) ([]byte, error) {
	if err := objstore.CheckKey("get", key); err != nil {
		return nil, err
	}
	if n == 0 { // HTTP has no empty range
		return s.emptyRange(ctx, key, offset)
	}
	length := n
	if offset < 0 {
		length = -1 // the library knows a range from the end only up to the end
	}
	for try := 1; ; try++ {
		r, err := s.object(key).NewRangeReader(ctx, offset, length)
		if isStatus(err, http.StatusRequestedRangeNotSatisfiable) {
			return s.emptyRange(ctx, key, offset)
		}
		if err != nil {
			return nil, s.explain(ctx, "get", key, err)
		}
		data, err := io.ReadAll(r)
		_ = r.Close()
		switch {
		case err == nil:
			if n >= 0 && int64(len(data)) > n {
				data = data[:n]
			}
			return data, nil
		case try >= remote.Attempts || ctx.Err() != nil:
			return nil, s.explain(ctx, "get", key, err)
		}
		if err := remote.Sleep(ctx, remote.Backoff(try)); err != nil {
			return nil, fmt.Errorf("get %s: %w", key, err)
		}
	}
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
	a, err := s.object(key).Attrs(ctx)
	if err != nil {
		return objstore.Info{}, s.explain(ctx, "stat", key, err)
	}
	return description(key, a), nil
}

// Put writes an object, in chunks if it is large; it appears with the last one.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) error {
	if err := objstore.CheckKey("put", key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	var metadata map[string]string
	if !opts.ModTime.IsZero() {
		metadata = map[string]string{remote.ModTimeKey: remote.FormatModTime(opts.ModTime)}
	}
	first := make([]byte, chunkBytes)
	n, err := io.ReadFull(r, first)
	switch {
	case err == nil:
		return s.putChunks(ctx, key, io.MultiReader(bytes.NewReader(first), r), metadata)
	case n > 0 && !errors.Is(err, io.ErrUnexpectedEOF), n == 0 && !errors.Is(err, io.EOF):
		return fmt.Errorf("put %s: %w", key, err)
	}
	// The library would repeat an upload without end.
	for try := 1; ; try++ {
		err := s.send(ctx, s.object(key), first[:n], metadata)
		if err == nil || outcome(err) == remote.Refused || ctx.Err() != nil || try >= remote.Attempts {
			return s.explain(ctx, "put", key, err)
		}
		if err := remote.Sleep(ctx, remote.Backoff(try)); err != nil {
			return fmt.Errorf("put %s: %w", key, err)
		}
	}
}

// send puts a small object with one request.
func (s *Store) send(ctx context.Context, o *storage.ObjectHandle, data []byte, metadata map[string]string) error {
	w := o.Retryer(storage.WithPolicy(storage.RetryNever)).NewWriter(ctx)
	w.ChunkSize, w.KMSKeyName, w.Metadata = 0, s.o.KMSKey, metadata
	_, err := w.Write(data)
	if cerr := w.Close(); cerr != nil {
		err = cerr // what the server said
	}
	return err
}

// putChunks puts a large object; the library repeats chunks for a while.
func (s *Store) putChunks(ctx context.Context, key string, r io.Reader, metadata map[string]string) error {
	ctx, cancel := context.WithCancel(ctx) // ends an upload whose source fails
	defer cancel()
	w := s.object(key).NewWriter(ctx)
	w.ChunkSize, w.ChunkRetryDeadline, w.KMSKeyName, w.Metadata = chunkBytes, 32*time.Second, s.o.KMSKey, metadata
	source := &source{r: r}
	_, err := io.Copy(w, source)
	if source.err != nil {
		cancel()
		_ = w.Close()
		return fmt.Errorf("put %s: %w", key, source.err)
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil && w.Attrs().Size != source.n {
		return fmt.Errorf("put %s: %w: %d bytes were sent, and the server holds %d", key, objstore.ErrAmbiguous, source.n, w.Attrs().Size)
	}
	return s.explain(ctx, "put", key, err)
}

// source remembers the reader's own error, to tell it from the server's.
type source struct {
	r   io.Reader
	n   int64
	err error
}

// Read reads on.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// PutIfAbsent creates the object with the condition that its generation is 0.
func (s *Store) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if err := objstore.CheckKey("put", key); err != nil {
		return err
	}
	return remote.Create(ctx, key, func(ctx context.Context) (remote.Outcome, error) {
		err := s.send(ctx, s.object(key).If(storage.Conditions{DoesNotExist: true}), data, nil)
		if err == nil {
			return remote.Created, nil
		}
		return outcome(err), s.explain(ctx, "put", key, err)
	})
}

// List pages through the listing.
func (s *Store) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		q := &storage.Query{Prefix: s.prefix + prefix}
		if startAfter != "" {
			q.StartOffset = s.prefix + startAfter
		}
		if err := q.SetAttrSelection([]string{"Name", "Size", "Updated", "Generation", "Metadata"}); err != nil {
			yield(objstore.Info{}, fmt.Errorf("list %s: BUG: %w", prefix, err))
			return
		}
		for it := s.client.Bucket(s.bucket).Objects(ctx, q); ; {
			a, err := it.Next()
			if errors.Is(err, iterator.Done) {
				return
			}
			if err != nil {
				yield(objstore.Info{}, s.explain(ctx, "list", prefix, err))
				return
			}
			key := strings.TrimPrefix(a.Name, s.prefix)
			if key <= startAfter || objstore.CheckKey("list", key) != nil {
				continue // the offset itself, marks of folders, and names that no store of files could hold
			}
			if !yield(description(key, a), nil) {
				return
			}
		}
	}
}

// Delete removes the object; in a bucket with versioning or soft deletion its former versions stay.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := objstore.CheckKey("delete", key); err != nil {
		return err
	}
	err := s.explain(ctx, "delete", key, s.object(key).Delete(ctx))
	if errors.Is(err, objstore.ErrNotFound) {
		return nil
	}
	return err
}

// serviceAccount is what a key file of Google's holds, as far as signing needs it.
type serviceAccount struct {
	Type       string `json:"type"`
	Email      string `json:"client_email"`
	PrivateKey string `json:"private_key"` // PEM
}

// Presign implements objstore.Presigner with the private key of a service account, where GOOGLE_APPLICATION_CREDENTIALS
// names one's key file. Other credentials cannot sign without asking Google each time.
func (s *Store) Presign(_ context.Context, key string, lifetime time.Duration) (string, error) {
	file := os.Getenv("GOOGLE_APPLICATION_CREDENTIALS")
	if file == "" {
		return "", objstore.ErrNoPresign
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("presign %s: %w", key, err)
	}
	var account serviceAccount
	if err := json.Unmarshal(b, &account); err != nil || account.Type != "service_account" || account.PrivateKey == "" {
		return "", objstore.ErrNoPresign
	}
	u, err := s.client.Bucket(s.bucket).SignedURL(s.prefix+key, &storage.SignedURLOptions{
		Scheme: storage.SigningSchemeV4, Method: http.MethodGet, GoogleAccessID: account.Email, PrivateKey: []byte(account.PrivateKey), Expires: time.Now().Add(lifetime),
	})
	if err != nil {
		return "", fmt.Errorf("presign %s: %w", key, err)
	}
	return u, nil
}

func isStatus(err error, code int) bool {
	var api *googleapi.Error
	return errors.As(err, &api) && api.Code == code
}

// outcome tells what an error says about a conditional create. Only an answer by which the server refuses proves that
// nothing was written.
func outcome(err error) remote.Outcome {
	var api *googleapi.Error
	if !errors.As(err, &api) {
		return remote.Unknown
	}
	switch {
	case api.Code == http.StatusPreconditionFailed:
		return remote.Exists
	case api.Code == http.StatusConflict, api.Code == http.StatusTooManyRequests, api.Code == http.StatusRequestTimeout:
		return remote.Again
	case api.Code >= 400 && api.Code < 500:
		return remote.Refused
	}
	return remote.Unknown
}

// explain puts an error of the library into the words of objstore, with what to do about it.
func (s *Store) explain(ctx context.Context, op, key string, err error) error {
	if err == nil {
		return nil
	}
	what := op + " " + s.URL()
	if key != "" {
		what = op + " " + key
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	noBucket := func() error {
		return fmt.Errorf("%s: %w: gs://%s; make it first, or correct the storage URL: %w", what, objstore.ErrNoBucket, s.bucket, err)
	}
	var api *googleapi.Error
	coded := errors.As(err, &api)
	switch {
	case errors.Is(err, storage.ErrBucketNotExist):
		return noBucket()
	case errors.Is(err, storage.ErrObjectNotExist), coded && api.Code == http.StatusNotFound:
		// The answer is the same for an object and for a bucket that is missing.
		if _, berr := s.client.Bucket(s.bucket).Attrs(ctx); errors.Is(berr, storage.ErrBucketNotExist) {
			return noBucket()
		}
		if op == "put" {
			return fmt.Errorf("%s in %s: %w: the upload was lost: %w", what, s.URL(), objstore.ErrUnavailable, err)
		}
		return fmt.Errorf("%s: %w", what, objstore.ErrNotFound)
	case coded && api.Code == http.StatusUnauthorized, !coded && strings.Contains(err.Error(), "oauth2: "), !coded && strings.Contains(err.Error(), "auth: cannot fetch token"):
		return fmt.Errorf("%s: %w: the server does not accept them, or they have expired; run gcloud auth application-default login: %w", what, objstore.ErrCredentials, err)
	case coded && api.Code == http.StatusForbidden:
		return fmt.Errorf("%s in %s: %w: %s: %w", what, s.URL(), objstore.ErrDenied, s.needs(op, key), err)
	case !coded, api.Code >= 500, api.Code == http.StatusTooManyRequests, api.Code == http.StatusRequestTimeout:
		return fmt.Errorf("%s in %s: %w: %w", what, s.URL(), objstore.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// needs says which right an operation lacks, and what to do about it. The service's own words name the account.
func (s *Store) needs(op, key string) string {
	where := "gs://" + s.bucket + "/" + s.prefix + key
	const remedy = "; use an account that has it (GOOGLE_APPLICATION_CREDENTIALS) or grant it"
	switch op {
	case "list":
		return "the account needs storage.objects.list for " + where + remedy
	case "delete":
		return "the account needs storage.objects.delete on " + where + ": only maintenance should delete" + remedy
	case "put":
		return "the account needs storage.objects.create on " + where + " (to replace an object, storage.objects.delete too)" + remedy
	}
	return "the account needs storage.objects.get on " + where + remedy
}

var (
	_ objstore.Store = (*Store)(nil)
	_ usage.Reporter = (*Store)(nil)
)
