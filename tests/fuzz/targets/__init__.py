"""What is fuzzed. Each module says which bytes its inputs are, and what must hold for any of them."""

from __future__ import annotations

from tests.fuzz.targets import (
    claims,
    commands,
    credentials,
    deflate,
    envelopes,
    frames,
    jwks,
    origin,
    proxies,
    settings,
    tokens,
)
from tests.fuzz.targets.base import Target

TARGETS = {
    target.name: target
    for target in (
        Target("frames", frames.check),
        Target("commands", commands.check),
        Target("envelopes", envelopes.check),
        Target("deflate", deflate.check),
        Target("settings", settings.check),
        Target("credentials", credentials.check),
        Target("tokens", tokens.check),
        Target("claims", claims.check),
        Target("jwks", jwks.check),
        Target("origin", origin.check),
        Target("proxies", proxies.check),
    )
}
