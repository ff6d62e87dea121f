# --- an epoch -----------------------------------------------------------------------------------------------------------------


def hook(phase):
    """Ends the application at once where CAUCE_FAULT says so (docs/testing.md)."""
    for fault in os.environ.get("CAUCE_FAULT", "").split(","):
        what, _, n = fault.partition(":")
        if what != "kill@" + phase:
            continue
        HOOKED[phase] = HOOKED.get(phase, 0) + 1
        if HOOKED[phase] == int(n or 1):
            print(f"cauce: {fault}", file=sys.stderr, flush=True)
            time.sleep(1)  # the JVM hands it on
            os.kill(os.getppid(), 9)  # the JVM that started this process
            os.kill(os.getpid(), 9)


HOOKED = {}


def commit_epoch(spark, app, table, quarantine, progress, records, at, kind, replace=(), **covered):
    """Computes the rows of records, quarantines the bad ones and merges the good ones, in one commit with the epoch's txn;
    the stored rows of the origins in replace go in the same commit. records None: nothing was read. Gives its counts."""
    program, merge, source = app["program"], app["merge"], app["source"]
    counts, rows, won = dict.fromkeys(COUNTS, 0), None, None
    counts["warned"] = {}
    try:
        if records is not None:
            rows = apply_layers(records.where("bad IS NULL"), program, datetime.datetime.fromtimestamp(at_micros(at) / 1e6, datetime.timezone.utc)).cache()
            bad = records.where("bad IS NOT NULL")
            kept = judge(program, records, rows, counts)
        key = progress.begin(kind, program["hash"], at, **covered)
        if counts["rows_quarantined"]:
            put_quarantine(app, table, quarantine, progress, key, rows, bad, at)
        if rows is None:
            won, kept = spark.sql(f"SELECT *, '' AS _row FROM {table.sql} WHERE false"), 0
        else:
            winners(good(rows, program), program, merge["key"]).createOrReplaceTempView("_cauce_rows")
            won = spark.table("_cauce_rows").where("_n = 1").drop("_n").cache()
            won.count()
        gone = f"t._origin IN ({', '.join(text(o) for o in sorted(replace))})" if replace else "false"
        wins = f"({gone} OR {merge['greater']})" if replace else merge["greater"]
        # What the merge will do to whom is asked of the snapshot beforehand, for the report alone.
        won.createOrReplaceTempView("_cauce_won")
        what = spark.sql(
            f"SELECT count_if(t._old IS NULL AND NOT {merge['deletes']}) AS inserted, count_if(t._old AND NOT {merge['deletes']} AND NOT {merge['alike']} AND {wins}) AS updated, "
            f"count_if({merge['deletes']} AND (t._old IS NULL OR NOT {merge['alike']} AND {wins})) AS deleted "
            f"FROM _cauce_won s LEFT JOIN (SELECT *, true AS _old FROM {table.sql}) t ON {merge['condition']}"
        ).first()
        if replace:
            counts["rows_removed"] = spark.sql(f"SELECT count(*) FROM {table.sql} t LEFT ANTI JOIN _cauce_won s ON {merge['condition']} WHERE {gone}").first()[0]
        before = table.version
        hook("before-commit")
        table.merge(
            merge["condition"],
            f"WHEN MATCHED AND {wins} THEN UPDATE SET {merge['set']} WHEN NOT MATCHED THEN INSERT {merge['insert']}",
            won,
            f"WHEN NOT MATCHED BY SOURCE AND {gone} THEN DELETE" if replace else "",
            (progress.app_id, progress.epoch + 1),
            key,
        )
    finally:
        for frame in (won, rows):
            if frame is not None:
                frame.unpersist()
    name = table.user_metadata_of_txn(progress.app_id, progress.epoch + 1, before)
    if name != key:
        raise Conflict(f"epoch {progress.epoch + 1} of source {source['name']} was committed by {name or 'somebody else'}")
    hook("after-commit")
    progress.confirm(table.version)
    if replace:
        quarantine.patiently(
            f"DELETE FROM {quarantine.sql} WHERE source = {text(source['name'])} AND resolved_at IS NULL AND progress <> {text(key)} "
            f"AND origin IN ({', '.join(text(o) for o in sorted(replace))})"
        )
    changed = {k: what[k] or 0 for k in ("inserted", "updated", "deleted")}
    counts.update({"rows_" + k: n for k, n in changed.items()}, version=table.version)
    counts["rows_unchanged"] = kept - sum(changed.values())
    return counts


