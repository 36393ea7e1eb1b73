"""The bare C loop: the floor that the kernel sets."""

from __future__ import annotations

from bench.arms.base import Arm, Command, Place
from bench.build import BENCH, call, compile_c, tool

_SOURCES = BENCH / "peers/c_loop"


def _build() -> dict[str, str]:
    compile_c(_SOURCES, "c_loop")
    return {"cc": call([tool("cc", "a C compiler"), "--version"]).splitlines()[0]}


def _arm(name: str, title: str, batch: int) -> Arm:
    def command(place: Place) -> Command:
        program = compile_c(_SOURCES, "c_loop")
        words = (place.port, place.feed_socket, batch, place.ping_seconds, place.workers)
        return Command((str(program), *(str(word) for word in words)))

    return Arm(name, title, _build, command, takes_workers=True)


ARMS = (
    _arm("c-loop", "bare C: one send() per message", 0),
    _arm("c-batch", "bare C: one writev() per burst", 1),
)
