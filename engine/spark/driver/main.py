# --- main -----------------------------------------------------------------------------------------------------------


def session(app):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(app.get("name", "cauce"))
    delta = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    }
    for k, v in {
        **({} if app["mode"] == "prove" else delta),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.caseSensitive": "false",
        "spark.sql.decimalOperations.allowPrecisionLoss": "false",
        "spark.sql.parser.escapedStringLiterals": "false",
        "spark.sql.redaction.options.regex": "(?i)url|secret|password|token|jaas|keystore",
        **app.get("conf", {}),
    }.items():
        builder = builder.config(k, v)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    register(spark)
    return spark


def complete(spark, app):
    """Names the packages that an application needs and this Spark lacks."""
    from py4j.java_gateway import JavaPackage

    jvm, lacks = spark.sparkContext._jvm, []
    if app["mode"] != "prove" and isinstance(jvm.org.apache.spark.sql.delta.DeltaLog, JavaPackage):
        lacks.append("io.delta:delta-spark")
    if app["mode"] == "stream" and isinstance(jvm.org.apache.spark.sql.kafka010.KafkaSourceProvider, JavaPackage):
        lacks.append("org.apache.spark:spark-sql-kafka-0-10")
    if lacks:
        raise Refused(f"this Spark ({spark.version}) lacks {' and '.join(lacks)}; name what fits it with --packages (cauce spark submit: --submit-arg=--packages=…), or its jars with --conf spark.jars=…; docs/spark.md has the names")


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        app = json.load(f)
    for arg in sys.argv[2:]:
        if arg == "--available-now" and app["mode"] == "stream":
            app["stream"]["available_now"] = True
        elif arg == "--reprocess" and app["mode"] == "batch":
            app["reprocess"] = {"all": True}
        else:
            sys.exit(f"driver.py: unknown argument {arg}; a stream takes --available-now, a batch --reprocess")
    spark = session(app)
    code = 0
    try:
        complete(spark, app)
        result = {"prove": prove, "batch": batch, "stream": stream, "maintain": maintain}[app["mode"]](spark, app) or {}
        if result.get("failed_files"):
            code = 1
    except Refused as e:
        result, code = {"error": str(e)}, 2
    except DataError as e:
        result, code = {"error": str(e)}, 3
    except Gap as e:
        result, code = {"error": str(e)}, 4
    except Conflict as e:
        result, code = {"error": str(e)}, 5
    finally:
        spark.stop()
    if app["mode"] != "prove":
        print("cauce: " + json.dumps(result), flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
