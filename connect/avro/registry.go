package avro

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/cauce-data/cauce/pipeline"
)

// ErrRegistry says that a schema registry refuses what it is asked, whatever the schema.
var ErrRegistry = errors.New("the schema registry refuses")

// RegistryOptions say where schemas are. URL is mandatory.
type RegistryOptions struct {
	URL            string
	User, Password string // "": none
	CAFile         string // PEM certificates to trust; "": those of the system
	Keys           bool   // keys of messages without value are decoded too
	Log            *slog.Logger
}

// Decoder decodes messages in Confluent's wire format: a zero byte, the id of a schema in a registry as four bytes, most
// significant first, and the value. Each schema is fetched once. It implements ingest.Decoder and is safe for concurrent use.
//
// A schema may be an Avro one or, for values that are JSON already, a JSON Schema. A message that begins with '{' has no
// such head and is JSON as it is.
type Decoder struct {
	o  RegistryOptions
	cl *sr.Client

	mu      sync.Mutex
	schemas map[uint32]*schema
	unknown int // of schemas
}

// schema makes JSON of the bytes behind a message's head.
type schema struct {
	decode func(value []byte) ([]byte, error)
	bad    string    // why no value of it can be decoded; "": they can
	until  time.Time // when to ask again; zero: never
}

const (
	headBytes = 5
	// unknownFor is how long an id that the registry does not know is not asked for again. A registry learns an id before
	// any message has it, but one of several servers may learn it late.
	unknownFor     = 10 * time.Second
	unknownMax     = 1000             // that are remembered
	registryWait   = 10 * time.Second // for one answer
	registryPause  = 250 * time.Millisecond
	registryPauses = 5 * time.Second // the longest
	referencesMax  = 1000            // schemas that one schema may be made of
)

// NewDecoder makes a Decoder. The registry is asked when the first message wants a schema.
func NewDecoder(o RegistryOptions) (*Decoder, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:errcheck // it is one
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("schema registry: certificates to trust: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("schema registry: %s holds no PEM certificate", o.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	opts := []sr.ClientOpt{sr.URLs(o.URL), sr.UserAgent("cauce"), sr.HTTPClient(&http.Client{Timeout: registryWait, Transport: transport})}
	if o.User != "" {
		opts = append(opts, sr.BasicAuth(o.User, o.Password))
	}
	cl, err := sr.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("schema registry: %w", err)
	}
	return &Decoder{o: o, cl: cl, schemas: map[uint32]*schema{}}, nil
}

// Decode fills Text, or Bad, of each record. For a registry that does not answer it waits until ctx ends.
func (d *Decoder) Decode(ctx context.Context, recs []pipeline.Record) error {
	for i := range recs {
		r := &recs[i]
		in := r.Value
		if in == nil && d.o.Keys {
			in = r.Key
		}
		if len(in) == 0 || in[0] == '{' {
			continue
		}
		text, bad, err := d.decode(ctx, in)
		if err != nil {
			return err
		}
		if bad == "" || r.Value != nil {
			r.Text, r.Bad = text, bad
		}
		// A key that is no message of the registry is plain text.
	}
	return nil
}

func (d *Decoder) decode(ctx context.Context, in []byte) (text []byte, bad string, err error) {
	if in[0] != 0 || len(in) < headBytes {
		return nil, "the message does not begin with a zero byte and the id of a schema, as those of a schema registry do", nil
	}
	id := binary.BigEndian.Uint32(in[1:headBytes])
	if id > math.MaxInt32 { // servers whose ids are of 31 bits refuse the question itself
		return nil, fmt.Sprintf("no registry gives a schema the id %d", id), nil
	}
	s, err := d.schema(ctx, id)
	if err != nil {
		return nil, "", err
	}
	if s.bad != "" {
		return nil, s.bad, nil
	}
	text, err = s.decode(in[headBytes:])
	if err != nil {
		return nil, fmt.Sprintf("schema %d: %v", id, err), nil
	}
	return text, "", nil
}

