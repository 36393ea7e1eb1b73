"""Settings that vectors need. Vectors of one stage meet the same server, as long as it takes no harm."""

from __future__ import annotations

from typing import NamedTuple

from tests.access.material import SECRET

RISE_BYTES = 20 << 20  # by which the memory of all workers may rise


class Stage(NamedTuple):
    """What a server is started with.

    Attributes:
        settings: beside those of all stages, as sorted pairs.
        tls: whether its port speaks TLS.
        rise_bytes: by how much the memory of all workers may rise.
    """

    name: str
    settings: tuple[tuple[str, str], ...] = ()
    tls: bool = False
    rise_bytes: int = RISE_BYTES


PLAIN = Stage("plain")
# As by default: a quarter of WS_MEMORY_LIMIT, by which memory may rise before anybody is closed.
ROOMY = Stage("roomy", (("WS_CLIENT_MEMORY", str(64 << 20)),), rise_bytes=RISE_BYTES + (64 << 20))
KEYS = Stage("keys", (("WS_ALLOW_ANONYMOUS", "1"), ("WS_JWT_SECRET", SECRET)))
TLS = Stage("tls", tls=True)
SMALL = Stage("small", (("WS_MAX_CONNECTIONS", "200"),))
SMALL_KEYS = Stage("small-keys", KEYS.settings + SMALL.settings)
ORIGINS = Stage("origins", (("WS_ORIGINS", "https://feed.example"),))
TRUSTING = Stage("trusting", (("WS_TRUSTED_PROXIES", "10.78.0.0/16,127.78.0.0/16"),))
ACCESS_LOG = Stage("access-log", (("LOG_ACCESS", "1"),))
