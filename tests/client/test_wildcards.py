"""What clients remember of wildcards of any depth: both libraries, held against each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from odinws.client.subscriptions import SubscriptionState
from tests.client.test_subscriptions import asked, data, gap, greeted

CLIENT = Path(__file__).parents[2] / "odinws" / "dashboard" / "client.js"
WANTED = ["a.b", "a.*", "*.b", "a.>", ">", "x.*.y", "a+b"]
HEARD = ["a.b", "a.c", "q.b", "a.b.c", "x.1.y", "z", "x.y"]
FRAMES = [data(channel, seq, 0) for seq, channel in enumerate(HEARD, 1)] + [gap("a.*", 8, 9)]

_SCRIPT = """
const sockets = [], sent = [];
globalThis.WebSocket = class {
  static OPEN = 1;
  readyState = 1;
  constructor() { sockets.push(this); }
  send(text) { sent.push(JSON.parse(text)); }
  close() {}
};
const { Client } = await import(process.argv[1]);
const [wanted, frames] = JSON.parse(process.argv[2]);
const client = new Client("ws://x/ws", wanted, {});
client.start();
sockets[0].onopen();
for (const frame of frames) sockets[0].onmessage({ data: frame });
sockets[0].onclose({ code: 4009, reason: "" });
client.start();
sockets[1].onopen();
console.log(JSON.stringify(sent.filter((one) => one.type === "subscribe").at(-1).data.since));
process.exit(0);
"""


def expected() -> dict[str, int]:
    """By what was wanted, the highest sequence of what it has, by regular expressions."""
    found = {}
    for name in WANTED:
        form = re.escape(name).replace(r"\*", "[^.]+").replace(">", ".+")
        found[name] = max((seq for seq, c in enumerate(HEARD, 1) if re.fullmatch(form, c)), default=0)
    found["a.*"] = 9  # by the gap, which says nothing of the other wildcards
    return {name: seq for name, seq in found.items() if seq}


def test_python() -> None:
    """The asynchronous and the threaded client have this state."""
    state = greeted(SubscriptionState(WANTED[:2], last=False))
    state.add(WANTED[2:])
    for frame in FRAMES:
        state.read(frame)
    assert asked(state)["since"] == expected()
    state.forget(["a.*"])
    assert "a.*" not in asked(state)["since"]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_javascript() -> None:
    """The same, without a browser."""
    greeting = [
        json.dumps({"type": "welcome", "epoch": "one"}),
        json.dumps({"type": "subscription_ack", "subscribed": WANTED, "count": 7, "rejected": []}),
    ]
    command = [
        "node",
        "--input-type=module",
        "-e",
        _SCRIPT,
        CLIENT.as_uri(),
        json.dumps([WANTED, greeting + FRAMES]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected()
