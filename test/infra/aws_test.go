package infra

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/test/lab"
)

// terraform is a module in a folder of the test.
type terraform struct {
	t   *testing.T
	bin string
	dir string
	env []string
}

// newTerraform copies deploy/terraform/<name> and makes it ready, with the providers of this machine and an override file.
func newTerraform(t *testing.T, name, override string, env []string) *terraform {
	t.Helper()
	tf := &terraform{t: t, bin: prereq.Need(t, "terraform"), dir: t.TempDir()}
	if err := os.CopyFS(tf.dir, os.DirFS(filepath.Join(prereq.Root(), "deploy", "terraform", name))); err != nil {
		t.Fatal(err)
	}
	rc := filepath.Join(t.TempDir(), "terraform.rc")
	for path, text := range map[string]string{
		filepath.Join(tf.dir, "test_override.tf"): override,
		rc: fmt.Sprintf("provider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", prereq.TerraformPlugins()),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tf.env = slices.Concat(os.Environ(), env, []string{"TF_CLI_CONFIG_FILE=" + rc, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "TF_INPUT=0"})
	tf.run(0, "init", "-no-color")
	return tf
}

// run runs terraform, which must end with a code, and gives what it prints.
func (tf *terraform) run(code int, args ...string) []byte {
	tf.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tf.bin, args...)
	cmd.Dir, cmd.Env = tf.dir, tf.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		tf.t.Fatalf("terraform %s: %v, not %d\n%s%s", strings.Join(args, " "), cmd.ProcessState, code, out.String(), errs.String())
	}
	return out.Bytes()
}

// motoProvider is how the provider of AWS is told that the server is not Amazon's. moto does not look at the condition of the
// bucket's policy and would deny everything that comes without TLS; so here it denies what nobody asks for.
const motoProvider = `
provider "aws" {
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
}

resource "aws_s3_bucket_policy" "lake" {
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:PutBucketWebsite"
      Resource  = aws_s3_bucket.lake.arn
    }]
  })
}

# moto compares the table of a policy with "*".
resource "aws_iam_role_policy" "commits" {
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = each.value, Resource = "*" }]
  })
}
`

// TestTerraformOnAWS applies deploy/terraform/aws to a server that plays AWS, and then follows docs/aws.md with the lake file and
// the roles that come out of it, while that server enforces their policies.
func TestTerraformOnAWS(t *testing.T) {
	prereq.Need(t, "terraform")
	prereq.Need(t, "moto")
	srv := cloudtest.NewAWS(t)
	tf := newTerraform(t, "aws", motoProvider, srv.Env())
	tf.run(0, "validate", "-no-color")
	// Somebody who may do nothing but assume roles that trust him, and somebody whom none trusts.
	const assume = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]}`
	access, secret := srv.User(t, "operator", assume)
	strange, strangeSecret := srv.User(t, "stranger", assume)
	vars := []string{
		"-no-color", "-var", "bucket=lake-of-a-test", "-var", "dynamodb_commits=true",
		"-var", `trusted_principals=["arn:aws:iam::123456789012:user/operator"]`,
	}
	tf.run(0, append([]string{"apply", "-auto-approve"}, vars...)...)
	tf.run(0, append([]string{"plan", "-detailed-exitcode"}, vars...)...) // 2 would be a change
	kafkaIsPlanned(t, tf, vars)

	var out struct {
		Roles   struct{ Value map[string]string }
		Storage struct{ Value string }
		Prefix  struct{ Value string } `json:"role_prefix"`
	}
	if err := json.Unmarshal(tf.run(0, "output", "-json"), &out); err != nil {
		t.Fatal(err)
	}
	if out.Storage.Value != "s3://lake-of-a-test" || len(out.Roles.Value) != 5 {
		t.Fatalf("outputs %+v", out)
	}
	srv.Enforce(t)

	// docs/aws.md, from the lake file to the denials, as it stands there.
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "deploy", "terraform"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(tf.dir, filepath.Join(dir, "deploy", "terraform", "aws")); err != nil {
		t.Fatal(err)
	}
	script, denials := docScript(t)
	if denials < 8 {
		t.Fatalf("docs/aws.md proves only %d denials", denials)
	}
	bin := lab.NewLake(t).Program()
	bash := func(script string, env []string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
		cmd.Dir = dir
		cmd.Env = slices.Concat(tf.env, env, []string{"CAUCE_ROOT=", "PATH=" + filepath.Dir(bin) + ":" + os.Getenv("PATH")})
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	said, err := bash(script, cloudtest.AWSEnv(srv.Endpoint, access, secret))
	if err != nil {
		t.Fatalf("docs/aws.md: %v\n%s", err, said)
	}
	if !strings.HasSuffix(strings.TrimSpace(said), "\n4") {
		t.Errorf("the last answer of docs/aws.md is not 4 trades:\n%s", said)
	}
	said, err = bash("cd lake; LAKE_ROLE="+out.Prefix.Value+"maintenance cauce status", cloudtest.AWSEnv(srv.Endpoint, strange, strangeSecret))
	if err == nil || !strings.Contains(said, "sts:AssumeRole") {
		t.Errorf("a stranger takes a role: %v\n%s", err, said)
	}
}

// docScript is the script that the blocks "sh set-up aws" of docs/aws.md make, in which a command marked "# denied" must end
// with exit code 2 and say so.
func docScript(t *testing.T) (script string, denials int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(prereq.Root(), "docs", "aws.md"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`denied() {
	if "$@" >answer 2>&1; then echo "allowed: $*"; exit 1; else code=$?; fi
	cat answer
	[ $code = 2 ] || { echo "exit code $code: $*"; exit 1; }
	grep -q "denied" answer && grep -q "use a role that has it" answer || { echo "does not help: $*"; exit 1; }
}
`)
	inside := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		command, marked := strings.CutSuffix(line, "# denied")
		switch {
		case !inside && line == "```sh set-up aws":
			inside = true
		case inside && line == "```":
			inside = false
		case inside && marked:
			denials++
			b.WriteString("denied " + command + "\n")
		case inside:
			b.WriteString(line + "\n")
		}
	}
	return b.String(), denials
}

