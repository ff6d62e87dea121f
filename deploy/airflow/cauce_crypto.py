"""The batch of a Cauce lake, every time that its lake file says (schedule.batch).

new_files lists what has not been read yet, batch reads it into the tables, checks looks at the result, publish tells
Airflow which tables have changed, and optimize packs small files.

Rendered by `cauce airflow render` for Airflow 3.3 or newer: change the lake file and render again rather than this file.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset, BaseOperator, BaseSensorOperator, CronDataIntervalTimetable, PokeReturnValue
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException

DAG_ID = "cauce_crypto"
CAUCE = "cauce"  # the program, on every worker
LAKE = "/opt/cauce/crypto/lake.yaml"  # the lake file, on every worker; beside it .cauce keeps history and locks, so it should be one folder for all
SOURCES = []  # of files; none: all
FILES = ["history"]  # the sources that new_files looks at: those of streams, and their tables, are no matter of the batch
BATCH = ["run", "batch"]
TABLES = ["unified_events"]
CRON, TIMEZONE = "0 1 * * *", "UTC"
RETRIES, BACKOFF, TIMEOUT = 3, timedelta(seconds=30), timedelta(seconds=86400)
WAIT = timedelta(seconds=0)  # how long new_files waits for a file; then the run goes on and finds nothing
QUARANTINE_MAX = 0.1  # of the rows read; more fails the run

# Exit codes that trying again cannot mend: bad configuration, data that broke a rule, a gap in a source.
FINAL = {2, 3, 4}


class CauceOperator(BaseOperator):
    """Runs one command of Cauce and returns its report. Its log goes to the task's."""

    template_fields = ("arguments",)
    process = None

    def __init__(self, *, arguments=(), **kwargs):
        super().__init__(**kwargs)
        self.arguments = list(arguments)

    def execute(self, context):
        return self.cauce(self.arguments)

    def cauce(self, arguments):
        command = [CAUCE, *arguments, "--lake", LAKE, "--json"]
        self.log.info("running %s", shlex.join(command))
        # A session of its own: a signal to this task's group reaches the program once, by on_kill.
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            output, _ = self.process.communicate()
        except BaseException:
            self.on_kill()
            raise
        code = self.process.returncode
        try:
            report = json.loads(output)
        except ValueError:
            report = {}
        if code == 0:
            self.log.info("report: %s", output.strip())
            return report
        message = f"cauce {arguments[0]} ended with {code}: {report.get('error') or output.strip() or 'see the log above'}"
        if code in FINAL:
            raise AirflowFailException(message)  # no retry
        raise AirflowException(message)

    def on_kill(self):
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.terminate()  # it stops where it safely can
        timer = threading.Timer(60, process.kill)
        timer.daemon = True
        timer.start()


class NewFilesSensor(BaseSensorOperator):
    """Lists the files that a batch would read, and waits for one as long as WAIT says.

    Finding none is no failure, and nothing is skipped: a run that failed and is cleared must come to its checks again.
    """

    def __init__(self, **kwargs):
        super().__init__(mode="reschedule", poke_interval=60, timeout=WAIT, **kwargs)
        self.lister = CauceOperator.cauce.__get__(self)
        self.process = None

    def poke(self, context):
        plan = self.lister(["plan", "--no-lag", *FILES])  # a gap in a stream is no reason to leave files unread
        files = [f["file"] for s in plan["sources"] for f in s.get("files") or [] if f["reason"] != "copy"]
        self.log.info("%d new files: %s", len(files), ", ".join(files[:20]))
        # A later try, and a cleared run, has waited before.
        done = bool(files) or not WAIT or context["ti"].try_number > 1
        return PokeReturnValue(is_done=done, xcom_value=files[:1000])

    def execute(self, context):
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            self.log.info("no file has come")
            return []

    on_kill = CauceOperator.on_kill


