"""Reads a share as its recipients do, with the client delta-sharing.

client.py PROFILE TABLE   a line of JSON at a time on standard input, each answered by one on standard output:
    {"do": "tables"}                                                 {"tables": [NAME, …]}
    {"do": "version"}                                                {"version": N}
    {"do": "rows", "out": FILE.csv, "delta": true|false|null, …}     {"rows": N}; further keys go to load_as_pandas
    {"do": "changes", "out": FILE.csv, "delta": true|false, …}       {"rows": N}; further keys go to load_table_changes_as_pandas
What fails is answered by {"failed": TEXT}.
"""

import contextlib
import json
import sys

import delta_sharing

profile, name = sys.argv[1], sys.argv[2]
url = f"{profile}#{name}"


def save(frame, out):
    frame.to_csv(out, index=False)
    return {"rows": len(frame)}


def answer(cmd):
    do, out, use = cmd.pop("do"), cmd.pop("out", None), cmd.pop("delta", None)
    if do == "tables":
        return {"tables": sorted(t.name for t in delta_sharing.SharingClient(profile).list_all_tables())}
    if do == "version":
        return {"version": delta_sharing.get_table_version(url)}
    if do == "rows":
        return save(delta_sharing.load_as_pandas(url, use_delta_format=use, **cmd), out)
    if do == "changes":
        return save(delta_sharing.load_table_changes_as_pandas(url, use_delta_format=use, **cmd), out)
    raise ValueError(do)


for line in sys.stdin:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the client prints how far it is
            result = answer(json.loads(line))
    except Exception as e:
        result = {"failed": f"{type(e).__name__}: {e}"}
    print(json.dumps(result), flush=True)
