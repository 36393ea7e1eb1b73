"""A real browser for tests: Debian's Chromium, headless, driven by Playwright.

What a page has done is known after the next call: Playwright delivers events while it waits for an answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import playwright.sync_api as driver

from tests.programs import find
from tests.server import PATIENCE_SECONDS

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"  # kept by CI
POLL_SECONDS = 0.05
PHONE_BELOW = 600  # CSS pixels
# Names under .test lead to this machine, for pages that are not of it by their name.
_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP *.test 127.0.0.1",
)
# The browser's own words on a failed request are no errors of the page.
_OF_THE_NETWORK = ("Failed to load resource:", "WebSocket connection to ")


class PageError(AssertionError):
    """JavaScript that the test ran in a page threw; the text is its stack."""


class Browser:
    """A Chromium with a fresh profile, from `with` to the end of its block.

    Args:
        flags: of its command line, beside those of all tests.
    """

    def __init__(self, flags: Sequence[str] = ()) -> None:
        self._program = find("chromium", "chromium")
        self._flags = [*_FLAGS, *flags]
        self._playwright = driver.sync_playwright()

    def __enter__(self) -> Self:
        playwright = self._playwright.start()
        try:
            self._browser = playwright.chromium.launch(
                executable_path=self._program,
                args=self._flags,
                chromium_sandbox=False,
                timeout=1000 * PATIENCE_SECONDS,
            )
        except BaseException:
            playwright.stop()
            raise
        self._stop = playwright.stop
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._browser.close()
        finally:
            self._stop()

    @contextmanager
    def page(self, url: str, *, script: str = "", width: int = 1200, dark: bool = False) -> Iterator[Page]:
        """Open a page in a profile of its own and wait until it has loaded.

        Args:
            script: runs in the page before any of its own.
            width: of the window in CSS pixels, below `PHONE_BELOW` that of a phone; the height is 900.
            dark: whether the user prefers dark colours.
        """
        context = self._browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            is_mobile=width < PHONE_BELOW,
        )
        context.set_default_timeout(1000 * PATIENCE_SECONDS)
        try:
            if script:
                context.add_init_script(script)
            page = Page(context.new_page())
            page.tab.goto(url)
            yield page
        finally:
            context.close()


class Page:
    """One tab.

    Attributes:
        tab: Playwright's page.
        errors: exceptions nobody caught and lines of `console.error`, in words.
        failures: requests that got no answer or one of 400 and above, WebSockets included, in words.
        requests: the URLs asked for.
    """

    def __init__(self, tab: driver.Page) -> None:
        self.tab = tab
        self.errors: list[str] = []
        self.failures: list[str] = []
        self.requests: list[str] = []
        tab.on("pageerror", lambda error: self.errors.append(error.stack or str(error)))
        tab.on("console", self._said)
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.on("requestfailed", lambda request: self.failures.append(f"{request.failure} {request.url}"))
        tab.on("response", self._answered)

    def _said(self, message: driver.ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            of_network = message.text.startswith(_OF_THE_NETWORK)
            (self.failures if of_network else self.errors).append(message.text)

    def _answered(self, response: driver.Response) -> None:
        if response.status >= 400:
            self.failures.append(f"{response.status} {response.url}")

    def evaluate(self, expression: str) -> Any:
        """The value of one expression, which may use `await`; a promise is waited for.

        Raises:
            PageError: it threw.
        """
        try:
            return self.tab.evaluate(f"(async () => ({expression}))()")
        except driver.Error as error:
            raise PageError(error.message) from None

    def until(self, condition: Any, seconds: float, what: str) -> Any:
        """Poll until `condition` is true and return what it gave.

        Args:
            condition: a JavaScript expression, or a function.

        Raises:
            AssertionError: it did not become true within `seconds`, or `PATIENCE_SECONDS` if that is more; a
                screenshot shows the page.
        """
        seconds = max(seconds, PATIENCE_SECONDS)
        deadline = time.monotonic() + seconds
        while True:
            value = condition() if callable(condition) else self.evaluate(condition)
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"not within {seconds:g} s: {what}; errors {self.errors}, failures {self.failures}, "
                    f"screenshot {self.screenshot('failure')}"
                )
            self.tab.wait_for_timeout(1000 * POLL_SECONDS)

    def screenshot(self, name: str) -> Path:
        """Keep the whole page as PNG in `SCREENSHOTS`, under this name."""
        path = SCREENSHOTS / f"{name}.png"
        self.tab.evaluate("scrollTo(0, 0)")  # else the head, which stays in sight, stands in the middle
        self.tab.screenshot(path=path, full_page=True)
        return path
