# --- storage ----------------------------------------------------------------------------------------------------------------


class Store:
    """Objects below the root of the lake, through Hadoop's file systems."""

    def __init__(self, spark, root):
        self.jvm = spark.sparkContext._jvm
        self.root = root.rstrip("/")
        self.conf = spark.sparkContext._jsc.hadoopConfiguration()
        self.fs = self.path("").getFileSystem(self.conf)

    def url(self, key):
        return self.root + "/" + key if key else self.root

    def path(self, key):
        return self.jvm.org.apache.hadoop.fs.Path(self.url(key))

    def list(self, prefix):
        """(key, size, modified in ms) of every object below a prefix."""
        from py4j.protocol import Py4JJavaError

        cut_at = len(self.fs.makeQualified(self.path("")).toUri().getPath().rstrip("/")) + 1
        out = []
        try:
            # Whether the prefix exists is not asked: on S3 that is a question for an object of its name, which a role that may
            # read what lies below it need not be allowed.
            it = self.fs.listFiles(self.path(prefix), True)
            while it.hasNext():
                f = it.next()
                out.append((f.getPath().toUri().getPath()[cut_at:], f.getLen(), f.getModificationTime()))
        except Py4JJavaError as e:
            if e.java_exception.getClass().getName() != "java.io.FileNotFoundException":
                raise
            return []
        return sorted(out)

    def read(self, key):
        p = self.path(key)
        if not self.fs.exists(p):
            return None
        stream = self.fs.open(p)
        try:
            return bytes(self.jvm.org.apache.hadoop.io.IOUtils.readFullyToByteArray(stream))
        finally:
            stream.close()

    def write(self, key, content, overwrite=False):
        out = self.fs.create(self.path(key), overwrite)
        out.write(content)
        out.close()


def ignored(key):
    """Names that are never read: hidden files, unfinished ones, checksums of others."""
    if any(p.startswith((".", "_")) for p in key.split("/")):
        return True
    return os.path.splitext(key)[1].lower() in IGNORED or key.endswith("~")


IGNORED = {".tmp", ".part", ".partial", ".crdownload", ".checksum", ".swp"}


def matches(pattern, key):
    import fnmatch

    def segments(p, k):
        if not p:
            return not k
        if p[0] == "**":
            return any(segments(p[1:], k[i:]) for i in range(len(k) + 1))
        return bool(k) and fnmatch.fnmatchcase(k[0], p[0].replace("[^", "[!")) and segments(p[1:], k[1:])

    return segments(pattern.split("/"), key.split("/"))


def rfc3339(us):
    t = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=us)
    return t.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# COMPACT_EVERY bounds the chain that must be read to know what a source has covered.
COMPACT_EVERY = 20


