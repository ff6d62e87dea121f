package cloudtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
)

// NewS3WithUsers is NewS3 with a service beside it that knows users and enforces their policies.
func NewS3WithUsers(t testing.TB) *S3 {
	t.Helper()
	bin := prereq.Need(t, "versitygw")
	// A name of a socket has little room: t.TempDir may be too long for it.
	dir, err := os.MkdirTemp("", "iam")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, addr := filepath.Join(dir, "socket"), loopback.Free(t)
	if err := os.Mkdir(filepath.Join(dir, "users"), 0o700); err != nil {
		t.Fatal(err)
	}
	launch(t, addr, nil, bin, "--port", addr, "--access", rootKey, "--secret", rootSecret, "--quiet", "iam", "--dir", filepath.Join(dir, "users"), "--private-ports", socket)
	s := newS3(t, "--iam-standalone-endpoint", socket, "--iam-cache-disable")
	s.iam = "http://" + addr
	return s
}

// User makes a user who may do what policies in AWS's language say, and nothing else, and gives the user's pair of keys.
func (s *S3) User(t testing.TB, name string, policies ...string) (access, secret string) {
	t.Helper()
	return newUser(t, s.iam, aws.Credentials{AccessKeyID: s.AccessKey, SecretAccessKey: s.Secret}, name, policies)
}

// User makes a user who may do what policies in AWS's language say; once Enforce was called, nothing else.
func (a *AWS) User(t testing.TB, name string, policies ...string) (access, secret string) {
	t.Helper()
	return newUser(t, a.Endpoint, aws.Credentials{AccessKeyID: "testing", SecretAccessKey: "testing"}, name, policies)
}

// Enforce makes the server look at policies from now on.
func (a *AWS) Enforce(t testing.TB) {
	t.Helper()
	resp, err := http.Post(a.Endpoint+"/moto-api/reset-auth", "text/plain", strings.NewReader("0")) //nolint:noctx // a test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
}

func newUser(t testing.TB, endpoint string, root aws.Credentials, name string, policies []string) (access, secret string) {
	t.Helper()
	askIAM(t, endpoint, root, url.Values{"Action": {"CreateUser"}, "UserName": {name}}, nil)
	for i, p := range policies {
		askIAM(t, endpoint, root, url.Values{"Action": {"PutUserPolicy"}, "UserName": {name}, "PolicyName": {fmt.Sprintf("%s-%d", name, i+1)}, "PolicyDocument": {p}}, nil)
	}
	var out struct {
		ID     string `xml:"CreateAccessKeyResult>AccessKey>AccessKeyId"`
		Secret string `xml:"CreateAccessKeyResult>AccessKey>SecretAccessKey"`
	}
	askIAM(t, endpoint, root, url.Values{"Action": {"CreateAccessKey"}, "UserName": {name}}, &out)
	if out.ID == "" || out.Secret == "" {
		t.Fatalf("user %s has no keys", name)
	}
	return out.ID, out.Secret
}

// askIAM sends one request of AWS's IAM, which is a form, and decodes the answer into out.
func askIAM(t testing.TB, endpoint string, as aws.Credentials, form url.Values, out any) {
	t.Helper()
	form.Set("Version", "2010-05-08")
	body := form.Encode()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(t.Context(), as, req, hex.EncodeToString(sum[:]), "iam", "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v: %s", form.Get("Action"), resp.Status, err, answer)
	}
	if out != nil {
		if err := xml.NewDecoder(bytes.NewReader(answer)).Decode(out); err != nil {
			t.Fatal(err)
		}
	}
}

// RolePolicy is what deploy/terraform/aws lets a role do in a bucket.
func RolePolicy(t testing.TB, role, bucket string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(prereq.Root(), "deploy", "terraform", "aws", "policies", role+".json.tftpl"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "${bucket}", bucket)
}
