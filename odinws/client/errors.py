"""Why a client gives up."""

from __future__ import annotations

from odinws.errors import OdinError


class RefusedError(OdinError):
    """The server does not want this client, and will not want it later either.

    Attributes:
        code: HTTP status or close code.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
