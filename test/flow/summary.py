"""What a CSV file of trades says, computed with nothing but the csv and decimal modules.

  summary.py coinbase|binance FILE   ->  JSON: n, price, amount (exact sums), first, last (µs since the epoch), lines (distinct records)
"""

import csv
import datetime
import decimal
import json
import sys

decimal.getcontext().prec = 60


def coinbase(row):
    at = datetime.datetime.fromisoformat(row[4].replace("Z", "+00:00"))
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    return row[2], row[3], (at - epoch) // datetime.timedelta(microseconds=1)


def binance(row):
    return row[1], row[2], int(row[0]) * 1_000_000


def main():
    kind, path = sys.argv[1:]
    with open(path, newline="", encoding="utf-8-sig") as f:
        rows = list(csv.reader(f))
    if kind == "coinbase":
        rows = rows[1:]
    trades = [{"coinbase": coinbase, "binance": binance}[kind](r) for r in rows]
    print(json.dumps({
        "n": len(trades),
        "price": format(sum(decimal.Decimal(p) for p, _, _ in trades), "f"),
        "amount": format(sum(decimal.Decimal(a) for _, a, _ in trades), "f"),
        "first": min(t for _, _, t in trades), "last": max(t for _, _, t in trades),
        "lines": len({tuple(r) for r in rows}),
    }))


main()
