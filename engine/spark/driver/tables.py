# --- tables -----------------------------------------------------------------------------------------------------------------


# What Delta's conflicts between writers are called. A losing statement is computed again, within these bounds.
BEATEN = re.compile(r"DELTA_CONCURRENT_|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED|Concurrent[A-Za-z]+Exception|MetadataChangedException|ProtocolChangedException")
CONFLICT_TRIES = 20
CONFLICT_SECONDS = 60


# The property of a table whose oldest deletions are forgotten (ingest.PropTombstonesPurged).
PURGED = "cauce.tombstonesPurgedTo"


class Refused(Exception):
    """The table wants what Spark's side does not have: exit code 2."""


class Table:
    """A Delta table below the root; created as the lake file declares it. merging: rows of a source go into it."""

    def __init__(self, spark, store, spec, merging=False):
        self.spark, self.store, self.spec, self.merging = spark, store, spec, merging
        self.name, self.path = spec["name"], store.url(spec["path"])
        self.sql = f"delta.`{self.path}`"
        columns = ", ".join(spec["columns"])
        parts = f" PARTITIONED BY ({', '.join(spec['partition_by'])})" if spec["partition_by"] else ""
        props = ", ".join(f"{text(k)} = {text(v)}" for k, v in sorted(spec["properties"].items()))
        if store.read(spec["path"] + "/_delta_log/00000000000000000000.json") is None and not self.exists():
            spark.sql(f"CREATE TABLE IF NOT EXISTS {self.sql} ({columns}) USING delta{parts}" + (f" TBLPROPERTIES ({props})" if props else ""))
        self.refresh()

    def exists(self):
        return bool(self.store.list(self.spec["path"] + "/_delta_log"))

    def refresh(self):
        jvm = self.spark.sparkContext._jvm
        log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(self.spark._jsparkSession, self.path)
        s = log.update(False, jvm.scala.Option.empty(), jvm.scala.Option.empty())
        self.snapshot, self.version, self.id = s, s.version(), s.metadata().id()
        # A statement that is computed again comes by here too, and Delta lets none commit over changed properties.
        purged = s.metadata().configuration().get(PURGED)
        if self.merging and purged.isDefined():
            raise Refused(
                f"table {self.name} has forgotten its deletions up to {purged.get()} ({PURGED}): a row up to there may be one that was deleted, "
                "and Spark's side cannot keep it out; cauce run batch and cauce run stream do"
            )

    def txn(self, app_id):
        v = self.snapshot.transactions().get(app_id)
        return v.get() if v.isDefined() else None

    def commit_info(self, version):
        """commitInfo of a commit; None if the log no longer has it."""
        content = self.store.read(f"{self.spec['path']}/_delta_log/{version:020d}.json")
        if content is None:
            return None
        for line in content.splitlines():
            if b'"commitInfo"' in line:
                return json.loads(line).get("commitInfo", {})
        return {}

    def user_metadata(self, version):
        """commitInfo.userMetadata of a commit; None if the log no longer has it."""
        info = self.commit_info(version)
        return info if info is None else info.get("userMetadata") or ""

    def incarnations(self, source):
        """Those of a source of which the table carries a txn."""
        ids = self.spark.sparkContext._jvm.scala.jdk.javaapi.CollectionConverters.asJava(self.snapshot.transactions()).keySet()
        prefix = f"cauce/1/{source}/"
        return sorted(i[len(prefix) :] for i in ids if i.startswith(prefix))

    def merge(self, condition, matched, rows, more="", txn=None, metadata=None):
        """Runs one MERGE with Delta's own txn. Where another writer was faster it is computed anew on what that one left;
        an epoch that somebody else has committed is a Conflict."""
        rows.createOrReplaceTempView("_cauce_source")
        settings = {}
        if txn:
            settings["write.txnAppId"], settings["write.txnVersion"] = txn[0], str(txn[1])
        if metadata:
            settings["commitInfo.userMetadata"] = metadata
        self.patiently(f"MERGE INTO {self.sql} t USING _cauce_source s ON {condition} {matched} {more}", settings)

    def patiently(self, sql, settings=None):
        """Runs a statement on the table, again where another writer was faster."""
        end = time.monotonic() + CONFLICT_SECONDS
        for tries in range(CONFLICT_TRIES):
            try:
                for k, v in (settings or {}).items():
                    self.spark.conf.set("spark.databricks.delta." + k, v)
                out = self.spark.sql(sql).collect()
                self.refresh()
                return out
            except Exception as e:
                why = str(e)
                if "CONCURRENT_TRANSACTION" in why or "ConcurrentTransactionException" in why:
                    raise Conflict("another run of this source works on the table") from e
                if not BEATEN.search(why):
                    raise
                if tries + 1 == CONFLICT_TRIES or time.monotonic() > end:
                    raise Conflict(f"other writers of table {self.name} were faster {tries + 1} times in a row") from e
                time.sleep(min(0.1 * 2**tries, 2))
                self.refresh()
            finally:
                for k in settings or {}:
                    self.spark.conf.unset("spark.databricks.delta." + k)

    def user_metadata_of_txn(self, app_id, version, since):
        """commitInfo.userMetadata of the commit after a version that carries a txn; None if none does."""
        for v in range(since + 1, self.version + 1):
            content = self.store.read(f"{self.spec['path']}/_delta_log/{v:020d}.json") or b""
            actions = [json.loads(line) for line in content.splitlines() if line]
            if any(a.get("txn", {}).get("appId") == app_id and a["txn"]["version"] == version for a in actions):
                return next((a["commitInfo"].get("userMetadata") for a in actions if "commitInfo" in a), None)
        return None


class Conflict(Exception):
    """Other writers kept winning: exit code 5. Of an epoch: another run of the source committed it."""


