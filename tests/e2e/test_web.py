"""The control room as a person uses it, in headless Chromium, on a server with a token."""

import json
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping

import pytest
import requests
from mlflow.tracking import MlflowClient
from selenium import webdriver
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from selenium.webdriver.support.wait import WebDriverWait

from grpo_platform.web.catalogue import messages
from tests.e2e.processes import Server, server

TOKEN = "control-room-" + "t" * 24
KEY = {"X-API-Key": TOKEN}
SECONDS = 90
AXE = "axe-core@4.14.1"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.rotated(12),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("web"), GRPO_API_TOKEN=TOKEN) as process:
        yield process


@pytest.fixture(scope="module")
def browser(running: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium is not installed"
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--window-size=1400,1000", "--lang=en",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
    driver = Chrome(options=options, service=service)
    sign_in(driver, running)
    yield driver
    driver.quit()


def sign_in(browser: Chrome, running: Server) -> None:
    browser.get(running.url)
    until(browser, "GRPO_API_TOKEN")
    browser.switch_to.active_element.send_keys(TOKEN, Keys.ENTER)
    until(browser, "No training yet")


def until(browser: Chrome, text: str) -> None:
    """Wait until the page shows a text."""
    WebDriverWait(browser, SECONDS, ignored_exceptions=[Exception]).until(
        lambda driver: text in driver.find_element(By.TAG_NAME, "body").text,
        f"{text!r} does not appear",
    )


def click(browser: Chrome, css: str, text: str = "") -> None:
    """Click the first element of a kind that has a text, once it is there."""

    def found(driver: Chrome) -> bool:
        for element in driver.find_elements(By.CSS_SELECTOR, css):
            if text in element.text and element.is_displayed():
                element.click()
                return True
        return False

    WebDriverWait(browser, SECONDS, ignored_exceptions=[Exception]).until(found, f"{css} {text!r}")


def tab_to(browser: Chrome, wanted: str) -> None:
    """Go on with the tabulator until the focus is on a field or button."""
    for _ in range(60):
        element = browser.switch_to.active_element
        if wanted in (element.get_attribute("name"), element.text):
            return
        element.send_keys(Keys.TAB)
    pytest.fail(f"{wanted} cannot be reached by the keyboard")


def job_of(running: Server, **fields: object) -> str:
    reply = requests.post(f"{running.url}/train", json=fields, headers=KEY, timeout=30)
    return str(reply.json()["job_id"])


def wait_for(running: Server, job_id: str) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        path = f"{running.url}/training/{job_id}/status"
        status = requests.get(path, headers=KEY, timeout=30).json()
        if status["status"] == "completed" and status["promoted"] is not None:
            return
        assert status["status"] in ("queued", "running", "completed"), status
        assert time.monotonic() < deadline, status
        time.sleep(0.2)


@pytest.fixture(scope="module")
def trained(running: Server, browser: Chrome) -> str:
    """A job that was started on the page, with the keyboard alone."""
    tab_to(browser, "Start training")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    until(browser, "The same, elsewhere")
    WebDriverWait(browser, SECONDS).until(
        lambda driver: driver.switch_to.active_element.get_attribute("name") == "env_name"
    )
    for field, text in (("total_timesteps", "0"), ("model_name", "balance"), ("seed", "7")):
        tab_to(browser, field)
        browser.switch_to.active_element.send_keys(text)
    assert "-d '{" in browser.find_element(By.CSS_SELECTOR, ".same pre").text
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    until(browser, "greater than or equal to 1")  # what the API refuses is said at the field
    refused = browser.switch_to.active_element
    assert refused.get_attribute("name") == "total_timesteps"
    assert refused.get_attribute("aria-invalid") == "true"
    refused.send_keys(Keys.BACKSPACE, "3000", Keys.ENTER)
    until(browser, "is queued")
    jobs = requests.get(f"{running.url}/training/jobs", headers=KEY, timeout=30).json()["jobs"]
    (job,) = jobs
    assert (job["model_name"], job["total_timesteps"]) == ("balance", 3000)
    wait_for(running, job["job_id"])
    client = MlflowClient(f"sqlite:///{running.folder / 'mlflow.db'}")
    assert 9 <= len(client.get_metric_history(job["job_id"], "eval/mean_reward")) <= 11
    click(browser, ".jobs .completed")  # the list tells it by itself
    return str(job["job_id"])


def start(browser: Chrome, say: Mapping[str, str], promote: str, **fields: str) -> None:
    """Fill the form in and start a job; ends on the job's page."""
    click(browser, "nav a", say["nav.jobs"])
    click(browser, "button.primary", say["jobs.start"])
    click(browser, "summary", say["start.evaluation"])
    for name, text in fields.items():
        browser.find_element(By.NAME, name).send_keys(text)
    Select(browser.find_element(By.NAME, "promote")).select_by_value(promote)
    click(browser, ".start button.primary", say["start.job"])
    until(browser, say["start.started"].partition("{id}")[2])
    job = browser.find_element(By.ID, "said").text.split()[0]
    click(browser, f".jobs a[href*='/{job}']")
    until(browser, say["job.return"])


def give_reason(browser: Chrome, say: Mapping[str, str], reason: str) -> None:
    """Answer the dialog that asks why."""
    until(browser, say["model.reason"])
    browser.switch_to.active_element.send_keys(reason)
    click(browser, "dialog .dialog-foot button:last-child")


@pytest.mark.parametrize("language", ["en", pytest.param("ja", marks=pytest.mark.rotated(6))])
def test_a_newcomer_trains_watches_plays_asks_why_compares_promotes_and_rolls_back(
    running: Server, browser: Chrome, trained: str, language: str
) -> None:
    say, model = messages(language), f"story-{language}"
    browser.get(f"{running.url}/app")
    if language == "ja":
        click(browser, "#language", "日本語")
        until(browser, say["jobs.start"])

    start(browser, say, "always", model_name=model, total_timesteps="300", seed="1")
    until(browser, say["verdict.champion"])
    until(browser, say["decision.first"])
    start(browser, say, "never", model_name=model, total_timesteps="3000", seed="7")
    until(browser, say["verdict.kept"])
    until(browser, say["decision.stays"].format(version=1))
    learned = say["learned.both"].partition("{")[0]
    until(browser, learned)
    film = "return (document.querySelector('video') || {}).readyState >= 1"
    WebDriverWait(browser, 2 * SECONDS).until(lambda driver: driver.execute_script(film))
    for shown in (say["job.threshold"], "475", say["job.seed"].format(seed=7)):
        until(browser, shown)
    click(browser, "summary", say["chart.table"])
    until(browser, say["chart.steps"])

    click(browser, "a.button", say["play.watch"])
    until(browser, say["play.shared"])
    click(browser, "button", say["play.take_over"])
    click(browser, ".controls button", say["play.step"])
    until(browser, say["play.at"].format(step=1, last=1))
    click(browser, "button", say["play.explain"])
    until(browser, say["play.attribution"])
    until(browser, say["play.preferred"])

    click(browser, "nav a", say["nav.models"])
    click(browser, ".list a", model)
    for box in (1, 2):
        name = say["model.tick"].format(version=box)
        click(browser, f".versions input[aria-label='{name}']")
    click(browser, "button", say["model.play_both"])
    until(browser, say["compare.probability"])
    better, _, _ = say["pair.better"].partition("{difference}")
    until(browser, better.format(one=f"{model}/2", other=f"{model}/1"))

    click(browser, ".versions button", say["model.promote"])
    give_reason(browser, say, "It balances.")
    until(browser, say["model.serves"].format(version=2))
    until(browser, "It balances.")
    until(browser, say["decision.better"])
    click(browser, ".actions button", say["model.rollback"])
    give_reason(browser, say, "It wobbles.")
    until(browser, say["model.serves"].format(version=1))
    until(browser, say["decision.back"].format(before=2, version=1))
    until(browser, "It wobbles.")
    if language == "ja":
        assert english_of(browser) == []
        browser.get(f"{running.url}/app")
        until(browser, say["jobs.start"])
        assert english_of(browser) == []
        click(browser, "#language", "English")
        until(browser, messages("en")["jobs.start"])


def english_of(browser: Chrome) -> list[str]:
    """English sentences on a page in another language that are not marked as such."""
    text = browser.execute_script(
        """const found = [];
        const main = document.getElementById('main');
        const walk = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) {
          const here = walk.currentNode;
          if (!here.parentElement.closest('[lang=en], code, pre')) found.push(here.data);
        }
        return found.join(' | ');"""
    )
    return re.findall(r"[A-Za-z]+(?: [a-z]{2,}){2,}", text)


def test_what_was_asked_is_served_on_a_page(running: Server, browser: Chrome, trained: str) -> None:
    body = {"model_name": "balance", "observation": [0.0, 0.1, 0.0, -0.1]}
    for _ in range(3):
        assert requests.post(f"{running.url}/inference", json=body, headers=KEY, timeout=30).ok
    browser.get(f"{running.url}/app/serving")
    click(browser, ".list button", "balance")
    until(browser, "of the version's own evaluation")
    until(browser, "distance")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".histogram")) == 5


