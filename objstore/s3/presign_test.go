package s3_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/cache"
	"github.com/cauce-data/cauce/objstore/s3"
)

// TestPresignedURLs: anybody reads an object by its URL, in ranges too, until it ends; no other one.
func TestPresignedURLs(t *testing.T) {
	prereq.Need(t, "versitygw")
	srv := cloudtest.NewS3(t)
	setenv(t, srv.Env(""))
	s, err := s3.Open(t.Context(), "s3://"+srv.Bucket(t, "shared")+"/lake", s3.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"t/day=2024-01-01/a b.parquet", "t/other"} {
		if err := s.Put(t.Context(), key, strings.NewReader("0123456789"), objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	u, err := cache.New(s, t.TempDir(), 1<<20).Presign(t.Context(), "t/day=2024-01-01/a b.parquet", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	get := func(url, span string) (int, []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if span != "" {
			r.Header.Set("Range", span)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b
	}
	if code, b := get(u, ""); code != 200 || string(b) != "0123456789" {
		t.Errorf("GET: %d %q", code, b)
	}
	if code, b := get(u, "bytes=2-4"); code != 206 || string(b) != "234" {
		t.Errorf("a range: %d %q", code, b)
	}
	if code, b := get(strings.Replace(u, "day%3D2024-01-01/a%20b.parquet", "other", 1), ""); code < 400 || bytes.Contains(b, []byte("0123")) {
		t.Errorf("another object: %d %q", code, b)
	}
	if code, _ := get(strings.Replace(u, "X-Amz-Expires=60", "X-Amz-Expires=600", 1), ""); code < 400 {
		t.Errorf("a longer life: %d", code)
	}
}
