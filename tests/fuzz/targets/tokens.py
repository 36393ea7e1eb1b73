"""Tokens. An input is a token as it came.

It is refused in a few words that have nothing of it. Or it was signed with one of our two keys, which is
found out here by other means, and then who brings it, for how long, and for what, is as its claims say.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.algorithms import ECAlgorithm

from odinws.access.channels import DEFAULT
from odinws.access.credentials import MAX_TOKEN_CHARACTERS, check_form
from odinws.access.errors import AccessError
from odinws.access.keys import Key, Secret, parse_jwks
from odinws.access.tokens import Identity, Tokens
from tests.access.material import NOW, SECRET, jwks
from tests.fuzz.targets.base import assert_brief, assert_nothing_of

LEEWAY_SECONDS = 5.0

_PROBES = ("global", "token.BTC", "token.*", "user.42", "user.*", "nothing", "user.", "token.a b")


@functools.cache
def elliptic_key() -> ec.EllipticCurvePrivateKey:
    """The same key in every run, so that tokens in the corpus stay signed."""
    return ec.derive_private_key(0x0D1E5, ec.SECP256R1())


class _Elliptic:
    """The public half of that key, as a source."""

    def __init__(self) -> None:
        self._keys = parse_jwks(jwks(ECAlgorithm.to_jwk(elliptic_key().public_key(), as_dict=True)))

    def keys(self, now: float) -> tuple[Key, ...]:
        """Always the one."""
        return self._keys

    def renew(self, now: float) -> bool:
        """There is never another."""
        return False


_tokens = Tokens([Secret(SECRET), _Elliptic()], leeway_seconds=LEEWAY_SECONDS)


def check(data: bytes) -> str:
    """Ask who brings it."""
    return judge(data.decode("latin-1"))


def read(data: bytes) -> int:
    """Ask who brings it, also with it as one long part; no longer one is looked at."""
    token = data[: MAX_TOKEN_CHARACTERS - 8].decode("latin-1")
    for each in (token, token.replace(".", "_") + ".e30.e30"):
        with contextlib.suppress(AccessError):
            check_form(each)
            _tokens.identify(each, NOW)
    return 0


def judge(token: str) -> str:
    """What a token comes to, and that it does so by right."""
    try:
        identity = _tokens.identify(token, NOW)
    except AccessError as error:
        assert_brief(error.message)
        assert_nothing_of(token, f"{error.message} {error!r}")
        return error.message
    head, _, signature = token.rpartition(".")
    assert _is_signed(head.encode(), _decoded(signature)), f"{token!r} is accepted, and not signed"
    _check_identity(identity, json.loads(_decoded(head.partition(".")[2])))
    return "accepted"


def _is_signed(text: bytes, signature: bytes) -> bool:
    if hmac.compare_digest(hmac.new(SECRET.encode(), text, hashlib.sha256).digest(), signature):
        return True
    if len(signature) != 64:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        elliptic_key().public_key().verify(encode_dss_signature(r, s), text, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _decoded(piece: str) -> bytes:
    return base64.urlsafe_b64decode(piece + "=" * (-len(piece) % 4))


def _check_identity(identity: Identity, claims: Any) -> None:
    assert identity.subject == claims["sub"]
    assert identity.expires_at == claims["exp"] + LEEWAY_SECONDS > NOW
    assert not claims.get("aud")
    for begin in ("nbf", "iat"):
        assert claims.get(begin) is None or claims[begin] <= NOW + LEEWAY_SECONDS
    for channel in (*_PROBES, f"user.{identity.subject}"):
        if DEFAULT.valid(channel) and DEFAULT.allows(identity, channel):
            assert _is_granted(channel, claims), f"{channel!r} is not granted by {claims}"


def _is_granted(channel: str, claims: Any) -> bool:
    granted = claims.get("channels")
    if granted is None:
        granted = ["global", "token.*", f"user.{claims['sub']}"]
    return channel in granted or f"{channel.partition('.')[0]}.*" in granted
