"""Reads a lake that is being written through Arrow's drivers (ADBC).

usage: adbc.py postgresql|flightsql URI EXPECTED.json; EXPECTED is as for drivers.py.
For flightsql, CAUCE_USER, CAUCE_PASSWORD and CAUCE_CA (a PEM file) may stand in the environment.
"""

import datetime
import decimal
import json
import os
import pathlib
import sys
import warnings

import pyarrow

door, uri, expected = sys.argv[1], sys.argv[2], json.loads(pathlib.Path(sys.argv[3]).read_text())
COLUMNS = "event_id, symbol, trade_id, price, event_time, is_buyer_maker, event_date"
HISTORY = f"SELECT {COLUMNS} FROM unified_events WHERE source = 'batch' AND trade_id <= {expected['last']} ORDER BY trade_id"
want = [
    (e, s, int(t), decimal.Decimal(p), datetime.datetime.fromisoformat(at), b, datetime.date.fromisoformat(d))
    for e, s, t, p, at, b, d in expected["rows"]
]
warnings.simplefilter("error")  # the drivers warn where a server lacks what they need

if door == "postgresql":
    import adbc_driver_postgresql as driver
    from adbc_driver_postgresql import dbapi

    options = {}
    # A numeric has no precision of its own in PostgreSQL: the driver gives texts.
    price, read_price = pyarrow.string(), decimal.Decimal
else:
    import adbc_driver_flightsql as driver
    from adbc_driver_flightsql import DatabaseOptions, dbapi

    options = {}
    if user := os.environ.get("CAUCE_USER"):
        options |= {"username": user, "password": os.environ["CAUCE_PASSWORD"]}
    if ca := os.environ.get("CAUCE_CA"):
        options[DatabaseOptions.TLS_ROOT_CERTS.value] = pathlib.Path(ca).read_text()
    price, read_price = pyarrow.decimal128(18, 8), lambda v: v


def connect(**more):
    return dbapi.connect(uri, db_kwargs=options, **more) if options else dbapi.connect(uri, **more)


def rows(table):
    at = table.schema.get_field_index("price")
    return [tuple(read_price(v) if i == at else v for i, v in enumerate(r)) for r in zip(*(c.to_pylist() for c in table.columns))]


def same(who, got):
    assert got == want, f"{who}: {len(got)} rows, want {len(want)}; {next(((g, w) for g, w in zip(got, want) if g != w), None)}"


with connect(autocommit=True) as c, c.cursor() as cur:
    cur.execute(HISTORY)
    table = cur.fetch_arrow_table()
    same(door, rows(table))
    types = {f.name: getattr(f.type, "storage_type", f.type) for f in table.schema}
    assert types == {
        "event_id": pyarrow.string(), "symbol": pyarrow.string(), "trade_id": pyarrow.int64(), "price": price,
        "event_time": pyarrow.timestamp("us", "UTC"), "is_buyer_maker": pyarrow.bool_(), "event_date": pyarrow.date32(),
    }, types  # fmt: skip
    first = want[0]
    for column, value in [("symbol", first[1]), ("trade_id", first[2]), ("is_buyer_maker", first[5]), ("event_date", first[6]), ("event_time", first[4])]:
        cur.execute(f"SELECT count(*) FROM unified_events WHERE event_id = $1 AND {column} = $2", (first[0], value))
        assert cur.fetchone() == (1,), f"{column} = {value!r}"
    if door == "flightsql":
        cur.execute("SELECT count(*) FROM unified_events WHERE event_id = ? AND symbol = ?", first[:2])
        assert cur.fetchone() == (1,)
        cur.execute("SELECT ? IS NULL, coalesce(?, 'none')", (None, None))
        assert cur.fetchone() == (True, "none")
    cur.execute("SELECT NULL::bigint AS a, ''::text AS b, 1.5::double AS c, ARRAY[1, NULL] AS d, '\\x00ff'::bytea AS e, INTERVAL 1 DAY AS f")
    got = cur.fetch_arrow_table().to_pylist()[0]
    assert (got["a"], got["b"], got["c"], got["d"], got["e"]) == (None, "", 1.5, [1, None], b"\x00\xff"), got
    cur.execute("SELECT $1 IS NULL, coalesce($1, 'x')", (None,))
    assert cur.fetchall() == [(True, "x")], "a null without a type"
    cur.execute("SELECT * FROM unified_events WHERE false")
    assert cur.fetch_arrow_table().num_rows == 0

    # In connections of their own: PostgreSQL's driver begins a transaction for a parameter with a time zone, and for loading.
    for sql in ["SELECT * FROM nosuch", "SELECT nosuch FROM unified_events", "SELEC 1", "DELETE FROM unified_events", "SELECT * FROM read_text('/etc/passwd')", None]:
        with connect(autocommit=True) as other, other.cursor() as bad:
            try:
                if sql is None:
                    bad.adbc_ingest("loaded", table)
                else:
                    bad.execute(sql)
                    bad.fetchall()
            except dbapi.Error:
                continue
        raise AssertionError(f"{sql}: no error")

    # The catalogue.
    assert c.adbc_get_table_types(), "no types of tables"
    schema = c.adbc_get_table_schema("unified_events", db_schema_filter="public")
    assert schema.names[:3] == ["event_id", "source", "symbol"], schema
    assert schema.field("event_time").type == pyarrow.timestamp("us", "UTC"), schema
    for depth, filters in [("catalogs", {}), ("db_schemas", {}), ("tables", {"db_schema_filter": "public"}), ("all", {"db_schema_filter": "public", "table_name_filter": "unified_events"})]:
        found = c.adbc_get_objects(depth=depth, catalog_filter="lake", **filters).read_all().to_pylist()
        assert [f["catalog_name"] for f in found] == ["lake"], found
    schemas = {s["db_schema_name"]: s for s in found[0]["catalog_db_schemas"]}
    tables = {t["table_name"]: t for t in schemas["public"]["db_schema_tables"]}
    assert list(tables) == ["unified_events"], tables
    columns = sorted(tables["unified_events"]["table_columns"], key=lambda x: x["ordinal_position"])
    assert [x["column_name"] for x in columns][:2] == ["event_id", "source"], tables
    info = c.adbc_get_info()
    assert info["vendor_name"], info

    counts = []
    for _ in range(5):
        with connect(autocommit=False) as t, t.cursor() as cur:
            cur.execute("SELECT count(*) FROM unified_events")
            n = cur.fetchone()[0]
            cur.execute("SELECT count(*) FROM unified_events")
            assert cur.fetchone()[0] == n, "two counts of one transaction differ"
            t.commit()
        counts.append(n)
    assert counts == sorted(counts), counts

print(f"{len(want)} rows by ADBC's {door} {driver.__version__}; {counts[0]} to {counts[-1]} rows while the stream wrote")
