"""Clients of `cauce serve`, timed. Each command prints one JSON object.

serve.py dashboard PORT TABLE TRIES          the queries of a dashboard over the wire and by DuckDB on the same files
serve.py rows PORT FLIGHT TABLE ROWS TRIES   many rows to a client
serve.py readers PORT|TABLE N SECONDS        N sessions that refresh the dashboard, over the wire or by DuckDB on the table's files
serve.py hostile PORT SECONDS                one session beside others that send what is refused, or runs into limits
"""
import concurrent.futures
import json
import statistics
import sys
import time

import duckdb
import psycopg
from deltalake import DeltaTable

# What a dashboard over trades asks: the same text for both, FROM trades.
QUERIES = {
    "rows by source and day": "SELECT source, event_date, count(*) AS n FROM trades GROUP BY 1, 2 ORDER BY 1, 2",
    "newest event": "SELECT max(event_time) AS newest, count(*) AS n FROM trades",
    "price by minute, one day": "SELECT date_trunc('minute', event_time) AS minute, symbol, avg(price)::DOUBLE AS price FROM trades WHERE event_date = (SELECT max(event_date) FROM trades) GROUP BY 1, 2 ORDER BY 1, 2",
    "hourly candles of a symbol": "SELECT date_trunc('hour', event_time) AS h, arg_min(price, event_time) AS o, max(price) AS hi, min(price) AS lo, arg_max(price, event_time) AS c FROM trades WHERE symbol = 'BTCUSDT' GROUP BY 1 ORDER BY 1",
    "volume by symbol": "SELECT symbol, sum(qty::DOUBLE * price::DOUBLE) AS volume, count(*) AS n FROM trades GROUP BY 1 ORDER BY 2 DESC",
    "makers by weekday": "SELECT dayofweek(event_date) AS d, count(*) FILTER (WHERE is_buyer_maker) AS makers, count(*) AS n FROM trades GROUP BY 1 ORDER BY 1",
    "largest trades": "SELECT event_id, symbol, price, qty FROM trades ORDER BY qty::DOUBLE * price::DOUBLE DESC, event_id LIMIT 20",
    "one event": "SELECT * EXCLUDE (ingested_at) FROM trades WHERE event_id = 'BTCUSDT-1000' AND event_date >= DATE '2020-01-01'",
}


def over_wire(sql):
    return sql.replace("FROM trades", "FROM unified_events")


def connect(port):
    return psycopg.connect(host="127.0.0.1", port=port, user="reader", dbname="lake", autocommit=True)


def raw(table):
    c = duckdb.connect()
    c.execute("SET TimeZone = 'UTC'")
    files = DeltaTable(table).file_uris()
    c.execute(f"CREATE VIEW trades AS SELECT * FROM read_parquet({files!r}, hive_partitioning = true, hive_types = {{'event_date': DATE}})")
    return c


def timed(f, *args):
    start = time.perf_counter()
    out = f(*args)
    return (time.perf_counter() - start) * 1000, out


def plain(rows):
    return [tuple(float(v) if hasattr(v, "as_tuple") or isinstance(v, float) else str(v) for v in r) for r in rows]


def close(a, b):
    return len(a) == len(b) and all(
        len(x) == len(y) and all(abs(v - w) <= 1e-9 * max(abs(v), abs(w)) if isinstance(v, float) and isinstance(w, float) else v == w for v, w in zip(x, y)) for x, y in zip(a, b)
    )


def dashboard(port, table, tries):
    wire, local = connect(port), raw(table)
    out = {"queries": {}, "all_wire": [], "all_raw": []}
    for name, sql in QUERIES.items():
        a, b = [], []
        for i in range(tries + 1):
            ms, got = timed(lambda: wire.execute(over_wire(sql)).fetchall())
            raw_ms, want = timed(lambda: local.execute(sql).fetchall())
            if not close(sorted(plain(got)), sorted(plain(want))):
                raise SystemExit(f"{name}: the answers differ: {got[:3]} {want[:3]}")
            if i > 0:
                a.append(ms)
                b.append(raw_ms)
        out["queries"][name] = {"wire": a, "raw": b}
    # A dashboard asks everything at once, each chart in a session of its own.
    sessions = [connect(port) for _ in QUERIES]
    cursors = [local.cursor() for _ in QUERIES]
    with concurrent.futures.ThreadPoolExecutor(len(QUERIES)) as pool:
        for i in range(tries + 1):
            ms, _ = timed(lambda: list(pool.map(lambda p: p[0].execute(over_wire(p[1])).fetchall(), zip(sessions, QUERIES.values()))))
            raw_ms, _ = timed(lambda: list(pool.map(lambda p: p[0].execute(p[1]).fetchall(), zip(cursors, QUERIES.values()))))
            if i > 0:
                out["all_wire"].append(ms)
                out["all_raw"].append(raw_ms)
    return out


