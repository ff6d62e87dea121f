# --- maintenance ------------------------------------------------------------------------------------------------------

# A task of VACUUM's listing has at least so many files of the table to find; Spark's own default is 10,000 tasks, however
# small the table is.
LISTED_MIN = 100
LISTING = "spark.sql.sources.parallelPartitionDiscovery.parallelism"


def maintain(spark, app):
    """Runs OPTIMIZE or VACUUM on tables; app["tables"] has the statement of each."""
    store, report = Store(spark, app["root"]), {"tables": {}}
    own = spark.sparkContext.getConf().contains(LISTING)  # whoever says how many tasks has them
    for t in app["tables"]:
        table = Table(spark, store, t["table"])
        before = table.version
        if app["what"] == "vacuum" and not own:
            tasks = max(spark.sparkContext.defaultParallelism, table.snapshot.numOfFiles() // LISTED_MIN)
            spark.conf.set(LISTING, str(min(tasks, 10000)))
        rows = table.patiently(f"{t['statement']} {table.sql} {t.get('options', '')}".strip())
        one = {"version": table.version, "changed": table.version != before}
        if app["what"] == "optimize":
            m = rows[0]["metrics"] if rows else None
            one.update(files_added=m["numFilesAdded"] if m else 0, files_removed=m["numFilesRemoved"] if m else 0)
        else:
            ends = [c for c in map(table.commit_info, range(before + 1, table.version + 1)) if c and c.get("operation") == "VACUUM END"]
            one["files_deleted"] = sum(int(c.get("operationMetrics", {}).get("numDeletedFiles", 0)) for c in ends)
        report["tables"][table.name] = one
    return report
