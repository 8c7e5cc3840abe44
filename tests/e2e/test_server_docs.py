"""`/docs` and `/redoc` in a browser: they show the calls, and ask no other machine for anything."""

import json
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.e2e.processes import server

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("docs")) as running:
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
