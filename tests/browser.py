"""A browser for tests: Debian's Chromium, looking at pages on disk as people do: wide, narrow, in the dark, without script."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.command import Command

__all__ = ["Browser", "browsing"]

_CHROMIUM, _DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
_AXE = Path(__file__).parent / "axe" / "node_modules" / "axe-core" / "axe.min.js"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_RUN_AXE = "const done = arguments[0]; axe.run().then((found) => done(found.violations));"


class Browser:
    """One window."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(
        self, page: Path, *, width: int = 1280, dark: bool = False, script: bool = True, paper: bool = False
    ) -> None:
        """Open a page from disk, in a window of so many pixels; on `paper` as it is printed."""
        self._tell("Emulation.setScriptExecutionDisabled", value=not script)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._tell("Emulation.setEmulatedMedia", media="print" if paper else "", features=[scheme])
        self._tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        self.driver.get("about:blank")
        self.complaints(), self.asked()  # what an earlier page has left
        self.driver.get(page.as_uri())

    def asks(self, expression: str) -> Any:
        """Return what an expression comes to on the page."""
        return self.driver.execute_script(f"return {expression}")

    def unfold(self) -> None:
        """Unfold all that is folded."""
        self.driver.execute_script(
            "for (const each of document.querySelectorAll('details')) each.open = true"
        )

    def complaints(self) -> list[str]:
        """Return what the console said since it was asked last."""
        return self._log("browser")

    def asked(self) -> list[str]:
        """Return the addresses that were asked for since it was asked last."""
        events = [json.loads(message)["message"] for message in self._log("performance")]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def violations(self) -> list[str]:
        """Return what axe-core finds serious or critical on the page, with the first element concerned."""
        self.driver.execute_script(_AXE.read_text(encoding="utf-8"))
        return [
            f"{found['id']}: {found['help']}: {found['nodes'][0]['html']}"
            for found in self.driver.execute_async_script(_RUN_AXE)
            if found["impact"] in ("serious", "critical")
        ]

    def _log(self, kind: str) -> list[str]:
        return [entry["message"] for entry in self.driver.execute(Command.GET_LOG, {"type": kind})["value"]]

    def _tell(self, command: str, **params: object) -> None:
        self.driver.execute_cdp_cmd(command, params)


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it. Without Chromium or axe-core the test fails, and says how to get it."""
    for needed, how in (
        (_CHROMIUM, "apt-get install chromium"),
        (_DRIVER, "apt-get install chromium-driver"),
        (_AXE, "npm ci --prefix tests/axe"),
    ):
        if not needed.exists():
            pytest.fail(f"{needed} is not there: {how}")
    options = ChromeOptions()
    options.binary_location = str(_CHROMIUM)
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(str(_DRIVER)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
