# --- batch ------------------------------------------------------------------------------------------------------------------

EPOCH_FILES_MAX = 500


def batch(spark, app):
    """Reads the files of a source that are new, as `cauce run batch` does; with app["reprocess"] those that were read before."""
    from pyspark.sql import types as T

    source, program = app["source"], app["program"]
    again = app.get("reprocess")
    since = now_rfc3339()  # the generation of what is read again
    store = Store(spark, app["root"])
    table, quarantine = Table(spark, store, app["table"], merging=True), Table(spark, store, app["quarantine"])
    progress = Progress(store, table, source["name"], "files")
    report = {"files_read": 0, "files_skipped": 0, "epochs": 0, "warnings": [], "failed_files": [], "warned": {}}
    for k in COUNTS:
        report[k] = 0
    schema = T._parse_datatype_string(record_schema(program))

    new, present = [], set()
    for key, size, modified in [f for p in source["prefixes"] for f in store.list(p)]:
        if not any(matches(p, key) for p in source["location"]) or ignored(key):
            continue
        present.add(key)
        had = progress.files.get(key)
        known = had and had["size"] == size and micros_of(had["mtime"]) // 1000 == modified and had["sha256"] in progress.contents
        if again and selected(again, key, modified) or not known and not (again and (again.get("file") or again.get("since_ms"))):
            new.append((key, size, modified))
        elif known:
            report["files_skipped"] += 1

    for start in range(0, len(new), EPOCH_FILES_MAX):
        files = new[start : start + EPOCH_FILES_MAX]
        modified = {k: m * 1000 for k, _, m in files}
        sizes = {k: n for k, n, _ in files}
        root_path = store.fs.makeQualified(store.path("")).toUri().getPath().rstrip("/") + "/"
        contents = spark.read.format("binaryFile").load([store.url(k) for k in sizes]).select("path", "content")

        def key_of(path, root_path=root_path):
            import urllib.parse

            return urllib.parse.urlparse(path).path[len(root_path) :]

        marks = look(contents, source, program, key_of, modified)
        for key in [k for k in sizes if sizes[k] == 0]:  # Spark passes over them
            try:
                digest, has_header, fields, _ = file_records(source, program, key, b"", 0)
                marks[key] = (digest, fields if has_header else None, None)
            except FileError as e:
                marks[key] = (None, None, str(e))
        cover, wanted, seen, replace = [], {}, set(), set()
        for key in sorted(sizes):
            digest, fields, error = marks.get(key, (None, None, "the file vanished while it was read"))
            if error:
                report["failed_files"].append({"source": source["name"], "file": key, "error": error})
                continue
            generation = generation_of(source, key, modified[key])
            mark = {"name": key, "size": sizes[key], "mtime": rfc3339(modified[key]), "sha256": digest, "origin": "f:" + digest[:16], "generation": generation, "rows": 0}
            if fields:
                mark["fields"] = fields
            had = progress.files.get(key)
            reissue = had is not None and had["sha256"] != digest
            if digest in seen or digest in progress.contents and not reissue and not again:
                mark["copy"] = True
                report["files_skipped"] += 1
                cover.append(mark)
                continue
            replaces = []
            if again:
                # The reading of today goes before the one it replaces and before other files of its time (DESIGN D2).
                if not source.get("generation"):
                    mark["generation"] = at_micros(since)
                replaces.append(mark["origin"])
            if reissue and source.get("on_reissue") == "replace":
                if not any(n != key and n in present and f["sha256"] == had["sha256"] for n, f in progress.files.items()):
                    replaces.append(had["origin"])
                if digest in progress.contents and mark["origin"] not in replaces:
                    replaces.append(mark["origin"])  # an old content has come back: its rows must not stand twice
            if replaces:
                mark["replaces"] = replaces
                replace.update(replaces)
            seen.add(digest)
            wanted[key] = mark["generation"]
            cover.append(mark)
        if not wanted:
            continue
        hook("reading")
        at = now_rfc3339()
        records = contents.mapInArrow(reader(source, program, key_of, wanted, schema), schema).cache()
        try:
            per_file = {r[0]: r[1] for r in records.groupBy("meta.file").count().collect()}
            for m in cover:
                m["rows"] = 0 if m.get("copy") else per_file.get(m["name"], 0)
            counts = commit_epoch(spark, app, table, quarantine, progress, records, at, "reprocess" if again else "batch", replace, files=cover)
        finally:
            records.unpersist()
        report["epochs"] += 1
        report["files_read"] += len(wanted)
        add_counts(report, counts, table.name)
        progress.load()
    report["version"] = table.version
    return report


