"""A job for spark-submit that asks Spark SQL for figures of a Delta table: sparksql.py URL VERSION…; "" is the newest version.

It prints a line "figures: " with a JSON list, an object for each version.
"""

import json
import sys

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
out = []
for version in sys.argv[2:]:
    at = f" VERSION AS OF {version}" if version else ""
    rows = spark.sql(
        "SELECT source, CAST(event_date AS STRING) AS day, count(*) AS n, CAST(sum(price) AS STRING) AS price, CAST(sum(quantity) AS STRING) AS quantity "
        f"FROM delta.`{sys.argv[1]}`{at} GROUP BY ALL"
    ).collect()
    out.append([r.asDict() for r in rows])
print("figures: " + json.dumps(out), flush=True)
spark.stop()
