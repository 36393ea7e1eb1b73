"""`odinws.access.tokens`: good tokens of every algorithm, and every way in which one is bad."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from odinws.access.channels import DEFAULT
from odinws.access.errors import AccessError
from odinws.access.keys import Key, KeyFile, Secret, parse_jwks
from odinws.access.tokens import ANONYMOUS, Identity, Tokens
from tests.access.material import NOW, SECRET, claims, ec_jwk, ec_key, jwks, oct_jwk, rsa_jwk, rsa_key, token
from tests.fakes import JSON


class Fixed:
    """A source whose keys are told apart by nothing but time."""

    def __init__(self, *keys: Any) -> None:
        self._keys = parse_jwks(jwks(*keys))
        self.later: tuple[Key, ...] = ()
        self.renewals = 0

    def keys(self, now: float) -> tuple[Key, ...]:
        """As they are."""
        return self._keys

    def renew(self, now: float) -> bool:
        """Count it, and take the later ones."""
        self.renewals += 1
        self._keys, changed = self.later or self._keys, bool(self.later)
        return changed


tokens = Tokens([Secret(SECRET)])


def parts(text: str) -> Iterator[str]:
    """What of a token may not be repeated: its pieces, and what they say."""
    for piece in text.split("."):
        yield piece
        yield piece[:12]
        if piece:
            yield base64.urlsafe_b64decode(piece + "===").decode("latin-1")


def refused(text: str, of: Tokens = tokens, now: float = NOW) -> AccessError:
    """Why a token is refused; the reason has nothing of it, nor has its traceback."""
    with pytest.raises(AccessError) as caught:
        of.identify(text, now)
    error = caught.value
    assert 0 < len(error.message) <= 100
    said = f"{error} {error!r} {error.args} {''.join(traceback.format_exception(error))}"
    assert not [part for part in parts(text) if len(part) > 8 and part in said]
    return error


def forged(header: Any, payload: Any = ..., secret: bytes = SECRET.encode()) -> str:
    """A token with any header, signed by HMAC whatever that says."""
    pieces = [json.dumps(piece).encode() for piece in (header, claims() if payload is ... else payload)]
    head = b".".join(base64.urlsafe_b64encode(piece).rstrip(b"=") for piece in pieces)
    signature = base64.urlsafe_b64encode(hmac.new(secret, head, hashlib.sha256).digest()).rstrip(b"=")
    return (head + b"." + signature).decode()


# -- good tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
@pytest.mark.parametrize("kid", ["k", None])
def test_a_good_token_of_each_algorithm(algorithm: str, kid: str | None) -> None:
    """Subject, end and permissions come from its claims."""
    several = Tokens([Fixed(rsa_jwk(kid="k"), ec_jwk(kid="k")), Secret(SECRET)])
    key = {"HS256": SECRET, "RS256": rsa_key(), "ES256": ec_key()}[algorithm]
    identity = several.identify(token(key, algorithm, kid, channels=["global"]), NOW)
    assert identity == Identity("42", NOW + 60, DEFAULT.permissions_of("42", ["global"]))


def test_permissions_by_default() -> None:
    """The public channels and the subject's own."""
    identity = tokens.identify(token(), NOW)
    assert identity.permissions is None
    assert DEFAULT.allows(identity, "user.42")


def test_without_a_token() -> None:
    """Nobody, or somebody with the public channels, as is set."""
    with pytest.raises(AccessError, match="a token is required") as caught:
        tokens.identify(None, NOW)
    assert caught.value.status == 401
    anonymous = Tokens([Secret(SECRET)], allow_anonymous=True).identify(None, NOW)
    assert anonymous is ANONYMOUS
    assert anonymous == Identity(None, None, None)


def test_a_bad_token_is_not_an_anonymous_client() -> None:
    """Who shows one is told what is wrong with it."""
    assert refused(token(exp=0), Tokens([Secret(SECRET)], allow_anonymous=True)).status == 401