def rows(port, flight, table, n, tries):
    import adbc_driver_flightsql.dbapi as flightsql
    import adbc_driver_postgresql.dbapi as postgresql

    sql = f"SELECT event_id, symbol, trade_id, price, qty, event_time, is_buyer_maker, event_date FROM trades LIMIT {n}"
    local = raw(table)
    ways = {}
    pg, arrow_pg, arrow = connect(port), postgresql.connect(f"postgresql://reader@127.0.0.1:{port}/lake", autocommit=True), flightsql.connect(f"grpc://{flight}", autocommit=True)

    def by_adbc(c):
        with c.cursor() as cur:
            cur.execute(over_wire(sql))
            return cur.fetch_arrow_table().num_rows

    def by_copy():
        with pg.cursor() as cur, cur.copy(f"COPY ({over_wire(sql)}) TO STDOUT (FORMAT binary)") as copy:
            return sum(len(b) > 0 for b in copy) and n

    ways["DuckDB itself, to Arrow"] = lambda: local.execute(sql).to_arrow_table().num_rows
    ways["DuckDB itself, to Python's rows"] = lambda: len(local.execute(sql).fetchall())
    ways["psycopg, text"] = lambda: len(pg.execute(over_wire(sql)).fetchall())
    ways["psycopg, binary"] = lambda: len(pg.execute(over_wire(sql), binary=True).fetchall())
    ways["psycopg, COPY in binary, not decoded"] = by_copy
    ways["ADBC PostgreSQL"] = lambda: by_adbc(arrow_pg)
    ways["ADBC Flight SQL"] = lambda: by_adbc(arrow)
    out = {}
    for _ in range(tries):
        for name, f in ways.items():
            ms, got = timed(f)
            if got != n:
                raise SystemExit(f"{name}: {got} rows, want {n}")
            out.setdefault(name, []).append(ms)
    return out


def readers(door, n, seconds):
    if door.isdigit():
        sessions = [connect(int(door)) for _ in range(n)]
    else:
        local = raw(door)
        sessions = [local.cursor() for _ in range(n)]
    text = over_wire if door.isdigit() else str
    queries = [text(q) for q in QUERIES.values()]
    count = text("SELECT count(*) FROM trades")
    latencies, failures, counts = [], [], []
    start = time.perf_counter()

    def one(i):
        last = at = 0
        while time.perf_counter() < start + seconds:
            sql = queries[(i + at) % len(queries)]
            at += 1
            try:
                latencies.append(timed(lambda: sessions[i].execute(sql).fetchall())[0])
                if at % 3 == 0:
                    now = sessions[i].execute(count).fetchone()[0]
                    if now < last:
                        failures.append(f"{now} rows after {last}")
                    last = now
                    counts.append(now)
            except (psycopg.Error, duckdb.Error) as e:
                failures.append(str(e))

    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        list(pool.map(one, range(n)))
    took = time.perf_counter() - start
    return {"queries": len(latencies), "per_second": len(latencies) / took, **spread(latencies), "failures": failures[:5], "failed": len(failures), "rows": [min(counts, default=0), max(counts, default=0)]}


def spread(ms):
    q = statistics.quantiles(ms, n=100) if len(ms) > 1 else [0] * 99
    return {"p50": statistics.median(ms or [0]), "p95": q[94], "p99": q[98], "max": max(ms, default=0)}


HOSTILE = [
    "SELECT count(*) FROM range(100000000000) a, range(100000000000) b",
    "SELECT list(repeat('x', 1000000)) FROM range(100000)",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    "SELECT count(*) FROM unified_events a, unified_events b, unified_events c WHERE a.price + b.price > c.price",
    "SELECT * FROM read_text('/etc/passwd')",
    "DROP TABLE unified_events",
]


def hostile(port, seconds):
    witness = connect(port)
    sql = over_wire(QUERIES["newest event"])

    def watch(until):
        out, failed = [], 0
        while time.perf_counter() < until:
            try:
                out.append(timed(lambda: witness.execute(sql).fetchall())[0])
            except psycopg.Error:
                failed += 1
            time.sleep(0.02)
        return {"n": len(out), "failed": failed, **spread(out)}

    quiet = watch(time.perf_counter() + seconds / 4)
    end = time.perf_counter() + seconds
    refused = {}

    def attack(sql):
        c = connect(port)
        while time.perf_counter() < end:
            try:
                c.execute(sql).fetchall()
                raise SystemExit(f"{sql}: was allowed")
            except psycopg.Error as e:
                refused[e.sqlstate] = refused.get(e.sqlstate, 0) + 1
                time.sleep(0.05)

    with concurrent.futures.ThreadPoolExecutor(len(HOSTILE)) as pool:
        work = [pool.submit(attack, sql) for sql in HOSTILE]
        beside = watch(end)
        for w in work:
            w.result()
    return {"quiet": quiet, "beside": beside, "refused": refused}


what, args = sys.argv[1], sys.argv[2:]
if what == "dashboard":
    answer = dashboard(int(args[0]), args[1], int(args[2]))
elif what == "rows":
    answer = rows(int(args[0]), args[1], args[2], int(args[3]), int(args[4]))
elif what == "readers":
    answer = readers(args[0], int(args[1]), float(args[2]))
else:
    answer = hostile(int(args[0]), float(args[1]))
print(json.dumps(answer))
