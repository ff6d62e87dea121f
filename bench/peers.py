"""What the benchmark compares Cauce with. Every command prints one line of JSON; times leave out the interpreter's start.

  peers.py load-duckdb CSV_FOLDER TABLE      DuckDB: CSV -> cleaned, newest of each key -> Parquet partitioned by day (the floor)
  peers.py load-deltars CSV_FOLDER TABLE     polars parses and cleans, delta-rs merges into an empty table
  peers.py batches-deltars TABLE JSONL…      delta-rs merges each file as one micro-batch
  peers.py hash-parquet|hash-delta TABLE     rows and the hash of all rows but ingested_at
"""

import glob
import importlib.util
import json
import os
import pathlib
import sys
import time

HASH = """select count(*) as n, sum(hash(event_id, symbol, trade_id, price, quantity, epoch_us(event_time), is_buyer_maker, event_date)::hugeint)::varchar as h from """

CLEAN = """
with raw as (
  select upper(trim(symbol)) as symbol, try_cast(trade_id as bigint) as trade_id, try_cast(price as decimal(18,8)) as price,
    try_cast(qty as decimal(18,8)) as quantity, coalesce(make_timestamp(try_cast(time as bigint)), try_cast(time as timestamp)) as event_time,
    lower(is_buyer_maker) = 'true' as is_buyer_maker
  from read_csv('{csv}/*.csv', all_varchar = true, header = true, auto_detect = false, delim = ',', quote = '', columns = {{'symbol': 'VARCHAR',
    'trade_id': 'VARCHAR', 'price': 'VARCHAR', 'qty': 'VARCHAR', 'quote_qty': 'VARCHAR', 'time': 'VARCHAR', 'is_buyer_maker': 'VARCHAR', 'is_best_match': 'VARCHAR'}}))
select symbol || '-' || trade_id as event_id, 'batch' as source, *, now()::timestamp as ingested_at, event_time::date as event_date
from raw where symbol <> '' and trade_id is not null and price > 0 and quantity > 0 and event_time is not null
qualify row_number() over (partition by symbol, trade_id order by event_time desc) = 1"""


def duck():
    import duckdb

    con = duckdb.connect()
    con.sql("set threads = 2; set preserve_insertion_order = false; set timezone = 'UTC'")
    return con


def load_duckdb(csv, table):
    con = duck()
    start = time.perf_counter()
    con.sql(f"copy ({CLEAN.format(csv=csv)}) to '{table}' (format parquet, partition_by (event_date), compression snappy)")
    return {"seconds": [time.perf_counter() - start]}


def schema():
    import pyarrow as pa

    us = pa.timestamp("us", tz="UTC")
    return pa.schema([("event_id", pa.string()), ("source", pa.string()), ("symbol", pa.string()), ("trade_id", pa.int64()), ("price", pa.decimal128(18, 8)),
                      ("quantity", pa.decimal128(18, 8)), ("event_time", us), ("is_buyer_maker", pa.bool_()), ("ingested_at", us), ("event_date", pa.date32())])


def final(rows, source):
    """The newest row of each key, with the derived columns, as an Arrow table."""
    import polars as pl

    rows = rows.group_by("symbol", "trade_id").agg(pl.all().sort_by("event_time").last()).select(
        event_id=pl.col("symbol") + "-" + pl.col("trade_id").cast(pl.String), source=pl.lit(source), symbol="symbol", trade_id="trade_id", price="price",
        quantity="quantity", event_time="event_time", is_buyer_maker="is_buyer_maker", ingested_at=pl.lit(time.time_ns() // 1000).cast(pl.Datetime("us", "UTC")),
        event_date=pl.col("event_time").dt.date())
    return rows.collect(engine="streaming").to_arrow().cast(schema())


def load_deltars(csv, table):
    import polars as pl
    from deltalake import DeltaTable

    start = time.perf_counter()
    us = pl.Datetime("us", "UTC")
    rows = pl.scan_csv(os.path.join(csv, "*.csv"), infer_schema=False).select(
        symbol=pl.col("symbol").str.strip_chars().str.to_uppercase(), trade_id=pl.col("trade_id").cast(pl.Int64, strict=False),
        price=pl.col("price").cast(pl.Decimal(18, 8), strict=False), quantity=pl.col("qty").cast(pl.Decimal(18, 8), strict=False),
        event_time=pl.coalesce(pl.col("time").cast(pl.Int64, strict=False).cast(us),
                               pl.col("time").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", time_zone="UTC", strict=False)),
        is_buyer_maker=pl.col("is_buyer_maker").str.to_lowercase() == "true",
    ).filter((pl.col("symbol") != "") & (pl.col("price") > 0) & (pl.col("quantity") > 0) & pl.col("trade_id").is_not_null() & pl.col("event_time").is_not_null())
    dt = DeltaTable.create(table, schema=schema(), partition_by=["event_date"])
    merge(dt, final(rows, "batch"), [])
    return {"seconds": [time.perf_counter() - start]}


def merge(dt, rows, days):
    # The partition predicate is what makes delta-rs quick: it reads and rewrites only the days named.
    on = "t.event_id = s.event_id and t.event_date = s.event_date"
    if days:
        on += " and t.event_date in (" + ", ".join(f"'{d}'" for d in days) + ")"
    dt.merge(rows, on, source_alias="s", target_alias="t", streamed_exec=False).when_matched_update_all("s.event_time >= t.event_time").when_not_matched_insert_all().execute()


def batches_deltars(table, *files):
    import polars as pl
    from deltalake import DeltaTable

    dt, seconds = DeltaTable(table), []
    for name in files:
        start = time.perf_counter()
        dt.update_incremental()
        rows = final(pl.scan_ndjson(name).filter(pl.col("e") == "trade").select(
            symbol=pl.col("s").str.to_uppercase(), trade_id="t", price=pl.col("p").cast(pl.Decimal(18, 8)), quantity=pl.col("q").cast(pl.Decimal(18, 8)),
            event_time=(pl.col("T") * 1000).cast(pl.Datetime("us", "UTC")), is_buyer_maker="m"), "stream")
        merge(dt, rows, sorted({str(d) for d in rows["event_date"].unique().to_pylist()}))
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds}


def hashed(relation, con):
    n, h = con.sql(HASH + relation).fetchone()
    return {"rows": n, "hash": h}


def hash_parquet(table):
    return hashed(f"read_parquet('{table}/*/*.parquet', hive_partitioning = true, hive_types = {{'event_date': DATE}})", duck())


def hash_delta(table):
    con = duck()
    wheel = pathlib.Path(importlib.util.find_spec("duckdb_extension_delta").origin).parent
    con.sql(f"load '{next(wheel.glob('extensions/*/delta.duckdb_extension'))}'")
    return hashed(f"delta_scan('{table}')", con)


print(json.dumps({
    "load-duckdb": load_duckdb, "load-deltars": load_deltars, "batches-deltars": batches_deltars, "hash-parquet": hash_parquet, "hash-delta": hash_delta,
}[sys.argv[1]](*sys.argv[2:])))
