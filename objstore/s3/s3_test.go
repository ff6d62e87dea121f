package s3_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/s3"
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
	prereq.Need(t, "versitygw")
	srv := cloudtest.NewS3(t)
	setenv(t, srv.Env(""))
	var n atomic.Int64
	storetest.Run(t, func(t *testing.T) objstore.Store {
		i := n.Add(1)
		url := "s3://" + srv.Bucket(t, fmt.Sprintf("bucket-%d", i))
		if i%2 == 0 {
			url += "/some/prefix/"
		}
		s, err := s3.Open(t.Context(), url, s3.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// TestUserErrors: what users get wrong is told apart, by type and in words that say what to do.
func TestUserErrors(t *testing.T) {
	prereq.Need(t, "versitygw")
	srv := cloudtest.NewS3(t)
	srv.Bucket(t, "there")
	proxy := cloudtest.NewProxy(t, srv.Endpoint)
	open := func(t *testing.T, url string, env []string) *s3.Store {
		t.Helper()
		setenv(t, env)
		s, err := s3.Open(t.Context(), url, s3.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		name, url string
		env       []string
		rule      *cloudtest.Rule
		want      error
		says      string
	}{
		{"no bucket", "s3://nowhere/lake", srv.Env(""), nil, objstore.ErrNoBucket, "s3://nowhere"},
		{"unknown key", "s3://there/lake", cloudtest.AWSEnv(srv.Endpoint, "somebody", "secret"), nil, objstore.ErrCredentials, "does not accept"},
		{"wrong secret", "s3://there/lake", cloudtest.AWSEnv(srv.Endpoint, srv.AccessKey, "wrong"), nil, objstore.ErrCredentials, "does not accept"},
		{"expired", "s3://there/lake", srv.Env(proxy.URL), &cloudtest.Rule{Effect: cloudtest.Expired}, objstore.ErrCredentials, "expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, c.url, c.env)
			if c.rule != nil {
				proxy.Add(*c.rule)
				defer proxy.Clear()
			}
			for op, err := range storetest.AllOps(t.Context(), s) {
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v", op, err)
				}
				if errors.Is(err, objstore.ErrNotFound) || errors.Is(err, objstore.ErrAmbiguous) && !errors.Is(err, objstore.ErrUnavailable) {
					t.Errorf("%s takes it for something else: %v", op, err)
				}
			}
		})
	}
	t.Run("no credentials", func(t *testing.T) {
		setenv(t, cloudtest.AWSEnv(srv.Endpoint, "", ""))
		if _, err := s3.Open(t.Context(), "s3://there", s3.Options{}); !errors.Is(err, objstore.ErrCredentials) || !strings.Contains(err.Error(), "AWS_PROFILE") {
			t.Error(err)
		}
	})
	for _, url := range []string{"s3://", "s3:///x", "gs://b", "s3://b/../c", "s3://b?x=1"} {
		if _, err := s3.Open(t.Context(), url, s3.Options{}); err == nil || !strings.Contains(err.Error(), "s3://") && !strings.Contains(err.Error(), "key") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// behindProxy is a store in a bucket of its own, and what stands between the two.
func behindProxy(t *testing.T, bucket string) (*s3.Store, *cloudtest.Proxy) {
	srv := cloudtest.NewS3(t)
	bucket = srv.Bucket(t, bucket)
	proxy := cloudtest.NewProxy(t, srv.Endpoint)
	setenv(t, srv.Env(proxy.URL))
	s, err := s3.Open(t.Context(), "s3://"+bucket+"/p", s3.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s, proxy
}

// TestFaults: requests that fail for a while are repeated, a bounded number of times; what is written is written once.
func TestFaults(t *testing.T) {
	prereq.Need(t, "versitygw")
	s, proxy := behindProxy(t, "faults")
	storetest.Faults(t, s, proxy, true)
}

// TestServerThatHangs: a server that takes requests and says nothing does not hold them for ever.
func TestServerThatHangs(t *testing.T) {
	prereq.Need(t, "versitygw")
	storetest.Impatient(t)
	s, proxy := behindProxy(t, "hangs")
	storetest.Hang(t, s, proxy)
}