def judge(program, records, rows, counts):
    """Counts what became of the records; gives how many are good. A rule with on_fail: fail ends it."""
    failing = [str(i + 1) for i, r in enumerate(program["rules"]) if r.get("fails")]
    filtering = [str(i + 1) for i, r in enumerate(program["rules"]) if r.get("filter")]
    one = rows.selectExpr(
        "count(*) AS n",
        "count_if(s IS NULL) AS kept",
        f"count_if(s IN ({', '.join(filtering) or '-1'})) AS filtered",
        f"count_if(s IN ({', '.join(failing) or '-1'})) AS failed",
        *[f"count_if(s IS NULL AND {w['column']}) AS w{i}_n" for i, w in enumerate(program.get("warn") or [])],
    ).first()
    if one["failed"]:
        r = quarantined(rows.where(f"s IN ({', '.join(failing)})"), program).first()
        raise DataError(f"expectation {r['rule']} (on_fail: fail) failed for {one['failed']} rows; first: {r['reason']}")
    read = records.selectExpr("count(*) AS n", "count_if(bad IS NOT NULL) AS bad").first()
    counts["rows_read"] = read["n"]
    counts["rows_filtered"] = read["n"] - read["bad"] - one["n"] + one["filtered"]  # those of the source's filter are gone already
    counts["rows_quarantined"] = read["bad"] + one["n"] - one["kept"] - one["filtered"]
    counts["warned"] = {w["name"]: one[f"w{i}_n"] for i, w in enumerate(program.get("warn") or []) if one[f"w{i}_n"]}
    return one["kept"]


def put_quarantine(app, table, quarantine, progress, key, rows, bad, at):
    """Merges the bad rows of an epoch into quarantine, naming its progress file: they count once that has won."""
    program, source = app["program"], app["source"]
    q = quarantined(rows, program).unionByName(bad.selectExpr("meta", "p", "o", "g", "'structure' AS rule", "bad AS reason"))
    q = q.selectExpr(
        f"{text(table.name)} AS `table`", f"{text(source['name'])} AS source", "o AS origin", "p AS position", "g AS generation", "meta.file AS file", "meta.line AS line",
        "meta.topic AS topic", "meta.partition AS `partition`", "meta.offset AS `offset`", "rule", "reason", "meta.raw AS raw", "meta.raw_bytes AS raw_bytes", "meta.raw_offset AS raw_offset",
        f"{text(program['hash'])} AS plan", f"CAST({progress.epoch + 1} AS BIGINT) AS epoch", f"{text(key)} AS progress", f"timestamp_micros({at_micros(at)}) AS quarantined_at",
        "CAST(NULL AS TIMESTAMP) AS resolved_at", "meta.raw_binary AS raw_binary", "meta.key AS message_key",
        "timestamp_millis(meta.time) AS message_time",
    ).dropDuplicates(["source", "origin", "position", "rule"])
    same = "t.source = s.source AND t.origin = s.origin AND t.position = s.position AND t.rule = s.rule"
    quarantine.merge(same, "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *", q)


def at_micros(at):
    t = datetime.datetime.strptime(at, "%Y-%m-%dT%H:%M:%S.%fZ") - datetime.datetime(1970, 1, 1)
    return (t.days * 86400 + t.seconds) * 1000000 + t.microseconds


class DataError(Exception):
    """Data broke a rule with on_fail: fail: exit code 3."""


COUNTS = ("rows_read", "rows_inserted", "rows_updated", "rows_unchanged", "rows_quarantined", "rows_filtered", "rows_deleted", "rows_removed")


def now_rfc3339():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
