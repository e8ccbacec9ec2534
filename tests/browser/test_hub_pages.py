"""The pages before JupyterLab in a real browser, in both themes, by keyboard alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.hub_driver import Platform, running_platform

PICTURES = Path(__file__).parent / "screenshots"
MACHINES = [
    {"name": "cpu-small", "cpu": 1, "memory": "256Mi"},
    {"name": "cpu-large", "cpu": 1, "memory": "512Mi", "price_per_hour": 0.04},
    {"name": "gpu-1", "accelerators": {"nvidia.com/gpu": 1}},
]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    platform = Platform(tmp_path_factory.mktemp("pages"))
    platform.write_image("pytorch")
    platform.write_image("tensorflow")
    (platform.home / "atelier.yaml").write_text(json.dumps({"catalog": {"machines": MACHINES}}))
    with running_platform(platform.folder) as running:
        yield running


def _picture(page: Page, name: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def _log_in(page: Page, platform: Platform) -> None:
    page.goto(platform.url)
    expect(page.get_by_label("User name")).to_have_value("ann")
    expect(page.get_by_label("Password")).to_be_focused()
    page.keyboard.type(platform.site.secret("password"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Start JupyterLab")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pages_follow_the_theme(platform: Platform, browser: Browser, theme: Literal["light", "dark"]) -> None:
    context = browser.new_context(color_scheme=theme, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on(
        "request", lambda request: problems.append(request.url) if not request.url.startswith(platform.url) else None
    )
    page.goto(platform.url)
    _picture(page, f"login-{theme}")
    _log_in(page, platform)
    _picture(page, f"picker-{theme}")

    lightness = page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(lightness) < 60) == (theme == "dark")
    assert problems == []
    context.close()


def test_a_wrong_password_is_said_in_words(platform: Platform, browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(platform.url)
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("alert")).to_have_text("That user name and password don't go together.")
    expect(page.get_by_label("User name")).to_have_value("ann")
    context.close()


def test_what_cannot_be_had_is_shown_with_its_reason(platform: Platform, browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    _log_in(page, platform)

    gpu = page.get_by_role("radio", name="gpu-1")
    expect(gpu).to_be_disabled()
    expect(gpu).to_have_accessible_description("Not available. No NVIDIA GPU was found on this computer.")
    expect(page.get_by_role("radio", name="cpu-small")).to_be_checked()
    context.close()


@pytest.mark.timeout(120)
def test_picking_starting_and_stopping_by_keyboard(platform: Platform, browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    _log_in(page, platform)
    page.get_by_role("radio", name="Pytorch").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Tensorflow")).to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#at-choice")).to_have_text("Tensorflow on cpu-large (1 CPU, 512 MiB) · 0.04 / hour")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Start")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_function("() => window.jupyterapp", timeout=60_000)

    page.goto(f"{platform.url}/hub/home")
    expect(page.get_by_text("It computes with the image tensorflow on cpu-large.")).to_be_visible()
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="JupyterLab is not running")).to_be_visible(timeout=15_000)
    page.get_by_role("link", name="Start").click()
    expect(page.get_by_role("radio", name="Tensorflow")).to_be_checked()
    context.close()
