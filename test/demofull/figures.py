"""The figures with which the demo compares what Cauce did. None of them comes from Cauce: rows that must be there are computed from
the CSV files as they were landed and from the simulated exchange's own log, rows that are there are read with deltalake, and messages
with Kafka's client for Python. It shares no code with Cauce.

figures.py expect SPEC            SPEC: {"files": [PATH, … in the order of landing], "log": PATH, "from": LINE, "to": LINE} as JSON
figures.py table URL [VERSION]    the same figures of a Delta table
figures.py same SPEC URL          every row, compared
figures.py unchanged URL VERSION… compares the rows of each version with those of the one before
figures.py quarantine URL         rows that nobody has resolved
figures.py files URL VERSION SYMBOL FOLDER   data files, those whose statistics admit the symbol, and how the rows lie in them; FOLDER is
                                  the table's on the server's disk
figures.py topic BROKER TOPIC LOG     what the topic holds of the log

Each prints one JSON object.
"""

import csv
import datetime
import decimal
import gzip
import io
import json
import pathlib
import re
import sys
import zipfile

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
ARCHIVE = ["trade_id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match"]


def micros(text):
    """An instant in µs: an integer of seconds, ms or µs by its magnitude, or ISO 8601."""
    if re.fullmatch(r"[0-9]+", text):
        n = int(text)
        return n * (1_000_000 if n < 10**11 else 1000 if n < 10**14 else 1)
    at = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
    return (at - EPOCH) // datetime.timedelta(microseconds=1)


def positive(text):
    number = decimal.Decimal(text)
    if not number > 0:
        raise ValueError(text)
    return number


def records(path):
    """The records of a file of history as mappings; None for one whose number of fields is wrong."""
    name = pathlib.Path(path).name
    raw = pathlib.Path(path).read_bytes()
    if name.endswith(".gz"):
        raw = gzip.decompress(raw)
    elif name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(raw)) as z:
            raw = z.read(z.namelist()[0])
    rows = csv.reader(io.StringIO(raw.decode(), newline=""))
    archive = re.match(r"([A-Z0-9]+)-trades-", name)
    head = ARCHIVE if archive else next(rows)
    for row in rows:
        yield {**dict(zip(head, row)), **({"symbol": archive[1]} if archive else {})} if len(row) == len(head) else None


def history(files):
    """(key, order, row) of each record that can be used, and how many cannot."""
    good, bad = [], 0
    for number, path in enumerate(files):
        for position, r in enumerate(records(path)):
            try:
                if r is None:
                    raise ValueError("fields")
                symbol, at = r["symbol"].strip().upper(), micros(r["time"])
                row = ("history", symbol, int(r["trade_id"]), positive(r["price"]), positive(r["qty"]), at, r["is_buyer_maker"].lower() == "true")
            except (ValueError, decimal.InvalidOperation):
                bad += 1
                continue
            good.append((f"{symbol}-{row[2]}", (at, 0, number, position), row))
    return good, bad


def live(path, first, last):
    """The same of lines first to last (from 0, the last one not included) of the exchange's log."""
    out = []
    with open(path) as f:
        for n, line in enumerate(f):
            if first <= n < last:
                t = json.loads(line)
                at = micros(str(t["T"]))
                out.append((f"{t['s']}-{t['t']}", (at, 1, 0, n), ("live", t["s"], t["t"], decimal.Decimal(t["p"]), decimal.Decimal(t["q"]), at, t["m"])))
    return out


def expected(spec):
    """The row that must stand under each key: that of the latest time; of the same time a live one, then the file landed last."""
    spec = json.loads(spec)
    good, bad = history(spec["files"])
    offered = len(good)
    if spec.get("log"):
        good += live(spec["log"], spec["from"], spec["to"])
    best = {}
    for key, order, row in good:
        if key not in best or order > best[key][0]:
            best[key] = (order, row)
    return {k: row for k, (_, row) in best.items()}, bad, offered


def summary(rows):
    by = {}
    for r in rows:
        day = (EPOCH + datetime.timedelta(microseconds=r[5])).date()
        by[f"{r[0]} {day}"] = by.get(f"{r[0]} {day}", 0) + 1
    return {
        "rows": len(rows),
        "price": f"{sum((r[3] for r in rows), decimal.Decimal(0)):.8f}",
        "quantity": f"{sum((r[4] for r in rows), decimal.Decimal(0)):.8f}",
        "by": dict(sorted(by.items())),
    }


