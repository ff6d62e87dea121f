# --- streams ----------------------------------------------------------------------------------------------------------


class Gap(Exception):
    """The topic no longer has records that the table has not seen: exit code 4."""

    def __init__(self, source, topic, partition, first, last, reason):
        offsets = f"offsets {first} to {last}" if last >= first else f"offsets from {first} on"
        lost = f"{topic}, all partitions" if partition is None else f"{topic}/{partition}, {offsets}"
        super().__init__(
            f"source {source}: gap in {lost}: {reason}; "
            f"to record the gap and go on: cauce run stream --allow-gap {source}"
        )


class Moved(Exception):
    """Another run of the source was faster, or the table was set back: the stream begins anew from what the table says."""


def kafka_properties(spec):
    """Settings of Kafka's Java clients. Secrets come from the environment, never from the application's file."""

    def secret(name, what):
        if name not in os.environ:
            raise SystemExit(f"the environment lacks {name}, {what}")
        return os.environ[name]

    p = {"bootstrap.servers": ",".join(spec["brokers"]), **spec.get("properties", {})}
    if spec.get("key_env"):
        p["ssl.keystore.key"] = secret(spec["key_env"], "the key of the client's certificate")
    login = spec.get("sasl")
    if login:
        password = secret(spec["password_env"], f"the password of Kafka's user {login['user']}")
        module = "plain.PlainLoginModule" if login["mechanism"] == "PLAIN" else "scram.ScramLoginModule"
        quoted = [x.replace("\\", "\\\\").replace('"', '\\"') for x in (login["user"], password)]
        p["sasl.mechanism"] = login["mechanism"]
        p["sasl.jaas.config"] = f'org.apache.kafka.common.security.{module} required username="{quoted[0]}" password="{quoted[1]}";'
    return p