// schema gives the schema of an id, and asks the registry until that answers.
func (d *Decoder) schema(ctx context.Context, id uint32) (*schema, error) {
	d.mu.Lock()
	s := d.schemas[id]
	d.mu.Unlock()
	if s != nil && (s.until.IsZero() || time.Now().Before(s.until)) {
		return s, nil
	}
	pause := registryPause
	for told := false; ; {
		s, err := d.fetch(ctx, id)
		if err == nil {
			d.remember(id, s)
			if told {
				d.o.Log.Info("the schema registry answers again", "registry", d.o.URL)
			}
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, ErrRegistry) {
			return nil, err
		}
		if !told {
			told = true
			d.o.Log.Warn("the schema registry gives no schema; asking again", "registry", d.o.URL, "schema", id, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, registryPauses)
	}
}

// remember keeps what the registry said of an id. Any message may name an id that there is not: of those few are kept.
func (d *Decoder) remember(id uint32, s *schema) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if had := d.schemas[id]; had != nil && !had.until.IsZero() {
		d.unknown--
	}
	if !s.until.IsZero() {
		if d.unknown >= unknownMax {
			maps.DeleteFunc(d.schemas, func(_ uint32, s *schema) bool { return !s.until.IsZero() })
			d.unknown = 0
		}
		d.unknown++
	}
	d.schemas[id] = s
}

// fetch asks the registry for a schema. An error is one that another try may mend, or ErrRegistry.
func (d *Decoder) fetch(ctx context.Context, id uint32) (*schema, error) {
	unknown := func(err error) (*schema, error) {
		var answer *sr.ResponseError
		switch {
		case !errors.As(err, &answer):
			return nil, err
		case answer.StatusCode == http.StatusNotFound:
			return &schema{bad: fmt.Sprintf("schema %d: the registry %s does not know it: %v", id, d.o.URL, err), until: time.Now().Add(unknownFor)}, nil
		case answer.StatusCode >= 500, answer.StatusCode == http.StatusTooManyRequests, answer.StatusCode == http.StatusRequestTimeout:
			return nil, err
		}
		return nil, fmt.Errorf("%w (%s, user %q): schema %d: %w", ErrRegistry, d.o.URL, d.o.User, id, err)
	}
	s, err := d.cl.SchemaByID(ctx, int(id))
	if err != nil {
		return unknown(err)
	}
	switch s.Type {
	case sr.TypeJSON:
		return &schema{decode: func(v []byte) ([]byte, error) { return v, nil }}, nil
	case sr.TypeAvro:
	default:
		return &schema{bad: fmt.Sprintf("schema %d is one of %v; the values of Avro and JSON can be read", id, s.Type)}, nil
	}
	var cache avro.SchemaCache
	if err := d.references(ctx, &cache, s.References, map[string]bool{}); err != nil {
		if errors.Is(err, errSchema) {
			return &schema{bad: fmt.Sprintf("schema %d: %v", id, err)}, nil
		}
		return unknown(err)
	}
	a, err := cache.Parse(s.Schema, ownTypes()...)
	if err != nil {
		return &schema{bad: fmt.Sprintf("schema %d: %v", id, err)}, nil
	}
	return &schema{decode: func(value []byte) ([]byte, error) {
		var v any
		rest, err := a.Decode(value, &v)
		if err != nil {
			return nil, err
		}
		if len(rest) > 0 {
			return nil, fmt.Errorf("%d bytes follow the value", len(rest))
		}
		text := appendValue(nil, v)
		if !utf8.Valid(text) {
			return nil, errors.New("a string is no valid UTF-8")
		}
		return bytes.Clone(text), nil
	}}, nil
}

// errSchema says that a schema cannot be used, whatever the registry answers next time.
var errSchema = errors.New("it cannot be used")

// references parses the schemas that another one is made of, each before those that are made of it.
func (d *Decoder) references(ctx context.Context, cache *avro.SchemaCache, refs []sr.SchemaReference, known map[string]bool) error {
	for _, r := range refs {
		name := fmt.Sprintf("%s/%d", r.Subject, r.Version)
		if known[name] {
			continue
		}
		if known[name] = true; len(known) > referencesMax {
			return fmt.Errorf("%w: it is made of more than %d others", errSchema, referencesMax)
		}
		s, err := d.cl.SchemaByVersion(ctx, r.Subject, r.Version)
		if err != nil {
			return err
		}
		if err := d.references(ctx, cache, s.References, known); err != nil {
			return err
		}
		if _, err := cache.Parse(s.Schema.Schema, ownTypes()...); err != nil {
			return fmt.Errorf("%w: %s version %d: %w", errSchema, r.Subject, r.Version, err)
		}
	}
	return nil
}
