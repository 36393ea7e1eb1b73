"""The settings of a server.

model     the fields, each with unit and bounds, and how they are read
checks    what one field alone can't say
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
