package gcs_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/gcs"
)

// TestPresignedURLs: the key file of a service account signs URLs; other credentials say that they cannot.
func TestPresignedURLs(t *testing.T) {
	setenv(t, []string{"STORAGE_EMULATOR_HOST=", "GOOGLE_APPLICATION_CREDENTIALS="})
	s, err := gcs.Open(t.Context(), "gs://shared/lake", gcs.Options{Endpoint: "http://127.0.0.1:1/storage/v1/"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Presign(t.Context(), "t/a.parquet", time.Minute); !errors.Is(err, objstore.ErrNoPresign) {
		t.Errorf("without credentials: %v", err)
	}
	credentials := func(fields map[string]string) {
		t.Helper()
		b, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "key.json")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	}
	credentials(map[string]string{"type": "authorized_user", "refresh_token": "x"})
	if _, err := s.Presign(t.Context(), "t/a.parquet", time.Minute); !errors.Is(err, objstore.ErrNoPresign) {
		t.Errorf("a person's credentials: %v", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	credentials(map[string]string{"type": "service_account", "client_email": "lake@project.example", "private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))})
	text, err := s.Presign(t.Context(), "t/day=2024-01-01/a b.parquet", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if !strings.HasSuffix(u.Path, "/lake/t/day=2024-01-01/a b.parquet") || len(q.Get("X-Goog-Signature")) != 512 || q.Get("X-Goog-Expires") != "59" && q.Get("X-Goog-Expires") != "60" {
		t.Errorf("URL %s", text)
	}
}
