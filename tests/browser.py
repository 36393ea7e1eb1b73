"""A real browser for tests: headless Chromium, driven over its DevTools protocol.

One socket, one thread. Events are taken in while a command waits for its answer, so what a page has done is
known after the next command.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

PACKAGE = "chromium"  # of Debian; the program has the same name
START_SECONDS = 20.0
COMMAND_SECONDS = 20.0
POLL_SECONDS = 0.05
CLOSE_SECONDS = 5.0
PHONE_BELOW = 600  # CSS pixels
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


class PageError(AssertionError):
    """JavaScript that the test ran in a page threw; the text is its stack."""


def find_chromium() -> str:
    """The path of the browser. Without one the test is skipped, on CI it fails."""
    path = shutil.which(PACKAGE)
    if path is None:
        missing = f"no `{PACKAGE}` on PATH: install the Debian package {PACKAGE}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(f"BROWSER TESTS DID NOT RUN, {missing}")
    return path


class Browser:
    """A Chromium with a fresh profile, from `with` to the end of its block."""

    def __init__(self) -> None:
        self._program = find_chromium()
        self._pages: dict[str, Page] = {}
        self._last_id = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # The profile is written to until the very last process of the browser has gone.
            profile = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
            )
            log = stack.enter_context((Path(profile) / "stderr").open("w+"))
            self._process = subprocess.Popen(
                [self._program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            stack.callback(self._end)
            self._socket = stack.enter_context(self._connect(Path(profile), Path(log.name)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(WebSocketException, TimeoutError):  # it is ended either way
            self.command("Browser.close")
        self._stack.close()

    def _connect(self, profile: Path, log: Path) -> ClientConnection:
        ports = profile / "DevToolsActivePort"
        deadline = time.monotonic() + START_SECONDS
        while True:
            lines = ports.read_text().splitlines() if ports.exists() else []
            if len(lines) == 2:
                return connect(
                    f"ws://127.0.0.1:{lines[0]}{lines[1]}",
                    max_size=None,
                    ping_interval=None,
                    compression=None,
                    proxy=None,
                )
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{PACKAGE} did not start: {log.read_text()[-2000:]}")
            time.sleep(POLL_SECONDS)

    def _end(self) -> None:
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def command(self, method: str, params: dict[str, Any] | None = None, session: str = "") -> Any:
        """Run a command of the DevTools protocol and return its result.

        Raises:
            AssertionError: the browser refused it.
            TimeoutError: it did not answer within `COMMAND_SECONDS`.
        """
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        deadline = time.monotonic() + COMMAND_SECONDS
        while True:
            answer = json.loads(self._socket.recv(timeout=max(0.0, deadline - time.monotonic())))
            if answer.get("id") == self._last_id:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            page = self._pages.get(answer.get("sessionId", ""))
            if page is not None:
                page.take(answer["method"], answer["params"])

    @contextlib.contextmanager
    def page(self, url: str, *, script: str = "", width: int = 1200, dark: bool = False) -> Iterator[Page]:
        """Open a page in a tab of its own and wait until it has loaded.

        Args:
            script: runs in the page before any of its own.
            width: of the window in CSS pixels, below `PHONE_BELOW` that of a phone; the height is 900.
            dark: whether the user prefers dark colours.
        """
        target = self.command("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.command("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, attached["sessionId"])
        self._pages[page.session] = page
        try:
            page.open(url, script, width, dark)
            yield page
        finally:
            del self._pages[page.session]
            self.command("Target.closeTarget", {"targetId": target})


class Page:
    """One tab.

    Attributes:
        errors: exceptions nobody caught and lines of `console.error`, in words.
        failures: requests that got no answer or one of 400 and above, WebSockets included, in words.
        requests: the URLs asked for.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self.session = session
        self.errors: list[str] = []
        self.failures: list[str] = []
        self.requests: list[str] = []
        self._browser = browser
        self._loaded = False

    def command(self, method: str, **params: Any) -> Any:
        """Run a command of the DevTools protocol in this tab; see `Browser.command`."""
        return self._browser.command(method, params, self.session)

    def open(self, url: str, script: str, width: int, dark: bool) -> None:
        """Go to `url`; see `Browser.page`."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < PHONE_BELOW}
        self.command("Emulation.setDeviceMetricsOverride", **metrics)
        if script:
            self.command("Page.addScriptToEvaluateOnNewDocument", source=script)
        self.command("Page.navigate", url=url)
        self.until(lambda: self._loaded, COMMAND_SECONDS, f"{url} loads")

    def evaluate(self, expression: str) -> Any:
        """The value of one expression, which may use `await`; a promise is waited for.

        Raises:
            PageError: it threw.
            TimeoutError: it took longer than `COMMAND_SECONDS`.
        """
        result = self.command(
            "Runtime.evaluate",
            expression=f"(async () => ({expression}))()",
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in result:
            raise PageError(_exception(result["exceptionDetails"]))
        return result["result"].get("value")

    def until(self, condition: Any, seconds: float, what: str) -> Any:
        """Poll until `condition` is true and return what it gave.

        Args:
            condition: a JavaScript expression, or a function.

        Raises:
            AssertionError: it did not become true within `seconds`; the text names a screenshot.
        """
        deadline = time.monotonic() + seconds
        while True:
            value = condition() if callable(condition) else self.evaluate(condition)
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"not within {seconds:g} s: {what}; errors {self.errors}, failures {self.failures}, "
                    f"screenshot {self._keep_screenshot()}"
                )
            self.sync()
            time.sleep(POLL_SECONDS)

    def sync(self) -> None:
        """Take in all that the page has reported until now."""
        self.command("Runtime.evaluate", expression="0")

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def _keep_screenshot(self) -> str:
        with tempfile.NamedTemporaryFile(prefix="page-", suffix=".png", delete=False) as file:
            file.write(self.screenshot())
        return file.name

    def take(self, event: str, params: dict[str, Any]) -> None:
        """Take in an event of the browser."""
        match event:
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.errors.append(_exception(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                words = (argument.get("value", argument.get("description")) for argument in params["args"])
                self.errors.append(" ".join(map(str, words)))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                entry = params["entry"]
                # The browser's own word on a failed request counts among these, not as the page's error.
                found = self.failures if entry["source"] == "network" else self.errors
                found.append(f"{entry['text']} {entry.get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Network.loadingFailed":
                self.failures.append(params["errorText"])
            case "Network.responseReceived" if params["response"]["status"] >= 400:
                self.failures.append(f"{params['response']['status']} {params['response']['url']}")
            case "Network.webSocketFrameError":
                self.failures.append(params["errorMessage"])


def _exception(details: dict[str, Any]) -> str:
    thrown = details.get("exception", {})
    return str(thrown.get("description") or thrown.get("value") or details["text"])