# -- keys ------------------------------------------------------------------------------------------


def test_another_key_is_refused() -> None:
    """Of each algorithm."""
    several = Tokens([Fixed(rsa_jwk(), ec_jwk(), oct_jwk())])
    for text in (token("another secret of at least 32 bytes"), token(ec_key("second"), "ES256")):
        error = refused(text, several)
        assert (error.status, error.reason.code) == (401, 4401)
        assert error.message == "the token's signature is of no key that is known here"


def test_a_public_key_can_not_sign() -> None:
    """HS256 with the text of a public key as its secret, in any form that an attacker may have."""
    public = rsa_key().public_key()
    only_rsa = Tokens([Fixed(rsa_jwk(kid="k"))])
    encodings = serialization.Encoding
    spki, pkcs1 = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1
    for form, encoding in ((spki, encodings.PEM), (pkcs1, encodings.PEM), (spki, encodings.DER)):
        text = forged({"alg": "HS256", "kid": "k"}, secret=public.public_bytes(encoding, form))
        refused(text, only_rsa)
    refused(forged({"alg": "HS256", "kid": "k"}, secret=b""), only_rsa)


@pytest.mark.parametrize(
    "algorithm",
    ["none", "None", "nOnE", "", None, 1, ["HS256"], {}, "HS512", "hs256", "RS256", "PS256", "EdDSA"],
)
def test_any_other_algorithm_is_refused(algorithm: Any) -> None:
    """Also `none`, and one for which there is no key."""
    assert refused(forged({"alg": algorithm})).status == 401
    assert refused(forged({"alg": algorithm}), Tokens([Fixed(rsa_jwk(), ec_jwk())])).status == 401


def test_an_unsigned_token_is_refused() -> None:
    """It ends with a dot; and an algorithm must be named at all."""
    refused(jwt.encode(claims(), "", "none"))
    refused(forged({}))
    refused(forged({"alg": "none"}).rpartition(".")[0] + ".")


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256", "kid": 1},
        {"alg": "HS256", "kid": None},
        {"alg": "HS256", "crit": ["exp"], "exp": 1},
        {"alg": "HS256", "crit": []},
        {"alg": "HS256", "b64": False, "crit": ["b64"]},
        [],
        "HS256",
        None,
    ],
)
def test_headers_that_are_refused(header: Any) -> None:
    """Of a wrong type, or with critical extensions that are not understood (RFC 7515 section 4.1.11)."""
    assert refused(forged(header)).message == "the token is malformed"


def test_a_key_in_the_header_is_not_used() -> None:
    """What a token brings to prove itself proves nothing."""
    secret = "the attacker's own secret, long enough"  # noqa: S105 - of no use
    refused(
        forged({"alg": "HS256", "jwk": oct_jwk(secret), "jku": "https://evil.test"}, secret=secret.encode())
    )


def test_the_named_key_is_the_one() -> None:
    """A key of another name is not tried, one without a name is."""
    text = token(kid="a")
    assert Tokens([Fixed(oct_jwk(kid="a"), oct_jwk("x" * 32, kid="b"))]).identify(text, NOW).subject == "42"
    assert Tokens([Fixed(oct_jwk())]).identify(text, NOW).subject == "42"
    refused(text, Tokens([Fixed(oct_jwk(kid="b"))]))


def test_a_token_without_a_key_name_is_tried_with_each_of_its_algorithm() -> None:
    """So issuers that name none can rotate."""
    several = Tokens([Fixed(ec_jwk("second", kid="new"), ec_jwk(kid="old"))])
    for name in ("first", "second"):
        assert several.identify(token(ec_key(name), "ES256"), NOW).subject == "42"


def test_an_unknown_key_is_looked_for_once_more() -> None:
    """In every source; a known one that does not fit is not."""
    first, second = Fixed(oct_jwk(kid="a")), Fixed(oct_jwk(kid="b"))
    both = Tokens([first, second])
    second.later = parse_jwks(jwks(oct_jwk(kid="c")))
    assert both.identify(token(kid="c"), NOW).subject == "42"
    assert (first.renewals, second.renewals) == (1, 1)
    refused(token("x" * 32, kid="c"), both)
    assert (first.renewals, second.renewals) == (1, 1)


