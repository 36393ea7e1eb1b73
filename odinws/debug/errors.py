"""Why a request to look inside is not answered. Pure."""

from __future__ import annotations


class DebugError(Exception):
    """A request that can't be carried out.

    Attributes:
        status: of the HTTP answer.
        code: one word for programs.
        message: what is wrong, what is allowed, what to do.
        retry_after_seconds: when to try again; None: never as it is.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds
