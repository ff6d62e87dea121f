"""What programs do through ODBC, with PostgreSQL's driver (psqlodbc).

usage: odbc.py metadata DRIVER HOST PORT            prints what the functions of the catalogue answer
       odbc.py read DRIVER HOST PORT EXPECTED.json  reads a lake that is being written; EXPECTED is as for drivers.py
"""

import datetime
import decimal
import json
import pathlib
import sys

import pyodbc

what, driver, host, port = sys.argv[1:5]


def connect(*options):
    return pyodbc.connect(";".join([f"DRIVER={driver}", f"SERVER={host}", f"PORT={port}", "DATABASE=lake", "UID=reader", "BoolsAsChar=0", *options]), autocommit=True)


def metadata():
    c = connect()
    calls = [
        ("tables", {}),
        ("tables", {"schema": "public"}),
        ("tables", {"schema": "lake", "tableType": "VIEW"}),
        ("tables", {"table": "pg_class", "tableType": "SYSTEM TABLE"}),
        ("tables", {"catalog": "%", "schema": "", "table": ""}),
        ("tables", {"catalog": "", "schema": "%", "table": ""}),
        ("tables", {"catalog": "", "schema": "", "table": "", "tableType": "%"}),
        ("columns", {"table": "orders", "schema": "public"}),
        ("columns", {"table": "orders\\_daily"}),
        ("columns", {"schema": "lake", "table": "%"}),
        ("columns", {"table": "customers", "column": "name"}),
        ("primaryKeys", {"table": "orders", "schema": "public"}),
        ("primaryKeys", {"table": "versions", "schema": "lake"}),
        ("foreignKeys", {"table": "orders", "schema": "public"}),
        ("foreignKeys", {"foreignTable": "orders", "foreignSchema": "public"}),
        ("statistics", {"table": "orders", "schema": "public"}),
        ("statistics", {"table": "orders", "schema": "public", "unique": True}),
        ("rowIdColumns", {"table": "orders", "schema": "public"}),
        ("rowVerColumns", {"table": "orders", "schema": "public"}),
        ("procedures", {"procedure": "pg_get_viewdef"}),
        ("procedureColumns", {"procedure": "abs"}),
        ("getTypeInfo", {}),
    ]
    for name, args in calls:
        print("#", name, json.dumps(args, sort_keys=True))
        table = args.pop("table", None)
        positional = {"columns": [], "tables": []}.get(name)
        cur = c.cursor()
        try:
            if positional is None and table is not None:
                cur = getattr(cur, name)(table, **args)
            elif table is not None:
                cur = getattr(cur, name)(table=table, **args)
            else:
                cur = getattr(cur, name)(**args)
            print("|".join(f"{d[0]} {d[1].__name__}" for d in cur.description))
            for line in sorted("|".join(str(v) for v in row) for row in cur.fetchall()):
                print(" ", line.replace("\n", "\\n"))
        except pyodbc.Error as e:
            print("fails:", *e.args)
    for key in ["SQL_DBMS_NAME", "SQL_IDENTIFIER_QUOTE_CHAR", "SQL_MAX_IDENTIFIER_LEN", "SQL_TXN_CAPABLE", "SQL_DEFAULT_TXN_ISOLATION", "SQL_KEYWORDS", "SQL_DATABASE_NAME", "SQL_USER_NAME"]:
        print("#", key)
        print(c.getinfo(getattr(pyodbc, key)))


def read(file):
    expected = json.loads(pathlib.Path(file).read_text())
    # The driver gives a timestamptz in the session's zone, which is UTC, without an offset.
    want = [
        (e, s, int(t), decimal.Decimal(p), datetime.datetime.fromisoformat(at).replace(tzinfo=None), b, datetime.date.fromisoformat(d))
        for e, s, t, p, at, b, d in expected["rows"]
    ]
    history = f"SELECT event_id, symbol, trade_id, price, event_time, is_buyer_maker, event_date FROM unified_events WHERE source = 'batch' AND trade_id <= {expected['last']} ORDER BY trade_id"
    for options in ([], ["UseDeclareFetch=1", "Fetch=100"], ["UseServerSidePrepare=0"], ["Protocol=7.4-2"]):
        c = connect(*options)
        got = [tuple(r) for r in c.execute(history).fetchall()]
        assert got == want, f"{options}: {len(got)} rows, want {len(want)}; {next(((g, w) for g, w in zip(got, want) if g != w), None)}"
        first = want[0]
        for column, value in [("event_id", first[0]), ("trade_id", first[2]), ("price", first[3]), ("event_time", first[4]), ("is_buyer_maker", first[5]), ("event_date", first[6])]:
            n = c.execute(f"SELECT count(*) FROM unified_events WHERE event_id = ? AND {column} = ?", first[0], value).fetchval()
            assert n == 1, f"{options}: {column} = {value!r}: {n}"
        assert tuple(c.execute("SELECT CAST(? AS text), CAST(? AS bigint), 'ñ'", "", None).fetchone()) == ("", None, "ñ")
        for sql, state in [("SELECT * FROM nosuch", "42S02"), ("SELECT nosuch FROM unified_events", "42S22"), ("DELETE FROM unified_events", "25006"), ("SELEC 1", "42601")]:
            try:
                c.execute(sql)
            except pyodbc.Error as e:
                # The driver has two states of its own; the others are the server's.
                assert e.args[0] in (state, {"42S02": "42P01", "42S22": "42703"}.get(state, state)), f"{sql}: {e}"
            else:
                raise AssertionError(f"{sql}: no error")
        c.close()
    c = connect()
    counts = []
    for _ in range(5):
        c.autocommit = False
        n = c.execute("SELECT count(*) FROM unified_events").fetchval()
        assert c.execute("SELECT count(*) FROM unified_events").fetchval() == n, "two counts of one transaction differ"
        c.commit()
        c.autocommit = True
        counts.append(n)
    assert counts == sorted(counts), counts
    print(f"{len(want)} rows by psqlodbc {c.getinfo(pyodbc.SQL_DRIVER_VER)}; {counts[0]} to {counts[-1]} rows while the stream wrote")


if what == "metadata":
    metadata()
else:
    read(sys.argv[5])
