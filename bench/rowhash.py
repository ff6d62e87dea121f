"""One figure for the rows of a table, whatever wrote it: rowhash.py delta|parquet TABLE COLUMN…

Prints count, distinct event_id and an order-independent hash over the text of the columns, so that tables of different
writers can be compared. Read by DuckDB, not by Cauce.
"""
import importlib.util
import pathlib
import sys

import duckdb

kind, table, columns = sys.argv[1], sys.argv[2], sys.argv[3:]
con = duckdb.connect()
con.sql("set timezone = 'UTC'")
if kind == "delta":
    wheel = pathlib.Path(importlib.util.find_spec("duckdb_extension_delta").origin).parent
    con.sql(f"load '{next(wheel.glob('extensions/*/delta.duckdb_extension'))}'")
    rows = f"delta_scan('{table}')"
else:
    rows = f"read_parquet('{table}/**/*.parquet', hive_partitioning = true, hive_types = {{'event_date': DATE}})"
# Instants as microseconds and decimals as their plain text: the types of the writers differ, the values must not.
text = {"event_time": "epoch_us(event_time)::varchar", "quote_qty": "quote_qty::decimal(28,8)::varchar"}
parts = ", ".join(f"coalesce({text.get(c, c + '::varchar')}, chr(0))" for c in columns)
print(*con.sql(f"select count(*), count(distinct event_id), sum(hash({parts})::hugeint) from {rows}").fetchone())
