"""Runs command lines of Airflow, one a line of standard input (a JSON list of words), in one process: to start it takes
seconds. For each it prints one JSON line: how it ended, and how the tasks of the newest run of the DAG stand.

["next", FILE, END] asks the timetable of a DAG's file instead for the run after an interval of one day that ends at END.
["over", FILE, REASON] says how long a run of a DAG's file may take, and does what is done when one has failed for a reason.
"""

import contextlib
import json
import os
import sqlite3
import sys

out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what Airflow prints is for people


def newest(dag_id):
    with contextlib.closing(sqlite3.connect(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///"))) as db:
        run = db.execute("SELECT run_id, state FROM dag_run WHERE dag_id = ? ORDER BY id DESC LIMIT 1", (dag_id,)).fetchone()
        if run is None:
            return {}
        rows = db.execute("SELECT task_id, state, try_number FROM task_instance WHERE dag_id = ? AND run_id = ?", (dag_id, run[0]))
        events = db.execute("SELECT count(*) FROM asset_event WHERE source_dag_id = ? AND source_run_id = ?", (dag_id, run[0])).fetchone()
        return {
            "run": run[0],
            "state": run[1],
            "tasks": {task: {"state": state, "tries": tries} for task, state, tries in rows},
            "events": events[0],
        }


def load(file):
    names = {"__name__": "dag"}
    with open(file) as f:
        exec(compile(f.read(), file, "exec"), names)
    return names["dag"]


def run_over(file, reason):
    dag = load(file)
    dag.on_failure_callback({"dag": dag, "run_id": "scheduled__2024-08-20", "reason": reason})
    return {"seconds": dag.dagrun_timeout.total_seconds()}


def next_run(file, end):
    import datetime

    import pendulum
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import DataInterval, TimeRestriction

    end = pendulum.parse(end)
    info = coerce_to_core_timetable(load(file).timetable).next_dagrun_info(
        last_automated_data_interval=DataInterval(end - datetime.timedelta(days=1), end),
        restriction=TimeRestriction(earliest=None, latest=None, catchup=True),
    )
    return {"run_after": info.run_after.isoformat(), "start": info.data_interval.start.isoformat(), "end": info.data_interval.end.isoformat()}


def main():
    from airflow.__main__ import main as airflow

    for line in sys.stdin:
        words = json.loads(line)
        answer = {"error": ""}
        if words[0] == "next":
            answer |= next_run(*words[1:])
        elif words[0] == "over":
            answer |= run_over(*words[1:])
        else:
            sys.argv = ["airflow", *words]
            try:
                airflow()
            except SystemExit as e:
                answer["error"] = "" if e.code in (None, 0) else str(e.code)
            except Exception as e:
                answer["error"] = repr(e)
            if words[:2] == ["dags", "test"]:
                answer |= newest(words[2])
        print(json.dumps(answer), file=out, flush=True)


main()
