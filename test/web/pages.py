"""Walks through the pages in Chromium: what they show, clicks, live updates, errors, accessibility; pictures on request.

usage: pages.py CHROMIUM URL URL_WITH_ROLES URL_WITH_EVERYTHING EXPECTED.json LAND_COMMAND [PICTURES]
"""

import csv
import json
import pathlib
import re
import subprocess
import sys
import urllib.parse

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

chromium, url, roles, shown, expected, land = sys.argv[1:7]
pictures = pathlib.Path(sys.argv[7]) if len(sys.argv) > 7 else None
want = json.loads(pathlib.Path(expected).read_text())
BY_HOUR = "SELECT date_trunc('hour', event_time) AS hour, avg(price) AS price, count(*) AS trades\nFROM unified_events WHERE symbol = 'BTCUSDT' GROUP BY ALL ORDER BY hour"
PAGES = {
    "lake": "/",
    "table": "/table/unified_events",
    "runs": "/runs",
    "run": "/runs/nightly",
    "streaming": "/streaming",
    "quarantine": "/quarantine",
    "gaps": "/gaps",
    "sql": "/sql?" + urllib.parse.urlencode({"sql": BY_HOUR, "chart": "line"}),
    "connect": "/connect",
}
# In pictures the lake stands where a lake would, not in the test's folder.
SETTLE = r"""() => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let t; (t = texts.nextNode());) t.data = t.data.replaceAll(/\/[^\s'"]*\/TestPages\d+\/\d+(\/shown)?/g, '/srv/lake').replaceAll(/\b(port=|127\.0\.0\.1:)\d+/g, '$15432');
}"""
SCREENS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
problems = []


def picture(page, name, scheme, width):
    page.evaluate(SETTLE)
    page.screenshot(path=pictures / f"{name}-{scheme}-{'wide' if width > 600 else 'phone'}.png")


def accessible(page, where):
    found = Axe().run(page)
    for v in found.response["violations"]:
        if v["impact"] in ("serious", "critical"):
            check(False, f"axe: {where}: {v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]}")


def check(ok, what):
    if not ok:
        problems.append(what)
        print("FAIL", what, flush=True)