class Progress:
    """What a source has covered (docs/spark.md, Moving a lake): the txn of the table says up to which epoch, a chain of
    immutable files what each of them read."""

    def __init__(self, store, table, source, incarnation):
        import urllib.parse

        self.store, self.table, self.source, self.incarnation = store, table, source, incarnation
        self.app_id = f"cauce/1/{source}/{incarnation}"
        self.dir = "processed/_progress/" + "/".join(urllib.parse.quote(x, safe="$&+=:@~") for x in (source, incarnation))
        self.load()

    def json(self, name):
        content = self.store.read(f"{self.dir}/{name}")
        try:
            return json.loads(content) if content is not None else None
        except ValueError:
            return None

    def load(self):
        """Finds out what the source has covered, from the table alone, as the embedded engine does."""
        self.epoch = self.table.txn(self.app_id) or 0
        self.last, self.compacted, self.chain = "", "", 0
        self.files, self.contents, self.origins, self.replaced = {}, {}, {}, {}
        self.positions, self.gaps, self.asked = {}, [], []
        name, chain, total = self.confirmed(), [], None
        while name:
            e = self.json(name)
            if e is None or e["table_id"] != self.table.id:
                break
            if total is None and e.get("compacted"):
                total = self.json(e["compacted"])
                if total and total["table_id"] != self.table.id:
                    total = None
                compacted = e["compacted"]
            if total is not None and e["epoch"] <= total["epoch"]:
                break
            chain.append((name, e))
            name = e.get("previous", "")
        if total is not None:
            self.compacted = compacted
            for f in total.get("files") or []:
                self.files[f["name"]] = f
                if f["origin"] in (total.get("origins") or {}):
                    self.contents[f["sha256"]] = f["origin"]
            self.origins.update(total.get("origins") or {})
            self.replaced.update(total.get("replaced") or {})
            self.gaps += total.get("gaps") or []
            self.asked += total.get("asked") or []
        for name, e in reversed(chain):
            self.apply(name, e)

    def apply(self, name, e):
        self.last = name
        if e.get("compacted") and e["compacted"] != self.compacted:
            self.compacted, self.chain = e["compacted"], 0
        self.chain += 1
        mark = {"epoch": e["epoch"], "file": name, "plan": e["plan"]}
        for f in e.get("files") or []:
            for o in f.get("replaces") or []:
                if o != f["origin"]:
                    self.origins.pop(o, None)
                    self.replaced[o] = mark
                    self.contents = {h: x for h, x in self.contents.items() if x != o}
        for f in e.get("files") or []:
            self.files[f["name"]] = f
            self.contents[f["sha256"]] = f["origin"]
            if not f.get("copy"):
                self.origins[f["origin"]] = mark
                self.replaced.pop(f["origin"], None)
        for p in e.get("positions") or []:
            self.positions[p["partition"]] = p
        self.gaps += e.get("gaps") or []
        self.asked += e.get("asked") or []

    def confirmed(self):
        """The epoch file of the table's last epoch, or of the greatest confirmed one where nothing is known of it."""
        if not self.epoch:
            return ""
        name = self.winner(self.epoch)
        if name:
            return name
        known = (re.fullmatch(r"([0-9]+)\.json", os.path.basename(k)) for k, _, _ in self.store.list(self.dir))
        for n in sorted((int(m[1]) for m in known if m and int(m[1]) < self.epoch), reverse=True):
            name = self.winner(n)
            if name:
                return name
        return ""

    def winner(self, epoch):
        w = self.json(f"{epoch}.json")
        if w and w["table_id"] == self.table.id and w["version"] <= self.table.version:
            meta = self.table.user_metadata(w["version"])
            if meta is None or meta == f"{self.dir}/{w['file']}":
                return w["file"]
        for v in range(self.table.version, -1, -1):
            meta = self.table.user_metadata(v)
            if meta is None:
                return ""
            m = re.match(re.escape(self.dir) + "/([0-9]+)-", meta)
            if m and int(m[1]) == epoch:
                return meta[len(self.dir) + 1 :]
            if m and int(m[1]) < epoch:
                return ""
        return ""

    def begin(self, kind, plan, at, **covered):
        """Writes what the next epoch covers and gives the key by which the commit names it."""
        import uuid

        e = {"format": 1, "source": self.source, "incarnation": self.incarnation, "table": self.table.name, "table_id": self.table.id, "epoch": self.epoch + 1,
             "id": str(uuid.uuid4()), "kind": kind, "plan": plan, "written_at": at}
        if self.chain >= COMPACT_EVERY:
            total = {"format": 1, "epoch": self.epoch, "table_id": self.table.id, "files": [self.files[n] for n in sorted(self.files)],
                     "origins": self.origins, "replaced": self.replaced, "gaps": self.gaps, "asked": self.asked}
            self.compacted = f"{self.epoch}-{uuid.uuid4()}.compact.json"
            self.store.write(f"{self.dir}/{self.compacted}", json.dumps(total).encode())
        if self.last:
            e["previous"] = self.last
        if self.compacted:
            e["compacted"] = self.compacted
        e.update(covered)
        self.name = f"{e['epoch']}-{e['id']}.json"
        self.store.write(f"{self.dir}/{self.name}", json.dumps(e).encode())
        return f"{self.dir}/{self.name}"

    def confirm(self, version):
        w = {"epoch": self.epoch + 1, "file": self.name, "table_id": self.table.id, "version": version}
        self.store.write(f"{self.dir}/{self.epoch + 1}.json", json.dumps(w).encode() + b"\n", overwrite=True)


