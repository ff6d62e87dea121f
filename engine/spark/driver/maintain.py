# --- maintenance ------------------------------------------------------------------------------------------------------


def maintain(spark, app):
    """Runs OPTIMIZE or VACUUM on tables; app["tables"] has the statement of each."""
    store, report = Store(spark, app["root"]), {"tables": {}}
    for t in app["tables"]:
        table = Table(spark, store, t["table"])
        before = table.version
        rows = table.patiently(f"{t['statement']} {table.sql} {t.get('options', '')}".strip())
        one = {"version": table.version, "changed": table.version != before}
        if app["what"] == "optimize":
            m = rows[0]["metrics"] if rows else None
            one.update(files_added=m["numFilesAdded"] if m else 0, files_removed=m["numFilesRemoved"] if m else 0)
        report["tables"][table.name] = one
    return report
