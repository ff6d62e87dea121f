package cloudtest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
)

// S3 is a running versitygw.
type S3 struct {
	Endpoint          string
	AccessKey, Secret string
	dir               string
	iam               string // where users are made; "": there are none
	p                 *process
}

// The superuser's keys.
const (
	rootKey    = "root-of-the-test"
	rootSecret = "secret-of-the-test"
)

// NewS3 starts versitygw over a folder of the test, with a superuser only. Without the program the test is skipped by
// name.
func NewS3(t testing.TB) *S3 {
	t.Helper()
	return newS3(t)
}

func newS3(t testing.TB, more ...string) *S3 {
	t.Helper()
	bin := prereq.Need(t, "versitygw")
	dir, addr := t.TempDir(), loopback.Free(t)
	for _, d := range []string{"data", "sidecar", "iam"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := &S3{Endpoint: "http://" + addr, AccessKey: rootKey, Secret: rootSecret, dir: dir}
	args := append([]string{bin, "--port", addr, "--access", s.AccessKey, "--secret", s.Secret, "--keep-alive", "--quiet"}, more...)
	args = append(args, "posix")
	if err := unix.Setxattr(dir, "user.cauce", []byte("x"), 0); err != nil {
		// Without extended attributes what belongs to an object stands in a second file, and the two are not replaced at once.
		t.Logf("versitygw: %s has no extended attributes (%v)", dir, err)
		args = append(args, "--sidecar", filepath.Join(dir, "sidecar"))
	}
	args = append(args, filepath.Join(dir, "data"))
	s.p = launch(t, addr, nil, args...)
	return s
}

// Bucket makes a bucket.
func (s *S3) Bucket(t testing.TB, name string) string {
	t.Helper()
	if err := os.Mkdir(filepath.Join(s.dir, "data", name), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// Path is the folder or file of a key of a bucket.
func (s *S3) Path(bucket, key string) string {
	return filepath.Join(s.dir, "data", bucket, filepath.FromSlash(key))
}

// Env are the environment variables by which any AWS client uses the server as superuser, through the given endpoint or
// ("") directly. Nothing of the machine's own configuration is left.
func (s *S3) Env(endpoint string) []string {
	if endpoint == "" {
		endpoint = s.Endpoint
	}
	return AWSEnv(endpoint, s.AccessKey, s.Secret)
}

// AWSEnv are the variables of an AWS client with one pair of keys.
func AWSEnv(endpoint, access, secret string) []string {
	return []string{
		"AWS_ENDPOINT_URL=" + endpoint, "AWS_ACCESS_KEY_ID=" + access, "AWS_SECRET_ACCESS_KEY=" + secret, "AWS_SESSION_TOKEN=",
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_PROFILE=", "AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent",
		"AWS_EC2_METADATA_DISABLED=true",
	}
}
