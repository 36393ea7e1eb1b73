"""Asks a server that runs over HTTP, for the command line."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit


class RequestError(Exception):
    """The server gives no answer, or one that says what is wrong; the text is for people."""


class _UnixConnection(http.client.HTTPConnection):
    """To a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Server:
    """The admin plane of a server that runs.

    Args:
        url: its address: `http://host:port`, `https://host:port`, or `unix:/path`.
        token: its `WS_ADMIN_TOKEN`; "": ask without.
        timeout_seconds: of an answer.

    Raises:
        RequestError: the URL is none.
    """

    def __init__(self, url: str, token: str, timeout_seconds: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._parts = urlsplit(self.url)
        if self._parts.scheme not in ("http", "https", "unix") or not (
            self._parts.netloc or self._parts.path
        ):
            raise RequestError(
                f"--url is {url!r}, expected a URL such as http://127.0.0.1:3005, or unix:/path of a socket"
            )
        self._timeout_seconds = timeout_seconds
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, options: Mapping[str, Any] | None = None) -> bytes:
        """The body of an answer.

        Args:
            options: become the query; `seconds` lengthens the wait.

        Raises:
            RequestError: there is none.
        """
        options = options or {}
        target = f"{path}{'?' + urlencode(options) if options else ''}"
        try:
            with contextlib.closing(
                self._connection(self._timeout_seconds + float(options.get("seconds", 0.0)))
            ) as connection:
                connection.request("GET", target, headers=self._headers)
                answer = connection.getresponse()
                body = answer.read()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise RequestError(f"no answer from {self.url}: {error}; is the server there?") from None
        if answer.status != http.HTTPStatus.OK:
            raise RequestError(f"{answer.status} {answer.reason}: {_reason(answer.status, body)}")
        return body

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self._parts.scheme == "unix":
            return _UnixConnection(self._parts.path, timeout)
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self._parts.netloc, timeout=timeout)

    def json(self, path: str, options: Mapping[str, Any] | None = None) -> Any:
        """The same, as JSON.

        Raises:
            RequestError: there is none, or it is no JSON.
        """
        body = self.get(path, options)
        try:
            return json.loads(body)
        except ValueError:
            raise RequestError(f"{self.url}{path} answers with no JSON: is this an odinws server?") from None


def read_token(path: Path | None) -> str:
    """The admin token: of a file, else of WS_ADMIN_TOKEN. No option: every user of a machine sees those."""
    return path.read_text().strip() if path else os.environ.get("WS_ADMIN_TOKEN", "")


def _reason(status: int, body: bytes) -> str:
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode("utf-8", "replace")
    return f"{message}; give it with --token-file" if status == http.HTTPStatus.UNAUTHORIZED else message