def test_rotation_by_file(tmp_path: Path) -> None:
    """A new key is used at once, an old one until it leaves the file."""
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(ec_jwk(kid="old")))
    of_file = Tokens([KeyFile(str(path), parse_jwks, NOW)])
    old, new = token(ec_key(), "ES256", "old"), token(ec_key("second"), "ES256", "new")
    path.write_bytes(jwks(ec_jwk(kid="old"), ec_jwk("second", kid="new")))
    assert of_file.identify(new, NOW + 0.1).subject == "42"
    assert of_file.identify(old, NOW + 0.1).subject == "42"
    path.write_bytes(jwks(ec_jwk("second", kid="new")))
    refused(old, of_file, NOW + 2)


# -- claims ----------------------------------------------------------------------------------------


@given(offset=st.integers(-100, 100), leeway=st.integers(0, 50))
def test_the_end_is_the_same_for_checking_and_for_the_connection(offset: int, leeway: int) -> None:
    """A token is taken until `expires_at`, and not at it."""
    lenient = Tokens([Secret(SECRET)], leeway_seconds=leeway)
    text = token(exp=NOW + offset)
    if offset + leeway > 0:
        identity = lenient.identify(text, NOW)
        assert identity.expires_at == NOW + offset + leeway
        refused(text, lenient, identity.expires_at)
    else:
        assert refused(text, lenient).message == "the token has expired"


def test_a_token_without_end() -> None:
    """Is refused, unless that is set; its connection has no end then."""
    assert refused(token(exp=...)).message == "the token has no claim exp"
    assert refused(token(exp=None)).message == "the token has no claim exp"
    lenient = Tokens([Secret(SECRET)], require_expiry=False)
    assert lenient.identify(token(exp=...), NOW).expires_at is None
    assert refused(token(exp=NOW), lenient).message == "the token has expired"


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_of_the_future(name: str) -> None:
    """Neither issued nor valid later than now, but for the leeway."""
    now: dict[str, Any] = {name: NOW}
    later: dict[str, Any] = {name: NOW + 5}
    assert tokens.identify(token(**now), NOW).subject == "42"
    assert refused(token(**later)).message == "the token is not valid yet"
    assert Tokens([Secret(SECRET)], leeway_seconds=5).identify(token(**later), NOW).subject == "42"


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", ["1800000060", True, [], {}, -1, 1e300, 10**400, float("inf"), float("nan")]
)
def test_times_are_numbers(name: str, value: Any) -> None:
    """Nothing else is taken for one."""
    assert (
        refused(token(**{name: value})).message
        == f"the token's claim {name} is not a time in seconds since 1970"
    )


@pytest.mark.parametrize("subject", [..., None, "", 42, ["42"], "x" * 257, "a\nb", "a\x00", "\u202e"])
def test_the_subject_is_a_text(subject: Any) -> None:
    """It is compared and logged."""
    assert refused(forged({"alg": "HS256"}, claims(sub=subject))).status == 401


def test_audience() -> None:
    """One of ours must be named if we have any, and none if we have none."""
    ours = Tokens([Secret(SECRET)], audience=["odin", "prices"])
    for audience in ("odin", ["x", "prices"]):
        assert ours.identify(token(aud=audience), NOW).subject == "42"
        assert refused(token(aud=audience)).message == "the token is for another audience (aud)"
    for wrong in (..., "x", [], ["x"], 1, {"odin": 1}, [1]):
        assert refused(token(aud=wrong), ours).message == "the token is for another audience (aud)"


