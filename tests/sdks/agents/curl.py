"""Clients of Server-Sent Events that are a curl each, as a script would have it."""

from __future__ import annotations

import asyncio
import json
import random
from urllib.parse import urlencode

from tests.sdks.agents.lines import emit, plan, run

PLAN = plan()
_MOST_BYTES = 1 << 20  # of a line


class Client:
    """Comes back with the last id whenever its curl has ended."""

    def __init__(self, number: int, channels: list[str]) -> None:
        self.number = number
        self.url = f"{PLAN['url']}?{urlencode([('channel', channel) for channel in channels])}"
        self.last = ""
        self.retry_ms = 1000
        self.resumes = False

    async def follow(self) -> None:
        """Read for ever."""
        while True:
            resume = ["--header", f"Last-Event-ID: {self.last}"] if self.last else []
            curl = await asyncio.create_subprocess_exec(
                *("curl", "--silent", "--no-buffer", "--fail", *resume, self.url),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                limit=_MOST_BYTES,
            )
            assert curl.stdout is not None
            try:
                await self._read(curl.stdout)
            finally:
                if curl.returncode is None:
                    curl.kill()
                status = await curl.wait()
            emit("lost", self.number, status, "curl has ended")
            await asyncio.sleep(self.retry_ms / 1000 * random.uniform(0.5, 1.0))

    async def _read(self, stream: asyncio.StreamReader) -> None:
        fields: dict[str, str] = {}
        async for line in stream:
            if text := line.decode().rstrip("\r\n"):
                name, _, value = text.partition(":")
                fields[name] = value.removeprefix(" ")
                continue
            self._take(fields.get("event", "message"), fields)
            fields = {}

    def _take(self, kind: str, fields: dict[str, str]) -> None:
        self.last = fields.get("id", self.last)
        self.retry_ms = int(fields.get("retry", self.retry_ms))
        if not fields.get("data"):
            return
        data = json.loads(fields["data"])
        if kind == "welcome":
            for channel in data["rejected"]:
                emit("error", self.number, f"rejected: {channel}")
            at = int(self.last.rpartition(":")[2])
            for channel in data["subscribed"]:
                emit("subscribed", self.number, channel, data["epoch"], at, self.resumes, self.resumes)
            self.resumes = True
        elif kind == "message":
            emit("message", self.number, "", data["channel"], data["seq"])
        elif kind == "gap":
            emit("gap", self.number, data["channel"], data["from"], data["to"], data["reason"])
        elif kind == "closing":
            emit("lost", self.number, data["code"], data["reason"])


if __name__ == "__main__":
    subscriptions = enumerate(PLAN["subscriptions"])
    asyncio.run(run(*(Client(number, channels).follow() for number, channels in subscriptions)))