with sync_playwright() as p:
    browser = p.chromium.launch(
        executable_path=chromium,
        args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    )
    for scheme, width in SCREENS:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda e: check(False, f"script: {e}"))
        page.on("console", lambda m: m.type == "error" and "404" not in m.text and check(False, f"console: {m.text}"))
        page.on("request", lambda r: check(r.url.startswith(shown), f"asks elsewhere: {r.url}"))
        for name, path in PAGES.items():
            page.goto(shown + path)
            page.wait_for_selector("main h1")
            if path.startswith("/sql"):
                page.wait_for_selector("section[aria-label=Chart] canvas")
            accessible(page, f"{path} {scheme} {width}")
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            check(wide <= 0, f"{path} at {width} pixels is {wide} pixels too wide")
            if pictures:
                picture(page, name, scheme, width)
        context.close()

    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    rows = f"{want['rows']:,}"

    # Lake: figures, the flow, and the way to the table.
    page.goto(url)
    page.wait_for_selector("main h1")
    text = page.inner_text("main")
    check(rows in text, f"Lake does not show {rows} rows: {text[:300]}")
    check("upper(trim(symbol))" in text, "Lake does not show the transformations")
    page.click("main a:has-text('unified_events')")
    page.wait_for_url("**/table/unified_events")
    page.wait_for_selector("section[aria-label=Versions]")

    # Table: an older version by its link, with its own rows; the difference; back and forth.
    check(f"version {want['version']} of" in page.inner_text("main"), "Table does not show the newest version")
    page.click("section[aria-label=Versions] tbody tr:last-child a")
    page.wait_for_url("**version=0")
    page.wait_for_selector("text=as of version 0")
    page.wait_for_selector("text=no rows")
    page.go_back()
    page.wait_for_selector(f"text=version {want['version']} of")
    page.click("section[aria-label=Versions] tbody tr:first-child a:has-text('what changed')")
    page.wait_for_selector("[aria-label=difference]")
    check("added" in page.inner_text("[aria-label=difference]"), "the difference names no file")
    page.goto(url + "/table/unified_events?version=99999")
    page.wait_for_selector("[role=alert]")
    check("99999" in page.inner_text("[role=alert]"), "a version that is not there is not named")
    page.goto(url + "/table/nosuch")
    page.wait_for_selector("[role=alert]")
    check("nosuch" in page.inner_text("[role=alert]"), "a table that is not there is not named")

    # Runs: a log is followed while it grows, by a reader who stays at its end; another one is where he has scrolled to.
    page.goto(url + "/runs")
    page.click(f"section[aria-label=History] tr:has-text('{want['held']}') a")
    page.wait_for_url("**/runs/" + want["held"])
    log = page.locator("pre.log")
    page.wait_for_selector("pre.log:has-text('the first part')")
    check("running" in page.inner_text("dl, .figures"), "a run that goes on is not shown as running")
    check(page.locator("button:has-text('Try this run again')").count() == 0, "a run that goes on can be tried again")
    check("the second part" not in log.inner_text(), "the log tells what has not happened")
    pathlib.Path(want["log_more"]).touch()
    page.wait_for_selector("pre.log:has-text('line=99')")
    at_end = "e => e.scrollHeight - e.scrollTop - e.clientHeight < 30 && e.scrollTop > 0"
    check(log.evaluate(at_end), "the end of a log that grows is not in sight")
    check(log.inner_text().count("line=50\n") == 1, "a line of the log is lost or doubled")
    accessible(page, "/runs/ID with a log that grows")

    # A run that failed: its reason and log; it is not tried again beside another run of its task, and it is after that.
    page.goto(url + "/runs/" + want["failed"])
    page.wait_for_selector("section[aria-label=Error]")
    check(pathlib.Path(want["broken"]).name in page.inner_text("section[aria-label=Error]"), "the error does not name the file")
    page.click("button:has-text('Try this run again')")
    page.wait_for_selector("text=under way")
    check("failed" in page.inner_text("dl, .figures"), "a run that was not tried again is not shown as failed")
    pathlib.Path(want["log_end"]).touch()
    page.goto(url + "/runs/" + want["held"])
    page.wait_for_selector(".figures >> text=ok")
    page.wait_for_selector("pre.log:has-text('the run succeeded')")
    pathlib.Path(want["broken"]).unlink()
    page.goto(url + "/runs/" + want["failed"])
    page.click("button:has-text('Try this run again')")
    page.wait_for_selector(".figures >> text=ok")
    page.wait_for_selector("pre.log:has-text('try=2')")
    page.wait_for_selector("section[aria-label=Attempts] tbody tr >> nth=1")
    check(page.locator("section[aria-label=Error]").count() == 0, "the error of an earlier try stays")
    check(page.locator("button:has-text('Try this run again')").count() == 0, "a run that succeeded can be tried again")
    page.goto(url + "/runs/nosuch")
    page.wait_for_selector("[role=alert]")
    check("nosuch" in page.inner_text("[role=alert]"), "a run that is not there is not named")

    # Quarantine: by rule, and tried again.
    page.goto(url + "/quarantine")
    page.wait_for_selector("section[aria-label=Records] table")
    check(want["raw"] in page.inner_text("main"), "Quarantine does not show the raw record")
    page.click("section[aria-label='By rule'] a >> nth=0")
    page.wait_for_url("**rule=**")
    page.click("button:has-text('Try these again')")
    page.wait_for_selector("text=still bad")

    # SQL: an example, completion, a result with its version, the address, an older version, errors, no rows, CSV, cancelling.
    page.goto(url + "/sql")
    page.wait_for_selector("section[aria-label=Examples]")
    page.click("section[aria-label=Examples] a >> nth=0")
    page.wait_for_selector("section[aria-label=Result] td")
    check(page.inner_text("section[aria-label=Result] td") == str(want["rows"]), f"SQL counts {page.inner_text('section[aria-label=Result] td')}")
    text = page.inner_text("section[aria-label=Result]")
    at = re.search(r"unified_events at version (\d+)", text)
    check(at and int(at[1]) >= want["version"], f"SQL does not say which version it read: {text}")
    page.click(".cm-content")
    page.keyboard.press("Control+A")
    page.keyboard.type("SELECT * FROM unif")
    page.wait_for_selector(".cm-tooltip-autocomplete >> text=unified_events")
    accessible(page, "/sql while it completes")
    page.wait_for_timeout(200)  # a completion is not taken by a key that was pressed before it could be seen
    page.keyboard.press("Enter")
    page.keyboard.type(" ev WHERE ev.trade_i")
    page.wait_for_selector(".cm-tooltip-autocomplete >> text=trade_id")
    page.wait_for_timeout(200)
    page.keyboard.press("Enter")
    page.keyboard.type(" = 7")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**sql=SELECT*trade_id*")
    page.wait_for_selector("section[aria-label=Result] >> text=BTCUSDT-7")
    address = page.url
    page.fill("input[name=version]", "0")
    page.click("button:has-text('Run')")
    page.wait_for_url("**version=0**")
    page.wait_for_selector("text=No rows.")
    page.go_back()
    page.wait_for_selector("section[aria-label=Result] >> text=BTCUSDT-7")
    check(page.url == address and page.input_value("input[name=version]") == "", "going back does not bring back the newest version")
    page.goto(address)
    page.wait_for_selector("section[aria-label=Result] >> text=BTCUSDT-7")
    for bad, says in [("SELEC 1", "syntax error"), ("SELECT * FROM nosuch", "nosuch"), ("DROP TABLE unified_events", "SELECT"), ("SELECT * FROM read_csv('/etc/passwd')", "not allowed"), ("SELECT 1; SELECT 2", "one statement")]:
        page.goto(url + "/sql?" + urllib.parse.urlencode({"sql": bad}))
        page.wait_for_selector("main [role=alert]")
        check(says in page.inner_text("main [role=alert]"), f"{bad}: {page.inner_text('main [role=alert]')}")
    accessible(page, "/sql with an error")
    page.goto(url + "/sql?" + urllib.parse.urlencode({"sql": "SELECT trade_id, symbol, NULL AS nothing FROM unified_events ORDER BY trade_id", "chart": "bars"}))
    page.wait_for_selector("text=1,000 rows, the first of more")
    page.wait_for_selector("section[aria-label=Chart] canvas")
    page.select_option("select[name=y]", "trade_id")
    page.select_option("select[name=x]", "symbol")
    check("x=symbol" in page.url, "the chart does not stand in the address")
    with page.expect_download() as download:
        page.click("a.download")
    with open(download.value.path(), newline="") as f:
        lines = list(csv.reader(f))
    check(lines[0] == ["trade_id", "symbol", "nothing"] and lines[1] == ["1", "BTCUSDT", ""] and len(lines) == want["rows"] + 1, f"CSV has {len(lines)} lines: {lines[:2]}")
    page.goto(url + "/sql?" + urllib.parse.urlencode({"sql": "SELECT sum(a.i * b.i) FROM range(100000) AS a(i), range(10000000) AS b(i)"}))
    page.wait_for_selector("text=running")
    page.click("button:has-text('Cancel')")
    page.wait_for_selector("text=Cancelled.")
    page.goto(url + "/sql?" + urllib.parse.urlencode({"sql": "SELECT 41 + 1 AS answer"}))
    page.wait_for_selector("section[aria-label=Result] >> text=42")

    # A lake with roles: one signs in, a role that sees a view has the page SQL with that view, and signs out.
    page.goto(roles + "/quarantine")
    page.wait_for_selector("input[name=password]")
    accessible(page, "the login")
    if pictures:
        for scheme, width in SCREENS:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            picture(page, "login", scheme, width)
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 1280, "height": 900})
    page.fill("input[name=name]", "viewer")
    page.fill("input[name=password]", "wrong")
    page.click("main button:has-text('Sign in')")
    page.wait_for_selector("text=do not belong together")
    accessible(page, "a failed login")
    page.fill("input[name=password]", "correct horse")
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/sql")
    page.wait_for_selector("section[aria-label=Examples]")
    check(page.locator("nav a:visible").all_inner_texts() == ["SQL"], f"a role that sees a view is shown {page.locator('nav a:visible').all_inner_texts()}")
    page.click("summary")
    text = page.inner_text("main")
    check("prices" in text and "unified_events" not in text, f"the role is shown {text}")
    page.goto(roles + "/sql?" + urllib.parse.urlencode({"sql": "SELECT count(*) AS n FROM prices"}))
    page.wait_for_selector("section[aria-label=Result] td")
    check(page.inner_text("section[aria-label=Result] td") == str(want["rows"]), "the view does not have its rows")
    page.goto(roles + "/sql?" + urllib.parse.urlencode({"sql": "SELECT count(*) AS n FROM unified_events"}))
    page.wait_for_selector("text=does not exist")
    check(page.evaluate("document.cookie") == "", "scripts see the cookie")
    page.click("#who button")
    page.wait_for_selector("input[name=password]")
    page.fill("input[name=name]", "all")
    page.fill("input[name=password]", "battery staple")
    page.press("input[name=password]", "Enter")
    page.wait_for_selector("#who >> text=all")
    page.goto(roles + "/quarantine")
    page.wait_for_selector("section[aria-label=Records]")
    check(page.locator("button:has-text('Try these again')").count() == 0, "a reader is offered a change")

    # Keyboard: the first stop skips to the content, and a page can be reached without a mouse.
    page.goto(url)
    page.wait_for_selector("main h1")
    page.keyboard.press("Tab")
    check(page.evaluate("document.activeElement.className") == "skip", "the first stop of the keyboard is not the skip link")
    page.focus("nav a[href='/runs']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs")
    page.wait_for_selector("section[aria-label=History]")
    page.goto(url + "/streaming")
    page.wait_for_selector("text=Nothing has been read yet")  # the empty state

    # Live: a file arrives while the page is open.
    page.goto(url)
    page.wait_for_selector("main h1")
    subprocess.run(land, shell=True, check=True, stdout=subprocess.DEVNULL)
    page.wait_for_selector(f"text={want['rows'] + want['more']:,}")

    # Without the lake the page says so and keeps what it shows.
    page.route("**/api/**", lambda r: r.abort())
    page.wait_for_selector("#state.bad")
    check(f"{want['rows'] + want['more']:,}" in page.inner_text("main"), "what was shown is gone when the lake does not answer")
    browser.close()

print(f"{len(PAGES)} pages, {len(problems)} problems")
sys.exit(1 if problems else 0)