class ChecksOperator(CauceOperator):
    """Fails, without a retry, where the batch's report does not add up or does not fit the tables."""

    def execute(self, context):
        report = context["ti"].xcom_pull(task_ids="batch")
        problems = []
        fates = ("inserted", "updated", "unchanged", "quarantined", "filtered", "deleted")
        counted = sum(report[f"rows_{fate}"] for fate in fates)
        if report["rows_read"] != counted:
            problems.append(f"{report['rows_read']} rows were read, and the fates of {counted} are known")
        if report["rows_quarantined"] > QUARANTINE_MAX * report["rows_read"]:
            problems.append(
                f"{report['rows_quarantined']} of {report['rows_read']} rows are in quarantine, more than {QUARANTINE_MAX:.0%}; "
                "cauce quarantine show tells why"
            )
        tables = {t["name"]: t for t in self.cauce(["status", "--no-lag"])["tables"]}
        for name, part in (report.get("tables") or {}).items():
            if tables[name]["version"] < part["version"]:
                problems.append(f"table {name} is at version {tables[name]['version']}, and the batch had left it at {part['version']}")
        if max(tables[name]["version"] for name in TABLES) < report["version"]:
            problems.append(f"no table is at version {report['version']}, at which the batch had left one")
        count = 'SELECT count(*) AS n FROM "{}"'
        rows = {name: self.cauce(["query", count.format(name)])["rows"][0]["n"] for name in TABLES if tables[name]["exists"]}
        if report["rows_inserted"] and not any(rows.values()):
            problems.append(f"{report['rows_inserted']} rows were inserted, and every table is empty")
        if problems:
            raise AirflowFailException("; ".join(problems))
        return rows


class PublishOperator(BaseOperator):
    """Tells Airflow that the tables have changed; skipped where they have not."""

    def execute(self, context):
        report = context["ti"].xcom_pull(task_ids="batch")
        changed = sum(report.get(f"rows_{fate}", 0) for fate in ("inserted", "updated", "deleted", "removed"))
        # An earlier try may have committed rows that the last one's report does not count.
        if not changed and report["attempts"] == 1 and context["ti"].try_number == 1:
            raise AirflowSkipException("no table has changed")
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {"version": report["version"], "rows_changed": changed, "run": context["run_id"]}


def tell(task, run_id, attempts, error):
    """Tells whoever the lake file names (schedule.alerts)."""
    command = [CAUCE, "alert", "--lake", LAKE, "--task", task, "--run-id", run_id, "--attempts", str(attempts), "--error", error[:2000]]
    subprocess.run(command, stdin=subprocess.DEVNULL, timeout=180, check=False)  # what goes wrong stands in the log


def alert(context):
    """Tells that a task has failed for good."""
    ti = context["ti"]
    tell(f"{ti.dag_id}.{ti.task_id}", ti.run_id, ti.try_number, str(context.get("exception")))


def alert_of_run(context):
    """Tells that a run has failed without a task that has: its time is over, and Airflow skips what is left of it."""
    if context.get("reason") != "task_failure":
        tell(DAG_ID, context["run_id"], 0, f"the run has failed: {context.get('reason')}; it may take {RUN_TIMEOUT}")


# The longest way through: four tasks after each other, each with all its tries and the pauses between them.
RETRY_PAUSE_MAX = timedelta(hours=1)
PAUSES = sum((min(2 * BACKOFF * 2 ** min(n, 20), RETRY_PAUSE_MAX) for n in range(RETRIES)), timedelta())  # Airflow draws up to twice the pause
RUN_TIMEOUT = WAIT + 4 * ((RETRIES + 1) * TIMEOUT + PAUSES)


with DAG(
    dag_id=DAG_ID,
    # The interval is the day before; a plain cron string would make it empty in Airflow 3.
    schedule=CronDataIntervalTimetable(CRON, timezone=TIMEZONE),
    start_date=pendulum.datetime(2024, 1, 1, tz=TIMEZONE),
    catchup=False,  # one run reads whatever has come
    max_active_runs=1,
    dagrun_timeout=RUN_TIMEOUT,
    on_failure_callback=alert_of_run,
    default_args={
        "retries": RETRIES,
        "retry_delay": BACKOFF,
        "retry_exponential_backoff": 2,
        "max_retry_delay": RETRY_PAUSE_MAX,
        "execution_timeout": TIMEOUT,
        "on_failure_callback": alert,
    },
    tags=["cauce"],
    doc_md=__doc__,
) as dag:
    new_files = NewFilesSensor(task_id="new_files")
    # What has succeeded under this id is not repeated: clearing, rerunning or backfilling an interval changes nothing.
    run_id = "{{ dag.dag_id }}.{{ (logical_date | ts) if logical_date else run_id }}"
    batch = CauceOperator(task_id="batch", arguments=[*BATCH, "--run-id", run_id])
    checks = ChecksOperator(task_id="checks")
    publish = PublishOperator(task_id="publish", outlets=[Asset(name=f"{DAG_ID}.{t}", uri=f"x-cauce://{DAG_ID}/{t}") for t in TABLES])
    optimize = CauceOperator(task_id="optimize", arguments=["run", "maintenance", *(TABLES if SOURCES else [])])

    new_files >> batch >> checks >> [publish, optimize]
