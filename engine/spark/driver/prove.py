# --- prove --------------------------------------------------------------------------------------------------------------


def float_bits(x):
    return None if x is None else "nan" if math.isnan(x) else struct.pack(">d", x).hex()


def prove(spark, app):
    """Runs each case's records through its program, and writes what became of each of them as lines of JSON. Cases are small:
    what takes time is planning, which one thread does, so several go at once."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(spark.sparkContext.defaultParallelism) as pool:
        list(pool.map(lambda numbered: prove_case(spark, *numbered), enumerate(app["cases"], 1)))


def prove_case(spark, number, case):
    from pyspark.sql import types as T

    program, start = case["program"], time.monotonic()
    with open(case["input"], encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    schema = T._parse_datatype_string(record_schema(program))
    data = []
    for x in lines:
        meta = (x.get("file"),) + (None,) * 10
        data.append(tuple(x["r"]) + (meta, x["p"], x["o"], x["g"], x.get("fn"), x.get("fg"), x.get("occ"), x.get("u"), None))
    try:
        # One partition: each has Python processes of its own for every layer with Python functions.
        records = spark.createDataFrame(spark.sparkContext.parallelize(data, 1), schema)
        rows = apply_layers(records, program, datetime.datetime.fromtimestamp(0, datetime.timezone.utc))
        what = ["p", "s", rule_case(program, lambda r: r.get("reason") or "''")] + [sql for sql, _ in case["texts"]]
        planned = time.monotonic()
        with open(case["output"], "w", encoding="utf-8") as out:
            for p, s, reason, *values in rows.selectExpr(*what).collect():
                rule = program["rules"][s - 1] if s else {}
                if rule.get("filter"):
                    continue
                if rule:
                    print(json.dumps({"p": p, "rule": rule["name"], "reason": reason}), file=out)
                    continue
                shown = [float_bits(v) if kind == "float" else v for v, (_, kind) in zip(values, case["texts"])]
                print(json.dumps({"p": p, "row": shown}), file=out)
        end = time.monotonic()
        print(f"cauce-prove: case {number}: {len(program['layers'])} layers, {planned - start:.1f} s + {end - planned:.1f} s", flush=True)
    except Exception as e:  # the other cases still tell something
        with open(case["output"], "w", encoding="utf-8") as out:
            print(json.dumps({"error": str(e)[:4000]}), file=out)
