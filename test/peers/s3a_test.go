package peers

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestSparkReadsThroughS3A: Spark reads a table that Cauce wrote on S3 through Hadoop's client, with deletion vectors and
// earlier versions.
func TestSparkReadsThroughS3A(t *testing.T) {
	prereq.Need(t, "s3a")
	prereq.Need(t, "versitygw")
	spark := startSpark(t)
	srv := cloudtest.NewS3(t)
	root := srv.Bucket(t, "lake") + "/some/prefix"
	l := lab.NewLake(t)
	l.Env = append(srv.Env(""), "CAUCE_ROOT=s3://"+root)
	g := lab.NewGenerator(testscale.Rand(t), 2)
	l.Run("land", g.History(t, t.TempDir(), 0, 500, 20).Path)
	l.Run("run", "batch")
	before := g.Expected.Lines()
	events := filepath.Join(t.TempDir(), "events.jsonl")
	g.Events(t, events, 300)
	l.Run("produce", "replay", events)
	l.Run("run", "stream", "--available-now")

	for key, value := range map[string]string{
		"endpoint": srv.Endpoint, "endpoint.region": "us-east-1", "access.key": srv.AccessKey, "secret.key": srv.Secret, "path.style.access": "true",
		"connection.ssl.enabled": "false", "aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
	} {
		spark.sql("SET fs.s3a." + key + "=" + value)
	}
	var texts []string // numbers of JSON would lose digits
	for _, c := range lab.Columns {
		texts = append(texts, fmt.Sprintf("CAST(%s AS STRING) AS %s", c, c))
	}
	read := func(version string) []string {
		var text bytes.Buffer
		w := csv.NewWriter(&text)
		_ = w.Write(lab.Columns)
		for _, row := range spark.sql("SELECT " + strings.Join(texts, ", ") + " FROM delta.`s3a://" + root + "/processed/unified-events` " + version) {
			var fields []string
			for _, c := range lab.Columns {
				v := ""
				if row[c] != nil {
					v = fmt.Sprint(row[c])
				}
				fields = append(fields, v)
			}
			_ = w.Write(fields)
		}
		if w.Flush(); w.Error() != nil {
			t.Fatal(w.Error())
		}
		return lab.Lines(t, text.Bytes(), lab.Columns)
	}
	if d := lab.Diff(g.Expected.Lines(), read("")); d != "" {
		t.Error(d)
	}
	if got := read("VERSION AS OF 1"); len(got) != len(before) {
		t.Errorf("version 1 has %d rows, want %d", len(got), len(before))
	} else if d := lab.Diff(before, got); d != "" {
		t.Error(d)
	}
}
