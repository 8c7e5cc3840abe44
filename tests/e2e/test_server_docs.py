"""`/docs` and `/redoc` in a browser, of a server with a token: they show the calls without it, ask
no other machine for anything, and what Swagger fills in runs.
"""

import json
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait

from tests.e2e.processes import server

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.rotated(4)]

TOKEN = "t" * 40


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("docs"), GRPO_API_TOKEN=TOKEN) as running:
        yield running.url


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_work_without_internet(url, browser, page):
    browser.get(url + page)
    body = browser.find_element(By.TAG_NAME, "body")
    WebDriverWait(browser, 60).until(
        lambda _: {"training", "inference", "models"} <= set(body.text.split())
    )
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    # the policy of the page stops what its scripts would like to load from elsewhere
    stopped = {
        m["params"]["requestId"]
        for m in messages
        if m["method"] == "Network.loadingFailed" and m["params"].get("blockedReason") == "csp"
    }
    sent = {
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent" and m["params"]["requestId"] not in stopped
    }
    assert f"{url}/openapi.json" in sent
    for address in sent:
        assert address.startswith((url, "data:", f"blob:{url}")), address


@pytest.mark.parametrize("operation", ["start_training", "list_jobs", "get_health"])
def test_swagger_authorizes_and_executes_what_it_fills_in(url, browser, operation):
    def found(css: str) -> WebElement:
        return WebDriverWait(browser, 60).until(
            expected_conditions.element_to_be_clickable((By.CSS_SELECTOR, css))
        )

    browser.get(f"{url}/docs")
    found(".btn.authorize").click()
    found(".auth-container input").send_keys(TOKEN)
    found(".auth-btn-wrapper .authorize").click()
    found(".auth-btn-wrapper .btn-done").click()
    block = f"[id$='-{operation}']"
    found(f"{block} .opblock-summary-control").click()
    execute = found(f"{block} .execute")
    browser.execute_script("arguments[0].scrollIntoView()", execute)
    execute.click()
    status = found(f"{block} .live-responses-table .response .response-col_status")
    assert status.text.split()[0] == "200", browser.find_element(By.CSS_SELECTOR, block).text