def stored(url, version=None):
    """Version and rows of a table by key, as deltalake reads them."""
    import pyarrow as pa
    from deltalake import DeltaTable, QueryBuilder

    table = DeltaTable(url, version=version)
    sql = "select event_id, source, symbol, trade_id, price, quantity, event_time, is_buyer_maker, event_date from t"
    out = []
    for r in pa.table(QueryBuilder().register("t", table).execute(sql).read_all()).to_pylist():
        at = (r["event_time"] - EPOCH) // datetime.timedelta(microseconds=1)
        if r["event_date"] != (EPOCH + datetime.timedelta(microseconds=at)).date():
            raise SystemExit(f"{r['event_id']} of {r['event_time']} lies in the partition {r['event_date']}")
        out.append((r["event_id"], (r["source"], r["symbol"], r["trade_id"], r["price"], r["quantity"], at, r["is_buyer_maker"])))
    return table.version(), out


def expect(spec):
    rows, bad, offered = expected(spec)
    return {**summary(list(rows.values())), "bad": bad, "records": offered + bad}


def table(url, version=None):
    at, rows = stored(url, int(version) if version else None)
    return {**summary([r for _, r in rows]), "version": at}


def same(spec, url):
    want = expected(spec)[0]
    at, rows = stored(url)
    there = dict(rows)
    differ = [k for k in want if k in there and want[k] != there[k]]
    return {
        "version": at, "wanted": len(want), "rows": len(rows), "doubled": len(rows) - len(there), "equal": sum(want[k] == there.get(k) for k in want),
        "missing": sorted(want.keys() - there.keys())[:5], "foreign": sorted(there.keys() - want.keys())[:5],
        "differ": [f"{k}: want {want[k]}, there {there[k]}" for k in differ[:3]],
    }


def unchanged(url, *versions):
    out = {}
    for v in versions:
        before, after = (sorted(stored(url, n)[1]) for n in (int(v) - 1, int(v)))
        out[v] = {"rows": len(after), "equal": before == after}
    return out


def quarantine(url):
    import pyarrow as pa
    from deltalake import DeltaTable, QueryBuilder

    t = pa.table(QueryBuilder().register("t", DeltaTable(url)).execute("select count(*) as n from t where resolved_at is null").read_all())
    return {"rows": t["n"][0].as_py()}


def files(url, version, symbol, folder):
    import urllib.parse

    import pyarrow as pa
    import pyarrow.parquet
    from deltalake import DeltaTable

    adds = pa.table(DeltaTable(url, version=int(version)).get_add_actions(flatten=True)).to_pylist()
    changes = least = 0
    for a in adds:
        symbols = pa.parquet.ParquetFile(pathlib.Path(folder) / urllib.parse.unquote(a["path"])).read(columns=["symbol"])["symbol"].to_pylist()
        changes += sum(x != y for x, y in zip(symbols, symbols[1:]))
        least += len(set(symbols)) - 1
    return {"files": len(adds), "admit": sum(a["min.symbol"] <= symbol <= a["max.symbol"] for a in adds), "changes": changes, "least": least}


def topic(broker, name, log):
    from confluent_kafka import Consumer, TopicPartition

    c = Consumer({"bootstrap.servers": broker, "group.id": "figures", "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    parts = [TopicPartition(name, p) for p in c.list_topics(name, timeout=30).topics[name].partitions]
    ends = {p.partition: c.get_watermark_offsets(p, timeout=30) for p in parts}
    left = {p: hi for p, (lo, hi) in ends.items() if hi > lo}
    c.assign([TopicPartition(name, p.partition, ends[p.partition][0]) for p in parts])
    found, messages = [], 0
    while left:
        for m in c.consume(10_000, timeout=30) or sys.exit("the topic does not answer"):
            if m.error():
                sys.exit(str(m.error()))
            messages += 1
            e = json.loads(m.value())
            if e.get("e") == "trade":
                found.append((e["s"], e["t"], e["p"], e["q"], e["T"], e["m"]))
            if m.offset() + 1 >= left.get(m.partition(), 1 << 62):
                del left[m.partition()]
    c.close()
    with open(log) as f:
        lines = [tuple(json.loads(line)[k] for k in "stpqTm") for line in f if line.endswith("\n")]
    place = {t: i for i, t in enumerate(lines)}
    at = sorted({place[t] for t in found if t in place})
    first, last = (at[0], at[-1] + 1) if at else (0, 0)
    return {
        "messages": messages, "trades": len(at), "doubled": len(found) - len(set(found)), "foreign": sum(t not in place for t in found),
        "from": first, "to": last, "holes": last - first - len(at), "log": len(lines),
    }


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
