"""A real Chromium that watches itself: what it complains about, and where it sends requests."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
    console.error(`CSP: ${event.violatedDirective} refused ${event.blockedURI} in ${event.sourceFile}`));
"""


def chromium() -> str:
    """The system's Chromium: the variable CHROMIUM, or the first that the path knows."""
    found = os.environ.get("CHROMIUM") or next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeError("The browser's tests need Chromium. Install it (Debian: apt-get install chromium).")
    return found


class Visit:
    """A browser's page on one server; `complaints` has everything that must not happen."""

    def __init__(self, page: "Page", url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self._host = urlsplit(url).netloc
        page.add_init_script(_REPORT_VIOLATIONS)
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(f"script error: {error}"))
        page.on("request", self._sent)
        page.on("response", lambda answer: self._answered(answer.status, answer.url))

    def _heard(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(f"console {kind}: {text}")

    def _sent(self, request: "Request") -> None:
        address = urlsplit(request.url)
        if address.scheme not in {"data", "blob"} and address.netloc != self._host:
            self.complaints.append(f"request off the host: {request.url}")

    def _answered(self, status: int, url: str) -> None:
        if status >= 400:
            self.complaints.append(f"{status} from {url}")

    def goto(self, path: str) -> None:
        self.page.goto(self.url + path)

    def log_in(self, *, email: str, password: str) -> None:
        self.goto("/admin/")
        self.page.fill("#id_username", email)
        self.page.fill("#id_password", password)
        self.page.click("#login-form button[type=submit]")
        self.page.wait_for_selector("text=Home")


@contextmanager
def browsing(url: str, **context: Any) -> Iterator[Visit]:
    """A fresh browser at `url`; `context` are Playwright's options of a browser context."""
    from playwright.sync_api import sync_playwright  # installed for these tests alone, while all tests are collected

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=_ARGUMENTS)
        try:
            yield Visit(browser.new_context(**context).new_page(), url)
        finally:
            browser.close()