class Topic:
    """What the cluster knows of a topic, through Kafka's own Java client, which Spark's source brings along."""

    def __init__(self, spark, source):
        self.jvm = spark.sparkContext._jvm
        self.source, self.spec = source["name"], source["kafka"]
        self.name = self.spec["topic"]
        self.offsets = {int(p): o for p, o in self.spec.get("start_offsets", {}).items()}  # where to begin, by partition
        self.properties = self.jvm.java.util.Properties()
        for k, v in {
            **kafka_properties(self.spec),
            "client.id": "cauce", "allow.auto.create.topics": "false", "enable.auto.commit": "false", "auto.offset.reset": "none",
            "default.api.timeout.ms": "30000", "request.timeout.ms": "15000", "isolation.level": self.spec["isolation"],
            "key.deserializer": "org.apache.kafka.common.serialization.ByteArrayDeserializer",
            "value.deserializer": "org.apache.kafka.common.serialization.ByteArrayDeserializer",
        }.items():
            self.properties.setProperty(k, v)

    def admin(self, what):
        admin = self.jvm.org.apache.kafka.clients.admin.AdminClient.create(self.properties)
        try:
            return what(admin)
        finally:
            admin.close()

    def consumer(self, what):
        c = self.jvm.org.apache.kafka.clients.consumer.KafkaConsumer(self.properties)
        try:
            return what(c)
        finally:
            c.close()

    def incarnation(self):
        """Names the cluster and the topic id, as the embedded engine does."""

        def ask(admin):
            topics = self.jvm.java.util.ArrayList()
            topics.add(self.name)
            d = admin.describeTopics(topics).allTopicNames().get().get(self.name)
            topic = d.topicId().toString()
            return f"{admin.describeCluster().clusterId().get() or 'cluster'}.{'name' if topic == 'AAAAAAAAAAAAAAAAAAAAAA' else topic}"

        return self.admin(ask)

    def partition(self, p):
        return self.jvm.org.apache.kafka.common.TopicPartition(self.name, p)

    def gap(self, partition, first, last, reason):
        return Gap(self.source, self.name, partition, first, last, reason)

    def seek(self, positions):
        """(first offset to read, by partition; the last one before it of partitions that the table does not know). Raises Gap."""

        def look(c):
            there = sorted(i.partition() for i in c.partitionsFor(self.name))
            for p in self.spec.get("assign", []):
                if p not in there:
                    raise SystemExit(f"topic {self.name} has {len(there)} partitions: there is no partition {p} to read (kafka.assign)")
            for p in self.offsets:
                if p not in there and not positions:
                    raise SystemExit(f"topic {self.name} has {len(there)} partitions: there is no partition {p} to start in (kafka.start)")
            parts = [self.partition(p) for p in there if p in self.spec.get("assign", there)]
            every = self.jvm.java.util.ArrayList()
            for tp in parts:
                every.add(tp)
            begin, end = c.beginningOffsets(every), c.endOffsets(every)
            starts, ends = {tp.partition(): begin.get(tp) for tp in parts}, {tp.partition(): end.get(tp) for tp in parts}
            for p, mark in positions.items():
                if p not in there and mark["offset"] >= 0:
                    raise self.gap(p, mark["offset"] + 1, -1, f"the topic has {len(there)} partitions, fewer than it had")
            first, chosen, verify = {}, {}, []
            for p in sorted(starts):
                if p in positions:
                    at = positions[p]["offset"]
                else:
                    if not positions:
                        at = self.begin(c, p, starts[p], ends[p]) - 1
                    else:  # named since, or added since with nothing in it
                        at = starts[p] - 1 if self.spec.get("assign") else -1
                    chosen[p] = at
                if 0 <= at and ends[p] <= at:
                    raise self.gap(p, at + 1, -1, f"the partition ends at offset {ends[p] - 1}, before the table's position: the broker lost its end")
                if at < starts[p] - 1:
                    raise self.gap(p, at + 1, starts[p] - 1, f"they expired before they were read; the partition begins at offset {starts[p]}")
                first[p] = at + 1
                if p in positions and at >= starts[p] and not positions[p].get("time", ZERO_TIME).startswith("0001-"):
                    verify.append(p)
            for p in verify:
                self.verify(c, p, positions[p])
            return first, chosen

        return self.consumer(look)

    def begin(self, c, p, start, end):
        """The first offset that the lake file wants to be read of a partition that holds those from start to before end."""
        if self.spec["start"] == "earliest":
            return start
        if self.spec["start"] == "latest":
            return end
        if self.spec["start"] == "time":
            m = self.jvm.java.util.HashMap()
            m.put(self.partition(p), self.spec["start_ms"])
            found = c.offsetsForTimes(m).get(self.partition(p))
            return end if found is None else found.offset()
        at = self.offsets.get(p, start)
        if not start <= at <= end:
            holds = f"the partition holds {start} to {end - 1}" if start < end else f"the partition is empty, and its next offset is {end}"
            raise SystemExit(f"topic {self.name}, partition {p}: start at offset {at}: {holds}")
        return at

    def verify(self, c, p, mark):
        """The record at a position must still carry the time that progress recorded, else it is another log."""
        tp = self.partition(p)
        one = self.jvm.java.util.ArrayList()
        one.add(tp)
        c.assign(one)
        c.seek(tp, mark["offset"])
        end = time.monotonic() + 10
        while time.monotonic() < end:
            found = c.poll(self.jvm.java.time.Duration.ofMillis(500)).records(tp)
            if found.size() == 0:
                if c.position(tp) > mark["offset"]:
                    return  # a marker of a transaction
                continue
            r = found.get(0)
            if r.offset() == mark["offset"] and r.timestamp() != micros_of(mark["time"]) // 1000:
                raise self.gap(
                    p, mark["offset"] + 1, -1,
                    f"the message at offset {mark['offset']} is of {rfc3339(r.timestamp() * 1000)}, but the one that was read was of {mark['time']}: "
                    "the broker lost messages and took others since",
                )
            return

    def publish(self, positions):
        """Tells a consumer group what is in the table, for lag monitors. Its failure is only their loss."""
        if not self.spec.get("group"):
            return
        try:
            m = self.jvm.java.util.HashMap()
            for p, mark in positions.items():
                m.put(self.partition(p), self.jvm.org.apache.kafka.clients.consumer.OffsetAndMetadata(mark["offset"] + 1))
            self.admin(lambda admin: admin.alterConsumerGroupOffsets(self.spec["group"], m).all().get())
        except Exception as e:
            print(f"cauce: the consumer group {self.spec['group']} is not told what is in the table: {e}", file=sys.stderr, flush=True)


ZERO_TIME = "0001-01-01T00:00:00Z"


def mark_time(ms):
    """A message's time as progress keeps it; one that a progress file cannot hold counts as unknown."""
    return rfc3339(ms * 1000) if YEAR_1000_MS <= ms < YEAR_10000_MS else ZERO_TIME


YEAR_1000_MS, YEAR_10000_MS = -30610224000000, 253402300800000

# Other incarnations of a source than its logs.
NO_LOGS = ("files", "retry", "repair")

