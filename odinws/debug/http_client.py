"""Asks a server over HTTP, for the command line."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

_PATIENCE_SECONDS = 30.0


class RequestError(Exception):
    """The server gives no answer, or one that says what is wrong; the text is for people."""


class Server:
    """A server that runs.

    Args:
        url: its base, `http://` or `https://`.
        token: its `WS_ADMIN_TOKEN`; "": ask without.

    Raises:
        RequestError: the URL is none.
    """

    def __init__(self, url: str, token: str) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise RequestError(f"--url is {url!r}, it must begin with http:// or https://")
        self.url = url.rstrip("/")
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
        patience = _PATIENCE_SECONDS + float(options.get("seconds", 0.0))
        try:
            with urllib.request.urlopen(request, timeout=patience) as answer:  # noqa: S310
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            with error:
                raise RequestError(_reason(error)) from None
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


def _reason(error: urllib.error.HTTPError) -> str:
    text = error.read(64 << 10)
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text.decode("utf-8", "replace")[:200]
    if error.code == 403:
        message += "; --token-file names a file with that token"
    return f"{error.code} {error.reason}: {message}"
