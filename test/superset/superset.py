"""Makes a dashboard in Apache Superset through its REST API, over a lake that a stream writes, and refreshes it twice.

usage: superset.py SUPERSET HOME POSTGRES_PORT QUERY_PROGRAM LAKE_FILE [CHROMIUM [PICTURES]]

SUPERSET is its program, HOME a folder for its own data. It prints one JSON object: what each refresh showed, and what
`cauce query` counts at the versions that were shown.
"""

import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

superset, home, pg_port, cauce, lake = sys.argv[1:6]
chromium = sys.argv[6] if len(sys.argv) > 6 else None
pictures = pathlib.Path(sys.argv[7]) if len(sys.argv) > 7 else None
home = pathlib.Path(home)
PASSWORD = secrets.token_urlsafe(16)
ROWS = """SELECT e.*, v.version AS table_version FROM unified_events AS e
CROSS JOIN (SELECT max(version) AS version FROM lake.versions WHERE "table" = 'unified_events') AS v"""


def log(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


(home / "superset_config.py").write_text(
    f"""SECRET_KEY = {secrets.token_urlsafe(42)!r}
SQLALCHEMY_DATABASE_URI = 'sqlite:///{home}/superset.db?check_same_thread=false'
WTF_CSRF_ENABLED = False
TALISMAN_ENABLED = False
LOG_LEVEL = 'WARNING'
FAB_ADD_SECURITY_API = False
"""
)
env = {**os.environ, "SUPERSET_HOME": str(home), "SUPERSET_CONFIG_PATH": str(home / "superset_config.py"), "FLASK_APP": "superset", "HOME": str(home)}


def run(*args):
    began = time.time()
    done = subprocess.run([superset, *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    if done.returncode:
        sys.exit(f"superset {args[0]}: {done.stdout[-3000:]}")
    log(f"superset {args[0]}: {time.time() - began:.0f} s")


run("db", "upgrade")
run("fab", "create-admin", "--username", "admin", "--firstname", "A", "--lastname", "B", "--email", "admin@example.org", "--password", PASSWORD)
run("init")
port = free_port()
base = f"http://127.0.0.1:{port}"
server_log = open(home / "server.log", "w")
server = subprocess.Popen(
    [str(pathlib.Path(superset).parent / "gunicorn"), "--workers", "1", "--threads", "4", "--worker-class", "gthread", "--timeout", "300", "--bind", f"127.0.0.1:{port}", "superset.app:create_app()"],
    env=env, cwd=home, stdout=server_log, stderr=subprocess.STDOUT,
)
token = ""


def api(method, path, body=None):
    r = urllib.request.Request(base + path, method=method, data=None if body is None else json.dumps(body).encode(), headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})})
    try:
        with urllib.request.urlopen(r, timeout=300) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as e:
        sys.exit(f"{method} {path}: {e.code} {e.read().decode()[:2000]}")


def counts(version):
    out = subprocess.run([cauce, "query", "SELECT source, event_date, count(*) AS n FROM unified_events GROUP BY ALL", "--as-of", str(version), "--json", "--lake", lake], check=True, stdout=subprocess.PIPE, text=True)
    return {f"{r['source']} {r['event_date']}": r["n"] for r in json.loads(out.stdout)["rows"]}


def context(dataset, queries):
    return {"datasource": {"id": dataset, "type": "table"}, "force": True, "queries": queries, "result_format": "json", "result_type": "full"}


