"""What a proven token says. An input is the JSON of its header, a newline, and that of its claims.

It is signed here with our secret; what must hold is what must hold of any token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from tests.access.material import SECRET
from tests.fuzz.targets import tokens
from tests.fuzz.targets.tokens import judge


def check(data: bytes) -> str:
    """Sign it and bring it."""
    return judge(signed(*data.partition(b"\n")[::2]))


def read(data: bytes) -> int:
    """The same without judging it."""
    return tokens.read(signed(*data.partition(b"\n")[::2]).encode())


def signed(header: bytes, claims: bytes) -> str:
    """A token of any header and claims, signed by HMAC whatever they say."""
    head = b".".join(base64.urlsafe_b64encode(piece).rstrip(b"=") for piece in (header, claims))
    signature = hmac.new(SECRET.encode(), head, hashlib.sha256).digest()
    return (head + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()
