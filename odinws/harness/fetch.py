"""What a server on this machine answers to a GET."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from typing import NamedTuple

ANSWER_SECONDS = 10.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def get(
    port: int, path: str, headers: Mapping[str, str] | None = None, *, seconds: float = ANSWER_SECONDS
) -> Answer:
    """Ask on a connection of its own; blocks for at most `seconds` at a time.

    Raises OSError when there is no answer, or none in HTTP.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        # Else the server holds its socket until it sees ours closed, which tests of descriptors would count.
        connection.request("GET", path, headers={"Connection": "close", **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    except http.client.HTTPException as error:
        raise OSError(f"{path} is not answered: {error!r}") from error
    finally:
        connection.close()


def body(port: int, path: str, *, seconds: float = ANSWER_SECONDS) -> bytes:
    """The body of an answer with status 200. Raises OSError for any other, and as `get` does."""
    return good(path, get(port, path, seconds=seconds))


def good(path: str, answer: Answer) -> bytes:
    """The body of an answer about `path`. Raises OSError when its status is not 200."""
    if answer.status != 200:
        raise OSError(
            f"{path} is answered with {answer.status}: {answer.body[:200].decode(errors='replace')}"
        )
    return answer.body


def answers(port: int, path: str = "") -> bool:
    """Whether 200 comes from `path`; with none, whether anybody listens."""
    try:
        if path:
            return get(port, path, seconds=2.0).status == 200
        socket.create_connection(("127.0.0.1", port), 1.0).close()
        return True
    except OSError:
        return False
