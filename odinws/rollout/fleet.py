"""What the running servers have: their workers, read from `/stats`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from odinws.debug import http_client
from odinws.errors import OdinError
from odinws.rollout.members import Server, Worker

_ANSWER_SECONDS = 5.0


class FleetError(OdinError):
    """A server does not tell of its workers.

    Attributes:
        url: of the server.
        problem: what went wrong, in one line.
    """

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(f"{url}: {problem}")
        self.url = url
        self.problem = problem


class Fleet:
    """Asks servers.

    Args:
        urls: of their admin planes, as `http://127.0.0.1:3005`.
        token: their WS_ADMIN_TOKEN; "": ask without.
    """

    def __init__(self, urls: Sequence[str], token: str = "") -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._token = token

    def read(self) -> list[Server]:
        """All servers as they are now.

        Raises:
            FleetError: one does not answer, or not with what is asked for.
        """
        return [self._ask(url) for url in self._urls]

    def _ask(self, url: str) -> Server:
        try:
            stats = http_client.Server(url, self._token, _ANSWER_SECONDS).json("/stats")
            now = time.monotonic()
            chosen = stats["strategy"]
            return Server(
                url=url,
                worker_count=chosen["places"],
                flags_file=chosen["flags_file"],
                problem=chosen["problem"],
                workers=tuple(_worker(url, now, worker) for worker in stats["workers"]),
            )
        except http_client.RequestError as error:
            raise FleetError(url, str(error)) from None
        except (ValueError, LookupError, TypeError):
            raise FleetError(url, "/stats is not that of odinws with flags") from None


def _worker(url: str, now: float, stats: dict[str, Any]) -> Worker:
    return Worker(
        url=url,
        pid=stats["pid"],
        ordinal=stats["place"],
        strategy=stats["strategy"],
        variant=stats["variant"],
        reason=stats["reason"],
        connections=stats["connections"],
        steady=stats["accepting"] and not stats["leaving"],
        stats=stats,
        read=now,
        sampled=now - (stats["sampled_seconds_ago"] or 0.0),
    )