try:
    for _ in range(600):
        try:
            urllib.request.urlopen(base + "/health", timeout=5).read()
            break
        except OSError:
            if server.poll() is not None:
                sys.exit("superset ended: " + (home / "server.log").read_text()[-3000:])
            time.sleep(0.5)
    log("superset answers")
    token = api("POST", "/api/v1/security/login", {"username": "admin", "password": PASSWORD, "provider": "db", "refresh": False})["access_token"]
    database = api("POST", "/api/v1/database/", {"database_name": "lake", "sqlalchemy_uri": f"postgresql+psycopg2://reader@127.0.0.1:{pg_port}/lake", "expose_in_sqllab": True})["id"]
    dataset = api("POST", "/api/v1/dataset/", {"database": database, "schema": "public", "table_name": "events", "sql": ROWS})["id"]
    physical = api("POST", "/api/v1/dataset/", {"database": database, "schema": "public", "table_name": "unified_events"})["id"]
    columns = {c["column_name"] for c in api("GET", f"/api/v1/dataset/{physical}")["result"]["columns"]}

    def metric(sql, label):
        return {"expressionType": "SQL", "sqlExpression": sql, "label": label, "optionName": label}

    rows_metric, price, age = metric("count(*)", "rows"), metric("avg(price) FILTER (WHERE symbol = 'BTCUSDT')", "price"), metric("extract(epoch FROM now() - max(event_time))", "seconds")
    charts = []
    for name, kind, form in [
        ("Rows by source and day", "echarts_timeseries_bar", {"x_axis": "event_date", "time_grain_sqla": "P1D", "metrics": [rows_metric], "groupby": ["source"], "stack": "Stack", "show_legend": True, "x_axis_time_format": "%Y-%m-%d", "row_limit": 1000}),
        ("Price by minute over the seam of history and stream", "echarts_timeseries_line", {"x_axis": "event_time", "time_grain_sqla": "PT1M", "metrics": [price], "groupby": ["source"], "show_legend": True, "truncateYAxis": True, "y_axis_bounds": [None, None], "row_limit": 10000}),
        ("Age of the newest event, in seconds", "big_number_total", {"metric": age, "y_axis_format": ",.1f"}),
    ]:
        form = {"viz_type": kind, "datasource": f"{dataset}__table", "adhoc_filters": [], **form}
        charts.append(api("POST", "/api/v1/chart/", {"slice_name": name, "viz_type": kind, "datasource_id": dataset, "datasource_type": "table", "params": json.dumps(form)})["id"])
    place = {"DASHBOARD_VERSION_KEY": "v2", "ROOT_ID": {"type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"]}, "GRID_ID": {"type": "GRID", "id": "GRID_ID", "children": ["ROW-1", "ROW-2"], "parents": ["ROOT_ID"]}}
    for row, members in {"ROW-1": [(0, 8), (2, 4)], "ROW-2": [(1, 12)]}.items():
        place[row] = {"type": "ROW", "id": row, "children": [f"CHART-{i}" for i, _ in members], "parents": ["ROOT_ID", "GRID_ID"], "meta": {"background": "BACKGROUND_TRANSPARENT"}}
        for i, width in members:
            place[f"CHART-{i}"] = {"type": "CHART", "id": f"CHART-{i}", "children": [], "parents": ["ROOT_ID", "GRID_ID", row], "meta": {"chartId": charts[i], "width": width, "height": 48}}
    dashboard = api("POST", "/api/v1/dashboard/", {"dashboard_title": "History and the last second", "published": True, "position_json": json.dumps(place)})["id"]
    for c in charts:
        api("PUT", f"/api/v1/chart/{c}", {"dashboards": [dashboard]})

    def refresh():
        """The numbers of the three charts, asked for anew, with the version of the table that each statement read."""
        version = metric("max(table_version)", "version")
        grain = {"expressionType": "SQL", "columnType": "BASE_AXIS", "timeGrain": None}
        queries = [
            {"columns": [{**grain, "sqlExpression": "event_date", "label": "day", "timeGrain": "P1D"}, "source"], "metrics": [rows_metric, version], "filters": [], "row_limit": 1000},
            {"columns": [{**grain, "sqlExpression": "event_time", "label": "minute", "timeGrain": "PT1M"}, "source"], "metrics": [price], "filters": [], "row_limit": 10000},
            {"columns": [], "metrics": [age], "filters": [], "row_limit": 1},
        ]
        bars, lines, newest = (q["data"] for q in api("POST", "/api/v1/chart/data", context(dataset, queries))["result"])

        def day(v):
            return time.strftime("%Y-%m-%d", time.gmtime(v / 1000)) if isinstance(v, (int, float)) else str(v)[:10]

        shown = int(bars[0]["version"])
        return {
            "version": shown, "rows": {f"{r['source']} {day(r['day'])}": int(r["rows"]) for r in bars}, "query": counts(shown),
            "minutes": {s: sum(1 for r in lines if r["source"] == s) for s in {r["source"] for r in lines}}, "age": float(newest[0]["seconds"]),
        }

    def picture(name):
        if not pictures:
            return
        from playwright.sync_api import sync_playwright

        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.set_default_timeout(180_000)
            page.goto(base + "/login/")
            page.fill("input[name=username], #username", "admin")
            page.fill("input[name=password], #password", PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_url(lambda u: "/login" not in u)
            page.goto(base + f"/superset/dashboard/{dashboard}/?standalone=1")
            page.wait_for_selector(".superset-legacy-chart-big-number, .header-line")
            page.wait_for_function("document.querySelectorAll('.dashboard canvas, .dashboard-grid canvas').length >= 2")
            page.wait_for_function("document.querySelectorAll('.loading').length === 0")
            page.wait_for_timeout(3000)
            page.screenshot(path=pictures / name)
            browser.close()
        log(f"picture {name}")

    first = refresh()
    picture("superset-before.png")
    deadline = time.time() + 120
    while True:
        second = refresh()
        if sum(second["rows"].values()) > sum(first["rows"].values()) or time.time() > deadline:
            break
        time.sleep(1)
    picture("superset-after.png")
    print(json.dumps({"columns": sorted(columns), "refreshes": [first, second]}))
finally:
    server.terminate()
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
