"""The browser of the tests: the one that `make test` found, else the ``chromium`` on PATH, else playwright's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    named = os.environ.get("ATELIER_TEST_CHROMIUM", shutil.which("chromium"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=named or None, args=ARGUMENTS)
        yield browser
        browser.close()
