package peers

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/test/lab"
)

// What DESCRIBE and SHOW tell of a table is what Spark tells of it, column by column.
func TestDescriptionsAreSparks(t *testing.T) {
	s := startSpark(t)
	l := lab.NewLake(t)
	l.Run("table", "create", "./plain", "--column", "id BIGINT NOT NULL COMMENT 'the id'", "--column", "name STRING", "--column", "tags MAP<STRING, ARRAY<BIGINT>>", "--column", "s STRUCT<a: TINYINT, b: DECIMAL(10,2)>")
	l.Run("table", "create", "./days", "--column", "day DATE", "--column", "id INT COMMENT 'it''s'", "--partition-by", "day", "--property", "delta.appendOnly=false", "--property", "my.own=x")
	l.Run("table", "create", "./clustered", "--column", "id INT", "--column", "k STRING", "--cluster-by", "k", "--cluster-by", "id")
	write := func(sql string) { l.Run("query", "--write", sql) }
	write("INSERT INTO './plain' (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
	write("UPDATE './plain' SET name = 'x' WHERE id = 2")
	write("DELETE FROM './plain' WHERE id = 3")
	write("INSERT INTO './days' VALUES ('2024-08-20', 1), ('2024-08-21', 2), (NULL, 3)")
	write("MERGE INTO './days' t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE")
	l.Run("table", "optimize", "./days")
	write("INSERT INTO './clustered' VALUES (1, 'a')")

	for _, table := range []string{"plain", "days", "clustered"} {
		for _, statement := range []string{"DESCRIBE HISTORY %s", "DESCRIBE DETAIL %s", "DESCRIBE %s", "SHOW TBLPROPERTIES %s", "SHOW PARTITIONS %s"} {
			var here []map[string]any
			if statement == "SHOW PARTITIONS %s" && table != "days" {
				continue
			}
			out := l.Run("query", fmt.Sprintf(statement, "'./"+table+"'"), "--format", "jsonl")
			for line := range strings.Lines(out) {
				var row map[string]any
				if err := json.Unmarshal([]byte(line), &row); err != nil {
					t.Fatal(err)
				}
				here = append(here, row)
			}
			// By its path Spark does not tell what a table is clustered by, by its name it does.
			if statement == "DESCRIBE %s" && table == "clustered" {
				here = here[:2]
			}
			there := s.sql(fmt.Sprintf(statement, "delta.`"+l.Path(table)+"`"))
			what := fmt.Sprintf(statement, table)
			if len(here) != len(there) {
				t.Errorf("%s: %d rows, Spark has %d:\n%v\n%v", what, len(here), len(there), here, there)
				continue
			}
			for i := range here {
				for k := range there[i] {
					if _, ok := here[i][k]; !ok {
						t.Errorf("%s: no column %s", what, k)
					}
				}
				for k, v := range here[i] {
					want := there[i][k]
					switch {
					case k == "timestamp" || k == "createdAt" || k == "lastModified": // Python's text of it
						at, err := time.Parse("2006-01-02 15:04:05", fmt.Sprint(want))
						if err != nil {
							t.Fatal(err)
						}
						want = at.Format(time.RFC3339Nano)
					case k == "location":
						want = strings.Replace(fmt.Sprint(want), "file:/", "file:///", 1)
					}
					if !reflect.DeepEqual(v, want) {
						t.Errorf("%s, row %d: %s is %v, Spark has %v", what, i+1, k, v, want)
					}
				}
			}
		}
	}
}
