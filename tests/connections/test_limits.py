"""`odinws.connections.connection`: from the settings, and to the client."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from odinws.connections.limits import ConnectionLimits
from odinws.connections.outbox import SlowPolicy
from odinws.settings import Settings


@pytest.mark.parametrize(("setting", "held", "in_welcome"), [("0", math.inf, 0.0), ("7", 7.0, 7.0)])
def test_no_limit_for_the_first_command(setting: str, held: float, in_welcome: float) -> None:
    """0 stands for none outside, also in the welcome; inside it is a time like any other."""
    limits = ConnectionLimits.of(Settings.from_environ({"WS_FIRST_COMMAND_SECONDS": setting}))
    assert limits.first_command_seconds == held
    assert limits.for_welcome()["first_command_seconds"] == in_welcome


def test_what_a_client_is_told() -> None:
    """Each limit that it can keep to, by the name of the interface."""
    environ = {
        "WS_COMMAND_RATE": "5",
        "WS_COMMAND_BURST": "9",
        "WS_MAX_SUBSCRIPTIONS": "3",
        "WS_MAX_ERRORS": "4",
    }
    in_welcome = ConnectionLimits.of(Settings.from_environ(environ)).for_welcome()
    assert in_welcome == {
        "max_message_bytes": 65536,
        "max_subscriptions": 3,
        "max_wildcards": 32,
        "max_channel_bytes": 70,
        "commands_per_second": 5.0,
        "command_burst": 9,
        "control_frames_per_second": 50.0,
        "control_frame_burst": 90,
        "max_errors": 4,
        "outbox_bytes": 1 << 20,
        "outbox_frames": 8192,
        "idle_seconds": 60.0,
        "first_command_seconds": 300.0,
    }


def test_a_slow_policy_for_each_channel(tmp_path: Path) -> None:
    """A rule's goes before the setting; policies that nobody has cost nothing."""
    file = tmp_path / "channels.toml"
    file.write_text(
        "".join(
            f'[[channels]]\npattern = "{policy}.*"\nslow_policy = "{policy}"\n'
            for policy in ("conflate", "disconnect")
        )
        + '[[channels]]\npattern = "other"\n'
    )

    def dropping(**given: str) -> dict[SlowPolicy, list[str]]:
        limits = ConnectionLimits.of(Settings.from_environ(given))
        names = ("conflate.a", "conflate.*", "disconnect.a", "other")
        return {policy: list(filter(applies, names)) for policy, applies in limits.dropping.items()}

    assert dropping() == {}
    ours = {"WS_CHANNELS_FILE": str(file)}
    assert dropping(**ours) == {SlowPolicy.CONFLATE: ["conflate.a", "conflate.*"]}
    assert dropping(**ours, WS_SLOW_POLICY="drop-oldest") == {
        SlowPolicy.CONFLATE: ["conflate.a", "conflate.*"],
        SlowPolicy.DROP_OLDEST: ["other"],
    }
