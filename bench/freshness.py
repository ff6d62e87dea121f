"""How long it takes from producing an event until a plain Delta reader sees it: freshness.py TABLE PRODUCED STOP

Polls the table's log with deltalake, as any reader that wants to be up to date does, and notes when it has each version,
until the file STOP exists. Then it reads from the data files that each merging commit added which messages (partition and
offset) came with it, and joins them with PRODUCED, lines of "partition offset nanoseconds". Prints one JSON object.
"""
import json
import os
import re
import sys
import time

import numpy as np
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

table, produced, stop = sys.argv[1:4]
dt = DeltaTable(table)
first, seen, raced = dt.version(), {}, 0
print("ready", flush=True)
while True:
    ended = os.path.exists(stop)
    try:
        dt.update_incremental()
    except DeltaError as e:
        # delta-kernel lists the folder without a lock and fails when it sees a checksum before its commit; so it asks again.
        if "CRC file version" not in str(e):
            raise
        raced += 1
    now, version = time.time_ns(), dt.version()
    for v in range(max([first, *seen]) + 1, version + 1):
        seen[v] = now
    if ended:
        break
    time.sleep(0.005)

sent = np.loadtxt(produced, dtype=np.int64, ndmin=2)
at = {(p, o): ns for p, o, ns in sent.tolist()}
latencies, late, optimized = [], 0, 0
for v, now in seen.items():
    with open(os.path.join(table, "_delta_log", f"{v:020}.json")) as f:
        actions = [json.loads(line) for line in f]
    operation = next(a["commitInfo"]["operation"] for a in actions if "commitInfo" in a)
    optimized += operation == "OPTIMIZE"
    if operation != "MERGE":
        continue
    for a in actions:
        if "add" not in a or not a["add"]["dataChange"]:
            continue
        path = os.path.join(table, re.sub("%([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), a["add"]["path"]))
        rows = pq.ParquetFile(path).read(columns=["_origin", "_position"]).to_pydict()
        for origin, position in zip(rows["_origin"], rows["_position"]):
            key = (int(origin.rsplit("/", 1)[1]) if origin.startswith("kafka:") else -1, position)
            if key in at:  # a vector's file comes again with the rows that it had
                latencies.append(now - at.pop(key))
ms = np.sort(np.array(latencies)) / 1e6
print(json.dumps({
    "sent": len(sent), "seen": len(ms), "versions": len(seen), "optimized": optimized, "raced": raced,
    **{f"p{q}": float(np.percentile(ms, q)) for q in (50, 90, 99)}, "max": float(ms[-1]),
}))
