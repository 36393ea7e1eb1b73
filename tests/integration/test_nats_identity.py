"""The feed shows NATS who it is: by token, by NKey, by certificate; and says so when it is not believed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import nkeys  # type: ignore[import-untyped]
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
        process.wait(10)


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


@pytest.mark.parametrize("kind", ["token", "nkey", "certificate"])
def test_it_is_believed(serve: Serve, tmp_path: Path, kind: str) -> None:
    """Messages flow; no secret stands in the log."""
    certificate, key = self_signed(tmp_path)
    seed, public = nkey(tmp_path)
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
