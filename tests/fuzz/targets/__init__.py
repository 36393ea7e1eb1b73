"""What is fuzzed. Each module says which bytes its inputs are, and what must hold for any of them."""

from __future__ import annotations

from tests.fuzz.targets import (
    centrifugo,
    channels,
    claims,
    commands,
    credentials,
    deflate,
    envelopes,
    frames,
    heads,
    jwks,
    logs,
    origin,
    proxies,
    settings,
    streams,
    tokens,
)
from tests.fuzz.targets.base import Target

TARGETS = {
    target.name: target
    for target in (
        Target("heads", heads.check, heads.read),
        Target("frames", frames.check, frames.read),
        Target("commands", commands.check, commands.read),
        Target("centrifugo-json", centrifugo.check_json, centrifugo.read_json),
        Target("centrifugo-protobuf", centrifugo.check_protobuf, centrifugo.read_protobuf),
        Target("envelopes", envelopes.check),
        Target("streams", streams.check, streams.read),
        Target("deflate", deflate.check, deflate.read),
        Target("settings", settings.check),
        Target("credentials", credentials.check, credentials.read),
        Target("tokens", tokens.check, tokens.read),
        Target("claims", claims.check, claims.read),
        Target("jwks", jwks.check),
        Target("origin", origin.check, origin.read),
        Target("proxies", proxies.check, proxies.read),
        Target("logs", logs.check, logs.read),
        Target("channels", channels.check, channels.read),
    )
}
