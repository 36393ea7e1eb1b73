"""The feed shows NATS who it is: by token, by NKey, by certificate; and says so when it is not believed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import nkeys
import pytest
from nacl.signing import SigningKey

from odinws.feed.embedded import find_nats_server
from tests.certificate import self_signed
from tests.integration.conftest import Serve
from tests.server import free_port, wait_for
from tests.wire import Peer


@contextlib.contextmanager
def guarded(directory: Path, config: str) -> Iterator[int]:
    """A nats-server with this configuration; its port."""
    port = free_port()
    path = directory / "nats.conf"
    path.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{directory / "js"}" }}\n{config}\n'
    )
    with (directory / "nats.log").open("w") as log:
        process = subprocess.Popen([str(find_nats_server()), "-c", str(path)], stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(60)


def publish(url: str, **options: Any) -> None:
    """One message."""

    async def run() -> None:
        client = await nats.connect(url, **options)
        await client.publish("odin.token.A", b'{"n":1}')
        await client.flush()
        await client.close()

    asyncio.run(run())


def nkey(directory: Path) -> tuple[Path, str]:
    """A seed in a file, and its public key."""
    seed = nkeys.encode_seed(bytes(SigningKey.generate()), nkeys.PREFIX_BYTE_USER)
    path = directory / "user.nk"
    path.write_bytes(seed)
    return path, nkeys.from_seed(bytearray(seed)).public_key.decode()


def credentials(directory: Path) -> tuple[Path, str]:
    """A credentials file, and the configuration of a nats-server that believes it (NATS ADR-14)."""

    def pair(prefix: int) -> tuple[bytes, Any, str]:
        seed = bytes(nkeys.encode_seed(bytes(SigningKey.generate()), prefix))
        keys = nkeys.from_seed(bytearray(seed))
        return seed, keys, keys.public_key.decode()

    def signed(keys: Any, issuer: str, subject: str, claims: dict[str, Any]) -> str:
        body = {
            "jti": subject,
            "iat": 1_700_000_000,
            "iss": issuer,
            "sub": subject,
            "name": "t",
            "nats": claims,
        }
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, body]
        text = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        return f"{text}.{_base64(keys.sign(text.encode()))}"

    _, operator, operator_name = pair(nkeys.PREFIX_BYTE_OPERATOR)
    _, account, account_name = pair(nkeys.PREFIX_BYTE_ACCOUNT)
    _, _, system_name = pair(nkeys.PREFIX_BYTE_ACCOUNT)
    seed, _, user_name = pair(nkeys.PREFIX_BYTE_USER)
    most = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    limits = {**most, "wildcards": True, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    trusted = signed(operator, operator_name, operator_name, {"type": "operator", "version": 2})
    claims = {"type": "account", "version": 2}
    owned = signed(operator, operator_name, account_name, {**claims, "limits": limits})
    system = signed(operator, operator_name, system_name, {**claims, "limits": most})
    user = signed(
        account,
        account_name,
        user_name,
        {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1},
    )
    path = directory / "user.creds"
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed.decode()}\n------END USER NKEY SEED------\n"
    )
    accounts = f"{account_name}: {owned}, {system_name}: {system}"
    config = f"operator: {trusted}\nsystem_account: {system_name}\nresolver: MEMORY\n"
    return path, f"{config}resolver_preload: {{ {accounts} }}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("kind", ["token", "nkey", "credentials", "certificate"])
def test_it_is_believed(serve: Serve, tmp_path: Path, kind: str) -> None:
    """Messages flow; no secret stands in the log."""
    certificate, key = self_signed(tmp_path)
    seed, public = nkey(tmp_path)
    path, resolver = credentials(tmp_path)
    secret = "a token for these tests"  # noqa: S105 - that is what it is
    config, scheme, settings, options = {
        "token": (
            f'authorization {{ token: "{secret}" }}',
            "nats",
            {"NATS_TOKEN": secret},
            {"token": secret},
        ),
        "nkey": (
            f"authorization {{ users = [ {{ nkey: {public} }} ] }}",
            "nats",
            {"NATS_NKEY_FILE": str(seed)},
            {"nkeys_seed": str(seed)},
        ),
        "credentials": (resolver, "nats", {"NATS_CREDS_FILE": str(path)}, {"user_credentials": str(path)}),
        "certificate": (
            f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}',
            "tls",
            {"NATS_CA_FILE": str(certificate)},
            {},
        ),
    }[kind]
    with guarded(tmp_path, config) as port:
        server = serve(NATS_URL=f"{scheme}://127.0.0.1:{port}", **settings)
        with Peer(server.port) as peer:
            peer.upgrade()
            peer.ask("subscribe", channels=["token.A"])
            trust = {"tls": ssl.create_default_context(cafile=str(certificate))} if scheme == "tls" else {}
            publish(f"{scheme}://127.0.0.1:{port}", **options, **trust)
            assert peer.next().json["data"] == {"n": 1}
        assert secret not in server.log()


def test_it_is_not_believed(serve: Serve, tmp_path: Path) -> None:
    """The server lives, is not ready, and says why."""
    with guarded(tmp_path, 'authorization { token: "right" }') as port:
        server = serve(ready=False, NATS_URL=f"nats://127.0.0.1:{port}", NATS_TOKEN="wrong")  # noqa: S106
        wait_for(lambda: "uthorization" in str(server.json("/readyz")["reasons"]), 10, "the reason")
        assert server.get("/livez")[0] == 200
    server = serve(ready=False, NATS_URL=f"tls://127.0.0.1:{port}", NATS_CA_FILE="/nowhere.pem")
    wait_for(lambda: "TLS to NATS" in str(server.json("/readyz")["reasons"]), 10, "the reason")
