"""The report of 20,000 features: what it takes to write it, and to open and use it in headless Chromium.

A small fit, whose features are repeated. Opening is from the address to the moment at which all figures are drawn, in a
browser that has started; `--open FILE` opens a report that is there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from _browser import CHROMIUM, Page, browser
from plots import repeated

import dream_sc as ds

MEGABYTES, SECONDS = 15.0, 3.0  # bars
N_USES = 50  # clicks, and searches
CLICK = """(() => {
  const rows = [...document.querySelectorAll("#table tbody tr")], row = rows[%d %% rows.length];
  const name = row.querySelector("button").textContent;
  row.querySelector("button").click();
  const title = document.getElementById("curve-title").textContent, curve = document.querySelector("#curve svg");
  document.getElementById("forward").click();
  return title === name && curve.getAttribute("aria-label").startsWith(`${name}: `);
})()"""
SEARCH = """(() => {
  const box = document.getElementById("search");
  box.value = %r;
  box.dispatchEvent(new Event("input"));
  const names = [...document.querySelectorAll("#table tbody td.name")].map((cell) => cell.textContent);
  return names.every((name) => name.includes(%r));
})()"""


async def opened(path: Path) -> dict[str, Any]:
    """Open a report in a fresh browser."""
    start = time.perf_counter()
    async with browser() as page:
        begun = time.perf_counter() - start
        await page.command("Performance.enable", timeDomain="threadTicks")
        wall = await page.opened(path.resolve().as_uri(), mark="drawn")
        found = (await page.command("Performance.getMetrics"))["metrics"]
        first = await page.value("performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000")
        used = {each["name"]: each["value"] for each in found}
        return {"start": begun, "words": first, "open": wall, "page": used["TaskDuration"]}


async def used(path: Path) -> tuple[int, int, Page]:
    """Clicks and searches that did what they should, and the page with what it said."""
    async with browser() as page:
        await page.opened(path.resolve().as_uri(), mark="drawn")
        await page.value("document.getElementById('which').value = 'all'")
        clicks = [await page.value(CLICK % i) for i in range(N_USES)]
        words = [f"gene_0{i:03d}" for i in range(N_USES)]
        searches = [await page.value(SEARCH % (word, word)) for word in words]
        return sum(clicks), sum(searches), page


def written(path: Path, n_features: int, n_cells: int) -> None:
    """Write a report, and say what that takes."""
    adata = repeated(n_features, n_cells)
    called = int((ds.get.trans(adata)["qvalue"] < 0.05).sum())
    print(f"{adata.n_vars} features of which {called} are called, {adata.n_obs} cells\n")
    start = time.process_time()
    ds.report(adata, path)
    seconds = time.process_time() - start
    tracemalloc.start()
    ds.report(adata, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = path.stat().st_size / 1e6
    print("| processor seconds | peak MB of memory | MB | bar, MB |", "|---|---|---|---|", sep="\n")
    missed = "" if size <= MEGABYTES else ", missed"
    print(f"| {seconds:.1f} | {peak / 1e6:.0f} | {size:.2f} | {MEGABYTES:g}{missed} |\n")


def seen(path: Path, runs: int) -> None:
    """Open it several times, use it once."""
    found = [asyncio.run(opened(path)) for _ in range(runs)]
    print("| in headless Chromium | median | range | bar |", "|---|---|---|---|", sep="\n")
    for name, what in (
        ("start", "the browser starts, s"),
        ("words", "the words are there, s"),
        ("open", "all is drawn, s"),
        ("page", "processor seconds of the page"),
    ):
        values = [each[name] for each in found]
        bar = f"{SECONDS:g}{'' if statistics.median(values) < SECONDS else ', missed'}" if name == "open" else ""
        print(f"| {what} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} | {bar} |")
    clicks, searches, page = asyncio.run(used(path))
    print(f"| clicks, searches that do what they should, of {N_USES} | {clicks}, {searches} | | {N_USES}, {N_USES} |")
    print(f"| messages in the console, requests | {len(page.messages())}, {len(page.requests())} | | 0, 0 |")
    print(f"\n{len(os.sched_getaffinity(0))} core(s); {os.getloadavg()[0]:.1f} programs ran at a time")
    for text in (*page.messages(), *page.requests())[:5]:
        print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=20_000)
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--runs", type=int, default=5, help="how often the browser opens it")
    parser.add_argument("--output", type=Path, help="keep the report there")
    parser.add_argument("--open", type=Path, help="open this report, and write none")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.open or args.output or Path(folder) / "report.html"
        if args.open is None:
            written(path, args.features, args.cells)
        if CHROMIUM is None:
            print("neither chromium nor google-chrome is on the path: the report was not opened")
        else:
            seen(path, args.runs)


if __name__ == "__main__":
    main()
