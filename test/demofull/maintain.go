package main

import (
	"fmt"
	"time"
)

// symbolAsked is a symbol that stands in today's partition alone.
const symbolAsked = "BNBUSDT"

// layout is how the rows of a version lie in its data files.
type layout struct {
	Files, Admit int // data files, and those of them that may hold symbolAsked
	// Changes is how often two rows that follow each other in a file have different symbols; Least how often they must, where each file
	// holds the symbols that it holds.
	Changes, Least int
}

func (l layout) String() string { return fmt.Sprintf("%d of %d files", l.Admit, l.Files) }

// maintain is phase 4, under the stream: the maintenance role packs the table in Z-order, nobody else may delete, and versions are
// what they were.
func (d *demo) maintain() {
	before := d.commits()
	last := before[len(before)-1].Version
	var had, have layout
	d.ask(&had, "files", tableURL, fmt.Sprint(last), symbolAsked, d.disk("processed/unified-events"))
	d.as(roleMaintenance).Run("table", "optimize", table, "--zorder", "symbol")
	var packed []string
	args := []string{"unchanged", tableURL}
	for _, c := range d.commits()[last+1:] {
		if c.Operation == "OPTIMIZE" {
			packed = append(packed, fmt.Sprint(c.Version))
		}
	}
	if len(packed) == 0 {
		d.t.Fatal("OPTIMIZE left no commit of its own")
	}
	version := packed[len(packed)-1]
	d.say("OPTIMIZE with Z-order by symbol, as the maintenance role: version %s", version)
	compared := map[string]struct {
		Rows  int
		Equal bool
	}{}
	d.ask(&compared, append(args, packed...)...)
	same, rows := 0, 0
	for _, c := range compared {
		rows = c.Rows
		if c.Equal && c.Rows > 0 {
			same++
		}
	}
	d.equal("commits of OPTIMIZE that changed no row", same, len(packed), fmt.Sprintf("all %d rows of each version and of the one before, by deltalake", rows))

	d.ask(&have, "files", tableURL, version, symbolAsked, d.disk("processed/unified-events"))
	d.holds("Z-order: rows of a symbol lie together", have.Changes == have.Least && had.Changes > have.Changes,
		fmt.Sprintf("the symbol changes %d times from row to row in %d files", have.Changes, have.Files), fmt.Sprintf("%d times, which is as seldom as can be; %d before", have.Least, had.Changes),
		"the data files on the S3 server's disk, by pyarrow")
	var q struct {
		Opened int `json:"files_opened"`
		Total  int `json:"files_total"`
	}
	d.as(roleReader).JSON(&q, "query", "SELECT count(*) AS n FROM "+table+" WHERE symbol = '"+symbolAsked+"'", "--as-of", version)
	d.equal("files that cauce query opens for "+symbolAsked, layout{Files: q.Total, Admit: q.Opened}, have, "statistics of the data files, by deltalake")

	d.denied(roleBatch, "s3:DeleteObject on arn:aws:s3:::"+bucket+"/processed/unified-events/", "table", "vacuum", table, "--retention", "0s", "--force")
	d.denied(roleReader, "s3:PutObject on arn:aws:s3:::"+bucket+"/processed/unified-events/", "query", "--write", "DELETE FROM "+table+" WHERE symbol = '"+symbolAsked+"'")

	night, at := fmt.Sprint(d.night1.version), d.night1.at.UTC().Format(time.RFC3339)
	d.equal("time travel to the first night, by version", d.queried(night), d.night1.want, "the CSV files of that night, by Python")
	d.equal("time travel to the first night, by time", d.queried(at), d.night1.want, "the CSV files of that night, by Python")
	var now figures
	d.ask(&now, "table", tableURL, version)
	there := d.sparkSQL(night, version)
	d.equal("Spark SQL, VERSION AS OF the first night", there[0], d.night1.want, "the CSV files of that night, by Python")
	d.equal("Spark SQL, VERSION AS OF the packed version", there[1], now, "deltalake")
	d.equal("cauce query --as-of the packed version", d.queried(version), now, "deltalake")
	d.as(roleMaintenance).Run("table", "vacuum", table)
	d.equal("the first night after VACUUM with its retention of a week", d.queried(night), d.night1.want, "the CSV files of that night, by Python")
}
