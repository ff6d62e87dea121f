package s3_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/s3"
)

// client is AWS's own client with what the environment says.
func client(t *testing.T) *awss3.Client {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return awss3.NewFromConfig(cfg, func(o *awss3.Options) { o.UsePathStyle = true })
}

// TestWaysToCredentials: a profile of AWS's files, a token of web identity and a role to assume lead into the bucket; where one
// of them is wrong the error says so.
func TestWaysToCredentials(t *testing.T) {
	prereq.Need(t, "moto")
	srv := cloudtest.NewAWS(t)
	setenv(t, srv.Env())
	if _, err := client(t).CreateBucket(t.Context(), &awss3.CreateBucketInput{Bucket: aws.String("lake")}); err != nil {
		t.Fatal(err)
	}
	files, token := t.TempDir(), filepath.Join(t.TempDir(), "token")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(files, "config"), "[profile lake]\nregion = eu-west-1\nendpoint_url = "+srv.Endpoint+"\n")
	write(filepath.Join(files, "credentials"), "[lake]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = secret\n")
	write(token, "a.web.token")
	without := cloudtest.AWSEnv(srv.Endpoint, "", "")
	const role = "arn:aws:iam::123456789012:role/lake-reader"
	for _, c := range []struct {
		name string
		env  []string
		o    s3.Options
	}{
		{"profile of the lake file", append(without, "AWS_CONFIG_FILE="+filepath.Join(files, "config"), "AWS_SHARED_CREDENTIALS_FILE="+filepath.Join(files, "credentials")), s3.Options{Profile: "lake"}},
		{"profile of the environment", append(without, "AWS_CONFIG_FILE="+filepath.Join(files, "config"), "AWS_SHARED_CREDENTIALS_FILE="+filepath.Join(files, "credentials"), "AWS_PROFILE=lake"), s3.Options{}},
		{"web identity", append(without, "AWS_ROLE_ARN="+role, "AWS_WEB_IDENTITY_TOKEN_FILE="+token), s3.Options{}},
		{"role", srv.Env(), s3.Options{RoleARN: role, ExternalID: "x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			setenv(t, c.env)
			s, err := s3.Open(t.Context(), "s3://lake/"+strings.ReplaceAll(c.name, " ", "-"), c.o)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Put(t.Context(), "key", strings.NewReader("x"), objstore.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			if got, err := s.GetRange(t.Context(), "key", 0, -1); err != nil || string(got) != "x" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	t.Run("no such profile", func(t *testing.T) {
		setenv(t, without)
		if _, err := s3.Open(t.Context(), "s3://lake", s3.Options{Profile: "nobody"}); err == nil || !strings.Contains(err.Error(), "nobody") {
			t.Error(err)
		}
	})
	t.Run("no token", func(t *testing.T) {
		setenv(t, append(without, "AWS_ROLE_ARN="+role, "AWS_WEB_IDENTITY_TOKEN_FILE="+filepath.Join(files, "none")))
		if _, err := s3.Open(t.Context(), "s3://lake", s3.Options{}); !errors.Is(err, objstore.ErrCredentials) || !strings.Contains(err.Error(), filepath.Join(files, "none")) {
			t.Error(err)
		}
	})
}

// TestEncryption: every object is written with the encryption that is asked for, in one piece, in parts, and conditionally.
func TestEncryption(t *testing.T) {
	prereq.Need(t, "moto")
	srv := cloudtest.NewAWS(t)
	setenv(t, srv.Env())
	raw := client(t)
	if _, err := raw.CreateBucket(t.Context(), &awss3.CreateBucketInput{Bucket: aws.String("lake")}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []s3.Options{{SSE: "AES256"}, {SSE: "aws:kms", KMSKey: "arn:aws:kms:us-east-1:123456789012:key/lake"}} {
		s, err := s3.Open(t.Context(), "s3://lake/"+strings.ReplaceAll(o.SSE, ":", "-"), o)
		if err != nil {
			t.Fatal(err)
		}
		large := bytes.Repeat([]byte("large"), 2<<20)
		for key, put := range map[string]func() error{
			"small":  func() error { return s.Put(t.Context(), "small", strings.NewReader("x"), objstore.PutOptions{}) },
			"parts":  func() error { return s.Put(t.Context(), "parts", bytes.NewReader(large), objstore.PutOptions{}) },
			"commit": func() error { return s.PutIfAbsent(t.Context(), "commit", []byte("x")) },
		} {
			if err := put(); err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			head, err := raw.HeadObject(t.Context(), &awss3.HeadObjectInput{Bucket: aws.String("lake"), Key: aws.String(strings.ReplaceAll(o.SSE, ":", "-") + "/" + key)})
			if err != nil {
				t.Fatal(err)
			}
			if string(head.ServerSideEncryption) != o.SSE || aws.ToString(head.SSEKMSKeyId) != o.KMSKey {
				t.Errorf("%s is encrypted by %q, %q", key, head.ServerSideEncryption, aws.ToString(head.SSEKMSKeyId))
			}
		}
		r, _, err := s.Get(t.Context(), "parts")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, large) {
			t.Errorf("%d bytes come back, %v", len(got), err)
		}
	}
}
