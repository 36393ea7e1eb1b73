"""The settings of a server.

model          the fields, each with unit and bounds; how they are read, and how they depend on each other
checks         values given as text: read, checked, shown
documentation  settings in words, for the docs and for errors
"""

from odinws.settings.checks import read_channels_file, shown, without_credentials
from odinws.settings.documentation import Description, describe, public
from odinws.settings.model import MAX_SHARDS, Settings, platform_variables, usable_cores, variable

__all__ = [
    "MAX_SHARDS",
    "Description",
    "Settings",
    "describe",
    "platform_variables",
    "public",
    "read_channels_file",
    "shown",
    "usable_cores",
    "variable",
    "without_credentials",
]
