"""Walks through the pages in Chromium: what they show, clicks, live updates, errors, accessibility; pictures on request.

usage: pages.py CHROMIUM URL EXPECTED.json LAND_COMMAND [PICTURES]
"""

import json
import pathlib
import subprocess
import sys

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

chromium, url, expected, land = sys.argv[1:5]
pictures = pathlib.Path(sys.argv[5]) if len(sys.argv) > 5 else None
want = json.loads(pathlib.Path(expected).read_text())
PAGES = ["/", "/table/unified_events", "/runs", "/streaming", "/quarantine", "/gaps", "/connect"]
problems = []


def check(ok, what):
    if not ok:
        problems.append(what)
        print("FAIL", what, flush=True)


with sync_playwright() as p:
    browser = p.chromium.launch(
        executable_path=chromium,
        args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    )
    for scheme, width in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda e: check(False, f"script: {e}"))
        page.on("console", lambda m: m.type == "error" and "404" not in m.text and check(False, f"console: {m.text}"))
        page.on("request", lambda r: check(r.url.startswith(url), f"asks elsewhere: {r.url}"))
        for path in PAGES:
            page.goto(url + path)
            page.wait_for_selector("main h1")
            found = Axe().run(page)
            for v in found.response["violations"]:
                if v["impact"] in ("serious", "critical"):
                    check(False, f"axe: {path} {scheme} {width}: {v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]}")
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            check(wide <= 0, f"{path} at {width} pixels is {wide} pixels too wide")
            if pictures:
                name = path.strip("/").split("/")[0] or "lake"
                page.screenshot(path=pictures / f"{name}-{scheme}-{'wide' if width > 600 else 'phone'}.png")
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

    # Quarantine: by rule, and tried again.
    page.goto(url + "/quarantine")
    page.wait_for_selector("section[aria-label=Records] table")
    check(want["raw"] in page.inner_text("main"), "Quarantine does not show the raw record")
    page.click("section[aria-label='By rule'] a >> nth=0")
    page.wait_for_url("**rule=**")
    page.click("button:has-text('Try these again')")
    page.wait_for_selector("text=still bad")

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
