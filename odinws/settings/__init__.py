"""The settings of a server.

model     the fields, each with unit and bounds; how they are read, and how they depend on each other
checks    values given as text: read, checked, shown
words     settings in words, for documentation and errors
"""

from odinws.settings.checks import without_credentials
from odinws.settings.model import MAX_SHARDS, Settings, usable_cores
from odinws.settings.words import Description, describe, public

__all__ = [
    "MAX_SHARDS",
    "Description",
    "Settings",
    "describe",
    "public",
    "usable_cores",
    "without_credentials",
]
