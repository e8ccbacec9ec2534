"""The browser of each file of tests, and the page of those whose JupyterLab stands without a hub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.chromium import running_chromium
from tests.lab_driver import Lab, browser_page

PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, lab: Lab) -> Iterator[Page]:
    """A page of the JupyterLab that the file's ``lab`` is; fails when that had troubles meanwhile."""
    expect.set_options(timeout=PATIENCE_MS)
    lab.troubles.clear()
    with browser_page(browser, lab) as page:
        page.set_default_timeout(PATIENCE_MS)
        yield page
    assert lab.troubles == []
