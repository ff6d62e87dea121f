# --- a compiled plan ----------------------------------------------------------------------------------------------------

# What the readers give each record, beside its raw fields r0, r1 …
META = "struct<file:string,line:bigint,topic:string,partition:int,offset:bigint,raw:string,raw_binary:binary,key:binary,raw_bytes:bigint,raw_offset:bigint,time:bigint>"


def record_schema(program):
    raw = "".join(f"r{i} string, " for i in range(len(program["raw_fields"])))
    return raw + f"meta {META}, p bigint, o string, g bigint, fn string, fg map<string,string>, occ bigint, u string, bad string"


def flusher(schema):
    """Gives what makes an Arrow batch of a list of records."""
    names = [f.name for f in schema.fields]
    meta_names = [f.name for f in schema["meta"].dataType.fields]

    def flush(rows):
        import pyarrow as pa

        kinds = {"p": pa.int64(), "g": pa.int64(), "occ": pa.int64(), "fg": pa.map_(pa.string(), pa.string())}
        longs = dict.fromkeys(("line", "offset", "raw_bytes", "raw_offset", "time"), pa.int64())
        meta_kinds = {**longs, "partition": pa.int32(), "raw_binary": pa.binary(), "key": pa.binary()}
        meta = pa.struct([(n, meta_kinds.get(n, pa.string())) for n in meta_names])
        arrow = pa.schema([(n, meta if n == "meta" else kinds.get(n, pa.string())) for n in names])
        columns = []
        for n, values in zip(names, zip(*rows)):
            if n == "meta":
                values = [dict(zip(meta_names, v)) for v in values]
            elif n == "fg":
                values = [None if v is None else list(v.items()) for v in values]
            columns.append(pa.array(values, arrow.field(n).type))
        return pa.RecordBatch.from_arrays(columns, schema=arrow)

    return flush


# LAYERS_PLANNED bounds what Spark plans as one. Its optimizer looks at all layers of a plan together, again and again, and
# puts some into others: of a hundred of them it makes expressions that take it many minutes.
LAYERS_PLANNED = 12


def apply_layers(records, program, at):
    """Runs filter, fields, casts, transform and checks. Each row then has its number of the first broken rule in s."""
    from pyspark.sql import functions as F

    rows = records.withColumn("at", F.lit(at).cast("timestamp"))
    for i, layer in enumerate(program["layers"], 1):
        if layer.get("where"):
            rows = rows.where(layer["where"])
        rows = rows.selectExpr(*layer["select"])
        if i % LAYERS_PLANNED == 0 and i < len(program["layers"]):
            rows = planned_apart(rows)
    return rows


def planned_apart(rows):
    """The same rows, computed when they are asked for, of which the planner sees nothing but their columns."""
    from pyspark.sql import DataFrame

    spark, plan = rows.sparkSession, rows._jdf.queryExecution()
    return DataFrame(spark._jsparkSession.internalCreateDataFrame(plan.toRdd(), rows._jdf.schema(), False), spark)


def rule_case(program, what):
    """SQL that picks something of the rule whose number stands in s."""
    if not program["rules"]:
        return "CAST(NULL AS STRING)"
    return "CASE s " + " ".join(f"WHEN {i + 1} THEN {what(r)}" for i, r in enumerate(program["rules"])) + " END"


def text(s):
    return "'" + s.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quarantined(rows, program):
    """The rows that broke a rule which does not merely drop them, with rule and reason."""
    numbers = [str(i + 1) for i, r in enumerate(program["rules"]) if not r.get("filter")]
    if not numbers:
        return rows.where("false").selectExpr("meta", "p", "o", "g", "'' AS rule", "'' AS reason")
    return rows.where(f"s IN ({', '.join(numbers)})").selectExpr(
        "meta", "p", "o", "g", rule_case(program, lambda r: text(r["name"])) + " AS rule", rule_case(program, lambda r: r.get("reason") or "''") + " AS reason"
    )


def good(rows, program):
    return rows.where("s IS NULL").selectExpr(*program["final"])


def winners(rows, program, key):
    """Of each key the row with the greatest order, and how many lost."""
    over = "row_number() OVER (PARTITION BY " + ", ".join(key) + " ORDER BY " + ", ".join(program["window"]) + ") AS _n"
    return rows.selectExpr("*", program["row_hash"] + " AS _row").selectExpr("*", over)


