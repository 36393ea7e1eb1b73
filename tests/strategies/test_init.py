"""Choosing a strategy by its name."""

import subprocess
import sys

import pytest

import strategies
from strategies import Strategy, UnknownStrategy


@pytest.mark.parametrize("name", strategies.NAMES)
def test_create_makes_the_strategy_of_that_name(name: str) -> None:
    """Each name leads to a class that bears it, with the default options."""
    made = strategies.create(name)
    assert isinstance(made, Strategy)
    assert made.name == name


def test_names_and_shard_keys_are_those_of_the_settings() -> None:
    """Operators' configurations depend on these words."""
    assert {"single-lock", "fnv-sharded", "consistent-hash", "sync-dict"} <= set(strategies.NAMES)
    assert strategies.SHARD_KEYS == ("channel", "connection")


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    """One line for the operator, fields for the program."""
    with pytest.raises(UnknownStrategy) as caught:
        strategies.create("rw-lock")
    assert caught.value.name == "rw-lock"
    assert caught.value.known == strategies.NAMES
    message = str(caught.value)
    assert "\n" not in message
    assert all(name in message for name in ("rw-lock", *strategies.NAMES))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", strategies.NAMES)
def test_only_the_chosen_strategy_is_imported(name: str) -> None:
    """The package imports no strategy; `create` imports one."""
    module = "strategies." + name.replace("-", "_")
    program = (
        "import sys, strategies\n"
        f"arms = {{'strategies.' + name.replace('-', '_') for name in strategies.NAMES}}\n"
        "assert not arms & set(sys.modules), arms & set(sys.modules)\n"
        f"strategies.create({name!r})\n"
        f"assert arms & set(sys.modules) == {{{module!r}}}\n"
        "assert not any(loaded.startswith('gevent') for loaded in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
