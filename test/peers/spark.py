"""One Spark session with Delta Lake that obeys a line of JSON at a time on standard input, and answers each with one:

{"op": "rows", "table": PATH, "out": FOLDER}   all rows as one CSV file with a header
{"op": "sql", "sql": "MERGE INTO delta.`PATH` …"}
{"op": "try", "sql": …}   as sql, but an error of Spark's is an answer: {"failed": …}
{"op": "each", "sqls": [SQL, …]}   as try, several at a time; {"answers": […]}
{"op": "checkpoint", "table": PATH}
{"op": "checksum", "table": PATH}   reads the newest version anew and compares it with its .crc file: an error, or whether there is one

spark.py JARS TMP JAR: JARS are folders, with : between them; with the jar of deploy/spark/ the session may write local folders beside other programs; "" is none.
"""

import glob
import json
import os
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

from pyspark.sql import SparkSession


def session(jars, tmp, store):
    jars = [jar for folder in jars.split(":") for jar in sorted(glob.glob(os.path.join(folder, "*.jar")))] + [store] * bool(store)
    builder = SparkSession.builder.master("local[2]").appName("cauce-peers")
    for key, value in {
        "spark.jars": ",".join(jars),
        "spark.driver.memory": "2g",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",  # compiling takes longer than these small tables
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",  # VACUUM lists each table in 10,000 tasks otherwise
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": tmp,
        "spark.sql.warehouse.dir": os.path.join(tmp, "warehouse"),
        "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={tmp} -Dderby.system.home={tmp}",
    }.items():
        builder = builder.config(key, value)
    if store:
        builder = builder.config("spark.delta.logStore.file.impl", "com.cauce.delta.PutIfAbsentLogStore")
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def attempt(spark, sql):
    try:
        return {"rows": [r.asDict(recursive=True) for r in spark.sql(sql).collect()]}
    except Exception as e:
        return {"failed": str(e)[:2000]}


def obey(spark, cmd):
    if cmd["op"] == "rows":
        rows = spark.sql(f"select * from delta.`{cmd['table']}`")
        rows.coalesce(1).write.option("header", True).option("timestampFormat", "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX").csv(cmd["out"])
        return {}
    if cmd["op"] == "sql":
        return {"rows": [r.asDict(recursive=True) for r in spark.sql(cmd["sql"]).collect()]}
    if cmd["op"] == "try":
        return attempt(spark, cmd["sql"])
    if cmd["op"] == "each":
        with ThreadPoolExecutor(4) as pool:
            return {"answers": list(pool.map(lambda sql: attempt(spark, sql), cmd["sqls"]))}
    if cmd["op"] == "checkpoint":
        spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, cmd["table"]).checkpoint()
        return {}
    if cmd["op"] == "checksum":
        log = spark._jvm.org.apache.spark.sql.delta.DeltaLog
        log.clearCache()
        snapshot = log.forTable(spark._jsparkSession, cmd["table"]).unsafeVolatileSnapshot()
        nothing = getattr(getattr(spark._jvm.scala.collection.immutable, "Map$"), "MODULE$").empty()
        valid = snapshot.validateChecksum(nothing)
        return {"rows": [{"version": snapshot.version(), "there": snapshot.checksumOpt().isDefined(), "valid": valid}]}
    raise ValueError(cmd["op"])


def main():
    jars, tmp, store = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Spark prints is no answer
    spark = session(jars, tmp, store)
    print(json.dumps({"ready": spark.version}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = obey(spark, json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()[-4000:]}
        print(json.dumps(answer, default=str), file=answers, flush=True)
    spark.stop()


main()
