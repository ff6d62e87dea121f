package gcs_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/gcs"
	"github.com/cauce-data/cauce/objstore/storetest"
)

// setenv sets variables for the rest of a test.
func setenv(t *testing.T, env []string) {
	t.Helper()
	for _, e := range env {
		k, v, _ := strings.Cut(e, "=")
		t.Setenv(k, v)
		if v == "" {
			os.Unsetenv(k)
		}
	}
}

func TestStore(t *testing.T) {
	prereq.Need(t, "fake-gcs-server")
	srv := cloudtest.NewGCS(t)
	setenv(t, srv.Env(""))
	var n atomic.Int64
	storetest.Run(t, func(t *testing.T) objstore.Store {
		i := n.Add(1)
		url := "gs://" + srv.Bucket(t, fmt.Sprintf("bucket-%d", i))
		if i%2 == 0 {
			url += "/some/prefix/"
		}
		s, err := gcs.Open(t.Context(), url, gcs.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// TestUserErrors: what users get wrong is told apart, by type and in words that say what to do.
func TestUserErrors(t *testing.T) {
	prereq.Need(t, "fake-gcs-server")
	srv := cloudtest.NewGCS(t)
	setenv(t, srv.Env(""))
	s, err := gcs.Open(t.Context(), "gs://nowhere/lake", gcs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for op, err := range storetest.AllOps(t.Context(), s) {
		// The emulator makes buckets with the first put.
		if op == "put" || op == "put-if-absent" {
			continue
		}
		if err != nil && (!errors.Is(err, objstore.ErrNoBucket) || !strings.Contains(err.Error(), "gs://nowhere")) {
			t.Errorf("%s: %v", op, err)
		}
	}
	for code, want := range map[int]error{401: objstore.ErrCredentials, 403: objstore.ErrDenied} {
		denying := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		defer denying.Close()
		t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(denying.URL, "http://"))
		s, err := gcs.Open(t.Context(), "gs://there", gcs.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for op, err := range storetest.AllOps(t.Context(), s) {
			if !errors.Is(err, want) {
				t.Errorf("%d: %s: %v", code, op, err)
			}
		}
	}
	t.Setenv("STORAGE_EMULATOR_HOST", "")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent.json")
	if _, err := gcs.Open(t.Context(), "gs://there", gcs.Options{}); !errors.Is(err, objstore.ErrCredentials) || !strings.Contains(err.Error(), "gcloud auth") {
		t.Errorf("without credentials: %v", err)
	}
	for _, url := range []string{"gs://", "gs:///x", "s3://b", "gs://b/../c", "gs://b?x=1"} {
		if _, err := gcs.Open(t.Context(), url, gcs.Options{}); err == nil || !strings.Contains(err.Error(), "gs://") && !strings.Contains(err.Error(), "key") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestContentEncoding: an object that was uploaded with Content-Encoding: gzip is read as it is stored, as its name and its size
// say. The service unpacks it for those who do not say that they can do so themselves.
func TestContentEncoding(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte("id,v\n1,2\n"))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Goog-Generation", "1")
		w.Header().Set("X-Goog-Stored-Content-Encoding", "gzip")
		w.Header().Set("X-Goog-Stored-Content-Length", strconv.Itoa(packed.Len()))
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			_, _ = w.Write([]byte("id,v\n1,2\n")) // whatever range was asked for
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(packed.Bytes()))
	}))
	defer srv.Close()
	t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(srv.URL, "http://"))
	s, err := gcs.Open(t.Context(), "gs://there", gcs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, info, err := s.Get(t.Context(), "raw/batch/a.csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, packed.Bytes()) || info.Size != int64(packed.Len()) {
		t.Errorf("get: %q, %v; size %d, want %d", got, err, info.Size, packed.Len())
	}
	if got, err := s.GetRange(t.Context(), "raw/batch/a.csv.gz", 2, 5); err != nil || !bytes.Equal(got, packed.Bytes()[2:7]) {
		t.Errorf("range: %q, %v; want %q", got, err, packed.Bytes()[2:7])
	}
}

// behindProxy is a store in a bucket of its own, and what stands between the two.
func behindProxy(t *testing.T, bucket string) (*gcs.Store, *cloudtest.Proxy) {
	srv := cloudtest.NewGCS(t)
	bucket = srv.Bucket(t, bucket)
	proxy := cloudtest.NewProxy(t, "http://"+srv.Host)
	setenv(t, srv.Env(proxy.Host()))
	s, err := gcs.Open(t.Context(), "gs://"+bucket+"/p", gcs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s, proxy
}

// TestFaults: requests that fail for a while are repeated, a bounded number of times; what is written is written once.
func TestFaults(t *testing.T) {
	prereq.Need(t, "fake-gcs-server")
	s, proxy := behindProxy(t, "faults")
	// The emulator does not look at the ranges of chunks: one that is sent again is stored again.
	storetest.Faults(t, s, proxy, false)
}

// TestServerThatHangs: a server that takes requests and says nothing does not hold them for ever.
func TestServerThatHangs(t *testing.T) {
	prereq.Need(t, "fake-gcs-server")
	storetest.Impatient(t)
	s, proxy := behindProxy(t, "hangs")
	storetest.Hang(t, s, proxy)
}
