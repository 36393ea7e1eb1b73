"""What tokens are checked with: keys that know their one algorithm, from a secret or from a file.

A key is used with the algorithm that its kind has here, whatever a token says: `oct` is HS256, `RSA` is
RS256, `EC` on P-256 is ES256. So no public key can serve as a secret, and `none` has no key.

A file is read again when it changes, so keys rotate without a restart: write the new file beside it and
rename it. Old and new keys stand in a JWKS together for as long as tokens live.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jwt
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from odinws.access.errors import KeysError

log = structlog.get_logger("odinws.access.keys")

ALGORITHMS = ("HS256", "RS256", "ES256")
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2
MAX_FILE_BYTES = 256 << 10
MAX_KEYS = 16  # a token without `kid` is tried with each key of its algorithm
CHECK_SECONDS = 1.0  # at most one look at the file, and one reading for an unknown key, in this time

_RSA_BITS = (2048, 8192)
_MAX_KID_CHARACTERS = 256


class Key(NamedTuple):
    """One key.

    Attributes:
        kid: its name; None: it has none, and is tried for tokens of any.
        algorithm: the only one it is used with, of `ALGORITHMS`.
        material: as PyJWT takes it, bound to the algorithm too.
    """

    kid: str | None
    algorithm: str
    material: jwt.PyJWK

    def __repr__(self) -> str:
        """Without the material."""
        return f"Key(kid={self.kid!r}, algorithm={self.algorithm!r})"


class Source(Protocol):
    """Gives keys."""

    def keys(self, now: float) -> tuple[Key, ...]:
        """The keys of now."""

    def renew(self, now: float) -> bool:
        """A key is missing: whether `keys` may have more than before."""


class Secret:
    """A secret that is given once.

    Args:
        secret: at least 32 bytes, as UTF-8, of high entropy: who has one token can try secrets offline.

    Raises:
        KeysError: it is too short, or is an asymmetric key.
    """

    def __init__(self, secret: str) -> None:
        try:
            self._keys = parse_secret(secret.encode())
        except ValueError as error:
            raise KeysError("shared secret", str(error)) from None

    def keys(self, now: float) -> tuple[Key, ...]:
        """Always the one."""
        return self._keys

    def renew(self, now: float) -> bool:
        """There is never another."""
        return False


class KeyFile:
    """Keys in a file that may change.

    Reading is synchronous: a regular file of at most 256 KiB, at most twice a second.

    Args:
        path: a regular file, also through symbolic links.
        parse: `parse_jwks` or `parse_secret`.
        now: seconds of the same clock as in all later calls; a clock that is set back does no harm.

    Attributes:
        problem: why the keys are older than the file; None: they are not.

    Raises:
        KeysError: the file can't be used. Later this is a `problem`, and the old keys stay.
    """

    def __init__(self, path: str, parse: Callable[[bytes], tuple[Key, ...]], now: float) -> None:
        self._path = path
        self._parse = parse
        self._seen: object = None
        self._looked = now
        self._renewed = now - CHECK_SECONDS
        self._digest = b""
        self._keys: tuple[Key, ...] = ()
        self.problem: str | None = None
        try:
            self._read()
        except (OSError, ValueError) as error:
            raise KeysError(path, _words(error)) from None

    def keys(self, now: float) -> tuple[Key, ...]:
        """The keys of the last file that could be used."""
        if abs(now - self._looked) >= CHECK_SECONDS:
            self._looked = now
            try:
                changed = _identity(os.stat(self._path)) != self._seen
            except OSError as error:
                self._seen = None  # the same file may come back
                self._tell(_words(error))
            else:
                if changed:
                    self._load()
        return self._keys

    def renew(self, now: float) -> bool:
        """Read the file even if it seems unchanged, at most once a second. Whether the keys are others."""
        if abs(now - self._renewed) < CHECK_SECONDS:
            return False
        self._renewed = now
        before = self._keys
        self._load()
        return self._keys is not before

    def _load(self) -> None:
        before = self._keys
        try:
            self._read()
        except (OSError, ValueError) as error:
            self._tell(_words(error))
        else:
            self._tell(None)
            if self._keys is not before:
                log.info("keys read", path=self._path, keys=[f"{k.algorithm} {k.kid}" for k in self._keys])

    def _tell(self, problem: str | None) -> None:
        if problem and problem != self.problem:
            log.error("key file can't be used, the old keys stay", path=self._path, problem=problem)
        self.problem = problem

    def _read(self) -> None:
        # Without waiting: opening a pipe would stop the worker.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            # From here on it counts as seen, usable or not; a later change has another identity.
            self._seen = _identity(status)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"longer than {MAX_FILE_BYTES} bytes")
        digest = hashlib.sha256(content).digest()
        if digest != self._digest:  # else the keys are those we have
            self._keys = self._parse(content)
            self._digest = digest


def parse_secret(content: bytes) -> tuple[Key, ...]:
    """The one key of a shared secret; a newline at its end does not belong to it.

    Raises:
        ValueError: it is too short, or is an asymmetric key.
    """
    secret = content.removesuffix(b"\n").removesuffix(b"\r")
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"a shared secret of {len(secret)} bytes; expected at least {MIN_SECRET_BYTES}")
    encoded = base64.urlsafe_b64encode(secret).decode().rstrip("=")
    key, _ = _key({"kty": "oct", "k": encoded})
    if key is None:
        raise ValueError("an asymmetric key or certificate is no shared secret")
    return (key,)


def parse_jwks(content: bytes) -> tuple[Key, ...]:
    """The usable keys of a JWK Set (RFC 7517 section 5); others in it are passed over, as the RFC says.

    Raises:
        ValueError: it is no JWK Set, has no usable key, or more than `MAX_KEYS`. No text has a part of a key.
    """
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ValueError("not JSON") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError('not a JWK Set: expected {"keys": [...]}')
    made = [_key(jwk) for jwk in listed]
    keys = tuple(key for key, _ in made if key is not None)
    if not keys:
        why = sorted({problem for _, problem in made if problem})
        raise ValueError(f"no usable key: {'; '.join(why) or 'it is empty'}")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"{len(keys)} keys; expected at most {MAX_KEYS}")
    return keys


def _key(jwk: Any) -> tuple[Key | None, str]:
    """A key, or None and why it is passed over."""
    problem = _unfit(jwk)
    if problem:
        return None, problem
    algorithm = _algorithm(jwk)
    if algorithm is None:
        return None, f"other than {', '.join(ALGORITHMS)}"
    try:
        material = jwt.PyJWK(jwk, algorithm)
        material.Algorithm.prepare_key(material.key)  # refuses a secret that is a public key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):  # its text may have the key in it
        return None, f"malformed {algorithm} key"
    least, most = _RSA_BITS
    if isinstance(material.key, RSAPublicKey) and not least <= material.key.key_size <= most:
        return None, f"an RSA key of {material.key.key_size} bits; expected {least} to {most}"
    if isinstance(material.key, bytes) and len(material.key) < MIN_SECRET_BYTES:
        return None, f"a secret of {len(material.key)} bytes; expected at least {MIN_SECRET_BYTES}"
    return Key(jwk.get("kid"), algorithm, material), ""


def _unfit(jwk: Any) -> str:
    """Why a member of a set is not for us, or ""."""
    if not isinstance(jwk, dict):
        return "not an object"
    kid = jwk.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > _MAX_KID_CHARACTERS):
        return f"kid is not a text of at most {_MAX_KID_CHARACTERS} characters"
    if jwk.get("use", "sig") != "sig" or "verify" not in _operations(jwk):
        return "not for signatures"
    if "d" in jwk:
        return "a private key: this server needs the public one only"
    return ""


def _operations(jwk: dict[str, Any]) -> list[Any]:
    listed = jwk.get("key_ops", ["verify"])
    return listed if isinstance(listed, list) else []


def _algorithm(jwk: dict[str, Any]) -> str | None:
    match jwk:
        case {"kty": "oct"}:
            algorithm = "HS256"
        case {"kty": "RSA"}:
            algorithm = "RS256"
        case {"kty": "EC", "crv": "P-256"}:
            algorithm = "ES256"
        case _:
            return None
    return algorithm if jwk.get("alg", algorithm) == algorithm else None


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """What changes with the file: also if another is renamed to its name, or a link is turned."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _words(error: OSError | ValueError) -> str:
    return (error.strerror or "can't be read") if isinstance(error, OSError) else str(error)