def add_counts(report, counts, table):
    for k in COUNTS:
        report[k] = report.get(k, 0) + counts[k]
    for k, n in counts["warned"].items():
        report["warned"][f"{table}.{k}"] = report["warned"].get(f"{table}.{k}", 0) + n


def selected(again, key, modified):
    """Whether --file and --since select a file for reprocessing."""
    import fnmatch

    if again.get("since_ms") and modified < again["since_ms"]:
        return False
    if not again.get("file"):
        return True
    pattern = again["file"].replace("[^", "[!")
    return fnmatch.fnmatchcase(os.path.basename(key), pattern) or key.count("/") == pattern.count("/") and fnmatch.fnmatchcase(key, pattern)


def micros_of(rfc):
    m = re.fullmatch(r"(.*?)(?:\.([0-9]+))?(Z|[+-][0-9:]+)", rfc)
    t = datetime.datetime.fromisoformat(m[1] + ("+00:00" if m[3] == "Z" else m[3]))
    return int(t.timestamp()) * 1000000 + micros(m[2])


def generation_of(source, key, modified):
    if not source.get("generation"):
        return modified
    m = re.search(source["from_filename"], os.path.basename(key))
    t = m and m.groupdict().get(source["generation"])
    if not t:
        raise FileError("the name does not match from_filename, which holds the file's generation")
    for layout in ("%Y-%m-%d", "%Y%m%d", "%Y-%m-%dT%H:%M:%S", "%Y%m%dT%H%M%S", "%Y%m%d%H%M%S", "%Y-%m-%d_%H-%M-%S"):
        try:
            d = datetime.datetime.strptime(t, layout) - datetime.datetime(1970, 1, 1)
            return (d.days * 86400 + d.seconds) * 1000000
        except ValueError:
            continue
    return int(t)


def look(contents, source, program, key_of, modified):
    """Of each file its hash, its header's names and why it cannot be read, found where the files are."""

    def run(batches):
        import pyarrow as pa

        for b in batches:
            out = []
            for path, content in zip(b.column(0).to_pylist(), b.column(1).to_pylist()):
                key = key_of(path)
                try:
                    digest, has_header, fields, _ = file_records(source, program, key, content, 0)
                    out.append((key, digest, json.dumps(fields) if has_header else None, None))
                except FileError as e:
                    out.append((key, hashlib.sha256(content).hexdigest(), None, str(e)))
            yield pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in zip(*out)] if out else [pa.array([], pa.string())] * 4, ["k", "h", "f", "e"])

    return {k: (h, f and json.loads(f), e) for k, h, f, e in contents.mapInArrow(run, "k string, h string, f string, e string").collect()}


def reader(source, program, key_of, wanted, schema):
    """Splits the wanted files into records, where the files are."""
    flush = flusher(schema)

    def run(batches):
        register_hex()
        for b in batches:
            for path, content in zip(b.column(0).to_pylist(), b.column(1).to_pylist()):
                key = key_of(path)
                if key not in wanted:
                    continue
                rows = []
                for r in file_records(source, program, key, content, wanted[key])[3]:
                    rows.append(r)
                    if len(rows) == 5000:
                        yield flush(rows)
                        rows = []
                if rows:
                    yield flush(rows)

    return run