def test_the_form_shows_environments(running: Server, browser: Chrome, trained: str) -> None:
    browser.get(f"{running.url}/app?new=1")
    WebDriverWait(browser, SECONDS).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, ".gallery img")
    )
    click(browser, ".gallery button", "Pendulum-v1")
    until(browser, '{"env_name":"Pendulum-v1","eval_freq":1000}')  # about ten evaluations


def test_experiments_are_compared(running: Server, browser: Chrome, trained: str) -> None:
    browser.get(f"{running.url}/app/compare?model=story-en/1&model=story-en/2")
    until(browser, "Compare")
    click(browser, "form button.primary")
    until(browser, "Performance profile")
    until(browser, "First – second")


def test_pages_speak_japanese_and_turn_dark(running: Server, browser: Chrome, trained: str) -> None:
    browser.get(f"{running.url}/app")
    click(browser, "#language", "日本語")
    until(browser, "学習を開始")
    until(browser, "完了")
    assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "ja"
    before = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    click(browser, "#theme")
    after = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert before != after
    browser.refresh()
    until(browser, "学習を開始")
    kept = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert kept == after
    click(browser, "#language", "English")
    until(browser, "Start training")
    click(browser, "#theme")


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm, which fetches axe-core, is not installed")
    packed = subprocess.run(
        [npm, "pack", AXE, "--silent"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    if packed.returncode:
        pytest.skip("axe-core cannot be fetched here")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def violations_of(browser: Chrome, axe: str) -> list[object]:
    """What axe-core finds on the page."""
    browser.execute_script(axe)
    found = browser.execute_async_script(
        "axe.run().then((r) => arguments[0](JSON.stringify(r.violations)))"
    )
    return [
        (one["id"], one["impact"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in json.loads(found)
    ]


@pytest.mark.parametrize("width", [1400, 390])
def test_a_policy_is_played_and_explained_by_the_keyboard_alone(
    running: Server, browser: Chrome, trained: str, axe: str, width: int
) -> None:
    is_wide = width == 1400  # and in English; the narrow one in Japanese
    say = (lambda english, japanese: english) if is_wide else (lambda english, japanese: japanese)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    if not is_wide:
        click(browser, "#language", "日本語")
    browser.get(f"{running.url}/app/play?model=balance&seed=1")
    until(browser, say("Step 0, return 0", "ステップ 0、収益 0"))
    WebDriverWait(browser, SECONDS).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, "canvas")
    )
    for key, english, japanese in (
        (Keys.ARROW_RIGHT, "Step 1, return 1", "ステップ 1、収益 1"),
        (Keys.ARROW_RIGHT, "Step 2, return 2", "ステップ 2、収益 2"),
        (Keys.ARROW_LEFT, "Step 1 of 2", "ステップ 1 / 2"),
        ("0", "your action", "あなたの行動"),
        (" ", "Pause", "一時停止"),
        (" ", "Play", "再生"),
    ):
        browser.switch_to.active_element.send_keys(key)
        until(browser, say(english, japanese))
    tab_to(browser, say("New episode", "新しいエピソード"))
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    until(browser, say("Step 0 of 0", "ステップ 0 / 0"))
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)  # the focus is on a button still
    until(browser, say("Step 1 of 1", "ステップ 1 / 1"))
    tab_to(browser, say("Compare every action", "全行動を比べる"))
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    until(browser, say("At step 1: 64 continuations", "ステップ 1: 各行動の後に 64 回の続き"))
    until(browser, "theta_dot")
    tab_to(browser, say("Worst", "最悪"))
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    until(browser, say("Keep the second", "もしもを残す"))
    assert len(browser.find_elements(By.CSS_SELECTOR, "canvas")) == 2
    assert violations_of(browser, axe) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    if not is_wide:
        click(browser, "#language", "English")
        until(browser, "at play")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("path", [
    "/app", "/app?new=1", "job", "/app/models", "/app/models/balance", "/app/compare",
    "/app/serving",
])  # fmt: skip
@pytest.mark.parametrize("width", [1400, 390])
def test_pages_are_accessible_and_fit(
    running: Server, browser: Chrome, trained: str, axe: str, path: str, width: int
) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(running.url + (f"/app/jobs/{trained}" if path == "job" else path))
    WebDriverWait(browser, SECONDS).until(
        lambda driver: (
            not driver.find_elements(By.CSS_SELECTOR, ".loading, noscript")
            and driver.find_elements(By.CSS_SELECTOR, "h1")
        )
    )
    assert violations_of(browser, axe) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_broke_the_policy_and_signing_out_ends_it(
    running: Server, browser: Chrome, trained: str
) -> None:
    messages = [entry["message"] for entry in browser.get_log("browser")]
    assert [text for text in messages if "Content Security Policy" in text] == []
    # the one that the form was refused, and films that are not there
    bad = [text for text in messages if "status of 4" not in text and "status of 5" not in text]
    assert [text for text in bad if "SEVERE" in text or "Error" in text] == []
    browser.get(f"{running.url}/app")
    click(browser, "button", "Sign out")
    until(browser, "GRPO_API_TOKEN")
    browser.get(f"{running.url}/app/models")
    until(browser, "GRPO_API_TOKEN")
