"""`odinws.access.keys`: which keys are taken, and files that change, break and come back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from odinws.access.errors import KeysError
from odinws.access.keys import MAX_FILE_BYTES, MAX_KEYS, KeyFile, Secret, parse_jwks, parse_secret
from tests.access.material import NOW, SECRET, ec_jwk, jwks, oct_jwk, rsa_jwk, rsa_key
from tests.fakes import JSON


def names(file: KeyFile, now: float) -> list[str | None]:
    """The names of a file's keys."""
    return [key.kid for key in file.keys(now)]


def replace(path: Path, content: bytes) -> None:
    """Write a new file and rename it, as one should."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


# -- secrets ---------------------------------------------------------------------------------------


def test_a_secret_is_bound_to_hs256() -> None:
    """It has no name, and does not show itself."""
    (key,) = Secret(SECRET).keys(NOW)
    assert (key.kid, key.algorithm, key.material.key) == (None, "HS256", SECRET.encode())
    assert repr(key) == "Key(kid=None, algorithm='HS256')"
    assert not Secret(SECRET).renew(NOW)


def test_a_secret_has_at_least_32_bytes() -> None:
    """As many as the hash: RFC 7518 section 3.2."""
    Secret("x" * 32)
    with pytest.raises(KeysError, match="a shared secret of 31 bytes; expected at least 32") as caught:
        Secret("x" * 31)
    assert "xxx" not in str(caught.value)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_newline_at_the_end_of_a_secret_file(end: bytes) -> None:
    """One that an editor puts there does not belong to the secret."""
    (key,) = parse_secret(SECRET.encode() + end)
    assert key.material.key == SECRET.encode()


def test_a_public_key_is_no_secret() -> None:
    """Who knows it could sign."""
    from cryptography.hazmat.primitives import serialization as s

    pem = rsa_key().public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    for content in (pem, json.dumps(rsa_jwk()).encode()):
        with pytest.raises(ValueError, match="no shared secret"):
            parse_secret(content)


# -- JWK Sets --------------------------------------------------------------------------------------


def test_each_key_has_one_algorithm() -> None:
    """That of its kind, whether or not it says so."""
    keys = parse_jwks(
        jwks(rsa_jwk(kid="r", alg="RS256", use="sig"), ec_jwk(kid="e", key_ops=["verify"]), oct_jwk(kid="o"))
    )
    assert [(key.kid, key.algorithm) for key in keys] == [("r", "RS256"), ("e", "ES256"), ("o", "HS256")]
    assert [key.material.algorithm_name for key in keys] == ["RS256", "ES256", "HS256"]


@pytest.mark.parametrize(
    ("unusable", "problem"),
    [
        ("key", "not an object"),
        ({}, "other than HS256, RS256, ES256"),
        ({"kty": "OKP", "crv": "Ed25519", "x": "AA"}, "other than"),
        (ec_jwk(crv="P-384"), "other than"),
        (ec_jwk(alg="HS256"), "other than"),
        (rsa_jwk(alg="RS512"), "other than"),
        (rsa_jwk(alg="none"), "other than"),
        (rsa_jwk(alg=["RS256"]), "other than"),
        (rsa_jwk(use="enc"), "not for signatures"),
        (rsa_jwk(key_ops=["sign"]), "not for signatures"),
        (rsa_jwk(key_ops=1), "not for signatures"),
        (rsa_jwk(d="AQAB"), "a private key"),
        (rsa_jwk(kid=7), "kid is not a text"),
        (rsa_jwk(kid="x" * 257), "kid is not a text"),
        (rsa_jwk(n=1), "malformed RS256 key"),
        (rsa_jwk(n="AQAB"), "RS256 key|an RSA key of"),
        (rsa_jwk(e=""), "malformed RS256 key"),
        (ec_jwk(x="AAAA"), "malformed ES256 key"),
        (ec_jwk(x=ec_jwk()["y"]), "malformed ES256 key"),
        ({"kty": "oct"}, "malformed HS256 key"),
        (oct_jwk("x" * 31), "a secret of 31 bytes"),
        (oct_jwk(json.dumps({"kty": "oct", "k": SECRET})), "malformed HS256 key"),
    ],
)
def test_other_keys_are_passed_over(unusable: Any, problem: str) -> None:
    """RFC 7517 section 5; but a set with nothing else is no good."""
    keys = parse_jwks(jwks(unusable, ec_jwk(kid="good")))
    assert [key.kid for key in keys] == ["good"]
    with pytest.raises(ValueError, match=f"^no usable key: .*({problem})"):
        parse_jwks(jwks(unusable))


def test_weak_rsa_keys_are_passed_over() -> None:
    """2048 bits is the least (RFC 7518 section 3.3)."""
    from jwt.algorithms import RSAAlgorithm

    with pytest.raises(ValueError, match="an RSA key of 1024 bits; expected 2048 to 8192"):
        parse_jwks(jwks(RSAAlgorithm.to_jwk(rsa_key(1024).public_key(), as_dict=True)))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JWK Set"),
        (b"{}", "not a JWK Set"),
        (b'{"keys": {}}', "not a JWK Set"),
        (b'{"keys": []}', "no usable key: it is empty"),
        (jwks(*[oct_jwk(kid=str(i)) for i in range(MAX_KEYS + 1)]), "17 keys; expected at most 16"),
    ],
)
def test_what_is_no_set(content: bytes, problem: str) -> None:
    """One line that says why."""
    with pytest.raises(ValueError, match=problem):
        parse_jwks(content)
    assert len(parse_jwks(jwks(*[oct_jwk()] * MAX_KEYS))) == MAX_KEYS


@given(
    JSON, st.dictionaries(st.sampled_from(["kty", "crv", "k", "n", "e", "x", "y", "alg", "kid", "use"]), JSON)
)
def test_any_json_is_read_or_refused(document: Any, changed: dict[str, Any]) -> None:
    """By ValueError and no other, also around and within a key."""
    for content in (
        json.dumps(document).encode(),
        *(jwks(k | changed) for k in (rsa_jwk(), ec_jwk(), oct_jwk())),
    ):
        try:
            keys = parse_jwks(content)
        except ValueError:
            continue
        assert all(key.algorithm in ("HS256", "RS256", "ES256") for key in keys)


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one key."""
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(oct_jwk(kid="old")))
    return path


