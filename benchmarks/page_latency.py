"""The control room's pages in Chromium, on a store with 10,000 jobs.

For each page, the milliseconds from the request to where it can be used (its head is drawn, its
buttons do something), and to where its first rows are shown; `cold` without anything cached, `warm`
as on every later visit. Claim: the median of the first is below 300 ms.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import requests
from selenium import webdriver
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from benchmarks.list_latency import LARGE, fill
from benchmarks.results import write_machine, write_rows
from benchmarks.server import machine, serving

MOST_MS = 300.0
WATCH = """
const seen = {};
window.__seen = seen;
const look = () => {
  if (!seen.usable && document.querySelector('main h1')) seen.usable = performance.now();
  if (seen.usable && !seen.full && !document.querySelector('main .loading')) {
    seen.full = performance.now();
  }
};
new MutationObserver(look).observe(document, { childList: true, subtree: true });
"""


def browser() -> Chrome:
    """Headless Chromium that notes when a page can be used, and when it shows its rows."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--window-size=1400,1000",
    ):  # fmt: skip
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
    driver = Chrome(options=options, service=service)
    command = "Page.addScriptToEvaluateOnNewDocument"
    driver.execute_cdp_cmd(command, {"source": WATCH})
    return driver


def measure(driver: Chrome, address: str, *, cold: bool) -> tuple[float, float]:
    """Milliseconds until a page can be used, and until it shows its rows."""
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": cold})
    driver.get("about:blank")
    driver.get(address)
    seen = WebDriverWait(driver, 60, poll_frequency=0.05).until(
        lambda it: it.execute_script("return window.__seen.full && window.__seen")
    )
    return seen["usable"], seen["full"]


def main() -> int:
    """Measure every page; 1 where one can be used later than is claimed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=10)
    parser.add_argument("--store", type=Path, help="a folder to fill, or that was filled before")
    parser.add_argument("--keep", action="store_true", help="write results/page_latency.csv")
    given = parser.parse_args()
    folder = given.store or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "mlflow.db").exists():
        fill(folder, *LARGE)
    print(machine())
    rows: list[dict[str, object]] = []
    with serving(folder) as url:
        jobs = requests.get(f"{url}/training/jobs?status=completed&limit=1", timeout=60).json()
        found = requests.get(f"{url}/experiments?limit=1", timeout=60).json()["experiments"]
        job_id, experiment_id = jobs["jobs"][0]["job_id"], found[0]["experiment_id"]
        pages = {
            "jobs": "/app", "experiments": "/app?view=experiments", "job": f"/app/jobs/{job_id}",
            "experiment": f"/app/experiments/{experiment_id}", "models": "/app/models",
            "model": "/app/models/model-0", "compare": "/app/compare", "serving": "/app/serving",
        }  # fmt: skip
        driver = browser()
        try:
            for name, path in pages.items():
                measure(driver, url + path, cold=True)  # what the server makes once
                for visit in ("cold", "warm"):
                    times = [
                        measure(driver, url + path, cold=visit == "cold")
                        for _ in range(given.visits)
                    ]
                    usable, full = (sorted(column) for column in zip(*times, strict=True))
                    rows.append({
                        "page": name, "visit": visit,
                        "usable_median_ms": round(statistics.median(usable)),
                        "usable_worst_ms": round(usable[-1]),
                        "rows_median_ms": round(statistics.median(full)),
                        "rows_worst_ms": round(full[-1]),
                    })  # fmt: skip
                    print(*rows[-1].values(), sep="\t", flush=True)
        finally:
            driver.quit()
    if given.keep:
        write_rows("page_latency", rows)
        write_machine("page_latency")
    late = [row for row in rows if int(str(row["usable_median_ms"])) > MOST_MS]
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
