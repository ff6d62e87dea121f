"""One Spark session with Delta Lake that obeys a line of JSON at a time on standard input, and answers each with one:

{"op": "rows", "table": PATH, "out": FOLDER}   all rows as one CSV file with a header
{"op": "sql", "sql": "MERGE INTO delta.`PATH` …"}
{"op": "try", "sql": …}   as sql, but an error of Spark's is an answer: {"failed": …}
{"op": "checkpoint", "table": PATH}
"""

import glob
import json
import os
import sys
import traceback

from pyspark.sql import SparkSession


def session(jars, tmp):
    builder = SparkSession.builder.master("local[2]").appName("cauce-peers")
    for key, value in {
        "spark.jars": ",".join(sorted(glob.glob(os.path.join(jars, "*.jar")))),
        "spark.driver.memory": "2g",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": tmp,
        "spark.sql.warehouse.dir": os.path.join(tmp, "warehouse"),
        "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={tmp} -Dderby.system.home={tmp}",
    }.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def obey(spark, cmd):
    if cmd["op"] == "rows":
        rows = spark.sql(f"select * from delta.`{cmd['table']}`")
        rows.coalesce(1).write.option("header", True).option("timestampFormat", "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX").csv(cmd["out"])
        return {}
    if cmd["op"] == "sql":
        return {"rows": [r.asDict(recursive=True) for r in spark.sql(cmd["sql"]).collect()]}
    if cmd["op"] == "try":
        try:
            return {"rows": [r.asDict(recursive=True) for r in spark.sql(cmd["sql"]).collect()]}
        except Exception as e:
            return {"failed": str(e)[:2000]}
    if cmd["op"] == "checkpoint":
        spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, cmd["table"]).checkpoint()
        return {}
    raise ValueError(cmd["op"])


def main():
    jars, tmp = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Spark prints is no answer
    spark = session(jars, tmp)
    print(json.dumps({"ready": spark.version}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = obey(spark, json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()[-4000:]}
        print(json.dumps(answer, default=str), file=answers, flush=True)
    spark.stop()


main()
