"""``/docs`` in a real browser that can reach no other host than the server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.processes import Server, skip_unless_ci, wait_for

_METHODS = {"get", "post", "patch", "delete"}


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Headless Chromium that keeps its network log and its console log."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        skip_unless_ci("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # Chromium's sandbox does not run as root, and tests may.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1600"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as running:
        running.set_page_load_timeout(30)
        yield running


def _requested_urls(browser: webdriver.Chrome) -> list[str]:
    """Return the URLs that the page requested since the last call."""
    entries: list[dict[str, Any]] = browser.get_log("performance")  # type: ignore[no-untyped-call]
    messages = [json.loads(entry["message"])["message"] for entry in entries]
    return [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]


def _wait_for_element(inside: webdriver.Chrome | WebElement, selector: str) -> Any:
    """Return the first element, waiting until it is there."""
    return wait_for(lambda: inside.find_elements(By.CSS_SELECTOR, selector), selector)[0]


def _console_entries(browser: webdriver.Chrome) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return entries


def test_docs_page_shows_every_operation_and_sends_requests_only_to_this_server(
    server: Server, browser: webdriver.Chrome
) -> None:
    described = requests.get(f"{server.url}/openapi.json", timeout=10).json()
    operations = sum(len(_METHODS & set(path)) for path in described["paths"].values())

    browser.get(f"{server.url}/docs")
    wait_for(lambda: len(browser.find_elements(By.CSS_SELECTOR, ".opblock")) == operations, "all operations")

    models = _wait_for_element(browser, "#operations-models-models_list_models")
    models.find_element(By.CSS_SELECTOR, ".opblock-summary-control").click()
    _wait_for_element(models, ".try-out__btn").click()
    _wait_for_element(models, "button.execute").click()
    status = _wait_for_element(models, ".live-responses-table tbody .response-col_status")
    assert status.text.split()[0] == "200"
    body = _wait_for_element(models, ".live-responses-table tbody .response-col_description pre").text
    assert json.loads(body)["object"] == "list"

    asked_for = _requested_urls(browser)
    assert f"{server.url}/v1/models" in asked_for
    at = urlsplit(server.url).netloc
    assert {urlsplit(url).netloc for url in asked_for if not url.startswith("data:")} == {at}
    assert _console_entries(browser) == []
