# %% [markdown]
# # {{.Table}}
#
# History and live events are one Delta Lake table, which any reader of the format opens while it is being written.
#
# This notebook reads it with `deltalake`, DuckDB and, where `cauce serve` runs, over PostgreSQL's protocol:
# `pip install deltalake duckdb pandas matplotlib "psycopg[binary]"`.

# %%
TABLE = {{py .Location}}  # the folder or bucket of the table
NAME = {{py .Table}}
POSTGRES = {{py .DSN}}  # of cauce serve
ROWS = {{py .Rows}}  # what counts as a row; rows that stand for deletions do not
TIME = {{py .Time}}  # the column that says when something happened; None: there is none
VALUE = {{py .Value}}  # a number that is plotted over time; None: there is none

# %% [markdown]
# ## With deltalake
#
# An open table is one version of it, however much is written meanwhile.

# %%
import datetime

import duckdb
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder


def query(table, sql):
    return pa.table(QueryBuilder().register("t", table).execute(sql).read_all())


# deltalake numbers the entries of a history from the newest commit back, so one that is made meanwhile would shift them.
for _ in range(100):
    table = DeltaTable(TABLE)
    version, history = table.version(), table.history(limit=10)
    if DeltaTable(TABLE).version() == version:
        break
count = query(table, f"SELECT count(*) AS n FROM t WHERE {ROWS}")["n"][0].as_py()
print(f"version {version}: {count:,} rows")

# %% [markdown]
# ## With DuckDB
#
# DuckDB reads what deltalake read, without a copy. `SELECT … FROM delta_scan('…')` does it alone, with its extension `delta`.

# %%
lake = query(table, f"SELECT * FROM t WHERE {ROWS}")
by_origin = duckdb.sql(
    "SELECT CASE WHEN _origin LIKE 'f:%' THEN 'history' ELSE 'live' END AS origin, count(*) AS n FROM lake GROUP BY 1 ORDER BY 1"
).df()
assert by_origin["n"].sum() == count, "both readers count the same rows"
by_origin

# %% [markdown]
# ## Time travel
#
# What earlier versions held, and what the newest one added to the one before.

# %%
travel = pd.DataFrame(
    [
        {
            "version": h["version"],
            "at": datetime.datetime.fromtimestamp(h["timestamp"] / 1000, datetime.UTC),
            "operation": h.get("operation"),
            "rows": query(DeltaTable(TABLE, version=h["version"]), f"SELECT count(*) AS n FROM t WHERE {ROWS}")["n"][0].as_py(),
        }
        for h in history
    ]
).sort_values("version")
travel["difference"] = travel["rows"].diff().fillna(0).astype(int)
travel

# %% [markdown]
# ## Over PostgreSQL's protocol
#
# The same version, asked of `cauce serve`.

# %%
served = None
try:
    import psycopg

    with psycopg.connect(POSTGRES, connect_timeout=5) as connection:
        served = connection.execute(f'SELECT count(*) FROM "{NAME}" AT (VERSION => {version})').fetchone()[0]
except ImportError:
    print('psycopg is not installed: pip install "psycopg[binary]"')
except psycopg.OperationalError as e:
    print(f"cauce serve does not answer ({str(e).strip()}); start it beside the lake file")
if served is not None:
    assert served == count, f"over PostgreSQL {served} rows, by deltalake {count}"
    print(f"the same {served:,} rows")

# %% [markdown]
# ## History and live events in one picture

# %%
%matplotlib inline
import matplotlib.pyplot as plt

if TIME is None:
    by_origin.plot.bar(x="origin", y="n", legend=False, title=NAME)
else:
    number = f'"{VALUE}"::DOUBLE' if VALUE else "1"
    buckets = duckdb.sql(f"""
        WITH e AS (
            SELECT "{TIME}" AS moment, {number} AS value,
                   CASE WHEN _origin LIKE 'f:%' THEN 'history' ELSE 'live' END AS origin
            FROM lake WHERE "{TIME}" IS NOT NULL),
        span AS (SELECT min(moment) AS lo, greatest(epoch(max(moment)) - epoch(min(moment)), 1) / 60 AS width FROM e)
        SELECT lo + to_seconds(width * floor((epoch(moment) - epoch(lo)) / width)) AS bucket, origin, count(*) AS n, avg(value) AS value
        FROM e, span GROUP BY ALL ORDER BY 1""").df()
    figure, axes = plt.subplots(2 if VALUE else 1, 1, figsize=(10, 6), sharex=True, squeeze=False)
    for origin, part in buckets.groupby("origin"):
        axes[0][0].scatter(part["bucket"], part["n"], label=origin, s=14)
        if VALUE:
            axes[1][0].scatter(part["bucket"], part["value"], label=origin, s=14)
    axes[0][0].set_ylabel("rows")
    axes[0][0].legend()
    if VALUE:
        axes[1][0].set_ylabel(f"average of {VALUE}")
    figure.suptitle(f"{NAME}, version {version}")
plt.show()
