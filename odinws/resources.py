"""Files that come with odinws beside its modules: configurations, plans, scenarios of load.

In a checkout they lie beside the packages; in a wheel they lie within `odinws`, under the same names.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
PACKAGES = _PACKAGE.parent
"""The directory from which `odinws` is imported: for PYTHONPATH of processes that run elsewhere."""


def find(name: str) -> Path:
    """The path of such a file or directory, as `conf/flags.json`.

    Raises:
        FileNotFoundError: nothing of this name came with odinws.
    """
    for place in (_PACKAGE / name, PACKAGES / name):
        if place.exists():
            return place
    raise FileNotFoundError(f"{name} did not come with this odinws")
