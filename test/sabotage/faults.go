package main

// faults are the ways in which the program is broken, one at a time.
var faults = []fault{
	{
		name: "deleted-rows-come-back", what: "what records have deleted is seen again when no source of the lake file deletes any more",
		edits: []edit{{"pipeline/lake.go", "if _, ok := s.Field(ColumnDeleted); !ok {", "if _, ok := s.Field(ColumnDeleted); ok || !ok {"}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^deletions$",
	},
	{
		name: "shares-have-deleted-rows", what: "recipients see what records have deleted when no source of the lake file deletes any more",
		edits: []edit{{"serve/sharing/lines.go", "t.deletes = pipeline.HideDeleted(snap.Schema()) != \"\"", "t.deletes = pipeline.HideDeleted(snap.Schema()) == \"-\""}},
		pkg:   "./serve/sharing", test: "^TestRowsAreTheTables$",
	},
	{
		name: "spooled-events-have-keys", what: "events without key come out of a spool with an empty one, which is a key to Kafka",
		edits: []edit{{"connect/spool/files.go", "\tif len(key) == 0 {\n", "\tif len(key) == 0 && len(id) == 0 {\n"}},
		pkg:   "./connect/spool", test: "^TestEventsWithoutKeyStayWithout$",
	},
	{
		name: "expired-markers-are-a-gap", what: "a transaction's marker that expires behind the last message stops a stream that has read all",
		edits: []edit{{"connect/kafka/source.go", "if next-1 > at.Offset {", "if next-1 > at.Offset && p < 0 {"}},
		pkg:   "./connect/kafka", test: "^TestBroker$/^expired_markers$",
	},
	{
		name: "deleted-rows-are-there", what: "why says of a row that an event has deleted that it is in the table",
		edits: []edit{{"ingest/why.go", "bool { return !v.Deleted })", "bool { return len(now) > 0 || !v.Deleted })"}},
		pkg:   "./ingest", test: "^TestWhyOfADeletedRow$",
	},
	{
		name: "one-damaged-recipient-keeps-all", what: "nobody can be revoked while the file of one recipient is damaged",
		edits: []edit{{"serve/sharing/recipients.go", "\t\t\twho = &Recipient{ID: id, Damaged: err}\n", "\t\t\treturn nil, err\n"}},
		pkg:   "./serve/sharing", test: "^TestDamagedRecipients$",
	},
	{
		name: "quiet-queue-stood-still", what: "a stream over a topic on which nothing is published for long ends as one that stood still",
		edits: []edit{{"ingest/stream.go", "if err != nil || len(moved) == 0 {", "if err != nil || len(moved) >= 0 {"}},
		pkg:   "./ingest", test: "^TestQuietQueueIsNoGap$",
	},
	{
		name: "archive-of-odd-times", what: "a message that is stamped with a time beyond the year 9999 stops a stream that keeps its messages",
		edits: []edit{{"ingest/rawarchive.go", "markTime(r.Time).UTC()", "r.Time.UTC()"}},
		pkg:   "./ingest", test: "^TestArchivedTimesBeyondTheCalendar$",
	},
	{
		name: "quarantine-of-odd-times", what: "a message that is stamped with a time beyond the year 9999 keeps quarantine from being shown as JSON",
		edits: []edit{{"ingest/quarantine.go", "markTime(*r.MessageTime).IsZero()", "r.MessageTime.IsZero()"}},
		pkg:   "./ingest", test: "^TestArchivedTimesBeyondTheCalendar$",
	},
	{
		name: "spark-counts-losses-of-a-lifetime", what: "a stream on Spark ends when other runs were faster twenty times in its life",
		edits: []edit{{"engine/spark/driver/stream.py", "lost = 1 if report[\"epochs\"] > before else lost + 1", "lost = lost + 1"}},
		pkg:   "./test/spark", test: "^TestStreamOutlivesRunsThatAreFaster$",
	},
	{
		name: "begin-in-quarantine", what: "a first day whose first ids may be in quarantine is complete",
		edits: []edit{{"ingest/ledger.go", "return inFile(p) && (!some || w.first >= p.Position)", "_, _ = some, w\n\t\treturn inFile(p)"}},
		pkg:   "./ingest", test: "^TestLedgerOfADayWhoseEndIsInQuarantine$",
	},
	{
		name: "days-end-before-quarantine", what: "the ledger calls a day complete whose last ids are in quarantine",
		edits: []edit{{"ingest/ledger.go", "return inFile(p) && waits[p.Origin].last <= p.Position }", "return inFile(p) }"}},
		pkg:   "./ingest", test: "^TestLedgerOfADayWhoseEndIsInQuarantine$",
	},
	{
		name: "batches-of-any-topic", what: "a producer ends with small messages where a topic takes smaller batches than others, and with large ones where it takes them",
		edits: []edit{{"connect/kafka/sink.go", "kgo.ProducerBatchMaxBytes(batch)", "kgo.ProducerBatchMaxBytes(max(batch, batchBytesDefault)), kgo.ProducerBatchMaxBytes(batchBytesDefault)"}},
		pkg:   "./connect/kafka", test: "^TestBroker$/^message_sizes$",
	},
	{
		name: "removed-share-has-every-table", what: "recipients of a share that was taken out of the lake file read every table",
		edits: []edit{{"serve/sharing/server.go", "if decl == nil && who.Declared {", "if decl != nil && who.Share == \"\" {"}},
		pkg:   "./serve/sharing", test: "^TestTablesOfARecipient$",
	},
	{
		name: "days-begin-with-their-stream", what: "the ledger calls a day complete of which a stream has seen the afternoon alone",
		edits: []edit{{"ingest/ledger.go", "openBegin[key{series, g.Day}] = g.From > 1 &&", "openBegin[key{series, g.Day}] = g.From < 0 &&"}},
		pkg:   "./ingest", test: "^TestLedgerOfADayWithAnOpenBegin$",
	},
	{
		name: "endpoint-without-scheme", what: "check takes an address of a bucket's server that no request can be sent to",
		edits: []edit{{"pipeline/load.go", "u.Scheme != \"http\" && u.Scheme != \"https\" || u.Host == \"\" {\n\t\t\tb.r.errorf(x.at, \"write it like http://localhost:9000\"", "u.Path == \"/-\" {\n\t\t\tb.r.errorf(x.at, \"write it like http://localhost:9000\""}},
		pkg:   "./pipeline", test: "^TestLakeFiles$/^diagnostics$",
	},
	{
		name: "names-with-dots", what: "of a member a.b and what stands in a, whatever comes last in the record counts",
		edits: []edit{{"engine/duckdb/json.go", "(n.own || !s.values[n.field].own)", "(n.own || n != nil)"}},
		pkg:   "./engine/duckdb", test: "^TestNamesWithDots$",
	},
	{
		name: "unpacked-by-the-service", what: "objects of Google Cloud Storage with Content-Encoding: gzip are not read as they are stored",
		edits: []edit{{"objstore/gcs/gcs.go", ".ReadCompressed(true)", ""}},
		pkg:   "./objstore/gcs", test: "^TestContentEncoding$",
	},
	{
		name: "never-due", what: "check takes a time that never comes, and cauce up ends at it",
		edits: []edit{{"pipeline/schedule.go", "c.Next(time.Unix(0, 0).UTC()).IsZero() {", "c == nil {"}},
		pkg:   "./pipeline", test: "^TestLakeFiles$/^schedule$",
	},
	{
		name: "types-that-no-table-has", what: "a type inside of another that no table can have is found by a run, not by check",
		edits: []edit{{"pipeline/load.go", "if why, hint := unusable(p); why != \"\" {", "if why, hint := unusable(p); why == \"-\" {"}},
		pkg:   "./pipeline", test: "^TestLakeFiles$/^diagnostics$",
	},
	{
		name: "servers-that-hang", what: "a request that a bucket's server takes and never answers is waited for without end",
		edits: []edit{{"objstore/s3/s3.go", "t.DialContext = remote.NotSilent(t.DialContext)", "_ = t"}},
		pkg:   "./objstore/s3", test: "^TestServerThatHangs$",
	},
	{
		name: "sources-that-read-tables", what: "a source whose pattern matches the files of its own table takes them in, at each run",
		edits: []edit{{"pipeline/load.go", "matchKey(i.text, t.dataFile()) {", "matchKey(i.text, t.Location) {"}},
		pkg:   "./pipeline", test: "^TestLakeFiles$/^diagnostics$",
	},
	{
		name: "columns-without-columns", what: "a lake file whose csv.columns is an empty list ends the program",
		edits: []edit{{"pipeline/load.go", "s.CSV.Header == HeaderFalse && len(s.CSV.Columns) > 0 {", "s.CSV.Header == HeaderFalse {"}},
		pkg:   "./pipeline", test: "^TestLakeFiles$/^diagnostics$",
	},
	{
		name: "table-around-quarantine", what: "a table may lie around the lake's own folders, whose files its VACUUM deletes",
		edits: []edit{{"pipeline/load.go", "return shareFolder(t.Location, own) })", "return t.Location == own })"}},
		pkg:   "./pipeline", test: "^TestLakeFiles$/^diagnostics$",
	},
	{
		name: "copy-of-two-moments", what: "a copy beside a run has the run's rows and not what it refused",
		edits: []edit{{"ingest/copy.go", "\t\tif !moved {\n", "\t\tif moved || !moved {\n"}, {"ingest/copy.go", "\t\t\tif last != v {\n", "\t\t\tif v < 0 && last != v {\n"}},
		pkg:   "./ingest", test: "^TestCopyBesideARunKeepsWhatItRefuses$",
	},
	{
		name: "shown-bytes-become-rows", what: "a record that is no text is retried as what quarantine shows of it",
		edits: []edit{{"ingest/retry.go", "if !q.whole() {", "if q.RawBytes > int64(len(q.Raw)) {"}},
		pkg:   "./ingest", test: "^TestRetryOfARecordThatIsNoText$",
	},
	{
		name: "clocks-turned-back-count-twice", what: "an hour that clocks show twice counts with its second pass",
		edits: []edit{{"engine/duckdb/casts.go", "\tbefore := offset(shown - 24*3600)", "\tbefore := offset(shown + 24*3600)"}},
		pkg:   "./engine/duckdb", test: "^TestTimesThatClocksSkipOrShowTwice$",
	},
	{
		name: "columns-of-the-new-file", what: "quarantined records of a file that came again are split by the columns of the new one",
		edits: []edit{{"ingest/retry.go", "if m.Origin == first.Origin && len(m.Fields) > 0 {", "if len(m.Fields) > 0 {"}},
		pkg:   "./ingest", test: "^TestRetryAfterAReissueWithOtherColumns$",
	},
	{
		name: "bluesky-begins-without-cursor", what: "a producer of Bluesky that dies in its first second is followed by one that begins with what is live then",
		edits: []edit{{"connect/bluesky/bluesky.go", "\t\tc.begin(ctx, m.TimeUS)\n", ""}},
		pkg:   "./connect/bluesky", test: "^TestCursorIsThereBeforeTheFirstEvent$",
	},
	{
		name: "x-begins-without-state", what: "a producer of X that dies in its first second is followed by one that asks for nothing of what was missed",
		edits: []edit{{"connect/x/x.go", "\t\tc.heard.CompareAndSwap(0, now.UnixNano())\n", ""}},
		pkg:   "./connect/x", test: "^TestStateIsThereBeforeTheFirstPost$",
	},
	{
		name: "wall-clocks-chosen-as-instants", what: "files of wall clocks are left out by the zone of the session",
		edits: []edit{{"engine/duckdb/prune.go", "coalesce(epoch_us(v::TIMESTAMP)::VARCHAR,", "coalesce(epoch_us(v::TIMESTAMPTZ)::VARCHAR,"}},
		pkg:   "./engine/duckdb", test: "^TestPrunesInTheZoneOfTheSession$",
	},
	{
		name: "empty-key-comes-again", what: "a key whose partition column is empty is inserted each time it comes",
		edits: []edit{{"engine/duckdb/program.go", "\t\tcase empty != \"\":\n", "\t\tcase empty == \"-\":\n"}},
		pkg:   "./ingest", test: "^TestEmptyPartitionValues$",
	},
	{
		name: "with-names-what-the-worker-has", what: "the first part of a recursive WITH may name what no statement may: a view's tables, whole",
		edits: []edit{{"engine/duckdb/query.go", "; ok && k == \"right\" {", "; ok {"}},
		pkg:   "./engine/duckdb", test: "^TestQueryGate$",
	},
	{
		name: "with-of-another-case", what: "a WITH whose name is another one to DuckDB lets a statement name what the worker has",
		edits: []edit{{"engine/duckdb/query.go", "\t\tif r >= 'A' && r <= 'Z' {\n\t\t\treturn r + 'a' - 'A'\n\t\t}\n\t\treturn r\n\t}, name)", "\t\treturn r\n\t}, strings.ToLower(name))"}},
		pkg:   "./engine/duckdb", test: "^TestQueryGate$",
	},
	{
		name: "null-condition-drops-files", what: "DELETE drops a file unread whose partition values leave open whether the condition is true or null",
		edits: []edit{{"delta/write.go", "return where.decide(s.addFacts(a)) == certain", "v := where.decide(s.addFacts(a))\n\treturn v.mayTrue && !v.mayFalse"}},
		pkg:   "./delta", test: "^TestNullConditionsOfPartitionsDeleteNothing$",
	},
	{
		name: "empty-partition-is-not-null", what: "NOT NULL takes the empty value of a partition column, which the table has as null",
		edits: []edit{{"delta/enforce.go", "f.Name, slices.Contains(partitionBy, f.Name))", "f.Name, false)"}},
		pkg:   "./delta", test: "^TestEmptyPartitionValuesKeepTheRules$",
	},
	{
		name: "clone-asks-at-the-pace-of-its-origin", what: "the index forgets the files that a clone shares with its origin",
		edits: []edit{{"ingest/index/index.go", "e.table, e.used = t, t.calls", "e.used = t.calls"}},
		pkg:   "./ingest/index", test: "^TestTablesWithCommonFiles$",
	},
	{
		name: "taken-by-another-is-a-gap", what: "what another run has read, and the buffer forgotten, stops the slower one as a gap",
		edits: []edit{{"ingest/stream.go", "\treturn epoch != r.state.epoch, nil\n", "\treturn epoch < 0, nil\n"}},
		pkg:   "./ingest", test: "^TestForgottenByAnotherRun$",
	},
	{
		name: "gap-at-the-end-is-not-allowed", what: "a gap that is found where a run would end stops it though gaps are allowed",
		edits: []edit{{"ingest/stream.go", "\t\tif end && err == nil {\n\t\t\treturn r.renew(ctx)\n\t\t}\n", "\t\tif end || err != nil {\n\t\t\treturn err\n\t\t}\n"}},
		pkg:   "./ingest", test: "^TestGapFoundAtTheEndOfTheRun$",
	},
	{
		name: "busy-partition-never-ends", what: "--available-now never ends while one partition is busy and another ends with a marker",
		edits: []edit{{"ingest/stream.go", "r.low = b.rows == 0 || r.queue == nil && !r.full(b)", "r.low = b.rows == 0"}},
		pkg:   "./ingest", test: "^TestAvailableNowEndsBesideABusyPartition$",
	},
	{
		name: "full-disk-passes-over-events", what: "a sink without room makes a producer of Bluesky go back less, behind the event that was refused",
		edits: []edit{{"connect/bluesky/bluesky.go", "if s.got && !errors.Is(err, live.ErrFull) && !c.adapt(s) {", "if s.got && !c.adapt(s) {"}},
		pkg:   "./connect/bluesky", test: "^TestFullSinkLosesNothing$",
	},
	{
		name: "collections-cost-the-cursor", what: "a producer of Bluesky whose collections were changed begins with what is live",
		edits: []edit{{"connect/bluesky/bluesky.go", "live.Load(o.StateFile, stateSource)", "live.Load(o.StateFile, stateSource+strings.Join(o.Collections, \" \"))"}},
		pkg:   "./connect/bluesky", test: "^TestCursorOutlivesOtherCollections$",
	},
	{
		name: "marker-by-marker", what: "the end of a partition is looked for one batch of markers at a time",
		edits: []edit{{"connect/kafka/source.go", "const drainBytes = 1 << 20", "const drainBytes = 1"}},
		pkg:   "./connect/kafka", test: "^TestPeek",
	},
	{
		name: "open-end-is-complete", what: "the day on which a stream died is called complete",
		edits: []edit{{"ingest/ledger.go", "case d.Day >= today, openEnd[k]:", "case d.Day >= today:"}},
		pkg:   "./ingest", test: "^TestLedgerOfADayWithAnOpenEnd$",
	},
	{
		name: "waiting-stream-knows-old-rules", what: "a stream that waited judges rows by a constraint that was dropped meanwhile",
		edits: []edit{{"ingest/epoch.go", "if err == nil && rules.Concern(s.Schema().Arrow()) {", "if false {"}},
		pkg:   "./ingest", test: "^TestRowsThatTheTableRefuses$",
	},
	{
		name: "history-forgets-the-nightly", what: "the last run of a task is forgotten beside a thousand of another, and what it missed is not caught up",
		edits: []edit{{"schedule/history.go", "last[r.Task] = r.Command == \"\"\n\t\t\tcontinue\n", "last[r.Task] = r.Command == \"\"\n"}},
		pkg:   "./schedule", test: "^TestCatchUpBesideManyRuns$",
	},
	{
		name: "since-forgets-first-ids", what: "the ledger since a day does not see that the day lacks its first ids, behind days that are missing whole",
		edits: []edit{{"ingest/ledger.go", "if d.Day < o.Since {", "if true {"}},
		pkg:   "./ingest", test: "^TestLedgerSinceADayWithoutItsFirstIDs$",
	},
	{
		name: "futures-land-beside-spot", what: "archives of futures replace those of spot, which have the same names",
		edits: []edit{{"ingest/repair.go", "dir = path.Join(LandingPath, pipeline.RepairUM)", "dir = path.Join(LandingPath)"}},
		pkg:   "./ingest", test: "^TestRepairKeepsArchivesOfMarketsApart$",
	},
	{
		name: "rotated-content-is-lost", what: "the rows of a re-issued file go though another name has its content now",
		edits: []edit{{"ingest/batch.go", "ok && !held[before.SHA256] {", "ok {"}},
		pkg:   "./ingest", test: "^TestReplacedContents$",
	},
	{
		name: "run-id-by-its-beginning", what: "a run id is taken for that of another run that begins so",
		edits: []edit{{"schedule/do.go", "loadExact(o.Dir, o.ID)", "Load(o.Dir, o.ID)"}},
		pkg:   "./schedule", test: "^TestRunIDsAreWhole$",
	},
	{
		name: "vacuum-before-the-tables-time", what: "the nightly VACUUM deletes files that the table keeps for time travel",
		edits: []edit{{"ingest/maintain.go", "max(policy.Retention, retentionMin, s.DeletedFileRetention())", "max(policy.Retention, retentionMin, 0*s.DeletedFileRetention())"}},
		pkg:   "./ingest", test: "^TestMaintenanceKeepsTheTablesRetention$",
	},
	{
		name: "uuid-names-are-written-once", what: "a copy leaves a file of history as it was, because its name has a UUID",
		edits: []edit{{"ingest/copy.go", "c.ours(key) && writtenOnce", "writtenOnce"}},
		pkg:   "./ingest", test: "^TestCopyTakesAReissueAgain$",
	},
	{
		name: "infinity-is-null", what: "a comparison with an infinite time reads no file",
		edits: []edit{{"engine/duckdb/prune.go", "THEN coalesce(epoch_us(v::TIMESTAMPTZ)::VARCHAR, v::VARCHAR) ELSE", "THEN epoch_us(v::TIMESTAMPTZ)::VARCHAR ELSE"}},
		pkg:   "./engine/duckdb", test: "^TestPrunesByWhatConstantsMean$",
	},
	{
		name: "collation-is-ignored", what: "files are left out by the order of bytes where a collation orders",
		edits: []edit{{"engine/duckdb/prune.go", "\tif !strings.HasPrefix(kind, \"CONJUNCTION_\") && collated(n) {\n\t\treturn nil\n\t}\n", ""}},
		pkg:   "./engine/duckdb", test: "^TestPrunesByWhatConstantsMean$",
	},
	{
		name: "inexact-bounds-rule-out", what: "a condition with a DOUBLE leaves out files of its neighbours",
		edits: []edit{{"delta/predicate.go", "c.min.lo.compare(val.hi); ok && d >= 0", "c.min.lo.compare(val.lo); ok && d >= 0"}},
		pkg:   "./delta", test: "^TestConditionsWithInexactNumbersKeepTheirRows$",
	},
	{
		name: "null-text-is-null", what: "the partition value null is no value",
		edits: []edit{{"engine/duckdb/scan.go", "strings.EqualFold(*v, \"null\") || ", ""}},
		pkg:   "./engine/duckdb", test: "^TestPartitionTextsThatLookLikeNull$",
	},
	{
		name: "nested-casts-are-loose", what: "values inside of structs, lists and maps are cast as DuckDB does, which rounds and makes null",
		edits: []edit{{"engine/duckdb/render.go", "\tif exactlyNested(t) {\n", "\tif exactlyNested(t) && x == \"\" {\n"}},
		pkg:   "./engine/duckdb", test: "^TestNestedCastsLoseNothing$",
	},
	{
		name: "retry-by-position-alone", what: "a retry takes the record that stands at the position now",
		edits: []edit{{"ingest/retry.go", "ok && line == q.Line {", "ok && line >= 0 {"}},
		pkg:   "./ingest", test: "^TestRetryWithAnotherHeader$",
	},
	{
		name: "null-and-its-name-share-a-file", what: "a null and hive's name of it in one partition column overwrite each other's file",
		edits: []edit{{"engine/duckdb/write.go", "\tif len(seen) == len(files) {\n", "\tif len(seen) <= len(files) {\n"}},
		pkg:   "./ingest", test: "^TestNullPartitionAndItsName$",
	},
	{
		name: "filters-of-slow-tables-in-memory", what: "a table that asks each 30 s takes 2 bytes of memory a row",
		edits: []edit{{"ingest/index/index.go", " || t.pause > slowly)", ")"}},
		pkg:   "./ingest/index", test: "^TestFiltersOfSlowTablesStayOnDisk$",
	},
	{
		name: "blocks-of-4-mib", what: "batches for Kafka say blocks of 4 MiB, which take as much memory where they are read",
		edits: []edit{{"connect/kafka/compress.go", "lz4.Block64Kb", "lz4.Block4Mb"}},
		pkg:   "./connect/kafka", test: "^TestBatchesAreCompressedInSmallBlocks$",
	},
	{
		name: "hidden-column-chooses-files", what: "files are chosen by a column that the role may not see, which its name then tells of",
		edits: []edit{{"engine/duckdb/query.go", "if t.columns != nil && !contains(t.columns, name) {", "if false && !contains(t.columns, name) {"}},
		pkg:   "./engine/duckdb", test: "^TestPrunesByNoHiddenColumn$",
	},
	{
		name: "foreign-times-by-the-zone", what: "times that other writers did not mark as UTC are read in the zone of the session",
		edits: []edit{{"engine/duckdb/survey.go", "\t\tif !utc && isTime(c.field.Type) {\n\t\t\treturn false\n\t\t}\n", ""}},
		pkg:   "./engine/duckdb", test: "^TestForeignTimes$",
	},
	{
		name: "feed-by-todays-partitioning", what: "the change feed reads earlier versions by the partition columns of the last one",
		edits: []edit{{"delta/changes.go", "\tinfo.PartitionBy = after\n", ""}},
		pkg:   "./delta", test: "^TestFeedOverAnotherPartitioning$",
	},
	{
		name: "feed-ignores-cdc-files", what: "the change feed is told from added and removed files where the commit has cdc files",
		edits: []edit{{"delta/changes.go", "\tif len(c.cdc) > 0 {\n", "\tif false {\n"}},
		pkg:   "./test/golden", test: "^TestGoldenTables$",
	},
	{
		name: "nightly-follows-utc-jumps", what: "a nightly run is left out where the clock jumps over its hour",
		edits: []edit{{"schedule/cron.go", "ok && spec.Hour&everyHour == 0 {", "ok && spec == nil {"}},
		pkg:   "./schedule", test: "^TestNextWhereClocksChange$",
	},
	{
		name: "run-id-is-forgotten", what: "a run that has succeeded is repeated when it is asked for once more",
		edits: []edit{{"schedule/do.go", "\t\tcase earlier.Status == StatusOK:\n", "\t\tcase earlier.Status == \"\":\n"}},
		pkg:   "./schedule", test: "^TestRunIDs$",
	},
	{
		name: "dead-run-stays-running", what: "a run whose process died is shown as running",
		edits: []edit{{"schedule/history.go", "if err == nil || errors.Is(err, fs.ErrNotExist) {\n\t\tr.Status", "if errors.Is(err, fs.ErrNotExist) {\n\t\tr.Status"}},
		pkg:   "./schedule", test: "^TestProcessThatDies$",
	},
	{
		name: "alerts-to-where-nobody-listens", what: "an alert counts as sent where its webhook has moved and the new address was only looked at",
		edits: []edit{{"schedule/alert.go", "\tclient.CheckRedirect = keepsThePost\n", "\t_ = keepsThePost\n"}},
		pkg:   "./schedule", test: "^TestWebhookThatHasMoved$",
	},
	{
		name: "run-that-cannot-begin-is-not-told", what: "nobody is told of a run that could not begin",
		edits: []edit{{"schedule/schedule.go", "if err == nil || ctx.Err() != nil || o.ID != \"\" {", "if err != nil || o.ID != \"\" {"}},
		pkg:   "./schedule", test: "^TestNotifyOfARunThatCannotBegin$",
	},
	{
		name: "alerts-share-a-key", what: "alerts of two tasks of a run, or of two failures of it, have one key",
		edits: []edit{{"schedule/alert.go", "\"%s-%s-%s-%d\", a.Event, a.Task, run, a.Attempts", "\"%s-%s\", a.Event, run"}},
		pkg:   "./schedule", test: "^TestAlertsHaveKeysOfTheirOwn$",
	},
	{
		name: "gap-of-a-stream-stops-the-dag", what: "Airflow reads no files while a stream has a gap",
		edits: []edit{{"cmd/cauce/airflow/dag.py.tmpl", "[\"plan\", \"--no-lag\", *FILES]", "[\"plan\", *SOURCES]"}},
		pkg:   "./test/airflow", test: "^TestDagBesideAStreamWithAGap$",
	},
	{
		name: "sample-of-an-empty-file", what: "sample shows nothing where the first file is empty",
		edits: []edit{{"ingest/sample.go", "if len(records) == 0 && o.File == \"\" && n < len(files)-1 {", "if len(records) < n-n && o.File == \"\" && n < len(files)-1 {"}},
		pkg:   "./ingest", test: "^TestSampleAndPlan$",
	},
	{
		name: "plan-of-other-tables", what: "cauce plan SOURCE refuses for a table that the source does not fill",
		edits: []edit{{"ingest/plan.go", "if len(o.Sources) > 0 && !slices.ContainsFunc(l.lake.Sources, func", "if len(o.Sources) < 0 && !slices.ContainsFunc(l.lake.Sources, func"}},
		pkg:   "./ingest", test: "^TestPlanOfASource$",
	},
	{
		name: "land-waits-for-a-pipe", what: "cauce land of a named pipe waits for ever and cannot be stopped",
		edits: []edit{{"ingest/land.go", "os.O_RDONLY|syscall.O_NONBLOCK", "os.O_RDONLY|syscall.O_RDONLY"}},
		pkg:   "./ingest", test: "^TestLand$",
	},
	{
		name: "checksums-of-names-with-spaces", what: "a line of a checksum file counts for the last word of its name",
		edits: []edit{{"ingest/land.go", "sum, of = line[:i], strings.TrimPrefix(strings.TrimSpace(line[i:]), \"*\")", "sum, of = line[:i], strings.TrimPrefix(line[strings.LastIndexAny(line, \" \\t\")+1:], \"*\")"}},
		pkg:   "./ingest", test: "^TestLand$",
	},
	{
		name: "airflow-ends-runs-between-tries", what: "Airflow ends a run while a task still has tries",
		edits: []edit{{"cmd/cauce/airflow/dag.py.tmpl", "RUN_TIMEOUT = WAIT + 4 * ((RETRIES + 1) * TIMEOUT + PAUSES)", "RUN_TIMEOUT = WAIT + 2 * (RETRIES + 1) * TIMEOUT"}},
		pkg:   "./test/airflow", test: "^TestDagRunThatTakesTooLong$",
	},
	{
		name: "airflow-with-times-of-its-own", what: "a DAG is written whose time Airflow cannot read",
		edits: []edit{{"cmd/cauce/airflow.go", "if strings.HasPrefix(t.Cron, \"@every\") {", "if strings.HasPrefix(t.Cron, \"@never\") {"}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^schedule$",
	},
	{
		name: "airflow-retries-data-failures", what: "Airflow tries again what broke a rule of the data",
		edits: []edit{{"cmd/cauce/airflow/dag.py.tmpl", "FINAL = {2, 3, 4}", "FINAL = {2}"}},
		pkg:   "./test/airflow", test: "^TestDagOfABatch$",
	},
	{
		name: "bench-leaves-its-lake", what: "a measurement leaves what it wrote in the bucket",
		edits: []edit{{"cmd/cauce/bench.go", "b.l.deleteAll(context.WithoutCancel(ctx))", "ctx.Err()"}},
		pkg:   "./test/cloud", test: "^TestBenchInABucket$",
	},
	{
		name: "failed-check-passes", what: "a run of the whole architecture is good although a check failed",
		edits: []edit{{"test/demofull/checks.go", "func(c check) bool { return !c.OK }", "func(c check) bool { return c.What == \"\" }"}},
		pkg:   "./test/demofull", test: "^TestOneCheckThatFailsIsEnough$",
	},
	{
		name: "object-where-a-table-will-be", what: "the folders of a bucket's tables hold an object, so that Spark takes them for tables",
		edits: []edit{{"cmd/cauce/init.go", "[]string{\"raw/batch\", \"raw/streaming\", \"processed\"}", "[]string{\"raw/batch\", \"raw/streaming\", \"processed\", catalog.QuarantinePath}"}},
		pkg:   "./test/cloud", test: "^TestInitInABucket$",
	},
	{
		name: "schemas-are-not-freed", what: "what DuckDB was told of the columns of a batch of records stays in memory",
		edits: []edit{{"engine/duckdb/arrowscan.go", "if (o->known && o->schema.release != NULL)", "if (0)"}},
		pkg:   "./engine/duckdb", test: "^TestMicroBatchesKeepNoMemory$",
	},
	{
		name: "files-stay-in-memory", what: "what a stream reads of its files stays in memory",
		edits: []edit{{"engine/duckdb/engine.go", "strconv.FormatBool(o.FileCache)", "\"true\""}},
		pkg:   "./engine/duckdb", test: "^TestMicroBatchesKeepNoMemory$",
	},
	{
		name: "freed-memory-is-not-returned", what: "what the C library holds free after large work stays in the process",
		edits: []edit{{"engine/duckdb/allocator.go", "\tC.trim()\n", ""}},
		pkg:   "./engine/duckdb", test: "^TestReleaseMemory$",
	},
	{
		name: "nulls-allowed-inside", what: "rows read by DuckDB have types that allow nulls where the table does not, and meet no others",
		edits: []edit{{"engine/duckdb/relation.go", "retyped(c.Data(), want)", "retyped(c.Data(), c.DataType())"}},
		pkg:   "./engine/duckdb", test: "^TestEngineConforms$",
	},
	{
		name: "refused-row-wins", what: "a row that the table refuses wins against one with its key that the table takes",
		edits: []edit{{"engine/duckdb/tablerules.go", "if len(rows) == 0 {", "if true {"}},
		pkg:   "./ingest", test: "^TestRowsThatTheTableRefuses$",
	},
	{
		name: "carried-values-are-forgotten", what: "rows that keep the time of their first arrival are written with that of the last",
		edits: []edit{{"engine/duckdb/relation.go", "CASE WHEN patch.g IS NULL THEN", "CASE WHEN true THEN"}},
		pkg:   "./engine/duckdb", test: "^TestPatchedRowsAreWritten$",
	},
	{
		name: "picks-the-row-before", what: "rows of a batch that are asked for by number are those before them",
		edits: []edit{{"engine/duckdb/write.go", "return rel.global(int64(it.Next())), true", "return max(rel.global(int64(it.Next()))-1, 0), true"}},
		pkg:   "./engine/duckdb", test: "^TestRowsByOrdinal$",
	},
	{
		name: "reading-ahead-gives-up", what: "a moment without records ends the reading ahead of a backlog",
		edits: []edit{{"ingest/microbatch.go", "if r.opts.AvailableNow && !ahead {", "if r.opts.AvailableNow || ahead {"}},
		pkg:   "./ingest", test: "^TestReadingAheadIsPatient$",
	},
	{
		name: "anybody-cancels", what: "a session ends what another role's session runs",
		edits: []edit{{"serve/activity.go", "case a.role != s.Role:", "case a.role == nil:"}},
		pkg:   "./test/bi", test: "^TestSessionsSeeEachOther$",
	},
	{
		name: "nobody-can-look", what: "who looks what holds up everybody waits for it",
		edits: []edit{{"serve/worker/pool.go", "\t\t\tspare = p.spare\n", ""}},
		pkg:   "./test/bi", test: "^TestLongStatementsMakeRoom$",
	},
	{
		name: "statements-of-others-are-shown", what: "pg_stat_activity shows the statements of other roles",
		edits: []edit{{"serve/activity.go", "\tif !own {\n", "\tif false {\n"}},
		pkg:   "./test/bi", test: "^TestSessionsSeeEachOther$",
	},
	{
		name: "skip-txn-check", what: "a commit that was made before is made again",
		edits: []edit{
			{"delta/merge.go", "ok && last >= m.o.Txn.Version {", "ok && last < 0 {"},
			{"delta/transaction.go", "ok && last >= t.Version {", "ok && last < 0 {"},
		},
		pkg: "./delta", test: "^TestMergeTxn$",
	},
	{
		name: "forgotten-deletion-comes-back", what: "a row whose deletion was forgotten is taken for a new one",
		edits: []edit{{"delta/merge.go", "\treturn a.keepOut(ctx)\n", "\treturn nil\n"}},
		pkg:   "./ingest", test: "^TestNoDeletedRowComesBack$",
	},
	{
		name: "purge-forgets-to-tell", what: "old tombstones are removed without noting up to which",
		edits: []edit{{"delta/dml.go", "\tif o.Properties != nil {\n", "\tif false {\n"}},
		pkg:   "./ingest", test: "^TestTombstonesArePurged$",
	},
	{
		name: "no-put-if-absent", what: "a commit overwrites another writer's",
		edits: []edit{
			{"objstore/local.go", "\t// The common way to lose a race costs no write.\n\tif _, err := os.Lstat(p); err == nil {\n", "\tif false {\n"},
			{"objstore/local.go", "\terr = os.Link(tmp, p)\n", "\terr = os.Rename(tmp, p)\n"},
		},
		pkg: "./objstore", test: "^TestLocal$",
	},
	{
		name: "s3-put-unconditionally", what: "a commit on S3 overwrites another writer's",
		edits: []edit{{"objstore/s3/s3.go", "\t\tin.IfNoneMatch = aws.String(\"*\")\n", ""}},
		pkg:   "./objstore/s3", test: "^TestStore$",
	},
	{
		name: "gcs-put-unconditionally", what: "a commit on Google Cloud Storage overwrites another writer's",
		edits: []edit{{"objstore/gcs/gcs.go", "s.object(key).If(storage.Conditions{DoesNotExist: true})", "s.object(key)"}},
		pkg:   "./objstore/gcs", test: "^TestStore$",
	},
	{
		name: "cold-query-opens-everything", what: "a query in a bucket fetches files that pruning has left out",
		edits: []edit{{"engine/duckdb/query.go", "t.Snapshot.Files(ctx, where)", "t.Snapshot.Files(ctx)"}},
		pkg:   "./test/cloud", test: "^TestLakeOnS3$",
	},
	{
		name: "copy-without-comparing", what: "a copy that lost a file counts as good",
		edits: []edit{
			{"ingest/copy.go", "\tif hashes[0] != hashes[1] {\n", "\tif false {\n"},
			{"ingest/copy.go", "\thad, there := c.there[key]\n", "\tif strings.HasSuffix(key, \".parquet\") && strings.Contains(key, \"2024-08-19\") {\n\t\treturn nil\n\t}\n\thad, there := c.there[key]\n"},
		},
		pkg: "./test/cloud", test: "^TestCopyThroughAllStores$",
	},
	{
		name: "copied-files-are-read-again", what: "a batch at the root that a lake was copied to reads its files again",
		edits: []edit{{"ingest/batch.go", "\t\t\tif err == nil {\n\t\t\t\tf.ModTime = own.ModTime\n", "\t\t\tif err == nil {\n\t\t\t\t_ = own\n"}},
		pkg:   "./test/cloud", test: "^TestCopyThroughAllStores$",
	},
	{
		name: "entry-overwrites-entry", what: "two writers may both have the DynamoDB entry of a version",
		edits: []edit{{"objstore/dynamodb/dynamodb.go", ", ConditionExpression: aws.String(\"attribute_not_exists(fileName)\")})", "})"}},
		pkg:   "./objstore/dynamodb", test: "^TestCommits$",
	},
	{
		name: "foreign-commit-taken-for-own", what: "a commit that somebody made without an entry in DynamoDB counts as that of the entry's holder",
		edits: []edit{{"objstore/dynamodb/dynamodb.go", "\t\tif !bytes.Equal(had, data) {\n", "\t\tif len(had) == 0 {\n"}},
		pkg:   "./objstore/dynamodb", test: "^TestForeignWriter$",
	},
	{
		name: "reader-may-write", what: "deploy/terraform lets the reader write tables",
		edits: []edit{{"deploy/terraform/aws/policies/reader.json.tftpl", "\"Action\": [\"s3:GetObject\"],", "\"Action\": [\"s3:GetObject\", \"s3:PutObject\"],"}},
		pkg:   "./test/cloud", test: "^TestRolesOnS3$",
	},
	{
		name: "batch-may-delete-in-gcp", what: "deploy/terraform lets batch delete objects on Google Cloud",
		edits: []edit{{"deploy/terraform/gcp/roles.tf", "[\"storage.objects.create\", ", "[\"storage.objects.create\", \"storage.objects.delete\", "}},
		pkg:   "./test/infra", test: "^TestTerraformOnGoogleCloud$",
	},
	{
		name: "own-create-taken-for-anothers", what: "a create whose answer was lost is reported as lost to another writer",
		edits: []edit{{"objstore/internal/remote/remote.go", "\t\t\tif unknown {\n", "\t\t\tif false {\n"}},
		pkg:   "./objstore/s3", test: "^TestFaults$",
	},
	{
		name: "replayed-lines-are-one-event", what: "equal lines of two replayed files are one message",
		edits: []edit{{"connect/replay/replay.go", "\trun := \"replay-\" + uuid.NewString() + \"-\"\n", "\trun := \"replay-\" + uuid.Nil.String() + \"-\"\n"}},
		pkg:   "./connect/replay", test: "^TestFiles$",
	},
	{
		name: "acknowledge-before-commit", what: "the buffer may forget events that are not in the table",
		edits: []edit{{
			"ingest/stream.go",
			"\tcover := &EpochFile{Kind: KindStream, Ranges: b.rangeMarks(), Positions: positionMarks(b.positions)}\n",
			"\tcover := &EpochFile{Kind: KindStream, Ranges: b.rangeMarks(), Positions: positionMarks(b.positions)}\n\t_ = r.in.Committed(ctx, maps.Clone(b.positions))\n",
		}},
		pkg: "./ingest", test: "^TestSourceIsToldOnlyOfWhatIsInTheTable$",
	},
	{
		name: "renewals-are-forgotten", what: "messages that took the offsets of lost ones are taken for those",
		edits: []edit{{"pipeline/stream.go", "if after.Renewals > 0 {", "if after.Renewals > 9 {"}},
		pkg:   "./ingest", test: "^TestGapAtTheEnd$",
	},
	{
		name: "lost-end-is-read-again", what: "what is left of a buffer that lost its end is read once more",
		edits: []edit{{"connect/buffer/source.go", "msg.Time.UnixMicro() > s.at.Time.UnixMicro()", "msg.Time.UnixMicro() > 0"}},
		pkg:   "./connect/buffer", test: "^TestLostEnd$",
	},
	{
		name: "few-gaps-are-allowed", what: "gaps in more than a few partitions stop the stream for ever",
		edits: []edit{{"ingest/stream.go", "tries[gap.Partition] > gapTriesMax {", "len(r.gaps) >= gapTriesMax {"}},
		pkg:   "./ingest", test: "^TestGapsInManyPartitions$",
	},
	{
		name: "hole-keeps-out-what-came-before", what: "records before a hole never get into the table",
		edits: []edit{{"ingest/microbatch.go", "if err != nil && !errors.As(err, &b.gap) {", "if errors.As(err, &b.gap) || err != nil {"}},
		pkg:   "./ingest", test: "^TestGapInTheMiddle$",
	},
	{
		name: "empty-partitions-are-forgotten", what: "what comes into an empty partition and expires while the stream is away is passed over",
		edits: []edit{{"ingest/stream.go", "if _, known := after[p]; !known {", "if _, known := after[p]; !known && pos.Offset >= 0 {"}},
		pkg:   "./ingest", test: "^TestStartOfEmptyPartitions$",
	},
	{
		name: "silence-is-the-end", what: "a run that could read nothing says that it has read all",
		edits: []edit{{"ingest/stream.go", "return r.in.Drained(ctx, r.ends)", "return true, nil"}},
		pkg:   "./ingest", test: "^TestAvailableNowProvesItsEnd$",
	},
	{
		name: "damage-passes", what: "a batch that cannot be read is asked for for ever",
		edits: []edit{{"connect/kafka/source.go", "return kgo.IsRetryableBrokerErr(err) ||", "return !errors.Is(err, kgo.ErrClientClosed) ||"}},
		pkg:   "./connect/kafka", test: "^TestPassing$",
	},
	{
		name: "times-beyond-the-calendar", what: "a message of the year 10000 stops the stream for ever",
		edits: []edit{{"ingest/microbatch.go", "y < 1 || y > 9999 {", "y < 1 && y > 9999 {"}},
		pkg:   "./ingest", test: "^TestMessageTimesBeyondTheCalendar$",
	},
	{
		name: "pubsub-acknowledge-before-commit", what: "messages of Pub/Sub are acknowledged before their rows are committed",
		edits: []edit{{
			"ingest/stream.go",
			"\tcover := &EpochFile{Kind: KindStream, Ranges: b.rangeMarks(), Positions: positionMarks(b.positions)}\n",
			"\tif r.queue != nil {\n\t\t_ = r.queue.Acknowledge(ctx, b.rows)\n\t\tdefer func(n int) { b.rows = n }(b.rows)\n\t\tb.rows = 0\n\t}\n\tcover := &EpochFile{Kind: KindStream, Ranges: b.rangeMarks(), Positions: positionMarks(b.positions)}\n",
		}},
		pkg: "./ingest", test: "^TestQueueMessagesCountOnce$",
	},
	{
		name: "pubsub-ignore-message-id", what: "messages of Pub/Sub have one origin, whatever their id",
		edits: []edit{{"connect/pubsub/source.go", " + \"/\" + m.GetMessageId(),\n", " + \"/0\",\n"}},
		pkg:   "./connect/pubsub", test: "^TestMessagesArriveInTheOrderOfTheirKey$",
	},
	{
		name: "forget-with-the-context", what: "a message is forgotten when the context that it was published with ends",
		edits: []edit{{"connect/kafka/sink.go", "s.cl.Produce(context.WithoutCancel(ctx), ", "s.cl.Produce(ctx, "}},
		pkg:   "./connect/kafka", test: "^TestPublishedOutlivesItsContext$",
	},
	{
		name: "futures-share-spot-ids", what: "a futures trade has the message id of the spot trade with its number",
		edits: []edit{{"connect/binance/binance.go", "\t\treturn \"um-\"\n", "\t\treturn \"\"\n"}},
		pkg:   "./test/flow", test: "^TestIdsOfDifferentSequences$",
	},
	{
		name: "cursor-before-the-sink", what: "a producer's cursor is saved before what it covers is safe",
		edits: []edit{{"connect/bluesky/bluesky.go", "\tif err := c.o.Sink.Flush(ctx); err != nil {\n\t\treturn err\n\t}\n", "\t_ = c.o.Sink.Flush(ctx)\n"}},
		pkg:   "./connect/bluesky", test: "^TestCursorFollowsTheSink$",
	},
	{
		name: "clamp-unnoticed", what: "a cursor that the server moved forward is taken for what was asked",
		edits: []edit{{"connect/bluesky/bluesky.go", "first.Sub(s.resume) <= s.c.o.GapMin", "true"}},
		pkg:   "./connect/bluesky", test: "^TestClampedCursorIsTold$",
	},
	{
		name: "no-overlap", what: "a connection resumes at the newest event, though older ones are still on their way",
		edits: []edit{{"connect/bluesky/bluesky.go", "s.resume.Add(-c.overlap).UnixMicro()", "s.resume.UnixMicro()+1"}},
		pkg:   "./connect/bluesky", test: "^TestEveryPostArrivesOnceWhateverTheServerDoes$",
	},
	{
		name: "half-a-backfill", what: "a backfill that was cut off is not asked for again",
		edits: []edit{{"connect/x/x.go", "\t\t\t\tmade = at.Add(-disorder)\n", "\t\t\t\tmade = time.Now()\n"}},
		pkg:   "./connect/x", test: "^TestWhatIsLostIsTold$",
	},
	{
		name: "impatient-after-429", what: "the time that X names in its answer is not waited for",
		edits: []edit{{"connect/x/rules.go", "if reset := time.Unix(n, 0); reset.After(at) &&", "if reset := time.Unix(n, 0); false &&"}},
		pkg:   "./connect/x", test: "^TestPausesAreThosePrescribed$",
	},
	{
		name: "spool-forgets-unacknowledged", what: "a spool forgets events that the topic has not acknowledged",
		edits: []edit{{"connect/spool/drain.go", "\treturn t.Flush(ctx)\n", "\treturn nil\n"}},
		pkg:   "./connect/spool", test: "^TestNothingAcceptedIsLost$",
	},
	{
		name: "full-without-a-word", what: "events for which there is no room are dropped and not named",
		edits: []edit{{"connect/binance/binance.go", "\t\tif s.c.meter.Dropped(series, id) {\n", "\t\tif false {\n"}},
		pkg:   "./connect/binance", test: "^TestDroppedTradesAreNamed$",
	},
	{
		name: "hasty-subscriptions", what: "streams are subscribed to faster than the exchange allows",
		edits: []edit{{"connect/binance/binance.go", "requestInterval = 300 * time.Millisecond", "requestInterval = 100 * time.Millisecond"}},
		pkg:   "./connect/binance", test: "^TestSubscribingStaysWithinTheLimits$",
	},
	{
		name: "one-attempt-more", what: "each wait for the exchange's limit lets one more attempt into the five minutes",
		edits: []edit{{"connect/binance/binance.go", "\t\tc.attempt = c.attempt[n:] // older", "\t\tif n == 0 {\n\t\t\treturn 0\n\t\t}\n\t\tc.attempt = c.attempt[n:] // older"}},
		pkg:   "./connect/binance", test: "^TestAttemptsStayBelowTheLimit$",
	},
	{
		name: "length-without-a-word", what: "the length of VARCHAR(3) is dropped without a word",
		edits: []edit{{"pipeline/load.go", "m != nil {\n\t\t\tb.warnf(tv.at, \"say it with expect", "m != nil && false {\n\t\t\tb.warnf(tv.at, \"say it with expect"}},
		pkg:   "./pipeline", test: "^TestLakeFiles$",
	},
	{
		name: "spool-keeps-half-a-write", what: "a write that was cut off by a kill stays before the next one",
		edits: []edit{{"connect/spool/files.go", "\tif err := s.w.Truncate(last.size); err != nil {\n\t\treturn err\n\t}\n\t_, err = s.w.Seek(last.size, 0)\n", "\t_, err = s.w.Seek(0, 2)\n"}},
		pkg:   "./connect/spool", test: "^TestNothingAcceptedIsLost$",
	},
	{
		name: "spool-reads-what-is-sent", what: "damage in what is sent costs the events that wait behind it",
		edits: []edit{{"connect/spool/files.go", "\tfor seg.size = from; seg.size < int64(len(b)); {\n", "\tfor seg.size = min(from, 0); seg.size < int64(len(b)); {\n"}},
		pkg:   "./connect/spool", test: "^TestDamageInTheLastSegment$",
	},
	{
		name: "spool-takes-damage-for-a-cut", what: "events behind a damaged length are taken for one that was never accepted",
		edits: []edit{{"connect/spool/files.go", " && !wholeBehind(rest) {", " {"}},
		pkg:   "./connect/spool", test: "^TestDamageInTheLastSegment$",
	},
	{
		name: "forget-old-vector", what: "a new deletion vector leaves out the rows of the one before",
		edits: []edit{{"delta/merge.go", "\t\t\trows.Or(old)\n", ""}},
		pkg:   "./delta", test: "^TestMerge",
	},
	{
		name: "superseded-vectors-stay", what: "each deletion vector that a stream supersedes stays in memory",
		edits: []edit{{"delta/files.go", "\tc.items[path] = cachedVector{", "\tc.items[path+d.UniqueID()] = cachedVector{"}},
		pkg:   "./delta", test: "^TestSupersededVectorsAreForgotten$",
	},
	{
		name: "prune-one-too-many", what: "a file whose least value is the one searched for is left out",
		edits: []edit{{"delta/predicate.go", "\t\t\tcanEqual = d == 0", "\t\t\tcanEqual = false"}},
		pkg:   "./delta", test: "^TestPrune",
	},
	{
		name: "drop-one-in-10000", what: "one row in 10,000 is not written",
		edits: []edit{{"delta/merge.go", "\t\tif c >= rowLost {\n\t\t\tskip.Add(", "\t\tif c >= rowLost || o%10_000 == 9_999 {\n\t\t\tskip.Add("}},
		pkg:   "./test/flow", test: "^TestEveryRowOfALargeHistoryArrives$",
	},
	{
		name: "swap-ms-and-us", what: "milliseconds are taken for microseconds and the other way round",
		edits: []edit{{
			"engine/duckdb/native.go", "\t\treturn v\n\tcase v >= epochSecondsBelow:\n\t\treturn v * 1000\n",
			"\t\treturn v * 1000\n\tcase v >= epochSecondsBelow:\n\t\treturn v\n",
		}},
		pkg: "./test/flow", test: "^TestEveryRowOfALargeHistoryArrives$",
	},
	{
		name: "key-only-in-its-partition", what: "a key is looked up only in the partition of the incoming row",
		edits: []edit{{
			"delta/merge.go", "a.keys, err = sourceKeys(ctx, src, a.info.Schema, a.o.Key); err",
			"a.keys, err = sourceKeys(ctx, src, a.info.Schema, append(append([]string{}, a.o.Key...), a.info.PartitionBy...)); err",
		}},
		pkg: "./test/flow", test: "^TestRowThatMovesToAnotherDateStaysOne$",
	},
	{
		name: "last-wins", what: "whatever comes last wins, whatever its order",
		edits: []edit{{"delta/judge.go", "case g.isRepl[k] || len(a.o.Order) == 0:", "case true:"}},
		pkg:   "./delta", test: "^TestMerge",
	},
	{
		name: "quarantined-not-counted", what: "rows that fail a rule are counted as filtered",
		edits: []edit{{"engine/duckdb/finish.go", "\t\t\tdefault:\n\t\t\t\tres.Quarantined += n\n", "\t\t\tdefault:\n\t\t\t\tres.Filtered += n\n"}},
		pkg:   "./test/flow", test: "^TestEveryRowOfALargeHistoryArrives$",
	},
	{
		name: "long-partitions-stop-the-stream", what: "a text that is too long for the name of a folder stops the stream for ever",
		edits: []edit{{"pipeline/plan.go", "\treturn 255 - ", "\treturn 1<<20 - "}},
		pkg:   "./ingest", test: "^TestLongPartitionValues$",
	},
	{
		name: "nul-ends-the-statement", what: "a partition's value with a NUL makes the table unreadable",
		edits: []edit{{"engine/duckdb/engine.go", "\tif strings.IndexByte(s, 0) < 0 {\n", "\tif true {\n"}},
		pkg:   "./ingest", test: "^TestLongPartitionValues$",
	},
	{
		name: "rebase-looks-nothing-up", what: "after a lost race the winner's new files are not searched for our keys",
		edits: []edit{{"delta/rebase.go", "\tif len(added) > 0 {\n", "\tif false {\n"}},
		pkg:   "./delta", test: "^TestMergeConcurrently$",
	},
	{
		name: "pauses-behind-the-log", what: "a writer that lost a race pauses again after it has read what won",
		edits: []edit{{"delta/transaction.go", "\t\twaited := opts.Clock().Sub(start)\n", "\t\t_ = x.table.pause(ctx, res.Tries)\n\t\twaited := opts.Clock().Sub(start)\n"}},
		pkg:   "./delta", test: "^TestPausingWriterIsNotShutOut$",
	},
	{
		name: "partitions-in-borrowed-memory", what: "the value of a partition is kept in the memory of the batch that it came with",
		edits: []edit{{"delta/arrow.go", "\t\treturn strings.Clone(a.Value(i)), true\n", "\t\treturn a.Value(i), true\n"}},
		pkg:   "./delta", test: "^TestPartitionValuesOutliveTheirBatch$",
	},
	{
		name: "vacuum-lite-takes-live", what: "a lite VACUUM deletes files that were removed and added again, or whose vector alone was replaced",
		edits: []edit{{"delta/vacuum_lite.go", "\t\tif keep[key] {\n\t\t\tcontinue\n\t\t}\n", ""}},
		pkg:   "./delta", test: "^TestGoldenTablesSurviveVacuum$",
	},
	{
		name: "cleanup-takes-sidecars", what: "log cleanup deletes sidecars that a checkpoint still names",
		edits: []edit{{"delta/cleanup.go", "\t\t\t\tdelete(sidecars, key)\n", "\t\t\t\t_ = key\n"}},
		pkg:   "./delta", test: "^TestCleanupSidecars$",
	},
	{
		name: "snapshot-shares-bitmap", what: "a newer snapshot takes files out of an older one",
		edits: []edit{{"delta/fileset.go", "if l.dead == nil || !b.owned[c] {", "if l.dead == nil {"}},
		pkg:   "./delta", test: "^TestFileSetAgainstMap$",
	},
	{
		name: "clusters-everything", what: "OPTIMIZE of a clustered table rewrites cubes that nothing has touched",
		edits: []edit{{"delta/clustering.go", "if sizes[id] < cubeBytes {", "if sizes[id] >= 0 {"}},
		pkg:   "./delta", test: "^TestClustering$",
	},
	{
		name: "vacuum-takes-vectors", what: "VACUUM deletes deletion vectors that the log names",
		edits: []edit{{"delta/vacuum.go", "\tif dv == nil || dv.StorageType == \"i\" {\n\t\treturn nil\n\t}\n\tkey, err = vectorPlace", "\tif true {\n\t\treturn nil\n\t}\n\tkey, err = vectorPlace"}},
		pkg:   "./delta", test: "^TestVacuum",
	},
	{
		name: "forget-content", what: "a renamed copy of a file is read as a new one",
		edits: []edit{{"ingest/progress.go", "\t\ts.files[f.Name] = f\n\t\ts.contents[f.SHA256] = f.Origin\n\t\tif !f.Copy {", "\t\ts.files[f.Name] = f\n\t\tif !f.Copy {"}},
		pkg:   "./ingest", test: "^TestBatchReadsOnce$",
	},
	{
		name: "index-finds-marked-rows", what: "the index of keys finds rows that a deletion vector marks",
		edits: []edit{{"ingest/index/index.go", "if deleted != nil && deleted.Contains(uint64(stored.row)) {", "if deleted != nil && false {"}},
		pkg:   "./ingest/index", test: "^TestSameTableWithAndWithout$",
	},
	{
		name: "index-sequence-of-another-row", what: "the index of keys tells the order column of another row",
		edits: []edit{{"ingest/index/index.go", "e.sequence = sequenceAt(b.Column(n), i)", "e.sequence = sequenceAt(b.Column(n), 0)"}},
		pkg:   "./ingest/index", test: "^TestSameTableWithAndWithout$",
	},
	{
		name: "tied-rows-are-not-read", what: "rows that the first order column leaves tied are taken for lost",
		edits: []edit{{"delta/judge.go", "if !lost && (open || alike &&", "if !lost && false && (open || alike &&"}},
		pkg:   "./ingest/index", test: "^TestSameTableWithAndWithout$",
	},
	{
		name: "index-misses-keys", what: "the index of keys forgets the last row of each bucket",
		edits: []edit{{"ingest/index/segment.go", "for ; i < n; i++ {", "for ; i+1 < n; i++ {"}},
		pkg:   "./ingest/index", test: "^TestLocate$",
	},
	{
		name: "picks-rows-of-the-batch-before", what: "rows of an epoch that are read by number are those of another batch",
		edits: []edit{{"engine/duckdb/relation.go", "\t\t\t\t\tat += b.NumRows()\n", "\t\t\t\t\tat += b.NumRows() - 1\n"}},
		pkg:   "./engine/duckdb", test: "^TestRowsByOrdinal$",
	},
	{
		name: "retry-forgets-times", what: "a message that comes from quarantine has lost its time",
		edits: []edit{{"ingest/retry.go", "\t\t\t\trec.Time = *q.MessageTime\n", "\t\t\t\t_ = q\n"}},
		pkg:   "./ingest", test: "^TestRetryOfATombstoneKnowsItsTime$",
	},
	{
		name: "retry-adds-a-second-row", what: "a record that a retry refuses by another rule has two rows in quarantine",
		edits: []edit{{"ingest/retry.go", "return had == id })...)\n", "return had != id || had == id })...)\n"}},
		pkg:   "./ingest", test: "^(TestQuarantineRetryDies|TestQuarantineRetryOfTwoRows)$",
	},
	{
		name: "retry-takes-all-at-once", what: "a retry holds the text of all records in quarantine at once",
		edits: []edit{{"ingest/retry.go", "|| bytes >= retryBytesMax\n", "|| bytes < 0\n"}},
		pkg:   "./ingest", test: "^TestQuarantineInPieces$",
	},
	{
		name: "index-trusts-damage", what: "checksums of the index of keys are not compared",
		edits: []edit{{"ingest/index/segment.go", "if binary.LittleEndian.Uint64(b[n:]) != id.sum(number, b[:n]) {", "if false {"}},
		pkg:   "./ingest/index", test: "^TestDamagedSegments$",
	},
	{
		name: "index-forgets-at-exit", what: "a process that starts does not look for segments of the index of keys",
		edits: []edit{{"ingest/index/index.go", "	seg, err := x.folder.load(id)\n", "	seg, err := (*segment)(nil), fs.ErrNotExist\n"}},
		pkg:   "./ingest/index", test: "^TestSegmentsOutliveTheProcess$",
	},
	{
		name: "tables-forget-each-other", what: "a table that commits all the time has the index forget the files of another",
		edits: []edit{{"ingest/index/index.go", "\tname := table.Store.URL() + \"\\x00\" + table.Path\n", "\tname := \"\"\n"}},
		pkg:   "./ingest/index", test: "^TestTablesDoNotForgetEachOther$",
	},
	{
		name: "leave-unfinished", what: "VACUUM leaves what a killed writer left unfinished",
		edits: []edit{{"delta/vacuum.go", "unfinished, err := t.sweep(ctx, cutoff, o.DryRun)", "unfinished, err := t.sweep(ctx, cutoff, true)"}},
		pkg:   "./delta", test: "^TestVacuumRemovesWhatAKilledWriterLeft$",
	},
	{
		name: "stop-is-a-failure", what: "whoever stops the stream while the buffer's host changes is told of a failure",
		edits: []edit{{"connect/buffer/buffer.go", "\t\t\treturn fmt.Errorf(\"%w (%w)\", e, err)\n", "\t\t\treturn err\n"}},
		pkg:   "./connect/buffer", test: "^TestStoppedWhileTheHostChanges$",
	},
	{
		name: "restored-rows-unseen", what: "a merge does not look for rows that a restore brought back while it was under way",
		edits: []edit{{"delta/rebase.go", "\t\t\tif !back.IsEmpty() {\n", "\t\t\tif back == nil {\n"}},
		pkg:   "./delta", test: "^TestMergeMeetsRestoredRows$",
	},
	{
		name: "dead-beaters-count", what: "a merge that is rebased twice takes a row that died before the first for one that beats its own",
		edits: []edit{{"delta/rebase.go", "\ta.losers.rows = live\n", "\t_ = live\n"}},
		pkg:   "./delta", test: "^TestMergeForgetsDeadBeaters$",
	},
	{
		name: "carriage-returns-are-text", what: "a CSV file whose lines end with CR is taken for one line, and so for empty",
		edits: []edit{{"connect/csv/text.go", "return a.cr > 0 && a.lf == 0", "return false"}},
		pkg:   "./connect/csv", test: "^TestCarriageReturnsEndLines$",
	},
	{
		name: "dry-run-restores-what-is-gone", what: "the dry run of a restore says yes where data files are gone",
		edits: []edit{{"delta/restore.go", "t.present(ctx, info, x); err != nil {", "t.present(ctx, info, x); err != nil && !o.DryRun {"}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^table$",
	},
	{
		name: "null-passes-check", what: "a CHECK constraint that is null for a row lets it pass",
		edits: []edit{{"delta/constraints.go", "err != nil || !ok {\n\t\t\treturn m, err", "err != nil || !ok {\n\t\t\tif v, _ := m.cond.Value(b, i); v == nil {\n\t\t\t\tcontinue\n\t\t\t}\n\t\t\treturn m, err"}},
		pkg:   "./delta", test: "^TestRulesOnEveryWritePath$",
	},
	{
		name: "merge-takes-any-source-row", what: "of several source rows that change one row of the table a MERGE takes the first",
		edits: []edit{{"delta/mergematch.go", "\t\t\t\tif onlyDelete {\n", "\t\t\t\tif onlyDelete || true {\n"}},
		pkg:   "./delta", test: "^TestMergeInto$",
	},
	{
		name: "statement-forgets-what-it-read", what: "an UPDATE does not notice rows that were appended under it",
		edits: []edit{{"delta/dml.go", "\tfor _, r := range c.reads {\n\t\ttx.ReadWhere(r)\n\t}\n", ""}},
		pkg:   "./delta", test: "^TestChangesFollowConflictRules$",
	},
	{
		name: "stream-ends-early", what: "an error in the middle of a change feed passes for its end",
		edits: []edit{{"engine/duckdb/stream.go", "\t\t\tif b, err, more = next(); err != nil {\n\t\t\t\treturn err\n", "\t\t\tif b, err, more = next(); err != nil {\n\t\t\t\treturn nil\n"}},
		pkg:   "./engine/duckdb", test: "^TestStreamedRelation$",
	},
	{
		name: "partitions-overwrite-all", what: "INSERT OVERWRITE … PARTITION removes the rows of other partitions too",
		edits: []edit{{"cmd/cauce/statement.go", "Dynamic: s.Dynamic != nil, ", ""}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^statements$",
	},
	{
		name: "version-as-alias", what: "an alias behind VERSION AS OF is left where no AT may follow",
		edits: []edit{{"serve/sqltext/asof.go", "\t\tlast := s.alias(end)\n", "\t\tlast := -1\n"}},
		pkg:   "./serve/sqltext", test: "^TestTimeTravel$",
	},
	{
		name: "describe-tells-all", what: "a role that may read some columns of a table is told its history",
		edits: []edit{{"serve/describe.go", "t.columns != nil && !st.OfColumns()", "false"}},
		pkg:   "./test/bi", test: "^TestRolesSeeTheirTables$",
	},
	{
		name: "history-of-the-future", what: "DESCRIBE HISTORY as of a version tells of later ones",
		edits: []edit{{"engine/duckdb/describe.go", "\t\tif c.Version > snap.Version() {\n\t\t\tcontinue\n\t\t}\n", ""}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^describe$",
	},
	{
		name: "truncate-as-delete", what: "TRUNCATE stands in the history as a DELETE",
		edits: []edit{{"delta/dml.go", `t.change(ctx, o, "TRUNCATE", `, `t.change(ctx, o, "DELETE", `}},
		pkg:   "./delta", test: "^TestTruncate$",
	},
	{
		name: "prune-by-the-opposite", what: "files are left out by a condition that stands under a NOT",
		edits: []edit{{"delta/where.go", "\t\t\t\treturn Not{predicateOf(args[0], name)}\n", "\t\t\t\treturn predicateOf(args[0], name)\n"}},
		pkg:   "./delta", test: "^TestChangesAgainstModel$",
	},
	{
		name: "statements-without-write", what: "cauce query changes tables without --write",
		edits: []edit{{"cmd/cauce/statement.go", "\tif s != nil && !s.Reads() && !write {\n", "\tif false {\n"}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^statements$",
	},
	{
		name: "feed-tells-too-much", what: "the change feed of a merge also has rows that lost to stored ones",
		edits: []edit{{"delta/cdcwrite.go", "\t\tcase rowUpdate, rowUnchanged:\n", "\t\tcase rowUpdate, rowUnchanged, rowLost:\n"}},
		pkg:   "./delta", test: "^TestFeedOfMerges$",
	},
	{
		name: "update-keeps-what-was-deleted", what: "an UPDATE that lost a race keeps the new form of rows that the winner deleted",
		edits: []edit{{"delta/dml.go", "if now := a.marks[p]; now == nil || !now.Equals(b) {\n", "if now := a.marks[p]; now != nil && !now.Equals(b) {\n"}},
		pkg:   "./delta", test: "^TestChangesFollowConflictRules$",
	},
	{
		name: "compaction-rewrites-the-day", what: "compaction beside a stream rewrites a partition's large file for each few small ones",
		edits: []edit{{"delta/optimize.go", "\t\tif a.Size <= sum {\n", "\t\tif true {\n"}},
		pkg:   "./delta", test: "^TestTiered",
	},
	{
		name: "compaction-packs-all-at-once", what: "compaction beside a stream packs all small files of a partition in one group, which the stream undoes",
		edits: []edit{{"delta/optimize.go", "most = 2 * o.MinFiles", "most = math.MaxInt"}},
		pkg:   "./delta", test: "^TestWriterWhoMarksSmallFilesDoesNotStopThePacking$",
	},
	{
		name: "one-file-packed-for-ever", what: "a small file is packed by itself, and again each time",
		edits: []edit{{"delta/optimize.go", "o.MinFiles = max(2, o.MinFiles)", "o.MinFiles = max(1, o.MinFiles)"}},
		pkg:   "./delta", test: "^TestOneFileIsNotPacked$",
	},
	{
		name: "slow-statement-gives-up", what: "a statement that takes longer than the bound of tries gives up when it loses once",
		edits: []edit{{"delta/dml.go", "\t\t\tlost = t.opts.Clock()\n", "\t\t\tlost = began\n"}},
		pkg:   "./delta", test: "^TestSlowPlanningIsTriedAgain$",
	},
	{
		name: "plans-anew-at-once", what: "an append that has to look at the table anew does so without a pause",
		edits: []edit{{"delta/write.go", "if err = t.pause(ctx, try); err == nil {", "if err = ctx.Err(); err == nil {"}},
		pkg:   "./delta", test: "^TestPlanningAnewPauses$",
	},
	{
		name: "ledger-overlooks-one", what: "a hole of a single id is overlooked",
		edits: []edit{{"ingest/ledger.go", "if next.From-1 > last.To {", "if next.From-2 > last.To {"}},
		pkg:   "./ingest", test: "^TestLedgerAgainstSets$",
	},
	{
		name: "ledger-counts-negative-ids", what: "one row with the least of all integers for its id ends the ledger",
		edits: []edit{{"engine/duckdb/ledger.go", "FROM (\"+rows(where)+\") WHERE s IS NOT NULL AND i >= 0) \"+\n", "FROM (\"+rows(where)+\") WHERE s IS NOT NULL) \"+\n"}},
		pkg:   "./ingest", test: "^TestLedgerOfExtremeIDs$",
	},
	{
		name: "absent-without-proof", what: "what an exchange no longer shows is written down as never having been there",
		edits: []edit{{"ingest/repair.go", "if sure && next <= to {", "if next <= to {"}},
		pkg:   "./ingest", test: "^TestRepairIsSureOfWhatItSays$",
	},
	{
		name: "archive-without-checksum", what: "an archive is taken whatever its checksum says",
		edits: []edit{{"connect/binance/fetch.go", "if strings.EqualFold(hex.EncodeToString(got), want) {", "if true {"}},
		pkg:   "./connect/binance", test: "^TestArchiveAgreesWithItsChecksum$",
	},
	{
		name: "repair-while-banned", what: "requests go on although the exchange asked to wait",
		edits: []edit{{"connect/binance/rest.go", "if wait := r.pause(); wait > bound {", "if wait := r.pause(); false && wait > bound {"}},
		pkg:   "./connect/binance", test: "^TestRESTSendsNothingWhileItMustWait$",
	},
	{
		name: "why-names-another-line", what: "why takes a record's ordinal for its line",
		edits: []edit{{"ingest/why.go", "o.Line, o.Raw = r.Line, r.Raw", "o.Line, o.Raw = r.Position, r.Raw"}},
		pkg:   "./ingest", test: "^TestWhyTellsEveryVersion$",
	},
	{
		name: "trigger-after-work", what: "the time that a batch takes is added to the time between two",
		edits: []edit{{"ingest/stream.go", "if due = due.Add(r.opts.Trigger); full", "if due = now.Add(r.opts.Trigger); full"}},
		pkg:   "./ingest", test: "^TestCommitsAreOneTriggerApart$",
	},
	{
		name: "prepared-from-the-table", what: "a batch that is read ahead takes the positions of the table, not those of the batch before it",
		edits: []edit{{"ingest/microbatch.go", "r.newBatch(before.positions)", "r.newBatch(r.state.positions)"}},
		pkg:   "./ingest", test: "^TestBacklogIsReadAhead$",
	},
	{
		name: "metric-renamed", what: "a metric is served under another name than the alert rules ask for",
		edits: []edit{{"cmd/cauce/metrics.go", `gauge("source_lag_seconds"`, `gauge("source_lag_time"`}},
		pkg:   "./cmd/cauce", test: "^TestMonitoring$",
	},
	{
		name: "ready-too-soon", what: "a part that failed counts as ready while it waits for its next try",
		edits: []edit{{"cmd/cauce/monitor.go", "\tm.report(name, err)\n", "\tm.report(name, nil)\n"}},
		pkg:   "./cmd/cauce", test: "^TestReadinessSaysWhy$",
	},
	{
		name: "empty-is-a-tombstone", what: "a message of no bytes in quarantine deletes its key's row when it is tried again",
		edits: []edit{{"ingest/quarantine.go", "v := append([]byte{}, a.Value(i)...)", "v := append([]byte(nil), a.Value(i)...)"}},
		pkg:   "./ingest", test: "^TestRetryOfAnEmptyMessageDeletesNothing$",
	},
	{
		name: "mistyped-selects-nothing", what: "quarantine has nothing for a table that does not exist",
		edits: []edit{{"cmd/cauce/quarantine.go", "if x.value == \"\" || x.known {", "if x.value != \"\\x00\" {"}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^quarantine$",
	},
	{
		name: "retry-is-silent", what: "a retry does not say which records it could not read again",
		edits: []edit{{"cmd/cauce/quarantine.go", "range r.Warnings {", "range r.Warnings[:0] {"}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^quarantine$",
	},
	{
		name: "any-address", what: "a producer takes an address that it cannot connect to",
		edits: []edit{{"cmd/cauce/producelive.go", "return usagef(\"--%s %s: %w\", flag, address, err)", "return nil"}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^gaps$",
	},
	{
		name: "quarantine-is-not-counted", what: "commits to quarantine are not among the metrics",
		edits: []edit{{"ingest/quarantine.go", "\t\tw.l.observe.quarantined(m)\n", "\t\t_ = m\n"}},
		pkg:   "./cmd/cauce", test: "^TestMonitoring$",
	},
	{
		name: "missing-topic-without-advice", what: "the error of a topic that does not exist does not say how to make it",
		edits: []edit{{"cmd/cauce/topics.go", "\t\treturn fmt.Errorf(\"%w; make it with: cauce topics create\", err)\n", "\t\treturn err\n"}},
		pkg:   "./test/flow", test: "^TestTopics$",
	},
	{
		name: "absent-files-are-not-told", what: "a check says nothing of a file that the lake file names and that is not there",
		edits: []edit{{"pipeline/load.go", "errors.Is(err, fs.ErrNotExist) {\n\t\tb.warnf(", "err == fs.ErrInvalid {\n\t\tb.warnf("}},
		pkg:   "./pipeline", test: "^TestLakeFiles$/^kafka$",
	},
	{
		name: "queue-with-offsets", what: "a message of Pub/Sub in quarantine is shown by its time, as if that were an offset",
		edits: []edit{{"cmd/cauce/quarantine.go", "ok && strings.HasPrefix(r.Origin, pubsub.Kind+\":\")", "ok && r.Origin == pubsub.Kind"}},
		pkg:   "./cmd/cauce", test: "^TestQueuesHaveNoOffsets$",
	},
	{
		name: "silent-takeover", what: "a stream that stood by does not say that it has taken over",
		edits: []edit{{"ingest/standby.go", "again = v.told && !v.back", "again = false"}},
		pkg:   "./ingest", test: "^TestSecondStreamStandsByAndTakesOver$",
	},
	{
		name: "short-secrets-tear-text", what: "a value of one letter is replaced in every word that has the letter",
		edits: []edit{{"pipeline/yaml.go", "const secretBytesMin = 4", "const secretBytesMin = 1"}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^secrets$",
	},
	{
		name: "poison-as-text", what: "a message that is no text is tried again as what is left of it",
		edits: []edit{{"engine/duckdb/finish.go", "exact = append([]byte{}, raw...)", "exact = []byte(strings.ToValidUTF8(string(raw), \"\"))"}},
		pkg:   "./ingest", test: "^TestPoisonIsKeptByteForByte$",
	},
	{
		name: "archive-forgets-empty-messages", what: "the raw archive does not tell a message of no bytes from a deletion",
		edits: []edit{{"ingest/rawarchive.go", "`json:\"bytes,omitzero\"`", "`json:\"bytes,omitempty\"`"}},
		pkg:   "./ingest", test: "^TestRawArchiveHoldsEveryMessage$",
	},
	{
		name: "keys-in-quotes", what: "a key with a line end comes out of the embedded buffer as another one",
		edits: []edit{{"connect/buffer/sink.go", "base64.StdEncoding.EncodeToString(key)", "base64.StdEncoding.EncodeToString([]byte(strconv.QuoteToASCII(string(key))))"}},
		pkg:   "./connect/buffer", test: "^TestKeysComeBackAsTheyWere$",
	},
	{
		name: "row-ids-from-the-first-try", what: "a commit that lost a race keeps the row ids of its first try",
		edits: []edit{{"delta/rowtracking.go", "\tc.adds = adds\n", "\tc.adds, x.adds = adds, adds\n"}},
		pkg:   "./delta", test: "^TestRowIDsAreGivenAnewAfterALostRace$",
	},
	{
		name: "updates-forget-row-ids", what: "a row that an UPDATE or a MERGE changes gets a new id",
		edits: []edit{{"delta/trackedrows.go", "\t\tif _, known := t.Schema.Field(name); name != \"\" && ", "\t\tif _, known := t.Schema.Field(name); false && "}},
		pkg:   "./delta", test: "^TestRowIDsStay$",
	},
	{
		name: "clock-sets-in-commit-timestamps", what: "an in-commit timestamp is what the clock says, even if that is not later than the one before",
		edits: []edit{{"delta/transaction.go", "\t\tict = max(ict, x.base.time.UnixMilli()+1)\n", ""}},
		pkg:   "./delta", test: "^TestInCommitTimestampsRise$",
	},
	{
		name: "half-a-pair-of-duplicates", what: "of two rows of one epoch with the same key only one is compared",
		edits: []edit{{"engine/duckdb/duplicates.go", "i > 0 && met[i-1].hash == r.hash || ", ""}},
		pkg:   "./engine/duckdb", test: "^TestRulesOfAnEpoch$",
	},
	{
		name: "one-field-too-many", what: "a CSV record may have more fields than its file",
		edits: []edit{{"engine/duckdb/lines.go", "\t\tif k < 0 != (i == last) {\n", "\t\tif k < 0 && i != last {\n"}},
		pkg:   "./engine/duckdb", test: "^TestLinesEqualExactReader$",
	},
	{
		name: "checksum-of-one-file-less", what: "the version checksum says that there is one file less",
		edits: []edit{{"delta/checksum.go", "NumFiles: int64(s.live.n), NumMetadata: 1", "NumFiles: int64(s.live.n) - 1, NumMetadata: 1"}},
		pkg:   "./delta", test: "^TestChecksumsOfOtherWriters$",
	},
	{
		name: "checksum-overwritten", what: "the version checksum of another writer is overwritten",
		edits: []edit{{
			"delta/checksum.go", "put(ctx, s.table.checksumKey(s.version), append(data, '\\n')); err",
			"s.table.store.Put(ctx, s.table.checksumKey(s.version), strings.NewReader(string(data)), objstore.PutOptions{}); put != nil && err",
		}},
		pkg: "./delta", test: "^TestChecksumOfEveryCommit$",
	},
	{
		name: "sidecar-left-out", what: "a V2 checkpoint does not name its last sidecar",
		edits: []edit{{"delta/checkpoint_v2.go", "\tfor i := range sidecars {\n", "\tfor i := range sidecars[:max(0, len(sidecars)-1)] {\n"}},
		pkg:   "./delta", test: "^TestV2Checkpoints$",
	},
	{
		name: "young-sidecars-go", what: "cleaning up the log deletes the sidecars of a checkpoint in the making",
		edits: []edit{{"delta/cleanup.go", "info.ModTime.Before(young)", "info.ModTime.Before(t.opts.Clock())"}},
		pkg:   "./delta", test: "^TestSidecarsAreCleanedUp$",
	},
	{
		name: "ids-of-rows-that-were-deleted", what: "a merge that lost a race keeps the ids of rows that the winner gave another key",
		edits: []edit{{"delta/rebase.go", "\t} else if lost {\n\t\treturn errReplan\n", "\t} else if lost {\n"}},
		pkg:   "./delta", test: "^TestMergeGivesUpIDsThatAWinnerMoved$",
	},
	{
		name: "field-ids-forgotten", what: "files of tables with column mapping have no field ids",
		edits: []edit{{"engine/duckdb/write.go", "if ids := fieldIDs(j.table); ids != \"\" {", "if ids := fieldIDs(j.table); ids == \"-\" {"}},
		pkg:   "./engine/duckdb", test: "^TestWritersOfMappedTablesAgree$",
	},
	{
		name: "float-bounds-as-doubles", what: "statistics of a column that was float prune as if they had been written for double",
		edits: []edit{{"delta/predicate.go", "if typ == Double && wasFloat(field) {", "if typ == Double && !wasFloat(field) {"}},
		pkg:   "./delta", test: "^TestWidenedColumnsReadRight$",
	},
	{
		name: "column-ids-given-twice", what: "a restore takes the greatest column id back",
		edits: []edit{{"delta/restore.go", "last := maxColumnID(s.metadata, target.metadata)", "last := maxColumnID(target.metadata)"}},
		pkg:   "./delta", test: "^TestUnknownMetadataStays$",
	},
	{
		name: "index-by-names", what: "keys that were read under a column's name are taken for those of another column that has it now",
		edits: []edit{{"ingest/index/index.go", "b.WriteString(f.PhysicalName() + \"\\x00\" + f.Type.String() + \"\\x00\")", "b.WriteString(f.Name + \"\\x00\")"}},
		pkg:   "./ingest/index", test: "^TestColumnsThatChange$",
	},
	{
		name: "drop-feature-at-once", what: "a reader feature is dropped while versions that can be read use it",
		edits: []edit{{"delta/dropfeature.go", "\t\tif r.inCommit(c, s.protocol) {\n\t\t\treturn v, nil\n", "\t\tif r.inCommit(c, s.protocol) {\n\t\t\treturn -1, nil\n"}},
		pkg:   "./delta", test: "^TestDropFeatureOfReaders$",
	},
	{
		name: "lost-try-believed-later", what: "a commit that an earlier try made counts as what the later try would have written",
		edits: []edit{{"delta/transaction.go", "\t\tif earlier != nil {\n", "\t\tif false {\n"}},
		pkg:   "./delta", test: "^TestLostTryStands$",
	},
	{
		name: "spark-rounds-to-even", what: "Spark's side rounds halves of decimals to the even digit",
		edits: []edit{{"engine/spark/render.go", "\tdigits := \"\"\n\tif len(vals) > 1 {", "\tif f == \"round\" {\n\t\tf = \"bround\"\n\t}\n\tdigits := \"\"\n\tif len(vals) > 1 {"}},
		pkg:   "./test/spark", test: "^TestBothEnginesGiveEveryRecordTheSameFate$",
	},
	{
		name: "spark-rounds-when-the-sign-changes", what: "Spark's side turns the sign of a decimal of 38 digits by -, which rounds it to 34",
		edits: []edit{{"engine/spark/render.go", "return sqlType(t), x.kind == kindDecimal && t.P > 34", "return sqlType(t), false"}},
		pkg:   "./test/spark", test: "^TestBothEnginesGiveEveryRecordTheSameFate$",
	},
	{
		name: "spark-mod-fails-the-query", what: "Spark's side takes % of decimals whose quotient has more digits than Spark has by Spark's own",
		edits: []edit{{"engine/spark/render.go", "a.P-a.S+b.S > 38 {", "a.P-a.S+b.S > 380 {"}},
		pkg:   "./test/spark", test: "^TestBothEnginesGiveEveryRecordTheSameFate$",
	},
	{
		name: "embedded-scales-in-binary", what: "the embedded engine makes a decimal of a DOUBLE by a multiplication in binary",
		edits: []edit{{"engine/duckdb/render.go", "if to == kindDecimal {\n\t\t\t\tdouble = nearest(double)", "if false {\n\t\t\t\tdouble = nearest(double)"}},
		pkg:   "./engine/duckdb", test: "^TestPinnedExpressions$",
	},
	{
		name: "embedded-ceil-is-wider-than-its-digits", what: "ceil and round of the embedded engine give a decimal so wide that others beside it are rounded",
		edits: []edit{{"engine/duckdb/render.go", "if k != kindDecimal {\n\t\treturn x", "if k >= 0 {\n\t\treturn x"}},
		pkg:   "./engine/duckdb", test: "^TestPinnedExpressions$",
	},
	{
		name: "embedded-substr-depends-on-the-column", what: "substr from before a text's first character is DuckDB's own",
		edits: []edit{{"engine/duckdb/render.go", "if atLeast(es[1], 1) && len(es) == 2 {", "if len(es) == 2 {"}, {"engine/duckdb/render.go", "if atLeast(es[1], 1) && atLeast(es[2], 0) {", "if atLeast(es[1], 1) || true {"}},
		pkg:   "./engine/duckdb", test: "^TestSubstrCountsAlike$",
	},
	{
		name: "damaged-pages-end-the-process", what: "columns of a data file are read in goroutines, where a panic over a damaged page is nobody's to take back",
		edits: []edit{{"delta/parquet_read.go", "ArrowReadProperties{BatchSize: readRows}", "ArrowReadProperties{BatchSize: readRows, Parallel: true}"}},
		pkg:   "./delta", test: "^FuzzLogFiles$",
	},
	{
		name: "one-place-of-a-doubled-id", what: "of an id that stands several times only one place says whose the hole beside it is",
		edits: []edit{{"engine/duckdb/ledger.go", "const ledgerPlacesMax = 100", "const ledgerPlacesMax = 1"}},
		pkg:   "./ingest", test: "^TestLedgerOfDoubledIDsIsNotChance$",
	},
	{
		name: "packing-runs-after-a-quick-writer", what: "OPTIMIZE goes on as long as a writer adds files faster than they are packed",
		edits: []edit{{"delta/optimize.go", "len(bins) > 0 && left > 0:", "len(bins) > 0:"}},
		pkg:   "./delta", test: "^TestTieredOptimizeEndsBesideAQuickWriter$",
	},
	{
		name: "no-digit-before-the-point", what: "the text of a decimal without whole digits begins with its point",
		edits: []edit{{"engine/duckdb/render.go", "if d, ok := t.(delta.Decimal); ok && d.P == d.S {", "if false {"}, {"engine/duckdb/render.go", "func textOfType(t delta.Type, x string)", "func textOfType(_ delta.Type, x string)"}},
		pkg:   "./engine/duckdb", test: "^TestTextOfDecimals$",
	},
	{
		name: "embedded-greatest-is-least", what: "the embedded engine's greatest gives the least of the values",
		edits: []edit{{"engine/duckdb/render.go", "return mk(k, \"%s(%s)\", c.Func, strings.Join(vals, \", \"))", "return mk(k, \"least(%s)\", strings.Join(vals, \", \"))"}},
		pkg:   "./test/spark", test: "^TestBothEnginesGiveEveryRecordTheSameFate$",
	},
	{
		name: "embedded-compares-in-single-precision", what: "a DECIMAL beside a FLOAT is compared in single precision",
		edits: []edit{{"engine/duckdb/render.go", "return floats && others", "return false"}},
		pkg:   "./engine/duckdb", test: "^TestPinnedExpressions$",
	},
	{
		name: "one-type-for-all-numbers", what: "decimals are compared in the type that the engine finds for them, which may have no room",
		edits: []edit{{"pipeline/exact.go", "return t, before+t.S <= digitsMax", "return t, true"}},
		pkg:   "./engine/duckdb", test: "^TestPinned",
	},
	{
		name: "spark-starts-behind-the-table", what: "the stream on Spark begins at the offset that the table has already",
		edits: []edit{{"engine/spark/driver/stream.py", "first[p] = at + 1\n", "first[p] = at + 2\n"}},
		pkg:   "./test/spark", test: "^TestStreamStartsWhereTheLakeFileSays$",
	},
	{
		name: "spark-keeps-the-earlier-reading", what: "rows of a file's earlier reading stay when Spark reads it again",
		edits: []edit{{"engine/spark/driver/epoch.py", "f\"WHEN NOT MATCHED BY SOURCE AND {gone} THEN DELETE\" if replace else \"\"", "\"\""}},
		pkg:   "./test/spark", test: "^TestBatchOnSparkIsTheBatchHere$",
	},
	{
		name: "spark-forgets-the-key", what: "a message without value deletes nothing on Spark",
		edits: []edit{{"engine/spark/driver/messages.py", "\"true\" if gone else None", "None"}},
		pkg:   "./test/spark", test: "^TestTombstonesOverTLSOnSpark$",
	},
	{
		name: "spark-brings-back-the-deleted", what: "rows go from Spark into a table that has forgotten deletions",
		edits: []edit{{"engine/spark/driver/tables.py", "if self.merging and purged.isDefined():", "if False:"}},
		pkg:   "./test/spark", test: "^TestBatchOnSparkIsTheBatchHere$",
	},
	{
		name: "spark-repeats-runs", what: "a batch on Spark is run again under an ID that has succeeded",
		edits: []edit{{"cmd/cauce/spark.go", "\t}}, id)\n\tif run == nil", "\t}}, \"\")\n\tif run == nil"}},
		pkg:   "./test/airflow", test: "^TestDagOnSpark$",
	},
	{
		name: "trust-remembered-copies", what: "a remembered copy is skipped although the file is another one now",
		edits: []edit{{"ingest/batch.go", "case !ok && b.unchanged(f, remembered[f.Key]):", "case !ok && remembered[f.Key].Name == f.Key:"}},
		pkg:   "./ingest", test: "^TestRenamedCopiesAreHashedOnce$",
	},
	{
		name: "futures-under-spot-ids", what: "events of futures are published under the message ids of spot events",
		edits: []edit{{"connect/binance/binance.go", "\t\treturn \"um-\"\n", "\t\treturn \"\"\n"}},
		pkg:   "./examples", test: "^TestDocumentedTradesAgreeWithTheContract$",
	},
	{
		name: "python-partitions", what: "the producer in Python spreads keys over partitions in another way",
		edits: []edit{{"examples/producers/binance.py", "murmur2_random", "consistent_random"}},
		pkg:   "./test/flow", test: "^TestTopicIsAnOpenContract$",
	},
	{
		name: "tombstones-kept-as-rows", what: "a message without value is no deletion, though the lake file says so",
		edits: []edit{{"engine/duckdb/records.go", "\t\ts.values[tombstone] = jsonValue{text: \"true\", set: true}\n", ""}},
		pkg:   "./test/flow", test: "^TestKafkaSourceOptions$",
	},
	{
		name: "outage-taken-for-poison", what: "messages whose schema cannot be fetched now are called bad",
		edits: []edit{{"connect/avro/registry.go", "case answer.StatusCode == http.StatusNotFound:", "case answer.StatusCode >= http.StatusNotFound:"}},
		pkg:   "./connect/avro", test: "^TestRegistryThatDoesNotAnswer$",
	},
	{
		name: "no-stream-stands-by", what: "two streams over one source race for every epoch",
		edits: []edit{{"ingest/standby.go", "\treturn v.weight >= standByWeight\n", "\treturn false\n"}},
		pkg:   "./ingest", test: "^TestSecondStreamStandsByAndTakesOver$",
	},
	{
		name: "standby-dies-with-the-broker", what: "a stream that stands by ends when the brokers are away as it wants to take over",
		edits: []edit{{"ingest/standby.go", "|| !errors.Is(err, pipeline.ErrUnavailable)", "|| errors.Is(err, pipeline.ErrUnavailable) || err == nil"}},
		pkg:   "./ingest", test: "^TestSecondStreamStandsByAndTakesOver$",
	},
	{
		name: "gap-is-not-foreseen", what: "doctor, status and plan look healthy while the next run will stop at a gap",
		edits: []edit{{"ingest/probe.go", "in.(Prober); ok && o.Stops == nil", "in.(Prober); !ok && o.Stops == nil"}},
		pkg:   "./test/flow", test: "^TestKafkaGaps$",
	},
	{
		name: "status-of-one-log", what: "status counts the commits of one log of a source that had several",
		edits: []edit{{"ingest/status.go", "s.Epoch += x.Epoch", "s.Epoch = max(s.Epoch, x.Epoch)"}},
		pkg:   "./ingest", test: "^TestStreamNewIncarnation$",
	},
	{
		name: "start-passes-over-lag", what: "what a stream will begin behind counts as lag",
		edits: []edit{{"connect/kafka/backlog.go", "} else if len(after) == 0 {", "} else if len(after) < 0 {"}},
		pkg:   "./connect/kafka", test: "^TestBroker$",
	},
	{
		name: "overlap-without-headway", what: "a connection to Bluesky that ends while it repeats events is followed by one that repeats the same",
		edits: []edit{{"connect/bluesky/bluesky.go", "max(c.overlap/2, overlapMin)", "max(c.overlap, overlapMin)"}},
		pkg:   "./connect/bluesky", test: "^TestEveryPostArrivesOnceWhateverTheServerDoes$",
	},
	{
		name: "shared-url-unsigned", what: "a shared file is served whatever the signature of its URL",
		edits: []edit{{"serve/sharing/urls.go", "err != nil || !hmac.Equal(given, s.sign(kind, key, at, id))", "err != nil && !hmac.Equal(given, s.sign(kind, key, at, id))"}},
		pkg:   "./serve/sharing", test: "^TestSignedURLs$",
	},
	{
		name: "expired-token-accepted", what: "a recipient reads on after the token has expired",
		edits: []edit{{"serve/sharing/recipients.go", "!now.Before(r.Expires) }", "now.Before(r.Expires) && now.After(r.Expires) }"}},
		pkg:   "./serve/sharing", test: "^TestTokens$",
	},
	{
		name: "shared-deletions-shown", what: "recipients of a share see the rows that stand for deletions",
		edits: []edit{{"serve/sharing/lines.go", "\t\tif !hidden.IsEmpty() {\n", "\t\tif false {\n"}},
		pkg:   "./serve/sharing", test: "^TestRowsAreTheTables$",
	},
	{
		name: "shared-links-followed", what: "a link in a table's folder leads recipients to other files",
		edits: []edit{{"serve/sharing/urls.go", "os.OpenInRoot(dir, name)", "os.Open(dir + \"/\" + name)"}},
		pkg:   "./serve/sharing", test: "^TestSignedURLs$",
	},
	{
		name: "shared-history-open", what: "older versions are read of a table that is shared without its history",
		edits: []edit{{"serve/sharing/query.go", "if asked && !t.history {", "if asked && t.share == \"\" {"}},
		pkg:   "./serve/sharing", test: "^TestHistoryCanBeKept$",
	},
	{
		name: "gate-passes-read-text", what: "SQL of clients may name a table function that reads files",
		edits: []edit{{"engine/duckdb/query.go", "var allowedTableFunctions = []string{\"range\",", "var allowedTableFunctions = []string{\"read_text\", \"range\","}},
		pkg:   "./engine/duckdb", test: "^TestQueryGate$",
	},
	{
		name: "rollback-keeps-temporary-tables", what: "a temporary table outlives the transaction that made it and was rolled back",
		edits: []edit{{"serve/session.go", "\tif rollback {\n", "\tif rollback && false {\n"}},
		pkg:   "./test/bi", test: "^TestSQLOverTheWire$/^transactions_of_temporary_tables$",
	},
	{
		name: "temporary-tables-not-found-in-upper-case", what: "a temporary table whose name has letters in upper case cannot be read",
		edits: []edit{{"serve/temp.go", "return s.temps.tables[strings.ToLower(name)] }", "return s.temps.tables[name] }"}},
		pkg:   "./test/bi", test: "^TestSQLOverTheWire$/^names_of_temporary_tables$",
	},
	{
		name: "null-parameter-is-a-text", what: "a parameter of Arrow Flight SQL that is null arrives as a text",
		edits: []edit{{"serve/flightsql/params.go", "\tcase *array.Null:\n\t\treturn true\n", "\tcase *array.Null:\n\t\treturn false\n"}},
		pkg:   "./test/bi", test: "^TestFlightSQL$",
	},
	{
		name: "current-date-is-a-name", what: "current_date::text names itself instead of the date",
		edits: []edit{{"serve/rewrite.go", "case valueWords[st.Word(i)] != \"\" &&", "case valueWords[st.Word(i)] == \"-\" &&"}},
		pkg:   "./test/bi", test: "^TestSQLOverTheWire$/^values$",
	},
	{
		name: "short-times-lose-their-hour", what: "a time with a zone and no seconds is taken for midnight",
		edits: []edit{{"serve/session.go", "cmp.Or(parts[2], \"00:00\")", "cmp.Or(\"00:00\", parts[2])"}},
		pkg:   "./test/bi", test: "^TestSQLOverTheWire$/^values$",
	},
	{
		name: "copy-ignores-its-encoding", what: "COPY in another encoding sends UTF-8 without a word",
		edits: []edit{{"serve/pgwire/copy.go", "if !serve.UTF8(word(next)) {", "if !serve.UTF8(\"UTF8\") {"}},
		pkg:   "./test/bi", test: "^TestSQLOverTheWire$/^codes$",
	},
	{
		name: "literals-are-evaluated", what: "each value of a long IN list costs a statement of the planner",
		edits: []edit{{"engine/duckdb/prune.go", "isNull, ok := literalValue(n)", "isNull, ok := literalValue(nil)"}},
		pkg:   "./engine/duckdb", test: "^TestQueryPrunes$",
	},
	{
		name: "unknown-functions-are-refused", what: "a function in FROM that is not there is said to reach outside the lake",
		edits: []edit{{"engine/duckdb/query.go", "known, _ := row[0].(bool); !known {", "known, _ := row[0].(bool); known && e.name == \"\" {"}},
		pkg:   "./engine/duckdb", test: "^TestRefusedQueriesSayWhy$",
	},
	{
		name: "braces-do-not-nest", what: "a comma inside of a struct ends the assignment of an UPDATE",
		edits: []edit{{"engine/duckdb/statement.go", " || text == \"{\") ||", ") ||"}},
		pkg:   "./engine/duckdb", test: "^TestParseStatement$",
	},
	{
		name: "transaction-sees-commits", what: "a transaction of PostgreSQL's protocol reads another version with each statement",
		edits: []edit{{"serve/session.go", "\tif s.tx == nil {\n\t\treturn s.b.snapshot(ctx, name)\n", "\tif true {\n\t\treturn s.b.snapshot(ctx, name)\n"}},
		pkg:   "./test/bi", test: "^TestSQLOverTheWire$",
	},
	{
		name: "role-sees-all-columns", what: "a role that may see some columns of a table sees all of them",
		edits: []edit{{"serve/serve.go", "\tcolumns, ok = r.Tables[strings.ToLower(table)]\n\treturn columns, ok\n", "\t_, ok = r.Tables[strings.ToLower(table)]\n\treturn nil, ok\n"}},
		pkg:   "./test/bi", test: "^TestRolesSeeTheirTables$",
	},
	{
		name: "view-plans-shown", what: "a role that sees only a view is shown the plan of what it reads",
		edits: []edit{{"serve/session.go", "prefix != \"\" && r.views && !s.Role.Whole()", "prefix != \"\" && r.views && s.Role.Whole()"}},
		pkg:   "./test/bi", test: "^TestRolesSeeTheirViews$",
	},
	{
		name: "shredded-member-value", what: "a member of a shredded variant that is called value is taken for the variant's own value",
		edits: []edit{{"delta/variant.go", "arrow.Field{Name: f.Name, Type: shreddedGroup(f.Type)}", "arrow.Field{Name: f.Name, Type: shreddedGroup(f.Type), Nullable: f.Name == \"value\"}"}},
		pkg:   "./delta", test: "^TestShreddedVariantMembersHaveAnyName$",
	},
	{
		name: "encoded-colon-is-a-scheme", what: "a data file whose name has a colon is taken for one of another store",
		edits: []edit{{"delta/path.go", "splitScheme(p); ok ||", "splitScheme(dec); ok ||"}},
		pkg:   "./delta", test: "^TestPaths$",
	},
	{
		name: "years-of-four-digits", what: "partitions of years beyond 9999 cannot be read",
		edits: []edit{{"delta/partition.go", "n < 4 || n > 7", "n != 4 || sign < 0"}},
		pkg:   "./delta", test: "^TestPartitionValues$",
	},
	{
		name: "page-sql-sees-all", what: "the page SQL answers every role as if it saw everything",
		edits: []edit{{"serve/web/login.go", "context.WithValue(r.Context(), roleKey{}, role)", "context.WithValue(r.Context(), roleKey{}, &serve.Role{Name: role.Name})"}},
		pkg:   "./test/web", test: "^TestPagesLogin$",
	},
	{
		name: "login-guessed", what: "who guesses passwords never has to wait",
		edits: []edit{{"serve/web/login.go", "if f.level+1 > failuresMax {", "if f.level+1 > failuresMax*1000 {"}},
		pkg:   "./test/web", test: "^TestPagesLogin$",
	},
	{
		name: "retry-of-another-command", what: "a run of another command, such as one with --reprocess, is tried again as the task that it was not",
		edits: []edit{{"schedule/schedule.go", "\tcase r.Command != \"\":\n", "\tcase r.Command == \"-\":\n"}},
		pkg:   "./schedule", test: "^TestRetryOfARun$",
	},
	{
		name: "log-line-lost", what: "who follows a log misses what one answer does not hold",
		edits: []edit{{"schedule/history.go", "return text, from, from + int64(len(text)), nil", "return text, from, info.Size(), nil"}},
		pkg:   "./schedule", test: "^TestLogSince$",
	},
	{
		name: "empty-table-is-missing", what: "a table of the catalogue cannot be asked before its first commit",
		edits: []edit{{"serve/resolve.go", "if n.AtUnit == \"\" && notWritten(err) {", "if n.AtUnit == \"-\" && notWritten(err) {"}},
		pkg:   "./test/bi", test: "^TestEmptyLake$",
	},
	{
		name: "long-statements-hold-all", what: "statements that do not end hold up the others until their time has passed",
		edits: []edit{{"serve/worker/pool.go", "time.AfterFunc(longAfter, t.makeRoom)", "time.AfterFunc(time.Hour, t.makeRoom)"}},
		pkg:   "./test/bi", test: "^TestLongStatementsMakeRoom$",
	},
	{
		name: "long-statements-stay-in-front", what: "statements that do not end do not give way to others on the processors",
		edits: []edit{{"serve/worker/pool.go", "\t\tt.long = true\n\t\tt.w.giveWay()\n", "\t\tt.long = true\n"}},
		pkg:   "./test/bi", test: "^TestLongStatementsMakeRoom$",
	},
	{
		name: "tie-with-another-key", what: "columns of a stored row that are not read, because the source row has them, are taken from another row",
		edits: []edit{{"delta/judge.go", "from[at(k)] = int64(s)", "from[at(k)] = 0 * int64(s)"}},
		pkg:   "./ingest/index", test: "^TestSameTableWithAndWithout$",
	},
	{
		name: "constant-that-does-not-fit", what: "a lake file with a constant that its column cannot hold is taken for right",
		edits: []edit{{"pipeline/load.go", "\t\tif !fits {\n", "\t\tif !fits && t == nil {\n"}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^constants$",
	},
	{
		name: "doctor-leaves-its-objects", what: "the doctor leaves what it wrote to try the storage",
		edits: []edit{{"cmd/cauce/doctor.go", "derr := s.Delete(ctx, key)", "derr := ctx.Err()"}},
		pkg:   "./cmd/cauce", test: "^TestDoctorLeavesNothing$",
	},
	{
		name: "pages-for-any-origin", what: "a change that another site asks for is made",
		edits: []edit{{"serve/web/web.go", "origin.Host != r.Host", "origin.Host == \"\""}},
		pkg:   "./test/web", test: "^TestPagesRefuse$",
	},
	{
		name: "like-without-escape", what: "the names that clients escape in patterns are not found",
		edits: []edit{{"serve/dialect.go", "constant && !strings.Contains(s, `\\`)", "constant && len(s) > 0"}},
		pkg:   "./test/bi", test: "^TestMetadataOfDriversIsPostgreSQLs$",
	},
	{
		name: "parameter-rounds-the-column", what: "a decimal beside a numeric parameter is rounded to the digits of the parameter",
		edits: []edit{{"serve/numeric.go", "return fmt.Sprintf(\"DECIMAL(%d,%d)\", width, scale), nil", "return fmt.Sprintf(\"DECIMAL(%d,%d)\", max(width, 38), scale), nil"}},
		pkg:   "./test/bi", test: "^TestStatementsMeanWhatPostgreSQLMeans$",
	},
	{
		name: "numeric-of-three-digits", what: "a cast to numeric keeps three digits behind the point",
		edits: []edit{{"serve/rewrite.go", "\t\tif !long {\n\t\t\treturn numericType\n", "\t\tif !long && i < 0 {\n\t\t\treturn numericType\n"}},
		pkg:   "./test/bi", test: "^TestStatementsMeanWhatPostgreSQLMeans$",
	},
	{
		name: "unknown-pattern-is-printed", what: "to_char prints the letters of a pattern that it does not know",
		edits: []edit{{"serve/timeformat.go", "\t\t\tif upper == r {\n", "\t\t\tif upper == r && n == 0 {\n"}},
		pkg:   "./test/bi", test: "^TestStatementsMeanWhatPostgreSQLMeans$",
	},
	{
		name: "privilege-on-a-hidden-column", what: "has_column_privilege is true of a column that the role does not see",
		edits: []edit{{"serve/pgcatalog/functions.sql", "'(?i)select') AND EXISTS (SELECT 1 FROM @.m_pg_attribute", "'(?i)select') OR EXISTS (SELECT 1 FROM @.m_pg_attribute"}},
		pkg:   "./test/bi", test: "^TestRolesSeeTheirTables$",
	},
	{
		name: "ticket-of-any-role", what: "who has another role's ticket of Flight SQL gets its rows",
		edits: []edit{{"serve/flightsql/statements.go", "ok := r != nil && r.role == roleOf(ctx) && !r.taken", "ok := r != nil && !r.taken"}},
		pkg:   "./test/bi", test: "^TestFlightSQLRefuses$",
	},
	{
		name: "empty-text-is-null", what: "clients get a null where a row begins with an empty text",
		edits: []edit{{"serve/pgwire/query.go", "buf := make([]byte, 0, 1024)", "var buf []byte"}},
		pkg:   "./test/bi", test: "^TestDriversReadWhatIsWritten$",
	},
	{
		name: "null-inside-of-a-struct", what: "a null is written where a field of a struct is NOT NULL",
		edits: []edit{{"delta/enforce.go", "nullInside(col, types[c], i); found {", "nullInside(col, types[c], i); found && path == \"\" {"}},
		pkg:   "./delta", test: "^TestNotNullInsideOfColumns$",
	},
	{
		name: "tight-beside-a-vector", what: "the statistics of a file with a deletion vector are said to be those of the rows that are left",
		edits: []edit{{"delta/merge.go", "\twide := false\n", "\twide := true\n"}},
		pkg:   "./delta", test: "^TestStatisticsBesideAVector$",
	},
	{
		name: "at-reads-the-newest", what: "AT (VERSION => …) in a query gives the newest version",
		edits: []edit{{"cmd/cauce/querypast.go", "t.SnapshotAt(ctx, delta.Version(v))", "t.Snapshot(ctx)"}},
		pkg:   "./cmd/cauce", test: "^TestScript$/^query$",
	},
	{
		name: "clone-vacuums-its-origin", what: "a lite vacuum of a shallow clone deletes files of the table that it was cloned from",
		edits: []edit{{"delta/vacuum_lite.go", "joinKey(t.path, \"\")); !below || hiddenFile(name) {", "joinKey(t.path, \"\")); below && hiddenFile(name) {"}},
		pkg:   "./delta", test: "^TestVacuumOfACloneSparesItsOrigin$",
	},
	{
		name: "cleanup-trusts-a-broken-checkpoint", what: "the commits behind a checkpoint that cannot be read are deleted, and the table with them",
		edits: []edit{{"delta/cleanup.go", "\t\tif err == nil {\n\t\t\tkeep = v\n", "\t\tif err == nil || v >= 0 {\n\t\t\tkeep = v\n"}},
		pkg:   "./delta", test: "^TestCleanupLogKeepsWhatABrokenCheckpointStandsFor$",
	},
	{
		name: "added-columns-are-not-mapped", what: "a column that is added to a table whose columns are mapped gets no id, and what is written into it is lost",
		edits: []edit{{"delta/evolve.go", "\tif s.mapped() {\n\t\tto =", "\tif s.mapped() && len(changed) > 0 {\n\t\tto ="}},
		pkg:   "./catalog", test: "^TestEnsureAddsColumnsAsTheTableNeedsThem$",
	},
	{
		name: "avro-mends-texts", what: "texts of Avro that are no UTF-8 are mended, so that two keys become one",
		edits: []edit{{"internal/rowjson/rowjson.go", "\tfor i := 0; i < len(s); i++ {\n", "\ts = string([]rune(s))\n\tfor i := 0; i < len(s); i++ {\n"}},
		pkg:   "./connect/avro", test: "^TestTextsThatAreNoUTF8$",
	},
	{
		name: "rows-of-two-statements", what: "a session with temporary tables gets the rows of its cursor as those of another statement",
		edits: []edit{{"serve/worker/pool.go", "\tif n.last != nil {\n\t\tselect {\n", "\tif n.last != nil && r == nil {\n\t\tselect {\n"}},
		pkg:   "./test/bi", test: "^TestSQLOverTheWire$/^cursors_beside_other_statements$",
	},
	{
		name: "shared-changes-of-older-names", what: "recipients read nulls for changes from before a column was renamed",
		edits: []edit{{"serve/sharing/changes.go", "delta.ChangesOptions{From: v, To: v, As: as}", "delta.ChangesOptions{From: v, To: v}"}},
		pkg:   "./serve/sharing", test: "^TestChangesBeforeARename$",
	},
	{
		name: "restored-row-ids-come-again", what: "new rows get the row ids of restored ones where row tracking had been dropped",
		edits: []edit{{"delta/rowtracking.go", "next := max(mark, x.rowIDs-1)", "next := max(mark, -1)"}},
		pkg:   "./delta", test: "^TestRestoredRowIDsAreNotGivenAgain$",
	},
	{
		name: "mapped-names-in-their-case-only", what: "columns whose names in files have another case are null once the table is upgraded to column mapping",
		edits: []edit{{"delta/arrow.go", "\t\tif strings.EqualFold(fields[i].Name, want) {", "\t\tif m == mapNone && strings.EqualFold(fields[i].Name, want) {"}},
		pkg:   "./engine/duckdb", test: "^TestNamesInFilesAreOfAnyCase$",
	},
	{
		name: "path-taken-for-anothers-name", what: "a file goes with another one whose name is what the first one's path looks like",
		edits: []edit{{"delta/fileset.go", "if canonicalPath(c.paths.at(i)) == path && !yield(i) {", "if p := c.paths.at(i); (p == path || canonicalPath(p) == path) && !yield(i) {"}},
		pkg:   "./delta", test: "^TestSpellingsOfAPathAreOneFile$",
	},
	{
		name: "positions-named-as-columns", what: "UPDATE and MERGE write other rows than those that they mark where a table has a column _row",
		edits: []edit{{"engine/duckdb/scan.go", "\"_cauce_row_\"", "\"_row\""}},
		pkg:   "./engine/duckdb", test: "^TestColumnsNamedAsPositions$",
	},
	{
		name: "forgotten-catalogues", what: "a catalogue that a worker has forgotten is not sent again, to whoever asks",
		edits: []edit{{"serve/worker/pool.go", "\t\tclear(w.keys)\n", ""}},
		pkg:   "./serve/worker", test: "^TestCataloguesComeBack$",
	},
	{
		name: "names-that-progress-cannot-keep", what: "a re-issued file whose name is no UTF-8 stands beside its predecessor",
		edits: []edit{{"ingest/batch.go", "\tif utf8.ValidString(key) {\n", "\tif utf8.ValidString(key) || key != \"\" {\n"}},
		pkg:   "./ingest", test: "^TestBatchNamesThatAreNoUTF8$",
	},
	{
		name: "columns-for-others", what: "a statement that was prepared before its table was made anew gives one column's values for another's",
		edits: []edit{{"serve/pgwire/query.go", "\tif p.from == nil || !p.from.told ||", "\tif p.from == nil || p.from.told ||"}},
		pkg:   "./test/bi", test: "^TestSQLOverTheWire$/^prepared_statements_and_tables_that_change$",
	},
	{
		name: "parameters-without-a-bound", what: "a parameter that says it is huge when it is decompressed ends the server",
		edits: []edit{{"serve/flightsql/server.go", "&bounded{memory.DefaultAllocator, unpackedMax}", "memory.DefaultAllocator"}},
		pkg:   "./test/bi", test: "^TestFlightSQLRefuses$/^parameters_that_say_they_are_large$",
	},
	{
		name: "damaged-parquet-ends-the-process", what: "a damaged Parquet file among those of a source ends the program, at each start",
		edits: []edit{{"connect/parquet/parquet.go", "\tdefer recoverCorrupt(&err)\n\treturn rowjson.Append", "\treturn rowjson.Append"}},
		pkg:   "./connect/parquet", test: "^TestDamagedFiles$",
	},
}
