"""The MLflow UI as a person uses it, in headless Chromium: two runs of ours, side by side."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.expected_conditions import presence_of_element_located
from selenium.webdriver.support.wait import WebDriverWait

from tests.e2e.processes import Server, server, train, wait_until_answers

RENDER_SECONDS = 60
METRIC = "rollout/reward"
SEEDS = (1, 2)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.rotated(3),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium is not installed"
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--window-size=1600,1200",
        f"--user-data-dir={tmp_path / 'chromium'}",
    ):  # fmt: skip
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def until(browser: WebDriver, text: str) -> None:
    """Wait until the page shows a text."""
    WebDriverWait(browser, RENDER_SECONDS).until(
        lambda driver: text in driver.find_element(By.TAG_NAME, "body").text,
        f"{text!r} does not appear",
    )


def open_chart(browser: WebDriver, metric: str) -> None:
    """Go where the metric's own link on the compare page leads; a click is lost while rows move."""
    link = WebDriverWait(browser, RENDER_SECONDS).until(
        presence_of_element_located(
            (By.CSS_SELECTOR, f"a[href*='metric=%22{quote(metric, safe='')}%22']")
        )
    )
    browser.get(str(link.get_attribute("href")))


def curves(browser: WebDriver) -> list[str]:
    """The lines that Plotly has drawn, as their SVG paths."""
    paths = browser.find_elements(By.CSS_SELECTOR, "g.scatterlayer g.trace path.js-line")
    return sorted({path.get_attribute("d") or "" for path in paths})


def experiment_of(ui: str, run_id: str) -> str:
    reply = requests.get(f"{ui}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, timeout=30)
    return str(reply.json()["run"]["info"]["experiment_id"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("compare"), ui=True) as process:
        yield process


@pytest.fixture(scope="module")
def runs(running: Server) -> list[str]:
    jobs = [
        train(running, total_timesteps=2000, seed=seed, model_name=f"seed_{seed}") for seed in SEEDS
    ]
    assert {job["status"] for job in jobs} == {"completed"}
    return [str(job["job_id"]) for job in jobs]


@pytest.fixture(scope="module")
def ui(running: Server) -> str:
    address = str(requests.get(running.url, timeout=30).json()["mlflow_ui"])
    wait_until_answers(f"{address}/health", running)
    return address


def test_two_runs_compare_with_both_reward_curves(
    runs: list[str], ui: str, browser: WebDriver, tmp_path: Path
) -> None:
    experiments = [experiment_of(ui, runs[0])]
    browser.get(
        f"{ui}/#/compare-runs?runs={quote(json.dumps(runs))}"
        f"&experiments={quote(json.dumps(experiments))}"
    )
    until(browser, "Comparing 2 Runs from 1 Experiment")
    for shown in ("CartPole-v1 seed 1", "CartPole-v1 seed 2", "learning_rate", "eval/iqm"):
        until(browser, shown)
    assert browser.save_screenshot(str(tmp_path / "runs.png"))

    open_chart(browser, METRIC)
    until(browser, "Completed Runs\n2/2")
    for seed in SEEDS:
        until(browser, f"CartPole-v1 seed {seed} ({METRIC})")
    WebDriverWait(browser, RENDER_SECONDS).until(
        lambda driver: len(curves(driver)) >= 2, "there are not two curves"
    )
    assert browser.save_screenshot(str(tmp_path / "curves.png"))
    assert all(path.count("L") > 50 for path in curves(browser)), "each curve has many points"


def test_a_run_shows_its_model_metrics_and_parameters(
    running: Server, runs: list[str], ui: str, browser: WebDriver, tmp_path: Path
) -> None:
    links = requests.get(running.url, timeout=30).json()["mlflow_links"]
    browser.get(links["run"] + runs[0] + links["suffix"])  # as the demo names it
    for shown in ("CartPole-v1 seed 1", "seed_1", METRIC, "total_timesteps"):
        until(browser, shown)
    assert browser.save_screenshot(str(tmp_path / "run.png"))


def test_the_pages_lead_to_the_columns_that_tell_policies_apart(
    running: Server, runs: list[str], ui: str, browser: WebDriver, tmp_path: Path
) -> None:
    browser.get(f"{running.url}/app/jobs/{runs[0]}")
    until(browser, "In MLflow")
    everything, one = (
        str(browser.find_element(By.LINK_TEXT, text).get_attribute("href"))
        for text in ("MLflow", "In MLflow")
    )
    browser.get(everything)
    for column in ("Models", "eval/mean_reward", "eval/ci_low", "eval/ci_high", "seed_1"):
        until(browser, column)
    columns = [e.text for e in browser.find_elements(By.CSS_SELECTOR, ".ag-header-cell-text")]
    assert not [name for name in columns if name.startswith(("system/", "claim"))], columns
    for shown in ("Model training", "Policies", "CartPole-v1 seed 1"):
        until(browser, shown)
    assert "Agent versions" not in browser.page_source, "these are the pages for language models"
    assert browser.save_screenshot(str(tmp_path / "columns.png"))

    browser.get(one)
    for shown in ("CartPole-v1 seed 1", "total_timesteps", "grpo.claim.1"):
        until(browser, shown)
    assert "Agent versions" not in browser.page_source
    assert browser.save_screenshot(str(tmp_path / "run.png"))
