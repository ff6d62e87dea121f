"""Reads a lake that is being written through PostgreSQL's drivers for Python.

usage: drivers.py HOST PORT EXPECTED.json

EXPECTED holds `rows`, those of the history alone, as [event_id, symbol, trade_id, price, event_time, is_buyer_maker, event_date].
"""

import asyncio
import datetime
import decimal
import io
import json
import pathlib
import sys
import uuid

import asyncpg
import psycopg
import sqlalchemy

host, port, expected = sys.argv[1], int(sys.argv[2]), json.loads(pathlib.Path(sys.argv[3]).read_text())
COLUMNS = "event_id, symbol, trade_id, price, event_time, is_buyer_maker, event_date"
HISTORY = f"SELECT {COLUMNS} FROM unified_events WHERE source = 'batch' AND trade_id <= {expected['last']} ORDER BY trade_id"
want = [
    (e, s, int(t), decimal.Decimal(p), datetime.datetime.fromisoformat(at), b, datetime.date.fromisoformat(d))
    for e, s, t, p, at, b, d in expected["rows"]
]


def same(who, got):
    got = [tuple(r) for r in got]
    assert got == want, f"{who}: {len(got)} rows, want {len(want)}; the first that differs: {next(((g, w) for g, w in zip(got, want) if g != w), None)}"


def psycopg3():
    with psycopg.connect(host=host, port=port, user="reader", dbname="lake", autocommit=True) as c:
        for binary in (False, True):
            same(f"psycopg, binary {binary}", c.execute(HISTORY, binary=binary).fetchall())
        assert c.execute("SELECT count(*) FROM unified_events WHERE trade_id = %s AND price < %s", (want[0][2], decimal.Decimal("1e9"))).fetchone() == (1,)
        assert c.execute("SELECT NULL::bigint, ''::text").fetchone() == (None, "")
        one = f"FROM unified_events WHERE event_id = '{want[0][0]}'"
        for binary in (False, True):  # numbers beside a column leave its digits alone
            for sql in ("coalesce(price, %s)", "sum(CASE WHEN price > 0 THEN price ELSE %s END)", "least(price, %s + 1e9::numeric)"):
                got = c.execute(f"SELECT {sql} {one}", (decimal.Decimal("0.00"),), binary=binary).fetchone()
                assert got == (want[0][3],), f"{sql}: {got}, want {want[0][3]}"
            got = c.execute("SELECT coalesce(%s, %s), %s, row(1, 'a b', NULL)", (None, 1, uuid.UUID(int=5)), binary=binary).fetchone()
            assert got == (1, uuid.UUID(int=5), (1, "a b", None) if binary else ("1", "a b", None)), got
        counts = []
        for _ in range(10):
            with c.transaction():
                n = c.execute("SELECT count(*) FROM unified_events").fetchone()[0]
                assert c.execute("SELECT count(*) FROM unified_events").fetchone()[0] == n, "two counts of one transaction differ"
            counts.append(n)
        assert counts == sorted(counts), f"rows were seen and then no more: {counts}"
        with c.transaction(), c.cursor(name="by_hundreds") as cur:
            cur.execute(HISTORY)
            same("psycopg, a cursor of the server", [r for chunk in iter(lambda: cur.fetchmany(100), []) for r in chunk])
        with c.cursor() as cur, cur.copy(f"COPY ({HISTORY}) TO STDOUT (FORMAT csv)") as copy:
            assert b"".join(copy).count(b"\n") == len(want)
        for sql, error in [
            ("SELECT * FROM nosuch", psycopg.errors.UndefinedTable),
            ("SELECT nosuch FROM unified_events", psycopg.errors.UndefinedColumn),
            ("SELEC 1", psycopg.errors.SyntaxError),
            ("DELETE FROM unified_events", psycopg.errors.ReadOnlySqlTransaction),
        ]:
            try:
                c.execute(sql)
            except psycopg.Error as e:
                assert isinstance(e, error), f"{sql}: {e.sqlstate} {e}"
            else:
                raise AssertionError(f"{sql}: no error")
        return counts


async def asyncpg_():
    c = await asyncpg.connect(host=host, port=port, user="reader", database="lake")
    try:
        same("asyncpg", await c.fetch(HISTORY))
        same("asyncpg, prepared", await (await c.prepare(HISTORY)).fetch())
        assert await c.fetchval("SELECT count(*) FROM unified_events WHERE symbol = $1 AND event_date = $2", want[0][1], want[0][6]) > 0
        for sql, value in [
            ("$1::int[]", [1, 2]), ("$1::numeric[]", [decimal.Decimal("1.125")]), ("$1::bytea[]", [b"a\x00\xff"]), ("$1::uuid", uuid.UUID(int=5)), ("$1::jsonb", '{"a": 1}'),
            ("$1 + 0", 7), ("$1::numeric", decimal.Decimal("0.123456789")),
        ]:
            got = await c.fetchval(f"SELECT {sql}", value)
            assert got == value, f"asyncpg, {sql}: {got}, want {value}"
        assert await c.fetchval("SELECT price + $2 FROM unified_events WHERE event_id = $1", want[0][0], decimal.Decimal("0.5")) == want[0][3] + decimal.Decimal("0.5")
        async with c.transaction():
            same("asyncpg, a cursor", [r async for r in c.cursor(HISTORY, prefetch=100)])
        out = io.BytesIO()
        assert await c.copy_from_query(HISTORY, output=out, format="csv", header=True) == f"COPY {len(want)}"
        assert out.getvalue().count(b"\n") == len(want) + 1, out.getvalue()[:200]
    finally:
        await c.close()


def sqlalchemy_():
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://reader@{host}:{port}/lake")
    inspector = sqlalchemy.inspect(engine)
    assert "unified_events" in inspector.get_table_names(), inspector.get_table_names()
    assert inspector.get_pk_constraint("unified_events")["constrained_columns"] == ["event_id"]
    types = {c["name"]: c["type"] for c in inspector.get_columns("unified_events")}
    assert isinstance(types["price"], sqlalchemy.NUMERIC) and (types["price"].precision, types["price"].scale) == (18, 8), types["price"]
    assert isinstance(types["event_time"], sqlalchemy.TIMESTAMP) and types["event_time"].timezone, types["event_time"]
    table = sqlalchemy.Table("unified_events", sqlalchemy.MetaData(), autoload_with=engine)
    columns = [table.c[n] for n in COLUMNS.split(", ")]
    query = sqlalchemy.select(*columns).where(table.c.source == "batch", table.c.trade_id <= expected["last"]).order_by(table.c.trade_id)
    with engine.connect() as c:
        same("SQLAlchemy", c.execute(query).all())
    engine.dispose()


counts = psycopg3()
asyncio.run(asyncpg_())
sqlalchemy_()
print(f"{len(want)} rows by psycopg {psycopg.__version__}, asyncpg {asyncpg.__version__} and SQLAlchemy {sqlalchemy.__version__}; {counts[0]} to {counts[-1]} rows while the stream wrote")
