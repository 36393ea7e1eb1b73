"""All vectors, one after the other; each that breaks something leaves a new server to the next."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tests.attack.judging import Trial, faults
from tests.attack.network import Network
from tests.attack.scene import Scene, scene
from tests.attack.stages import Stage
from tests.attack.trial import Times, trial
from tests.attack.vectors.base import Vector

_ADDRESSES = 50  # of the attackers of one vector


class Scenes:
    """The scene of the stage at hand, made anew when it is asked for."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._network = network
        self._folder = folder
        self._count = itertools.count()
        self._stack = contextlib.ExitStack()
        self._current: Scene | None = None

    def of(self, stage: Stage) -> Scene:
        """That of a stage."""
        if self._current is None or self._current.stage != stage:
            self.drop()
            folder = self._folder / f"{stage.name}-{next(self._count)}"
            self._current = self._stack.enter_context(scene(self._network, stage, folder))
        return self._current

    def attack(self, vector: Vector, times: Times, attempts: int) -> Trial:
        """Try a vector; once more on a new server if it breaks something, as the machine may be busy."""
        while True:
            attempts -= 1
            at, log = self.of(vector.stage), self._folder / "attackers.log"
            found = trial(at, vector, next(self._count) * _ADDRESSES, times, log)
            if not faults(found, times.late):
                return found
            self.drop()
            if attempts <= 0:
                return found

    def drop(self) -> None:
        """End the current one."""
        self._current = None
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()


def run(
    vectors: Sequence[Vector], scenes: Scenes, times: Times, attempts: int, console: Console
) -> list[Trial]:
    """Try each vector, and tell how far it is."""
    trials = []
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(vectors), said="")
        for vector in vectors:
            progress.update(task, description=vector.name)
            found = scenes.attack(vector, times, attempts)
            broken = faults(found)
            if broken:
                console.print(
                    f"{vector.name}: {'; '.join(broken)}", style="red", highlight=False, markup=False
                )
            trials.append(found)
            bad = sum(1 for each in trials if faults(each))
            progress.update(task, advance=1, said=f"{len(trials) - bad} hold, {bad} do not")
    return trials
