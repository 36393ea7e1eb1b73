"""Clients of Chromium's EventSource, all in one page."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tests.browser import POLL_SECONDS, Browser
from tests.harness.http_server import answering
from tests.sdks.agents.lines import emit, plan, write

# What the browser says where a proxy answers without a server.
_REFUSED = "Access to resource at "
# A browser has six connections to a host at most, so each client has a host of its own.
_START = """
(async () => {
  window.records = [];
  const emit = (...record) => records.push(record);
  plan.subscriptions.forEach((channels, number) => {
    const url = new URL(plan.url);
    url.hostname = `client-${number}.test`;
    follow(EventSource, emit, url.href, number, channels);
  });
})()
"""


def main() -> None:
    """Follow all channels of the plan until the input ends."""
    ending = threading.Thread(target=sys.stdin.read, daemon=True)
    ending.start()
    script = Path(__file__).with_name("follow.js").read_text()
    wanted = plan()
    # A page of this machine: no other may reach it.
    with answering(200, b"") as port, Browser() as browser, browser.page(f"http://127.0.0.1:{port}") as page:
        page.tab.add_script_tag(content=script)
        page.tab.evaluate("(plan) => { window.plan = plan; }", wanted)
        page.evaluate(_START)
        told = 0
        while ending.is_alive():
            for record in page.evaluate("records.splice(0)"):
                emit(*record)
            for error in page.errors[told:]:
                if not error.startswith(_REFUSED):
                    emit("error", -1, error)
            told = len(page.errors)
            write()
            page.tab.wait_for_timeout(1000 * POLL_SECONDS)


if __name__ == "__main__":
    main()