def test_a_new_file_is_seen_after_a_second(path: Path) -> None:
    """Not before: looking costs a system call per token."""
    file = KeyFile(str(path), parse_jwks, NOW)
    replace(path, jwks(oct_jwk(kid="old"), ec_jwk(kid="new")))
    assert names(file, NOW + 0.9) == ["old"]
    with capture_logs() as logs:
        assert names(file, NOW + 1) == ["old", "new"]
    assert [(line["event"], line["keys"]) for line in logs] == [("keys read", ["HS256 old", "ES256 new"])]


def test_a_file_written_in_place_and_a_turned_link_are_seen(path: Path, tmp_path: Path) -> None:
    """By size or time; and as orchestrators do it, by a symbolic link that points elsewhere."""
    link = tmp_path / "link"
    link.symlink_to(path)
    file = KeyFile(str(link), parse_jwks, NOW)
    path.write_bytes(jwks(oct_jwk(kid="longer")))
    assert names(file, NOW + 1) == ["longer"]
    path.write_bytes(jwks(oct_jwk(kid="l0nger")))
    os.utime(path, (1, 1))
    assert names(file, NOW + 2) == ["l0nger"]
    other = tmp_path / "other"
    other.write_bytes(jwks(oct_jwk(kid="other")))
    link.unlink()
    link.symlink_to(other)
    assert names(file, NOW + 3) == ["other"]


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (b"{", "not JSON"),
        (jwks(), "no usable key"),
        (b"x" * (MAX_FILE_BYTES + 1), "longer than 262144 bytes"),
    ],
)
def test_a_broken_file_leaves_the_old_keys(path: Path, broken: bytes, problem: str) -> None:
    """It is reported once, and as long as it lasts; a good one ends it."""
    file = KeyFile(str(path), parse_jwks, NOW)
    replace(path, broken)
    with capture_logs() as logs:
        for second in range(1, 4):
            assert names(file, NOW + second) == ["old"]
            assert problem in (file.problem or "")
            assert not file.renew(NOW + second)
    assert [line["log_level"] for line in logs] == ["error"]
    replace(path, jwks(oct_jwk(kid="new")))
    assert names(file, NOW + 5) == ["new"]
    assert file.problem is None


def test_a_file_that_is_gone_leaves_the_old_keys(path: Path) -> None:
    """Also when the very same file comes back."""
    file = KeyFile(str(path), parse_jwks, NOW)
    away = path.with_suffix(".away")
    path.rename(away)
    assert names(file, NOW + 1) == ["old"]
    assert file.problem == "No such file or directory"
    away.rename(path)
    assert names(file, NOW + 2) == ["old"]
    assert file.problem is None


def test_a_pipe_in_its_place_does_not_stop_the_worker(path: Path) -> None:
    """Nobody will ever write to it."""
    file = KeyFile(str(path), parse_jwks, NOW)
    path.unlink()
    os.mkfifo(path)
    descriptors = len(os.listdir("/proc/self/fd"))
    for second in range(1, 4):
        assert names(file, NOW + second) == ["old"]
        file.renew(NOW + second)
    assert file.problem == "not a regular file"
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_file_must_be_good_at_the_start(path: Path, tmp_path: Path) -> None:
    """Later there are old keys, now there are none."""
    path.write_bytes(b"{")
    with pytest.raises(KeysError, match="not JSON") as caught:
        KeyFile(str(path), parse_jwks, NOW)
    assert caught.value.source == str(path)
    with pytest.raises(KeysError, match="No such file"):
        KeyFile(str(tmp_path / "none"), parse_jwks, NOW)
    with pytest.raises(KeysError, match="not a regular file"):
        KeyFile(str(tmp_path), parse_jwks, NOW)


def test_a_missing_key_reads_at_once_but_once_a_second(path: Path) -> None:
    """Even a file that looks unchanged; whoever sends unknown names can't make it more."""
    file = KeyFile(str(path), parse_jwks, NOW)
    assert not file.renew(NOW)  # read: it has no other keys
    replace(path, jwks(oct_jwk(kid="new")))
    assert not file.renew(NOW + 0.5)
    assert names(file, NOW + 0.5) == ["old"]
    path.unlink()
    path.write_bytes(jwks(oct_jwk(kid="new")))
    assert file.renew(NOW + 1)
    assert names(file, NOW + 1) == ["new"]


def test_a_clock_that_is_set_back_does_no_harm(path: Path) -> None:
    """The file is looked at once, and then as before."""
    file = KeyFile(str(path), parse_jwks, NOW)
    replace(path, jwks(oct_jwk(kid="new")))
    assert names(file, NOW - 1000) == ["new"]


def test_a_secret_file_changes_too(tmp_path: Path) -> None:
    """The new secret takes the place of the old one at once."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    file = KeyFile(str(path), parse_secret, NOW)
    path.write_text(SECRET + "!\n")
    (key,) = file.keys(NOW + 1)
    assert key.material.key == SECRET.encode() + b"!"