CHECKPOINTS = "raw/streaming/_checkpoints"
CHECKPOINT_DAYS = 7


class Stream:
    """One query of Structured Streaming. Where it begins is read from the table, so every query has a checkpoint of its
    own: nothing that an older one remembers can contradict what the table says."""

    def __init__(self, spark, app):
        import urllib.parse
        import uuid

        self.spark, self.app, self.source, self.program = spark, app, app["source"], app["program"]
        self.store = Store(spark, app["root"])
        self.topic = Topic(spark, self.source)
        self.incarnation = self.topic.incarnation()
        table, quarantine, progress = self.open(spark)
        if not progress.epoch:
            others = [i for i in table.incarnations(self.source["name"]) if i != self.incarnation and i not in NO_LOGS]
            if others:
                raise self.succeeds(others)
        first, chosen = self.topic.seek(progress.positions)
        if chosen:
            # Where reading begins is in the table first, of empty partitions too: what goes before the next start is seen to be gone.
            marks = {**progress.positions, **{p: {"partition": p, "offset": o, "time": ZERO_TIME} for p, o in chosen.items()}}
            commit_epoch(spark, app, table, quarantine, progress, None, now_rfc3339(), "start", positions=[marks[p] for p in sorted(marks)])
            progress.load()
        elif progress.positions:
            self.topic.publish(progress.positions)
        self.first, self.epoch, self.error = first, progress.epoch, None
        parts = [urllib.parse.quote(x, safe="$&+=:@~") for x in (self.source["name"], self.incarnation)]
        self.checkpoints = "/".join([CHECKPOINTS, *parts])
        self.checkpoint = f"{self.checkpoints}/{self.epoch + 1}-{uuid.uuid4()}"
        self.schema = record_schema(self.program)
        self.sweep()

    def open(self, spark):
        store = Store(spark, self.app["root"])
        table = Table(spark, store, self.app["table"], merging=True)
        return table, Table(spark, store, self.app["quarantine"]), Progress(store, table, self.source["name"], self.incarnation)

    def succeeds(self, others):
        """The table has read this source from other logs before."""
        reason = f"the table has read this source from another log ({others[-1]}), and this is {self.incarnation}"
        for o in others:
            if o.split(".")[0] == self.incarnation.split(".")[0]:
                reason = (
                    f"the topic was deleted and made again since the table read it (topic id {o}, now {self.incarnation}): "
                    "what it held and the table has not read is gone"
                )
        return self.topic.gap(None, 0, -1, reason)

    def sweep(self):
        """Removes checkpoints into which nothing was written for long. No other run of this source reads them."""
        newest = {}
        for key, _, modified in self.store.list(self.checkpoints):
            folder = key[len(self.checkpoints) + 1 :].split("/")[0]
            newest[folder] = max(newest.get(folder, 0), modified)
        for folder, modified in newest.items():
            if modified < (time.time() - CHECKPOINT_DAYS * 86400) * 1000:
                self.store.fs.delete(self.store.path(f"{self.checkpoints}/{folder}"), True)

    def start(self, available_now):
        options = {"kafka." + k: v for k, v in kafka_properties(self.topic.spec).items()}
        options["kafka.isolation.level"] = self.topic.spec["isolation"]
        reader = self.spark.readStream.format("kafka").options(**options).option("failOnDataLoss", "true")
        if self.topic.spec.get("assign"):
            reader = reader.option("assign", json.dumps({self.topic.name: sorted(self.first)}))
        else:
            reader = reader.option("subscribe", self.topic.name)
        reader = reader.option("startingOffsets", json.dumps({self.topic.name: {str(p): o for p, o in self.first.items()}}))
        reader = reader.option("maxOffsetsPerTrigger", self.app["stream"]["rows_max"])
        writer = reader.load().writeStream.queryName("cauce " + self.source["name"]).foreachBatch(self.batch)
        trigger = {"availableNow": True} if available_now else {"processingTime": f"{self.app['stream']['trigger_ms']} milliseconds"}
        return writer.option("checkpointLocation", self.store.url(self.checkpoint)).trigger(**trigger).start()

    def batch(self, messages, number):
        try:
            self.merge(messages, number)
        except BaseException as e:
            self.error = e
            raise

    def merge(self, messages, number):
        """Merges one micro-batch, with what it covers, in one commit."""
        from pyspark.sql import types as T

        hook("reading")
        spark = messages.sparkSession  # the query's own
        table, quarantine, progress = self.open(spark)
        if progress.epoch != self.epoch:
            raise Moved(f"the table is at epoch {progress.epoch} of the source, where this run left it at {self.epoch}")
        schema = T._parse_datatype_string(self.schema)
        raw = messages.selectExpr("key", "value", "partition", "offset", "unix_millis(timestamp) AS ms")
        renewals = {p: mark["renewals"] for p, mark in progress.positions.items() if mark.get("renewals")}
        records = raw.mapInArrow(message_reader(self.source, self.program, schema, "kafka:" + self.incarnation, renewals), schema).cache()
        try:
            marks = records.selectExpr("meta.partition AS n", "p", "meta.time AS t").groupBy("n")
            marks = sorted((r["n"], r["a"], r["b"], r["c"], r["t"]) for r in marks.agg(*aggregates()).collect())
            if not marks:
                return  # nothing but marks of transactions
            for p, first, _, _, _ in marks:
                if first <= progress.positions.get(p, {}).get("offset", -1):
                    raise Moved(f"offset {first} of partition {p} is in the table already")
            positions = dict(progress.positions)
            for p, _, last, _, ms in marks:
                positions[p] = {"partition": p, "offset": last, "time": mark_time(ms)}
                if p in renewals:
                    positions[p]["renewals"] = renewals[p]
            ranges = [{"partition": p, "from": a, "to": b, "rows": n} for p, a, b, n, _ in marks]
            counts = commit_epoch(
                spark, self.app, table, quarantine, progress, records, now_rfc3339(), "stream",
                ranges=ranges, positions=[positions[p] for p in sorted(positions)], checkpoint=self.checkpoint,
            )
        finally:
            records.unpersist()
        self.epoch += 1
        self.topic.publish(positions)
        self.committed(table, counts)


