"""A gunicorn configuration with which no server starts."""

import sys

sys.exit("this configuration is broken on purpose")