// kafkaIsPlanned plans the cluster that the server does not play, and looks at what the plan would make.
func kafkaIsPlanned(t *testing.T, tf *terraform, vars []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "plan")
	tf.run(0, append([]string{"plan", "-out", file, "-var", `kafka={vpc_id="vpc-1",subnets=["subnet-1","subnet-2"],security_groups=["sg-1"]}`}, vars...)...)
	var plan struct {
		Changes []struct {
			Address string
			Change  struct {
				Actions []string
				After   map[string]any
			}
		} `json:"resource_changes"`
	}
	if err := json.Unmarshal(tf.run(0, "show", "-json", file), &plan); err != nil {
		t.Fatal(err)
	}
	made := map[string]map[string]any{}
	for _, c := range plan.Changes {
		switch {
		case slices.Equal(c.Change.Actions, []string{"create"}):
			made[c.Address] = c.Change.After
		case !slices.Equal(c.Change.Actions, []string{"no-op"}) && !slices.Equal(c.Change.Actions, []string{"read"}):
			t.Errorf("Kafka changes %s: %v", c.Address, c.Change.Actions)
		}
	}
	for _, want := range []string{
		"aws_msk_cluster.kafka[0]", "aws_msk_scram_secret_association.kafka[0]", `aws_iam_role_policy.kafka["producer"]`, `aws_iam_role_policy.kafka["streaming"]`,
		`aws_secretsmanager_secret.kafka["producer"]`, `aws_secretsmanager_secret.kafka["streaming"]`,
	} {
		if made[want] == nil {
			t.Errorf("the plan with Kafka does not make %s", want)
		}
	}
	if cluster, _ := json.Marshal(made["aws_msk_cluster.kafka[0]"]); !bytes.Contains(cluster, []byte(`"client_broker":"TLS"`)) || !bytes.Contains(cluster, []byte(`"scram":true`)) {
		t.Errorf("cluster %s", cluster)
	}
	for address := range made {
		if strings.Contains(address, "aws_iam_role_policy.kafka") && !strings.Contains(address, "producer") && !strings.Contains(address, "streaming") {
			t.Errorf("%s lets another role into Kafka", address)
		}
	}
}
