"""Reads Delta tables as other programs do.

readers.py deltalake|duckdb TABLE OUT.csv   all rows as CSV
readers.py deltalake|duckdb                 a line of JSON at a time on standard input, each answered by one:
                                            {"table": PATH, "version": N or null, "columns": [NAME, …]}
                                            {"rows": [{NAME: TEXT or null, …}, …]} or {"failed": …}
"""

import csv
import importlib.util
import json
import pathlib
import sys

import pyarrow as pa


def deltalake(path, version=None, columns="*"):
    # QueryBuilder is the reader of deltalake that honours deletion vectors; to_pyarrow_table refuses such tables.
    from deltalake import DeltaTable, QueryBuilder

    table = DeltaTable(path, version=version)
    return pa.table(QueryBuilder().register("t", table).execute(f"select {columns} from t").read_all())


connection = None


def duckdb(path, version=None, columns="*"):
    import duckdb

    global connection
    if connection is None:
        # The wheel ships the extension as a file; its version must be that of DuckDB.
        wheel = pathlib.Path(importlib.util.find_spec("duckdb_extension_delta").origin).parent
        extension = next(wheel.glob("extensions/*/delta.duckdb_extension"))
        connection = duckdb.connect()
        connection.sql(f"load '{extension}'")
        connection.sql("set timezone = 'UTC'")
    at = "" if version is None else f", version => {version}"
    return connection.sql(f"select {columns} from delta_scan('{path}'{at})").to_arrow_table()


def text(value):
    if value is None:
        return ""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def answer(read, cmd):
    try:
        table = read(cmd["table"], cmd["version"], ", ".join(f'"{c}"' for c in cmd["columns"]))
    except BaseException as e:  # delta-rs panics as no Exception
        return {"failed": str(e)[:2000]}
    return {"rows": [{k: v if v is None else text(v) for k, v in row.items()} for row in table.to_pylist()]}


def main():
    read = {"deltalake": deltalake, "duckdb": duckdb}[sys.argv[1]]
    if len(sys.argv) == 2:
        for line in sys.stdin:
            print(json.dumps(answer(read, json.loads(line))), flush=True)
        return
    path, out = sys.argv[2:]
    table = read(path)
    with open(out, "w", newline="", encoding="utf-8") as f:
        w = csv.writer(f)
        w.writerow(table.column_names)
        for batch in table.to_batches(max_chunksize=10_000):
            w.writerows(zip(*([text(v) for v in column.to_pylist()] for column in batch.columns)))
    print(table.num_rows)


main()
