"""Keys, made once, and tokens signed with them."""

from __future__ import annotations

import functools
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, RSAAlgorithm

NOW = 1_800_000_000.0
SECRET = "correct horse battery staple, and more"  # noqa: S105 - signs test tokens

_ec_keys: dict[str, ec.EllipticCurvePrivateKey] = {}


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """The RSA key of this run."""
    return rsa.generate_private_key(65537, bits)


def ec_key(name: str = "first") -> ec.EllipticCurvePrivateKey:
    """A P-256 key of this run, another for each name."""
    return _ec_keys.setdefault(name, ec.generate_private_key(ec.SECP256R1()))


def rsa_jwk(**more: Any) -> dict[str, Any]:
    """The RSA key's public half."""
    return {**RSAAlgorithm.to_jwk(rsa_key().public_key(), as_dict=True), **more}


def ec_jwk(name: str = "first", **more: Any) -> dict[str, Any]:
    """A P-256 key's public half."""
    return {**ECAlgorithm.to_jwk(ec_key(name).public_key(), as_dict=True), **more}


def oct_jwk(secret: str = SECRET, **more: Any) -> dict[str, Any]:
    """A shared secret."""
    return {**HMACAlgorithm.to_jwk(secret, as_dict=True), **more}


def jwks(*keys: Any) -> bytes:
    """A JWK Set of these."""
    return json.dumps({"keys": keys}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """Those of a good token; `...` leaves one out."""
    full = {"sub": "42", "exp": NOW + 60, **changed}
    return {name: value for name, value in full.items() if value is not ...}


def token(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **changed: Any) -> str:
    """A signed token; `changed` as for `claims`."""
    return jwt.encode(claims(**changed), key, algorithm, headers={"kid": kid} if kid else None)