def test_issuer() -> None:
    """One of ours if we name any; else it does not matter."""
    ours = Tokens([Secret(SECRET)], issuer=["https://a.test", "https://b.test"])
    assert ours.identify(token(iss="https://b.test"), NOW).subject == "42"
    assert tokens.identify(token(iss="https://x.test"), NOW).subject == "42"
    for wrong in (..., "https://x.test", "https://a", ["https://a.test"], 1):
        text = forged({"alg": "HS256"}, claims(iss=wrong))
        assert refused(text, ours).message == "the token is of another issuer (iss)"


def test_channels_that_can_not_be_used() -> None:
    """A proven token with permissions that mean nothing here: 403 and 4403."""
    error = refused(token(channels=["everything"]))
    assert (error.status, error.reason.code) == (403, 4403)


@pytest.mark.parametrize("payload", [[], "x", 1, None])
def test_claims_are_an_object(payload: Any) -> None:
    """Whatever is signed."""
    assert refused(forged({"alg": "HS256"}, payload)).message == "the token is malformed"


# -- anything --------------------------------------------------------------------------------------


@given(JSON, JSON)
def test_any_header_and_any_claims(header: Any, payload: Any) -> None:
    """Are refused, never with another exception: also when the header alone is good."""
    refused(forged(header, payload))
    refused(forged({"alg": "HS256"}, payload))


@given(st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "iss", "channels"]), JSON))
def test_any_value_of_a_claim(changed: dict[str, Any]) -> None:
    """Leads to an identity or an AccessError."""
    try:
        identity = tokens.identify(forged({"alg": "HS256"}, {**claims(), **changed}), NOW)
    except AccessError:
        return
    assert identity.subject
    assert identity.expires_at is not None
    assert identity.expires_at > NOW


@given(st.data())
def test_any_change_of_a_token_is_noticed(data: st.DataObject) -> None:
    """One character, wherever: no two texts stand for one token."""
    text = data.draw(st.sampled_from([token(), token(rsa_key(), "RS256"), token(ec_key(), "ES256")]))
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("ABCDEFGHxyz019-_."))
    changed = text[:place] + other + text[place + 1 :]
    if changed != text:
        with pytest.raises(AccessError):
            Tokens([Fixed(rsa_jwk(), ec_jwk()), Secret(SECRET)]).identify(changed, NOW)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", fullmatch=True))
def test_any_text(text: str) -> None:
    """Is no token."""
    with pytest.raises(AccessError):
        tokens.identify(text, NOW)


def test_claims_nested_without_end() -> None:
    """No stack is worth a token."""
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(b"[" * 3000).rstrip(b"=")
    signature = hmac.new(SECRET.encode(), head + b"." + body, hashlib.sha256).digest()
    text = b".".join((head, body, base64.urlsafe_b64encode(signature).rstrip(b"=")))
    with pytest.raises(AccessError, match="malformed"):
        tokens.identify(text.decode(), NOW)


# -- refresh ---------------------------------------------------------------------------------------


def test_refresh() -> None:
    """The new token's end and permissions take the place of the old ones, also if they are less."""
    old = tokens.identify(token(), NOW)
    new = tokens.refresh(old, token(exp=NOW + 30, channels=["global"]), NOW)
    assert new == Identity("42", NOW + 30, DEFAULT.permissions_of("42", ["global"]))


def test_refresh_keeps_the_subject() -> None:
    """403 for another; a connection of nobody may become somebody's."""
    old = tokens.identify(token(), NOW)
    with pytest.raises(AccessError, match="another subject") as caught:
        tokens.refresh(old, token(sub="43"), NOW)
    assert caught.value.status == 403
    assert tokens.refresh(ANONYMOUS, token(sub="43"), NOW).subject == "43"


@pytest.mark.parametrize("text", ["", "x", token(exp=NOW), token("another secret of at least 32 bytes")])
def test_refresh_needs_a_good_token(text: str) -> None:
    """401, as at the start."""
    with pytest.raises(AccessError) as caught:
        tokens.refresh(ANONYMOUS, text, NOW)
    assert caught.value.status == 401
