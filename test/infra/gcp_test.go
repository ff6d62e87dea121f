package infra

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/cauce-data/cauce/internal/prereq"
)

// module holds the blocks of a Terraform module, by type and labels: "resource.google_storage_bucket.lake".
type module map[string]block

type block struct {
	*hclsyntax.Block
	src []byte
}

func parseModule(t *testing.T, dir string) module {
	t.Helper()
	m := module{}
	files, err := filepath.Glob(filepath.Join(dir, "*.tf"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no module in %s: %v", dir, err)
	}
	for _, path := range files {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, diags := hclparse.NewParser().ParseHCL(src, path)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		for _, b := range f.Body.(*hclsyntax.Body).Blocks { //nolint:errcheck // what a parser of native syntax gives
			m[strings.Join(append([]string{b.Type}, b.Labels...), ".")] = block{b, src}
		}
	}
	return m
}

// text is the source of an attribute, reached through nested blocks; "" if there is none.
func (b block) text(path ...string) string {
	body := b.Body
	for _, name := range path[:len(path)-1] {
		i := slices.IndexFunc(body.Blocks, func(b *hclsyntax.Block) bool { return b.Type == name })
		if i < 0 {
			return ""
		}
		body = body.Blocks[i].Body
	}
	a := body.Attributes[path[len(path)-1]]
	if a == nil {
		return ""
	}
	return string(a.Expr.Range().SliceBytes(b.src))
}

// literal is the value of an attribute that refers to nothing.
func (b block) strings(t *testing.T, name string) []string {
	t.Helper()
	v, diags := b.Body.Attributes[name].Expr.Value(&hcl.EvalContext{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var out []string
	for _, e := range v.AsValueSlice() {
		out = append(out, e.AsString())
	}
	return out
}

// TestTerraformOnGoogleCloud reads deploy/terraform/gcp. It has never been applied: there is nothing here that plays the rest
// of Google Cloud, nor the provider.
func TestTerraformOnGoogleCloud(t *testing.T) {
	m := parseModule(t, filepath.Join(prereq.Root(), "deploy", "terraform", "gcp"))
	bucket := m["resource.google_storage_bucket.lake"]
	for want, path := range map[string][]string{
		`"enforced"`:                    {"public_access_prevention"},
		"google_kms_crypto_key.lake.id": {"encryption", "default_kms_key_name"},
		"var.old_version_days":          {"lifecycle_rule", "condition", "days_since_noncurrent_time"},
		"var.bucket":                    {"name"},
		"true":                          {"uniform_bucket_level_access"},
		"[google_kms_crypto_key_iam_member.storage]": {"depends_on"},
	} {
		if got := bucket.text(path...); got != want {
			t.Errorf("bucket: %s is %s, want %s", strings.Join(path, "."), got, want)
		}
	}
	if got := bucket.text("versioning", "enabled"); got != "true" {
		t.Errorf("versioning is %q", got)
	}
	if folders := m["resource.google_storage_bucket_object.folder"].text("for_each"); !strings.Contains(folders, `"raw/batch/"`) || !strings.Contains(folders, `"raw/streaming/"`) {
		t.Errorf("folders: %s", folders)
	}

	// Only maintenance may delete; writers may replace the pointer to the newest checkpoint. Nobody else has a role with that right.
	deleting := []string{}
	for name, b := range m {
		if b.Type == "resource" && b.Labels[0] == "google_project_iam_custom_role" && slices.Contains(b.strings(t, "permissions"), "storage.objects.delete") {
			deleting = append(deleting, strings.TrimPrefix(name, "resource.")+".id")
		}
	}
	if !slices.Equal(deleting, []string{"google_project_iam_custom_role.replace.id"}) {
		t.Errorf("roles that delete: %v", deleting)
	}
	for name, b := range m {
		if b.Type != "resource" || !strings.HasSuffix(b.Labels[0], "_iam_member") && !strings.HasSuffix(b.Labels[0], "_iam_binding") {
			continue
		}
		role, member, condition := b.text("role"), b.text("member"), b.text("condition", "expression")
		onBucket := b.Labels[0] == "google_storage_bucket_iam_member"
		if onBucket && condition == "" {
			t.Errorf("%s holds for the whole bucket", name)
		}
		if onBucket && strings.Contains(member, `"producer"`) {
			t.Errorf("%s: the producer sees the bucket", name)
		}
		if onBucket && strings.Contains(role, "roles/storage.") {
			t.Errorf("%s: %s allows more than is needed", name, role)
		}
		if slices.Contains(deleting, role) && !strings.Contains(member, `"maintenance"`) && !strings.Contains(condition, "endsWith('/_delta_log/_last_checkpoint')") {
			t.Errorf("%s lets %s delete: %s", name, member, condition)
		}
	}
	locals := m["locals"]
	for _, c := range []struct{ table, role, folder string }{{"writes", "batch", "raw/streaming/"}, {"reads", "reader", "raw/"}, {"writes", "maintenance", "raw/"}, {"writes", "streaming", "raw/batch/"}} {
		for _, line := range strings.Split(locals.text(c.table), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), c.role+" ") && strings.Contains(line, c.folder) {
				t.Errorf("%s of %s: %s", c.table, c.role, line)
			}
		}
	}
	for _, name := range []string{"producer", "reader"} {
		if strings.Contains(locals.text("writes"), name) {
			t.Errorf("%s writes", name)
		}
	}
	if got := m["resource.google_pubsub_topic_iam_member.producer"].text("role"); got != `"roles/pubsub.publisher"` {
		t.Errorf("the producer is %s", got)
	}
}

// TestInfrastructureHasNoKnownFaults lets checkov look at both modules and at the container file. What it finds and we do not
// want is named where it stands, with the reason.
func TestInfrastructureHasNoKnownFaults(t *testing.T) {
	bin := prereq.Need(t, "checkov")
	cmd := exec.Command(bin, "--directory", "deploy", "--framework", "terraform", "dockerfile", "--compact", "--quiet", "--output", "json", "--skip-download", "--download-external-modules", "false")
	cmd.Dir = prereq.Root()
	cmd.Env = append(os.Environ(), "LOG_LEVEL=ERROR", "HOME="+t.TempDir())
	out, err := cmd.Output()
	type report struct {
		Kind    string `json:"check_type"`
		Results struct {
			Failed []struct {
				ID       string `json:"check_id"`
				Name     string `json:"check_name"`
				Resource string `json:"resource"`
				File     string `json:"file_path"`
			} `json:"failed_checks"`
		} `json:"results"`
		Summary struct{ Passed int } `json:"summary"`
	}
	var reports []report
	if jerr := json.Unmarshal(out, &reports); jerr != nil {
		t.Fatalf("%v: %v in %.2000s", err, jerr, out)
	}
	passed := map[string]int{}
	for _, r := range reports {
		passed[r.Kind] = r.Summary.Passed
		for _, f := range r.Results.Failed {
			t.Errorf("%s: %s: %s (%s)", f.File, f.Resource, f.Name, f.ID)
		}
	}
	if passed["terraform"] < 50 || passed["dockerfile"] < 5 {
		t.Errorf("checkov looked at too little: %v", passed)
	}
}
