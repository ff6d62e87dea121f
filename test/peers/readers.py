"""Reads a Delta table as other programs do and writes all its rows as CSV: readers.py deltalake|duckdb TABLE OUT.csv"""

import csv
import importlib.util
import pathlib
import sys

import pyarrow as pa


def deltalake(path):
    # QueryBuilder is the reader of deltalake that honours deletion vectors; to_pyarrow_table refuses such tables.
    from deltalake import DeltaTable, QueryBuilder

    return pa.table(QueryBuilder().register("t", DeltaTable(path)).execute("select * from t").read_all())


def duckdb(path):
    import duckdb

    # The wheel ships the extension as a file; its version must be that of DuckDB.
    wheel = pathlib.Path(importlib.util.find_spec("duckdb_extension_delta").origin).parent
    extension = next(wheel.glob("extensions/*/delta.duckdb_extension"))
    con = duckdb.connect()
    con.sql(f"load '{extension}'")
    con.sql("set timezone = 'UTC'")
    return con.sql(f"select * from delta_scan('{path}')").to_arrow_table()


def text(value):
    if value is None:
        return ""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def main():
    reader, path, out = sys.argv[1:]
    table = {"deltalake": deltalake, "duckdb": duckdb}[reader](path)
    with open(out, "w", newline="", encoding="utf-8") as f:
        w = csv.writer(f)
        w.writerow(table.column_names)
        for batch in table.to_batches(max_chunksize=10_000):
            w.writerows(zip(*([text(v) for v in column.to_pylist()] for column in batch.columns)))
    print(table.num_rows)


main()
