package cloud

import (
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

const sharedLake = `version: 1
storage: %s
store: {commit: dynamodb, commit_scheme: s3}
tables:
  items: {columns: {id: STRING, n: LONG}, location: processed/items}
sources:
  unused: {table: items, kind: files, location: ["raw/batch/*.csv"], format: csv, fields: {id: id, n: n}}
`

// TestWritersCommitThroughDynamoDB lets processes append to one table on S3 at the same time, with the commit entries in DynamoDB
// that Delta for Spark defined; some of them are killed. No row is lost and none stands there twice, and every version has its
// entry. (Spark's class cannot be had from the registry here and delta-rs has given its own up, so nobody else takes part.)
func TestWritersCommitThroughDynamoDB(t *testing.T) {
	prereq.Need(t, "versitygw")
	prereq.Need(t, "moto")
	srv, db := cloudtest.NewS3(t), cloudtest.NewAWS(t)
	root := "s3://" + srv.Bucket(t, "lake") + "/some/prefix"
	client := dynamoDB(t, db, srv)
	l := lab.NewLakeOf(t, fmt.Appendf(nil, sharedLake, root))
	l.Env = append(srv.Env(""), "AWS_ENDPOINT_URL_S3="+srv.Endpoint, "AWS_ENDPOINT_URL_DYNAMODB="+db.Endpoint)
	first := filepath.Join(t.TempDir(), "first.csv")
	if err := os.WriteFile(first, []byte("id,n\nfirst,0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Run("land", first)
	l.Run("run", "batch")

	rnd := testscale.Rand(t)
	acked, maybe := map[string]bool{"first": true}, map[string]bool{}
	until := time.Now().Add(time.Duration(testscale.Count(t, "commit-seconds")) * time.Second)
	var mu sync.Mutex
	var wg sync.WaitGroup
	kills := 0
	for w := range 3 {
		seed := rnd.Uint64()
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 0))
			for i := 0; i < 5 || time.Now().Before(until); i++ {
				id := fmt.Sprintf("cauce%d-%d", w, i)
				p := l.Start(nil, "query", "--write", fmt.Sprintf("INSERT INTO items (id, n) VALUES ('%s', %d)", id, i))
				if i%4 == 3 {
					time.Sleep(time.Duration(100+r.IntN(400)) * time.Millisecond)
					p.Kill()
				}
				code := p.Wait(2 * time.Minute)
				mu.Lock()
				switch code {
				case 0:
					acked[id] = true
				case -1:
					kills++
					maybe[id] = true
				case 5: // the others kept winning
				default:
					t.Errorf("%s: exit code %d: %s%s", id, code, p.Stdout.String(), p.Stderr.String())
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	lines, err := csv.NewReader(strings.NewReader(l.Run("query", "SELECT id FROM items ORDER BY id", "--format", "csv"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, r := range lines[1:] {
		seen[r[0]]++
	}
	for id := range acked {
		if seen[id] != 1 {
			t.Errorf("%s was acknowledged and stands there %d times", id, seen[id])
		}
	}
	for id, n := range seen {
		if n != 1 || !acked[id] && !maybe[id] {
			t.Errorf("%s stands there %d times, acknowledged %v", id, n, acked[id])
		}
	}

	// One entry a version, all of them under one path and closed.
	commits, err := filepath.Glob(filepath.Join(srv.Path("lake", "some/prefix/processed/items/_delta_log"), "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var entries []string
	for p := dynamodb.NewScanPaginator(client, &dynamodb.ScanInput{TableName: aws.String("delta_log")}); p.HasMorePages(); {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Items {
			get := func(k string) string {
				v, ok := item[k].(*types.AttributeValueMemberS)
				if !ok {
					return ""
				}
				return v.Value
			}
			if strings.HasSuffix(get("tablePath"), "/quarantine") {
				continue
			}
			entries = append(entries, get("fileName"))
			if get("tablePath") != root+"/processed/items" || get("complete") != "true" {
				t.Errorf("entry %v", item)
			}
		}
	}
	slices.Sort(entries)
	if unique := slices.Compact(slices.Clone(entries)); len(unique) != len(entries) || len(commits) != len(entries) {
		t.Errorf("%d entries, %d of them different, %d commits", len(entries), len(unique), len(commits))
	}
	if len(acked) < 5 || kills == 0 {
		t.Errorf("only %d rows, %d kills", len(acked), kills)
	}
	t.Logf("REPORT: %d rows, %d kills, %d versions", len(acked), kills, len(commits))
}

// dynamoDB makes the table of commits, and gives a client.
func dynamoDB(t *testing.T, db *cloudtest.AWS, srv *cloudtest.S3) *dynamodb.Client {
	t.Helper()
	for _, e := range srv.Env(db.Endpoint) {
		k, v, _ := strings.Cut(e, "=")
		t.Setenv(k, v)
		if v == "" {
			if err := os.Unsetenv(k); err != nil {
				t.Fatal(err)
			}
		}
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) { o.DisableValidateResponseChecksum = true })
	_, err = client.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: aws.String("delta_log"), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("tablePath"), AttributeType: "S"}, {AttributeName: aws.String("fileName"), AttributeType: "S"}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("tablePath"), KeyType: "HASH"}, {AttributeName: aws.String("fileName"), KeyType: "RANGE"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}
