package cloudtest

import (
	"testing"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
)

// AWS is a running moto server: DynamoDB, IAM, STS and more of AWS, S3 included.
type AWS struct {
	Endpoint string
	p        *process
}

// NewAWS starts moto. Without it the test is skipped by name.
func NewAWS(t testing.TB) *AWS {
	t.Helper()
	bin := prereq.Need(t, "moto")
	addr := loopback.Free(t)
	a := &AWS{Endpoint: "http://" + addr}
	a.p = launch(t, addr, []string{"AWS_ACCESS_KEY_ID=testing", "AWS_SECRET_ACCESS_KEY=testing"}, bin, "-H", "127.0.0.1", "-p", port(addr))
	a.p.waitHTTP(a.Endpoint + "/moto-api/")
	return a
}

// Env are the environment variables by which AWS clients use the server.
func (a *AWS) Env() []string { return AWSEnv(a.Endpoint, "testing", "testing") }