def aggregates():
    from pyspark.sql import functions as F

    return [F.min("p").alias("a"), F.max("p").alias("b"), F.count("p").alias("c"), F.max_by("t", "p").alias("t")]


def stream(spark, app):
    """Takes the messages of a topic into the table until somebody stops it, or, with available_now, what is there."""
    available_now = app["stream"].get("available_now", False)
    stop = os.path.join(os.path.dirname(os.path.abspath(sys.argv[1])), "stop")
    report = {"source": app["source"]["name"], "epochs": 0, "version": -1, "warned": {}, "batches": [], **dict.fromkeys(COUNTS, 0)}

    def committed(table, counts):
        report["epochs"] += 1
        report["version"] = table.version
        add_counts(report, counts, table.name)

    lost = 0  # how often another run was faster since the last commit
    while lost < CONFLICT_TRIES:
        run, before = None, report["epochs"]
        try:
            run = Stream(spark, app)
            run.committed = committed
            query = run.start(available_now)
            try:
                while not query.awaitTermination(1):
                    watch(query, report)
                    if os.path.exists(stop):
                        end = time.monotonic() + 60
                        while query.status["isTriggerActive"] and time.monotonic() < end:
                            time.sleep(0.2)
                        query.stop()
                        break
            finally:
                watch(query, report)
                if query.isActive:
                    query.stop()
            return report
        except Exception as e:
            cause = run.error if run is not None and run.error is not None else e
            if isinstance(cause, (Moved, Conflict)):
                print(f"cauce: another run of the source was faster; going on behind it: {cause}", file=sys.stderr, flush=True)
                lost = 1 if report["epochs"] > before else lost + 1
                continue
            if run is not None and re.search("DATA_LOSS|OffsetOutOfRange|data may have been lost", str(cause)):
                run.topic.seek(run.open(spark)[2].positions)  # names the gap
            raise cause
    raise Conflict(f"another run of source {app['source']['name']} works on the table, and was faster {CONFLICT_TRIES} times in a row; stop one of them")


BATCHES_MAX = 100


def watch(query, report):
    """Takes over what the query says of its batches, and prints it."""
    seen = report["batches"][-1]["batch"] if report["batches"] else ""
    for p in query.recentProgress:
        p = json.loads(p.json)
        name = f"{p['runId']} {p['batchId']:012d}"
        if p["numInputRows"] == 0 or seen and name.split()[0] == seen.split()[0] and name <= seen:
            continue
        line = {"batch": name, "timestamp": p["timestamp"], "rows": p["numInputRows"], "ms": p.get("batchDuration", 0)}
        print("cauce-progress: " + json.dumps(line), flush=True)
        report["batches"] = report["batches"][-BATCHES_MAX + 1 :] + [line]
