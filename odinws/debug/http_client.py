"""Asks a server that runs over HTTP, for the command line."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit


class RequestError(Exception):
    """The server gives no answer, or one that says what is wrong; the text is for people."""


class Server:
    """A server that runs.

    Args:
        url: its base, `http://` or `https://`.
        token: its `WS_ADMIN_TOKEN`; "": ask without.
        token_option: the option with which a user gives that token.
        timeout_seconds: of an answer.

    Raises:
        RequestError: the URL is none.
    """

    def __init__(self, url: str, token: str, token_option: str, timeout_seconds: float = 30.0) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise RequestError(f"--url is {url!r}, expected a URL such as http://127.0.0.1:3004")
        self.url = url.rstrip("/")
        self._token_option = token_option
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
        address = f"{self.url}{path}{'?' + urlencode(options) if options else ''}"
        request = urllib.request.Request(address, headers=self._headers)  # noqa: S310 - http or https, see above
        timeout = self._timeout_seconds + float(options.get("seconds", 0.0))
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            with error:
                raise RequestError(self._reason(error)) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise RequestError(f"no answer from {self.url}: {reason}; is the server there?") from None

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

    def _reason(self, error: urllib.error.HTTPError) -> str:
        text = error.read(64 << 10)
        try:
            message = str(json.loads(text)["message"])
        except (ValueError, KeyError, TypeError):
            message = text.decode("utf-8", "replace")[:200]
        if error.code == 403:
            message += f"; give it with {self._token_option}"
        return f"{error.code} {error.reason}: {message}"
